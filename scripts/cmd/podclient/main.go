// Podclient checks a client, a program that starts pods: does it reach the right verdict
// for every pod, in time, with the reason, and leave nothing behind?
//
//	podclient -- my-client start {name}
//	podclient -timeout 3s -json report.json -- ./podspawn -timeout 3s {name}
//
// Podclient runs the client once for each case, in the current directory but in a
// sandbox of its own, with a umask, limits and signals that depend on the case alone. It
// replaces {name} by the name of a pod. The client must start that pod by
// YOI_POD_RUNTIME_COMMAND. It must end with status 0 when the pod is ready, and with another
// status and a message on stdout or stderr when the pod is not. The pods are fake ones, which
// act out each way in which a start can end. A client that stays open when the pod is ready,
// such as a terminal UI, says so in its output instead: -ready REGEXP matches that, and
// podclient then stops the client as a service manager does. Some cases run the client on a
// pseudo terminal, and with -tty all do.
//
// With -pod the client starts a real pod, and the cases are what becomes of the two:
//
//	podclient -pod ./agent -pod-arg --manifest=agent.toml -- my-client start {name}
//
// -faults runs no cases: the client starts a fake pod again and again, and another one of its
// system calls fails, or kills it, each time (Linux). -list tells what must hold then. When it
// is interrupted, it reports what it has found by then. -fault has one fault, which the client
// meets in the cases that -run names; the same requirements are judged:
//
//	podclient -faults -timeout 3s -- ./podspawn -timeout 3s {name}
//	podclient -fault 'open:path=**/stderr.log:error=EMFILE:when=2' -run '^(ready|deaf)$' -- my-client start {name}
//
// Podclient prints a line for each case. A finding follows below its line: what the
// client did, what it should have done, and the section of the contract that says so. -list
// shows the cases, and the requirements with their level and section. What takes a client
// too long is tried once more while podclient looks at what the client does: one that had no
// core, or whose pod lacked something, is not judged (SKIP, ERROR). What takes effect in the
// pod can be seen on Linux alone.
//
// -json FILE writes a run down, for later ones: -since FILE tells what is new, mended or
// slower, and -rerun FILE runs only what did not pass there. -known FILE lists findings
// that are accepted:
//
//	# REQUIREMENT: REASON, or REQUIREMENT/CASE: REASON
//	reason/deaf: the timeout has one message
//
// Such a finding is KNOWN, and no failure. One that no longer shows is told, and fails
// with -strict. -summary FILE appends a table in Markdown, by default to the summary of
// GitHub's step, and there findings are annotations, too. -html FILE writes a page; this
// runs nothing, and shows runs side by side:
//
//	podclient -html page.html old.json new.json
//
// The exit status is 0 if nothing failed, 1 if a must failed (with -strict a
// should, too), 2 for wrong usage or a client that cannot be started, 3 if nothing failed
// but podclient could not judge all (ERROR), 130 if podclient was interrupted.
package main

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"time"

	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn"
)

