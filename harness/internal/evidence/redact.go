package evidence

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// redactText returns a text as it may be shown.
func redactText(text []byte, redact func(string) string) (shown []byte) {
	for len(text) > 0 {
		line, rest, newline := bytes.Cut(text, []byte{'\n'})
		shown = append(shown, strings.ReplaceAll(redact(string(line)), "\n", " ")...)
		if newline {
			shown = append(shown, '\n')
		}
		text = rest
	}
	return shown
}

// longestRedacted is how many bytes of a line are redacted at once: a longer one is several.
const longestRedacted = 1 << 20

// redact has the files be made of a copy of the log whose lines are as they may be shown. Of a
// log that is too long for the evidence it is one of the beginning and the end.
func (r *Record) redact(a *Attempt) (err error) {
	log := excerptOf(SectionOf(a.file), r.Most/2)
	a.file = nil // nobody shows the log itself
	own, err := r.Own()
	if err != nil {
		return err
	}
	name := a.FileName() + ".redacted"
	out, err := create(own, name)
	if err != nil {
		return err
	}
	defer out.Close()
	c := &redactedCopy{out: bufio.NewWriterSize(out, 64<<10), redact: a.Captured.Redact, stamps: a.Stamps}
	c.copy(log.head)
	if log.left > 0 {
		c.write(log.note()+"\n", log.left)
	}
	c.copy(log.tail)
	if err := errors.Join(c.err, c.out.Flush()); err != nil {
		return err
	}
	if a.file, err = own.Open(name); err == nil {
		a.Stamps = c.moved
	}
	_ = own.Remove(name)
	return err
}

func (a *Attempt) closeRedacted() {
	if a.file != nil {
		a.file.Close()
	}
}

// A redactedCopy is written line by line. What has grown to a stamp's size in the log has grown
// to that of the moved one here.
type redactedCopy struct {
	out           *bufio.Writer
	redact        func(string) string
	stamps, moved []Stamp
	from, to      int64 // bytes that were read, and written
	err           error
}

func (c *redactedCopy) copy(log *io.SectionReader) {
	in := bufio.NewReaderSize(log, longestRedacted)
	for c.err == nil {
		line, err := in.ReadSlice('\n')
		text := strings.TrimSuffix(string(line), "\n")
		end := string(line[len(text):])
		if len(line) > 0 {
			c.write(c.redact(text)+end, int64(len(line)))
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			c.err = err
		}
	}
}

// write writes what stands for so many bytes of the log.
func (c *redactedCopy) write(text string, read int64) {
	_, err := c.out.WriteString(text)
	c.err = errors.Join(c.err, err)
	for len(c.stamps) > 0 && c.stamps[0].Size <= c.from+read {
		s := c.stamps[0]
		if s.Size = c.to + min(s.Size-c.from, int64(len(text))); c.from+read == c.stamps[0].Size {
			s.Size = c.to + int64(len(text))
		}
		c.moved, c.stamps = append(c.moved, s), c.stamps[1:]
	}
	c.from, c.to = c.from+read, c.to+int64(len(text))
}
