package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/scripts"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
)

// faultFlags are the flags of -faults.
type faultFlags struct {
	on, all bool
	budget  time.Duration
	seed    uint64
	wrong   error // flags that do not go together
}

// faultReadyTimeout is the ready timeout of -faults: many runs may wait until it is over.
const faultReadyTimeout = 5 * time.Second

func (f *faultFlags) add(flags *flag.FlagSet) {
	flags.BoolVar(&f.on, "faults", false, "in place of scenarios, have each system call of the pod fail, one in each run (Linux); the ready timeout is 5s unless it is given")
	flags.BoolVar(&f.all, "all", false, "with -faults: all calls, also on files outside of the pod's sandbox, however long that takes, up to -timeout")
	flags.DurationVar(&f.budget, "budget", time.Minute, "with -faults: the `DURATION` in which runs begin; each kind of fault gets its share")
	flags.Uint64Var(&f.seed, "seed", rand.Uint64N(1_000_000), "with -faults: the `N` that chooses what is run within the budget")
}

// note looks at the flags that are given, and returns the ready timeout.
func (f *faultFlags) note(flags *flag.FlagSet, ready time.Duration) time.Duration {
	if f.on {
		ready = min(ready, faultReadyTimeout)
	}
	flags.Visit(func(g *flag.Flag) {
		switch {
		case f.on && g.Name == "ready-timeout":
			ready = g.Value.(flag.Getter).Get().(time.Duration)
		case f.on && slices.Contains([]string{"u", "work", "section", "busy", "session", "count", "failfast", "rerun"}, g.Name):
			f.wrong = conformance.Usagef("-%s does not go with -faults: it is about scenarios", g.Name)
		case !f.on && slices.Contains([]string{"all", "budget", "seed"}, g.Name):
			f.wrong = conformance.Usagef("-%s goes with -faults", g.Name)
		}
	})
	switch {
	case f.wrong != nil || !f.on:
	case flags.NArg() > 0:
		f.wrong = conformance.Usagef("-faults runs no scenario, and so not %s: podstart -fault is for one", flags.Arg(0))
	case f.budget <= 0:
		f.wrong = conformance.Usagef("-budget %v leaves no time", f.budget)
	}
	return ready
}

// faultRequirements are what must hold when a system call of a pod fails.
var faultRequirements = []scripts.Requirement{
	{ID: "fault-answered", Level: conformance.Must, Section: "5b", Text: "be ready and serve, or end, before the ready timeout, whichever system call fails",
		Fix: "let every error on the way to ready end the process, also one in another thread"},
	{ID: "fault-honest", Level: conformance.Must, Section: "5b", Text: "end with a status other than 0 when its start has failed, and write its ready line, whole, only if it serves then",
		Fix: "write the ready line in one write, after all that can fail, and check how much of it was written"},
	{ID: "fault-told", Level: conformance.Should, Section: "5b", Text: "name what failed in the last words of a start that failed: the error's text, name or number, or the path",
		Fix: "log the system's error with the path before the process ends"},
	{ID: "fault-clean", Level: conformance.Must, Section: "5b", Text: "leave no process behind when a system call has failed",
		Fix: "end what was started on each way out"},
	{ID: "fault-serving", Level: conformance.Must, Section: "5b", Text: "serve the next client after one system call has failed while it serves, and use no core for calls that fail again and again",
		Fix: "let an error end that one connection; wait a moment before accept is tried again"},
	{ID: "fault-stop", Level: conformance.Must, Section: "5b", Text: "end within the grace when it is stopped, tidy or not, whichever system call fails",
		Fix: "exit also when something cannot be removed"},
	{ID: "fault-restart", Level: conformance.Must, Section: "5b", Text: "start again once the cause of a failure is gone",
		Fix: "write a file beside its place and rename it; take over what an earlier life has left: locks, sockets, unfinished files"},
	{ID: "crash-restart", Level: conformance.Must, Section: "5b", Text: "start again after a SIGKILL at any system call",
		Fix: "write a file beside its place and rename it; take over what an earlier life has left: locks, sockets, unfinished files"},
}

