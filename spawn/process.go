//go:build unix

package spawn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// killGrace is how long a killed process may take to be gone. Only one that
// the kernel itself holds up (a dead network disk) takes longer.
const killGrace = 5 * time.Second

// process is a child that leads its own process group.
type process struct {
	pid     int
	adopted *proc.Handle  // of a process that is no child: its parent reaps it; nil = it is one
	done    chan struct{} // closed once it has ended and, a child, was reaped

	mu     sync.Mutex // held while the process is reaped and while its group is signalled
	reaped bool       // by this package or, though it should not, by somebody else
	state  *os.ProcessState
	killed bool // by SIGKILL for the whole group
	empty  bool // nobody is left in the group, whose number may be somebody else's now
}

// startProcess starts a process in its own group, by a function such as forkExec, and reaps it
// when it ends.
func startProcess(fork forker, program string, argv []string, attr *syscall.ProcAttr) (*process, error) {
	attr.Sys = &syscall.SysProcAttr{Setpgid: true}
	pid, err := proc.Fork(func() (int, error) { return fork(running(program), argv, attr) })
	if err != nil {
		return nil, &fs.PathError{Op: "fork/exec", Path: program, Err: err}
	}
	p := &process{pid: pid, done: make(chan struct{})}
	go p.reap(watchExit(pid))
	return p, nil
}

// A forker starts a process that inherits attr.Files and no other descriptor.
type forker = func(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error)

// running returns what to execute for a program: for this one itself, what runs now. At its
// path there may be another one by now, such as a newer build.
func running(program string) string {
	const self = "/proc/self/exe" // in the child, too
	if path, err := os.Executable(); err == nil && path == program {
		if _, err := os.Stat(self); err == nil {
			return self
		}
	}
	return program
}

// busyGrace is how long a program may be open for writing before the start
// fails.
const busyGrace = time.Second

// explainDescriptors adds whose trouble it is that there is no descriptor.
func explainDescriptors(err error) error {
	var limit syscall.Rlimit
	switch {
	case errors.Is(err, syscall.EMFILE) && syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil:
		return fmt.Errorf("%w (this process has no descriptor left: its limit is %d, ulimit -n)", err, limit.Cur)
	case errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w (the system has no descriptor left)", err)
	}
	return err
}

// isOwnTrouble reports whether a connection failed before anybody could answer.
func isOwnTrouble(err error) bool {
	var call *os.SyscallError
	return errors.As(err, &call) && call.Syscall == "socket" ||
		slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS}, func(lack error) bool { return errors.Is(err, lack) })
}

