package podlog

import (
	"bytes"
	"strings"
)

// maxLine is how much of one line is kept, in bytes.
const maxLine = 64 << 10

// cutMark ends a line of which only the first maxLine bytes were kept.
const cutMark = "… [line cut at 64 KiB]"

// A Splitter turns bytes, in whatever pieces they come, into whole lines.
type Splitter struct {
	// Skip, if not nil, returns how much of p, which begins with a line, nobody wants.
	Skip func(p []byte) int

	pending []byte // the unfinished line: maxLine bytes at most, and one for a CR
	cut     bool   // the unfinished line was longer than that
	rest    int    // how much comes after the line that emit is called with
}

// Split calls emit with each line that p completes, without its line ending,
// and stops at the first error. The line is valid during the call only.
func (s *Splitter) Split(p []byte, emit func(line []byte, cut bool) error) error {
	for len(p) > 0 {
		if s.Skip != nil && len(s.pending) == 0 {
			p = p[s.Skip(p):]
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