func main() {
	conformance.Prepare()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage: podclient [flags] [--] CLIENT [ARG]...

Runs CLIENT against fake pods, which act out each way in which a start can end. {name}
in the arguments is replaced by the name of the pod that CLIENT must start. With -faults
each system call of CLIENT fails instead, one in each run (Linux). With -fault one fails
in each of the cases.

`

// settings are the values of the command line.
type settings struct {
	conformance.Flags
	conformance.Runs
	client  []string
	pod     spawn.Command // a real one; no Program = fake pods
	timeout time.Duration
	ready   string // a regular expression; "" = the client ends when the pod is ready
	tty     bool
	random  int
	seed    uint64
	faults  sweep.Flags
}

func run(args []string, stdout, stderr io.Writer) int {
	status, err := execute(args, stdout, stderr)
	return conformance.Status("podclient", status, err, stderr)
}

// execute runs and reports the cases, and returns the exit status.
func execute(args []string, stdout, stderr io.Writer) (status int, err error) {
	s, err := parse(args, stdout, stderr)
	if err != nil {
		return 0, err
	}
	if s.faults.On || s.faults.Fault != nil {
		return s.sweepFaults(stdout, stderr)
	}
	cases, err := s.cases()
	if err != nil {
		return 0, conformance.UsageError{Err: err}
	}
	if s.List {
		for _, c := range cases {
			fmt.Fprintf(stdout, "%-24s %s: %v\n", c.name, c.doc, c.want)
		}
		fmt.Fprintln(stdout)
		for _, r := range requirements {
			fmt.Fprintf(stdout, "%-12s %-7s %-8s %s\n", r.id, r.level, r.section, r.text)
		}
		return 0, nil
	}
	if err := selfTest(); err != nil {
		return 0, err
	}
	report, err := s.Report("podclient", len(cases), stdout, stderr)
	if err != nil {
		return 0, err
	}
	if s.random > 0 {
		fmt.Fprintf(stdout, "random programs: -seed %d\n", s.seed)
	}
	r := &runner{settings: s, report: report}
	return report.Finish(r.runAll(cases))
}

func parse(args []string, stdout, stderr io.Writer) (settings, error) {
	s := settings{seed: rand.Uint64N(1_000_000)}
	flags := flag.NewFlagSet("podclient", flag.ContinueOnError)
	s.pod.Flags(flags)
	flags.DurationVar(&s.timeout, "timeout", 20*time.Second, "the `DURATION` that the client waits for a pod: its own, which podclient cannot set")
	flags.Func("ready", "take the `REGEXP` in the output of a client that stays open for its word that the pod is ready", func(text string) error {
		_, err := regexp.Compile(text)
		s.ready = text
		return err
	})
	flags.BoolVar(&s.tty, "tty", false, "run the client on a pseudo terminal in all cases")
	s.AddFlags(flags, "case")
	flags.IntVar(&s.random, "random", 0, "run `N` random programs in place of the cases")
	flags.Uint64Var(&s.seed, "seed", s.seed, "make the random programs of this `NUMBER`, or with -faults choose what is run within the budget")
	s.faults.AddFlags(flags, "client", "cases")
	if err := s.Flags.Parse(flags, usage, args, stdout, stderr); err != nil {
		return s, err
	}
	s.client, s.faults.Seed = flags.Args(), s.seed
	if err := s.faults.Check(flags, s.faults.On || s.faults.Fault != nil, "cases", "pod", "pod-arg", "random", "count", "failfast", "rerun"); err != nil {
		return s, err
	}
	if err := s.check(); err != nil {
		return s, err
	}
	s.Part = s.Part || s.random > 0 || s.IsPart()
	return s, nil
}

func (s *settings) check() (err error) {
	if err := s.CheckFlags(); err != nil {
		return err
	}
	switch {
	case s.timeout < time.Second:
		return conformance.Usagef("-timeout %v is too short: 1s at the least", s.timeout)
	case len(s.pod.PrefixArgs) > 0 && s.pod.Program == "":
		return conformance.Usagef("-pod-arg goes with -pod")
	case s.pod.Program != "" && s.random > 0:
		return conformance.Usagef("-random goes with fake pods, not with -pod")
	case s.random < 0:
		return conformance.Usagef("-random %d is negative", s.random)
	case s.List:
		return nil
	case len(s.client) == 0:
		return conformance.Usagef("which client? (podclient -help tells the usage)")
	case !strings.Contains(strings.Join(s.client[1:], " "), "{name}"):
		return conformance.Usagef("no argument of the client holds {name}")
	}
	if s.client[0], err = conformance.Program(s.client[0]); err != nil {
		return err
	}
	s.Tested.Argv = s.client
	if s.pod.Program != "" {
		s.Parallel = 1 // a pod may claim its workspace, and it is the client that chooses that
		s.pod.Program, err = conformance.Program(s.pod.Program)
		s.Tested.Flags = append(s.Tested.Flags, "-pod="+strings.Join(append([]string{s.pod.Program}, s.pod.PrefixArgs...), " "))
	}
	return err
}
