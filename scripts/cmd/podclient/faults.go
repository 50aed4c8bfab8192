package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/fakepod/replay"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/options"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// faultRequirements are what must hold when a system call of a client fails.
var faultRequirements = []sweep.Requirement{
	{ID: "client-fault-answered", Level: conformance.Must, Section: "5c", Text: "end within its timeout and 2s, or say that the pod is ready, whichever system call fails",
		Fix: "let one deadline cover all that is waited for and tried again, and every error but those that mean not yet end the start"},
	{ID: "client-fault-honest", Level: conformance.Must, Section: "5c", Text: "end with status 0 only if the pod is ready and serves, and with another status only with a reason",
		Fix: "check every call up to the connection, and print the error before the process ends"},
	{ID: "client-fault-clean", Level: conformance.Must, Section: "5c", Text: "leave nothing of the pod alive when the start has failed, nor anything that a later start cannot replace",
		Fix: "kill the pod's process group on each way out but that of success; take over what an earlier start has left"},
	{ID: "client-fault-told", Level: conformance.Should, Section: "5c", Text: "name the error of the call that failed, or what the call was for",
		Fix: "print the system's error, with the path"},
	{ID: "client-crash-clean", Level: conformance.Must, Section: "5c", Text: "leave, killed at any system call, a pod that is whole, independent and reachable, or none that a later start of the name cannot replace",
		Fix: "give the pod all that it needs with its start; hold only locks that the kernel lets go of; take over what an earlier start has left"},
}

// clientErrors are those that calls of clients can have in life, too: they watch and wait.
var clientErrors = map[string][]syscall.Errno{
	"inotify": {unix.EMFILE, unix.ENOSPC}, "epoll": {unix.EMFILE, unix.ENOSPC}, "pidfd": {unix.EMFILE, unix.ENOSYS}, "wait": nil, "poll": nil,
	"stat": {unix.EACCES, unix.ENOENT}, "open": {unix.ENOENT}, "mkdir": {unix.ENOENT}, "exec": {unix.EACCES, unix.ENOMEM}, "chdir": {unix.EACCES}, "dup": {unix.EMFILE},
}

// outputs matches what a client writes its outputs to, and podProgram the file that it is told to
// start.
var (
	outputs    = regexp.MustCompile(`/client-[^/]*(\.stdout|\.stderr)$|^/dev/pts/`)
	podProgram = regexp.MustCompile(`/command[0-9a-f]+/pod$`)
)

// clientFaults is one run of -faults, or of the cases with -fault.
type clientFaults struct {
	*runner
	sweep *sweep.Sweep
	cases map[string]testCase // "" = that of -faults
	usual string              // what is wrong with the pod of a start without faults, as withoutNumbers has it; "" = nothing
}

// withoutNumbers leaves out what is another number in each run, such as that of a process.
func withoutNumbers(text string) string {
	return regexp.MustCompile("[0-9]{3,}").ReplaceAllString(text, "")
}

// sweepFaults runs and reports -faults, or the cases with -fault, and returns the exit status.
func (s *settings) sweepFaults(stdout, stderr io.Writer) (status int, err error) {
	f, err := newClientFaults(s)
	if err != nil {
		return 0, err
	}
	return f.sweep.Main("podclient", stdout, stderr)
}

func newClientFaults(s *settings) (*clientFaults, error) {
	f := &clientFaults{runner: &runner{settings: *s}, cases: map[string]testCase{}}
	f.sweep = &sweep.Sweep{
		Flags: &s.Flags, Runs: s.Runs, Faults: s.faults, Of: "client", Requirements: faultRequirements, Errors: clientErrors, Observe: f.observe, Try: f.try, Repeat: f.repeat,
	}
	for _, c := range s.portable() {
		c, err := s.complete(c)
		if err != nil {
			return nil, err
		}
		if c.name == "ready" {
			f.cases[""] = c
		}
		if s.faults.Fault != nil && s.Chosen(c.name) && c.refused == "" && !strings.HasPrefix(c.pod, "-") && !c.second && c.signal == 0 && !c.at.special() {
			f.cases[c.name], f.sweep.Cases = c, append(f.sweep.Cases, c.name)
		}
	}
	if s.faults.Fault != nil && len(f.sweep.Cases) == 0 {
		return nil, fmt.Errorf("-fault goes with cases of one start, with an ordinary name, in ordinary surroundings, and -run names none such: %w", s.NoneChosen())
	}
	return f, nil
}

