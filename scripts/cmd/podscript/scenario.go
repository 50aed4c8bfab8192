package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"example.com/podharness/spawn"
	"github.com/rogpeppe/go-internal/testscript"
)

// scenario is one run of a case as testscript's T. As with testing.T, what ends it
// ends its goroutine.
type scenario struct {
	*runner
	*testCase
	idle     func()
	part     string // of -count; "" = there is one run
	work     string // directory that it works in
	evidence string // directory of what was kept; "" = nothing
	pods     string // directory of its pods
	struck   atomic.Bool

	mu              sync.Mutex // guards all below
	log             []string   // the script's own log is the last
	why             string     // it is skipped
	failed, skipped bool
	failure         scripts.Failure
}

func newScenario(r *runner, c *testCase, run int, idle func()) *scenario {
	part := ""
	if r.Count > 1 {
		part = fmt.Sprint(run)
	}
	return &scenario{runner: r, testCase: c, idle: idle, part: part, work: filepath.Join(r.work, c.ID, part)}
}

// run returns when the scenario has ended.
func (s *scenario) run() {
	options := s.options
	options.Report = func(f scripts.Failure) { s.failure = f }
	params := scripts.Params(options)
	params.UpdateScripts, params.Deadline = s.update, s.deadline
	params.Files, params.WorkdirRoot = []string{s.file}, s.work
	setup := params.Setup
	params.Setup = func(env *testscript.Env) error {
		err := setup(env)
		s.pods = env.Getenv("RUNTIME_DIR")
		return err
	}
	_ = os.MkdirAll(s.work, 0o700) // without it there is an error that says more
	done := make(chan struct{})
	go func() {
		defer close(done)
		testscript.RunT(s, params)
	}()
	<-done
}

// How much of a script's log is shown with a finding: its end, and the begin of lines.
const (
	mostLines   = 12
	longestLine = 200
)

// finding returns what failed the scenario, and the commands that led there with what
// they printed and what the pods wrote last.
func (s *scenario) finding() (found, log string) {
	found, lines := s.ownFinding()
	if err := s.failure.Err; err != nil {
		words, notes := s.words(err)
		found, lines = words, append(lines, notes...)
	}
	if len(lines) > mostLines {
		lines = append([]string{"…"}, lines[len(lines)-mostLines:]...)
	}
	shown := found + strings.Join(lines, "\n")
	for _, pod := range slices.Sorted(maps.Keys(s.failure.LastLines)) {
		if last := s.failure.LastLines[pod]; !strings.Contains(shown, last) {
			lines = append(lines, fmt.Sprintf("pod %s wrote last: %s", pod, last))
		}
	}
	for i, line := range lines {
		lines[i] = fmt.Sprintf("%.*s", longestLine, line)
	}
	return found, spaced(strings.Join(lines, "\n"))
}

// words returns the first line of an error, and the others. Where the pod of a failed
// start and its log were does not matter any more.
func (s *scenario) words(err error) (found string, notes []string) {
	var start *spawn.Error
	if errors.As(err, &start) {
		brief := *start
		brief.Pod, brief.LogPath = "", ""
		err = &brief
	}
	notes = strings.Split(s.clean(err.Error()), "\n")
	if found = notes[0]; strings.HasSuffix(found, ":") && len(notes) > 1 { // a list
		return found + " " + strings.TrimSpace(notes[1]), nil
	}
	return found, notes[1:]
}

// fix returns what to do about what was seen, or else what the requirement has.
func (s *scenario) fix() string {
	var start *spawn.Error
	var pod *harness.Error
	switch err := s.failure.Err; {
	case errors.As(err, &start) && errors.Is(start, spawn.ErrExited) && s.ID == "starts":
		return "its last words say why it ended; -workspace DIR and -home DIR bring the files that it needs, -env its variables, -pod-arg its first arguments"
	case errors.As(err, &start) && errors.Is(start, spawn.ErrLaunch):
		return "-pod names a program that this machine can run: a script needs a first line such as #!/bin/sh"
	case errors.As(err, &pod) && pod.Ended == "exit status 130":
		return "a JVM ends with status 130 after its shutdown hooks: let the last one call Runtime.getRuntime().halt(0)"
	case errors.As(err, &pod) && strings.HasPrefix(pod.Ended, "exit status "):
		return "its log says why it ended with another status than 0"
	}
	return s.Fix
}

