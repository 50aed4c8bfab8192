package harness

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/podharness/fakepod/replay"
	"example.com/podharness/spawn/podlog"
	"golang.org/x/sys/unix"
)

// podLog is the captured log of one pod, which stays readable after it was
// removed. The start reads it, and then follow.
type podLog struct {
	stream func(line string) // to the test; nil = nobody wants to know

	mu      sync.Mutex
	own     os.FileInfo // of the log; nil until it is asked for
	log     *podlog.Log // nil until the start has made it, and after the test
	stamps  stamps
	changed chan struct{} // closed when it grows; nil = nobody waits
	window  stamp         // when what is not noted yet began to come, and where it ends
	note    func(stamp)   // in the journal
	said    int64         // what was there before the pod was asked to write what it does; 0 = it was not

	stop      context.CancelFunc // of following
	following sync.WaitGroup
}

// newPodLog returns the log of a pod that is about to be started. With go test
// -v its lines are streamed to the test.
func newPodLog(tb TB, pod string) *podLog {
	l := &podLog{stop: func() {}, note: func(stamp) {}}
	if !verbose(tb) {
		return l
	}
	write := func(line string) { tb.Logf("%s", line) }
	if t, ok := optional[interface{ Output() io.Writer }](tb); ok {
		out := t.Output()
		write = func(line string) { fmt.Fprintln(out, line) }
	}
	name := podlog.Printable(pod)
	l.stream = func(line string) { write(name + ": " + podlog.Printable(line)) }
	return l
}

func verbose(tb TB) bool {
	if t, ok := optional[interface{ Verbose() bool }](tb); ok {
		return t.Verbose()
	}
	return testing.Testing() && flag.Parsed() && testing.Verbose() // which else panics
}

// attr notes where the evidence of a test is, for go test -json.
func attr(tb TB, dir string) {
	if t, ok := optional[interface{ Attr(key, value string) }](tb); ok {
		t.Attr("evidence", dir)
	}
}

// take takes over the log that a start has made, if it has.
func (l *podLog) take(log *podlog.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.log = log
}

// grown notes when the log had which size.
func (l *podLog) grown(size int64) {
	if window := l.add(stamp{At: time.Now(), Size: size}); window.Size > 0 {
		l.note(window)
	}
}

// apartNoted is how fine the times in the journal are. When the last bytes came, the log
// itself tells.
const apartNoted = 100 * time.Millisecond

// add returns what should be noted now; zero = nothing.
func (l *podLog) add(s stamp) (window stamp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stamps.add(s.At, s.Size)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if l.window.Size > 0 && s.At.Sub(l.window.At) < apartNoted {
		l.window.Size = s.Size
		return stamp{}
	}
	window, l.window = l.window, s
	return window
}

// view returns the open log, nil if there is none, and when it grew.
func (l *podLog) view() (*os.File, []stamp) {
	file := l.file()
	l.mu.Lock()
	defer l.mu.Unlock()
	return file, slices.Clone(l.stamps.at)
}

// keepTail has the tail end where the log ends now.
func (l *podLog) keepTail() {
	size := l.reader().Size()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = size
}

// next returns a channel that is closed when the log has grown again.
func (l *podLog) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// capture takes a log that is there, and follows it.
func (l *podLog) capture(file *os.File) {
	l.take(podlog.Watch(file, l.grown))
	l.follow()
}

// follow goes on where the start has stopped to read, until endFollowing.
func (l *podLog) follow() {
	if l.log == nil {
		return
	}
	var stream func(string) bool // nil = the log is not read, its size is noted
	if l.stream != nil {
		stream = func(line string) bool { l.stream(line); return true }
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.following.Add(1)
	go func() {
		defer l.following.Done()
		_ = l.log.Follow(ctx, stream)
	}()
}

// endFollowing ends the stream and the record of the log's growth, after the
// last byte that is there now.
func (l *podLog) endFollowing() {
	l.stop()
	l.following.Wait()
}

func (l *podLog) close() {
	l.endFollowing()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log != nil {
		l.log.Close()
		l.log = nil
	}
}

// file returns the open log; nil if there is none.
func (l *podLog) file() *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log == nil {
		return nil
	}
	return l.log.File()
}

// path returns where the log was made; "" if it was not.
func (l *podLog) path() string {
	if file := l.file(); file != nil {
		return file.Name()
	}
	return ""
}

// is reports whether a file is this log.
func (l *podLog) is(info os.FileInfo) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own == nil && l.log != nil {
		l.own, _ = l.log.File().Stat()
	}
	return l.own != nil && os.SameFile(l.own, info)
}

