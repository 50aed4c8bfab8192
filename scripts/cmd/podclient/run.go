package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
		all = append(all, &conformance.Case{Name: c.name, Run: func(idle func()) []conformance.Check { return r.runCase(c, idle) }})
	}
	return r.report.Run(ctx, all)
}

// runCase runs a case -count times, unless an earlier failure has ended the run.
func (r *runner) runCase(c testCase, idle func()) []conformance.Check {
	if r.GivesUp() {
		return []conformance.Check{{Case: c.name, Requirement: "verdict", Level: conformance.Must, Section: find("verdict").section, Result: conformance.Skip, Why: conformance.NotRun}}
	}
	checks := r.Repeat(func(int) ([]conformance.Check, bool) {
		checks := r.try(c, idle)
		if c.random != nil {
			checks = r.minimize(c, checks)
		}
		return checks, true
	})
	r.Note(&r.Flags, checks)
	return checks
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
	if c.real != nil {
		return r.tryReal(c)
	}
	for {
		if checks, again := r.tryOnce(&c, idle); !again {
			return checks
		}
	}
}

// tryOnce also reports whether the case is to be tried again, after changes.
func (r *runner) tryOnce(c *testCase, idle func()) (checks []conformance.Check, again bool) {
	tb := &caseTB{name: c.name, flags: &r.Flags}
	defer tb.finish()
	s, err := r.prepare(tb, *c)
	if err == nil && c.second {
		err = s.first()
	}
	if err == nil {
		err = s.start()
	}
	if err != nil {
		return r.trouble(s, err), false
	}
	if c.waits() || c.rests() {
		go func() { defer idle(); s.await(func(seen fakepod.Trace) bool { return len(seen.Steps) > 0 }) }()
	}
	if c.signal != 0 {
		go func() { defer idle(); s.interrupt() }()
	}
	defer time.AfterFunc(prompt, idle).Stop() // one that hangs must not hold up the others
	s.wait()
	idle()
	if err := s.notStarted(); err != nil {
		return r.trouble(s, err), false
	}
	checks = s.judge()
	again = s.again(c, checks)
	if !again {
		tb.keepIf(checks)
	}
	s.end()
	return checks, again
}

// trouble returns the check of a case that could not be tried. A client that cannot be
// started ends the sweep.
func (r *runner) trouble(s *sweepCase, err error) []conformance.Check {
	switch {
	case errors.As(err, new(conformance.UsageError)):
		r.abort(err)
		return nil
	case errors.Is(err, errNoFirst):
		return []conformance.Check{s.check("verdict", s.unseen("%v", err))}
	}
	return []conformance.Check{s.kitTrouble(err.Error())}
}

// again changes a case if what was found may have another reason than a fault of the client.
func (s *sweepCase) again(c *testCase, checks []conformance.Check) bool {
	found := firstFinding(checks)
	late := s.late || found == "prompt" || (found == "verdict" || found == "dash-name") && s.timedOut()
	switch {
	case late && !c.metered: // it may have had no core
		c.metered = true
	case found == "dash-name" && s.seen.Args == nil && !late && !c.dashes: // it may have taken the name for a flag
		c.dashes = true
	default:
		return false
	}
	return true
}

// sweepCase is a case on its way: the client and its pod.
type sweepCase struct {
	testCase
	tb       *caseTB
	settings settings
	config   harness.ClientConfig
	runtime  string // directory
	podDir   string
	client   *harness.Client
	meter    *meter // nil = none is taken
	begun    time.Time
	trace    string
	longest  time.Duration // until the client is killed

	clientBegun int64         // in ns of CLOCK_MONOTONIC, as the next ones
	signalled   atomic.Int64  // when the client was sent a signal; 0 = it was not
	ended       int64         // when the client had, or had said that the pod is ready
	took        time.Duration // the client
	said        bool          // -ready has matched
	late        bool          // the client had to be killed
	output      string        // all that the client has said
	seen        fakepod.Trace // what the pod has noted
	pid         int           // of the pod; 0 = it has not begun
}

// root returns the directory of the sandbox.
func (s *sweepCase) root() string { return filepath.Dir(s.runtime) }

// prepare makes what a case needs, and starts nothing.
func (r *runner) prepare(tb *caseTB, c testCase) (*sweepCase, error) {
	s := &sweepCase{testCase: c, tb: tb, settings: r.settings, longest: r.timeout + 5*time.Second, begun: time.Now()}
	dir, err := harness.TempDir()
	if err != nil {
		return s, err
	}
	tb.Cleanup(func() { safefile.RemoveAll(dir) })
	tb.scrap, s.trace = dir, filepath.Join(dir, "trace")
	s.runtime = harness.RuntimeDir(tb)
	s.podDir = filepath.Join(s.runtime, s.pod)
	if s.dir != "" {
		s.podDir = filepath.Join(s.root(), s.dir, s.pod)
	}
	if err := os.WriteFile(s.trace, nil, 0o600); err != nil {
		return s, err
	}
	if c.log != "" {
		dir := filepath.Join(s.runtime, c.pod)
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "stderr.log"), []byte(c.log), 0o644)); err != nil {
			return s, err
		}
	}
	return s, s.configure()
}

