package conformance

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// Runs say which part of the cases is run, how often, and until when.
type Runs struct {
	Count       int
	failfast    bool
	part, parts int          // from 1
	failed      *atomic.Bool // a case has
}

// AddFlags adds -count, -failfast and -shard, whose documentation calls the cases so.
func (r *Runs) AddFlags(flags *flag.FlagSet, cases string) {
	r.part, r.parts, r.failed = 1, 1, new(atomic.Bool)
	flags.IntVar(&r.Count, "count", 1, fmt.Sprintf("run each %s `N` times", cases))
	flags.BoolVar(&r.failfast, "failfast", false, fmt.Sprintf("begin no %s after one that failed", cases))
	flags.Func("shard", fmt.Sprintf("run only the `I/N`th part of the %ss, from 1/N to N/N", cases), r.setPart)
}

func (r *Runs) setPart(text string) error {
	var rest string
	n, _ := fmt.Sscanf(text+" ", "%d/%d%s", &r.part, &r.parts, &rest)
	if n != 2 || r.part < 1 || r.part > r.parts {
		return fmt.Errorf("want I/N, such as 1/4 to 4/4")
	}
	return nil
}

// CheckFlags returns a UsageError if the flags make no sense. It takes the part that Bazel
// asks for, if there is no -shard, and tells Bazel so.
func (r *Runs) CheckFlags() error {
	if r.Count < 1 {
		return Usagef("-count %d runs nothing", r.Count)
	}
	parts, index := os.Getenv("TEST_TOTAL_SHARDS"), os.Getenv("TEST_SHARD_INDEX")
	if parts == "" || r.parts > 1 {
		return nil
	}
	part, err := strconv.Atoi(index)
	if err != nil || r.setPart(fmt.Sprintf("%d/%s", part+1, parts)) != nil {
		return Usagef("TEST_SHARD_INDEX %q is no number from 0 to below TEST_TOTAL_SHARDS %q", index, parts)
	}
	if file := os.Getenv("TEST_SHARD_STATUS_FILE"); file != "" {
		return os.WriteFile(file, nil, 0o600)
	}
	return nil
}

// IsPart reports whether other shards run the rest.
func (r *Runs) IsPart() bool { return r.parts > 1 }

// Has reports whether the i-th case is of this part.
func (r *Runs) Has(i int) bool { return i%r.parts == r.part-1 }

// GivesUp reports whether a failure has ended the runs.
func (r *Runs) GivesUp() bool { return r.failfast && r.failed.Load() }

// NotRun is why a case was not run then.
const NotRun = "not run after a failure (-failfast)"

// Note notes a failure: with -failfast no case begins after that.
func (r *Runs) Note(f *Flags, checks []Check) {
	for _, c := range checks {
		if c.Result == Fail && f.Accepted(c) == "" {
			r.failed.Store(true)
		}
	}
}

// Repeat runs a case -count times, and returns of each requirement the check of the first
// run in which it did not pass. The case is not run again if its first run says so, or if
// nothing could be judged in that.
func (r *Runs) Repeat(run func(n int) (checks []Check, again bool)) (all []Check) {
	at := map[string]int{} // the index in all, by requirement
	for n := 1; ; n++ {
		checks, again := run(n)
		judged, failed := false, false
		for _, c := range checks {
			i, is := at[c.Requirement]
			if !is {
				i, at[c.Requirement] = len(all), len(all)
				all = append(all, c)
			}
			runs, passed := all[i].Runs+1, all[i].Passed
			if c.Result == Pass {
				passed++
			} else if all[i].Result == Pass {
				all[i] = c
			}
			all[i].Runs, all[i].Passed = runs, passed
			judged, failed = judged || c.Result != Skip && c.Result != Error, failed || c.Result == Fail
		}
		if n == 1 && !(again && judged) || n == r.Count || r.failfast && (failed || r.GivesUp()) {
			break
		}
	}
	for i := range all {
		c := &all[i]
		if c.Runs == 1 {
			c.Runs, c.Passed = 0, 0
			continue
		}
		c.Why = strings.TrimSuffix(fmt.Sprintf("%d of %d passed: %s", c.Passed, c.Runs, c.Why), ": ")
		c.Key += fmt.Sprint(" ", c.Passed)
	}
	return all
}