// faultSweep is one run of -faults.
type faultSweep struct {
	*settings
	report   *conformance.Report
	scrap    string    // a directory for what nobody asks for
	progress io.Writer // nil = no terminal
	skip     string    // why nothing could be run; "" = it could
	broken   string    // why the pod cannot be judged: it is not healthy without faults; "" = it is
	answers  bool      // the pod answers a ping
	points   int
	planned  int // runs
	took     time.Duration

	mu      sync.Mutex // guards all below
	runs    int
	missed  int // runs in which the call did not come
	judged  map[string]int
	causes  map[string]*cause
	trouble []string // of the kit or the machine
}

func newFaultSweep(s *settings) *faultSweep {
	return &faultSweep{settings: s, judged: map[string]int{}, causes: map[string]*cause{}}
}

// A cause is findings with one requirement, family of calls and path: they have one cause.
type cause struct {
	scripts.Requirement
	trial    // the first one that showed it
	found    string
	log      string
	evidence string
	shownBy  map[point]bool
}

// name is the cause's in reports, such as rename-status.json.
func (c *cause) name() string {
	if c.path == "" {
		return c.family
	}
	return c.family + "-" + strings.NewReplacer(`\`, "", "{", "", "}", "", ":", "_").Replace(c.path[strings.LastIndexByte(c.path, '/')+1:])
}

// sweepFaults runs and reports -faults, and returns the exit status.
func (s *settings) sweepFaults(stdout, stderr io.Writer) (status int, err error) {
	f := newFaultSweep(s)
	chosen := slices.Clone(faultRequirements)
	if chosen = slices.DeleteFunc(chosen, func(r scripts.Requirement) bool { return !s.Chosen(r.ID) }); len(chosen) == 0 {
		return 0, s.NoneChosen()
	}
	if s.List {
		for _, r := range chosen {
			fmt.Fprintf(stdout, "%-20s %-7s %-8s %s\n", r.ID, r.Level, r.Section, r.Text)
		}
		return 0, nil
	}
	if f.scrap, err = tempDir(); err != nil {
		return 0, err
	}
	defer safefile.RemoveAll(f.scrap)
	if f.report, err = s.Report("podscript", len(chosen), stdout, stderr); err != nil {
		return 0, err
	}
	if podlog.IsTerminal(stderr) {
		f.progress = stderr
	}
	run := sync.OnceFunc(f.run)
	var cases []*conformance.Case
	for i, r := range chosen {
		cases = append(cases, &conformance.Case{Name: r.ID, Run: func(idle func()) []conformance.Check {
			idle()
			run()
			return f.checks(r, i == 0)
		}})
	}
	ended := f.report.Run(context.Background(), cases)
	if ended == nil && f.planned > 0 {
		fmt.Fprintf(stdout, "%d points, %d of %d runs in %.1fs, -seed %d", f.points, f.runs, f.planned, f.took.Seconds(), f.faults.seed)
		if f.missed > 0 {
			fmt.Fprintf(stdout, "; in %d the call did not come", f.missed)
		}
		fmt.Fprintln(stdout)
	}
	return f.report.Finish(ended)
}

// run observes the pod, and then has it meet each fault.
func (f *faultSweep) run() {
	begin := time.Now()
	if err := fault.Supported(); err != nil {
		f.skip = err.Error()
		return
	}
	points, err := f.observe()
	switch {
	case errors.Is(err, fault.ErrUnsupported):
		f.skip = err.Error()
		return
	case err != nil:
		f.broken = err.Error()
		return
	}
	trials := f.plan(points)
	f.points, f.planned = len(points), len(trials)
	f.runAll(trials, begin)
	f.took = time.Since(begin)
}

// plan returns the runs for points: of each kind in turn one, so that whatever time there is
// is shared by all kinds.
func (f *faultSweep) plan(points []point) (trials []trial) {
	random := rand.New(rand.NewPCG(f.faults.seed, 0))
	var kinds []string
	byKind := map[string][]trial{}
	for _, p := range points {
		for _, t := range p.trials() {
			kind := t.kind()
			if byKind[kind] == nil {
				kinds = append(kinds, kind)
			}
			byKind[kind] = append(byKind[kind], t)
		}
	}
	random.Shuffle(len(kinds), func(i, k int) { kinds[i], kinds[k] = kinds[k], kinds[i] })
	for _, kind := range kinds {
		all := byKind[kind]
		random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	}
	n := 0
	for left := true; left; {
		left = false
		for _, kind := range kinds {
			if all := byKind[kind]; len(all) > 0 {
				if f.Has(n) {
					trials = append(trials, all[0])
				}
				byKind[kind], left = all[1:], true
				n++
			}
		}
	}
	return trials
}

// runAll runs trials side by side, -parallel of them at once, and more of those that only wait.
func (f *faultSweep) runAll(trials []trial, begin time.Time) {
	end := begin.Add(f.timeout)
	if late := begin.Add(f.faults.budget); !f.faults.all && late.Before(end) {
		end = late
	}
	compute, all := make(chan struct{}, f.Parallel), make(chan struct{}, 4*f.Parallel)
	var running sync.WaitGroup
	for i, t := range trials {
		all <- struct{}{}
		compute <- struct{}{}
		if time.Now().After(end) {
			if f.faults.all {
				f.cannot(fmt.Sprintf("%d of %d runs were not begun: the time was over (-timeout %v)", len(trials)-i, len(trials), f.timeout))
			}
			break
		}
		running.Add(1)
		go func() {
			defer running.Done()
			idle := sync.OnceFunc(func() { <-compute })
			timer := time.AfterFunc(time.Second, idle)
			f.try(t)
			timer.Stop()
			idle()
			<-all
			f.tell(len(trials))
		}()
	}
	running.Wait()
	if f.progress != nil {
		fmt.Fprint(f.progress, "\r\x1b[K")
	}
}

func (f *faultSweep) tell(all int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.runs++; f.progress != nil {
		fmt.Fprintf(f.progress, "\r\x1b[K%d of %d runs", f.runs, all)
	}
}

// checks returns what was found of a requirement. The first one has the kit's trouble, too.
func (f *faultSweep) checks(r scripts.Requirement, first bool) (checks []conformance.Check) {
	check := conformance.Check{Case: r.ID, Requirement: r.ID, Level: r.Level, Section: r.Section, Result: conformance.Skip}
	switch {
	case f.skip != "":
		check.Why = f.skip
		return []conformance.Check{check}
	case f.broken != "":
		check.Why = "needs a pod that is healthy without faults"
		if first {
			check.Result, check.Why = conformance.Error, "the pod is not healthy without faults: "+f.broken
		}
		return []conformance.Check{check}
	}
	for _, c := range f.causes {
		if c.ID == r.ID {
			checks = append(checks, f.finding(c, check))
		}
	}
	slices.SortFunc(checks, func(a, b conformance.Check) int { return cmp.Compare(a.Case, b.Case) })
	if len(f.trouble) > 0 && first {
		bad := check
		bad.Result, bad.Why = conformance.Error, fmt.Sprintf("%d times something could not be judged, first: %s", len(f.trouble), f.trouble[0])
		return append(checks, bad)
	}
	switch {
	case len(checks) > 0:
		return checks
	case f.judged[r.ID] == 0:
		check.Why = "no run was about it"
	default:
		check.Result = conformance.Pass
	}
	return []conformance.Check{check}
}

// finding returns the check of a cause.
func (f *faultSweep) finding(c *cause, check conformance.Check) conformance.Check {
	check.Case, check.Result, check.Log, check.Fix, check.Evidence = c.name(), f.NotMet(c.Level), c.log, c.Fix, c.evidence
	many := "1 point shows this"
	if n := len(c.shownBy); n > 1 {
		many = fmt.Sprintf("%d points show this", n)
	}
	check.Why = strings.Join([]string{c.found, c.Requirement.String(), many + ", first " + c.trial.String() + "; -known calls it " + c.ID + "/" + c.name(),
		"repeat: podstart -fault " + podlog.ShellWord(c.fault.String()) + " " + faultPod}, "\n")
	return check
}

// note keeps a finding, and returns its cause if it is the first one of that.
func (f *faultSweep) note(t trial, id, found string) (fresh *cause) {
	i := slices.IndexFunc(faultRequirements, func(r scripts.Requirement) bool { return r.ID == id })
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judged[id]++
	if found == "" {
		return nil
	}
	key := strings.Join([]string{id, t.family, t.path}, "\n")
	c := f.causes[key]
	if c == nil {
		fresh = &cause{Requirement: faultRequirements[i], trial: t, found: found, shownBy: map[point]bool{}}
		c, f.causes[key] = fresh, fresh
	}
	c.shownBy[t.point] = true
	return fresh
}

// cannot notes why something could not be judged.
func (f *faultSweep) cannot(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = append(f.trouble, why)
}
