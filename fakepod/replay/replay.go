// Package replay makes a scenario of what a pod did, in which the fake pod does the
// same again.
package replay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"golang.org/x/sys/unix"
)

// A Recording is what the parent of a pod saw of it.
type Recording struct {
	// Pod is its name, Timeout its ready timeout.
	Pod     string
	Timeout time.Duration
	// Timeline is that of the start. Failed is its failure, and Error the message of
	// that; nil and "" = the pod became ready.
	Timeline spawn.Timeline
	Failed   *spawn.Error
	Error    string
	// Socket has the states of the announced path, as spawn.Observer.Socket reports them.
	Socket []Moment
	// Log is read once, up to Size. Growth has the sizes that it had before.
	Log    io.ReaderAt
	Size   int64
	Growth []Growth
	// Dir is the pod directory.
	Dir string
	// Answers are what it has answered to the requests of its tests, each method once, in JSON.
	Answers []Answer
	// End says how a ready pod ended by itself, in the words of os.ProcessState, and
	// Ended is when; "" = it did not.
	End   string
	Ended time.Time

	// Of Scenario.
	kept   [][2]int64 // the parts of the log, as offsets
	text   []byte     // of them
	socket string     // that the ready line holds; "" = there is none
}

// A Moment is a state and when it was noticed.
type Moment struct {
	At   time.Time
	What string
}

// Growth is the size of a log in bytes and when it was noticed.
type Growth struct {
	At   time.Time
	Size int64
}

// An Answer is the line with which a pod answers the requests of a method.
type Answer struct{ Method, Line string }

// maxAnswers is how many bytes of answers are recorded: see maxRecorded.
const maxAnswers = 16 << 10

// answerSteps returns the steps that have the pod answer as it did.
func (r *Recording) answerSteps() (steps []happening) {
	size := 0
	for _, a := range r.Answers {
		step := "answer " + strconv.Quote(a.Method) + " " + strconv.Quote(a.Line)
		if size += len(step); size <= maxAnswers {
			steps = append(steps, happening{0, step})
		}
	}
	return steps
}

// bring are the steps of the fake pod that bring a socket into a state in which an
// Observer finds it.
var bring = map[string]string{"refused": "socket", "deaf": "bind; listen 0; fill", "listened on": "bind"}

// happening is a step and when it was taken, counted from the launch.
type happening struct {
	at   time.Duration
	step string
}

// Scenario returns a scenario of package scripts. In it, the fake pod does what the
// parent saw the pod do, and the scenario asserts the same result. Scenario returns an
// error if no process of the pod was started.
func (r *Recording) Scenario() (string, error) {
	if r.Timeline.Launched == 0 {
		return "", errors.New("nothing can be recorded: no process of the pod began")
	}
	if err := r.read(); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# What pod %s did on %s, as far as its parent could see.\n", podlog.Printable(r.Pod), r.Timeline.Start.UTC().Format("2006-01-02 15:04:05 MST"))
	if left := r.Size - int64(len(r.text)); left > 0 {
		fmt.Fprintf(&b, "# %d bytes in the middle of its log are left out.\n", left)
	}
	again := ""
	if bytes.Count(append([]byte("\n"), r.text...), []byte("\nYOI-READY\t")) > 1 {
		again = "-allow-ready-again "
	}
	start := fmt.Sprintf("podstart %s-timeout %v -fake %s %s\n", again, r.Timeout, scriptWord(r.program()), scriptWord(r.Pod))
	if r.Failed != nil {
		fmt.Fprintf(&b, "! %sstderr %s\n", start, scriptWord(r.pattern()))
		return b.String(), nil
	}
	b.WriteString(start)
	if r.End != "" {
		if r.End != succeeded {
			b.WriteString("! ")
		}
		patience := (r.Ended.Sub(r.Timeline.Start) + 10*time.Second).Round(time.Second)
		fmt.Fprintf(&b, "podwait -timeout %v %s\nstdout %s\n", patience, scriptWord(r.Pod), scriptWord("^"+regexp.QuoteMeta(r.End)+"$"))
	}
	return b.String(), nil
}

// succeeded is the end of a process with status 0.
const succeeded = "exit status 0"

// scriptWord quotes a word for testscript. A word has no newline: one could only come
// from a forged journal, and would begin a line of the script.
func scriptWord(s string) string {
	return "'" + strings.NewReplacer("'", "''", "\n", " ").Replace(s) + "'"
}

// pattern matches the message of the start, wherever the pod's directory is.
func (r *Recording) pattern() string {
	line, _, _ := strings.Cut(r.Error, "\n")
	pattern := regexp.QuoteMeta(line)
	for _, path := range []string{r.socket, r.Dir} {
		if path != "" {
			pattern = strings.ReplaceAll(pattern, regexp.QuoteMeta(podlog.Printable(path)), ".*")
		}
	}
	return "^" + pattern
}

// program returns the steps of the fake pod, each at its time.
func (r *Recording) program() string {
	all := slices.Concat(r.answerSteps(), r.socketSteps(), r.logSteps()) // what is seen at one time: the socket first
	slices.SortStableFunc(all, func(a, b happening) int { return int(a.at - b.at) })
	all = append(all, r.end()...)
	var steps []string
	now := ownStart
	for _, h := range all {
		if wait := (h.at - now).Round(100 * time.Microsecond); wait >= time.Millisecond {
			steps = append(steps, "sleep "+wait.String())
			now = h.at
		}
		steps = append(steps, h.step)
	}
	return strings.Join(steps, "; ")
}

