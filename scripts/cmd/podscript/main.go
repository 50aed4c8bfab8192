// Podscript runs scenarios against a pod, by the real handshake: the portable
// ones, which must hold for any pod, or those of the files and directories that
// are named.
//
//	podscript                                      # the built-in fake pod
//	podscript -pod /usr/local/bin/agent -pod-arg pod
//	podscript -pod ./agent my-scenarios/
//
// It prints a line for each scenario with its time, and a summary. What a
// scenario that failed did is shown below its line. The exit status is 0 if all
// passed, 1 if one failed, 2 for wrong usage, 130 if it was interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"github.com/rogpeppe/go-internal/testscript"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage: podscript [flags] [FILE.txtar | DIRECTORY]...

Runs the portable scenarios, or those that are named, against a pod: the
built-in fake pod without -pod.

`

func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	fail := func(status int, err error) int {
		fmt.Fprintf(stderr, "podscript: %v\n", err)
		return status
	}
	s, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return fail(2, fmt.Errorf("%w (podscript -help tells the usage)", err))
	}
	// What runs at the end of this process ends with it, and so does dir.
	dir, err := harness.TempDir()
	if err != nil {
		return fail(1, fmt.Errorf("%w (TMPDIR names where)", err))
	}
	params, err := s.params(dir)
	if err != nil {
		return fail(2, err)
	}
	r := &runner{out: stdout, verbose: s.verbose, deadline: params.Deadline, dir: dir, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if err := r.runAll(ctx, params); err != nil {
		if ctx.Err() != nil {
			return fail(130, err)
		}
		return fail(1, err)
	}
	took := time.Since(start).Round(time.Millisecond)
	_, err = fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped in %v\n", r.passed, r.failed, r.skipped, took)
	if err != nil || r.failed > 0 {
		return 1
	}
	return 0
}

// settings are what the command line says.
type settings struct {
	options scripts.Options
	only    *regexp.Regexp
	verbose bool
	timeout time.Duration
	paths   []string
}

// parse returns the settings; usage goes to stderr if it is asked for.
func parse(args []string, stderr io.Writer) (settings, error) {
	s := settings{only: regexp.MustCompile("")}
	flags := flag.NewFlagSet("podscript", flag.ContinueOnError)
	s.options.Command.Flags(flags)
	flags.Func("env", "a variable `NAME=VALUE` for the pods' environment, or a NAME to pass on; repeatable", func(entry string) error {
		s.options.Env = append(s.options.Env, entry)
		return nil
	})
	flags.Func("run", "run only the scenarios whose name matches the `REGEXP`", func(expr string) (err error) {
		s.only, err = regexp.Compile(expr)
		return err
	})
	flags.BoolVar(&s.verbose, "v", false, "show what every scenario does")
	flags.DurationVar(&s.timeout, "timeout", 5*time.Minute, "the `DURATION` that all scenarios may take")
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usage)
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return s, err
	}
	s.paths = flags.Args()
	command := &s.options.Command
	switch {
	case s.timeout <= 0:
		return s, fmt.Errorf("-timeout %v leaves no time", s.timeout)
	case len(command.PrefixArgs) > 0 && command.Program == "":
		return s, errors.New("-pod-arg goes with -pod")
	case strings.Contains(command.Program, "/"):
		var err error
		command.Program, err = filepath.Abs(command.Program)
		return s, err
	}
	return s, nil
}

// params returns what testscript is to run, with all that it makes below dir.
func (s settings) params(dir string) (testscript.Params, error) {
	params := scripts.Params(s.options)
	params.Deadline = time.Now().Add(s.timeout)
	params.WorkdirRoot = filepath.Join(dir, "work")
	files, err := scenarioFiles(s.paths, dir)
	if err != nil {
		return params, err
	}
	for _, file := range files {
		if s.only.MatchString(scenarioName(file)) {
			params.Files = append(params.Files, file)
		}
	}
	if len(params.Files) == 0 {
		return params, fmt.Errorf("no scenario matches -run %q", s.only)
	}
	return params, os.Mkdir(params.WorkdirRoot, 0o700)
}

// scenarioFiles returns the scenarios in files and directories; for none, the
// portable ones, written to dir.
func scenarioFiles(paths []string, dir string) ([]string, error) {
	if len(paths) == 0 {
		if err := os.CopyFS(dir, scripts.Scenarios()); err != nil {
			return nil, err
		}
		paths = []string{dir}
	}
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		names, err := fs.Glob(os.DirFS(path), "*.txtar")
		if err == nil && len(names) == 0 {
			err = fmt.Errorf("no *.txtar file in %s", path)
		}
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			files = append(files, filepath.Join(path, name))
		}
	}
	return files, nil
}

func scenarioName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".txtar") }

// lateness is how long after the deadline the scenarios are given up: they end
// before it but for a command whose children hold its output.
const lateness = 5 * time.Second

// runner runs scenarios side by side and prints how each ended.
type runner struct {
	out      io.Writer
	verbose  bool
	deadline time.Time
	dir      string // of the portable scenarios, which messages leave out
	slots    chan struct{}

	mu                      sync.Mutex // of all below, and of out
	passed, failed, skipped int
	now                     []string // the scenarios that run
	running                 sync.WaitGroup
}

// runAll returns when all scenarios have ended; an error names those that have
// not.
func (r *runner) runAll(ctx context.Context, params testscript.Params) error {
	root := &scenario{runner: r, name: "podscript"}
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		testscript.RunT(root, params)
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.running.Wait()
	}()
	why := "interrupted while these scenarios ran"
	select {
	case <-done:
		if root.Failed() { // before there was a scenario
			r.ended(root, 0)
		}
		return nil
	case <-time.After(time.Until(r.deadline) + lateness):
		why = "these scenarios did not end by the deadline"
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Errorf("%s: %s", why, strings.Join(r.now, ", "))
}

// scenario is one script as testscript's T. As with testing.T, what ends it
// ends its goroutine.
type scenario struct {
	*runner
	name string

	mu              sync.Mutex
	log             strings.Builder
	failed, skipped bool
}

func (s *scenario) Run(name string, f func(testscript.T)) {
	sub := &scenario{runner: s.runner, name: name}
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		s.runner.mu.Lock()
		s.now = append(s.now, name)
		s.runner.mu.Unlock()
		start := time.Now()
		defer func() { s.ended(sub, time.Since(start)) }()
		f(sub)
	}()
}

func (r *runner) ended(s *scenario, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	word, count := "PASS", &r.passed
	switch {
	case s.failed:
		word, count = "FAIL", &r.failed
	case s.skipped:
		word, count = "SKIP", &r.skipped
	}
	*count++
	r.now = slices.DeleteFunc(r.now, func(name string) bool { return name == s.name })
	fmt.Fprintf(r.out, "%s  %-28s %6.3fs\n", word, s.name, took.Seconds())
	if !s.failed && !s.skipped && !s.verbose {
		return
	}
	// What lies in dir is gone when somebody reads this.
	text := strings.ReplaceAll(strings.TrimSpace(s.log.String()), r.dir+string(filepath.Separator), "")
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "WORK=") {
			fmt.Fprintf(r.out, "      %s\n", line)
		}
	}
}

func (s *scenario) Log(args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(&s.log, args...)
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
	s.Log(args...)
	s.mu.Lock()
	s.skipped = true
	s.mu.Unlock()
	runtime.Goexit()
}

func (s *scenario) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *scenario) Parallel()                   {} // Run is
func (s *scenario) Verbose() bool               { return s.verbose }
func (s *scenario) Deadline() (time.Time, bool) { return s.deadline, true }