// key is equal for the same finding in several scenarios.
func (s *scenario) key(found string) string {
	var start *spawn.Error
	if errors.As(s.failure.Err, &start) {
		found = fmt.Sprint(start.Err, start.Unfinished)
		if n := len(start.Tail); n > 0 {
			found += start.Tail[n-1]
		}
	}
	return s.failure.Verb + " " + found
}

// ownFinding reads the log of testscript: it is the only place that has what a verb of
// testscript itself, such as stdout, exists or exec, failed of. The message is from the
// line "FAIL: FILE:LINE: MESSAGE"; "found in stdout" is completed by the line that
// follows the last "[stdout]". It returns the lines up to there, without comments and
// the headings of outputs; none if the script has not failed by itself.
func (s *scenario) ownFinding() (message string, lines []string) {
	const fail = "FAIL: "
	script := strings.Split(s.clean(s.log[len(s.log)-1]), "\n")
	end := slices.IndexFunc(script, func(line string) bool { return strings.HasPrefix(line, fail+s.clean(s.file)+":") })
	if end < 0 {
		return script[0], nil // that it could not begin
	}
	_, message, _ = strings.Cut(strings.TrimPrefix(script[end], fail+s.clean(s.file)+":"), ": ")
	printed := map[string]string{} // the first line of the last output
	for i, line := range script[:end] {
		switch {
		case line == "[stdout]" || line == "[stderr]":
			printed[" found in "+line[1:len(line)-1]] = script[i+1]
		case line != "" && line[0] != '#':
			lines = append(lines, line)
		}
	}
	// The log has what testscript's own verbs print.
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "> exec ") }) {
		for where, text := range map[string]string{" found in stdout": s.failure.Stdout, " found in stderr": s.failure.Stderr} {
			if first, _, _ := strings.Cut(s.clean(text), "\n"); first != "" && printed[where] == "" {
				printed[where] = first
			}
		}
	}
	for where, line := range printed {
		if strings.HasSuffix(message, where) {
			message += ": " + line
		}
	}
	return message, append(lines, script[end])
}

// whole returns all that was logged.
func (s *scenario) whole() string { return spaced(s.clean(strings.Join(s.log, "\n"))) }

// spaced replaces tabs, which stand at different places in a line that is indented.
func spaced(text string) string { return strings.ReplaceAll(text, "\t", "  ") }

// clean leaves out what will be gone when somebody reads it.
func (s *scenario) clean(text string) string {
	if s.pods != "" {
		text = strings.ReplaceAll(text, s.pods, "$RUNTIME_DIR")
		text = strings.ReplaceAll(text, filepath.Dir(s.pods), "$RUNTIME_DIR/..")
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if begin := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "WORK=") }); begin >= 0 {
		n := max(0, slices.Index(lines[begin:], "")) // with -v, testscript's own environment
		lines = slices.Delete(lines, begin, begin+n+1)
	}
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "\tlog: $RUNTIME_DIR") || strings.Contains(line, s.scrap())
	})
	return strings.ReplaceAll(strings.Join(lines, "\n"), s.dir+string(filepath.Separator), "")
}

// ArtifactDir is where the harness puts the evidence: without -o it ends with the
// scenario.
func (s *scenario) ArtifactDir() string {
	if s.Evidence != "" && !s.Foreign {
		s.evidence = s.EvidenceDir(s.ID, s.part)
		return s.evidence
	}
	_ = os.MkdirAll(s.scrap(), 0o700) // what cannot be written there is told
	return s.scrap()
}

func (s *scenario) scrap() string { return filepath.Join(s.work, "evidence") }

// Run runs the script itself, the only one.
func (s *scenario) Run(_ string, f func(testscript.T)) { f(s) }

func (s *scenario) Log(args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (s *scenario) FailNow() {
	s.mu.Lock()
	s.failed = true
	s.mu.Unlock()
	runtime.Goexit()
}

func (s *scenario) Fatal(args ...any) {
	s.Log(args...)
	s.FailNow()
}

func (s *scenario) Skip(args ...any) {
	s.mu.Lock()
	s.skipped, s.why = true, fmt.Sprint(args...)
	s.mu.Unlock()
	runtime.Goexit()
}

func (s *scenario) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Struck is told by the harness, and by a client's verb, that a fault has struck a call.
func (s *scenario) Struck() { s.struck.Store(true) }

func (s *scenario) Parallel()                   {} // the runner's business
func (s *scenario) Idle()                       { s.idle() }
func (s *scenario) Verbose() bool               { return s.settings.Verbose }
func (s *scenario) Deadline() (time.Time, bool) { return s.deadline, true }
