package harness

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"example.com/podharness/spawn"
)

// attempt is one start of a pod: what is known of it when the test has failed.
type attempt struct {
	pod      string
	dir      string // the pod directory; "" if there was to be none
	pid      int
	log      *podLog
	extraEnv []string // what Config.Env added
	begin    time.Time
	timeline spawn.Timeline
	err      error // why it did not become ready
}

// attempt records a start that is about to begin.
func (b *sandbox) attempt(sc spawn.Config, extraEnv []string) *attempt {
	a := &attempt{pod: sc.PodName, extraEnv: extraEnv, begin: time.Now(), log: b.capture(sc)}
	if path, err := sc.LogPath(); err == nil {
		a.dir = podDir(path)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.attempts = append(b.attempts, a)
	return a
}

// ended records how a start ended.
func (a *attempt) ended(pod *spawn.Pod, err error) {
	a.err = err
	var e *spawn.Error
	switch {
	case pod != nil:
		a.pid, a.timeline = pod.PID, pod.Timeline
	case errors.As(err, &e):
		a.pid, a.timeline = e.PID, e.Timeline
	}
}

// snapshot writes down what lives, once, while it lives: the test has failed.
func (b *sandbox) snapshot() {
	b.snapshotOnce.Do(func() {
		var err error
		if b.evidence, err = artifactDir(b.tb); err != nil {
			b.lost = append(b.lost, err)
			return
		}
		var text strings.Builder
		fmt.Fprintf(&text, "%s, %s\n\n", b.tb.Name(), time.Now().Format(time.RFC3339Nano))
		describeProcesses(&text, marked(b.mark))
		b.mu.Lock()
		attempts := slices.Clone(b.attempts)
		b.mu.Unlock()
		names := fileNames(attempts)
		for i, a := range attempts {
			if err := copyStatusFiles(a.dir, filepath.Join(b.evidence, names[i]+".dir")); err != nil {
				b.lost = append(b.lost, err)
			}
			fmt.Fprintf(&text, "\nenvironment of pod %s beyond the usual:\n", spawn.Printable(a.pod))
			for _, entry := range a.extraEnv {
				fmt.Fprintf(&text, "  %s\n", spawn.Printable(masked(entry)))
			}
		}
		b.processes = text.String()
	})
}

var (
	secretName  = regexp.MustCompile(`(?i)key|token|secret|passw|pwd|credential|auth|cookie|private|session`)
	secretValue = regexp.MustCompile(`^(sk-|gh[a-z]_|github_pat_|xox[a-z]-|AKIA|eyJ|-----BEGIN)|://[^/@\s]*:[^/@\s]*@|^[A-Za-z0-9+/=_-]{32,}$`)
)

// masked hides the value of a variable whose name or value looks secret.
func masked(entry string) string {
	name, value, ok := strings.Cut(entry, "=")
	if !ok {
		value = os.Getenv(name) // it was passed on
	}
	if secretName.MatchString(name) || secretValue.MatchString(value) {
		return fmt.Sprintf("%s=[masked, %d bytes]", name, len(value))
	}
	return name + "=" + value
}

// report writes the evidence where it outlives the test, and tells where. It is
// called once the test has failed and its pods are gone.
func (b *sandbox) report() {
	b.tb.Helper()
	if len(b.attempts) == 0 {
		return
	}
	b.snapshot() // of a test in which no pod became ready
	dir := b.evidence
	if dir == "" {
		b.tb.Logf("harness: the evidence is lost: %v", errors.Join(b.lost...))
		return
	}
	write := func(name string, to func(io.Writer) error) {
		if err := writeFile(filepath.Join(dir, name), to); err != nil {
			b.lost = append(b.lost, err)
		}
	}
	for i, name := range fileNames(b.attempts) {
		a := b.attempts[i]
		write(name+".log", func(w io.Writer) error {
			_, err := io.Copy(w, a.log.reader())
			return err
		})
		tail := a.log.tail()
		if tail == "" {
			tail = " nothing"
		}
		b.tb.Logf("harness: pod %s\n\twhole log: %s\n\tlast lines:%s", spawn.Printable(a.pod), filepath.Join(dir, name+".log"), tail)
	}
	write("merged.log", b.writeMerged)
	write("processes.txt", func(w io.Writer) error {
		_, err := io.WriteString(w, b.processes)
		return err
	})
	write("timelines.txt", b.writeTimelines)
	write("trace.json", b.writeTrace)
	b.tb.Logf("harness: all evidence of this failure: %s", dir)
	if err := errors.Join(b.lost...); err != nil {
		b.tb.Logf("harness: but some of it is lost: %v", err)
	}
}

// fileNames returns a name for the files of each attempt: the pod's, with a
// number where that is taken.
func fileNames(attempts []*attempt) []string {
	const longest = 200 // a file's name has 255 bytes, some are for the rest of it
	taken := map[string]bool{"merged": true}
	names := make([]string, len(attempts))
	for i, a := range attempts {
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
		names[i] = name
	}
	return names
}

func writeFile(path string, to func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(file)
	return errors.Join(to(buffered), buffered.Flush(), file.Close())
}

// maxStatusFile is how large a file of a pod directory may be to be kept, and
// maxStatusFiles how many.
const (
	maxStatusFile  = 64 << 10
	maxStatusFiles = 20
)

// copyStatusFiles keeps the small files of a pod directory, but not the log.
func copyStatusFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if from == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	kept := 0
	for _, entry := range entries {
		info, infoErr := entry.Info()
		if infoErr != nil || !info.Mode().IsRegular() || info.Size() > maxStatusFile || entry.Name() == "stderr.log" || kept == maxStatusFiles {
			continue
		}
		text, readErr := os.ReadFile(filepath.Join(from, entry.Name()))
		if readErr == nil {
			if kept++; kept == 1 {
				readErr = os.MkdirAll(to, 0o700)
			}
			if readErr == nil {
				readErr = os.WriteFile(filepath.Join(to, entry.Name()), text, 0o600)
			}
		}
		err = errors.Join(err, readErr)
	}
	return err
}

