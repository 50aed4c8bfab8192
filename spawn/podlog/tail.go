package podlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
)

const (
	tailLines = 8       // of a Tail
	maxReason = 2 << 10 // of a reason, in bytes
	// reportGap is how many ordinary lines may stand between two parts of one report.
	reportGap = 8
)

// A Tail collects what a message shows of a log: its last 8 lines, in which a stack trace
// counts as one, and why the program has crashed. Many programs say that first, and the
// stack, which may have hundreds of lines, after it. A Tail reuses its memory: a pod may
// write millions of lines.
//
// Lines are added with Add while a log is followed. [ReadTail] reads a log that has an end.
type Tail struct {
	lines [tailLines][]byte // a ring
	trace [tailLines]int    // of how many lines of a stack trace this is the first; 0 = it is none
	place [tailLines][]byte // where that begins in the program's own code, in Go; empty = it is not known
	call  []byte            // the function of the last line, in Go
	n     int

	reason, cause []byte // the first line of the last report with what belongs to it; nil = none
	at            int    // n of that line
	sure          bool   // it begins a report; else it is a line that names an error
	near          int    // after how many ordinary lines the report is over
	awaits        part   // of the report
	inSource      bool   // the last line of the trace has a line of Python's source after it

	nearMiss   []byte // the first one of a ready line
	colourless []byte
}

// A part of a report that comes after its first line and belongs to the reason.
type part int

const (
	none     part = iota
	nextLine      // as after Rust's "panicked at FILE:LINE:"
	lastLine      // as after Python's "Traceback (most recent call last):"
)

// ReadTail reads a log to its end, of a long one the last 16 MiB, and returns its tail. An
// unfinished last line counts as a line.
func ReadTail(log *io.SectionReader) (*Tail, error) {
	const most = 16 << 20
	t := &Tail{}
	s := Splitter{Skip: t.Skip}
	add := func(line []byte, cut bool) error { t.Add(line, cut); return nil }
	buf := readBuffers.Get().(*[128 << 10]byte)
	defer readBuffers.Put(buf)
	begin := max(0, log.Size()-most)
	for at := begin; ; {
		n, err := log.ReadAt(buf[:], at)
		part := buf[:n]
		if at == begin && begin > 0 { // in the middle of a line
			_, part, _ = bytes.Cut(part, []byte{'\n'})
		}
		_ = s.Split(part, add)
		if at += int64(n); err == nil {
			continue
		}
		if line, cut := s.Unfinished(); len(line) > 0 {
			t.Add(line, cut)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return t, err
	}
}

// Add adds a line, which is valid during the call only.
func (t *Tail) Add(line []byte, cut bool) {
	if t.nearMiss == nil && bytes.IndexByte(line, 'Y') >= 0 && NearMiss(line) != "" {
		t.nearMiss = slices.Clone(line[:min(len(line), maxReason)])
	}
	text := t.withoutColours(line)
	open := t.n > 0 && t.trace[(t.n-1)%tailLines] > 0
	isTrace := t.isTrace(text, open)
	if isTrace && open {
		t.trace[(t.n-1)%tailLines]++
		t.placed((t.n-1)%tailLines, text)
		t.near = reportGap
		return
	}
	count := 0
	if isTrace {
		count = 1
		t.traceBegins(text)
		t.near = reportGap
	} else {
		t.near = max(0, t.near-1)
		t.reported(text)
	}
	slot := &t.lines[t.n%tailLines]
	*slot = append((*slot)[:0], line...)
	if cut {
		*slot = append(*slot, cutMark...)
	}
	t.trace[t.n%tailLines], t.place[t.n%tailLines], t.call = count, t.place[t.n%tailLines][:0], t.call[:0]
	if isTrace {
		t.placed(t.n%tailLines, text)
	}
	t.n++
}

// Strings returns the last lines, as LineText has them. Several lines of a stack trace are
// one such as "… 23 lines of a stack trace", in Go with the function of the program's own code in
// which it begins: "… 23 lines of a stack trace: main.run at agent/main.go:12".
func (t *Tail) Strings() (lines []string) {
	for i := max(0, t.n-tailLines); i < t.n; i++ {
		text := LineText(t.lines[i%tailLines], false)
		if n := t.trace[i%tailLines]; n > 1 {
			text = fmt.Sprintf("… %d lines of a stack trace", n)
			if place := t.place[i%tailLines]; len(place) > 0 {
				text += ": " + LineText(place, false)
			}
		}
		lines = append(lines, text)
	}
	return lines
}

// Reason returns what begins the last report of a crash in the log, such as "panic: …",
// however long ago that was; "" = there is none. It may have parts of later lines: a signal,
// the message of a Rust panic, the cause of an exception. Of a traceback of Python it is the
// last line. Without a report it is the last line that names an error, such as "IOError: …".
func (t *Tail) Reason() string {
	text := LineText(t.reason, false)
	if len(t.cause) > 0 {
		text += " | " + LineText(t.cause, false)
	}
	return text
}

// NearMiss returns the first line that was probably meant to be a ready line and is none, as
// the function NearMiss tells why; "" = there is none.
func (t *Tail) NearMiss() string { return string(t.nearMiss) }

// Skip returns how much of p, which begins with a line, makes no difference to the tail, and
// is no ready line or near miss: it may be passed over. To look for the few bytes that are in all of
// those is many times faster than to split a flood of lines. What it does not see is a
// report without a colon before eight lines that have none.
func (t *Tail) Skip(p []byte) int {
	if t.near > 0 || t.awaits != none {
		return 0
	}
	end := 0
	for size := 256; end < len(p); size *= 4 { // the first may be near
		part := p[end:min(end+size, len(p))]
		if i, j := bytes.IndexByte(part, ':'), bytes.IndexByte(part, 'Y'); i >= 0 || j >= 0 {
			end += int(min(uint(i), uint(j))) // -1 is the largest
			end = bytes.LastIndexByte(p[:end], '\n') + 1
			break
		}
		end += len(part)
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
