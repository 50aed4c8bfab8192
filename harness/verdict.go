package harness

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"example.com/podharness/spawn/podlog"
)

// checkStatus returns the error that the pod has ended with a status that it should not have
// when it was stopped: it may hide what a race detector or a sanitizer has found.
func (p *Pod) checkStatus(step string) error {
	state := p.State()
	if state == nil || !state.Exited() || state.Success() || slices.ContainsFunc(p.cfg.StopStatus, func(allowed int) bool { return allowed < 0 || allowed == state.ExitCode() }) {
		return nil
	}
	p.mu.Lock()
	excused := p.killed || p.signalled
	p.mu.Unlock()
	if excused || p.box.failed() || failed(p.tb) {
		return nil
	}
	e := p.failed("", fmt.Errorf("pod %s was stopped by %s and ended with %s, not 0\n\tnote: Config.StopStatus, or podstart -stop-status, is for pods that may", p.name(), step, state))
	e.saysEnd = true
	return e
}

// checkLog reads the log of a pod that has ended for what the test should know. Of a test that
// fails the log is shown anyway.
func (p *Pod) checkLog() error {
	p.tb.Helper()
	if p.stopErr != nil || p.box.failed() || failed(p.tb) {
		return nil
	}
	found := p.log.Findings()
	if found.ReadyAgain != "" && !p.cfg.AllowReadyAgain && !p.adopted {
		e := p.failed("", fmt.Errorf("pod %s wrote a second ready line: %q\n\tnote: Config.AllowReadyAgain, or podstart -allow-ready-again, is for pods that may", p.name(), found.ReadyAgain))
		e.saysEnd = true
		return e
	}
	if found.Crash != nil {
		happened(crashed, p.tb)
		lines := podlog.PrintableLines(strings.Join(found.Crash, "\n\t\t"))
		p.tb.Logf("harness: the log of pod %s has a report, though the test passes:\n\t\t%s\n\tlog: %s (a test that fails keeps it)", p.name(), lines, podlog.PathText(p.LogPath))
	}
	return nil
}

// ungraceful tells that the pod did not stop by itself. It is an error where that is
// one of the test.
func (p *Pod) ungraceful(hitch, how, note string) error {
	p.tb.Helper()
	happened(hitch, p.tb)
	if p.cfg.MustStopGracefully {
		return p.failed(note, fmt.Errorf("pod %s %s", p.name(), how))
	}
	p.tb.Logf("harness: pod %s %s%s%s", p.name(), how, note, p.attempt.TellGoroutines())
	return nil
}

func (p *Pod) isEndedBy(sig syscall.Signal) bool {
	state := p.State()
	if state == nil {
		return false
	}
	status := state.Sys().(syscall.WaitStatus)
	return sig != syscall.SIGKILL && status.Signaled() && status.Signal() == sig
}

// judge returns the error that the pod has ended without the test's asking, as it
// was at the first call: from then on its end is expected.
func (p *Pod) judge() error {
	err := p.died()
	p.expectEnd()
	return err
}

// died returns the error that the pod has ended without the test's asking.
func (p *Pod) died() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if how, ended := p.Ended(); ended && !p.expected && p.waits == 0 && p.verdict == nil {
		p.verdict = p.failed("", fmt.Errorf("pod %s ended by itself during the test (%s)", p.name(), how))
		p.verdict.saysEnd = true
		if tail, err := podlog.ReadTail(p.log.Reader()); err == nil {
			p.verdict.Reason = p.log.Redact(tail.Reason())
		}
		_ = fails(p.attempt, p.verdict)
	}
	if p.verdict == nil {
		return nil
	}
	return p.verdict
}

// tell returns what died has found as a test is told it: the last lines only once.
func (p *Pod) tell() error {
	if p.died() == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	verdict := *p.verdict
	if p.told {
		if verdict.shown = ""; verdict.Reason != "" {
			verdict.shown = "\n\treason: " + podlog.Printable(verdict.Reason)
		}
	}
	p.told = true
	return &verdict
}
