package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"example.com/podharness/spawn"
)

// evidence is what a failed test leaves.
type evidence struct {
	tb TB

	mu       sync.Mutex
	attempts []*attempt
	outputs  []output

	once      sync.Once // of the snapshot
	dir       string    // where all of it is kept; "" = nowhere
	processes string    // that lived when the first pod of the failed test was about to be stopped
	lost      []error
}

// output is what a client writes to its stdout or stderr.
type output struct {
	name string // of the file in the evidence
	log  *podLog
}

func (e *evidence) output(name string) *podLog {
	e.mu.Lock()
	defer e.mu.Unlock()
	log := newPodLog(e.tb, name)
	e.outputs = append(e.outputs, output{name, log})
	return log
}

// attempt is one start of a pod: what is known of it when the test has failed.
type attempt struct {
	pod   string
	cfg   Config
	log   *podLog
	begin time.Time

	// Since it has ended, or of a client's pod as it is seen.
	mu       sync.Mutex
	pid      int
	timeline spawn.Timeline
	socket   string // that a client's pod has announced
	err      error  // why the pod did not become ready
}

// attempt records a start that is about to begin.
func (e *evidence) attempt(pod string, cfg Config) *attempt {
	a := &attempt{pod: pod, cfg: cfg, log: newPodLog(e.tb, pod), begin: time.Now()}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attempts = append(e.attempts, a)
	return a
}

// start makes the attempt; launched is called with the pod's process.
func (a *attempt) start(ctx context.Context, sc spawn.Config, launched func(pid int)) (*spawn.Pod, error) {
	o := &spawn.Observer{Grown: a.log.grown, Line: a.log.stream}
	o.Launched = func(pid int) {
		launched(pid)
		a.log.take(o.Log)
	}
	pod, err := spawn.StartObserved(ctx, sc, o)
	a.log.take(o.Log) // of one that was not launched, too
	a.err = err
	var e *spawn.Error
	switch {
	case pod != nil:
		a.pid, a.timeline = pod.PID, pod.Timeline
	case errors.As(err, &e):
		a.pid, a.timeline = e.PID, e.Timeline
	}
	return pod, err
}

// attemptOfClient records a start that a client has begun: its log is there.
func (e *evidence) attemptOfClient(pod, log string) (*attempt, error) {
	a := e.attempt(pod, Config{})
	a.timeline.Start = a.begin
	stream := a.log.stream
	a.log.stream = func(line string) {
		a.see(line)
		if stream != nil {
			stream(line)
		}
	}
	return a, a.log.capture(log)
}

// see notes what a line of a client's pod tells of its start.
func (a *attempt) see(line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	since := max(1, time.Since(a.begin))
	if a.timeline.FirstLine == 0 {
		a.timeline.FirstLine = since
	}
	fields := strings.SplitN(line, "\t", 3)
	if a.timeline.ReadyLine == 0 && len(fields) == 3 && fields[0] == "YOI-READY" {
		a.timeline.ReadyLine, a.socket = since, fields[2]
	}
}

// has reports whether a file is one of the logs.
func (e *evidence) has(log os.FileInfo) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.attempts, func(a *attempt) bool { return a.log.is(log) })
}

// seen returns what a client's pod has told of its start so far.
func (a *attempt) seen() (spawn.Timeline, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.timeline, a.socket
}

// close closes the logs, after which they are empty.
func (e *evidence) close() {
	for _, o := range e.outputs {
		o.log.close()
	}
	for _, a := range e.attempts {
		a.log.close()
	}
}

// snapshot writes down what of a mark lives, once, while it lives: the test has
// failed.
func (e *evidence) snapshot(mark string) {
	e.once.Do(func() {
		var err error
		if e.dir, err = evidenceDir(e.tb); err != nil {
			e.lost = append(e.lost, err)
			return
		}
		var text strings.Builder
		fmt.Fprintf(&text, "%s, %s\n\n", e.tb.Name(), time.Now().Format(time.RFC3339Nano))
		describeProcesses(&text, find(kin{mark: mark}))
		e.mu.Lock()
		attempts := slices.Clone(e.attempts)
		e.mu.Unlock()
		names := fileNames(attempts)
		for i, a := range attempts {
			if err := copyStatusFiles(a.log.dir(), filepath.Join(e.dir, names[i]+".dir")); err != nil {
				e.lost = append(e.lost, err)
			}
			a.cfg.describeEnv(&text, a.pod)
		}
		e.processes = text.String()
	})
}

