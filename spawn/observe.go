package spawn

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
	"unicode"

	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
)

// What package harness and the commands of this module need of a start and those
// who start pods do not is in this file. It may change with them.

// An Observer follows one start closely. It is for package harness.
type Observer struct {
	// Launched, if not nil, is called by Start's goroutine with the number of the
	// pod's process as soon as that runs.
	Launched func(pid int)
	// Grown, if not nil, is called by whoever reads the log, with its size in
	// bytes, when the log was found to have changed.
	Grown func(size int64)
	// Line, if not nil, is called by Start's goroutine with every line that the
	// start reads, the ready line too. [Log.Follow] has those that come later.
	Line func(line string)
	// Failing, if not nil, is called by Start's goroutine with the verdict on a pod
	// that runs, or has just ended, before its process group is killed.
	Failing func(verdict error)
	// Socket, if not nil, is called by Start's goroutine with what is at the announced
	// path, for a Recording, when that has changed.
	Socket func(what string)
	// Log is set by the start, also by one that failed, once the log was made:
	// whoever observes the start closes it. An older log of that name was replaced,
	// not truncated, so that whoever reads it keeps it.
	Log *Log

	fresh bool // an older log is replaced
	// idle, if not nil, is called when the start begins to wait for more lines, with
	// what tells, during that call, what is missing.
	idle      func(missing func() string)
	socket    string // as Socket was told last
	connected bool   // it was told
}

func (o *Observer) found(path string, err error) {
	if o.Socket == nil {
		return
	}
	if what := foundAt(path, err); !o.connected || what != o.socket {
		o.connected, o.socket = true, what
		o.Socket(what)
	}
}

func (o *Observer) failing(verdict error) {
	if o.Failing != nil {
		o.Failing(verdict)
	}
}

// StartObserved is [Start] for package harness.
func StartObserved(ctx context.Context, cfg Config, o *Observer) (*Pod, error) {
	o.fresh = true
	return (&start{observer: o}).run(ctx, cfg)
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

// OpenLog opens a log that somebody else has made. Its Grown is as an Observer's.
func OpenLog(path string, grown func(size int64)) (*Log, error) {
	file, err := safefile.Open(path)
	if err != nil {
		return nil, err
	}
	return WatchLog(file, grown), nil
}

// WatchLog is OpenLog for an open file, which Close closes.
func WatchLog(file *os.File, grown func(size int64)) *Log {
	l := watchLog(file)
	l.grown = grown
	return l
}

// ReadLog returns an open log that is read from an offset on, at which a line begins;
// from its start if it is shorter than that, since it was truncated then. Close
// closes the file.
func ReadLog(file *os.File, from int64) *Log {
	l := watchLog(file)
	before := make([]byte, min(from, maxBefore))
	if n, _ := file.ReadAt(before, from-int64(len(before))); n == len(before) {
		l.offset, l.before = from, before
	}
	return l
}

// LineEnd returns the offset at which the line ends with which Follow calls its
// function.
func (l *Log) LineEnd() int64 { return l.offset - int64(l.rest) }

// WatchDir calls look when something may have appeared in a directory, at first
// and now and then without that, until ctx ends.
func WatchDir(ctx context.Context, dir string, look func()) {
	wake := make(chan struct{}, 1)
	stop, watched := watchPath(dir, socketEvents, wake)
	defer stop()
	pace := newPace(time.Time{})
	defer pace.stop()
	for ctx.Err() == nil {
		look()
		select {
		case <-wake:
			pace.woken()
		case <-pace.next(watched):
		case <-ctx.Done():
		}
	}
}

// Printable returns s with everything escaped that could move a terminal's
// cursor or hide text, such as control characters. What a pod wrote should not
// reach a terminal in any other form.
func Printable(s string) string {
	hidden := func(r rune) bool { return !unicode.IsPrint(r) }
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		text := string(r)
		if hidden(r) {
			text = strings.Trim(strconv.QuoteRune(r), "'")
		}
		b.WriteString(text)
	}
	return b.String()
}