// special reports whether a client is started with something that it would not have anyway.
func (s surroundings) special() bool {
	return s.Umask != 0o022 || s.Blocked != nil || s.Ignored != nil || s.Files != 0 || s.Core != 0 || s.Stray || s.Command != ""
}

// repeat is the command line for one trial.
func (f *clientFaults) repeat(_ string, t sweep.Trial) string {
	words := []string{"podclient", "-fault", t.Fault.String(), "-run", "^" + f.cases[t.Case].name + "$", "-timeout", f.timeout.String()}
	if f.ready != "" {
		words = append(words, "-ready", f.ready)
	}
	if f.tty {
		words = append(words, "-tty")
	}
	for _, entry := range f.Env {
		name, _, _ := strings.Cut(entry, "=") // its value may be a secret
		words = append(words, "-env", name)
	}
	words = append(append(words, "--"), f.client...)
	for i, word := range words {
		words[i] = podlog.ShellWord(word)
	}
	return strings.Join(words, " ")
}

// begin starts the client of a case with faults, and waits until it has ended, or has said
// that the pod is ready.
func (f *clientFaults) begin(tb *caseTB, c testCase, faults []fault.Fault) (*sweepCase, error) {
	s, err := f.prepare(tb, c)
	if err != nil {
		return nil, err
	}
	s.longest = f.timeout + prompt
	for _, fault := range faults {
		s.config.Faults = append(s.config.Faults, fault.Expand(map[string]string{"name": s.pod}))
	}
	s.config.Program, s.config.Args = s.words()[0], s.words()[1:] // no launcher, which makes calls, too
	if err := s.start(); err != nil {
		if !errors.Is(err, fault.ErrUnsupported) && !lack.MatchString(strings.ToLower(err.Error())) {
			err = conformance.UsageError{Err: err}
		}
		return nil, err
	}
	s.wait()
	s.readOutput()
	s.readTrace()
	return s, nil
}

// observe runs the client once, and returns the points that it has come to.
func (f *clientFaults) observe() (points []sweep.Point, err error) {
	if err := selfTest(); err != nil {
		return nil, err
	}
	tb := &caseTB{name: "healthy", flags: &f.Flags}
	defer tb.finish()
	w := sweep.World{Root: "/", Name: f.cases[""].pod, All: f.faults.All, Program: sweep.ProgramOf(f.client), More: func(path string) string {
		switch m := outputs.FindStringSubmatch(path); {
		case m != nil && m[1] != "":
			return "**/client-*" + m[1]
		case podProgram.MatchString(path):
			return "**/command*/pod"
		}
		return ""
	}}
	s, err := f.begin(tb, f.cases[""], f.sweep.Noted(w))
	if err != nil {
		return nil, err
	}
	defer s.end()
	switch err := s.serves(); {
	case !s.succeeded():
		return nil, fmt.Errorf("it %s, and said %s", s.how(), s.firstWords())
	case err != nil:
		return nil, fmt.Errorf("it %s, but the pod does not serve: %w", s.how(), err)
	case s.client.Faults.Err() != nil:
		return nil, s.client.Faults.Err()
	}
	if found := s.independent(); found != nil {
		f.usual = withoutNumbers(found.why)
	}
	w.Root = s.root()
	w.Bases = [][2]string{{"{runtime}", s.runtime}, {"{home}", filepath.Join(s.root(), "home")}, {"{workspace}", filepath.Join(s.root(), "workspace")}}
	launched := s.begun.Add(time.Duration(s.seen.Steps[0].At - s.clientBegun))
	return f.sweep.Points(w, s.client.Faults.Strikes(), func(c fault.Strike) string {
		switch {
		case strings.Contains(c.Call, "stat") && slices.ContainsFunc(c.Paths, outputs.MatchString) && !w.All:
			return "" // a runtime's; of a descriptor that is open it fails in no life
		case c.Time.Before(launched):
			return "launch"
		}
		return "wait"
	}), nil
}

// serves returns why nobody is served at the socket of the pod.
func (s *sweepCase) serves() error {
	ctx, cancel := context.WithTimeout(context.Background(), prompt)
	defer cancel()
	conn, err := spawn.Dial(ctx, s.socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(prompt))
	_, err = conn.Read(make([]byte, 1))
	return err
}

