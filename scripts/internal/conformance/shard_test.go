package conformance

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runsOf returns the Runs of a command line.
func runsOf(t *testing.T, args ...string) *Runs {
	t.Helper()
	var r Runs
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	r.AddFlags(flags, "case")
	require.NoError(t, flags.Parse(args))
	return &r
}

func TestRepeatMergesTheChecksOfEachRequirement(t *testing.T) {
	t.Parallel()
	check := func(requirement, result, why string) Check {
		return Check{Case: "c", Requirement: requirement, Result: result, Why: why, Key: requirement}
	}
	runs := [][]Check{
		{check("a", Pass, ""), check("b", Warn, "first")},
		{check("a", Fail, "second"), check("b", Pass, "")},
		{check("a", Fail, "third"), check("b", Warn, "third"), check("c", Pass, "")},
	}
	repeat := func(r *Runs, again bool) (checks []Check, n int) {
		return r.Repeat(func(i int) ([]Check, bool) { n = i; return runs[i-1], again }), n
	}
	got, n := repeat(runsOf(t, "-count", "3"), true)
	assert.Equal(t, 3, n)
	assert.Equal(t, []Check{
		{Case: "c", Requirement: "a", Result: Fail, Why: "1 of 3 passed: second", Key: "a 1", Runs: 3, Passed: 1},
		{Case: "c", Requirement: "b", Result: Warn, Why: "1 of 3 passed: first", Key: "b 1", Runs: 3, Passed: 1},
		check("c", Pass, ""),
	}, got)
	_, n = repeat(runsOf(t, "-count", "3", "-failfast"), true)
	assert.Equal(t, 2, n)
	got, n = repeat(runsOf(t, "-count", "3"), false)
	assert.Equal(t, 1, n)
	assert.Equal(t, runs[0], got)
	got, n = repeat(runsOf(t), true)
	assert.Equal(t, 1, n)
	assert.Equal(t, runs[0], got)

	skipped := []Check{check("a", Skip, "no")}
	assert.Equal(t, skipped, runsOf(t, "-count", "3").Repeat(func(int) ([]Check, bool) { return skipped, true }), "it would be skipped again")
}

func TestFailFastEndsAfterAFailureThatIsNotKnown(t *testing.T) {
	t.Parallel()
	r := runsOf(t, "-failfast")
	f := &Flags{known: []KnownLine{{Requirement: "a", Reason: "accepted"}}}
	r.Note(f, []Check{{Requirement: "a", Result: Fail}, {Requirement: "b", Result: Warn}, {Requirement: "b", Result: Error}})
	assert.False(t, r.GivesUp())
	copied := *r
	r.Note(f, []Check{{Requirement: "b", Result: Fail}})
	assert.True(t, r.GivesUp())
	assert.True(t, copied.GivesUp(), "it is the same run")
	assert.False(t, runsOf(t).GivesUp())
}
