package harness

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod/replay"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// evidence collects what a failed test leaves.
type evidence struct {
	tb      TB
	binary  *binary
	sandbox int // its number

	mu       sync.Mutex
	journal  journal
	known    record // without its lives
	attempts []*attempt
	names    map[string]int // that are taken, and the largest number behind each
	over     bool

	writing sync.Mutex  // held while the evidence is
	frozen  bool        // the snapshot of the failed test was taken
	late    *time.Timer // fires shortly before the test's deadline; nil = it has none
}

// attempt is one start of a pod and what came of it, or one output of a client.
type attempt struct {
	e    *evidence
	log  *podLog
	args shownArgs

	// Under the evidence's lock.
	life
	told    podlog.Ready // in the ready line of a client's pod
	toldErr error        // what is wrong with that line
	shown   bool         // a message of the failed test has the last lines
}

// newEvidence returns the evidence of the test of a sandbox.
func newEvidence(tb TB, box *sandbox) *evidence {
	b := box.binary
	e := &evidence{tb: tb, binary: b, sandbox: box.number, journal: journal{own: box.own}, names: map[string]int{"merged": 1}}
	e.known = record{Test: tb.Name(), mark: box.mark, most: b.mostEvidence, place: artifactDir(tb, false), base: b.base, few: b.few}
	if e.known.place != "" {
		b.place(e.sandbox, e.known.place)
	}
	if t, ok := optional[interface{ Deadline() (time.Time, bool) }](tb); ok {
		if deadline, ok := t.Deadline(); ok {
			left := time.Until(deadline)
			e.late = time.AfterFunc(left-min(left/10, 3*time.Second), e.testIsLate) // our waits have ended by then
		}
	}
	return e
}

