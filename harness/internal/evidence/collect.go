// Package evidence is the inside of harness: it collects what is known of a test's pods and
// clients, keeps a journal of that, and writes it down when the test fails. It starts no
// process and ends none.
//
// A [Collector] has an [Attempt] for each start of a pod and each output of a client. A
// [Record] is what is written: collect.go fills it, journal.go keeps it on disk, cutshort.go
// reads that back, dirs.go chooses where it goes, record.go and report.go write the files.
package evidence

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/fakepod/replay"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
)

// A Test is the test whose evidence is collected.
type Test struct {
	Name   string                        `json:"Test"`
	Box    string                        `json:"-"` // its sandbox
	Own    func() (*safefile.Dir, error) `json:"-"`
	Prefix string                        `json:"-"` // how the path of a directory for the evidence begins: see Prefix
	Few    bool                          `json:"-"` // of those of earlier runs only the newest are kept
	Most   int64                         `json:"-"` // bytes that all of it may have

	// Place returns a directory that is there for the evidence, "" = one is made, and makes
	// it if mayMake.
	Place     func(mayMake bool) string      `json:"-"`
	Placed    func(dir string)               `json:"-"` // is told where the evidence goes
	Processes func() string                  `json:"-"` // describes what lives
	Stream    func(name string) func(string) `json:"-"` // returns what takes the lines of a log; nil = nobody does
	Log       func(string, ...any)           `json:"-"` // tells the test
	Helper    func()                         `json:"-"`
}

// A Collector collects what a failed test leaves. Its methods are safe for concurrent use.
type Collector struct {
	*Test

	// Of its two locks writing is taken first.
	mu      sync.Mutex // guards all below, and the attempts
	journal journal
	known   Record
	names   map[string]int // that are taken, and the largest number behind each
	over    bool

	writing sync.Mutex // held while the evidence is written
	frozen  bool       // the snapshot of the failed test was taken
}

// New returns the collector of a test.
func New(t Test) *Collector {
	e := &Collector{Test: &t, journal: journal{own: t.Own}, names: map[string]int{"merged": 1}}
	e.known = Record{Test: &t, place: t.Place(false)}
	if e.known.place != "" {
		t.Placed(e.known.place)
	}
	return e
}

// add takes one more, which has a name of its own in the evidence.
func (e *Collector) add(name string, a *Attempt) *Attempt {
	a.e, a.Captured = e, NewLog(e.Stream(name))
	a.talk = &conversation{}
	if a.Captured.redact = a.Redact; a.Redact != nil {
		a.Withheld = true
		if stream := a.Captured.stream; stream != nil {
			a.Captured.stream = func(line string) { stream(a.Captured.Redact(line)) }
		}
	}
	a.Captured.note = func(grown Stamp) { a.Change(func() {}, grown) }
	e.mu.Lock()
	defer e.mu.Unlock()
	a.N, a.Name = len(e.known.Lives), e.newName(name)
	a.Timeline.Start = time.Now()
	e.known.Lives = append(e.known.Lives, a)
	return a
}

// longestName is how long a name in the evidence may be: a file's has 255 bytes, and
// some are for the rest of it.
const longestName = 200

// nameOf returns a name for files.
func nameOf(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '/' || r < ' ' {
			return '_' // a name that Start refused
		}
		return r
	}, name)
	return name[:min(len(name), longestName+4)]
}

// newLog ends the names of logs that are in the place of those that a pod has renamed.
const newLog = ".new.log"

// newName makes a name for the files of an attempt: the pod's, with a number where that
// is taken.
func (e *Collector) newName(name string) string {
	name = nameOf(name)
	name = name[:min(len(name), longestName)]
	unique := name
	// The log of a pod has its name and .log.
	for e.names[unique] > 0 || e.names[unique+".log"] > 0 || e.names[strings.TrimSuffix(unique, ".log")] > 0 {
		e.names[name]++
		unique = fmt.Sprintf("%s.%d", name, e.names[name])
	}
	e.names[unique] = 1
	return unique
}

// Start records a start that is about to begin.
func (e *Collector) Start(a *Attempt, args Args) *Attempt {
	a.Args = args
	return e.add(a.Pod, a)
}

// Output records an output of a client.
func (e *Collector) Output(name string) *Attempt { return e.add(name, &Attempt{}) }

// StartOfClient records a start that a client has begun, with its log.
func (e *Collector) StartOfClient(pod string, log *os.File) *Attempt {
	a := e.Start(&Attempt{Pod: pod}, Args{})
	stream := a.Captured.stream
	a.Captured.stream = func(line string) {
		a.see(line)
		if stream != nil {
			stream(line)
		}
	}
	a.Captured.Capture(log)
	a.Change(func() {})
	return a
}

