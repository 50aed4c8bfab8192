// Podclient tells whether a client keeps its half of the handshake: whether a
// program that starts pods concludes the right thing of every pod.
//
//	podclient -- my-client start {name}
//	podclient -timeout 3s -json report.json -- ./podspawn -timeout 3s {name}
//
// The client is run once for each case, here but in a sandbox of its own, with {name}
// replaced. It must start the pod of that name by YOI_POD_RUNTIME_COMMAND, end with
// status 0 when the pod is ready, and with another status and a message on stdout
// or stderr when it is not. The pods are fake ones, which act out every way in which
// a start can go.
//
// A line tells of each case; below it stands what was found: what the client did,
// what it should have done, and the section of the contract that says so. Musts are
// verdict, prompt, clean, independent and arguments; shoulds are reason and
// terminal. The exit status is 0 if nothing failed, 1 if a must did (with -strict a
// should, too), 2 for wrong usage or a client that cannot be started, 130 if it was
// interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/scripts"
	"golang.org/x/sys/unix"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage: podclient [flags] [--] CLIENT [ARG]...

Runs CLIENT against pods that become ready, or do not, in every way. {name} in the
arguments is the name of the pod that it must start.

`

// settings are what the command line says.
type settings struct {
	client          []string
	env             []string
	timeout         time.Duration
	only, skip      *regexp.Regexp
	list            bool
	strict, verbose bool
	parallel        int
	json, junit     string
	evidence        string
	random          int
	seed            uint64
}

func run(args []string, stdout, stderr io.Writer) int {
	fail := func(status int, err error) int {
		fmt.Fprintf(stderr, "podclient: %v\n", err)
		return status
	}
	s, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return fail(2, fmt.Errorf("%w (podclient -help tells the usage)", err))
	}
	cases, err := s.cases()
	if err != nil {
		return fail(2, err)
	}
	if s.list {
		for _, c := range cases {
			fmt.Fprintf(stdout, "%-24s %s: %v\n", c.name, c.doc, c.want)
		}
		return 0
	}
	switch ok, err := s.sweep(cases, stdout, stderr); {
	case errors.As(err, new(usageError)):
		return fail(2, err)
	case errors.As(err, new(interrupted)):
		return fail(130, err)
	case err != nil:
		return fail(1, err)
	case !ok:
		return 1
	}
	return 0
}

// sweep runs the cases, tells of them, and reports whether the client is right.
func (s *settings) sweep(cases []testCase, stdout, stderr io.Writer) (ok bool, err error) {
	// The client inherits a descriptor that it must not pass on.
	stray, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(stray)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	begin := time.Now()
	r := &runner{settings: *s, report: &scripts.Report{Name: "podclient", Out: stdout, Verbose: s.verbose, Strict: s.strict}, total: len(cases)}
	if isTerminal(stderr) {
		r.progress = stderr
	}
	if s.random > 0 {
		fmt.Fprintf(stdout, "random programs: -seed %d\n", s.seed)
	}
	if err := r.runAll(ctx, cases); err != nil {
		return false, err
	}
	summary := r.report.Summary(time.Since(begin))
	fmt.Fprintln(stdout, summary)
	if len(summary.Findings) > 0 {
		fmt.Fprintln(stdout, s.evidenceLine())
	}
	return summary.OK, r.write(summary)
}

func (s *settings) evidenceLine() string {
	const sections = "(N) is a section of the contract, spawn/HANDSHAKE.md\n"
	if s.evidence == "" {
		return sections + "evidence was not kept: -o DIR keeps it, by case"
	}
	return sections + "evidence of the findings, by case: " + s.evidence
}

// parse returns the settings; usage goes to stderr if it is asked for.
func parse(args []string, stderr io.Writer) (settings, error) {
	s := settings{only: regexp.MustCompile(""), seed: uint64(time.Now().UnixNano())}
	flags := flag.NewFlagSet("podclient", flag.ContinueOnError)
	flags.DurationVar(&s.timeout, "timeout", 20*time.Second, "the `DURATION` that the client waits for a pod: its own, which podclient cannot set")
	pattern := func(to **regexp.Regexp) func(string) error {
		return func(expr string) (err error) {
			*to, err = regexp.Compile(expr)
			return err
		}
	}
	flags.Func("run", "run only the cases whose name matches the `REGEXP`", pattern(&s.only))
	flags.Func("skip", "leave out the cases whose name matches the `REGEXP`", pattern(&s.skip))
	flags.BoolVar(&s.list, "list", false, "list the cases with what a client must conclude, and run none")
	flags.BoolVar(&s.strict, "strict", false, "a should counts as a must")
	flags.BoolVar(&s.verbose, "v", false, "show what was met, too")
	flags.IntVar(&s.parallel, "parallel", runtime.NumCPU(), "how many cases compute at once; those that only wait run beside them")
	flags.Func("env", "a variable `NAME=VALUE` for the client, or a NAME to pass on; repeatable", func(entry string) error {
		s.env = append(s.env, entry)
		return nil
	})
	flags.StringVar(&s.json, "json", "", "write a line of JSON for each check to `FILE`")
	flags.StringVar(&s.junit, "junit", "", "write JUnit's XML to `FILE`")
	flags.StringVar(&s.evidence, "o", "", "keep the evidence of findings in `DIR`, by case")
	flags.IntVar(&s.random, "random", 0, "run `N` random programs in place of the cases")
	flags.Uint64Var(&s.seed, "seed", s.seed, "make the random programs of this `NUMBER`")
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usage)
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return s, err
	}
	s.client = flags.Args()
	return s, s.check()
}

func (s *settings) check() error {
	switch {
	case s.timeout < time.Second:
		return fmt.Errorf("-timeout %v is too short: 1s at the least", s.timeout)
	case s.parallel < 1:
		return fmt.Errorf("-parallel %d runs nothing", s.parallel)
	case s.random < 0:
		return fmt.Errorf("-random %d is negative", s.random)
	case s.list:
		return nil
	case len(s.client) == 0:
		return errors.New("which client?")
	case !strings.Contains(strings.Join(s.client[1:], " "), "{name}"):
		return errors.New("no argument of the client holds {name}")
	}
	program, err := exec.LookPath(s.client[0])
	if err == nil {
		s.client[0], err = filepath.Abs(program)
	}
	if err != nil {
		return fmt.Errorf("the client cannot be started: %w", err)
	}
	if s.evidence != "" {
		if s.evidence, err = filepath.Abs(s.evidence); err != nil {
			return err
		}
	}
	return nil
}

// write writes the reports that were asked for.
func (r *runner) write(summary scripts.Summary) error {
	for path, to := range map[string]func(io.Writer, scripts.Summary) error{r.json: r.report.WriteJSON, r.junit: r.report.WriteJUnit} {
		if path == "" {
			continue
		}
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		if err := errors.Join(to(file, summary), file.Close()); err != nil {
			return err
		}
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
