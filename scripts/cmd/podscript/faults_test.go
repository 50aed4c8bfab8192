package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
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
	"fault-honest":   {{"ends-with-0", `^call 1 of (mkdir|bind) .* with EACCES`}, {"ready-in-pieces", `^call 2 of write .*/stderr.log with ENOSPC`}, {"early", `^call 1 of bind .* with EACCES`}},
	"fault-told":     {{"ends-silently", `^call 1 of (mkdir|bind) .* with EACCES`}},
	"fault-clean":    {{"leaves-helper", `^call 1 of bind .* with EACCES`}},
	"fault-serving":  {{"stops-accepting", `of accept .* with EMFILE`}, {"spins-on-emfile", `of accept .* all later ones with EMFILE`}},
	"fault-stop":     {{"never-ends-stop", `of unlink .*/\{name\} and all later ones with EACCES`}},
	"fault-restart":  {{"leaves-lock", `^call 1 of bind .* with EACCES`}, {"temporary-must-be-new", `of write .*/status.json.new with ENOSPC`}, {"writes-in-place", `of write .*/status.json with ENOSPC`}},
	"crash-restart":  {{"writes-in-place", `of write .*/status.json with SIGKILL`}, {"leaves-lock", `^call 1 of bind .* with SIGKILL`}},
}

// swept runs the trials of a pod whose texts match, and returns the findings and what is told.
func swept(t *testing.T, trials string, pod ...string) (findings []conformance.Check, stdout string) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	s, err := parse(append([]string{"-faults", "-strict", "-budget", "20m", "-timeout", "20m", "-json", report}, pod...), io.Discard, io.Discard)
	require.NoError(t, err)
	f := newFaultSweep(&s)
	f.scrap = t.TempDir()
	wanted, any := regexp.MustCompile(trials), false
	f.Choose = func(trial sweep.Trial) bool {
		any = any || wanted.MatchString(trial.String())
		return wanted.MatchString(trial.String())
	}
	var out bytes.Buffer
	_, err = f.Main("podscript", &out, io.Discard)
	require.NoError(t, err, out.String())
	require.True(t, any, "no trial matches %s: %s", trials, out.String())
	results, err := conformance.ReadResults(report)
	require.NoError(t, err)
	for _, c := range results.Checks {
		assert.NotEqual(t, conformance.Error, c.Result, c.Why)
	}
	return slices.DeleteFunc(results.Checks, func(c conformance.Check) bool { return !c.IsFinding() }), out.String()
}

// wrong are the flags for a wrong pod.
func wrong(fault string) []string {
	return []string{"-pod", os.Args[0], "-env", asWrongPod + "=" + fault, "-grace", "2s", "-ready-timeout", "4s"}
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
				if os.Getenv("PODHARNESS_LONG") == "" && slices.Contains([]string{"fault-answered", "fault-serving", "fault-stop"}, r.ID) {
					t.Skip("it shows when a time is over: run with PODHARNESS_LONG=1")
				}
				oneIn(t, 2)
				findings, _ := swept(t, tc.trials, wrong(tc.fault)...)
				assert.True(t, slices.ContainsFunc(findings, func(c conformance.Check) bool { return c.Requirement == r.ID && c.Result == conformance.Fail }), "%+v", findings)
			})
		}
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		oneIn(t, 1<<30)
		findings, stdout := swept(t, strings.Join(all, "|"), wrong("none")...)
		assert.Empty(t, findings, stdout)
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

// TestPodsOfOtherLanguagesPassWithFaults has all points, one pod after the other.
func TestPodsOfOtherLanguagesPassWithFaults(t *testing.T) {
	needFaults(t)
	if os.Getenv("PODHARNESS_LONG") == "" {
		t.Skip("run with PODHARNESS_LONG=1")
	}
	for _, name := range []string{"pod.py", "pod.js", "pod.c", "pod.rs", "pod.go", "Pod.java"} {
		t.Run(name, func(t *testing.T) {
			trials := map[string]string{
				"Pod.java": "^call [0-9]+ of ([a-su-z]|truncate)",                             // a JVM makes threads as it likes, and one for each signal
				"pod.js":   `^call [0-9]+ of ([b-z]|accept \S+ with |accept .* ECONNABORTED)`, // Node tries accept again by itself, without a pause
			}
			findings, stdout := swept(t, trials[name], podFlags(t, name, podSource(t, name))...)
			assert.Empty(t, findings, stdout)
			t.Log(stdout)
		})
	}
}

func TestFindingOfAFaultIsToldOnceAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	needFaults(t)
	findings, _ := swept(t, `^call 1 of rename .*/pid with (EACCES|ENOSPC)$`, "-pod", wrongScript(t, "ends-silently"), "-grace", "2s")
	require.Len(t, findings, 1)
	c := findings[0]
	assert.Equal(t, "fault-told", c.Requirement)
	assert.Equal(t, "rename-pid", c.Case)
	const told = `(?s)^its last words do not name what failed: .*\n1 point shows this, first call 1 of rename \{runtime\}/\{name\}/pid with \w+; -known calls it fault-told/rename-pid\n` +
		`repeat: (podscript -fault ('rename:path=\{runtime\}/\{name\}/pid:error=\w+:when=1') -run '?\^fault-told\$'? -pod=\S+ -grace=2s)\nin a scenario: podstart -fault (\S+) alpha$`
	require.Regexp(t, told, c.Why)
	lines := regexp.MustCompile(told).FindStringSubmatch(c.Why)
	assert.Equal(t, lines[2], lines[3])
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	again, _ := exec.CommandContext(ctx, "sh", "-c", "podscript() { "+asPodscript+`=1 "$0" "$@"; }; `+lines[1], os.Args[0]).CombinedOutput()
	assert.Contains(t, string(again), "fault-told (should): its last words do not name what failed", lines[1])
}

// wrongScript returns the path of a script that is a wrong pod.
func wrongScript(t *testing.T, fault string) string {
	pod := filepath.Join(t.TempDir(), "pod")
	require.NoError(t, os.WriteFile(pod, []byte("#!/bin/sh\n"+asWrongPod+"="+fault+" exec \""+os.Args[0]+"\" \"$@\"\n"), 0o700))
	return pod
}

// TestPodThatWasKilledLeavesNothingByItsOwnFault has one that hangs in its stop while its helper runs.
func TestPodThatWasKilledLeavesNothingByItsOwnFault(t *testing.T) {
	t.Parallel()
	needFaults(t)
	findings, _ := swept(t, `of unlink .*/\{name\} and all later ones with EACCES`, append(wrong("helper-and-hangs"), "-grace", "1s")...)
	require.Len(t, findings, 1)
	assert.Equal(t, "fault-stop", findings[0].Requirement)
}

// TestStartThatEndsInTimeIsNoHang has one that takes longer to end than most runs may wait.
func TestStartThatEndsInTimeIsNoHang(t *testing.T) {
	t.Parallel()
	needFaults(t)
	if os.Getenv("PODHARNESS_LONG") == "" {
		t.Skip("it takes a while: run with PODHARNESS_LONG=1")
	}
	findings, stdout := swept(t, `^call 1 of rename .*/pid with EACCES$`, "-pod", os.Args[0], "-env", asWrongPod+"=slow-error")
	assert.Empty(t, findings, stdout)
}

func TestEvidenceOfAFaultIsKept(t *testing.T) {
	t.Parallel()
	needFaults(t)
	dir := filepath.Join(t.TempDir(), "evidence")
	byCase, _, stdout, status := checks(t, "-pod", wrongScript(t, "ends-with-0"), "-fault", "bind:error=EACCES:when=1", "-o", dir, "-run", "^fault-honest$")
	assert.Equal(t, 1, status, stdout)
	for _, c := range byCase {
		assert.Equal(t, "fault-honest", c.Requirement)
		for _, file := range []string{"report.html", faultPod + ".txtar", faultPod + ".log"} {
			assert.FileExists(t, filepath.Join(c.Evidence, file), stdout)
		}
	}
}

func TestPodThatIsNotHealthyIsNotJudged(t *testing.T) {
	t.Parallel()
	needFaults(t)
	byCase, _, stdout, status := checks(t, "-faults", "-pod", "false")
	assert.Equal(t, 3, status, stdout)
	assert.Equal(t, conformance.Error, byCase["fault-answered"].Result)
	assert.Regexp(t, `^the pod is not healthy without faults: pod exited before becoming ready \(exit status 1\)[^\n]*$`, byCase["fault-answered"].Why, "nor a log that is gone")
	assert.Equal(t, "needs a pod that is healthy without faults", byCase["fault-stop"].Why)
}