// mergedLine is a line of one of the logs that are merged.
type mergedLine struct {
	at   time.Time
	pod  string
	text string
}

// writeMerged writes the logs of all pods on one clock, which starts with the
// first attempt. A line has the time at which it was first seen whole.
func (b *sandbox) writeMerged(w io.Writer) error {
	type source struct {
		*attempt
		lines  *bufio.Reader
		offset int64
		next   *mergedLine
	}
	advance := func(s *source) error {
		part, err := s.lines.ReadSlice('\n')
		s.offset += int64(len(part))
		some, text := len(part) > 0, strings.ToValidUTF8(strings.TrimRight(string(part), "\r\n"), "\uFFFD")
		if errors.Is(err, bufio.ErrBufferFull) {
			text += "… [line cut]"
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			part, err = s.lines.ReadSlice('\n')
			s.offset += int64(len(part))
		}
		s.next = nil
		if some {
			s.next = &mergedLine{s.log.stamps.of(s.offset), s.pod, text}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	var sources []*source
	for _, a := range b.attempts {
		s := &source{attempt: a, lines: bufio.NewReaderSize(a.log.reader(), 64<<10)}
		if err := advance(s); err != nil {
			return err
		}
		sources = append(sources, s)
	}
	begin := b.attempts[0].begin
	for {
		var first *source
		for _, s := range sources {
			if s.next != nil && (first == nil || s.next.at.Before(first.next.at)) {
				first = s
			}
		}
		if first == nil {
			return nil
		}
		line := first.next
		if _, err := fmt.Fprintf(w, "%+11.6f  %s  %s\n", line.at.Sub(begin).Seconds(), spawn.Printable(line.pod), spawn.Printable(line.text)); err != nil {
			return err
		}
		if err := advance(first); err != nil {
			return err
		}
	}
}

// phases are the steps of a start, each until its moment.
func phases(t spawn.Timeline) []struct {
	name  string
	until time.Duration
} {
	return []struct {
		name  string
		until time.Duration
	}{
		{"launch", t.Launched}, {"first line", t.FirstLine}, {"ready line", t.ReadyLine}, {"connect", t.Connected}, {"failed", t.Ended},
	}
}

func (b *sandbox) writeTimelines(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "begun\tlaunched\tfirst line\tready line\tconnected\tfailed\t  pod\n")
	for _, a := range b.attempts {
		fmt.Fprintf(table, "%+.3fms\t", float64(a.timeline.Start.Sub(b.attempts[0].timeline.Start))/1e6)
		for _, phase := range phases(a.timeline) {
			if phase.until == 0 {
				fmt.Fprint(table, "-\t")
			} else {
				fmt.Fprintf(table, "%.3fms\t", float64(phase.until)/1e6)
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
func (b *sandbox) writeTrace(w io.Writer) error {
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	events := []traceEvent{{Name: "process_name", Phase: "M", Process: 1, Args: map[string]any{"name": b.tb.Name()}}}
	for i, a := range b.attempts {
		row := i + 1
		events = append(events, traceEvent{Name: "thread_name", Phase: "M", Process: 1, Thread: row,
			Args: map[string]any{"name": fmt.Sprintf("%s (process %d)", a.pod, a.pid)}})
		steps := slices.DeleteFunc(phases(a.timeline), func(p struct {
			name  string
			until time.Duration
		}) bool {
			return p.until == 0
		})
		begin, from := a.timeline.Start.Sub(b.attempts[0].timeline.Start), time.Duration(0)
		for _, step := range steps {
			event := traceEvent{Name: step.name, Phase: "X", Time: micros(begin + from), Duration: micros(step.until - from), Process: 1, Thread: row}
			if step.name == "failed" && a.err != nil {
				event.Args = map[string]any{"error": a.err.Error()}
			}
			events = append(events, event)
			from = step.until
		}
	}
	return json.NewEncoder(w).Encode(map[string]any{"traceEvents": events, "displayTimeUnit": "ms"})
}

// artifactDir returns a directory that is kept: the test's artifact directory
// if there is one, else a temporary one.
func artifactDir(tb TB) (string, error) {
	if dir := ArtifactDir(tb); dir != "" {
		return dir, nil
	}
	return os.MkdirTemp(tempDir, "podharness-failed-")
}

// ArtifactDir returns the artifact directory of a test that has one which
// outlives it, else "". It is for those who adapt a T to TB: testing's own
// ArtifactDir is removed with the test unless go test was given -artifacts.
func ArtifactDir(t any) string {
	artifacts, ok := t.(interface{ ArtifactDir() string })
	if !ok {
		return ""
	}
	if _, ok := t.(testing.TB); ok {
		if kept := flag.Lookup("test.artifacts"); kept == nil || kept.Value.String() != "true" {
			return ""
		}
	}
	return artifacts.ArtifactDir()
}
