package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"example.com/podharness/scripts"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/safefile"
)

// testCase is one scenario.
type testCase struct {
	conformance.Case
	scripts.Requirement
	file string
	need *testCase // what it needs of the cases that are run; nil = nothing

	unmet *testCase // it, or what it needs, if that was not met in any run; nil = it was
}

// runner runs cases side by side.
type runner struct {
	settings
	report   *conformance.Report
	dir      string // of the portable scenarios, which messages leave out
	work     string // directory that the scenarios work in
	deadline time.Time
	late     atomic.Bool // a case was cut short, or not run, by the deadline
}

// lateness is how long after the deadline the cases are given up: they end before it
// but for a command whose children hold its output.
const lateness = 5 * time.Second

// runAll returns when all cases have ended. The error names those that have not, or says
// that the time was too short for all.
func (r *runner) runAll(cases []*testCase) error {
	ctx, cancel := context.WithDeadlineCause(context.Background(), r.deadline.Add(lateness), errors.New(r.timeIsOver()))
	defer cancel()
	var all []*conformance.Case
	for _, c := range cases {
		c.Run = func(idle func()) []conformance.Check { return r.runCase(c, idle) }
		all = append(all, &c.Case)
	}
	err := r.report.Run(ctx, all)
	if err == nil && r.late.Load() {
		err = errors.New(r.timeIsOver() + " before all cases had ended by themselves")
	}
	return err
}

func (r *runner) timeIsOver() string {
	return fmt.Sprintf("the time was over (-timeout %v)", r.timeout)
}

// runCase runs a case, if that makes sense. Another shard reports a foreign one.
func (r *runner) runCase(c *testCase, idle func()) []conformance.Check {
	check := c.check(conformance.Skip)
	switch {
	case c.need != nil && c.need.unmet != nil:
		c.unmet = c.need.unmet
		check.Why = fmt.Sprintf("needs `%s`", c.unmet.ID)
	case r.GivesUp():
		check.Why = conformance.NotRun
	case time.Now().After(r.deadline):
		r.late.Store(true)
		check.Result, check.Why = conformance.Error, "not run: "+r.timeIsOver()
	default:
		check = r.repeat(c, idle)
	}
	r.Note(&r.Flags, []conformance.Check{check})
	if c.Foreign {
		return nil
	}
	return []conformance.Check{check}
}

func (c *testCase) check(result string) conformance.Check {
	return conformance.Check{Case: c.ID, Requirement: c.ID, Level: c.Level, Section: c.Section, Result: result}
}

// repeat runs a case -count times. It is not run again if its pod did not become ready in
// time.
func (r *runner) repeat(c *testCase, idle func()) conformance.Check {
	struckNothing := false
	check := r.Repeat(func(run int) ([]conformance.Check, bool) {
		check, failure := r.try(c, run, idle)
		struckNothing = failure == errStruckNothing
		return []conformance.Check{check}, !errors.Is(failure, spawn.ErrTimeout)
	})[0]
	if check.Result != conformance.Pass && check.Passed == 0 && !struckNothing {
		c.unmet = c
	}
	return check
}

// errStruckNothing is what there is to say of a scenario that has passed beside a fault which did
// not come. Others may need it all the same.
var errStruckNothing = errors.New(sweep.StruckNothing)

// try runs a case once. The error is what a verb or the harness found, or errStruckNothing.
func (r *runner) try(c *testCase, run int, idle func()) (conformance.Check, error) {
	check := c.check(conformance.Pass)
	s := newScenario(r, c, run, idle)
	s.run()
	switch found, log := s.finding(); {
	case s.failed && s.failure.Cut:
		r.late.Store(true)
		check.Result, check.Why = conformance.Error, r.timeIsOver()+": "+found
	case s.failed && s.failure.Kit:
		check.Result, check.Why, check.Log = conformance.Error, found, log
	case s.skipped:
		check.Result, check.Why = conformance.Skip, s.why
	case !s.failed && len(r.options.Pod.Faults) > 0 && !s.struck.Load():
		check.Result, check.Why = conformance.Skip, sweep.StruckNothing
		s.failure.Err = errStruckNothing
	case s.failed:
		check.Result, check.Why, check.Log, check.Key = r.NotMet(c.Level), found, log, s.key(found)
		if requirement := c.Requirement.String(); requirement != "" {
			check.Why += "\n" + requirement
		}
	}
	if check.IsFinding() {
		check.Fix, check.Evidence = s.fix(), s.evidence
	} else if check.Result != conformance.Error {
		check.Log = ""
		_ = safefile.RemoveAll(s.evidence) // of what the harness found fault with, and the scenario did not
	}
	if r.Verbose {
		check.Log = s.whole()
	}
	if !r.keep {
		_ = safefile.RemoveAll(s.work)
	}
	return check, s.failure.Err
}
