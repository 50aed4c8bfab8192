package conformance

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	os.Unsetenv("GITHUB_ACTIONS")
	os.Unsetenv("GITHUB_STEP_SUMMARY") // which is not about what is tested here
	os.Exit(m.Run())
}

func check(name, requirement, result, why string) Check {
	level := cmp.Or(map[string]string{Warn: Should, Missed: May}[result], Must)
	return Check{Case: name, Requirement: requirement, Level: level, Result: result, Why: why, Seconds: 0.5}
}

// keyed returns a finding that is the same one as all with its key.
func keyed(key, name, requirement, why string) Check {
	c := check(name, requirement, Fail, why)
	c.Key = key
	return c
}

// reportTo returns a report that prints to out.
func reportTo(t *testing.T, out *bytes.Buffer, f Flags) *Report {
	t.Helper()
	r, err := f.Report("podscript", 0, out, out)
	require.NoError(t, err)
	return r
}

// endCase has a case end that has nothing before it.
func endCase(r *Report, name string, checks []Check, took time.Duration) {
	c := &Case{Name: name}
	r.order = append(r.order, c)
	r.end(c, checks, took)
}

// reported returns a report of cases with one check each, and what it has printed.
func reported(t *testing.T, f Flags, checks ...Check) (r *Report, out string) {
	t.Helper()
	var printed bytes.Buffer
	r = reportTo(t, &printed, f)
	for _, c := range checks {
		endCase(r, c.Case, []Check{c}, time.Second)
	}
	return r, printed.String()
}

func TestReportTellsAFindingInFullOnce(t *testing.T) {
	t.Parallel()
	_, out := reported(t, Flags{},
		keyed("left", "one", "clean", "it left process 12; it must not (4)"),
		keyed("left", "two", "clean", "it left process 345; it must not (4)"),
		keyed("late", "three", "prompt", "it left process 12; it must not (4)"),
		keyed("file", "four", "clean", "it left a file; it must not (4)\nprogram: hang;"),
		keyed("file", "five", "clean", "it left a file; it must not (4)\nprogram: serve;"),
		check("six", "clean", Fail, "it left a file; it must not (4)"),
		check("seven", "clean", Fail, "it left a file; it must not (4)"),
	)
	assert.Equal(t, `FAIL  one                           1.000s
      clean (must): it left process 12; it must not (4)
FAIL  two                           1.000s
      clean (must): as in one
FAIL  three                         1.000s
      prompt (must): it left process 12; it must not (4)
FAIL  four                          1.000s
      clean (must): it left a file; it must not (4)
        program: hang;
FAIL  five                          1.000s
      clean (must): as in four
        program: serve;
FAIL  six                           1.000s
      clean (must): it left a file; it must not (4)
FAIL  seven                         1.000s
      clean (must): it left a file; it must not (4)
`, out)
}

func TestReportTellsWhatLedThereAndWhatToDo(t *testing.T) {
	t.Parallel()
	finding := func(name string) Check {
		return Check{Case: name, Requirement: name, Level: Must, Result: Fail, Key: "gone", Why: "it is gone\na pod must be there (1)", Log: "> look\nFAIL: 1", Fix: "do not go: " + name}
	}
	r, out := reported(t, Flags{}, finding("one"), finding("two"), Check{Case: "three", Requirement: "three", Result: Skip, Why: "needs `one`\nand more"})
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
	require.NoError(t, summarized(r, 0).writeJUnit(&xml))
	assert.Contains(t, xml.String(), `<testcase name="one" classname="podscript"`)
	assert.Contains(t, xml.String(), "fix: do not go: two")
}

func TestReportCannotRuleATerminal(t *testing.T) {
	t.Parallel()
	evil := "\x1b]0;evil\a"
	r, out := reported(t, Flags{}, check(evil, evil, Warn, "it said \x1b[2J\xff"))
	assert.Contains(t, out, `WARN  \x1b]0;evil\a`)
	_, err := r.Finish(nil)
	require.NoError(t, err)
	var errs bytes.Buffer
	assert.Equal(t, 2, Status("podscript", 0, Usagef("no scenario %s\nhere", evil), &errs))
	assert.Equal(t, "podscript: no scenario \\x1b]0;evil\\a\nhere\n", errs.String())
	for _, text := range []string{out, r.Out.(*bytes.Buffer).String()} {
		assert.NotContains(t, text, "\x1b")
		assert.NotContains(t, text, "\a")
		assert.NotContains(t, text, "\xff")
	}
}

