package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/harness"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
	"golang.org/x/sys/unix"
)

// runner runs cases side by side.
type runner struct {
	settings
	report *conformance.Report
	abort  context.CancelCauseFunc
}

// runAll runs the cases that wait first: beside them there is time for the others.
func (r *runner) runAll(cases []testCase) error {
	ctx, abort := context.WithCancelCause(context.Background())
	defer abort(nil)
	r.abort = abort
	slices.SortStableFunc(cases, func(a, b testCase) int {
		return map[bool]int{true: 1}[b.waits()] - map[bool]int{true: 1}[a.waits()]
	})
	var all []*conformance.Case
	for _, c := range cases {
		all = append(all, &conformance.Case{Name: c.name, Run: func(idle func()) []conformance.Check {
			checks := r.try(c, idle)
			if c.random != nil {
				checks = r.minimize(c, checks)
			}
			return checks
		}})
	}
	return r.report.Run(ctx, all)
}

// minimize leaves steps out of a program as long as the same requirement is not met,
// for whatever reason.
func (r *runner) minimize(c testCase, checks []conformance.Check) []conformance.Check {
	first := firstFinding(checks)
	for again := first != ""; again; {
		again = false
		for _, d := range r.smaller(c) {
			if found := r.try(d, func() {}); firstFinding(found) == first {
				c, checks, again = d, found, true
				break
			}
		}
	}
	for i := range checks {
		if checks[i].Result != conformance.Pass {
			checks[i].Why += "\nprogram: " + c.program
		}
	}
	return checks
}

// firstFinding returns the first requirement that was not met; "" = none.
func firstFinding(checks []conformance.Check) string {
	if i := slices.IndexFunc(checks, conformance.Check.IsFinding); i >= 0 {
		return checks[i].Requirement
	}
	return ""
}

// try runs the client once in a sandbox of its own. It returns nil if the client cannot
// be started, which ends the sweep. It calls idle when the case only waits, or is judged.
func (r *runner) try(c testCase, idle func()) []conformance.Check {
	tb := &caseTB{name: c.name, flags: &r.Flags}
	defer tb.finish()
	s, err := r.start(tb, c)
	if err != nil {
		r.abort(conformance.UsageError{Err: err})
		return nil
	}
	if c.waits() {
		go s.onLaunch(idle)
	}
	defer time.AfterFunc(prompt, idle).Stop() // one that hangs must not hold up the others
	if _, err := s.client.TryWait(s.longest); err != nil {
		s.late = true
		_ = s.client.Kill()
	}
	s.ended, s.took = monotonic(), time.Since(s.begun)
	checks := s.judge()
	idle()
	tb.failed = firstFinding(checks) != ""
	s.stop()
	return checks
}

// sweepCase is a case on its way: the client and its pod.
type sweepCase struct {
	testCase
	tb      *caseTB
	notMet  func(level string) (result string)
	runtime string // directory
	client  *harness.Client
	timeout time.Duration
	begun   time.Time
	trace   string
	longest time.Duration // until the client is killed
	late    bool          // the client had to be killed
	ended   int64         // when the client had, in ns of CLOCK_MONOTONIC
	took    time.Duration // the client
	output  string        // all that the client has said
	given   []string      // the arguments of the pod, also of one that refuses them; nil = it was not started
	pid     int           // of the pod; 0 = it has not begun
}

// root returns the directory of the sandbox.
func (s *sweepCase) root() string { return filepath.Dir(s.runtime) }

func (r *runner) start(tb *caseTB, c testCase) (*sweepCase, error) {
	dir, err := harness.TempDir()
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { safefile.RemoveAll(dir) })
	tb.scrap = dir
	s := &sweepCase{testCase: c, tb: tb, notMet: r.NotMet, runtime: harness.RuntimeDir(tb), timeout: r.timeout, longest: r.timeout + 5*time.Second, trace: filepath.Join(dir, "trace")}
	if err := os.WriteFile(s.trace, nil, 0o600); err != nil {
		return nil, err
	}
	if c.log != "" {
		dir := filepath.Join(s.runtime, c.pod)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "stderr.log"), []byte(c.log), 0o600)); err != nil {
			return nil, err
		}
	}
	env := append([]string{}, r.Env...)
	for _, entry := range c.env {
		env = append(env, strings.ReplaceAll(entry, "{root}", s.root()))
	}
	words := slices.Clone(r.client)
	for i := range words[1:] {
		words[1+i] = strings.ReplaceAll(words[1+i], "{name}", c.pod)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	stdin, err := os.Create(filepath.Join(dir, "stdin")) // empty, and not the null device
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	program, args := fakepod.Command(c.program)
	pod := spawn.Command{Program: program, PrefixArgs: slices.Insert(args, 1, "-trace", s.trace)}
	s.begun = time.Now()
	s.client, err = harness.TryStartClient(tb, harness.ClientConfig{Program: words[0], Args: words[1:], Dir: cwd, Env: env, Stdin: stdin, Pod: pod})
	return s, err
}

// onLaunch calls idle once the pod has begun, or never will.
func (s *sweepCase) onLaunch(idle func()) {
	defer idle()
	begun, cancel := context.WithTimeout(context.Background(), s.timeout)
	defer cancel()
	log, err := podlog.Open(s.trace, func(size int64) {
		if size > 0 {
			cancel()
		}
	})
	if err != nil {
		return
	}
	defer log.Close()
	go func() {
		select {
		case <-s.client.Done():
			cancel()
		case <-begun.Done():
		}
	}()
	_ = log.Follow(begun, nil)
}

// stop ends the pod at once: how it would stop is not what is asked.
func (s *sweepCase) stop() {
	if p, err := harness.TryAdopt(s.tb, s.pod, 0); err == nil {
		_ = p.Kill()
	}
}

// event is a step of the pod that has begun.
type event struct {
	step int
	at   int64
	pid  int
}

// readTrace reads what the pod has told of itself: its arguments, and its steps.
func (s *sweepCase) readTrace() (events []event) {
	text, _ := os.ReadFile(s.trace)
	for _, line := range strings.Split(string(text), "\n") {
		var e event
		if strings.HasPrefix(line, "[") {
			_ = json.Unmarshal([]byte(line), &s.given)
		}
		if n, _ := fmt.Sscanf(line, "%d %d %d", &e.step, &e.at, &e.pid); n == 3 {
			events = append(events, e)
		}
	}
	return events
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}

// caseTB is a case as the harness's TB. What the harness finds fault with beyond
// the checks is in its evidence.
type caseTB struct {
	name  string
	flags *conformance.Flags
	scrap string // a directory that is removed with the case

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

func (tb *caseTB) Cleanup(f func()) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.cleanups = append(tb.cleanups, f)
}

func (tb *caseTB) finish() {
	for i := len(tb.cleanups) - 1; i >= 0; i-- {
		tb.cleanups[i]()
	}
}

func (tb *caseTB) Failed() bool              { return tb.failed && tb.flags.Evidence != "" }
func (tb *caseTB) Helper()                   {}
func (tb *caseTB) Name() string              { return tb.name }
func (tb *caseTB) Verbose() bool             { return false }
func (tb *caseTB) Errorf(string, ...any)     {}
func (tb *caseTB) Logf(string, ...any)       {}
func (tb *caseTB) Fatalf(f string, a ...any) { panic("podclient: " + fmt.Sprintf(f, a...)) }

// ArtifactDir is where the evidence of the case goes. The harness takes some of a
// client that leaves processes, which may be right.
func (tb *caseTB) ArtifactDir() string {
	if !tb.Failed() {
		return tb.scrap
	}
	return tb.flags.EvidenceDir(tb.name)
}
