// Podscript checks a pod, in whatever language it is written, against the contract
// (spawn/HANDSHAKE.md). It runs the portable scenarios, one for each requirement, or
// those of the files and directories that are named.
//
//	podscript                                      # the built-in fake pod
//	podscript -pod /usr/local/bin/agent -pod-arg pod
//	podscript -pod ./agent my-scenarios/
//
// It prints a line for each scenario. A finding follows below its line: what was found,
// what the pod must do, the section of the contract that says so, the commands that led
// there with their output, and a fix. A should that is not met is a warning, and a may
// that is not met is never more than a line. A scenario is skipped if it needs a
// requirement that is not met. ERROR says that podscript could not judge the pod: the
// scenario itself is wrong, the machine has too little of something, or -timeout was too
// short.
//
// -json FILE writes a run down, for later ones: -since FILE tells what is new, mended or
// slower, and -rerun FILE runs only what did not pass there. -known FILE lists findings
// that are accepted:
//
//	# REQUIREMENT: REASON, or REQUIREMENT/CASE: REASON
//	terminate: our supervisor sends SIGINT only
//
// Such a finding is KNOWN, and no failure. One that no longer shows is told, and fails
// with -strict. -summary FILE appends a table in Markdown, by default to the summary of
// GitHub's step, and there findings are annotations, too. -html FILE writes a page; this
// runs nothing, and shows runs side by side:
//
//	podscript -html page.html old.json new.json
//
// -faults runs no scenarios: it starts the pod again and again, and has another one of its
// system calls fail, or kill it, each time (Linux). -list tells what must hold then. When it
// is interrupted, it reports what it has found by then. -fault has one fault: the pods of the
// scenarios meet it that -run names, or the pod of -faults if -run names requirements of that.
// What it has struck nothing of is skipped:
//
//	podscript -fault 'rename:path=**/status.json:error=ENOSPC:when=1' -run '^restart$'
//	podscript -fault 'rename:path=**/status.json:error=ENOSPC:when=1' -run '^fault-'
//
// The exit status is 0 if nothing failed, 1 if a must failed (with -strict a should,
// too), 2 for wrong usage or a pod that is no program, 3 if nothing failed but there was
// an ERROR, 130 if podscript was interrupted.
//
// Where the variables of Bazel's test protocol are set, podscript follows it: a test
// with shard_count spreads the scenarios over its shards.
package main

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/scripts"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
	"github.com/google/uuid"
)

