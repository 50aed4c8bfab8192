package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
)

// How long a client waits for what a pod sends: briefly where calls fail again and again, and
// it may wait in vain.
const (
	visitTimeout = 2 * time.Second
	briefly      = 300 * time.Millisecond
)

// config returns the config of a run without faults.
func (f *faultSweep) config() harness.Config {
	cfg := f.options.Pod
	cfg.Command, cfg.Name, cfg.Env = f.options.Command, faultPod, slices.Concat(cfg.Env, f.options.Env)
	cfg.StopStatus, cfg.AllowReadyAgain, cfg.AllowLeaks = []int{-1}, true, true // what is left is told by the TB
	return cfg
}

// A faultRun is one run of a pod that meets a fault.
type faultRun struct {
	*faultTB
	*sweep.Run
	cfg harness.Config
}

// try runs a trial, and says what it finds.
func (f *faultSweep) try(run *sweep.Run) (struck bool, err error) {
	r := &faultRun{faultTB: &faultTB{name: "fault", sweep: f}, Run: run, cfg: f.config()}
	defer r.finish()
	if run.Again() {
		r.cfg.ReadyTimeout = f.patience
	}
	cfg := r.cfg
	cfg.Faults = []fault.Fault{run.Fault}
	pod, err := harness.TryStartPod(r, cfg)
	var start *spawn.Error
	var strikes []fault.Strike
	switch {
	case err == nil:
		strikes, err = r.serve(pod)
	case !errors.As(err, &start) || start.Unseen != "" || errors.Is(err, fault.ErrUnsupported) || errors.Is(err, spawn.ErrLaunch):
	case len(start.Strikes) == 0:
		err = fmt.Errorf("the start failed, but not of the fault, which it did not meet: %w", told(err))
	default:
		r.judgeStart(start)
		strikes, err = start.Strikes, nil
	}
	if err != nil || len(strikes) == 0 {
		return false, err
	}
	r.restart()
	lines := []string{"fault: " + r.clean(strikes[0].String())}
	if start != nil {
		for _, line := range start.Tail {
			lines = append(lines, fmt.Sprintf("it wrote: %.*s", longestLine, r.clean(line)))
		}
	}
	r.artifacts = r.Settle(lines)
	return true, nil
}

// say notes a finding, or with "" that the requirement is met.
func (r *faultRun) say(id, format string, args ...any) {
	r.Say(id, r.clean(fmt.Sprintf(format, args...)))
}

// sayLate is say of what a busy machine may be the reason of.
func (r *faultRun) sayLate(late bool, id, format string, args ...any) {
	if !late {
		r.say(id, format, args...)
		return
	}
	r.SayLate(id, r.clean(fmt.Sprintf(format, args...)))
}

// judgeStart judges a start that failed.
func (r *faultRun) judgeStart(e *spawn.Error) {
	if r.Fault.Signal != 0 || r.Fault.Delay >= r.cfg.ReadyTimeout { // it can do nothing in that time
		return
	}
	exited := errors.Is(e, spawn.ErrExited)
	hangs := errors.Is(e, spawn.ErrTimeout) && e.SocketPath == ""
	answered, honest := "", ""
	switch {
	case hangs && e.Unfinished != "":
		answered = fmt.Sprintf("after %v it had neither ended nor finished its ready line: %q", r.cfg.ReadyTimeout, e.Unfinished)
	case hangs:
		answered = fmt.Sprintf("after %v it was neither ready nor had it ended", r.cfg.ReadyTimeout)
	case exited && e.State != nil && e.State.Success():
		honest = "its start failed, and it ended with status 0"
	case !exited || e.SocketPath != "":
		honest = "it wrote a ready line, but: " + e.Verdict
	}
	r.sayLate(true, "fault-answered", "%s", answered)
	r.sayLate(errors.Is(e, spawn.ErrTimeout), "fault-honest", "%s", honest)
	if onStderr := filepath.Base(r.Path) == podlog.LogName; exited && honest == "" && r.Fault.Error != 0 && !onStderr {
		told := ""
		if !r.tells(e) {
			told = "its last words do not name what failed: " + lastOf(e.Tail, "there are none")
		}
		r.say("fault-told", "%s", told)
	}
	if exited { // one that was killed could end nothing
		r.judgeLeft()
	}
}

func lastOf(tail []string, none string) string {
	if len(tail) == 0 {
		return none
	}
	return tail[len(tail)-1]
}

func (r *faultRun) judgeLeft() {
	left := ""
	if leaks := r.leaks(); len(leaks) > 0 {
		left = "it left " + leaks[0].String()
	}
	r.say("fault-clean", "%s", left)
}

// tells reports whether the last words of a pod name what failed.
func (r *faultRun) tells(e *spawn.Error) bool {
	said := strings.Join(append(slices.Clone(e.Tail), e.Reason, e.Unfinished), "\n")
	if log, err := r.box.OpenLog(faultPod); err == nil { // the tail leaves stack traces out
		text, _ := io.ReadAll(io.LimitReader(log, 1<<20))
		said += "\n" + string(text)
		_ = log.Close()
	}
	return r.Tells(said, faultPod, e.Strikes)
}