func TestContractNamesEachRequirementOfFaults(t *testing.T) {
	t.Parallel()
	contract, err := os.ReadFile("../../../spawn/HANDSHAKE.md")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	_, section, _ := strings.Cut(string(contract), "\n## 5b. ")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, r := range faultRequirements {
		assert.Regexp(t, `\[pod:[^]]* `+r.ID+`[],]`, section)
	}
}

func TestUsageOfFaults(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"-budget goes with -faults":                                                            {"-budget", "5s"},
		"-u does not go with -faults: it is about scenarios":                                   {"-faults", "-u"},
		"-faults runs no scenario, and so not a.txtar: -fault is one fault for it":             {"-faults", "a.txtar"},
		"-fault is one fault, and -faults all of them: choose":                                 {"-faults", "-fault", "open:error=EIO"},
		`unknown system call "nonsense"`:                                                       {"-fault", "nonsense"},
		"{runtme} stands for nothing: the words are {runtime}, {home}, {workspace} and {name}": {"-fault", "mkdir:path={runtme}/{name}:error=EIO"},
		"-budget -1s leaves no time":                                                           {"-faults", "-budget", "-1s"},
		`no case matches -run "starts"`:                                                        {"-faults", "-run", "starts"},
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

func TestOneFaultForScenariosOrRequirements(t *testing.T) {
	t.Parallel()
	needFaults(t)
	const bind = "bind:path={runtime}/{name}/sock:error=EADDRINUSE:when=1"
	for name, tc := range map[string]struct{ fault, run, result, why string }{
		"a scenario fails":      {bind, "starts", conformance.Fail, "pod exited before becoming ready (exit status 1): "},
		"a client has the pod":  {"accept:path=**/sock:delay=1ms", "independent", conformance.Pass, ""},
		"a client fails":        {bind, "independent", conformance.Fail, "podspawn: pod exited before becoming ready (exit status 1): "},
		"a requirement is met":  {bind, "fault-told", conformance.Pass, ""},
		"a scenario is not met": {"bind:path=/nowhere:error=EIO", "starts", conformance.Skip, "the fault has struck nothing: the call did not come"},
		"a scenario is met":     {"bind:path=**/sock:delay=1ms", "starts", conformance.Pass, ""},
		"the call takes longer": {"bind:path=**/sock:delay=1h", "fault-answered", conformance.Skip, "no run was about it"},
		"it has struck nothing": {"bind:path=/nowhere:error=EIO", "fault-told", conformance.Skip, "the fault has struck nothing: the call did not come"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			byCase, _, stdout, _ := checks(t, "-fault", tc.fault, "-run", "^"+tc.run+"$", "-ready-timeout", "2s")
			assert.Len(t, byCase, 1)
			assert.Equal(t, tc.result, byCase[tc.run].Result, stdout)
			assert.Contains(t, byCase[tc.run].Why, tc.why)
		})
	}
}

// TestScenarioIsRunWhereThatBeforeHasMetNoFault has a fault that the pod of starts may not come to.
func TestScenarioIsRunWhereThatBeforeHasMetNoFault(t *testing.T) {
	t.Parallel()
	needFaults(t)
	byCase, _, stdout, _ := checks(t, "-fault", "unlink:path={runtime}/{name}/status.json:delay=1ms", "-run", "^(starts|stop-signal)$")
	assert.Equal(t, conformance.Skip, byCase["starts"].Result, stdout)
	assert.Equal(t, conformance.Pass, byCase["stop-signal"].Result, stdout)
}

// TestInterruptedFaultsAreReported interrupts them once the first finding is there.
func TestInterruptedFaultsAreReported(t *testing.T) {
	t.Parallel()
	needFaults(t)
	dir := t.TempDir()
	p := startProcess(t, "-faults", "-parallel", "2", "-strict", "-pod", os.Args[0], "-env", asWrongPod+"=ends-silently", "-o", dir)
	require.Eventually(t, func() bool { found, _ := os.ReadDir(dir); return len(found) > 0 }, 20*time.Second, time.Millisecond)
	require.NoError(t, p.Process.Signal(os.Interrupt))
	assert.EqualError(t, p.wait(t), "exit status 130")
	assert.Equal(t, "podscript: interrupted\n", p.stderr.String())
	for _, text := range []string{`(?m)^FAIL  fault-told `, `(?m)^ +fault-told \(should\): its last words do not name what failed`, `interrupted: \d+ of \d+ runs were not begun`, `\n\d+ points, \d+ of \d+ runs in `} {
		assert.Regexp(t, text, p.stdout.String())
	}
	p.assertNothingIsLeft(t)
}
