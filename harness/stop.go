package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// Stop stops the pod: it writes Config.Shutdown to the socket, if there is any,
// then sends Config.StopSignal to the process group, then SIGKILL, and gives
// the pod Config.StopGrace after each. Where the first step was not enough, the
// test's log says which one was. Whatever the pod left behind, in its group or
// outside of it, is killed.
//
// Stop may be called any number of times, from any goroutine; every call
// returns when the pod has ended, with the same error: nil, or one that fails
// the test, too: that the pod had ended by itself before, which the test did not
// expect, that it left processes behind that had not ended half a second later,
// that it could not be killed, that it ended with another status than 0 or one of
// Config.StopStatus, or with Config.MustStopGracefully that it was ended by a signal. What a
// pod leaves that was ended by Kill is logged only.
func (p *Pod) Stop() error {
	p.tb.Helper()
	p.stopMu.Lock() // not sync.Once: the test's log would name its line
	defer p.stopMu.Unlock()
	if p.stopped {
		return p.stopErr
	}
	p.stopped = true
	for _, check := range []func() error{p.stop, p.clear, p.checkLog} {
		if err := check(); err != nil {
			p.stopErr = errors.Join(p.stopErr, fails(p.attempt, err))
		}
	}
	p.box.endRun(p.tb, p.Name, proc.Match{Mark: p.mark, Run: p.run})
	p.log.EndFollowing()
	if p.Faults != nil {
		p.box.tellStruck(p.tb, p.Name, p.cfg.Faults, p.Faults.Strikes())
	}
	if !p.runs() {
		p.noteEnd()
		p.box.binary.LetGo(p.process)
	}
	return p.stopErr
}

// Kill sends SIGKILL to the pod's process group and waits until the pod, and all of the group,
// have ended. It is nil for a pod that has ended before.
func (p *Pod) Kill() error {
	_, ended := p.Ended()
	p.mu.Lock()
	p.expected, p.killed = true, p.killed || !ended
	p.mu.Unlock()
	return p.kill()
}

// killGrace is how long the system may take for its part, such as the end of a
// process that was killed. What the pod itself may take is StopGrace.
const killGrace = 5 * time.Second

// leastKillGrace is what it has also where hardly any time is left to the test.
const leastKillGrace = 100 * time.Millisecond

func (p *Pod) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	grace, note := beforeDeadline(p.tb, "wait", killGrace)
	grace = max(grace, leastKillGrace)
	if !p.endsWithin(grace) {
		return cut(fmt.Errorf("pod %s: process %d is still there %v after SIGKILL", p.name(), p.PID, grace), note)
	}
	if !errors.Is(p.Pod.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		proc.Kill(proc.Match{Group: p.PID}, time.Now().Add(grace)) // they may listen on its socket still
	}
	return nil
}

// step is a step of a teardown before the last one, SIGKILL.
type step struct {
	name string
	act  func(grace time.Duration) error
}

func (p *Pod) steps() (steps []step) {
	if len(p.cfg.Shutdown) > 0 {
		steps = append(steps, step{"the shutdown request", p.requestShutdown})
	}
	return append(steps, step{unix.SignalName(p.stopSignal()), func(time.Duration) error {
		p.awaitHandler()
		err := p.signal(p.cfg.StopSignal)
		_ = p.Pod.Signal(syscall.SIGCONT) // a stopped pod must go on before it can stop by itself
		return err
	}})
}

func (p *Pod) stopSignal() syscall.Signal { return p.cfg.StopSignal.(syscall.Signal) }

// handlerGrace is how long after it became ready a pod is given to handle its stop
// signal: real ones write the ready line a moment before they do.
const handlerGrace = 250 * time.Millisecond

// awaitHandler waits until the pod would not be ended by its stop signal by chance.
func (p *Pod) awaitHandler() {
	ready := p.Timeline.Start.Add(p.Timeline.Connected)
	for !p.endsWithin(0) && time.Since(ready) < handlerGrace && !proc.Takes(p.PID, p.stopSignal()) {
		p.endsWithin(time.Millisecond) // nothing tells of a handler
	}
}

