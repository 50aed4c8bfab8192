package conformance

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func check(name, requirement, result, why string) Check {
	level := Must
	if result == Warn {
		level = Should
	}
	return Check{Case: name, Requirement: requirement, Level: level, Result: result, Why: why, Seconds: 0.5}
}

// reported returns a report of cases with one check each, and what it has printed.
func reported(t *testing.T, r *Report, checks ...Check) string {
	t.Helper()
	var out bytes.Buffer
	r.Out = &out
	for _, c := range checks {
		require.NoError(t, r.Case(c.Case, time.Second, []Check{c}))
	}
	return out.String()
}

func TestReportTellsAFindingInFullOnce(t *testing.T) {
	t.Parallel()
	out := reported(t, &Report{},
		check("one", "clean", Fail, "it left process 12; it must not (4)"),
		check("two", "clean", Fail, "it left process 345; it must not (4)"),
		check("three", "prompt", Fail, "it left process 12; whatever it must (4)"),
		check("four", "clean", Fail, "it left a file; it must not (4)\nprogram: hang;"),
		check("five", "clean", Fail, "it left a file; it must not (4)\nprogram: serve;"),
	)
	assert.Equal(t, `FAIL  one                           1.000s
      clean (must): it left process 12; it must not (4)
FAIL  two                           1.000s
      clean (must): as in one
FAIL  three                         1.000s
      prompt (must): as in one
FAIL  four                          1.000s
      clean (must): it left a file; it must not (4)
        program: hang;
FAIL  five                          1.000s
      clean (must): as in four
        program: serve;
`, out)
}

func TestReportTellsWhatLedThereAndWhatToDo(t *testing.T) {
	t.Parallel()
	finding := func(name string) Check {
		return Check{Case: name, Requirement: name, Level: Must, Result: Fail, Why: "it is gone\na pod must be there (1)", Log: "> look\nFAIL: 1", Fix: "do not go: " + name}
	}
	r := &Report{Name: "podscript"}
	out := reported(t, r, finding("one"), finding("two"), Check{Case: "three", Requirement: "three", Result: Skip, Why: "needs `one`\nand more"})
	assert.Equal(t, "FAIL  one                           1.000s\n"+`      one (must): it is gone
        a pod must be there (1)
        > look
        FAIL: 1
        fix: do not go: one
FAIL  two                           1.000s
      two (must): as in one
        a pod must be there (1)
        fix: do not go: two
`+"SKIP  three                         1.000s  needs `one`; and more\n", out)
	var xml bytes.Buffer
	require.NoError(t, r.WriteJUnit(&xml, r.Summary(0)))
	assert.Contains(t, xml.String(), `<testcase name="one" classname="podscript"`)
	assert.Contains(t, xml.String(), "fix: do not go: two")
}

func TestReportCannotRuleATerminal(t *testing.T) {
	t.Parallel()
	out := reported(t, &Report{}, check("one", "reason", Warn, "it said \x1b[2J\xff"))
	assert.NotContains(t, out, "\x1b")
	assert.NotContains(t, out, "\xff")
	assert.Contains(t, out, "WARN  one ")
}

func TestSummaryCountsCasesByTheirWorstCheck(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		r := &Report{Strict: strict, Out: &bytes.Buffer{}}
		require.NoError(t, r.Case("one", 0, []Check{check("one", "a", Pass, ""), check("one", "b", Warn, "why")}))
		require.NoError(t, r.Case("two", 0, []Check{check("two", "a", Pass, ""), check("two", "b", Skip, "why")}))
		require.NoError(t, r.Case("three", 0, []Check{check("three", "a", Skip, "why")}))
		s := r.Summary(1500 * time.Millisecond)
		assert.Equal(t, Summary{Cases: 3, Passed: 1, Warned: 1, Skipped: 1, Findings: map[string]int{"b": 1}, OK: !strict, Seconds: 1.5}, s)
		assert.Equal(t, "1 passed, 0 failed, 1 warned, 1 skipped in 1.5s; findings: b 1", s.String())
		require.NoError(t, r.Case("four", 0, []Check{check("four", "a", Warn, "why"), check("four", "b", Fail, "why")}))
		s = r.Summary(0)
		assert.Equal(t, 1, s.Failed)
		assert.False(t, s.OK)
	}
}

func TestReportAsJSON(t *testing.T) {
	t.Parallel()
	r := &Report{}
	reported(t, r, check("one", "clean", Fail, "why"), check("two", "clean", Pass, ""))
	var out bytes.Buffer
	require.NoError(t, r.WriteJSON(&out, r.Summary(time.Second)))
	lines := strings.SplitAfter(out.String(), "\n")
	require.Len(t, lines, 4)
	assert.Equal(t, `{"case":"one","requirement":"clean","level":"must","result":"fail","why":"why","seconds":0.5}`+"\n", lines[0])
	var s Summary
	require.NoError(t, json.Unmarshal([]byte(lines[2]), &s))
	assert.Equal(t, r.Summary(time.Second), s)
}

func TestReportAsJUnit(t *testing.T) {
	t.Parallel()
	for strict, failures := range map[bool]string{false: `failures="1"`, true: `failures="2"`} {
		r := &Report{Name: "podclient", Strict: strict}
		reported(t, r, check("one", "clean", Fail, "a <b>\x1b\nc"), check("two", "reason", Warn, "w"), check("three", "clean", Pass, ""), check("four", "clean", Skip, "s"))
		var out bytes.Buffer
		require.NoError(t, r.WriteJUnit(&out, r.Summary(time.Second)))
		assert.Contains(t, out.String(), `tests="4" `+failures)
		assert.Contains(t, out.String(), `skipped="1"`)
		assert.Contains(t, out.String(), `name="one/clean" classname="podclient"`)
		assert.NotContains(t, out.String(), "\x1b")
	}
}