// text returns all of the log that is there now.
func (l *podLog) text() string {
	all, _ := io.ReadAll(l.reader())
	return string(all)
}

// open returns the log opened once more: it outlives close.
func (l *podLog) open() (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log == nil {
		return nil, errors.New("the test has ended, and with it the capture")
	}
	// Not by its path: the pod may have removed it.
	fd, err := unix.FcntlInt(l.log.File().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return os.NewFile(uintptr(fd), l.log.File().Name()), err
}

// reader returns the log from its start to where it ends now, however fast it
// grows; nothing after close.
func (l *podLog) reader() *io.SectionReader { return sectionOf(l.file()) }

func sectionOf(log *os.File) *io.SectionReader {
	if log != nil {
		if info, err := log.Stat(); err == nil {
			return io.NewSectionReader(log, 0, info.Size())
		}
	}
	return io.NewSectionReader(strings.NewReader(""), 0, 0)
}

// end returns where the last whole line ends.
func (l *podLog) end() int64 {
	log := l.reader()
	buf := make([]byte, 4<<10)
	for end := log.Size(); end > 0; {
		begin := max(0, end-int64(len(buf)))
		n, _ := log.ReadAt(buf[:end-begin], begin)
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return begin + int64(i) + 1
		}
		end = begin
	}
	return 0
}

// tail returns the last lines of the log for a message, an unfinished one
// included.
func (l *podLog) tail() string {
	const most, size = 8, 8 << 10
	log := l.reader()
	l.mu.Lock()
	if l.said > 0 {
		log = io.NewSectionReader(log, 0, min(l.said, log.Size()))
	}
	l.mu.Unlock()
	_, _ = log.Seek(max(0, log.Size()-size), io.SeekStart)
	var last []string
	for lines := newLineReader(log); ; {
		line, err := lines.next()
		if err != nil {
			break
		}
		if line != "" {
			last = append(last, line)
		}
	}
	last = last[max(0, len(last)-most):]
	if len(last) == 0 {
		return " nothing"
	}
	return "\n\t\t" + strings.Join(last, "\n\t\t")
}

// lineReader reads a log that has an end, line by line, and knows where each
// ends. (spawn's reader, which follows, tells lines alone.)
type lineReader struct {
	*bufio.Reader
	offset int64 // where the last line ended
}

func newLineReader(log io.Reader) *lineReader {
	return &lineReader{Reader: bufio.NewReaderSize(log, 64<<10)}
}

// next returns the next line as people see it, cut at 64 KiB. The last one may be
// unfinished; then comes io.EOF.
func (r *lineReader) next() (string, error) {
	part, err := r.ReadSlice('\n')
	r.offset += int64(len(part))
	line := podlog.Printable(strings.ToValidUTF8(strings.TrimRight(string(part), "\r\n"), "\uFFFD"))
	if errors.Is(err, bufio.ErrBufferFull) {
		line += "… [line cut]"
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = r.ReadSlice('\n')
		r.offset += int64(len(part))
	}
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	return line, err
}

// stamps tells when a log grew: the bytes before size were there at that time.
type stamps struct {
	at    []stamp
	apart time.Duration // what comes sooner after the last stamp shares it
}

type stamp = replay.Growth

// maxStamps bounds the record of one log. Beyond it every other stamp is
// dropped, and the times are half as fine.
const maxStamps = 1 << 14

func (s *stamps) add(now time.Time, size int64) {
	if n := len(s.at); n > 0 && size < s.at[n-1].Size {
		s.at = nil // truncated: there is nothing older to tell of
	}
	if n := len(s.at); n > 0 && now.Sub(s.at[n-1].At) < s.apart {
		s.at[n-1].Size = size
		return
	}
	if len(s.at) == maxStamps {
		for i := range maxStamps / 2 {
			s.at[i] = s.at[2*i+1]
		}
		s.at = s.at[:maxStamps/2]
		s.apart = max(2*s.apart, time.Millisecond)
	}
	s.at = append(s.at, stamp{At: now, Size: size})
}

// of returns when the byte before offset was there.
func (s *stamps) of(offset int64) time.Time {
	i, _ := slices.BinarySearchFunc(s.at, offset, func(at stamp, offset int64) int { return cmp.Compare(at.Size, offset) })
	if len(s.at) == 0 {
		return time.Time{}
	}
	return s.at[min(i, len(s.at)-1)].At
}