func TestSummaryCountsCasesByTheirWorstCheck(t *testing.T) {
	t.Parallel()
	r := reportTo(t, &bytes.Buffer{}, Flags{})
	endCase(r, "one", []Check{check("one", "a", Pass, ""), check("one", "b", Warn, "why")}, 0)
	endCase(r, "two", []Check{check("two", "a", Pass, ""), check("two", "b", Skip, "why")}, 0)
	endCase(r, "three", []Check{check("three", "a", Skip, "why")}, 0)
	s := r.results.summarize(1500 * time.Millisecond)
	assert.Equal(t, Summary{Cases: 3, Passed: 1, Warned: 1, Skipped: 1, Findings: map[string]int{"b": 1}, OK: true, Seconds: 1.5}, s)
	assert.Equal(t, "1 passed, 0 failed, 1 warned, 1 skipped in 1.5s; findings: b 1", s.String())
	endCase(r, "four", []Check{check("four", "a", Missed, "why"), check("four", "b", Pass, "")}, 0)
	endCase(r, "five", []Check{check("five", "a", Error, "why"), check("five", "b", Warn, "why")}, 0)
	s = r.results.summarize(1500 * time.Millisecond)
	assert.Equal(t, "1 passed, 0 failed, 1 warned, 1 skipped, 1 missed that a pod may leave out, 1 not judged in 1.5s; findings: b 2", s.String())
	assert.False(t, s.OK)
	endCase(r, "six", []Check{check("six", "a", Error, "why"), check("six", "b", Fail, "why")}, 0)
	assert.Equal(t, 1, r.results.summarize(0).Failed)
}

func TestStatusTellsAFindingFromWhatCouldNotBeJudged(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		results []string
		ended   error
		want    int
	}{
		{[]string{Pass, Warn, Missed, Skip}, nil, 0},
		{[]string{Pass, Error}, nil, 3},
		{[]string{Fail, Error}, nil, 1},
		{[]string{Pass}, errors.New("the time was over"), 3},
		{[]string{Fail}, errors.New("the time was over"), 1},
		{[]string{Fail}, ErrInterrupted, 130},
		{[]string{Fail}, Usagef("no such client"), 2},
	} {
		r := reportTo(t, &bytes.Buffer{}, Flags{})
		for _, result := range tc.results {
			endCase(r, result, []Check{check(result, "a", result, "why")}, 0)
		}
		status, err := r.Finish(tc.ended)
		assert.Equal(t, tc.want, Status("podscript", status, err, io.Discard), "%v %v", tc.results, tc.ended)
	}
}

func TestStrictMakesAShouldAMust(t *testing.T) {
	t.Parallel()
	strict, lax := Flags{Strict: true}, Flags{}
	assert.Equal(t, []string{Fail, Fail, Missed}, []string{strict.NotMet(Must), strict.NotMet(Should), strict.NotMet(May)})
	assert.Equal(t, []string{Fail, Warn, Missed}, []string{lax.NotMet(Must), lax.NotMet(Should), lax.NotMet(May)})
}

func TestCasesAreReportedInTheirOrder(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := reportTo(t, &out, Flags{Parallel: 3})
	last := make(chan struct{})
	pass := func(name string) *Case {
		return &Case{Name: name, Run: func(func()) []Check {
			if name == "c" {
				close(last)
			} else {
				<-last
			}
			return []Check{check(name, name, Pass, "")}
		}}
	}
	require.NoError(t, r.Run(t.Context(), []*Case{pass("a"), pass("b"), pass("c")}))
	assert.Regexp(t, `^PASS  a .*\nPASS  b .*\nPASS  c .*\n$`, out.String())
}

// summarized returns what a report has found in a run that took so long.
func summarized(r *Report, took time.Duration) *Results {
	r.results.Summary = r.results.summarize(took)
	return &r.results
}

func TestReportAsJSON(t *testing.T) {
	t.Parallel()
	finding := keyed("key", "one", "clean", "why")
	finding.Section, finding.Runs, finding.Passed = "1, 2", 3, 1
	r, _ := reported(t, Flags{Tested: Tested{Argv: []string{"/bin/agent", "pod"}}}, finding, check("two", "clean", Pass, ""))
	path := filepath.Join(t.TempDir(), "run.json")
	var out bytes.Buffer
	require.NoError(t, summarized(r, time.Second).writeJSON(&out))
	require.NoError(t, os.WriteFile(path, out.Bytes(), 0o600))
	lines := strings.SplitAfter(out.String(), "\n")
	require.Len(t, lines, 5)
	assert.Regexp(t, `^{"tested":{"name":"agent","command":"podscript","argv":\["/bin/agent","pod"\],"version":"[^"]+","commit":"[^"]+","system":"\w+/\w+","kernel":"[^"]+","time":"`, lines[0])
	assert.Equal(t, `{"case":"one","requirement":"clean","level":"must","section":"1, 2","result":"fail","why":"why","seconds":0.5,"runs":3,"passed":1,"key":"key"}`+"\n", lines[1])
	assert.Equal(t, `{"case":"two","requirement":"clean","level":"must","result":"pass","why":"","seconds":0.5}`+"\n", lines[2])
	read, err := ReadResults(path)
	require.NoError(t, err)
	assert.True(t, r.results.Tested.Time.Equal(read.Tested.Time))
	read.Tested.Time, r.results.File = r.results.Tested.Time, path
	assert.Equal(t, &r.results, read)
}