// configure says how the client is started.
func (s *sweepCase) configure() error {
	inRoot := func(text string) string { return strings.ReplaceAll(text, "{root}", s.root()) }
	env := slices.Clone(s.settings.Env)
	for _, entry := range s.env {
		env = append(env, inRoot(entry))
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	at := s.at
	at.Command, at.Failed, at.Environ = inRoot(at.Command), filepath.Join(s.tb.scrap, "failed"), filepath.Join(s.tb.scrap, "environ")
	s.config = harness.ClientConfig{Dir: cwd, Env: env, TTY: s.tty, Pod: s.command()}
	s.config.Program, s.config.Args = at.launch(s.words())
	return nil
}

// words is the client's command line.
func (s *sweepCase) words() []string {
	words := slices.Clone(s.settings.client)
	for i := len(words) - 1; i > 0; i-- {
		if s.dashes && words[i] == "{name}" {
			words = slices.Insert(words, i, "--")
			i++
		}
		words[i] = strings.ReplaceAll(words[i], "{name}", s.pod)
	}
	return words
}

// command is the pod that the client starts.
func (s *sweepCase) command() spawn.Command {
	if s.real != nil {
		return s.real.command(s.settings.pod, s.trace)
	}
	if slices.ContainsFunc(s.about, func(id string) bool { return id == "inherits" || id == "signals" }) {
		program, args := fakepod.Traced(s.program, s.trace)
		return spawn.Command{Program: program, PrefixArgs: args}
	}
	program, args := fakepod.Command(s.program) // the same, without a shell that looks at more
	return spawn.Command{Program: program, PrefixArgs: slices.Insert(args, 1, "-trace", s.trace)}
}

// first has the client start a pod that answers when it is started again.
func (s *sweepCase) first() error {
	if err := s.start(); err != nil {
		return err
	}
	s.wait()
	if err := s.notStarted(); err != nil {
		return err
	}
	if s.readTrace(); !s.succeeded() || s.pid == 0 {
		return errNoFirst
	}
	s.said, s.late = false, false
	return nil
}

var errNoFirst = errors.New("there is no pod of the name to begin with, which the case ready judges")

func (s *sweepCase) start() error {
	cfg := s.config
	if !s.tty {
		stdin, err := os.Create(filepath.Join(s.tb.scrap, "stdin")) // empty, and not the null device
		if err != nil {
			return err
		}
		defer stdin.Close()
		cfg.Stdin = stdin
	}
	s.begun, s.clientBegun = time.Now(), monotonic()
	var err error
	if s.client, err = harness.TryStartClient(s.tb, cfg); err != nil {
		return fmt.Errorf("start client %s: %w", s.settings.client[0], cmp.Or(errors.Unwrap(err), err)) // not the launcher
	}
	if s.metered {
		s.meter = watch(s.client.PID)
	}
	return nil
}

// notStarted returns why the client could not be started; nil = it was.
func (s *sweepCase) notStarted() error {
	why, err := os.ReadFile(filepath.Join(s.tb.scrap, "failed"))
	if err != nil {
		return nil
	}
	if lack.Match(bytes.ToLower(why)) {
		return fmt.Errorf("start client %s: %s", s.settings.client[0], why)
	}
	return conformance.Usagef("start client %s: %s", s.settings.client[0], why)
}

// wait waits until the client has ended, or has said that the pod is ready. It ends one
// that goes on.
func (s *sweepCase) wait() {
	var err error
	if s.settings.ready != "" {
		_, err = s.client.TryWaitOutput(s.settings.ready, s.longest)
		s.said = err == nil
	} else {
		_, err = s.client.TryWait(s.longest)
	}
	s.ended, s.took = monotonic(), time.Since(s.begun)
	s.meter.end()
	s.late = err != nil && s.client.State() == nil
	if s.said && s.client.State() == nil {
		// As a service manager does, or a terminal that is closed.
		_ = syscall.Kill(-s.client.PID, map[bool]syscall.Signal{true: syscall.SIGHUP, false: syscall.SIGTERM}[s.tty])
		_, _ = s.client.TryWait(prompt)
	}
	_ = s.client.Kill()
}

// await waits until the pod has noted something, and reports whether it has before the
// client ended.
func (s *sweepCase) await(has func(seen fakepod.Trace) bool) bool {
	done, cancel := context.WithTimeout(context.Background(), s.longest)
	defer cancel()
	came := make(chan struct{})
	look := sync.OnceFunc(func() { close(came) })
	log, err := podlog.Open(s.trace, func(int64) {
		if seen, _ := fakepod.ReadTrace(s.trace); has(seen) {
			look()
		}
	})
	if err != nil {
		return false
	}
	defer log.Close()
	go func() {
		select {
		case <-s.client.Done():
		case <-came:
		case <-done.Done():
		}
		cancel()
	}()
	_ = log.Follow(done, nil)
	select {
	case <-came:
		return s.client.State() == nil
	default:
		return false
	}
}

// underWay is how long a start has gone on at the least when it is interrupted: the client
// knows its pod then.
const underWay = 250 * time.Millisecond

// interrupt sends the client a signal, and all of its process group, as a terminal does.
func (s *sweepCase) interrupt() {
	steps, err := fakepod.Parse(s.program)
	last := func(b fakepod.Began) bool { return b.Step == len(steps)-1 }
	if err != nil || !s.await(func(seen fakepod.Trace) bool { return slices.ContainsFunc(seen.Steps, last) }) {
		return
	}
	select {
	case <-s.client.Done():
	case <-time.After(underWay):
		s.signalled.Store(monotonic())
		_ = syscall.Kill(-s.client.PID, s.signal)
	}
}

// end ends the pod at once: how it would stop is not what is asked.
func (s *sweepCase) end() {
	if p, err := harness.TryAdopt(s.tb, s.pod, 0); err == nil {
		_ = p.Kill()
	}
}

// readTrace reads what the pod has noted.
func (s *sweepCase) readTrace() {
	s.seen, _ = fakepod.ReadTrace(s.trace)
	if len(s.seen.Steps) > 0 {
		s.pid = s.seen.Steps[0].Process
	}
}

func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return now.Nano()
}
