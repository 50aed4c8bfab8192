package harness

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/podharness/spawn"
)

// podLog is the captured log of one pod: an open file, which stays readable
// after it was removed.
type podLog struct {
	pod string

	mu     sync.Mutex
	file   *os.File // nil if there was none, or after the test
	stamps stamps

	stop      context.CancelFunc // of what follows the log
	following sync.WaitGroup
}

// open takes a log, records when it grew and, with go test -v, streams its
// lines to the test.
func (l *podLog) open(tb TB, file *os.File) {
	l.file = file
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.following.Add(1)
	go func() {
		defer l.following.Done()
		_ = spawn.FollowSize(ctx, file, func(size int64) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.stamps.add(time.Now(), size)
		})
	}()
	if !verbose(tb) {
		return
	}
	write := func(line string) { tb.Logf("%s", line) }
	if t, ok := tb.(interface{ Output() io.Writer }); ok {
		out := t.Output()
		write = func(line string) { fmt.Fprintln(out, line) }
	}
	l.following.Add(1)
	go func() {
		defer l.following.Done()
		_ = spawn.Follow(ctx, file, func(line string) bool {
			write(l.pod + ": " + spawn.Printable(line))
			return true
		})
	}()
}

func verbose(tb TB) bool {
	if t, ok := tb.(interface{ Verbose() bool }); ok {
		return t.Verbose()
	}
	return testing.Testing() && testing.Verbose()
}

// endFollowing ends the stream and the record of the log's growth, after the
// last byte that is there now.
func (l *podLog) endFollowing() {
	if l.stop != nil {
		l.stop()
		l.following.Wait()
	}
}

func (l *podLog) close() {
	l.endFollowing()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// reader returns the log from its start to where it ends now, however fast it
// grows; nothing after close.
func (l *podLog) reader() io.Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return strings.NewReader("")
	}
	info, err := l.file.Stat()
	if err != nil {
		return strings.NewReader("")
	}
	return io.NewSectionReader(l.file, 0, info.Size())
}

// tail returns the last lines of the log for a message, an unfinished one
// included.
func (l *podLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return ""
	}
	info, err := l.file.Stat()
	if err != nil {
		return ""
	}
	const lines, most = 8, 8 << 10
	from := max(0, info.Size()-most)
	end, err := io.ReadAll(io.NewSectionReader(l.file, from, most))
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimRight(end, "\n"), []byte("\n"))
	all = all[max(0, len(all)-lines):]
	var b strings.Builder
	for _, line := range all {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) > 0 {
			b.WriteString("\n\t\t" + spawn.Printable(strings.ToValidUTF8(string(line), "\uFFFD")))
		}
	}
	return b.String()
}

// stamps tells when a log grew: the bytes before size were there at that time.
type stamps struct {
	at    []stamp
	apart time.Duration // what comes sooner after the last stamp shares it
}

type stamp struct {
	time time.Time
	size int64
}

// maxStamps bounds the record of one log. Beyond it every other stamp is
// dropped, and the times are half as fine.
const maxStamps = 1 << 14

func (s *stamps) add(now time.Time, size int64) {
	if n := len(s.at); n > 0 && size < s.at[n-1].size {
		s.at = nil // truncated: there is nothing older to tell of
	}
	if n := len(s.at); n > 0 && now.Sub(s.at[n-1].time) < s.apart {
		s.at[n-1].size = size
		return
	}
	if len(s.at) == maxStamps {
		for i := range maxStamps / 2 {
			s.at[i] = s.at[2*i+1]
		}
		s.at = s.at[:maxStamps/2]
		s.apart = max(2*s.apart, time.Millisecond)
	}
	s.at = append(s.at, stamp{now, size})
}

// of returns when the byte before offset was there.
func (s *stamps) of(offset int64) time.Time {
	i, _ := slices.BinarySearchFunc(s.at, offset, func(at stamp, offset int64) int { return cmp.Compare(at.size, offset) })
	if len(s.at) == 0 {
		return time.Time{}
	}
	return s.at[min(i, len(s.at)-1)].time
}