// explainExec adds to the error of an exec what the system's words hide.
func explainExec(program string, err error) error {
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%w (something still has the program open for writing after %v)", err, busyGrace)
	case errors.Is(err, syscall.ENOENT):
		if _, statErr := os.Stat(program); statErr == nil {
			return fmt.Errorf("%w (the file is there: the interpreter or the loader that it names is not)", err)
		}
	case errors.Is(err, syscall.EBADF): // the child moves its descriptors to numbers beyond the limit
		return fmt.Errorf("%w: %w", err, syscall.EMFILE)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("%w (this user, or this container, may have no more processes: ulimit -u)", err)
	case errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("%w (there is no memory for another process)", err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w (a script needs a first line such as #!/bin/sh)", err)
	}
	return err
}

// reap is the only one that waits for the process. ended, if it is not nil,
// returns when that will not block.
func (p *process) reap(ended func()) {
	killed := p.reapLeader(ended)
	close(p.done)
	if killed {
		p.awaitGroup()
	}
}

func (p *process) reapLeader(ended func()) (killed bool) {
	var state *os.ProcessState
	if ended != nil {
		ended()
	} else {
		state = p.wait()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ended != nil {
		// It still holds its number: reaping it under the lock leaves no moment
		// at which a signal could hit somebody else.
		state = p.wait()
	}
	p.state, p.reaped = state, true
	proc.Reaped(p.pid)
	p.reapGroup()
	return p.killed
}

func (p *process) isDone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reaped
}

// wait reaps the process. It returns nil if its host has done that, which waits
// for any child: how the process ended is lost then. A handle on the process is
// made only now: each is a descriptor where there are pidfds.
func (p *process) wait() *os.ProcessState {
	if p.adopted != nil {
		return nil
	}
	child, _ := os.FindProcess(p.pid) // on Unix there is no error
	state, _ := child.Wait()
	return state
}

// exitState returns how the process ended; nil while it runs. One that has
// ended but that reap has not come to is waited for: that takes a moment, and
// whoever saw the pod's end from outside must not be told that it runs.
func (p *process) exitState() *os.ProcessState {
	p.mu.Lock()
	state, ended := p.state, !p.reaped && proc.ChildEnded(p.pid)
	p.mu.Unlock()
	if ended {
		<-p.done
		return p.exitState()
	}
	return state
}

// signal sends sig to every process of the group, also when its leader has
// ended. It returns os.ErrProcessDone when nobody is left.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.adopted != nil {
		// It spares the group that the process does not lead: that is somebody else's,
		// such as the client's.
		err := p.adopted.SignalGroup(sig)
		if sig == syscall.SIGKILL { // it may have left its group
			if own := p.adopted.Signal(sig); err != nil {
				err = own
			}
		}
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			err = fmt.Errorf("send %v to process group %d: %w", sig, p.pid, err)
		}
		return err
	}
	if p.reaped && !p.reapGroup() {
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
	if err == nil && sig == syscall.SIGKILL {
		p.killed = true
		if p.reaped {
			go p.awaitGroup()
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

// reapGroup reaps what the group has left to this process, if that inherits
// orphans (process 1, or a subreaper), and reports whether somebody is left in
// the group. The leader must have been reaped.
//
// The number of a group is not given away while the group has a member. So it
// is still ours if somebody was left at the last look and no process has it as
// its own number now.
func (p *process) reapGroup() (left bool) {
	for !p.empty && syscall.Kill(p.pid, 0) == syscall.ESRCH {
		switch pid, err := unix.Wait4(-p.pid, nil, unix.WNOHANG, nil); {
		case pid > 0 || err == unix.EINTR:
		case err != unix.ECHILD || syscall.Kill(-p.pid, 0) != syscall.ESRCH:
			return true
		default:
			p.empty = true
		}
	}
	p.empty = true
	return false
}

// awaitGroup reaps the members of a killed group that this process inherits as
// they end. It returns when it has none of them.
func (p *process) awaitGroup() {
	for {
		if _, err := unix.Wait4(-p.pid, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// kill ends the whole group and waits until its leader was reaped, and those of
// the others that this process inherits.
func (p *process) kill() error {
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-p.done
		p.awaitGroup()
	}()
	select {
	case <-ended:
	case <-time.After(killGrace):
		return fmt.Errorf("process %d is still there %v after SIGKILL (it is reaped when it ends)", p.pid, killGrace)
	}
	// Children that were left when the leader had ended by itself.
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// pollEnd waits until a process has ended.
func pollEnd(h *proc.Handle) {
	pace := podlog.NewPace(time.Time{})
	defer pace.Stop()
	for !h.Ended() {
		<-pace.Next(false)
	}
}

// closingInheritable returns the descriptors for a child so that it inherits no
// other: a number of -1 has one closed between fork and exec.
func closingInheritable(files []uintptr) []uintptr {
	for _, fd := range proc.Inheritable() {
		for fd >= len(files) {
			files = append(files, ^uintptr(0))
		}
	}
	return files
}

// areKilled reports whether there are processes, and each is only about to end.
func areKilled(pids []int) bool {
	return len(pids) > 0 && !slices.ContainsFunc(pids, func(pid int) bool { return !isKilled(pid) && !proc.Ending(pid) })
}
