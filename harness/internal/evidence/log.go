package evidence

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/fakepod/replay"
	"example.com/podharness/spawn/podlog"
	"golang.org/x/sys/unix"
)

// A Log is the captured log of one pod, which stays readable after it was
// removed. The start reads it, and then follow.
type Log struct {
	stream func(line string)        // to the test; nil = nobody wants to know
	redact func(line string) string // nil = the lines are no secrets

	mu      sync.Mutex  // guards all up to said; it is taken after the collector's
	own     os.FileInfo // of the log; nil until it is asked for
	file    *os.File    // nil until the start has made it, and after the test
	log     *podlog.Log // reads it; nil = nobody does
	stamps  stamps
	changed chan struct{} // closed when it grows; nil = nobody waits
	window  Stamp         // when what is not noted yet began to come, and where it ends
	note    func(Stamp)   // in the journal
	asked   bool          // the pod was asked to write what it does
	said    int64         // what was there before that

	stop      context.CancelFunc // of following
	following sync.WaitGroup
}

// ErrOver is the error of a look at a log once the capture was closed.
var ErrOver = errors.New("the test has ended, and with it the capture")

// NewLog returns the log of a pod that is about to be started, whose lines stream takes.
func NewLog(stream func(line string)) *Log {
	return &Log{stream: stream, stop: func() {}, note: func(Stamp) {}}
}

// Stream takes the lines as they come; nil = nobody does.
func (l *Log) Stream() func(line string) { return l.stream }

// Take takes over the log that a start has made, if it has.
func (l *Log) Take(log *podlog.Log) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log = log; log != nil {
		l.file = log.File()
	}
}

// takeOwn takes a file to which this process writes alone: whoever does calls Grown.
func (l *Log) takeOwn(file *os.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file = file
}

// Grown notes when the log had which size.
func (l *Log) Grown(size int64) {
	if window := l.add(Stamp{At: time.Now(), Size: size}); window.Size > 0 {
		l.note(window)
	}
}

// ApartNoted is how fine the times in the journal are. When the last bytes came, the log
// itself tells.
const ApartNoted = 100 * time.Millisecond

// add returns what should be noted now; zero = nothing.
func (l *Log) add(s Stamp) (window Stamp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stamps.add(s.At, s.Size)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if l.window.Size > 0 && s.At.Sub(l.window.At) < ApartNoted {
		l.window.Size = s.Size
		return Stamp{}
	}
	window, l.window = l.window, s
	return window
}

// view returns the open log, nil if there is none, and when it grew.
func (l *Log) view() (*os.File, []Stamp) {
	file := l.File()
	l.mu.Lock()
	defer l.mu.Unlock()
	return file, slices.Clone(l.stamps.at)
}

// KeepTail has the tail end where the log ends now.
func (l *Log) KeepTail() {
	size := l.Reader().Size()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked, l.said = true, size
}

// keptTail returns where the tail ends that KeepTail has kept.
func (l *Log) keptTail() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said
}

// isDump reports whether what ends at an offset was written since KeepTail: of a Go pod it is
// hundreds of lines, in which the message of the test would drown.
func (l *Log) isDump(end int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked && end > l.said
}

// Next returns a channel that is closed when the log has grown again.
func (l *Log) Next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

// Capture takes a log that is there, and follows it.
func (l *Log) Capture(file *os.File) {
	l.Take(podlog.Watch(file, l.Grown))
	l.Follow()
}

// Follow goes on where the start has stopped to read, until endFollowing.
func (l *Log) Follow() {
	if l.log == nil {
		return
	}
	var stream func(string) bool // nil = the log is not read, its size is noted
	if l.stream != nil {
		stream = func(line string) bool {
			if !l.isDump(l.log.LineEnd()) {
				l.stream(line)
			}
			return true
		}
	}
	l.log.Rest = restTime
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.following.Add(1)
	go func() {
		defer l.following.Done()
		_ = l.log.Follow(ctx, stream)
	}()
}

// restTime is how long the end of a test waits for the lines of a log that come last. A pod
// can make its log as large as it likes in no time.
const restTime = 2 * time.Second

// EndFollowing ends the stream and the record of the log's growth, after the
// last byte that is there now. Of a log that takes too long to read only the end is
// streamed then.
func (l *Log) EndFollowing() {
	l.stop()
	l.following.Wait()
}

// Close ends the capture: the log is empty then.
func (l *Log) Close() {
	l.EndFollowing()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log != nil {
		l.log.Close()
	} else if l.file != nil {
		l.file.Close()
	}
	l.log, l.file = nil, nil
}

// File returns the open log; nil if there is none.
func (l *Log) File() *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file
}

// Path returns where the log was made; "" if it was not.
func (l *Log) Path() string {
	if file := l.File(); file != nil {
		return file.Name()
	}
	return ""
}

// is reports whether a file is this log.
func (l *Log) is(info os.FileInfo) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own == nil && l.file != nil {
		l.own, _ = l.file.Stat()
	}
	return l.own != nil && os.SameFile(l.own, info)
}

// Text returns all of the log that is there now.
func (l *Log) Text() string {
	all, _ := io.ReadAll(l.Reader())
	return string(all)
}

// Open returns the log opened once more: it outlives close.
func (l *Log) Open() (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil, ErrOver
	}
	// Not by its path: the pod may have removed it.
	fd, err := unix.FcntlInt(l.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return os.NewFile(uintptr(fd), l.file.Name()), err
}

// Reader returns the log from its start to where it ends now, however fast it
// grows; nothing after close.
func (l *Log) Reader() *io.SectionReader { return SectionOf(l.File()) }

func SectionOf(log *os.File) *io.SectionReader {
	if log != nil {
		if info, err := log.Stat(); err == nil {
			return io.NewSectionReader(log, 0, info.Size())
		}
	}
	return io.NewSectionReader(strings.NewReader(""), 0, 0)
}

// End returns where the last whole line ends.
func (l *Log) End() int64 {
	log := l.Reader()
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

// Tail returns the last lines of the log for a message, an unfinished one included, and before
// them why the pod has crashed.
func (l *Log) Tail() string {
	log := l.Reader()
	l.mu.Lock()
	if l.asked {
		log = io.NewSectionReader(log, 0, min(l.said, log.Size()))
	}
	l.mu.Unlock()
	tail, _ := podlog.ReadTail(log)
	lines := tail.Strings()
	for i, line := range lines {
		lines[i] = l.Redact(line)
	}
	if reason := l.Redact(tail.Reason()); reason != "" && !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, reason) }) {
		lines = slices.Insert(lines, 0, reason, "…")
	}
	text := ""
	for _, line := range lines {
		if line != "" {
			text += "\n\t\t" + podlog.PrintableLines(Shorten(line, 1000))
		}
	}
	return cmp.Or(text, " nothing")
}

// Redact returns a line as it may be shown.
func (l *Log) Redact(line string) string {
	if l.redact == nil || line == "" {
		return line
	}
	return strings.ReplaceAll(l.redact(line), "\n", " ")
}

// stamps tells when a log grew: the bytes before size were there at that time.
type stamps struct {
	at    []Stamp
	apart time.Duration // what comes sooner after the last stamp shares it
}

type Stamp = replay.Growth

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
	s.at = append(s.at, Stamp{At: now, Size: size})
}

// growth returns when the byte before an offset was there.
func growth(at []Stamp, offset int64) time.Time {
	i, _ := slices.BinarySearchFunc(at, offset, func(at Stamp, offset int64) int { return cmp.Compare(at.Size, offset) })
	if len(at) == 0 {
		return time.Time{}
	}
	return at[min(i, len(at)-1)].At
}
