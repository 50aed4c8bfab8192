package evidence

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/podharness/spawn/podlog"
)

// A Goroutine is one that a Go program has written down, as on SIGQUIT.
type Goroutine struct {
	ID   int
	Wait string        // what it waits for, such as sync.Mutex.Lock; "running" = for nothing
	For  time.Duration // how long, in whole minutes
	// Frames are its innermost calls, without those of the runtime; none = the program could not
	// tell. Creator is the go statement.
	Frames  []Frame
	Creator Frame
	Like    int // how many others do the same at the same place
}

// A Frame is a call, or a go statement.
type Frame struct {
	Function, File string
	Line           int
}

// What is kept of goroutines.
const (
	maxGoroutines = 8 // in a message, a line each
	maxFrames     = 3 // of each
	maxSorted     = 1000
	maxDump       = 8 << 20 // bytes that are read
	longestWord   = 300
)

// goroutinesIn returns those that a log has from an offset on: those that wait for a lock first,
// then those that run, then those that wait longest. Those that do the same at the same place are
// one, and those of the runtime itself are left out.
func goroutinesIn(log *io.SectionReader, from int64, redact func(string) string) (most []Goroutine) {
	from = min(max(0, from), log.Size())
	var all []Goroutine
	var g *Goroutine // the current one
	var function string
	add := func() {
		if g = g.known(); g != nil {
			all = append(all, *g)
		}
		if g = nil; len(all) >= 2*maxSorted {
			all = first(all, maxSorted)
		}
	}
	eachLine(io.NewSectionReader(log, from, min(maxDump, log.Size()-from)), func(text []byte, _ bool) {
		if g == nil && !bytes.HasPrefix(text, []byte("goroutine ")) {
			return // most lines of a log
		}
		line := podlog.LineText(text[:min(len(text), 4<<10)], false)
		if redact != nil {
			line = redact(line)
		}
		switch header, isHeader := goroutineOf(line); {
		case isHeader:
			add()
			g = &header
		case line == "":
			add()
		case strings.HasPrefix(line, "\t") && function != "" && g != nil:
			g.take(function, line)
			function = ""
		case g != nil:
			function = line
		}
	})
	add()
	return first(all, maxGoroutines)
}

// goroutineOf reads a line such as "goroutine 7 gp=0xc000007dc0 m=nil [chan receive, 2 minutes]:".
func goroutineOf(line string) (g Goroutine, ok bool) {
	rest, ok := strings.CutPrefix(line, "goroutine ")
	number, rest, _ := strings.Cut(rest, " ")
	id, err := strconv.Atoi(number)
	_, rest, open := strings.Cut(rest, "[")
	what, _, closed := strings.Cut(rest, "]")
	if !ok || err != nil || id < 0 || !open || !closed || !strings.HasSuffix(line, ":") {
		return Goroutine{}, false
	}
	g.ID = id
	for i, word := range strings.Split(what, ", ") {
		minutes, isTime := strings.CutSuffix(word, " minutes")
		n, err := strconv.Atoi(minutes)
		switch {
		case i == 0:
			g.Wait = cutWord(strings.TrimSuffix(word, " (scan)"))
		case isTime && err == nil && n >= 0 && n < int(maxAge/time.Minute):
			g.For = time.Duration(n) * time.Minute
		}
	}
	return g, true
}

func cutWord(word string) string { return strings.ToValidUTF8(word[:min(len(word), longestWord)], "") }

// take takes a call and the line after it, such as "\t/src/main.go:12 +0x1d".
func (g *Goroutine) take(call, place string) {
	created, isCreator := strings.CutPrefix(call, "created by ")
	if isCreator {
		call, _, _ = strings.Cut(created, " in goroutine ")
	} else if i := strings.LastIndexByte(call, '('); i > 0 && strings.HasSuffix(call, ")") {
		call = call[:i]
	} else {
		return
	}
	place, _, _ = strings.Cut(strings.TrimPrefix(place, "\t"), " +0x")
	place, _, _ = strings.Cut(place, " fp=")
	i := strings.LastIndexByte(place, ':')
	line, err := strconv.Atoi(place[i+1:])
	if i < 0 || err != nil || line < 0 {
		return
	}
	f := Frame{cutWord(call), cutWord(place[:i]), line}
	switch {
	case isCreator:
		g.Creator = f
	case !f.isRuntime() && len(g.Frames) < 100: // a traceback has no more
		g.Frames = append(g.Frames, f)
	}
}