// socket returns the socket that the pod has announced, or else the one that it would.
func (s *sweepCase) socket() string {
	log, err := podlog.Open(s.logPath(), nil)
	if err == nil {
		defer log.Close()
		if told, err := log.Ready(time.Now().Add(prompt)); err == nil {
			s.readTrace()
			return options.Below(proc.WorkingDir(s.pid, s.podDir), told.Socket)
		}
	}
	return filepath.Join(s.podDir, "sock")
}

// A faultRun is one start by a client that meets a fault.
type faultRun struct {
	*sweepCase
	*sweep.Run
	strikes  []fault.Strike
	usual    string // see clientFaults
	started  bool   // again, without the fault
	scenario string // a recording of the pod that was started first; "" = it has not become ready
}

// try runs a trial, and says what it finds.
func (f *clientFaults) try(run *sweep.Run) (struck bool, err error) {
	tb := &caseTB{name: "fault", flags: &f.Flags}
	defer tb.finish()
	s, err := f.begin(tb, f.cases[run.Case], []fault.Fault{run.Fault})
	if err != nil {
		return false, err
	}
	defer s.end()
	r := &faultRun{sweepCase: s, Run: run, strikes: s.client.Faults.Strikes(), usual: f.usual}
	if err = s.client.Faults.Err(); err != nil || len(r.strikes) == 0 {
		return false, err
	}
	r.judge()
	if !r.started {
		r.scenario = s.recording()
	}
	log := []string{"fault: " + r.clean(r.strikes[0].String()), "it said: " + s.firstWords()}
	if tb.artifacts = run.Settle(log); tb.artifacts != "" && r.scenario != "" {
		err = os.WriteFile(filepath.Join(tb.artifacts, s.pod+".txtar"), []byte(r.scenario), 0o600)
	}
	return true, err
}

// recording returns a scenario of what the pod did that has become ready; "" = none has.
func (s *sweepCase) recording() string {
	log, err := os.Open(s.logPath())
	if err != nil || s.pid == 0 {
		return ""
	}
	defer log.Close()
	text, _ := io.ReadAll(io.LimitReader(log, maxOutput))
	if !bytes.HasPrefix(text, []byte("YOI-READY\t")) && !bytes.Contains(text, []byte("\nYOI-READY\t")) {
		return ""
	}
	r := &replay.Recording{Pod: s.pod, Timeout: s.settings.timeout, Dir: s.podDir, Log: log, Size: int64(len(text))}
	r.Timeline = spawn.Timeline{Start: s.begun.Add(time.Duration(s.seen.Steps[0].At - s.clientBegun)), Launched: 1, ReadyLine: 2, Connected: 2}
	r.Socket = []replay.Moment{{At: r.Timeline.Start.Add(1), What: "listened on"}}
	scenario, err := r.Scenario()
	if err != nil {
		return ""
	}
	return scenario
}

// say notes a finding, or with "" that the requirement is met.
func (r *faultRun) say(id, format string, args ...any) {
	r.Say(id, r.clean(fmt.Sprintf(format, args...)))
}

// sayLate is say of what a busy machine may be the reason of.
func (r *faultRun) sayLate(id, format string, args ...any) {
	r.SayLate(id, r.clean(fmt.Sprintf(format, args...)))
}

// clean leaves out where the sandbox was.
func (r *faultRun) clean(text string) string {
	return strings.ReplaceAll(text, r.root(), "$SANDBOX")
}

// judge judges what the client has come to.
func (r *faultRun) judge() {
	if r.late && r.settings.ready != "" && r.isMute() && r.serves() == nil {
		r.say("client-fault-answered", "") // it could not say that the pod is ready
		return
	}
	if r.late {
		r.sayLate("client-fault-answered", "it had not ended %v after its timeout of %v, and said %s", prompt, r.settings.timeout, r.firstWords())
		return
	}
	r.say("client-fault-answered", "")
	state, serves := r.client.State(), r.serves()
	status, _ := state.Sys().(syscall.WaitStatus)
	switch silent := strings.TrimSpace(r.output) == ""; {
	case r.Fault.Signal != 0 && !r.succeeded(), r.Family == "thread" && r.diesOfIt(status):
		r.judgeCrash()
		return
	case r.succeeded() && serves != nil:
		r.sayLate("client-fault-honest", "it %s, but the pod does not serve: %v", r.how(), serves)
		return
	case r.succeeded():
		r.say("client-fault-honest", "")
		return
	case state.Success():
		r.say("client-fault-honest", "it ended with status 0, and has not said that the pod is ready (-ready)")
	case silent && !r.isMute():
		r.say("client-fault-honest", "it ended with %v, without a word", state)
	default:
		r.say("client-fault-honest", "")
		r.judgeTold(silent)
	}
	r.awaitPod()
	if left := r.sweepCase.clean(); left != nil {
		r.sayLate("client-fault-clean", "%s", left.why)
		return
	}
	r.again("client-fault-clean")
}

