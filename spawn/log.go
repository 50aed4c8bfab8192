package spawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxLine is how much of one line is kept, in bytes.
	maxLine = 64 << 10
	// tailLines is how many of the last lines an Error shows.
	tailLines = 8
)

// cutMark ends a line of which only the first maxLine bytes were kept.
const cutMark = "… [line cut at 64 KiB]"

// lineSplitter turns bytes, in whatever pieces they come, into whole lines.
type lineSplitter struct {
	pending []byte // the unfinished line: maxLine bytes at most, and one for a CR
	cut     bool   // the unfinished line was longer than that
	// skip tells how much of p, which begins with a line, nobody wants to have
	// split; nil = nothing.
	skip func(p []byte) int
}

// split calls emit with each line that p completes, without its line ending,
// and stops at the first error. The line is valid during the call only.
func (s *lineSplitter) split(p []byte, emit func(line []byte, cut bool) error) error {
	for len(p) > 0 {
		if s.skip != nil && len(s.pending) == 0 {
			p = p[s.skip(p):]
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.keep(p)
			return nil
		}
		line := p[:end]
		if len(s.pending) > 0 {
			s.keep(line)
			line = s.pending
		}
		cut := s.cut
		if !cut {
			line = bytes.TrimSuffix(line, []byte("\r"))
		}
		if len(line) > maxLine {
			line, cut = line[:maxLine], true
		}
		p = p[end+1:]
		s.reset()
		if err := emit(line, cut); err != nil {
			return err
		}
	}
	return nil
}

func (s *lineSplitter) keep(p []byte) {
	if room := maxLine + 1 - len(s.pending); len(p) > room {
		p, s.cut = p[:room], true
	}
	s.pending = append(s.pending, p...)
}

// reset forgets the unfinished line. Its memory stays for the next one; the
// lines handed out before it are still whole until then.
func (s *lineSplitter) reset() { s.pending, s.cut = s.pending[:0], false }

// lineText is a line as people see it.
func lineText(line []byte, cut bool) string {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	if cut {
		text += cutMark
	}
	return text
}

// tail keeps the last lines. It reuses its memory: a pod may write millions.
type tail struct {
	lines [tailLines]struct {
		text []byte
		cut  bool
	}
	n int
}

func (t *tail) add(line []byte, cut bool) {
	slot := &t.lines[t.n%tailLines]
	slot.text, slot.cut = append(slot.text[:0], line...), cut
	t.n++
}

// beforeTail tells how much of p, which begins with a line, neither shows in a
// tail nor is a ready line. To look for these alone is many times faster than to
// split a flood of lines.
func beforeTail(p []byte) int {
	end := len(p)
	for from := 0; from < end; {
		i := bytes.Index(p[from:], []byte(readyPrefix))
		if i < 0 {
			break
		}
		from += i
		if from == 0 || p[from-1] == '\n' {
			end = from
			break
		}
		from++
	}
	// Forward from shortly before the end: LastIndexByte goes byte by byte.
	for size := 1 << 10; ; size *= 4 {
		from := max(0, end-size)
		lines := bytes.Count(p[from:end], []byte{'\n'})
		if lines <= tailLines && from > 0 {
			continue
		}
		for ; lines > tailLines; lines-- {
			from += bytes.IndexByte(p[from:end], '\n') + 1
		}
		return from
	}
}

func (t *tail) strings() []string {
	var lines []string
	for i := max(0, t.n-tailLines); i < t.n; i++ {
		slot := t.lines[i%tailLines]
		lines = append(lines, lineText(slot.text, slot.cut))
	}
	return lines
}

// readBuffers are held during one read only, so that a thousand starts that
// wait cost nothing. They are as large as cat's: each read costs a tail of lines.
var readBuffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// logReader reads a growing log through one descriptor, each byte once. The
// log stays readable after it was removed. It does not move the file's offset.
type logReader struct {
	file   *os.File
	offset int64
	lineSplitter
}

// read hands what the log holds beyond the last read to emit, one buffer at
// the most, and tells whether there may be more. A log found shorter than what
// was read of it was truncated: it is read from its start, and the line that
// was unfinished then is lost with it. One that has grown beyond that again
// before the look cannot be told from one that only grew.
func (r *logReader) read(emit func(line []byte, cut bool) error) (more bool, err error) {
	buf := readBuffers.Get().(*[128 << 10]byte)
	defer readBuffers.Put(buf)
	// Not ReadAt, which asks a second time after a short read.
	n, err := unix.Pread(int(r.file.Fd()), buf[:], r.offset)
	switch {
	case n > 0:
		r.offset += int64(n)
		return n == len(buf), r.split(buf[:n], emit)
	case errors.Is(err, unix.EINTR):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read pod log: %w", err)
	}
	info, err := r.file.Stat()
	if err != nil {
		return false, fmt.Errorf("read pod log: %w", err)
	}
	if info.Size() >= r.offset {
		return false, nil
	}
	r.offset = 0
	r.reset()
	return true, nil
}

// drain reads to where the log ends now; what is written meanwhile does not
// make it longer.
func (r *logReader) drain(emit func(line []byte, cut bool) error) error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("read pod log: %w", err)
	}
	for {
		more, err := r.read(emit)
		if err != nil || !more || r.offset >= info.Size() {
			return err
		}
	}
}

// errStopFollowing ends Follow from within a line.
var errStopFollowing = errors.New("stop following")

// Follow calls fn with every line of a pod's log, from its start on, and waits
// for more where the log ends. It returns nil when fn
// returned false, and the context's error, after one last look at the log,
// when ctx ended.
//
// Lines are as [Config.Progress] gets them: whole ones only, without the line
// ending, invalid UTF-8 replaced, cut at 64 KiB. A truncated log is read from
// its start. Follow neither closes log nor moves its offset, so that several
// may follow one file; fn is called from Follow's goroutine.
func Follow(ctx context.Context, log *os.File, fn func(line string) bool) error {
	r := logReader{file: log}
	emit := func(line []byte, cut bool) error {
		if !fn(lineText(line, cut)) {
			return errStopFollowing
		}
		return nil
	}
	return watchLog(ctx, log, func(last bool) (more bool, err error) {
		if last {
			return false, r.drain(emit)
		}
		return r.read(emit)
	})
}

// FollowSize calls fn with the size of a pod's log, in bytes, at first and
// whenever it has changed, without reading it. It ends as Follow does; fn is
// called from its goroutine.
func FollowSize(ctx context.Context, log *os.File, fn func(size int64) bool) error {
	size := int64(-1)
	return watchLog(ctx, log, func(bool) (more bool, err error) {
		info, err := log.Stat()
		if err != nil || info.Size() == size {
			return false, err
		}
		size = info.Size()
		if !fn(size) {
			return false, errStopFollowing
		}
		return false, nil
	})
}

// watchLog calls look whenever the log may have changed and as long as there is
// more to see, until that returns errStopFollowing or ctx ends; the last look
// comes after that.
func watchLog(ctx context.Context, log *os.File, look func(last bool) (more bool, err error)) error {
	wake := make(chan struct{}, 1)
	stop, watched := watchPath(log.Name(), logEvents, wake)
	defer stop()
	pace := newPace(time.Time{})
	defer pace.stop()
	for {
		over := ctx.Err()
		more, err := look(over != nil)
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
		case <-wake:
			pace.woken()
		case <-pace.next(watched):
		case <-ctx.Done():
		}
	}
}
