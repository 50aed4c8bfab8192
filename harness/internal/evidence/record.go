package evidence

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"example.com/podharness/fakepod/replay"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
)

// A Record is what the evidence of one test is made of. The test binary fills it, and
// keeps a journal of it, so that the watchdog can write the same files.
type Record struct {
	*Test
	Why   string    // it is written
	Until time.Time // the snapshot was taken; zero = it was not

	// The journal does not have these: a pod may have written in that.
	Lives []*Attempt    `json:"-"`
	read  bool          // of a journal: nothing is read outside of the sandbox
	place string        // a directory that is there for the evidence; "" = one is made
	dir   string        // where the evidence is; "" = nowhere yet
	at    *safefile.Dir // that, open; nil = not yet
	wrote []string
	lost  []error
}

// An Attempt is one start of a pod and what came of it, or one output of a client. While
// its test runs the collector's lock guards it.
type Attempt struct {
	N        int    // counts those of a test
	Name     string // the pod's, with a number where that is taken, or the output's
	Pod      string // its name; "" = this is an output of a client
	PID      int
	Log      string // its path; "" = there is none
	NewLog   string `json:",omitempty"` // the name here of what the pod has put in its place, as to rotate it; "" = nothing
	Env      []string
	Dump     syscall.Signal // has the pod write what it does; 0 = nothing has
	Timeline spawn.Timeline
	Error    string // why it did not become ready
	// StartFailed is what is known of that, but for what the pod has written.
	StartFailed *spawn.Error    `json:",omitempty"`
	Failures    []Mark          // what the test has failed of, in the order of time
	Hung        string          // what lived when it did not
	Goroutines  []Goroutine     `json:",omitempty"` // of a Go pod that was asked for them
	Timeout     time.Duration   // that the start had
	Socket      []replay.Moment `json:",omitempty"` // what was found at the announced path
	Marks       []Mark          // what came after the start
	Stamps      []Stamp         // of the log, in the order of time

	// Redact returns a line of the log as it may be shown; nil = as it is. Withheld tells that
	// whoever reads this cannot ask it, and must not show the log.
	Redact   func(line string) string `json:"-"`
	Withheld bool                     `json:",omitempty"`

	Captured *Log `json:"-"`
	Args     Args `json:"-"`
	Shown    bool `json:"-"` // a message of the failed test has the last lines
	toldThem bool // a message has the goroutines
	samples  samples
	uses     uses
	e        *Collector
	talk     *conversation
	told     podlog.Ready // in the ready line of a client's pod
	toldErr  error        // what is wrong with that line
	file     *os.File     // the log, where it is written down; nil = there is none, or it is lost
}

// A mark is something that happened to a pod or that was done to it.
type Mark struct {
	What string
	At   time.Time
	Last bool // it is the pod's end
}

// Connected is the mark of a connection that the test has made.
const Connected = "connect"

// asks reports whether it may have brought the pod's end about.
func (m Mark) asks() bool { return !m.Last && m.What != Connected }

// maxFailures is how many failures of one attempt are kept.
const maxFailures = 10

// maxMarks bounds the marks of one attempt: beyond it those in the middle are dropped.
const maxMarks = 200

func (a *Attempt) add(m Mark) {
	if len(a.Marks) == maxMarks {
		a.Marks = slices.Delete(a.Marks, maxMarks/2, maxMarks/2+1)
	}
	a.Marks = append(a.Marks, m)
}

// last returns the last mark; zero = there is none.
func (a *Attempt) last() (m Mark) {
	if n := len(a.Marks); n > 0 {
		m = a.Marks[n-1]
	}
	return m
}

// end returns when it was over, and how; "" = as far as is known it went on.
func (a *Attempt) end(until time.Time) (at time.Time, how string) {
	if a.Timeline.Ended > 0 {
		return a.Timeline.Start.Add(a.Timeline.Ended), "failed"
	}
	if i := slices.IndexFunc(a.Marks, func(m Mark) bool { return m.Last }); i >= 0 {
		return a.Marks[i].At, a.Marks[i].What
	}
	return until, ""
}

// dir is the pod directory; "" = none was made.
func (a *Attempt) dir() string {
	// Not filepath.Dir, which would remove a .. behind a symbolic link.
	return a.Log[:max(0, strings.LastIndexByte(a.Log, '/'))]
}

// isSecret reports whether the log must not be shown: what would be asked about it is gone.
func (a *Attempt) isSecret() bool { return a.Withheld && a.Redact == nil }

// FileName is the name of the log here.
func (a *Attempt) FileName() string {
	if a.Pod == "" {
		return a.Name
	}
	return a.Name + ".log"
}

// Why evidence is written.
const (
	WhyFailed = "the test failed"
	WhyLate   = "it was still running shortly before its deadline"
	WhyEnded  = "the test binary ended while it ran"
)