// see notes what a line of a client's pod tells of its start.
func (a *Attempt) see(line string) {
	if timeline, _, _ := a.Seen(); timeline.ReadyLine > 0 {
		return
	}
	a.Change(func() {
		since := max(1, time.Since(a.Timeline.Start))
		if a.Timeline.FirstLine == 0 {
			a.Timeline.FirstLine = since
		}
		if podlog.IsReady([]byte(line)) {
			a.Timeline.ReadyLine = since
			a.told, a.toldErr = podlog.ParseReady([]byte(line))
		}
	})
}

// Seen returns what a client's pod has told of its start so far.
func (a *Attempt) Seen() (spawn.Timeline, podlog.Ready, error) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	return a.Timeline, a.told, a.toldErr
}

// latest returns the latest attempt of which is is true; nil = none.
func (e *Collector) latest(is func(a *Attempt) bool) *Attempt {
	for _, a := range slices.Backward(e.attempts()) {
		if is(a) {
			return a
		}
	}
	return nil
}

func (e *Collector) attempts() []*Attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.known.Lives)
}

// Has reports whether a file is one of the logs.
func (e *Collector) Has(log os.FileInfo) bool {
	return e.latest(func(a *Attempt) bool { return a.Captured.is(log) }) != nil
}

// ByLog returns the latest start whose log was made at a path; nil = none.
func (e *Collector) ByLog(path string) *Attempt {
	return e.latest(func(a *Attempt) bool { return path != "" && a.Pod != "" && a.Captured.Path() == path })
}

// NoteSocket notes what was found at the path that a pod has announced. It is in the journal
// with the next change.
func (a *Attempt) NoteSocket(what string) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	a.Socket = append(a.Socket, replay.Moment{At: time.Now(), What: what})
}

// Note notes what has happened to a pod, or was done to it.
func (a *Attempt) Note(what string) {
	a.Change(func() { a.add(Mark{What: what, At: time.Now()}) })
}

// Ended notes, once, how an attempt is over.
func (a *Attempt) Ended(how string) {
	a.Change(func() {
		if _, known := a.end(time.Time{}); known == "" {
			a.add(Mark{how, time.Now(), true})
		}
	})
}

// Fail notes what the test has failed of. Of many that is the first ones.
func (a *Attempt) Fail(what string) {
	a.Change(func() {
		if len(a.Failures) < maxFailures {
			a.Failures = append(a.Failures, Mark{What: what, At: time.Now()})
		}
	})
}

// Change changes what is known, and notes it in the journal.
func (a *Attempt) Change(what func(), grown ...Stamp) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	if path := a.Captured.Path(); path != "" && a.Log == "" {
		a.Log = path
		a.e.journal.keepLog(a, a.Captured.File())
	}
	last := a.last()
	what()
	changed := *a
	changed.Marks, changed.Stamps = nil, grown
	if m := a.last(); m != last {
		changed.Marks = []Mark{m}
		if len(a.Marks) == maxMarks && !m.Last {
			return
		}
	}
	a.e.note([]*Attempt{&changed}, false)
}

// note notes attempts in the journal. The lock is held.
func (e *Collector) note(lives []*Attempt, all bool) {
	if !e.over {
		e.journal.write(entry{Record: e.known, Lives: lives, All: all})
	}
}

// view returns the record as it is now.
func (e *Collector) view() Record {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.known
	r.Lives = nil
	for _, a := range e.known.Lives {
		now := *a
		now.Marks, now.Failures, now.samples.at = slices.Clone(a.Marks), slices.Clone(a.Failures), slices.Clone(a.samples.at)
		now.uses.of = slices.Clone(a.uses.of)
		now.file, now.Stamps = a.Captured.view()
		r.Lives = append(r.Lives, &now)
	}
	return r
}

// freeze has written down what lives.
func (e *Collector) freeze(why string) {
	e.captureNew()
	e.do(func(r *Record) { r.freeze(why, e.Processes(), time.Now()) })
}

// captureNew captures the logs that pods have put in the place of theirs.
func (e *Collector) captureNew() {
	r := e.view()
	r.findNew(func(a *Attempt, log *os.File) {
		added := e.add(a.Name+newLog, &Attempt{Redact: a.Redact})
		added.Captured.Capture(log)
		live := e.at(a.N)
		live.Change(func() { live.NewLog = added.Name })
	})
}