// known returns the goroutine with the frames that are kept of it, which are those of the
// program's own code where there are any; nil = it is of no interest.
func (g *Goroutine) known() *Goroutine {
	if g == nil || len(g.Frames) == 0 && (g.Wait != "running" || g.Creator == (Frame{}) || g.Creator.isRuntime()) {
		return nil // it is the runtime's own
	}
	if len(g.Frames) > 0 && g.Frames[0].pkg() == "os/signal" { // it waits for any program's signals
		return nil
	}
	if own := slices.DeleteFunc(slices.Clone(g.Frames), Frame.isStandard); len(own) > 0 {
		g.Frames = own
	}
	g.Frames = slices.Clone(g.Frames[:min(len(g.Frames), maxFrames)])
	return g
}

// pkg returns the import path of the frame's package.
func (f Frame) pkg() string {
	slash := strings.LastIndexByte(f.Function, '/') + 1
	name, _, _ := strings.Cut(f.Function[slash:], ".")
	return f.Function[:slash] + name
}

func (f Frame) isRuntime() bool {
	top, _, _ := strings.Cut(f.pkg(), "/")
	return strings.Contains(f.Function, ".gowrap") || top == "runtime" || top == "internal" || top == "sync" || top == "syscall"
}

// standard are the first elements of the import paths of Go's own packages.
var standard = strings.Fields(`archive bufio bytes cmp compress container context crypto database debug embed encoding
	errors expvar flag fmt go hash html image index internal io iter log maps math mime net os path plugin reflect
	regexp runtime slices sort strconv strings structs sync syscall testing text time unicode unique unsafe vendor weak`)

func (f Frame) isStandard() bool {
	top, _, _ := strings.Cut(f.pkg(), "/")
	return slices.Contains(standard, top)
}

// rank returns how far down a goroutine stands among those that wait for as long.
func (g Goroutine) rank() int {
	switch {
	case strings.HasPrefix(g.Wait, "sync.Mutex."), strings.HasPrefix(g.Wait, "sync.RWMutex."), g.Wait == "semacquire":
		return 0
	case g.Wait == "running" || g.Wait == "runnable":
		return 1
	}
	return 2
}

// first returns the first so many of the goroutines, those that are alike as one.
func first(all []Goroutine, most int) (some []Goroutine) {
	slices.SortStableFunc(all, func(a, b Goroutine) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.For, a.For), cmp.Compare(a.ID, b.ID))
	})
	like := map[string]int{}
	for _, g := range all {
		key := fmt.Sprintf("%q%#v%#v", g.Wait, g.Frames, g.Creator)
		i, ok := like[key]
		switch {
		case ok:
			some[i].Like += 1 + g.Like
		case len(some) < most:
			like[key] = len(some)
			some = append(some, g)
		}
	}
	return some
}

// isPlausible reports whether a goroutine that was read from a journal can be one.
func (g Goroutine) isPlausible() bool {
	isLong := func(f Frame) bool { return len(f.Function) > longestWord || len(f.File) > longestWord }
	return len(g.Wait) <= longestWord && len(g.Frames) <= maxFrames && !slices.ContainsFunc(g.Frames, isLong) && !isLong(g.Creator)
}

// String returns what a goroutine does, in one line.
func (g Goroutine) String() string {
	text := fmt.Sprintf("goroutine %d", g.ID)
	if g.Like > 0 {
		text += fmt.Sprintf(" and %d like it", g.Like)
	}
	text += ", " + g.Wait
	if g.For > 0 {
		text += " for " + strings.TrimSuffix(g.For.String(), "0s")
	}
	for i, f := range g.Frames {
		text += [...]string{": ", " < "}[min(i, 1)] + f.String()
	}
	if len(g.Frames) == 0 {
		text += ", at a place that the program could not tell, begun in " + g.Creator.String()
	}
	return podlog.Printable(text)
}

func (f Frame) String() string {
	dir, file := path.Split(f.File)
	return fmt.Sprintf("%s at %s:%d", path.Base(f.Function), path.Join(path.Base(dir), file), f.Line)
}

// HasWritten takes from the log what the pod has written down of its goroutines since KeepTail.
func (a *Attempt) HasWritten() {
	if all := goroutinesIn(a.Captured.Reader(), a.Captured.keptTail(), a.Captured.Redact); len(all) > 0 {
		a.Change(func() { a.Goroutines = all })
	}
}

// TellGoroutines returns, once, lines for a message about a pod that hangs: what its goroutines
// wait for. "" = that is not known, or was told.
func (a *Attempt) TellGoroutines() (text string) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	if len(a.Goroutines) == 0 || a.toldThem {
		return ""
	}
	a.toldThem = true
	text = "\n\tits goroutines that wait for a lock, that run, and that wait longest (the log has all):"
	for _, g := range a.Goroutines {
		text += "\n\t\t" + g.String()
	}
	return text
}
