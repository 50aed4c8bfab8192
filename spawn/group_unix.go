//go:build unix

package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// killGrace is how long a killed process may take to be gone. Only one that
// the kernel itself holds up (a dead network disk) takes longer.
const killGrace = 5 * time.Second

// process is a child that leads its own process group.
type process struct {
	pid  int
	done chan struct{} // closed once it has ended and was reaped

	mu     sync.Mutex // held while the process is reaped and while its group is signalled
	reaped bool       // by this package or, though it should not, by somebody else
	state  *os.ProcessState
	empty  bool // nobody was left in the group when its leader was reaped
}

// startProcess starts a process in its own group and reaps it when it ends.
func startProcess(program string, argv []string, attr *syscall.ProcAttr) (*process, error) {
	attr.Sys = &syscall.SysProcAttr{Setpgid: true}
	pid, err := forkExec(program, argv, attr)
	if err != nil {
		return nil, &fs.PathError{Op: "fork/exec", Path: program, Err: err}
	}
	p := &process{pid: pid, done: make(chan struct{})}
	go p.reap(watchExit(pid))
	return p, nil
}

// reap is the only one that waits for the process. ended, if it is not nil,
// returns when that will not block.
func (p *process) reap(ended func()) {
	defer close(p.done)
	if ended != nil {
		// It has ended but still holds its number: reaping it under the lock
		// leaves no moment at which a signal could hit somebody else.
		ended()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.state = p.wait()
	} else {
		state := p.wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		p.state = state
	}
	p.reaped = true
	p.empty = errors.Is(syscall.Kill(-p.pid, 0), syscall.ESRCH)
}

// wait reaps the process. It returns nil if its host has done that, which waits
// for any child: how the process ended is lost then. A handle on the process is
// made only now: each is a descriptor where there are pidfds.
func (p *process) wait() *os.ProcessState {
	child, err := os.FindProcess(p.pid)
	if err != nil {
		return nil
	}
	state, _ := child.Wait()
	return state
}

// exitState returns how the process ended; nil while it runs. One that has
// ended but that reap has not come to is waited for: that takes a moment, and
// whoever saw the pod's end from outside must not be told that it runs.
func (p *process) exitState() *os.ProcessState {
	p.mu.Lock()
	state, ended := p.state, !p.reaped && hasEnded(p.pid)
	p.mu.Unlock()
	if ended {
		<-p.done
		return p.exitState()
	}
	return state
}

// signal sends sig to every process of the group, also when its leader has
// ended. It returns os.ErrProcessDone when nobody is left.
//
// The number of a group is not given away while the group has a member. So
// once the leader was reaped, it is still ours if somebody was left then and
// no process has it as its own number now.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped && (p.empty || syscall.Kill(p.pid, 0) != syscall.ESRCH) {
		return os.ErrProcessDone
	}
	err := syscall.Kill(-p.pid, sig)
	if !p.reaped && (err != nil || sig == syscall.SIGKILL) {
		// It may have left its group for another one. If it has not, it may be
		// gone by now where something else reaps it.
		if own := syscall.Kill(p.pid, sig); err != nil || own != syscall.ESRCH {
			err = own
		}
	}
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("send %v to process group %d: %w", sig, p.pid, err)
	}
	return nil
}

// kill ends the whole group and waits until its leader was reaped.
func (p *process) kill() error {
	err := p.signal(syscall.SIGKILL)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.NewTimer(killGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		return fmt.Errorf("process %d is still there %v after SIGKILL (it is reaped when it ends)", p.pid, killGrace)
	}
	// Children that were left when the leader had ended by itself.
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
