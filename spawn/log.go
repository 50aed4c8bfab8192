package spawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/spawn/safefile"
	"golang.org/x/sys/unix"
)

// logName is the log's name in the pod directory.
const logName = "stderr.log"

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
	rest    int    // how much comes after the line that emit is called with
	// skip says how much of p, which begins with a line, nobody wants to have
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
		s.rest = len(p)
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
	lines [tailLines][]byte
	n     int
}

func (t *tail) add(line []byte, cut bool) {
	slot := &t.lines[t.n%tailLines]
	*slot = append((*slot)[:0], line...)
	if cut {
		*slot = append(*slot, cutMark...)
	}
	t.n++
}

func (t *tail) strings() (lines []string) {
	for i := max(0, t.n-tailLines); i < t.n; i++ {
		lines = append(lines, lineText(t.lines[i%tailLines], false))
	}
	return lines
}

// beforeTail says how much of p, which begins with a line, neither shows in a
// tail nor is a ready line. To look for these alone is many times faster than to
// split a flood of lines.
func beforeTail(p []byte) int {
	end := readyLineIn(p)
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

// readyLineIn returns where the first ready line begins in p, which begins with a line;
// without one that is its end.
func readyLineIn(p []byte) int {
	for from := 0; ; from++ {
		// Not with the newline before it: of those there are many.
		i := bytes.Index(p[from:], []byte(readyPrefix))
		if i < 0 {
			return len(p)
		}
		if from += i; from == 0 || p[from-1] == '\n' {
			return from
		}
	}
}

// readBuffers are held during one read only, so that a thousand starts that
// wait cost nothing. They are as large as cat's: each read costs a tail of lines.
var readBuffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

// logReader reads a growing log through one descriptor, each byte once. The
// log stays readable after it was removed. It does not move the file's offset.
type logReader struct {
	file   *os.File
	offset int64
	// before is what stood just before offset. A log that no longer has it there
	// was truncated, and may have grown beyond offset again since.
	before    []byte
	truncated bool // at some time
	grown     func(size int64)
	lineSplitter
}

// maxBefore is enough to tell the end of one line from the middle of another.
const maxBefore = 64

// read hands what the log holds beyond the last read to emit, one buffer at
// the most, and reports whether there may be more. A log that was truncated is
// read from its start, and the line that was unfinished then is lost with it.
func (r *logReader) read(emit func(line []byte, cut bool) error) (more bool, err error) {
	buf := readBuffers.Get().(*[128 << 10]byte)
	defer readBuffers.Put(buf)
	// Not ReadAt, which asks a second time after a short read.
	n, err := unix.Pread(int(r.file.Fd()), buf[:], r.offset-int64(len(r.before)))
	switch {
	case errors.Is(err, unix.EINTR):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read pod log: %w", err)
	}
	if !bytes.HasPrefix(buf[:n], r.before) {
		r.offset, r.before, r.truncated = 0, r.before[:0], true
		r.reset()
		return true, nil
	}
	fresh := buf[len(r.before):n]
	if len(fresh) == 0 {
		return false, nil
	}
	r.offset += int64(len(fresh))
	r.before = append(r.before[:0], buf[max(0, n-maxBefore):n]...)
	if r.grown != nil {
		r.grown(r.offset)
	}
	return n == len(buf), r.split(fresh, emit)
}

// drain reads to where the log ends now; what is written meanwhile does not
// make it longer. Once late reports true, only the end is read.
func (r *logReader) drain(emit func(line []byte, cut bool) error, late func() bool) error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("read pod log: %w", err)
	}
	for {
		more, err := r.read(emit)
		if err != nil || !more || r.offset >= info.Size() {
			return err
		}
		if end := info.Size() - lastWords; r.offset < end && late() {
			r.offset, r.before = end, nil
			r.reset()
		}
	}
}

// lastWords is how much of a log too long to be read in time is read.
const lastWords = 64 << 10

// createLog makes the pod directory and the log, and opens it twice: for the
// pod, which appends to it, and for a reader. fresh has an older log replaced,
// not truncated. Links are refused: whoever can put one there would choose what
// gets overwritten.
func createLog(podDir string, fresh bool) (stderr, reader *os.File, err error) {
	if err := createPodDir(podDir); err != nil {
		return nil, nil, err
	}
	path := below(podDir, logName)
	if fresh {
		_ = os.Remove(path)
	}
	if stderr, err = openLogFile(path); err != nil {
		return nil, nil, err
	}
	if reader, err = safefile.Open(path); err != nil {
		stderr.Close()
		return nil, nil, fmt.Errorf("create pod log: %w", err)
	}
	return stderr, reader, nil
}

