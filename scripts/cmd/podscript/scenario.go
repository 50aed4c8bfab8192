package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scenario is one run of a case as testscript's T. As with testing.T, what ends it
// ends its goroutine.
type scenario struct {
	*runner
	*testCase
	place    string // of its files, below the directories of all
	work     string // directory that it works in
	evidence string // directory of what was kept; "" = nothing
	pods     string // directory of its pods

	mu              sync.Mutex
	log             []string // the script's own log is the last
	said            string   // why it is skipped, or what was found beside the script
	failed, skipped bool
}

func newScenario(r *runner, c *testCase, run int) *scenario {
	place := c.ID
	if r.count > 1 {
		place = filepath.Join(place, fmt.Sprint(run))
	}
	return &scenario{runner: r, testCase: c, place: place, work: filepath.Join(r.work, place)}
}

// run returns when the scenario has ended.
func (s *scenario) run() {
	params := s.params
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

// How much of a script's log is told of a finding: its end, and the begin of lines.
const (
	mostLines   = 12
	longestLine = 200
)

// explained matches the message of a command whose reason is in what was printed.
var explained = regexp.MustCompile(`found in (stdout|stderr)$| failed$`)

// finding returns what was found, what should have been, and the commands that led
// there, with what they printed.
func (s *scenario) finding() (why, log string) {
	lines := strings.Split(s.clean(s.said), "\n") // what the end of the scenario has found
	found := lines[0]
	script := strings.Split(s.clean(s.log[len(s.log)-1]), "\n")
	if i := slices.IndexFunc(script, func(line string) bool { return strings.HasPrefix(line, "FAIL: ") }); i >= 0 {
		lines = script[:i+1]
		_, found, _ = strings.Cut(strings.TrimPrefix(lines[i], "FAIL: "), ": ")
		if m := explained.FindStringSubmatch(found); m != nil {
			found = explain(found, m[1], lines)
		}
	}
	if i := slices.Index(lines, found); strings.HasSuffix(found, ":") && i >= 0 && i+1 < len(lines) {
		found += " " + strings.TrimSpace(lines[i+1])
		lines = slices.Delete(lines, i, i+2)
	}
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return line == "" || line == found || line[0] == '#' || strings.HasPrefix(line, "[std") || strings.HasPrefix(line, "\tpod: ") || strings.HasPrefix(line, "\tnote: Config.")
	})
	if len(lines) > mostLines {
		lines = append([]string{"…"}, lines[len(lines)-mostLines:]...)
	}
	lines = append(lines, s.lastWords(found+strings.Join(lines, "\n"))...)
	for i, line := range lines {
		lines[i] = fmt.Sprintf("%.*s", longestLine, line)
	}
	why = found
	if requirement := s.Requirement.String(); requirement != "" {
		why += "\n" + requirement
	}
	return why, spaced(strings.Join(lines, "\n"))
}

// lastWords returns what each pod has written last, unless it has been told.
func (s *scenario) lastWords(told string) (words []string) {
	for _, entry := range s.log {
		pod, tail, ok := strings.Cut(s.clean(entry), "\n\tlast lines:\n")
		last := strings.TrimSpace(tail[strings.LastIndexByte(tail, '\n')+1:])
		if name, _, _ := strings.Cut(pod, "\n"); ok && !strings.Contains(told, last) && !strings.HasPrefix(last, "YOI-READY") {
			words = append(words, strings.TrimPrefix(name, "harness: ")+" wrote last: "+last)
		}
	}
	return words
}

// explain tells what was printed last: by a verb to its stderr, or where nothing
// matched.
func explain(message, where string, lines []string) string {
	for i := len(lines) - 2; i >= 0; i-- {
		switch {
		case where == "" && lines[i] == "[stderr]":
			return lines[i+1]
		case where != "" && lines[i] == "["+where+"]":
			return message + ": " + lines[i+1]
		}
	}
	return message
}

// whole returns all that was logged.
func (s *scenario) whole() string { return spaced(s.clean(strings.Join(s.log, "\n"))) }

// spaced keeps tabs from being escaped.
func spaced(text string) string { return strings.ReplaceAll(text, "\t", "  ") }

// clean leaves out what will be gone when somebody reads it.
func (s *scenario) clean(text string) string {
	if s.pods != "" {
		text = strings.ReplaceAll(text, s.pods, "$RUNTIME_DIR")
		text = strings.ReplaceAll(text, filepath.Dir(s.pods), "$RUNTIME_DIR/..")
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "WORK=") || strings.HasPrefix(line, "\tlog: $RUNTIME_DIR") || strings.Contains(line, s.scrap())
	})
	return strings.ReplaceAll(strings.Join(lines, "\n"), s.dir+string(filepath.Separator), "")
}

// ArtifactDir is where the harness puts the evidence: without -o it ends with the
// scenario.
func (s *scenario) ArtifactDir() string {
	dir := s.scrap()
	if s.Evidence != "" && !s.foreign {
		dir = filepath.Join(s.Evidence, s.place)
		s.evidence = dir
	}
	_ = os.MkdirAll(dir, 0o700) // what cannot be written there is told
	return dir
}

func (s *scenario) scrap() string { return filepath.Join(s.work, "evidence") }

// Run runs the script itself, the only one.
func (s *scenario) Run(_ string, f func(testscript.T)) { f(s) }

func (s *scenario) Log(args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (s *scenario) fail(words string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
	if s.said == "" {
		s.said = words
	}
}

func (s *scenario) Errorf(format string, args ...any) {
	words := fmt.Sprintf(format, args...)
	s.fail(words)
	s.Log(words)
}

func (s *scenario) FailNow() {
	s.fail("")
	runtime.Goexit()
}

func (s *scenario) Fatal(args ...any) {
	s.Errorf("%s", fmt.Sprint(args...))
	runtime.Goexit()
}

func (s *scenario) Skip(args ...any) {
	s.mu.Lock()
	s.skipped, s.said = true, fmt.Sprint(args...)
	s.mu.Unlock()
	runtime.Goexit()
}

func (s *scenario) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *scenario) Parallel()                   {} // the runner's business
func (s *scenario) Verbose() bool               { return s.settings.Verbose }
func (s *scenario) Deadline() (time.Time, bool) { return s.params.Deadline, true }