// describeEnv writes what Config.Env adds to a pod's environment.
func (c Config) describeEnv(w io.Writer, pod string) {
	fmt.Fprintf(w, "\nenvironment of pod %s beyond the usual:\n", spawn.Printable(pod))
	for _, entry := range c.Env {
		name, value, ok := strings.Cut(entry, "=")
		if !ok {
			value = os.Getenv(name) // it was passed on
		}
		shown := fmt.Sprintf("%s (%d bytes)", name, len(value))
		if slices.Contains(c.ShowEnv, name) {
			shown = name + "=" + value
		}
		fmt.Fprintf(w, "  %s\n", spawn.Printable(shown))
	}
}

// report writes the evidence where it outlives the test, and tells where. It is
// called once the test has failed and its pods are gone.
func (e *evidence) report(mark string) {
	e.tb.Helper()
	if len(e.attempts)+len(e.outputs) == 0 {
		return
	}
	e.snapshot(mark) // of a test in which no pod became ready
	if e.dir == "" {
		e.tb.Logf("harness: the evidence is lost: %v", errors.Join(e.lost...))
		return
	}
	for i, name := range fileNames(e.attempts) {
		e.reportLog("pod "+spawn.Printable(e.attempts[i].pod), e.attempts[i].log, name+".log")
	}
	for _, o := range e.outputs {
		o.log.endFollowing()
		e.reportLog(o.name, o.log, o.name)
	}
	e.write("merged.log", e.writeMerged)
	e.write("processes.txt", func(w io.Writer) error { return second(io.WriteString(w, e.processes)) })
	e.write("timelines.txt", e.writeTimelines)
	e.write("trace.json", e.writeTrace)
	attr(e.tb, e.dir)
	e.tb.Logf("harness: all evidence of this failure: %s", e.dir)
	if err := errors.Join(e.lost...); err != nil {
		e.tb.Logf("harness: but some of it is lost: %v", err)
	}
}

func (e *evidence) reportLog(who string, log *podLog, name string) {
	e.tb.Helper()
	e.write(name, func(w io.Writer) error { return second(io.Copy(w, log.reader())) })
	e.tb.Logf("harness: %s\n\twhole log: %s\n\tlast lines:%s", who, filepath.Join(e.dir, name), log.tail())
}

func second[T any](_ T, err error) error { return err }

// write writes one file of the evidence; what cannot be written is lost.
func (e *evidence) write(name string, to func(io.Writer) error) {
	file, err := os.OpenFile(filepath.Join(e.dir, name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		buffered := bufio.NewWriter(file)
		err = errors.Join(to(buffered), buffered.Flush(), file.Close())
	}
	if err != nil {
		e.lost = append(e.lost, err)
	}
}

// fileNames returns a name for the files of each attempt: the pod's, with a
// number where that is taken.
func fileNames(attempts []*attempt) (names []string) {
	const longest = 200 // a file's name has 255 bytes, some are for the rest of it
	taken := map[string]bool{"merged": true}
	for _, a := range attempts {
		pod := strings.Map(func(r rune) rune {
			if r == '/' || r < ' ' {
				return '_' // a name that Start refused
			}
			return r
		}, a.pod)
		pod = pod[:min(len(pod), longest)]
		name := pod
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s.%d", pod, n)
		}
		taken[name] = true
		names = append(names, name)
	}
	return names
}

// copyStatusFiles keeps the small files of a pod directory, but not the log.
func copyStatusFiles(from, to string) error {
	const most, largest = 20, 64 << 10
	entries, err := os.ReadDir(from)
	if from == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	kept := 0
	for _, entry := range entries {
		info, infoErr := entry.Info()
		if infoErr != nil || !info.Mode().IsRegular() || info.Size() > largest || entry.Name() == "stderr.log" || kept == most {
			continue
		}
		text, readErr := os.ReadFile(filepath.Join(from, entry.Name()))
		if readErr == nil {
			kept++
			readErr = errors.Join(os.MkdirAll(to, 0o700), os.WriteFile(filepath.Join(to, entry.Name()), text, 0o600))
		}
		err = errors.Join(err, readErr)
	}
	return err
}

// since tells how long after the first start of the test a moment was: the clock of
// the evidence.
func (e *evidence) since(t time.Time) time.Duration { return t.Sub(e.attempts[0].begin) }

// mergedLog is one of the logs that are merged.
type mergedLog struct {
	*attempt
	lines *lineReader
	line  string // the next one
	at    time.Time
	end   error // io.EOF after the last line
}