func main() {
	conformance.Prepare()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `usage: podscript [flags] [FILE.txtar | DIRECTORY]...

Runs the portable scenarios, or those that are named, against a pod: the
built-in fake pod without -pod. With -faults it has each system call of the
pod fail instead, one in each run (Linux). With -fault one fails in each of the
scenarios.

`

func run(args []string, stdout, stderr io.Writer) int {
	status, err := execute(args, stdout, stderr)
	return conformance.Status("podscript", status, err, stderr)
}

// execute runs and reports the cases, and returns the exit status.
func execute(args []string, stdout, stderr io.Writer) (status int, err error) {
	s, err := parse(args, stdout, stderr)
	if err != nil {
		return 0, err
	}
	if s.faultMode {
		return s.sweepFaults(stdout, stderr)
	}
	dir, err := tempDir()
	if err != nil {
		return 0, err
	}
	defer safefile.RemoveAll(dir)
	cases, err := s.cases(dir)
	if err != nil {
		return 0, err
	}
	cases, mine := s.part(cases)
	if s.List {
		for _, c := range mine {
			fmt.Fprintln(stdout, podlog.PrintableLines(fmt.Sprintf("%-20s %-7s %-8s %s", c.ID, c.Level, c.Section, c.Text)))
		}
		return 0, nil
	}
	report, err := s.Report("podscript", len(mine), stdout, stderr)
	if err != nil {
		return 0, err
	}
	if s.leftOut != "" {
		fmt.Fprintln(stderr, "podscript:", podlog.PrintableLines(s.leftOut))
	}
	r := &runner{settings: s, report: report, dir: dir, work: filepath.Join(dir, "work"), deadline: time.Now().Add(s.timeout)}
	if s.keep {
		if r.work, err = os.MkdirTemp(os.Getenv("TEST_TMPDIR"), "podscript-work-"); err != nil {
			return 0, err
		}
		defer fmt.Fprintf(stdout, "the scenarios worked in %s\n", r.work)
	}
	return report.Finish(r.runAll(cases))
}

// part returns the cases of this part, and with them those that they need, which another
// part reports.
func (s *settings) part(cases []*testCase) (run, mine []*testCase) {
	wanted := map[*testCase]bool{}
	for i, c := range cases {
		if c.Foreign = !s.Has(i); c.Foreign {
			continue
		}
		mine = append(mine, c)
		for ; c != nil; c = c.need {
			wanted[c] = true
		}
	}
	for _, c := range cases {
		if wanted[c] {
			run = append(run, c)
		}
	}
	return run, mine
}

// tempDir makes a directory for scenarios, which is removed when this process, or the
// test that Bazel runs, has ended.
func tempDir() (string, error) {
	mkdir, variable := harness.TempDir, "TMPDIR"
	if parent := os.Getenv("TEST_TMPDIR"); parent != "" {
		mkdir, variable = func() (string, error) { return os.MkdirTemp(parent, "podscript") }, "TEST_TMPDIR"
	}
	dir, err := mkdir()
	if err != nil {
		err = fmt.Errorf("%w (%s names where)", err, variable)
	}
	return dir, err
}

// settings are the values of the command line.
type settings struct {
	conformance.Flags
	conformance.Runs
	options   scripts.Options
	timeout   time.Duration
	update    bool
	keep      bool
	section   string
	faults    sweep.Flags
	faultMode bool          // requirements of -faults are checked, and no scenarios
	patience  time.Duration // the ready timeout of a second run of -faults, which is to confirm that the first one was late
	leftOut   string        // what of -workspace and -home is not copied; "" = nothing
	paths     []string
}

func parse(args []string, stdout, stderr io.Writer) (settings, error) {
	var s settings
	pod := &s.options.Pod
	flags := flag.NewFlagSet("podscript", flag.ContinueOnError)
	s.options.Command.Flags(flags)
	flags.StringVar(&pod.NameFlag, "name-flag", "--pod", "the `FLAG` by which a pod is told its name")
	flags.Func("extra-arg", "an `ARG` after the handshake's, such as {workspace}/manifest.toml; repeatable", func(arg string) error {
		pod.ExtraArgs = append(pod.ExtraArgs, arg)
		return nil
	})
	for name, tree := range map[string]*fs.FS{"workspace": &pod.WorkspaceFrom, "home": &pod.HomeFrom} {
		what := map[string]string{"workspace": "the workspace of every pod", "home": "the HOME of the pods"}[name]
		flags.Func(name, "copy `DIR` into "+what, func(path string) error {
			info, err := os.Stat(path)
			if err == nil && !info.IsDir() {
				err = fmt.Errorf("%s is not a directory", path)
			}
			if err != nil {
				return err
			}
			*tree = os.DirFS(path)
			left, err := sandbox.CheckFiles("-"+name, *tree)
			s.leftOut += left
			return err
		})
	}
	flags.StringVar(&pod.Profile, "profile", "", "the pods' `PROFILE`")
	flags.StringVar(&pod.TicketRole, "ticket-role", "", "the pods' ticket `ROLE`")
	flags.Func("session", "the `UUID` of a stored session, for the scenario that resumes one", func(text string) error {
		id, err := uuid.Parse(text)
		s.options.Session = &id
		return err
	})
	flags.StringVar(&s.options.Busy, "busy", "", "a `LINE` of a request that takes the pod a while, for the scenario that stops a busy one")
	flags.StringVar(&s.section, "section", "", "run only the scenarios of a `SECTION` of the contract, such as 5a")
	flags.DurationVar(&pod.ReadyTimeout, "ready-timeout", spawn.DefaultReadyTimeout, fmt.Sprintf("the `DURATION` that becoming ready may take; with -faults %v at first unless it is given", faultReadyTimeout))
	flags.DurationVar(&pod.StopGrace, "grace", sandbox.StopGrace, "the `DURATION` that a stop may take")
	flags.DurationVar(&s.timeout, "timeout", 5*time.Minute, "the `DURATION` that all scenarios may take")
	s.faults.AddFlags(flags, "pod", "scenarios")
	flags.Uint64Var(&s.faults.Seed, "seed", rand.Uint64N(1_000_000), "with -faults: the `N` that chooses what is run within the budget")
	s.AddFlags(flags, "scenario")
	flags.BoolVar(&s.update, "u", false, "update the files of named scenarios where cmp finds another text")
	flags.BoolVar(&s.keep, "work", false, "keep the directories that the scenarios worked in")
	if err := s.Flags.Parse(flags, usage, args, stdout, stderr); err != nil {
		return s, err
	}
	s.paths = flags.Args()
	s.Tested.Flags = append(s.Tested.Flags, s.paths...)
	s.faultMode = s.faults.On || s.onlyFaults()
	if err := s.faults.Check(flags, s.faultMode, "scenarios", "u", "work", "section", "busy", "session", "count", "failfast", "rerun"); err != nil {
		return s, err
	}
	given := false
	flags.Visit(func(g *flag.Flag) { given = given || g.Name == "ready-timeout" })
	s.patience = pod.ReadyTimeout
	if s.faultMode && !given {
		pod.ReadyTimeout = faultReadyTimeout
	}
	return s, s.check()
}

func (s *settings) check() (err error) {
	command := &s.options.Command
	for name, d := range map[string]time.Duration{"timeout": s.timeout, "ready-timeout": s.options.Pod.ReadyTimeout, "grace": s.options.Pod.StopGrace} {
		if d <= 0 {
			return conformance.Usagef("-%s %v leaves no time", name, d)
		}
	}
	switch {
	case s.faults.On && len(s.paths) > 0:
		return conformance.Usagef("-faults runs no scenario, and so not %s: -fault is one fault for it", s.paths[0])
	case s.update && len(s.paths) == 0:
		return conformance.Usagef("-u goes with named scenarios: the portable ones are built in")
	case len(command.PrefixArgs) > 0 && command.Program == "":
		return conformance.Usagef("-pod-arg goes with -pod")
	}
	if s.faults.Fault != nil && !s.faultMode {
		s.options.Pod.Faults = []fault.Fault{*s.faults.Fault}
	}
	s.options.Env = s.Env
	if len(s.paths) == 0 { // some of these scenarios are about the status, or the ready line, and check it
		s.options.Pod.StopStatus, s.options.Pod.AllowReadyAgain = []int{-1}, true
	}
	if command.Program != "" {
		if command.Program, err = conformance.Program(command.Program); err != nil {
			return err
		}
		s.Tested.Argv = append([]string{command.Program}, command.PrefixArgs...)
	}
	err = s.CheckFlags()
	s.Part = s.Part || len(s.paths) > 0 || s.IsPart()
	return err
}

// cases returns the chosen scenarios. It writes the portable ones to dir.
func (s *settings) cases(dir string) (chosen []*testCase, err error) {
	files, err := scenarioFiles(s.paths, dir)
	if err != nil {
		return nil, conformance.UsageError{Err: err}
	}
	byID := map[string]*testCase{}
	var all []*testCase
	for _, file := range files {
		c := &testCase{file: file}
		if c.Requirement, err = scripts.ReadRequirement(file); err != nil {
			return nil, conformance.UsageError{Err: err}
		}
		if other := byID[c.ID]; other != nil {
			return nil, conformance.Usagef("two scenarios are called %s: %s and %s", c.ID, other.file, file)
		}
		c.Name, byID[c.ID] = c.ID, c
		all = append(all, c)
	}
	for _, c := range all {
		switch need := byID[c.Needs]; {
		case c.Needs == "":
		case need == nil:
			return nil, conformance.Usagef("%s needs %s, but there is no such scenario beside it", c.file, c.Needs)
		case s.Chosen(c.Needs) && s.inSection(need):
			c.need, c.After = need, &need.Case
		}
	}
	chosen = slices.DeleteFunc(all, func(c *testCase) bool { return !s.Chosen(c.ID) || !s.inSection(c) })
	if len(chosen) == 0 {
		return nil, s.NoneChosen()
	}
	return chosen, nil
}

// inSection reports whether a case is about the section that is asked for.
func (s *settings) inSection(c *testCase) bool {
	return s.section == "" || slices.Contains(strings.Split(c.Section, ", "), s.section)
}

// scenarioFiles returns the scenarios in files and directories; if none are named, the
// portable ones, which it writes to dir.
func scenarioFiles(paths []string, dir string) (files []string, err error) {
	if len(paths) == 0 {
		if err := os.CopyFS(dir, scripts.Scenarios()); err != nil {
			return nil, err
		}
		for _, r := range scripts.Requirements() {
			files = append(files, filepath.Join(dir, r.ID+".txtar"))
		}
		return files, nil
	}
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
