package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"example.com/podharness/scripts"
	"example.com/podharness/scripts/internal/conformance"
	"github.com/rogpeppe/go-internal/testscript"
)

// testCase is one scenario.
type testCase struct {
	scripts.Requirement
	file    string
	need    *testCase // what it needs of the cases that are run; nil = nothing
	foreign bool      // it is told of in another shard

	done  chan struct{} // closed when it has ended
	unmet *testCase     // it, or what it needs, if that was not met in any run; nil = it was
}

// runner runs cases side by side.
type runner struct {
	settings
	report *conformance.Report
	params testscript.Params
	dir    string // of the portable scenarios, which messages leave out
	work   string // directory that the scenarios work in
	slots  chan struct{}
	failed atomic.Bool // a case has
	late   atomic.Bool // a case was cut short, or not run, by the deadline
}

// lateness is how long after the deadline the cases are given up: they end before it
// but for a command whose children hold its output.
const lateness = 5 * time.Second

// runAll returns when all cases have ended; an error names those that have not, or tells
// that the time was too short for all.
func (r *runner) runAll(cases []*testCase) error {
	r.slots = make(chan struct{}, r.Parallel)
	r.params = scripts.Params(r.options)
	r.params.UpdateScripts = r.update
	r.params.Deadline = time.Now().Add(r.timeout)
	ctx, cancel := context.WithDeadlineCause(context.Background(), r.params.Deadline.Add(lateness), errors.New(r.timeIsOver()))
	defer cancel()
	err := r.report.Run(ctx, len(cases), func(i int) { r.runCase(cases[i]) })
	if err == nil && r.late.Load() {
		err = errors.New(r.timeIsOver() + " before all cases had ended by themselves")
	}
	return err
}

func (r *runner) timeIsOver() string {
	return fmt.Sprintf("the time was over (-timeout %v)", r.timeout)
}

func (r *runner) runCase(c *testCase) {
	defer close(c.done)
	if c.need != nil {
		<-c.need.done
	}
	r.slots <- struct{}{}
	defer func() { <-r.slots }()
	if !r.report.Begin(c.ID) {
		return
	}
	begin := time.Now()
	check := r.check(c)
	check.Seconds = time.Since(begin).Seconds()
	if check.Result == conformance.Fail || check.Result == conformance.Warn && r.Strict {
		r.failed.Store(true)
	}
	if c.foreign {
		r.report.Drop(c.ID)
		return
	}
	_ = r.report.Case(c.ID, time.Since(begin), []conformance.Check{check})
}

// check runs a case, if that makes sense.
func (r *runner) check(c *testCase) conformance.Check {
	skip := conformance.Check{Case: c.ID, Requirement: c.ID, Level: c.Level, Result: conformance.Skip}
	switch {
	case c.need != nil && c.need.unmet != nil:
		c.unmet = c.need.unmet
		skip.Why = fmt.Sprintf("needs `%s`", c.unmet.ID)
		return skip
	case r.failfast && r.failed.Load():
		skip.Why = "not run after a failure (-failfast)"
		return skip
	case time.Now().After(r.params.Deadline):
		r.late.Store(true)
		skip.Why = "not run: " + r.timeIsOver()
		return skip
	}
	return r.repeat(c)
}

// repeat runs a case as often as is asked for, and tells of the first run that did
// not pass. One that is skipped at first, or never becomes ready, is not run again.
func (r *runner) repeat(c *testCase) conformance.Check {
	told := r.try(c, 1)
	again := told.Result != conformance.Skip && !strings.Contains(told.Why, "did not become ready within")
	runs, passed := 1, 0
	for check := told; ; check = r.try(c, runs) {
		if check.Result == conformance.Pass {
			passed++
		} else if told.Result == conformance.Pass {
			told = check
		}
		if !again || runs == r.count {
			break
		}
		runs++
	}
	if passed == 0 {
		c.unmet = c
	}
	if runs > 1 {
		told.Why = strings.TrimSuffix(fmt.Sprintf("%d of %d passed: %s", passed, runs, told.Why), ": ")
	}
	return told
}

// cut matches what is noted of a wait that the deadline has cut short. What it waited for
// is no finding.
var cut = regexp.MustCompile(`(?m)^\s*note: the .* was cut to .*, to end before the (test|script)'s deadline$`)

// try runs a case once.
func (r *runner) try(c *testCase, run int) conformance.Check {
	check := conformance.Check{Case: c.ID, Requirement: c.ID, Level: c.Level, Result: conformance.Pass}
	s := newScenario(r, c, run)
	s.run()
	switch {
	case s.failed && cut.MatchString(strings.Join(s.log, "\n")):
		r.late.Store(true)
		why, _ := s.finding()
		found, _, _ := strings.Cut(why, "\n")
		check.Result, check.Why = conformance.Skip, r.timeIsOver()+": "+found
	case s.skipped:
		check.Result, check.Why = conformance.Skip, s.said
	case s.failed:
		check.Result = conformance.Missed(c.Level)
		check.Why, check.Log = s.finding()
	}
	if check.Result == conformance.Fail || check.Result == conformance.Warn {
		check.Fix, check.Evidence = c.Fix, s.evidence
	} else {
		check.Log = ""
		_ = os.RemoveAll(s.evidence) // of what the harness found fault with, and the scenario did not
	}
	if r.Verbose {
		check.Log = s.whole()
	}
	if !r.keep {
		_ = os.RemoveAll(s.work)
	}
	return check
}
