package spawn

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// A Pod is a pod that became ready. Its methods are safe for concurrent use.
// There is nothing to close: its process is reaped when it ends.
type Pod struct {
	// Name is the pod's name.
	Name string
	// PID is the number of the pod's process and of its process group.
	PID int
	// SocketPath is the absolute path of the socket that the pod announced.
	SocketPath string
	// LogPath is the absolute path of the log that is the pod's stderr. A pod
	// removes it when it stops gracefully.
	LogPath string
	// Timeline has the times of the steps of the start.
	Timeline Timeline
	// Faults tells of the calls that Config.Faults have struck; nil = there are no faults.
	Faults *fault.Session

	process *process
}

// Done is closed after the pod's process has ended and was reaped.
func (p *Pod) Done() <-chan struct{} { return p.process.done }

// State returns how the pod's process ended; nil while it runs. It stays nil if
// another part of this program reaped the process, by a wait for any child. Done is
// closed in that case too.
func (p *Pod) State() *os.ProcessState { return p.process.exitState() }

// Signal sends a signal, which must be a [syscall.Signal], to the pod's whole
// process group, even if the pod itself has ended and left children in the group.
// It returns [os.ErrProcessDone] if the group is empty. If this process inherits
// orphans (as process 1 or a subreaper), it reaps those of the group.
func (p *Pod) Signal(sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("pod %s: signal %v is not a syscall.Signal", p.Name, sig)
	}
	if err := p.process.signal(number); err != nil {
		return fmt.Errorf("pod %s: %w", p.Name, err)
	}
	return nil
}

// Adopt returns a Pod for a process that another program has started. Done tells when it
// ends; State stays nil. The handle belongs to the Pod from then on. The caller sets the
// other fields of the Pod.
func Adopt(h *proc.Handle) *Pod {
	p := &process{pid: h.PID, adopted: h, done: make(chan struct{})}
	ended := watchExit(h.PID)
	if ended == nil || h.Ended() { // the number may have been given away meanwhile
		ended = func() { pollEnd(h) }
	}
	go p.reap(ended)
	pod := &Pod{PID: h.PID, process: p}
	runtime.AddCleanup(pod, (*proc.Handle).Close, h)
	return pod
}

// Follow calls fn with every line of a pod's log, from the start of the log, and waits
// for more at its end. It returns nil after fn returned false. When ctx ends, Follow
// returns the context's error. If ctx was cancelled, Follow first reads everything that
// the log holds then. If the deadline of ctx has passed, Follow reads only once more,
// however large the log is.
//
// fn gets whole lines only, as [Config.Progress] does. A truncated log is read from its
// start. Follow calls fn from its own goroutine. It neither closes log nor moves its
// offset, so that several may follow one file.
func Follow(ctx context.Context, log *os.File, fn func(line string) bool) error {
	return podlog.Follow(ctx, log, fn)
}