// ownStart is about the time that the fake pod itself needs before its first step.
const ownStart = 5 * time.Millisecond

// socketSteps returns the steps that bring the socket into the states that were seen.
// The state that was seen when the ready line was read is assumed to be the one when
// that was written.
func (r *Recording) socketSteps() (steps []happening) {
	made := "missing"
	for i, m := range r.Socket {
		at, step := m.At.Sub(r.Timeline.Start), bring[m.What]
		if i == 0 {
			at = 0
			if len(r.Growth) > 0 {
				at = min(r.Timeline.ReadyLine, r.Growth[0].At.Sub(r.Timeline.Start))
			}
		}
		switch {
		case step == "" || made == "listened on":
			continue
		case made == "refused" && m.What == "listened on":
			step = "listen"
		}
		made = m.What
		steps = append(steps, happening{at, step})
		if made == "listened on" {
			steps = append(steps, happening{at, "serve"})
		}
	}
	return steps
}

// end returns the steps of the pod's end.
func (r *Recording) end() []happening {
	end, at := r.End, r.Ended.Sub(r.Timeline.Start)
	if r.Failed != nil {
		end, at = r.Failed.Status, r.Timeline.Ended
	}
	if status, ok := strings.CutPrefix(end, "exit status "); ok {
		return []happening{{at, "exit " + status}}
	}
	name := strings.TrimSuffix(strings.TrimPrefix(end, "signal: "), " (core dumped)")
	for sig := syscall.Signal(1); sig < 32 && end != ""; sig++ {
		if sig.String() == name {
			return []happening{{at, "kill " + strings.TrimPrefix(unix.SignalName(sig), "SIG")}}
		}
	}
	if r.Failed != nil && r.Failed.Stopped {
		return []happening{{0, "kill STOP; hang"}}
	}
	return []happening{{0, "hang"}}
}

// maxRecorded is how many bytes of the begin of a long log are recorded, and of its
// end: an argument of a command may have 128 KiB, and a byte of a log may need four.
// The recording of a recording, which has the ready line too, must not be shortened again.
const (
	maxRecorded = 12 << 10
	longLog     = 2*maxRecorded + 4<<10
)

// read reads the parts of the log that are kept, and the socket in the ready line.
func (r *Recording) read() error {
	log := bufio.NewReaderSize(io.NewSectionReader(r.Log, 0, r.Size), maxRecorded)
	r.kept, r.text, r.socket = nil, nil, ""
	keep := func(text []byte, at, from, to int64) { // of the part at an offset
		if from, to = max(from, at), min(to, at+int64(len(text))); from < to {
			r.text = append(r.text, text[from-at:to-at]...)
			if n := len(r.kept); n > 0 && r.kept[n-1][1] == from {
				r.kept[n-1][1] = to
			} else {
				r.kept = append(r.kept, [2]int64{from, to})
			}
		}
	}
	for at, begins, seen := int64(0), true, false; ; {
		part, err := log.ReadSlice('\n')
		isReady := begins && !seen && podlog.IsReady(part)
		if isReady {
			told, _ := podlog.ParseReady(bytes.TrimSuffix(bytes.TrimSuffix(part, []byte("\n")), []byte("\r")))
			r.socket, seen = told.Socket, true
		}
		if isReady || r.Size <= longLog {
			keep(part, at, 0, r.Size)
		} else {
			keep(part, at, 0, maxRecorded)
			keep(part, at, r.Size-maxRecorded, r.Size)
		}
		at += int64(len(part))
		if begins = err == nil; err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}

// position returns where in the text an offset of the log is.
func (r *Recording) position(offset int64) (at int) {
	for _, part := range r.kept {
		at += int(max(0, min(offset, part[1])-part[0]))
	}
	return at
}

// logSteps returns the steps that write the log.
func (r *Recording) logSteps() (steps []happening) {
	paths := r.paths()
	spelled := strings.NewReplacer(append(slices.Clone(paths), "{", "{{")...)
	from, at := 0, time.Duration(0)
	for _, g := range append(slices.Clone(r.Growth), Growth{Size: r.Size}) { // nobody has noticed the last bytes
		at = max(at, g.At.Sub(r.Timeline.Start))
		to := r.position(g.Size)
		for i := 0; i < len(paths); i += 2 { // a path is written at once
			begin := max(0, to-len(paths[i])+1)
			if n := strings.Index(string(r.text[begin:min(len(r.text), to+len(paths[i])-1)]), paths[i]); n >= 0 {
				to = begin + n
			}
		}
		if to > from { // else it was truncated
			steps = append(steps, happening{at, "raw " + strconv.Quote(spelled.Replace(string(r.text[from:to])))})
			from = to
		}
	}
	return steps
}

// paths returns the paths that differ when the recording is played, and after each what
// stands for it.
func (r *Recording) paths() (pairs []string) {
	socket := "{socket}"
	if n := len(r.Socket); n > 0 && r.Socket[n-1].What == "not a socket" {
		socket = "{dir}/pid"
	}
	switch {
	case r.Failed != nil && r.Failed.Verdict == "socket error" || r.socket == "": // a path that is wrong itself stays
	case filepath.IsAbs(r.socket):
		pairs = append(pairs, r.socket, socket)
	default: // a relative one is a word that may stand anywhere
		pairs = append(pairs, "\t"+r.socket+"\n", "\t"+socket+"\n")
	}
	if r.Dir != "" {
		pairs = append(pairs, r.Dir, "{dir}")
	}
	return pairs
}
