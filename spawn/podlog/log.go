// Package podlog is the inside of spawn and harness: no promise is made about it.
// It reads the logs of pods: lines, tails, the ready line, and what comes later.
package podlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"example.com/podharness/spawn/safefile"
	"golang.org/x/sys/unix"
)

// readBuffers are held during one read only, so that a thousand starts that
// wait cost nothing. They are as large as cat's: each read costs a tail of lines.
var readBuffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// A Log is a log that is open for reading. It may grow, be truncated, and be
// removed meanwhile; each byte is read once, and the offset of the file does not
// move. One goroutine at a time reads it.
type Log struct {
	// Grown, if not nil, is called with the size of the log in bytes, by whoever
	// reads the log and finds that it has changed.
	Grown func(size int64)
	// Rest is how long Follow, once it is cancelled, may take to read to where the log ends:
	// then it reads the end alone. 0 = as long as that takes.
	Rest time.Duration
	// Splitter has the line that is unfinished.
	Splitter

	file   *os.File
	offset int64
	// before is what stood just before offset. A log that no longer has it there
	// was truncated, and may have grown beyond offset again since.
	before    []byte
	truncated bool // at some time

	wake    chan struct{} // also for other events that the reader waits for
	watched bool          // events of the log wake it
	unwatch func()
}

// maxBefore is enough to tell the end of one line from the middle of another.
const maxBefore = 64

// Read hands what the log holds beyond the last read to emit, one buffer at
// the most, and reports whether there may be more. A log that was truncated is
// read from its start, and the line that was unfinished then is lost with it.
func (l *Log) Read(emit func(line []byte, cut bool) error) (more bool, err error) {
	buf := readBuffers.Get().(*[128 << 10]byte)
	defer readBuffers.Put(buf)
	// Not ReadAt, which asks a second time after a short read.
	n, err := unix.Pread(int(l.file.Fd()), buf[:], l.offset-int64(len(l.before)))
	switch {
	case errors.Is(err, unix.EINTR):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read pod log: %w", err)
	}
	if !bytes.HasPrefix(buf[:n], l.before) {
		l.offset, l.before, l.truncated = 0, l.before[:0], true
		l.reset()
		return true, nil
	}
	fresh := buf[len(l.before):n]
	if len(fresh) == 0 {
		return false, nil
	}
	l.offset += int64(len(fresh))
	l.before = append(l.before[:0], buf[max(0, n-maxBefore):n]...)
	if l.Grown != nil {
		l.Grown(l.offset)
	}
	return n == len(buf), l.Split(fresh, emit)
}

// Drain reads to where the log ends now; what is written meanwhile does not
// make it longer. Once late reports true, only the end is read.
func (l *Log) Drain(emit func(line []byte, cut bool) error, late func() bool) error {
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("read pod log: %w", err)
	}
	for {
		more, err := l.Read(emit)
		if err != nil || !more || l.offset >= info.Size() {
			return err
		}
		if end := info.Size() - lastWords; l.offset < end && late() {
			l.offset, l.before = end, nil
			l.reset()
		}
	}
}

// lastWords is how much of a log too long to be read in time is read.
const lastWords = 64 << 10

// Open opens a log for reading: see [safefile.Open].
func Open(path string, grown func(size int64)) (*Log, error) {
	file, err := safefile.Open(path)
	if err != nil {
		return nil, err
	}
	return Watch(file, grown), nil
}

// Watch returns an open log that is read from its start, and has it watched. Close
// ends the watch and closes the file.
func Watch(file *os.File, grown func(size int64)) *Log {
	l := &Log{Grown: grown, file: file, wake: make(chan struct{}, 1)}
	l.unwatch, l.watched = watchPath(file.Name(), logEvents, l.wake)
	return l
}

// NewAt is Watch for a log that is read from an offset on, at which a line begins. It
// is read from its start if it is shorter than that: it was truncated then.
func NewAt(file *os.File, from int64) *Log {
	l := Watch(file, nil)
	before := make([]byte, min(from, maxBefore))
	if n, _ := file.ReadAt(before, from-int64(len(before))); n == len(before) {
		l.offset, l.before = from, before
	}
	return l
}