// diesOfIt reports whether a runtime that has no thread has ended the process then and there:
// its program cannot clean up.
func (r *faultRun) diesOfIt(status syscall.WaitStatus) bool {
	return status.Signaled() || goDies.MatchString(r.output)
}

// goDies matches what Go's runtime says then.
var goDies = regexp.MustCompile(`(?m)^(fatal error: |SIGABRT: abort)`)

// isMute reports whether the client could not say what it has said.
func (r *faultRun) isMute() bool {
	return slices.ContainsFunc(r.strikes, func(s fault.Strike) bool { return slices.ContainsFunc(s.Paths, outputs.MatchString) })
}

// purposes has words for what the calls of families are for.
var purposes = map[string][]string{
	"socket": {"socket"}, "connect": {"socket"}, "send": {"socket"}, "recv": {"socket"}, "pipe": {"pipe"}, "lock": {"lock"}, "inotify": {"inotify", "watch"}, "epoll": {"epoll"},
	"pidfd": {"pidfd"}, "wait": {"child"}, "exec": {"exec", "program", "command"}, "chdir": {"directory", "workspace"}, "dup": {"descriptor"},
}

func (r *faultRun) judgeTold(silent bool) {
	if r.Fault.Error == 0 || silent || r.want.Verdict != oracle.Ready || r.isMute() {
		return // it says nothing, or has another reason
	}
	inChild := !slices.ContainsFunc(r.strikes, func(s fault.Strike) bool { return s.PID == r.client.PID })
	if inChild && r.Family != "exec" && r.Family != "chdir" {
		return // between fork and exec, where a runtime may be able to say nothing
	}
	told := ""
	if !r.Tells(r.output, r.pod, r.strikes, purposes[r.Family]...) {
		told = fmt.Sprintf("it %s, and said %s, which names neither the error nor what the call was for", r.how(), r.firstWords())
	}
	r.say("client-fault-told", "%s", told)
}

// judgeCrash judges what a client leaves that was killed.
func (r *faultRun) judgeCrash() {
	r.awaitPod()
	serves := r.serves()
	for end := time.Now().Add(r.settings.timeout); serves != nil && r.pid != 0 && !proc.Ended(r.pid) && time.Now().Before(end); serves = r.serves() {
		<-time.After(5 * time.Millisecond)
	}
	if serves == nil && r.pid != 0 {
		if found := r.independent(); found != nil && withoutNumbers(found.why) != r.usual { // else no crash is the reason
			r.say("client-crash-clean", "%s", found.why)
			return
		}
	}
	r.again("client-crash-clean")
}

// awaitPod waits until all that the client has started has ended, or the pod has begun: what
// the client has forked may be on its way to be that.
func (r *faultRun) awaitPod() {
	for end := time.Now().Add(r.settings.timeout); r.pid == 0 && time.Now().Before(end); r.readTrace() {
		select {
		case <-r.client.Faults.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// again starts the pod once more, without the fault. A pod of the name may serve already.
func (r *faultRun) again(id string) {
	next := &sweepCase{testCase: r.testCase, tb: r.tb, settings: r.settings, config: r.config, runtime: r.runtime, podDir: r.podDir, trace: r.trace, longest: r.longest}
	next.config.Faults = nil
	r.started, r.scenario = true, r.recording() // before the next pod has the log
	if err := next.start(); err != nil {
		return // nothing can be said
	}
	next.wait()
	next.readOutput()
	switch serves := next.serves(); {
	case r.want.Verdict != oracle.Ready, serves == nil && !next.late:
		r.say(id, "")
	case next.late:
		r.sayLate(id, "the next start does not end within %v", next.longest)
	case next.succeeded():
		r.sayLate(id, "the next start %s, but the pod does not serve: %v", next.how(), serves)
	default:
		r.sayLate(id, "the next start %s, and said %s", next.how(), next.firstWords())
	}
}