func TestReadResultsNamesTheLineThatIsWrong(t *testing.T) {
	t.Parallel()
	const tested, pass, summary = `{"tested":{"name":"a"}}` + "\n", `{"case":"a","requirement":"a","result":"pass"}` + "\n", `{"cases":1,"findings":{}}` + "\n"
	dir := t.TempDir()
	for name, tc := range map[string]struct{ text, want string }{
		"empty":     {"", ":1: unexpected end of JSON input"},
		"text":      {"PASS\n", ":1: invalid character 'P'"},
		"headless":  {pass + summary, ":1: it does not tell what was tested"},
		"only-head": {tested, ":1: no summary follows: the file was cut short"},
		"cut-short": {tested + pass, ":2: it is no summary"},
		"two-runs":  {tested + pass + summary + tested + pass + summary, `:3: the result of a check cannot be ""`},
		"result":    {tested + strings.Replace(pass, "pass", "good", 1) + summary, `:2: the result of a check cannot be "good"`},
		"right":     {tested + pass + summary, ""},
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(tc.text), 0o600))
		if _, err := ReadResults(path); tc.want == "" {
			assert.NoError(t, err)
		} else {
			assert.ErrorContains(t, err, path+tc.want)
		}
	}
	_, err := ReadResults(filepath.Join(dir, "nosuch"))
	assert.ErrorContains(t, err, "no such file")
}

func TestTestedHasTheFlagsThatMatter(t *testing.T) {
	t.Parallel()
	var f Flags
	flags := flag.NewFlagSet("podclient", flag.ContinueOnError)
	flags.Duration("timeout", 0, "")
	args := []string{"-strict", "-json", "x", "--timeout=3s", "-env", "TOKEN=secret", "-env=HOME", "-run", "^a b$", "-v=true", "-skip", "-x", "--", "client", "-strict"}
	require.NoError(t, f.Parse(flags, "", args, io.Discard, io.Discard))
	assert.Equal(t, []string{"-strict", "-timeout=3s", "-env=TOKEN", "-env=HOME", "-run=^a b$", "-skip=-x"}, f.Tested.Flags)
}

func TestReportAsJUnit(t *testing.T) {
	t.Parallel()
	r, _ := reported(t, Flags{}, check("one", "clean", Fail, "a <b>\x1b\nc"), check("two", "reason", Warn, "w"), check("three", "clean", Pass, ""), check("four", "clean", Skip, "s"), check("five", "clean", Error, "e"))
	r.results.Tested = Tested{Name: "agent \x1b", Command: "podscript", Argv: []string{"./agent", "a b"}, Version: "v1", System: "plan9/mips"}
	var out bytes.Buffer
	require.NoError(t, summarized(r, time.Second).writeJUnit(&out))
	for name, value := range map[string]string{"argv": "./agent &#39;a b&#39;", "version": "v1", "system": "plan9/mips"} {
		assert.Contains(t, out.String(), fmt.Sprintf("<property name=%q value=%q>", name, value))
	}
	assert.Contains(t, out.String(), `<testsuite name="agent \x1b"`)
	assert.Contains(t, out.String(), `tests="5" failures="1" errors="1"`)
	assert.Contains(t, out.String(), `skipped="1"`)
	assert.Contains(t, out.String(), `name="one/clean" classname="agent \x1b"`)
	assert.Contains(t, out.String(), `<error message="e">`)
	assert.NotContains(t, out.String(), "\x1b")
}

func TestReportNamesTheContractWhereAFindingHasASection(t *testing.T) {
	t.Parallel()
	for section, want := range map[string]bool{"": false, "1, 2": true} {
		finding := check("one", "one", Fail, "it ended with a section (1)")
		finding.Section = section
		r, _ := reported(t, Flags{}, finding)
		_, err := r.Finish(nil)
		require.NoError(t, err)
		assert.Equal(t, want, strings.Contains(r.Out.(*bytes.Buffer).String(), "(N) is a section of the contract"))
	}
}