// add takes one more, which has a name of its own in the evidence.
func (e *evidence) add(name string, l life) *attempt {
	a := &attempt{e: e, log: newPodLog(e.tb, name), life: l}
	a.log.note = func(grown stamp) { a.change(func() {}, grown) }
	e.mu.Lock()
	defer e.mu.Unlock()
	a.N, a.Name = len(e.attempts), e.newName(name)
	a.Timeline.Start = time.Now()
	e.attempts = append(e.attempts, a)
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

// newName makes a name for the files of a life: the pod's, with a number where that
// is taken.
func (e *evidence) newName(name string) string {
	name = nameOf(name)
	name = name[:min(len(name), longestName)]
	unique := name
	for e.names[unique] > 0 {
		e.names[name]++
		unique = fmt.Sprintf("%s.%d", name, e.names[name])
	}
	e.names[unique] = 1
	return unique
}

// attempt records a start that is about to begin.
func (e *evidence) attempt(pod string, cfg Config) *attempt {
	l := life{Pod: pod, Env: cfg.shownEnv(), Timeout: cfg.ReadyTimeout}
	if cfg.DumpSignal != nil {
		l.Dump = cfg.DumpSignal.(syscall.Signal)
	}
	a := e.add(pod, l)
	a.args = cfg.shownArgs()
	return a
}

// output records an output of a client.
func (e *evidence) output(name string) *attempt { return e.add(name, life{}) }

// start makes the attempt; launched is called with the pod's process.
func (a *attempt) start(ctx context.Context, sc spawn.Config, mark string, launched func(pid int)) (*spawn.Pod, error) {
	o := &spawn.Observer{Fresh: true, Grown: a.log.grown, Line: a.log.stream}
	o.Launched = func(pid int) {
		launched(pid)
		a.log.take(o.Log)
		a.change(func() { a.PID, a.Timeline.Launched = pid, time.Since(a.Timeline.Start) })
	}
	o.Socket = func(what string) { // it is in the journal with the next change
		a.e.mu.Lock()
		defer a.e.mu.Unlock()
		a.Socket = append(a.Socket, replay.Moment{At: time.Now(), What: what})
	}
	o.Failing = func(verdict error) { a.failing(mark, verdict) }
	pod, err := spawn.StartObserved(ctx, sc, o)
	a.args.inError(err, sc.Command)
	a.log.take(o.Log) // of one that was not launched, too
	a.change(func() {
		var e *spawn.Error
		switch {
		case pod != nil:
			a.Timeline = pod.Timeline
		case errors.As(err, &e):
			failed := *e
			failed.Tail, failed.Unfinished = nil, "" // the log has them
			a.Timeline, a.Error, a.StartFailed = e.Timeline, err.Error(), &failed
		}
	})
	return pod, err
}

// failing writes down what of a start lives that is about to be killed: it hangs.
func (a *attempt) failing(mark string, verdict error) {
	if errors.Is(verdict, spawn.ErrExited) {
		return
	}
	var text strings.Builder
	describe(&text, proc.Find(proc.Match{Mark: mark}), a.e.binary.commands(mark))
	a.change(func() { a.Hung = text.String() })
	if a.Dump != 0 && errors.Is(verdict, spawn.ErrTimeout) {
		dump(a.e.tb, []*attempt{a})
	}
}

// dumpGrace is how long pods may take to write what they do.
const dumpGrace = 2 * time.Second

// dump sends Config.DumpSignal to pods that run, and waits for what they write then.
func dump(tb TB, pods []*attempt) {
	var pids []int
	var logs []*os.File
	for _, a := range pods {
		a.log.keepTail()
		if syscall.Kill(a.PID, a.Dump) == nil {
			a.mark(unix.SignalName(a.Dump))
			pids, logs = append(pids, a.PID), append(logs, a.log.file())
		}
	}
	grace, _ := beforeDeadline(tb, "", dumpGrace)
	awaitQuiet(pids, grace, func() (size int64) {
		for _, log := range logs {
			size += sectionOf(log).Size()
		}
		return size
	})
}

// awaitQuiet waits until processes have ended or the size of what they write has not
// changed for a while, for at most d.
func awaitQuiet(pids []int, d time.Duration, size func() int64) {
	const quiet = 100 * time.Millisecond
	runs := func(pid int) bool { return !proc.Ended(pid) }
	begin := time.Now()
	last := int64(-1)
	for since := begin; slices.ContainsFunc(pids, runs) && time.Since(begin) < d && time.Since(since) < quiet; <-time.After(5 * time.Millisecond) {
		if now := size(); now != last {
			last, since = now, time.Now()
		}
	}
}

// describe writes what processes do, with the command lines that command returns.
func describe(w *strings.Builder, processes []proc.Process, command func(proc.Process) string) {
	proc.Describe(w, processes, func(p proc.Process) string { return podlog.Printable(command(p)) }, podlog.Printable)
}

// processes describes what lives of the test.
func (e *evidence) processes(r *record) string {
	var text strings.Builder
	describe(&text, proc.Find(proc.Match{Mark: r.mark}), e.binary.commands(""))
	return text.String()
}

// attemptOfClient records a start that a client has begun, with its log.
func (e *evidence) attemptOfClient(pod string, log *os.File) *attempt {
	a := e.attempt(pod, Config{})
	stream := a.log.stream
	a.log.stream = func(line string) {
		a.see(line)
		if stream != nil {
			stream(line)
		}
	}
	a.log.capture(log)
	a.change(func() {})
	return a
}

// see notes what a line of a client's pod tells of its start.
func (a *attempt) see(line string) {
	if timeline, _, _ := a.seen(); timeline.ReadyLine > 0 {
		return
	}
	a.change(func() {
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

// seen returns what a client's pod has told of its start so far.
func (a *attempt) seen() (spawn.Timeline, podlog.Ready, error) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	return a.Timeline, a.told, a.toldErr
}

// has reports whether a file is one of the logs.
func (e *evidence) has(log os.FileInfo) bool {
	e.mu.Lock()
	attempts := slices.Clone(e.attempts)
	e.mu.Unlock()
	return slices.ContainsFunc(attempts, func(a *attempt) bool { return a.log.is(log) })
}

// mark notes what has happened to a pod, or was done to it.
func (a *attempt) mark(what string) {
	a.change(func() { a.add(mark{What: what, At: time.Now()}) })
}

// ended notes, once, how a life is over.
func (a *attempt) ended(how string) {
	a.change(func() {
		if _, known := a.end(time.Time{}); known == "" {
			a.add(mark{how, time.Now(), true})
		}
	})
}

// change changes what is known, and notes it in the journal.
func (a *attempt) change(what func(), grown ...stamp) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	if path := a.log.path(); path != "" && a.Log == "" {
		a.Log = path
		a.e.journal.keepLog(&a.life, a.log.file())
	}
	last := a.last()
	what()
	l := a.life
	l.Marks, l.Stamps = nil, grown
	if m := a.last(); m != last {
		l.Marks = []mark{m}
		if len(a.Marks) == maxMarks && !m.Last {
			return
		}
	}
	a.e.note([]*life{&l}, false)
}

// note notes lives in the journal. The lock is held.
func (e *evidence) note(lives []*life, all bool) {
	if e.over {
		return
	}
	e.journal.write(entry{e.known, lives, all})
}

// view returns the record as it is now. The lock is held.
func (e *evidence) view() *record {
	r := e.known
	for _, a := range e.attempts {
		l := a.life
		l.Marks = slices.Clone(l.Marks)
		l.file, l.Stamps = a.log.view()
		r.Lives = append(r.Lives, &l)
	}
	return &r
}

// do has the record written as it is now. The writing lock is held.
func (e *evidence) do(write func(r *record)) *record {
	e.mu.Lock()
	r := e.view()
	e.mu.Unlock()
	r.place = artifactDir(e.tb, artifacts == "")
	write(r)
	if r.dir != "" {
		e.binary.place(e.sandbox, r.dir)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = *r
	e.known.Lives = nil
	e.note(nil, false)
	return r
}

// snapshot writes down what of the test lives, once, while it lives: it has failed.
func (e *evidence) snapshot() {
	e.writing.Lock()
	defer e.writing.Unlock()
	if !e.frozen && e.isOpen() {
		e.frozen = true
		e.do(func(r *record) { r.freeze(whyFailed, e.processes(r), time.Now()) })
	}
}

// isOpen reports whether there is something to write, and the test is not over.
func (e *evidence) isOpen() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.over && len(e.attempts) > 0
}

// testIsLate writes the evidence of a test that still runs: go test is about to panic.
func (e *evidence) testIsLate() {
	e.writing.Lock()
	defer e.writing.Unlock()
	if !e.isOpen() {
		return
	}
	if !e.frozen {
		e.do(func(r *record) { r.freeze(whyLate, e.processes(r), time.Now()) })
	}
	r := e.do((*record).write)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.note(r.Lives, true) // with the times as they are known here
}

// dir returns where the evidence is, or why it is nowhere.
func (e *evidence) dir() (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known.dir, cmp.Or(errors.Join(e.known.lost...), errors.New("no pod was started, or its test is over"))
}

// report writes the evidence where it outlives the test, and tells where. It is
// called once the test has failed and its pods are gone.
func (e *evidence) report() {
	e.tb.Helper()
	if !e.isOpen() {
		return
	}
	e.snapshot() // of a test in which no pod became ready
	e.writing.Lock()
	defer e.writing.Unlock()
	for _, a := range e.attempts {
		a.log.endFollowing()
	}
	r := e.do((*record).write)
	for _, a := range e.attempts {
		if a.shown {
			continue
		}
		who := a.Name
		if a.Pod != "" {
			who = "pod " + a.Pod
		}
		who = podlog.Printable(who)
		if r.dir != "" {
			who += "\n\twhole log: " + podlog.Printable(filepath.Join(r.dir, a.fileName()))
		}
		e.tb.Logf("harness: %s\n\tlast lines:%s", who, a.log.tail())
	}
	if r.dir == "" {
		e.tb.Logf("harness: the evidence is lost: %v", errors.Join(r.lost...))
		return
	}
	attr(e.tb, r.dir)
	e.tb.Logf("harness: all evidence of this failure: %s", podlog.Printable(r.dir))
	if err := errors.Join(r.lost...); err != nil {
		e.tb.Logf("harness: but some of it is lost: %v", err)
	}
}

// close closes the logs, after which they are empty, and leaves no evidence of a test
// that has passed.
func (e *evidence) close(failed bool) {
	if e.late != nil {
		e.late.Stop()
	}
	e.writing.Lock()
	defer e.writing.Unlock()
	if !failed {
		e.known.discard()
	}
	for _, a := range e.attempts {
		a.log.close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
	e.journal.remove()
	e.binary.place(e.sandbox, "")
}

// failed reports whether a test whose cleanups run has failed. Those of one that
// panics run before testing has it as failed.
func failed(tb TB) bool {
	if tb.Failed() {
		return true
	}
	callers := make([]uintptr, 100)
	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
	for more := true; more; {
		var frame runtime.Frame
		if frame, more = frames.Next(); frame.Function == "runtime.gopanic" {
			return true
		}
	}
	return false
}

// message returns that of a failed test, in which its log has the name that
// outlives the test.
func (a *attempt) message(err error) string {
	text, path := err.Error(), a.pathInMessage()
	a.change(func() { a.Failure = text })
	if a.log.path() == "" || !strings.Contains(text, path) {
		return podlog.PrintableLines(text)
	}
	a.e.writing.Lock()
	defer a.e.writing.Unlock()
	r := a.e.do(func(r *record) { err = r.makeDir() })
	a.shown = true // above the name of the log stand its last lines
	where := filepath.Join(r.dir, a.fileName())
	if err != nil {
		where = fmt.Sprintf("lost with the test: %v", printableError(err))
	}
	return podlog.PrintableLines(strings.ReplaceAll(text, path, "\n\tlog: "+podlog.Printable(where)))
}

// pathInMessage is how errors name the log.
func (a *attempt) pathInMessage() string { return "\n\tlog: " + podlog.Printable(a.log.path()) }

// messageOf is that of the latest attempt that an error is about.
func messageOf(tb TB, err error) string {
	box, boxErr := sandboxOf(tb)
	if boxErr != nil {
		return podlog.PrintableLines(err.Error())
	}
	box.evidence.mu.Lock()
	attempts := slices.Clone(box.evidence.attempts)
	box.evidence.mu.Unlock()
	for _, a := range slices.Backward(attempts) {
		if a.log.path() != "" && strings.Contains(err.Error(), a.pathInMessage()) {
			return a.message(err)
		}
	}
	return podlog.PrintableLines(err.Error())
}

// shownEnv returns what Config.Env adds to a pod's environment, as it may be shown.
func (c Config) shownEnv() (shown []string) {
	for _, entry := range c.Env {
		name, value, ok := strings.Cut(entry, "=")
		if !ok {
			value = os.Getenv(name) // it was passed on
		}
		text := fmt.Sprintf("%s (%d bytes)", name, len(value))
		if slices.Contains(c.ShowEnv, name) {
			text = name + "=" + value
		}
		shown = append(shown, podlog.Printable(text))
	}
	return shown
}

// artifactDir returns the artifact directory of a test; "" = it does not outlive the
// test, as testing's own does only with go test -artifacts. Asking makes that one: it is
// done only with mayMake.
func artifactDir(tb any, mayMake bool) string {
	t, ok := optional[interface{ ArtifactDir() string }](tb)
	if !ok {
		return ""
	}
	if _, ok := t.(testing.TB); ok && !(mayMake && keepsArtifacts()) {
		return ""
	}
	return t.ArtifactDir()
}

func keepsArtifacts() bool {
	kept := flag.Lookup("test.artifacts")
	return kept != nil && kept.Value.String() == "true"
}

// artifactsBase returns where to make a directory for the evidence of a test that has
// none, and whether only a few may be there.
func artifactsBase() (dir string, few bool) {
	if !keepsArtifacts() {
		return tempDir, true
	}
	dir, err := filepath.Abs(filepath.Join(flag.Lookup("test.outputdir").Value.String(), "_artifacts"))
	return dir, err != nil
}
