package podlog

import (
	"bytes"
	"fmt"
)

// reportStarts are the lines that begin a report in which a program, or what runs it, says
// why it crashes: how they begin, and what they hold after that.
var reportStarts = []struct{ begin, hold string }{
	{"panic: ", ""}, {"fatal error: ", ""}, {"SIGQUIT: ", ""}, {"SIGABRT: ", ""}, {"SIGSEGV: ", ""}, {"SIGBUS: ", ""}, {"SIGFPE: ", ""}, {"SIGILL: ", ""}, {"WARNING: DATA RACE", ""},
	{"thread '", "panicked at"}, {"thread '", "has overflowed"}, {"fatal runtime error: ", ""},
	{"Uncaught ", ""}, {"error: Uncaught ", ""}, {"Unhandled rejection", ""}, {"UnhandledPromiseRejection", ""}, {"[UnhandledPromiseRejection", ""}, {"(node:", ") UnhandledPromiseRejection"}, {"FATAL ERROR: ", ""},
	{"Exception in thread ", ""}, {"# A fatal error has been detected", ""},
	{"Traceback (most recent call last):", ""}, {"Fatal Python error: ", ""}, {"PHP Fatal error: ", ""}, {"Fatal error: ", ""},
	{"Unhandled exception", ""}, {"terminate called ", ""}, {"libc++abi: ", ""},
	{"==", "==ERROR: "}, {"==", "==WARNING: "}, {"WARNING: ThreadSanitizer: ", ""},
}

var reportLetters = func() (is [256]bool) {
	for _, start := range reportStarts {
		is[start.begin[0]] = true
	}
	return is
}()

func startsReport(line []byte) bool {
	if reportLetters[line[0]] {
		for _, start := range reportStarts {
			if n := len(start.begin); len(line) >= n && string(line[:n]) == start.begin && bytes.Contains(line[n:], []byte(start.hold)) {
				return true
			}
		}
	}
	return bytes.Contains(line, []byte(": runtime error: ")) // of UBSan, after the place
}

// namesError matches a line such as "TypeError [CODE]: …", or "java.io.IOException" alone.
// The same line with a stack trace after it begins a report.
func namesError(line []byte) bool {
	name, _, _ := bytes.Cut(line, []byte{':'})
	if i := bytes.Index(name, []byte(" [")); i > 0 && name[len(name)-1] == ']' {
		name = name[:i]
	}
	return (bytes.HasSuffix(name, []byte("Error")) || bytes.HasSuffix(name, []byte("Exception"))) && !bytes.ContainsAny(name, " \t")
}

// reported takes a line that is none of a stack trace.
func (t *Tail) reported(text []byte) {
	trimmed := bytes.TrimLeft(text, " \t")
	indented := len(trimmed) < len(text)
	hasColon := bytes.IndexByte(text, ':') >= 0
	switch {
	case len(trimmed) == 0:
	case t.near > 0 && (bytes.HasPrefix(text, []byte("[signal ")) || bytes.HasPrefix(trimmed, []byte("what():"))):
		t.reason = appendPart(t.reason, trimmed)
	case t.near > 0 && (bytes.HasPrefix(text, []byte("Caused by: ")) || indented && bytes.HasPrefix(trimmed, []byte("panic: "))):
		t.cause = appendPart(t.cause[:0], trimmed)
	case indented:
	case startsReport(text):
		t.report(text, t.n, true)
		switch {
		case bytes.HasPrefix(text, []byte("Traceback ")):
			t.awaits = lastLine
		case text[len(text)-1] == ':':
			t.awaits = nextLine
		}
	case t.awaits != none:
		if t.awaits == lastLine {
			t.reason = t.reason[:0]
		}
		t.reason = appendPart(t.reason, text)
		t.awaits = none
	case hasColon && (t.near == 0 || !t.sure) && namesError(text):
		t.report(text, t.n, false)
	}
}

// report takes the first line of a report; n is its number.
func (t *Tail) report(text []byte, n int, sure bool) {
	t.reason, t.cause = appendPart(t.reason[:0], text), t.cause[:0]
	t.at, t.sure, t.awaits, t.near = n, sure, none, reportGap
}

func appendPart(reason, part []byte) []byte {
	if len(reason) > 0 {
		reason = append(reason, ' ')
	}
	return append(reason, part[:min(len(part), max(0, maxReason-len(reason)))]...)
}

// traceBegins looks for the line to which a stack trace belongs.
func (t *Tail) traceBegins(text []byte) {
	if t.awaits == nextLine {
		t.awaits = none
	}
	if t.near > 0 && !t.sure {
		t.sure = true
		return
	}
	// In JavaScript, the JVM and .NET any line may be the first one of a report.
	any := bytes.HasPrefix(bytes.TrimLeft(text, " \t"), []byte("at ")) && t.near == 0
	nearest := -1
	for i := t.n - 1; i >= max(0, t.n-4) && (t.near == 0 || i > t.at) && t.trace[i%tailLines] == 0; i-- {
		line := t.withoutColours(t.lines[i%tailLines])
		if namesError(line) {
			t.report(line, i, true)
			return
		}
		if nearest < 0 && len(line) > 0 {
			nearest = i
		}
	}
	if any && nearest >= 0 {
		t.report(t.withoutColours(t.lines[nearest%tailLines]), nearest, true)
	}
}

