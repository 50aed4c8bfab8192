// Podclient checks a client, a program that starts pods: does it reach the right verdict
// for every pod, in time, with the reason, and leave nothing behind?
//
//	podclient -- my-client start {name}
//	podclient -timeout 3s -json report.json -- ./podspawn -timeout 3s {name}
//
// Podclient runs the client once for each case, in the current directory but in a
// sandbox of its own. It replaces {name} by the name of a pod. The client must start that
// pod by YOI_POD_RUNTIME_COMMAND. It must end with status 0 when the pod is ready, and
// with another status and a message on stdout or stderr when the pod is not. The pods
// are fake ones, which act out each way in which a start can end.
//
// Podclient prints a line for each case. A finding follows below its line: what the
// client did, what it should have done, and the section of the contract that says so.
// Musts are verdict, prompt, clean, independent and arguments; shoulds are reason and
// terminal.
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
	"os"
	"strings"
	"time"

	"example.com/podharness/scripts/internal/conformance"
	"golang.org/x/sys/unix"
)

func main() {
	conformance.Prepare()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage: podclient [flags] [--] CLIENT [ARG]...

Runs CLIENT against fake pods, which act out each way in which a start can end. {name}
in the arguments is replaced by the name of the pod that CLIENT must start.

`

// settings are the values of the command line.
type settings struct {
	conformance.Flags
	client  []string
	timeout time.Duration
	random  int
	seed    uint64
}

func run(args []string, stdout, stderr io.Writer) int {
	status, err := sweep(args, stdout, stderr)
	return conformance.Status("podclient", status, err, stderr)
}

// sweep runs and reports the cases, and returns the exit status.
func sweep(args []string, stdout, stderr io.Writer) (status int, err error) {
	s, err := parse(args, stdout, stderr)
	if err != nil {
		return 0, err
	}
	cases, err := s.cases()
	if err != nil {
		return 0, conformance.UsageError{Err: err}
	}
	if s.List {
		for _, c := range cases {
			fmt.Fprintf(stdout, "%-24s %s: %v\n", c.name, c.doc, c.want)
		}
		return 0, nil
	}
	// The client inherits a descriptor that it must not pass on.
	stray, err := unix.Open(os.DevNull, unix.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(stray)
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
	s := settings{seed: uint64(time.Now().UnixNano())}
	flags := flag.NewFlagSet("podclient", flag.ContinueOnError)
	flags.DurationVar(&s.timeout, "timeout", 20*time.Second, "the `DURATION` that the client waits for a pod: its own, which podclient cannot set")
	flags.IntVar(&s.random, "random", 0, "run `N` random programs in place of the cases")
	flags.Uint64Var(&s.seed, "seed", s.seed, "make the random programs of this `NUMBER`")
	if err := s.Flags.Parse(flags, usage, args, stdout, stderr); err != nil {
		return s, err
	}
	s.client, s.Part = flags.Args(), s.Part || s.random > 0
	return s, s.check()
}

func (s *settings) check() (err error) {
	switch {
	case s.timeout < time.Second:
		return conformance.Usagef("-timeout %v is too short: 1s at the least", s.timeout)
	case s.random < 0:
		return conformance.Usagef("-random %d is negative", s.random)
	case s.List:
		return nil
	case len(s.client) == 0:
		return conformance.Usagef("which client? (podclient -help tells the usage)")
	case !strings.Contains(strings.Join(s.client[1:], " "), "{name}"):
		return conformance.Usagef("no argument of the client holds {name}")
	}
	s.client[0], err = conformance.Program(s.client[0])
	s.Tested.Argv = s.client
	return err
}
