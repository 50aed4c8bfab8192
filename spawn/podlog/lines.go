package podlog

import (
	"bytes"
	"strings"
)

const (
	// maxLine is how much of one line is kept, in bytes.
	maxLine = 64 << 10
	// tailLines is how many lines a Tail keeps.
	tailLines = 8
)

// cutMark ends a line of which only the first maxLine bytes were kept.
const cutMark = "… [line cut at 64 KiB]"

// A Splitter turns bytes, in whatever pieces they come, into whole lines.
type Splitter struct {
	// OnlyTail skips lines that are no ready line and that a Tail will not show, where
	// skipping them is faster.
	OnlyTail bool

	pending []byte // the unfinished line: maxLine bytes at most, and one for a CR
	cut     bool   // the unfinished line was longer than that
	rest    int    // how much comes after the line that emit is called with
}

// Split calls emit with each line that p completes, without its line ending,
// and stops at the first error. The line is valid during the call only.
func (s *Splitter) Split(p []byte, emit func(line []byte, cut bool) error) error {
	for len(p) > 0 {
		if s.OnlyTail && len(s.pending) == 0 {
			p = p[beforeTail(p):]
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

func (s *Splitter) keep(p []byte) {
	if room := maxLine + 1 - len(s.pending); len(p) > room {
		p, s.cut = p[:room], true
	}
	s.pending = append(s.pending, p...)
}

// reset forgets the unfinished line. Its memory stays for the next one; the
// lines handed out before it are still whole until then.
func (s *Splitter) reset() { s.pending, s.cut = s.pending[:0], false }

// Unfinished returns what came after the last newline: it is valid until the next call
// of Split.
func (s *Splitter) Unfinished() (line []byte, cut bool) { return s.pending, s.cut }

// LineText returns a line as people see it: invalid UTF-8 as U+FFFD, and a mark where
// it was cut at 64 KiB.
func LineText(line []byte, cut bool) string {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	if cut {
		text += cutMark
	}
	return text
}

// A Tail keeps the last 8 lines. It reuses its memory: a pod may write millions.
type Tail struct {
	lines [tailLines][]byte
	n     int
}

// Add adds a line.
func (t *Tail) Add(line []byte, cut bool) {
	slot := &t.lines[t.n%tailLines]
	*slot = append((*slot)[:0], line...)
	if cut {
		*slot = append(*slot, cutMark...)
	}
	t.n++
}

// Strings returns the lines, as LineText has them.
func (t *Tail) Strings() (lines []string) {
	for i := max(0, t.n-tailLines); i < t.n; i++ {
		lines = append(lines, LineText(t.lines[i%tailLines], false))
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
