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

	"example.com/podharness/scripts"
	"github.com/rogpeppe/go-internal/testscript"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage: podscript [flags] [FILE.txtar | DIRECTORY]...

Runs the portable scenarios, or those that are named, against a pod.

`

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("podscript", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	var options scripts.Options
	flags.StringVar(&options.Command.Program, "pod", "", "the `program` of the pod to test (default: the built-in fake pod)")
	flags.Func("pod-arg", "a prefix `argument` for the program; repeatable", func(arg string) error {
		options.Command.PrefixArgs = append(options.Command.PrefixArgs, arg)
		return nil
	})
	flags.Func("env", "a variable `NAME=VALUE` for the pods' environment, or a NAME to pass on; repeatable", func(entry string) error {
		options.Env = append(options.Env, entry)
		return nil
	})
	only := flags.String("run", "", "run only the scenarios whose name matches the `regexp`")
	verbose := flags.Bool("v", false, "show what every scenario does")
	timeout := flags.Duration("timeout", 5*time.Minute, "the `duration` that all scenarios may take")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if *timeout <= 0 {
		fmt.Fprintf(stderr, "podscript: -timeout %v leaves no time\n", *timeout)
		return 2
	}
	filter, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintf(stderr, "podscript: -run: %v\n", err)
		return 2
	}
	if len(options.Command.PrefixArgs) > 0 && options.Command.Program == "" {
		fmt.Fprintln(stderr, "podscript: -pod-arg goes with -pod")
		return 2
	}
	if strings.Contains(options.Command.Program, "/") {
		if options.Command.Program, err = filepath.Abs(options.Command.Program); err != nil {
			fmt.Fprintf(stderr, "podscript: -pod: %v\n", err)
			return 2
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "podscript")
	if err != nil {
		fmt.Fprintf(stderr, "podscript: %v\n", err)
		return 1
	}
	defer os.RemoveAll(dir)
	files, err := scenarioFiles(flags.Args(), dir)
	if err != nil {
		fmt.Fprintf(stderr, "podscript: %v\n", err)
		return 2
	}
	var chosen []string
	for _, file := range files {
		if filter.MatchString(scenarioName(file)) {
			chosen = append(chosen, file)
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintf(stderr, "podscript: no scenario matches -run %q\n", *only)
		return 2
	}

	params := scripts.Params(options)
	params.Files = chosen
	params.WorkdirRoot = filepath.Join(dir, "work")
	if err := os.Mkdir(params.WorkdirRoot, 0o700); err != nil {
		fmt.Fprintf(stderr, "podscript: %v\n", err)
		return 1
	}
	params.Deadline = time.Now().Add(*timeout)
	r := &runner{out: stdout, verbose: *verbose, deadline: params.Deadline, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	start := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.runAll(params)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		// The pods end with this process: see package harness.
		fmt.Fprintf(stderr, "podscript: interrupted while these scenarios ran: %s\n", strings.Join(r.unfinished(), ", "))
		return 130
	}
	took := time.Since(start).Round(time.Millisecond)
	_, err = fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped in %v\n", r.passed, r.failed, r.skipped, took)
	if err != nil || r.failed > 0 {
		return 1
	}
	return 0
}

// scenarioFiles returns the scenarios in files and directories; for none, the
// portable ones, written to dir.
func scenarioFiles(args []string, dir string) ([]string, error) {
	if len(args) == 0 {
		if err := os.CopyFS(dir, scripts.Scenarios()); err != nil {
			return nil, err
		}
		args = []string{dir}
	}
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		entries, err := os.ReadDir(arg)
		if err != nil {
			return nil, err
		}
		before := len(files)
		for _, entry := range entries {
			if strings.HasSuffix(entry.Name(), ".txtar") {
				files = append(files, filepath.Join(arg, entry.Name()))
			}
		}
		if len(files) == before {
			return nil, fmt.Errorf("no *.txtar file in %s", arg)
		}
	}
	return files, nil
}

func scenarioName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".txtar") }

// runner runs scenarios side by side and prints how each ended.
type runner struct {
	out      io.Writer
	verbose  bool
	deadline time.Time
	slots    chan struct{}

	mu                      sync.Mutex // of all below, and of out
	passed, failed, skipped int
	now                     []string // the scenarios that run
	running                 sync.WaitGroup
}

func (r *runner) unfinished() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.now)
}

// runAll returns when all scenarios have ended.
func (r *runner) runAll(params testscript.Params) {
	root := &scenario{runner: r}
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		testscript.RunT(root, params)
	}()
	r.running.Wait()
	if root.failed {
		r.failed++
		fmt.Fprint(r.out, root.log.String())
	}
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
	if s.failed || s.skipped || s.verbose {
		for _, line := range strings.Split(strings.TrimSpace(s.log.String()), "\n") {
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