// openLogFile opens the log for appending, empty and 0600: what the pod writes after its
// log was truncated goes to the new end of the file, not to the old one.
func openLogFile(path string) (*os.File, error) {
	// Without waiting, should somebody have put a FIFO there.
	stderr, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		if info, statErr := os.Lstat(path); statErr == nil && !info.Mode().IsRegular() {
			return nil, notRegular(path, info)
		}
		return nil, fmt.Errorf("create pod log: %w", err)
	}
	info, err := stderr.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		stderr.Close()
		return nil, notRegular(path, info)
	case info.Sys().(*syscall.Stat_t).Nlink > 1:
		// To truncate it would be to truncate a file elsewhere: it gets one name less.
		stderr.Close()
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("create pod log: %w", err)
		}
		return openLogFile(path)
	case info.Size() > 0:
		err = stderr.Truncate(0)
	}
	if err == nil && info.Mode().Perm() != 0o600 {
		err = stderr.Chmod(0o600)
	}
	if err == nil {
		err = syscall.SetNonblock(int(stderr.Fd()), false) // the pod shares the flag
	}
	if err != nil {
		stderr.Close()
		return nil, fmt.Errorf("create pod log: %w", err)
	}
	return stderr, nil
}

func notRegular(path string, info fs.FileInfo) error {
	return fmt.Errorf("pod log %s is a %s, not a regular file: remove it", path, fileKind(info))
}

func createPodDir(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(dir)
	}
	switch {
	case err != nil:
		return fmt.Errorf("create pod directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("pod directory %s is a %s, not a directory of its own: remove it", dir, fileKind(info))
	case int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
		return fmt.Errorf("pod directory %s belongs to user %d, not to user %d who starts the pod", dir, info.Sys().(*syscall.Stat_t).Uid, os.Geteuid())
	}
	return nil
}

func fileKind(info fs.FileInfo) string {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return "symbolic link"
	case info.IsDir():
		return "directory"
	case info.Mode().IsRegular():
		return "regular file"
	}
	return "special file"
}

// A Log is a pod's log as [StartObserved] hands it over: opened once, watched
// once, and read by one goroutine at a time. It is for package harness.
type Log struct {
	logReader
	wake    chan struct{} // also for other events that the reader waits for
	watched bool          // events of the log wake it
	unwatch func()
}

// watchLog returns a log that is read from its start. Its file is whoever's who
// opened it until Close.
func watchLog(file *os.File) *Log {
	l := &Log{logReader: logReader{file: file}, wake: make(chan struct{}, 1)}
	l.unwatch, l.watched = watchPath(file.Name(), logEvents, l.wake)
	return l
}

// File returns the open log: it can be read until Close, by several at once.
func (l *Log) File() *os.File { return l.file }

// Close ends the watch and closes the file.
func (l *Log) Close() error {
	l.unwatch()
	return l.file.Close()
}

// errStopFollowing ends Follow from within a line.
var errStopFollowing = errors.New("stop following")

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
	l := watchLog(log)
	defer l.unwatch()
	return l.Follow(ctx, fn)
}

// Follow goes on where the log was last read, as the function Follow does from
// the start. Without fn, the log is not read: only [Observer.Grown] is called.
func (l *Log) Follow(ctx context.Context, fn func(line string) bool) error {
	emit := func(line []byte, cut bool) error {
		if !fn(lineText(line, cut)) {
			return errStopFollowing
		}
		return nil
	}
	pace := newPace(time.Time{})
	defer pace.stop()
	for {
		over := ctx.Err()
		more, err := false, error(nil)
		switch {
		case fn == nil:
			err = l.look()
		case errors.Is(over, context.Canceled):
			err = l.drain(emit, func() bool { return false })
		default:
			more, err = l.read(emit)
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
			pace.woken()
		case <-pace.next(l.watched):
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
	if l.grown != nil {
		l.grown(l.offset)
	}
	return nil
}

// logTrouble says why the last words of a pod may be missing in its log; "" if
// there is no such reason.
func logTrouble(path string) string {
	var disk unix.Statfs_t
	if err := unix.Statfs(path[:strings.LastIndexByte(path, '/')+1], &disk); err == nil && disk.Blocks > 0 && disk.Bavail == 0 {
		return "the disk of the log is full: the pod's last words may be missing"
	}
	var limit unix.Rlimit
	info, err := os.Stat(path)
	if err == nil && unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) == nil && uint64(info.Size()) >= limit.Cur {
		return fmt.Sprintf("the log has reached the file-size limit of %d bytes (ulimit -f): the pod's last words may be missing", limit.Cur)
	}
	return ""
}
