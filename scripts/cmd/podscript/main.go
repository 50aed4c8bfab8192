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
// passed, 1 if one failed, 2 for wrong usage.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
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
	timeout := flags.Duration("timeout", 5*time.Minute, "how `long` all scenarios may take")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
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
	params.Deadline = time.Now().Add(*timeout)
	r := &runner{out: stdout, verbose: *verbose, deadline: params.Deadline, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	start := time.Now()
	r.runAll(params)
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
		found, err := fs.Glob(os.DirFS(arg), "*.txtar")
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("no *.txtar file in %s", arg)
		}
		for _, name := range found {
			files = append(files, filepath.Join(arg, name))
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
	running                 sync.WaitGroup
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
