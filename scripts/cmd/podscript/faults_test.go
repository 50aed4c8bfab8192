package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn/fault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func needFaults(t *testing.T) {
	t.Helper()
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
}

// faultPods has for each requirement wrong pods, and the runs that show what is wrong.
var faultPods = map[string][]struct{ fault, trials string }{
	"fault-answered": {{"waits-after-error", `^call 1 of rename .*/status.json with EACCES`}, {"ready-in-pieces", `^call 1 of write .*/stderr.log with ENOSPC`}},
	"fault-honest":   {{"ends-with-0", `^call 1 of (mkdir|bind) .* with EACCES`}, {"ready-in-pieces", `^call 2 of write .*/stderr.log with ENOSPC`}},
	"fault-told":     {{"ends-silently", `^call 1 of (mkdir|bind) .* with EACCES`}},
	"fault-clean":    {{"leaves-helper", `^call 1 of bind .* with EACCES`}},
	"fault-serving":  {{"stops-accepting", `of accept .* with EMFILE`}, {"spins-on-emfile", `of accept .* all later ones with EMFILE`}},
	"fault-stop":     {{"never-ends-stop", `of unlink .*/\{name\} and all later ones with EACCES`}},
	"fault-restart":  {{"leaves-lock", `^call 1 of bind .* with EACCES`}, {"temporary-must-be-new", `of write .*/status.json.new with ENOSPC`}, {"writes-in-place", `of write .*/status.json with ENOSPC`}},
	"crash-restart":  {{"writes-in-place", `of write .*/status.json with SIGKILL`}, {"leaves-lock", `^call 1 of bind .* with SIGKILL`}},
}

// swept runs the trials of a wrong pod whose texts match, and returns the findings.
func swept(t *testing.T, wrong, trials string) (findings []conformance.Check) {
	t.Helper()
	s, err := parse([]string{"-faults", "-pod", os.Args[0], "-env", asWrongPod + "=" + wrong, "-strict", "-grace", "2s", "-ready-timeout", "4s"}, io.Discard, io.Discard)
	require.NoError(t, err)
	f := newFaultSweep(&s)
	f.scrap = t.TempDir()
	points, err := f.observe()
	require.NoError(t, err)
	wanted := regexp.MustCompile(trials)
	all := slices.DeleteFunc(f.plan(points), func(t trial) bool { return !wanted.MatchString(t.String()) })
	require.NotEmpty(t, all, "of %v", points)
	f.runAll(all, time.Now())
	assert.Empty(t, f.trouble)
	for _, r := range faultRequirements {
		findings = append(findings, slices.DeleteFunc(f.checks(r, false), func(c conformance.Check) bool { return !c.IsFinding() })...)
	}
	return findings
}

func TestEachFaultRequirementFindsItsWrongPods(t *testing.T) {
	t.Parallel()
	needFaults(t)
	var all []string
	for _, r := range faultRequirements {
		assert.NotEmpty(t, faultPods[r.ID], "no wrong pod for %s", r.ID)
		for _, tc := range faultPods[r.ID] {
			all = append(all, tc.trials)
			t.Run(r.ID+"/"+tc.fault, func(t *testing.T) {
				t.Parallel()
				if os.Getenv("PODHARNESS_LONG") == "" && slices.Contains([]string{"fault-answered", "fault-stop"}, r.ID) {
					t.Skip("it shows when a time is over: run with PODHARNESS_LONG=1")
				}
				findings := swept(t, tc.fault, tc.trials)
				assert.True(t, slices.ContainsFunc(findings, func(c conformance.Check) bool { return c.Requirement == r.ID && c.Result == conformance.Fail }), "%+v", findings)
			})
		}
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		assert.Empty(t, swept(t, "none", strings.Join(all, "|")))
	})
}

func TestFakePodPassesWithFaults(t *testing.T) {
	t.Parallel()
	needFaults(t)
	byCase, _, stdout, status := checks(t, "-faults", "-strict", "-budget", "5s", "-seed", "7", "-timeout", "40s")
	assert.Zero(t, status, stdout)
	assert.Len(t, byCase, len(faultRequirements))
	assert.Regexp(t, `\n\d+ points, \d+ of \d+ runs in [0-9.]+s, -seed 7`, stdout)
}

func TestFindingOfAFaultIsToldOnceAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	needFaults(t)
	findings := swept(t, "ends-silently", `^call 1 of rename .*/pid with (EACCES|ENOSPC)$`)
	require.Len(t, findings, 1)
	c := findings[0]
	assert.Equal(t, "fault-told", c.Requirement)
	assert.Equal(t, "rename-pid", c.Case)
	assert.Regexp(t, `(?s)^its last words do not name what failed: .*\n1 point shows this, first call 1 of rename \{runtime\}/\{name\}/pid with \w+; -known calls it fault-told/rename-pid\nrepeat: podstart -fault 'rename:path=\{runtime\}/\{name\}/pid:error=\w+:when=1' alpha$`, c.Why)
}