// File returns the open log: it can be read until Close, by several at once.
func (l *Log) File() *os.File { return l.file }

// Offset returns how much of the log was read.
func (l *Log) Offset() int64 { return l.offset }

// LineEnd returns the offset at which the line ends with which Follow calls its
// function.
func (l *Log) LineEnd() int64 { return l.offset - int64(l.rest) }

// WasTruncated reports whether the log was ever found shorter than before, or changed.
func (l *Log) WasTruncated() bool { return l.truncated }

// Newer opens the log that stands in the place of an open one now: a pod that rotates its
// logs renames the old one and makes another. It returns nil if there is no other. The
// caller closes it.
func Newer(log *os.File) *os.File {
	newer, err := safefile.Open(log.Name())
	if err != nil {
		return nil
	}
	old, oldErr := log.Stat()
	if now, err := newer.Stat(); err != nil || oldErr != nil || os.SameFile(old, now) {
		newer.Close()
		return nil
	}
	return newer
}

// ReplacedTrouble is the trouble of an open log for which there is a Newer one.
const ReplacedTrouble = "the log is another file now, as after a rotation: what was written to that one is not read"

// Wake returns a channel that receives when the log, or a directory of WatchDir, may
// have changed; not reliably, and if watched is false not at all for the log.
func (l *Log) Wake() (wake <-chan struct{}, watched bool) { return l.wake, l.watched }

// WatchDir has Wake receive when something appears in a directory, until stop. It
// reports whether that works; stop is never nil.
func (l *Log) WatchDir(dir string) (stop func(), ok bool) { return watchPath(dir, dirEvents, l.wake) }

// Close ends the watch and closes the file.
func (l *Log) Close() error {
	l.unwatch()
	return l.file.Close()
}

// errStopFollowing ends Follow from within a line.
var errStopFollowing = errors.New("stop following")

// Follow is spawn.Follow.
func Follow(ctx context.Context, log *os.File, fn func(line string) bool) error {
	l := Watch(log, nil)
	defer l.unwatch()
	return l.Follow(ctx, fn)
}

// Follow calls fn with every line from where the log was last read: see spawn.Follow.
// With a nil fn it does not read the log, and only calls Grown.
func (l *Log) Follow(ctx context.Context, fn func(line string) bool) error {
	emit := func(line []byte, cut bool) error {
		if !fn(LineText(line, cut)) {
			return errStopFollowing
		}
		return nil
	}
	pace := NewPace(time.Time{})
	defer pace.Stop()
	for {
		over := ctx.Err()
		more, err := false, error(nil)
		switch {
		case fn == nil:
			err = l.look()
		case errors.Is(over, context.Canceled):
			began := time.Now()
			err = l.Drain(emit, func() bool { return l.Rest > 0 && time.Since(began) > l.Rest })
		default:
			more, err = l.Read(emit)
		}
		switch {
		case errors.Is(err, errStopFollowing):
			return nil
		case err != nil:
			return err
		case over != nil:
			return over
		case more:
			continue
		}
		select {
		case <-l.wake:
			pace.Woken()
		case <-pace.Next(l.watched):
		case <-ctx.Done():
		}
	}
}

// look notes how large the log is, without reading it.
func (l *Log) look() error {
	info, err := l.file.Stat()
	if err != nil || info.Size() == l.offset {
		return err
	}
	l.offset = info.Size()
	if l.Grown != nil {
		l.Grown(l.offset)
	}
	return nil
}

// WatchDir calls look at first, when something may have appeared in a directory, and
// now and then without that, until ctx ends.
func WatchDir(ctx context.Context, dir string, look func()) {
	wake := make(chan struct{}, 1)
	stop, watched := watchPath(dir, dirEvents, wake)
	defer stop()
	pace := NewPace(time.Time{})
	defer pace.Stop()
	for ctx.Err() == nil {
		look()
		select {
		case <-wake:
			pace.Woken()
		case <-pace.Next(watched):
		case <-ctx.Done():
		}
	}
}