// isTrace reports whether a line is one of a stack trace. Some are only if they come after
// another one: then the trace is open.
func (t *Tail) isTrace(line []byte, open bool) bool {
	text := bytes.TrimLeft(line, " \t")
	indent := len(line) - len(text)
	if len(text) == 0 {
		return open
	}
	if !open {
		t.inSource = false
	}
	last := text[len(text)-1]
	isNumber := func(i int) bool { return len(text) > i && '0' <= text[i] && text[i] <= '9' }
	switch {
	case indent == 0 && last != ':' && !open && text[0] != '#' && text[0] != '=':
		return false // most lines
	case indent > 0 && bytes.HasPrefix(text, []byte(`File "`)): // Python
		t.inSource = true
		return t.near > 0
	case indent > 0 && bytes.HasPrefix(text, []byte("at ")), // JavaScript, JVM, .NET, Rust
		text[0] == '#' && isNumber(1),                     // sanitizers, PHP
		indent > 0 && bytes.HasPrefix(text, []byte("0x")), // the memory that sanitizers show
		bytes.HasPrefix(text, []byte("=>0x")),
		indent > 0 && bytes.HasPrefix(text, []byte("from ")) && bytes.Contains(text, []byte(":in ")), // Ruby
		last == ':' && bytes.Contains(text, []byte("oroutine")),                                      // Go
		bytes.Equal(text, []byte("stack backtrace:")), bytes.Equal(text, []byte("Stack trace:")), bytes.HasSuffix(text, []byte("(most recent call first):")):
		t.inSource = false
		return open || t.near > 0 || bytes.IndexByte(text, ':') >= 0
	case indent > 0:
		if i := bytes.LastIndexByte(text, ':'); i > 0 && isNumber(i+1) && (bytes.HasSuffix(text[:i], []byte(".go")) || bytes.HasSuffix(text[:i], []byte(".s"))) {
			return true
		}
	}
	if !open {
		return false
	}
	name, _, isCall := bytes.Cut(text, []byte{'('})
	word, number, _ := bytes.Cut(text, []byte{' '})
	return bytes.HasPrefix(text, []byte("...")) || bytes.HasPrefix(text, []byte("created by ")) || bytes.HasPrefix(text, []byte("--- End of ")) ||
		isCall && last == ')' && len(name) > 0 && !bytes.ContainsAny(name, " \t") || // of a function, in Go
		indent > 0 && isNumber(0) && bytes.Contains(text, []byte(": ")) || // its number, in Rust
		t.inSource && (indent >= 4 || text[0] == '[') ||
		len(word) <= 6 && bytes.HasPrefix(bytes.TrimLeft(number, " "), []byte("0x")) // a register
}

// placed takes a line of the stack trace in a slot: in Go the line of a function is followed by
// that of its place.
func (t *Tail) placed(slot int, line []byte) {
	const most = 300
	text := bytes.TrimLeft(line, " \t")
	file, number, _ := bytes.Cut(text, []byte(".go:"))
	digits := 0
	for digits < len(number) && '0' <= number[digits] && number[digits] <= '9' {
		digits++
	}
	isPlace := digits > 0 && len(text) < len(line)
	switch at := bytes.LastIndexByte(text, '('); {
	case isPlace && len(t.place[slot]) == 0 && len(t.call) > 0 && !isStandard(t.call, file):
		if dir := bytes.LastIndexByte(file, '/'); dir > 0 {
			file = file[bytes.LastIndexByte(file[:dir], '/')+1:]
		}
		t.place[slot] = fmt.Appendf(t.place[slot], "%.*s at %.*s.go:%.9s", most, t.call, most, file, number[:digits])
		fallthrough
	case isPlace, at <= 0 || text[len(text)-1] != ')' || bytes.IndexByte(text[:at], ' ') >= 0:
		t.call = t.call[:0]
	default:
		t.call = append(t.call[:0], text[:min(at, most)]...)
	}
}

// isStandard reports whether a function of Go is of the standard library, as the file says: those
// are in GOROOT/src/PACKAGE, or, built with -trimpath, in PACKAGE. A package of a module has a
// dot in its first element.
func isStandard(function, file []byte) bool {
	name := bytes.LastIndexByte(function, '/') + 1
	dot := bytes.IndexByte(function[name:], '.')
	dir := file[:max(0, bytes.LastIndexByte(file, '/'))]
	if dot < 0 { // panic
		return true
	}
	pkg := function[:name+dot]
	first, _, _ := bytes.Cut(pkg, []byte{'/'})
	return bytes.IndexByte(first, '.') < 0 && (bytes.Equal(dir, pkg) || bytes.HasSuffix(dir, append([]byte("/src/"), pkg...)))
}

// withoutColours returns a line without the sequences that colour it on a terminal. It is
// valid until the next call.
func (t *Tail) withoutColours(line []byte) []byte {
	if bytes.IndexByte(line, 0x1b) < 0 {
		return line
	}
	t.colourless = withoutColours(t.colourless[:0], line)
	return t.colourless
}

// withoutColours appends the rest of the line to text.
func withoutColours(text, line []byte) []byte {
	for {
		before, after, found := bytes.Cut(line, []byte("\x1b["))
		text = append(text, before...)
		if !found {
			return text
		}
		line = bytes.TrimLeft(after, "0123456789;:?")
		if len(line) > 0 {
			line = line[1:]
		}
	}
}