func (p *Pod) stop() error {
	p.tb.Helper()
	if p.judge() != nil {
		return p.tell()
	}
	if !p.runs() {
		return nil // a signal would only end what it has left behind, unseen
	}
	steps := p.steps()
	var grace time.Duration
	var note string
	for i, step := range steps {
		grace, note = beforeDeadline(p.tb, "stop grace", p.cfg.StopGrace)
		err := step.act(grace)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			p.tb.Logf("harness: pod %s: %s: %v", p.name(), step.name, evidence.PrintableError(err))
			grace = 0 // the pod was not told
		}
		if p.endsWithin(grace) {
			if i > 0 {
				p.tb.Logf("harness: pod %s was stopped by %s, not by %s", p.name(), step.name, steps[0].name)
			}
			if p.isEndedBy(p.stopSignal()) {
				return p.ungraceful(endedBySignal, fmt.Sprintf("was ended by %s, which it should handle and end with a status", step.name), "")
			}
			return p.checkStatus(step.name)
		}
	}
	ignored := ""
	if signal.Ignored(p.cfg.StopSignal) { // as under nohup, or in the background of a script
		ignored = "\n\tnote: this process ignores that signal, and the pods that it starts inherit that"
	}
	if p.cfg.MustStopGracefully || p.box.failed() || failed(p.tb) {
		dumpPods(p.tb, []*Pod{p})
	}
	err := p.kill()
	return errors.Join(p.ungraceful(killed, fmt.Sprintf("did not stop within %v of %s: killed", grace, steps[len(steps)-1].name)+ignored, note), err)
}

// clear kills what the pod has left behind, and names it.
func (p *Pod) clear() error {
	p.tb.Helper()
	mine := p.match()
	if !errors.Is(p.Pod.Signal(syscall.Signal(0)), os.ErrProcessDone) {
		mine.Group = p.PID // somebody is left in it
	}
	p.mu.Lock()
	forgiven := p.cfg.AllowLeaks || p.killed
	p.mu.Unlock()
	left := p.box.clear(mine, func() {
		if !forgiven {
			p.box.evidence.Snapshot()
		}
	})
	// There are systems that do not tell what is left.
	if err := p.Pod.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	switch {
	case left == "":
	case !forgiven:
		return fmt.Errorf("pod %s %s\n\tnote: Config.AllowLeaks, or podstart -allow-leaks, is for pods that may", p.name(), left)
	case !p.cfg.AllowLeaks:
		p.tb.Logf("harness: pod %s %s", p.name(), left)
	}
	return nil
}

// requestShutdown writes the shutdown bytes to the pod's socket. The connection
// stays open until the pod has ended, or should have been killed: a pod may take its
// end for a change of mind, or wait for it.
func (p *Pod) requestShutdown(grace time.Duration) error {
	proc.Match{Mark: p.mark, Run: p.run}.Look()
	p.attempt.Note("shutdown request")
	_ = p.Pod.Signal(syscall.SIGCONT) // as above
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	conn, err := spawn.Dial(ctx, p.SocketPath)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetWriteDeadline(deadline)
	go func() {
		defer conn.Close()
		p.endsWithin(grace + killGrace)
	}()
	// A pod may have more to say first than fits into the socket.
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	_, err = conn.Write(p.cfg.Shutdown)
	return err
}

// cleanup ends the pod, and what it was restarted as, at the end of the test.
func (p *Pod) cleanup() {
	tb := p.tb
	tb.Helper()
	// Not by its own verdict alone: then the pods that are stopped before are gone.
	if p.box.judge() || p.box.failed() || p.judge() != nil {
		p.box.sampleOnce.Do(p.box.sample)
		p.box.evidence.Snapshot()
		if p.box.keep(tb) {
			return
		}
		p.box.dump(tb)
	}
	var errs []error
	for ; p != nil; p = p.successor() {
		errs = append(errs, p.Stop())
		if p.Faults != nil && p.Faults.Err() != nil {
			errs = append(errs, fmt.Errorf("a call of pod %s met no fault, and the test proves nothing: %w", p.name(), printable(p.Faults.Err())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		tb.Errorf("harness: %v", err)
	}
}