// at returns an attempt by its number.
func (e *Collector) at(n int) *Attempt {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known.Lives[n]
}

// do has the record written as it is now. The writing lock is held.
func (e *Collector) do(write func(r *Record)) Record {
	for _, a := range e.attempts() {
		a.talk.writeOut()
	}
	r := e.view()
	r.place = e.Place(true)
	write(&r)
	if r.dir != "" {
		e.Placed(r.dir)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	lives := e.known.Lives
	e.known = r
	e.known.Lives = lives
	e.note(nil, false)
	return r
}

// Snapshot writes down what of the test lives, once, while it lives: it has failed.
func (e *Collector) Snapshot() {
	e.writing.Lock()
	defer e.writing.Unlock()
	if !e.frozen && e.isOpen() {
		e.frozen = true
		e.freeze(WhyFailed)
	}
}

// FirstFailure returns the first line of what the test has failed of, as far as that is about a
// pod or a client; "" = of nothing else than its own.
func (e *Collector) FirstFailure() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var first Mark
	for _, a := range e.known.Lives {
		if len(a.Failures) > 0 && (first.What == "" || a.Failures[0].At.Before(first.At)) {
			first = a.Failures[0]
		}
	}
	line, _, _ := strings.Cut(first.What, "\n")
	return Shorten(line, 1000)
}

// isOpen reports whether there is something to write, and the test is not over.
func (e *Collector) isOpen() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.over && len(e.known.Lives) > 0
}

// WriteLate writes the evidence of a test that still runs: go test is about to panic.
func (e *Collector) WriteLate() {
	e.writing.Lock()
	defer e.writing.Unlock()
	if !e.isOpen() {
		return
	}
	if !e.frozen {
		e.freeze(WhyLate)
	}
	r := e.do((*Record).Write)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.note(r.Lives, true) // with the times as they are known here
}

// Dir returns where the evidence is, or why it is nowhere.
func (e *Collector) Dir() (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known.Where()
}

// Report writes the evidence where it outlives the test, tells where, and returns that. It
// is called once the test has failed and its pods are gone.
func (e *Collector) Report() (dir string) {
	e.Helper()
	if !e.isOpen() {
		return ""
	}
	e.Snapshot() // of a test in which no pod became ready
	e.writing.Lock()
	defer e.writing.Unlock()
	e.captureNew()
	for _, a := range e.known.Lives {
		a.Captured.EndFollowing()
	}
	r := e.do((*Record).Write)
	for _, a := range e.known.Lives {
		if a.NewLog != "" && r.dir != "" {
			e.Test.Log("harness: the log of pod %s is another file now, as after a rotation: %s", podlog.Printable(a.Pod), podlog.Printable(filepath.Join(r.dir, a.NewLog)))
		}
		if a.Shown {
			continue
		}
		who := a.Name
		if a.Pod != "" {
			who = "pod " + a.Pod
		}
		who = podlog.Printable(who)
		if r.dir != "" {
			who += "\n\twhole log: " + podlog.Printable(filepath.Join(r.dir, a.FileName()))
		}
		e.Test.Log("harness: %s\n\tlast lines:%s", who, a.Captured.Tail())
	}
	if r.dir == "" {
		e.Test.Log("harness: the evidence is lost: %v", errors.Join(r.lost...))
		return ""
	}
	e.Test.Log("harness: all evidence of this failure: %s", podlog.Printable(r.dir))
	if err := errors.Join(r.lost...); err != nil {
		e.Test.Log("harness: but some of it is lost: %v", err)
	}
	return r.dir
}

// Close closes the logs, after which they are empty, and leaves no evidence of a test
// that has passed.
func (e *Collector) Close(failed bool) {
	e.writing.Lock()
	defer e.writing.Unlock()
	if !failed {
		e.known.discard()
	}
	e.mu.Lock()
	at := e.known.at
	e.known.at = nil
	e.mu.Unlock()
	if at != nil {
		at.Close()
	}
	for _, a := range e.known.Lives {
		a.talk.end()
		a.Captured.Close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	e.journal.remove()
	e.Placed("")
}

// Keep has the log named in a message of the failed test, above which stand its last lines.
// It returns the name that outlives the test, or why there is none.
func (a *Attempt) Keep() string {
	a.e.writing.Lock()
	defer a.e.writing.Unlock()
	var err error
	r := a.e.do(func(r *Record) { err = r.makeDir() })
	a.Shown = true
	if err != nil {
		return fmt.Sprintf("lost with the test: %v", PrintableError(err))
	}
	return filepath.Join(r.dir, a.FileName())
}