// serve is a pod that became ready: clients come, and it is stopped. It returns the calls that
// were struck, and an error if nothing can be said.
func (r *faultRun) serve(pod *harness.Pod) ([]fault.Strike, error) {
	early := len(pod.Faults.Strikes()) > 0
	timeout := visitTimeout
	if r.Fault.Onwards && !early {
		timeout = briefly
	}
	var err error
	spins := false
	for n := range 3 { // one may be the victim, and whoever comes at the same time
		if err = r.visit(pod, r.sweep.answers, timeout); err == nil && n > 0 || err != nil && r.Fault.Onwards && !early {
			break
		}
		if err != nil && sandbox.EndsWithin(pod.Done(), briefly) {
			break
		}
	}
	how, ended := pod.Ended()
	if ended {
		_, _ = pod.TryWait(0) // it may
	} else if r.Fault.Onwards && err != nil {
		spins = r.spins(pod)
	}
	r.closeAll()
	stop := time.Now()
	_ = pod.Stop()
	strikes := pod.Faults.Strikes()
	if err := pod.Faults.Err(); err != nil || len(strikes) == 0 || r.Fault.Signal != 0 {
		return strikes, err
	}
	serving, late := "", false
	switch {
	case ended:
		serving = "it ended: " + how
	case spins:
		serving = "it tries the call that fails again and again, without a pause"
	case err != nil:
		serving, late = "a new client is not served: "+firstLine(err), true
	}
	// All of them: a later one may be why it does not serve any more.
	switch before := strikes[len(strikes)-1].Time.Before(pod.Timeline.Start.Add(pod.Timeline.ReadyLine)); {
	case before && serving != "":
		r.sayLate(late, "fault-honest", "it wrote its ready line, but %s", serving)
	case before:
		r.say("fault-answered", "")
		r.say("fault-honest", "")
	case strikes[0].Time.Before(stop) && (!r.Fault.Onwards || spins):
		r.sayLate(late, "fault-serving", "%s", serving)
	}
	if !ended {
		hangs := ""
		if killed(pod.State()) {
			hangs = fmt.Sprintf("it had not ended %v after SIGINT", r.cfg.StopGrace)
		}
		if r.sayLate(true, "fault-stop", "%s", hangs); hangs != "" {
			return strikes, nil // one that was killed could end nothing
		}
	}
	r.judgeLeft()
	return strikes, nil
}

// spins reports whether the pod makes the call that fails more often than any pause allows.
func (r *faultRun) spins(pod *harness.Pod) bool {
	const most, window = 300, briefly // in a window
	before := len(pod.Faults.Strikes())
	if sandbox.EndsWithin(pod.Done(), window) {
		return false
	}
	after := len(pod.Faults.Strikes())
	return after-before > most || after == before && after >= sweep.MostCalls
}

func killed(state *os.ProcessState) bool {
	if state == nil {
		return false
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// restart starts the pod again, without the fault.
func (r *faultRun) restart() {
	id := "fault-restart"
	if r.Fault.Signal != 0 {
		id = "crash-restart"
	}
	pod, err := harness.TryStartPod(r, r.cfg)
	if err == nil {
		err = r.visit(pod, false, visitTimeout)
		_ = pod.Kill()
	}
	var start *spawn.Error
	switch {
	case err == nil:
		r.say(id, "")
	case errors.As(err, &start):
		r.sayLate(errors.Is(err, spawn.ErrTimeout), id, "the next start fails: %s: %s", start.Verdict, lastOf(start.Tail, "it says nothing"))
	default:
		r.sayLate(true, id, "the next life does not serve: %s", firstLine(err))
	}
}

// told returns what is told of a start that failed: its log is removed.
func told(start error) error { return errors.New(firstLine(start)) }

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// clean leaves out where the sandbox was.
func (r *faultRun) clean(text string) string {
	return spaced(strings.ReplaceAll(text, filepath.Dir(r.box.Dir("run")), "$SANDBOX"))
}

// faultTB is the harness's TB of one run.
type faultTB struct {
	name      string
	sweep     *faultSweep
	box       *sandbox.Box
	artifacts string // where its evidence is kept; "" = it is not
	talks     []*harness.Talk
	fatal     error // there is no sandbox; nil = there is one

	mu       sync.Mutex // guards all below
	left     []harness.Leak
	cleanups []func()
}

// visit is a client: it waits for the snapshot, and an answer if it asks. Its connection
// stays.
func (tb *faultTB) visit(pod *harness.Pod, asks bool, timeout time.Duration) error {
	talk, err := pod.TryTalk(timeout)
	if err != nil {
		return err
	}
	tb.talks = append(tb.talks, talk)
	if _, err = talk.TrySnapshot(); err == nil && asks {
		_, err = talk.TrySend(`{"method":"ping"}`)
	}
	return err
}

func (tb *faultTB) closeAll() {
	for _, talk := range tb.talks {
		talk.Close()
	}
}

// Left has what the pod has left behind.
func (tb *faultTB) Left(leaks []harness.Leak) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.left = append(tb.left, leaks...)
}

func (tb *faultTB) leaks() []harness.Leak {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.left
}

func (tb *faultTB) Cleanup(f func()) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.cleanups = append(tb.cleanups, f)
}

func (tb *faultTB) finish() {
	for i := len(tb.cleanups) - 1; i >= 0; i-- {
		tb.cleanups[i]()
	}
}

// ArtifactDir is where the evidence goes.
func (tb *faultTB) ArtifactDir() string {
	if tb.artifacts == "" {
		return tb.sweep.scrap
	}
	return tb.artifacts
}

func (tb *faultTB) Sandboxed(box *sandbox.Box) { tb.box = box }
func (tb *faultTB) Failed() bool               { return tb.artifacts != "" }
func (tb *faultTB) Helper()                    {}
func (tb *faultTB) Name() string               { return tb.name }
func (tb *faultTB) Verbose() bool              { return false }
func (tb *faultTB) Errorf(string, ...any)      {}
func (tb *faultTB) Logf(string, ...any)        {}
func (tb *faultTB) Fatalf(f string, a ...any)  { tb.fatal = fmt.Errorf(f, a...) }
