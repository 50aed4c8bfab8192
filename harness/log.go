package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"example.com/podharness/spawn"
)

// podLog is the captured log of one pod: an open file, which stays readable
// after it was removed.
type podLog struct {
	pod string

	mu   sync.Mutex
	file *os.File // nil if there was none, or after the test

	stop     context.CancelFunc // of the stream
	streamed chan struct{}      // closed when the stream has ended
}

// open takes a log and, with go test -v, streams its lines to the test.
func (l *podLog) open(tb TB, file *os.File) {
	l.file = file
	if !verbose(tb) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop, l.streamed = cancel, make(chan struct{})
	write := func(line string) { tb.Logf("%s", line) }
	if t, ok := tb.(interface{ Output() io.Writer }); ok {
		out := t.Output()
		write = func(line string) { fmt.Fprintln(out, line) }
	}
	go func() {
		defer close(l.streamed)
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

// endStream ends the stream after the last line that is there now.
func (l *podLog) endStream() {
	if l.stop != nil {
		l.stop()
		<-l.streamed
	}
}

func (l *podLog) close() {
	l.endStream()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// reader returns the log from its start, nothing after close.
func (l *podLog) reader() io.Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return strings.NewReader("")
	}
	return io.NewSectionReader(l.file, 0, math.MaxInt64)
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
