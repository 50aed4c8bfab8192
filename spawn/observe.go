package spawn

import (
	"context"
	"os"
	"runtime"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// What package harness and the commands of this module need of a start and those
// who start pods do not is in this file. It may change with them.

// An Observer follows one start closely. It is for package harness.
type Observer struct {
	// Planned, if not nil, is called by Start's goroutine with the absolute path of the
	// pod directory, when the config was found right and before anything is touched. The
	// start fails with the error that it returns.
	Planned func(podDir string) error
	// Fresh has an older log replaced, not truncated, so that whoever reads it keeps it.
	Fresh bool
	// Launched, if not nil, is called by Start's goroutine with the number of the
	// pod's process as soon as that runs.
	Launched func(pid int)
	// Grown, if not nil, is called by whoever reads the log, with its size in
	// bytes, when the log was found to have changed.
	Grown func(size int64)
	// Line, if not nil, is called by Start's goroutine with every line that the
	// start reads, the ready line too. [podlog.Log.Follow] has those that come later.
	Line func(line string)
	// Failing, if not nil, is called by Start's goroutine with the verdict on a pod
	// that runs, or has just ended, before its process group is killed.
	Failing func(verdict error)
	// Socket, if not nil, is called by Start's goroutine with what is at the announced
	// path when that has changed: a word of Error.Why, or "listened on".
	Socket func(what string)
	// Log is set by the start, also by one that failed, once the log was made:
	// whoever observes the start closes it.
	Log *podlog.Log
	// Idle, if not nil, is called by Start's goroutine when it begins to wait for more
	// lines. During that call, missing says what the start waits for.
	Idle func(missing func() string)

	socket string // as Socket was told last
}

func (o *Observer) closeLog() {
	if o.Log != nil {
		o.Log.Close()
	}
}

func (o *Observer) found(what string) {
	if o.Socket != nil && what != o.socket {
		o.socket = what
		o.Socket(what)
	}
}

func (o *Observer) failing(verdict error) {
	if o.Failing != nil {
		o.Failing(verdict)
	}
}

// StartObserved is [Start] with an observer.
func StartObserved(ctx context.Context, cfg Config, o *Observer) (*Pod, error) {
	return (&start{observer: o}).run(ctx, cfg)
}

// Follow calls fn with every line of a pod's log, from its start on, and waits
// for more where the log ends. It returns nil when fn returned false, and the
// context's error when ctx ended: one that was cancelled after everything was
// read that the log held then, one whose deadline has passed after one last look,
// however large the log is.
//
// Lines are as [Config.Progress] gets them: whole ones only, without the line
// ending, invalid UTF-8 replaced, cut at 64 KiB. A truncated log is read from
// its start. Follow neither closes log nor moves its offset, so that several
// may follow one file; fn is called from Follow's goroutine.
func Follow(ctx context.Context, log *os.File, fn func(line string) bool) error {
	return podlog.Follow(ctx, log, fn)
}

// Adopt returns the pod with a process that somebody else has started, as if Start
// had: its end is seen (through a pidfd on Linux), its status is not known. The handle
// is the pod's from then on; the other fields of the pod are the caller's.
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
