package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
)

// faultReadyTimeout is the ready timeout of -faults: many runs may wait until it is over. A run that
// has is confirmed with that of the contract: Bash tries a fork for 15 seconds before it gives up.
const faultReadyTimeout = 5 * time.Second

// faultPod is the pod's name in runs with faults.
const faultPod = "alpha"

// faultRequirements are what must hold when a system call of a pod fails.
var faultRequirements = []sweep.Requirement{
	{ID: "fault-answered", Level: conformance.Must, Section: "5b", Text: "be ready and serve, or end, before the ready timeout, whichever system call fails",
		Fix: "let every error on the way to ready end the process, also one in another thread"},
	{ID: "fault-honest", Level: conformance.Must, Section: "5b", Text: "end with a status other than 0 when its start has failed, and write its ready line, whole, only if it serves then",
		Fix: "end with another status than 0 after an error; write the ready line in one write, after all that can fail, and check how much of it was written"},
	{ID: "fault-told", Level: conformance.Should, Section: "5b", Text: "name what failed in the last words of a start that failed: the error's text, name or number, or the path",
		Fix: "log the system's error with the path before the process ends"},
	{ID: "fault-clean", Level: conformance.Must, Section: "5b", Text: "leave no process behind when a system call has failed",
		Fix: "end what was started on each way out"},
	{ID: "fault-serving", Level: conformance.Must, Section: "5b", Text: "serve the next client after one system call has failed while it serves, and use no core for calls that fail again and again",
		Fix: "let an error end that one connection; wait a moment before accept is tried again"},
	{ID: "fault-stop", Level: conformance.Must, Section: "5b", Text: "end within the grace when it is stopped, tidy or not, whichever system call fails",
		Fix: "exit also when something cannot be removed"},
	{ID: "fault-restart", Level: conformance.Must, Section: "5b", Text: "start again once the cause of a failure is gone",
		Fix: "write a file beside its place and rename it; take over what an earlier life has left: locks, sockets, unfinished files"},
	{ID: "crash-restart", Level: conformance.Must, Section: "5b", Text: "start again after a SIGKILL at any system call",
		Fix: "write a file beside its place and rename it; take over what an earlier life has left: locks, sockets, unfinished files"},
}

// faultSweep is one run of -faults.
type faultSweep struct {
	*settings
	*sweep.Sweep
	scrap   string // a directory for what nobody asks for
	answers bool   // the pod answers a ping
}

func newFaultSweep(s *settings) *faultSweep {
	f := &faultSweep{settings: s}
	f.Sweep = &sweep.Sweep{
		Flags: &s.Flags, Runs: s.Runs, Faults: s.faults, Of: "pod", Requirements: faultRequirements, Timeout: s.timeout, Observe: f.observe, Try: f.try,
		Repeat: f.repeat,
	}
	return f
}

// givenFlags are the flags that change what is tested, beside those of its command.
var givenFlags = regexp.MustCompile(`^-(name-flag|extra-arg|workspace|home|profile|ticket-role|ready-timeout|grace|env)=`)

// repeat is the command line for one trial, and the line of a scenario.
func (f *faultSweep) repeat(id string, t sweep.Trial) string {
	text := t.Fault.String()
	words := []string{"podscript", "-fault", text, "-run", "^" + id + "$"}
	for i, word := range f.settings.Tested.Argv {
		words = append(words, map[bool]string{true: "-pod=", false: "-pod-arg="}[i == 0]+word)
	}
	for _, word := range f.settings.Tested.Flags {
		if givenFlags.MatchString(word) {
			words = append(words, word)
		}
	}
	for i, word := range words {
		words[i] = podlog.ShellWord(word)
	}
	return strings.Join(words, " ") + "\nin a scenario: podstart -fault " + podlog.ShellWord(text) + " " + faultPod
}

// sweepFaults runs and reports -faults, and returns the exit status.
func (s *settings) sweepFaults(stdout, stderr io.Writer) (status int, err error) {
	f := newFaultSweep(s)
	if f.scrap, err = tempDir(); err != nil {
		return 0, err
	}
	defer safefile.RemoveAll(f.scrap)
	return f.Main("podscript", stdout, stderr)
}

// onlyFaults reports whether -run names requirements of -faults alone, which are run with the
// one -fault then.
func (s *settings) onlyFaults() bool {
	return s.faults.Fault != nil && len(s.paths) == 0 && slices.ContainsFunc(faultRequirements, func(r sweep.Requirement) bool { return s.Chosen(r.ID) }) &&
		!slices.ContainsFunc(scripts.Requirements(), func(r scripts.Requirement) bool { return s.Chosen(r.ID) })
}

// observe runs the pod once, and returns the points that it has come to.
func (f *faultSweep) observe() ([]sweep.Point, error) {
	tb := &faultTB{name: "healthy", sweep: f}
	defer tb.finish()
	cfg := f.config()
	w := sweep.World{Name: faultPod, All: f.faults.All, Program: sweep.ProgramOf(f.settings.Tested.Argv)}
	runtime := harness.RuntimeDir(tb)
	if tb.fatal != nil {
		return nil, tb.fatal
	}
	w.Root = filepath.Dir(runtime)
	cfg.Faults = f.Noted(w)
	pod, err := harness.TryStartPod(tb, cfg)
	if err != nil {
		if !errors.Is(err, fault.ErrUnsupported) {
			err = told(err) // without the calls, which were only noted
		}
		return nil, err
	}
	if err = tb.visit(pod, false, visitTimeout); err == nil {
		f.answers = tb.visit(pod, true, visitTimeout) == nil
	}
	if _, ended := pod.Ended(); err != nil || ended {
		return nil, errors.Join(errors.New("it serves no client"), err)
	}
	tb.closeAll()
	stop := time.Now()
	err = pod.Stop()
	switch {
	case err != nil:
		return nil, err
	case len(tb.leaks()) > 0:
		return nil, fmt.Errorf("it leaves %s", tb.leaks()[0])
	case killed(pod.State()):
		return nil, fmt.Errorf("it does not end within %v of SIGINT", cfg.StopGrace)
	case pod.Faults.Err() != nil:
		return nil, pod.Faults.Err()
	}
	workspace, _, err := tb.box.Furnish(faultPod, nil, nil)
	if err != nil {
		return nil, err
	}
	w.Bases = [][2]string{{"{runtime}", runtime}, {"{home}", tb.box.Dir("home")}, {"{workspace}", workspace}}
	ready := pod.Timeline.Start.Add(pod.Timeline.ReadyLine)
	return f.Points(w, pod.Faults.Strikes(), func(c fault.Strike) string {
		switch {
		case !c.Time.After(ready):
			return "start"
		case c.Time.After(stop):
			return "stop"
		}
		return "serving"
	}), nil
}