// advance goes to the next line. Its time is when it was first seen whole.
func (m *mergedLog) advance() {
	m.line, m.end = m.lines.next()
	m.at = m.log.stamps.of(m.lines.offset)
}

// writeMerged writes the logs of all pods on one clock, which starts with the
// first attempt.
func (e *evidence) writeMerged(w io.Writer) error {
	var logs []*mergedLog
	for _, a := range e.attempts {
		m := &mergedLog{attempt: a, lines: newLineReader(a.log.reader())}
		m.advance()
		logs = append(logs, m)
	}
	for {
		var first *mergedLog
		for _, m := range logs {
			if m.end == nil && (first == nil || m.at.Before(first.at)) {
				first = m
			} else if m.end != nil && m.end != io.EOF {
				return m.end
			}
		}
		if first == nil {
			return nil
		}
		if _, err := fmt.Fprintf(w, "%+11.6f  %s  %s\n", e.since(first.at).Seconds(), spawn.Printable(first.pod), first.line); err != nil {
			return err
		}
		first.advance()
	}
}

var phaseNames = []string{"launch", "first line", "ready line", "connect", "failed"}

// phases are the steps of a start, each until its moment; 0 = it did not come to it.
func phases(t spawn.Timeline) []time.Duration {
	return []time.Duration{t.Launched, t.FirstLine, t.ReadyLine, t.Connected, t.Ended}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (e *evidence) writeTimelines(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "begun\tlaunched\tfirst line\tready line\tconnected\tfailed\t  pod\n")
	for _, a := range e.attempts {
		fmt.Fprintf(table, "%+.3fms\t", millis(a.timeline.Start.Sub(e.attempts[0].timeline.Start)))
		for _, until := range phases(a.timeline) {
			if until == 0 {
				fmt.Fprint(table, "-\t")
			} else {
				fmt.Fprintf(table, "%.3fms\t", millis(until))
			}
		}
		fmt.Fprintf(table, "  %s", spawn.Printable(a.pod))
		if a.err != nil {
			verdict, _, _ := strings.Cut(a.err.Error(), "\n")
			fmt.Fprintf(table, ": %s", spawn.Printable(verdict))
		}
		fmt.Fprintln(table)
	}
	return table.Flush()
}

// traceEvent is an event of the Trace Event Format, which Perfetto and
// chrome://tracing read; times are in microseconds.
type traceEvent struct {
	Name     string         `json:"name"`
	Phase    string         `json:"ph"`
	Time     float64        `json:"ts"`
	Duration float64        `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// writeTrace writes the timelines as a trace: a row for each pod, a span for
// each step.
func (e *evidence) writeTrace(w io.Writer) error {
	events := []traceEvent{{Name: "process_name", Phase: "M", Process: 1, Args: map[string]any{"name": e.tb.Name()}}}
	for i, a := range e.attempts {
		events = append(events, traceEvent{Name: "thread_name", Phase: "M", Process: 1, Thread: i + 1,
			Args: map[string]any{"name": fmt.Sprintf("%s (process %d)", a.pod, a.pid)}})
		begin := a.timeline.Start.Sub(e.attempts[0].timeline.Start)
		from := time.Duration(0)
		for j, until := range phases(a.timeline) {
			if until == 0 {
				continue
			}
			event := traceEvent{Name: phaseNames[j], Phase: "X", Time: 1000 * millis(begin+from), Duration: 1000 * millis(until-from), Process: 1, Thread: i + 1}
			if event.Name == "failed" && a.err != nil {
				event.Args = map[string]any{"error": a.err.Error()}
			}
			events = append(events, event)
			from = until
		}
	}
	return json.NewEncoder(w).Encode(map[string]any{"traceEvents": events, "displayTimeUnit": "ms"})
}

// evidenceDir returns a directory that is kept: the test's artifact directory
// if there is one, else a temporary one.
func evidenceDir(tb TB) (string, error) {
	if dir := artifactDir(tb); dir != "" {
		return dir, nil
	}
	return os.MkdirTemp(tempDir, "podharness-failed-")
}

// artifactDir returns the artifact directory of a test; "" = it does not outlive the
// test, as testing's own does only with go test -artifacts.
func artifactDir(tb any) string {
	t, ok := optional[interface{ ArtifactDir() string }](tb)
	if !ok {
		return ""
	}
	kept := flag.Lookup("test.artifacts")
	if _, ok := t.(testing.TB); ok && (kept == nil || kept.Value.String() != "true") {
		return ""
	}
	return t.ArtifactDir()
}
