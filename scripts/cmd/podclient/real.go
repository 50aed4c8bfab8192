package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/harness"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
)

// realCase is what happens around the start of a real pod (-pod).
type realCase struct {
	before func(p *harness.Pod) error // what becomes of one that the client has started first; nil = there is none
	during syscall.Signal             // sent once the pod has begun; 0 = none is
	to     string                     // whom it is sent to: pod, or client
	flag   string                     // which the pod is given, too
}

// realCases are run one after the other: a pod may claim its workspace.
func realCases() []testCase {
	ready, exited := oracle.Outcome{Verdict: oracle.Ready}, oracle.Outcome{Verdict: oracle.Exited}
	leave := func(*harness.Pod) error { return nil }
	return []testCase{
		{name: "ready", doc: "the pod becomes ready, and answers", want: ready, real: &realCase{}},
		{name: "restart-after-stop", doc: "a pod of the name was stopped", want: ready, real: &realCase{before: (*harness.Pod).Stop}},
		{name: "restart-after-kill", doc: "a pod of the name was killed", want: ready, real: &realCase{before: (*harness.Pod).Kill}},
		{name: "second-start", doc: "a pod of the name answers", want: oracle.Outcome{Verdict: either}, real: &realCase{before: leave}, second: true},
		{name: "refused", doc: "the pod does not know one of its flags", want: exited, real: &realCase{flag: "--no-flag-that-a-pod-knows"}},
		{name: "killed", doc: "the pod is killed before it is ready", want: exited, real: &realCase{during: syscall.SIGKILL, to: "pod"}},
		{name: "suspended", doc: "the pod is suspended before it is ready", want: oracle.Outcome{Verdict: oracle.TimedOut, Missing: "ready line", Step: -1}, real: &realCase{during: syscall.SIGSTOP, to: "pod"}},
		{name: "interrupted", doc: "SIGINT comes to the client before the pod is ready", want: oracle.Outcome{Verdict: cancelled}, real: &realCase{during: syscall.SIGINT, to: "client"}},
	}
}

// command is the real pod, which a shell notes the begin of.
func (c realCase) command(pod spawn.Command, trace string) spawn.Command {
	script := `echo "0 0 $$" >>"$0"; exec "$@"`
	if c.flag != "" {
		script += " " + c.flag
	}
	return spawn.Command{Program: "/bin/sh", PrefixArgs: append([]string{"-c", script, trace, pod.Program}, pod.PrefixArgs...)}
}

// meet has the client start the real pod, and judges it.
func (s *sweepCase) meet() ([]conformance.Check, error) {
	var first *harness.Pod
	if s.real.before != nil {
		if err := s.first(); err != nil {
			return nil, err
		}
		var err error
		if first, err = harness.TryAdopt(s.tb, s.pod, prompt); err != nil {
			return nil, errNoFirst
		}
		if err := s.real.before(first); err != nil {
			return nil, fmt.Errorf("the pod could not be ended: %w", err)
		}
	}
	before := len(s.seen.Steps)
	if err := s.start(); err != nil {
		return nil, err
	}
	if s.real.during != 0 {
		go s.disturb(before)
	}
	s.wait()
	if err := s.notStarted(); err != nil {
		return nil, err
	}
	s.readOutput()
	return s.judgeReal(before, first), nil
}

// disturb sends the signal of the case as soon as the pod, the n-th one, has begun.
func (s *sweepCase) disturb(n int) {
	if !s.await(func(seen fakepod.Trace) bool { return len(seen.Steps) > n }) {
		return
	}
	seen, _ := fakepod.ReadTrace(s.trace)
	to := seen.Steps[n].Process
	if s.real.to == "client" {
		<-time.After(20 * time.Millisecond) // it knows its pod
		to = -s.client.PID
	}
	s.signalled.Store(monotonic())
	_ = syscall.Kill(to, s.real.during)
}