func TestEvidenceOfAFaultIsKept(t *testing.T) {
	t.Parallel()
	needFaults(t)
	dir := filepath.Join(t.TempDir(), "evidence")
	pod := filepath.Join(t.TempDir(), "pod")
	require.NoError(t, os.WriteFile(pod, []byte("#!/bin/sh\nexec \""+os.Args[0]+"\" \"$@\"\n"), 0o700))
	byCase, _, stdout, status := checks(t, "-faults", "-pod", pod, "-env", asWrongPod+"=ends-with-0", "-budget", "20s", "-o", dir, "-run", "^fault-honest$")
	assert.Equal(t, 1, status, stdout)
	for _, c := range byCase {
		assert.Equal(t, "fault-honest", c.Requirement)
		for _, file := range []string{"report.html", faultPod + ".txtar", faultPod + ".log"} {
			assert.FileExists(t, filepath.Join(c.Evidence, file), stdout)
		}
	}
}

func TestFaultsThatCannotBeAreSkipped(t *testing.T) {
	t.Parallel()
	f := newFaultSweep(&settings{})
	f.skip = fault.ErrUnsupported.Error()
	for _, r := range faultRequirements {
		checks := f.checks(r, true)
		require.Len(t, checks, 1)
		assert.Equal(t, conformance.Skip, checks[0].Result)
		assert.Equal(t, fault.ErrUnsupported.Error(), checks[0].Why)
	}
	if fault.Supported() == nil {
		return
	}
	stdout, _, status := podscript(t, "-faults")
	assert.Zero(t, status, stdout)
}

func TestPodThatIsNotHealthyIsNotJudged(t *testing.T) {
	t.Parallel()
	needFaults(t)
	byCase, _, stdout, status := checks(t, "-faults", "-pod", "false")
	assert.Equal(t, 3, status, stdout)
	assert.Equal(t, conformance.Error, byCase["fault-answered"].Result)
	assert.Contains(t, byCase["fault-answered"].Why, "the pod is not healthy without faults: pod exited before becoming ready (exit status 1)")
	assert.Equal(t, "needs a pod that is healthy without faults", byCase["fault-stop"].Why)
}

func TestPatternsOfPaths(t *testing.T) {
	t.Parallel()
	w := world{root: "/tmp/x/1", runtime: "/tmp/x/1/run", home: "/tmp/x/1/home", workspace: "/tmp/x/1/workspace1"}
	for path, want := range map[string]string{
		"/tmp/x/1/run/alpha/sock":      "{runtime}/{name}/sock",
		"/tmp/x/1/run/alphabet":        "{runtime}/alphabet",
		"/tmp/x/1/run":                 "{runtime}",
		"/tmp/x/1/home/a*b":            `{home}/a\*b`,
		"/tmp/x/1/workspace1/t12345.x": "{workspace}/t*.x",
		"/tmp/x/1/tmp/a":               "**/tmp/a",
		"/tmp/x/11/run":                "",
		"/etc/passwd":                  "",
		"socket:[4711]":                "",
	} {
		assert.Equal(t, want, w.pattern(path), path)
	}
	w.all = true
	assert.Equal(t, "/etc/passwd", w.pattern("/etc/passwd"))
}

func TestPlanTakesEachKindInTurn(t *testing.T) {
	t.Parallel()
	plan := func(seed uint64, args ...string) []trial {
		s, err := parse(append([]string{"-faults"}, args...), io.Discard, io.Discard)
		require.NoError(t, err)
		s.faults.seed = seed
		var points []point
		for n := range 5 {
			points = append(points, point{family: "mkdir", when: n + 1, phase: "start"}, point{family: "sync", when: n + 1, phase: "stop"})
		}
		return newFaultSweep(&s).plan(points)
	}
	all := plan(1)
	require.Len(t, all, 5*(5+4))
	kinds := map[string]bool{}
	for _, t := range all[:9] {
		kinds[t.kind()] = true
	}
	assert.Len(t, kinds, 9, "the first of each kind come first")
	assert.Equal(t, all, plan(1))
	assert.NotEqual(t, all, plan(2))
	assert.ElementsMatch(t, all, slices.Concat(plan(1, "-shard", "1/2"), plan(1, "-shard", "2/2")))
}

func TestUsageOfFaults(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"-budget goes with -faults":                                                {"-budget", "5s"},
		"-u does not go with -faults: it is about scenarios":                       {"-faults", "-u"},
		"-faults runs no scenario, and so not a.txtar: podstart -fault is for one": {"-faults", "a.txtar"},
		"-budget -1s leaves no time":                                               {"-faults", "-budget", "-1s"},
		`no case matches -run "starts"`:                                            {"-faults", "-run", "starts"},
	} {
		_, stderr, status := podscript(t, args...)
		assert.Equal(t, 2, status, stderr)
		assert.Contains(t, stderr, want)
	}
	stdout, _, status := podscript(t, "-faults", "-list")
	assert.Zero(t, status)
	assert.Equal(t, len(faultRequirements), strings.Count(stdout, "\n"))
	assert.Contains(t, stdout, "crash-restart        must    5b       start again after a SIGKILL at any system call\n")
}