// freeze writes down what lives: the description of the processes is of now, or of a
// moment ago.
func (r *Record) freeze(why, processes string, now time.Time) {
	r.Why, r.Until = why, now
	if r.lose(r.makeDir()) {
		return
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s: %s\n\n", podlog.Printable(r.Name), r.Until.Format(time.RFC3339Nano), why)
	text.WriteString(processes)
	room := r.Most / 16
	for _, a := range r.Lives {
		if a.Hung != "" {
			fmt.Fprintf(&text, "\nwhen the start of pod %s had failed: %s", podlog.Printable(a.Name), a.Hung)
		}
		if a.Pod != "" {
			fmt.Fprintf(&text, "\nenvironment of pod %s beyond the usual:\n", podlog.Printable(a.Name))
			for _, entry := range a.Env {
				fmt.Fprintf(&text, "  %s\n", entry)
			}
		}
		if a.Pod != "" && a.dir() != "" && r.hasLatest(a) && !a.isSecret() {
			r.keepStatusFiles(a, &room)
		}
	}
	r.file("processes.txt", func(w io.Writer) error { return second(io.WriteString(w, text.String())) })
}

// hasLatest reports whether an attempt is the latest at the path of its log.
func (r *Record) hasLatest(a *Attempt) bool {
	return !slices.ContainsFunc(r.Lives[a.N+1:], func(later *Attempt) bool { return later.Pod != "" && later.Log == a.Log })
}

// keepStatusFiles keeps the small files of a pod directory, but not the log.
func (r *Record) keepStatusFiles(a *Attempt, room *int64) {
	const most, largest = 20, 64 << 10
	dir, err := r.openDir(a)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if r.lose(err) {
		return
	}
	defer dir.Close()
	entries, err := dir.ReadDir(1000)
	r.lose(err)
	to, kept := a.Name+".dir", 0
	for _, entry := range entries {
		if !entry.Type().IsRegular() || entry.Name() == podlog.LogName || kept == most {
			continue
		}
		text, err := dir.ReadFile(entry.Name(), min(largest, *room))
		if err == nil {
			kept++
			if a.Redact != nil {
				text = redactText(text, a.Redact)
			}
			*room -= int64(len(text))
			err = r.keep(to, entry.Name(), text)
		}
		if !errors.Is(err, safefile.ErrTooLarge) {
			r.lose(err)
		}
	}
	if kept > 0 {
		r.wrote = append(r.wrote, to)
	}
}

// lose notes why something cannot be written, if it cannot.
func (r *Record) lose(err error) bool {
	if err != nil {
		r.lost = append(r.lost, PrintableError(err))
	}
	return err != nil
}

func (r *Record) keep(dir, name string, text []byte) error {
	to, err := r.at.MkdirAll(dir, 0o700)
	if err != nil {
		return err
	}
	defer to.Close()
	file, err := create(to, name)
	if err != nil {
		return err
	}
	return cmp.Or(second(file.Write(text)), file.Close())
}

// Write writes all other files. Logs may have half of the room, and what is made of
// them has the rest.
func (r *Record) Write() {
	if r.dir == "" || r.lose(r.makeDir()) {
		return
	}
	for _, a := range r.Lives {
		if a.Redact != nil && a.file != nil {
			r.lose(r.redact(a))
			defer a.closeRedacted()
		}
	}
	logs := r.excerpts(r.Most/2, 0)
	for i, a := range r.Lives {
		r.file(a.FileName(), func(w io.Writer) error { return logs[i].copy(w, a) })
	}
	for _, a := range r.Lives {
		if a.Pod != "" && a.Timeline.Launched > 0 && a.file != nil {
			r.file(a.Name+".txtar", func(w io.Writer) error { return a.writeRecording(w, r.answersOf(a)) })
		}
	}
	r.file("merged.log", r.writeMerged)
	r.file("timelines.txt", r.writeTimelines)
	r.file("report.html", r.writeReport)
}

func second[T any](_ T, err error) error { return err }

// create makes one file. What had its name before is not written to: it may be a pod's.
func create(dir *safefile.Dir, name string) (*os.File, error) {
	if err := dir.Remove(name); err != nil {
		return nil, err
	}
	return dir.Create(name, 0o600)
}

// file writes one file; what cannot be written is lost.
func (r *Record) file(name string, to func(io.Writer) error) {
	file, err := create(r.at, name)
	if err == nil {
		r.wrote = append(r.wrote, name)
		buffered := bufio.NewWriter(file)
		err = cmp.Or(to(buffered), buffered.Flush(), file.Close())
	}
	r.lose(err)
}

// discard removes what was written.
func (r *Record) discard() {
	for _, name := range r.wrote {
		_ = r.at.RemoveAll(name)
	}
	if r.dir != "" && r.place == "" {
		_ = os.Remove(r.dir)
	}
}

// writeRecording writes a scenario that acts the attempt out again.
func (a *Attempt) writeRecording(w io.Writer, answers []replay.Answer) error {
	log := SectionOf(a.file)
	recording := replay.Recording{
		Pod: a.Pod, Timeout: a.Timeout, Timeline: a.Timeline, Failed: a.StartFailed, Error: a.Error, Socket: a.Socket,
		Log: log, Size: log.Size(), Growth: a.Stamps, Dir: a.dir(), Answers: answers,
	}
	if n := len(a.Marks); a.Error == "" && n > 0 && a.Marks[n-1].Last && !slices.ContainsFunc(a.Marks, Mark.asks) {
		recording.End, recording.Ended = a.Marks[n-1].What, a.Marks[n-1].At
	}
	scenario, err := recording.Scenario()
	return cmp.Or(err, second(io.WriteString(w, scenario)))
}

// start is when the first attempt began: the clock of the evidence begins there.
func (r *Record) start() time.Time { return r.Lives[0].Timeline.Start }

// mergedLog is one of the logs that are merged. (podlog's reader, which follows, does not tell
// where each line ends.)
type mergedLog struct {
	*Attempt
	excerpt
	in     *bufio.Reader
	offset int64  // where the last line ended
	line   string // the next one
	at     time.Time
	done   error // io.EOF after the last line
}

// advance goes to the next line, cut at 64 KiB; the last one may be unfinished. Its time is
// when it was first seen whole.
func (m *mergedLog) advance() {
	part, err := m.in.ReadSlice('\n')
	m.offset += int64(len(part))
	m.line = strings.TrimRight(string(part), "\r\n")
	if errors.Is(err, bufio.ErrBufferFull) {
		m.line += "… [line cut]"
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		part, err = m.in.ReadSlice('\n')
		m.offset += int64(len(part))
	}
	switch isEnd := errors.Is(err, io.EOF) && m.line == ""; {
	case isEnd && m.left > 0:
		m.line, m.in, m.offset, m.left = m.note(), bufio.NewReaderSize(m.tail, 64<<10), m.offset+m.left, 0
		return
	case isEnd || err != nil && !errors.Is(err, io.EOF):
		m.done = err
	}
	m.at = growth(m.Stamps, m.offset)
}

// eachLine calls f with the lines of all logs, the beginning and the end of long
// ones, in the order of time, until it returns an error.
func (r *Record) eachLine(most, perLine int64, f func(a *Attempt, at time.Time, line string) error) error {
	var logs []*mergedLog
	for i, e := range r.excerpts(most, perLine) {
		m := &mergedLog{Attempt: r.Lives[i], excerpt: e, in: bufio.NewReaderSize(e.head, 64<<10)}
		m.advance()
		logs = append(logs, m)
	}
	for {
		var first *mergedLog
		for _, m := range logs {
			if m.done == nil && (first == nil || m.at.Before(first.at)) {
				first = m
			} else if m.done != nil && m.done != io.EOF {
				return m.done
			}
		}
		if first == nil {
			return nil
		}
		if err := f(first.Attempt, first.at, first.line); err != nil {
			return err
		}
		first.advance()
	}
}

// writeMerged writes the logs on one clock.
func (r *Record) writeMerged(w io.Writer) error {
	const perLine = 40 // the time and the name
	return r.eachLine(r.Most/8, perLine, func(a *Attempt, at time.Time, line string) error {
		return second(fmt.Fprintf(w, "%+11.6f  %s  %s\n", at.Sub(r.start()).Seconds(), podlog.Printable(a.Name), podlog.Printable(line)))
	})
}

var phaseNames = []string{"launch", "first line", "ready line", "connect", "failed"}

// phases are the steps of a start, each until its moment; 0 = it did not come to it.
func phases(t spawn.Timeline) []time.Duration {
	return []time.Duration{t.Launched, t.FirstLine, t.ReadyLine, t.Connected, t.Ended}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (r *Record) writeTimelines(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "begun\tlaunched\tfirst line\tready line\tconnected\tfailed\t  pod, and what came then\n")
	for _, a := range r.Lives {
		if a.Timeline.Launched+a.Timeline.Ended == 0 && a.Pod == "" {
			continue // of a client the first output has it
		}
		fmt.Fprintf(table, "%+.3fms\t", millis(a.Timeline.Start.Sub(r.start())))
		for _, until := range phases(a.Timeline) {
			if until == 0 {
				fmt.Fprint(table, "-\t")
			} else {
				fmt.Fprintf(table, "%.3fms\t", millis(until))
			}
		}
		fmt.Fprintf(table, "  %s", podlog.Printable(a.Name))
		verdict, _, _ := strings.Cut(a.Error, "\n")
		then := []string{podlog.Printable(verdict)}
		for _, m := range a.Marks {
			then = append(then, fmt.Sprintf("%.3fms %s", millis(m.At.Sub(a.Timeline.Start)), m.What))
		}
		if at, how := a.end(r.Until); how == "" {
			then = append(then, fmt.Sprintf("%.3fms it still ran", millis(at.Sub(a.Timeline.Start))))
		}
		for _, user := range r.users(a, maxUses) {
			then = append(then, "used by "+user)
		}
		then = slices.DeleteFunc(then, func(s string) bool { return s == "" })
		fmt.Fprintf(table, ": %s\n", strings.Join(then, ", "))
	}
	return table.Flush()
}