// judgeReal returns the checks of the requirements that can be seen with a real pod: it does
// not tell when it does what.
func (s *sweepCase) judgeReal(before int, first *harness.Pod) []conformance.Check {
	s.readTrace()
	own := s.seen.Steps[min(before, len(s.seen.Steps)):]
	s.seen.Args, s.pid = nil, 0
	if len(own) > 0 {
		s.seen.Args, s.pid = []string{}, own[0].Process
	}
	want := s.want.For(s.pod, s.podDir)
	log, _ := os.ReadFile(s.logPath())
	told := strings.HasPrefix(string(log), "YOI-READY\t") || strings.Contains(string(log), "\nYOI-READY\t")
	if s.succeeded() && told && !slices.Contains([]oracle.Verdict{oracle.Ready, either}, want.Verdict) {
		return []conformance.Check{s.check("verdict", s.unseen("the pod was ready before that"))}
	}
	if lines := strings.Split(strings.TrimSpace(string(log)), "\n"); want.Verdict == oracle.Exited {
		want.Tail = lines[len(lines)-1:]
	}
	since := s.clientBegun
	if at := s.signalled.Load(); at != 0 && want.Verdict != oracle.TimedOut {
		since = at
	}
	if slices.Contains([]oracle.Verdict{oracle.Ready, oracle.Exited}, want.Verdict) && s.real.during == 0 {
		since = s.ended // when it could be known is not seen
	}
	s.seen.Steps = []fakepod.Began{{At: since, Process: s.pid}}
	var checks []conformance.Check
	check := func(id string, concerned bool, judge func() *finding) {
		if concerned {
			checks = append(checks, s.check(id, judge()))
		}
	}
	verdict := s.verdict(want)
	check("verdict", true, func() *finding { return verdict })
	check("prompt", verdict == nil && s.pid != 0, func() *finding { return s.prompt(want) })
	check("independent", verdict == nil && want.Verdict == oracle.Ready, s.answers)
	check("independent", first != nil && s.second, func() *finding {
		if how, ended := first.Ended(); ended {
			return s.found("1", "the client has ended the pod that answered before (%s); it must leave that alone", how)
		}
		return nil
	})
	check("workspace", verdict == nil && want.Verdict == oracle.Ready, s.realWorkspace)
	check("clean", !s.late && !s.succeeded() && !s.second, s.clean)
	check("reason", verdict == nil && (want.Verdict == oracle.Exited || want.Verdict == oracle.TimedOut), func() *finding { return s.reason(want) })
	check("one-pod", verdict == nil && s.second, s.onePod)
	return checks
}

// answers looks for the pod that the client has left, and connects to it.
func (s *sweepCase) answers() *finding {
	p, err := harness.TryAdopt(s.tb, s.pod, livesOn)
	for end := time.Now().Add(livesOn); err == nil && time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if how, ended := p.Ended(); ended {
			return s.found("1", "the client has left no pod that lives (%s); it must live on without its client", how)
		}
	}
	if err != nil {
		return s.found("1", "the client has left no pod that is ready: %v; it must live on without its client", err)
	}
	if group, err := syscall.Getpgid(p.PID); err == nil && group == s.client.PID {
		return s.found("1", "the pod (process %d) is in the process group of the client; it must lead one of its own", p.PID)
	}
	ctx, cancel := context.WithTimeout(context.Background(), prompt)
	defer cancel()
	conn, err := spawn.Dial(ctx, p.SocketPath)
	if err == nil {
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(prompt))
		_, err = conn.Read(make([]byte, 1))
	}
	if err != nil {
		return s.unseen("the pod says nothing to a new client: %v", err)
	}
	return nil
}

// realWorkspace looks at the directory of a real pod, which tells its arguments only by its
// command line.
func (s *sweepCase) realWorkspace() *finding {
	at := proc.WorkingDir(s.pid, "")
	s.seen.Args = proc.CommandLine(s.pid)
	if at == "" || value(s.seen.Args, "--workspace") == "" {
		return s.unseen("the system does not show the pod's directory, or the pod not its arguments")
	}
	s.seen.Inherited = &fakepod.Inherited{Dir: at}
	return s.inWorkspace()
}

// tryReal is try with a real pod.
func (r *runner) tryReal(c testCase) []conformance.Check {
	tb := &caseTB{name: c.name, flags: &r.Flags}
	defer tb.finish()
	s, err := r.prepare(tb, c)
	var checks []conformance.Check
	if err == nil {
		checks, err = s.meet()
	}
	if err != nil {
		return r.trouble(s, err)
	}
	tb.keepIf(checks)
	s.end()
	return checks
}
