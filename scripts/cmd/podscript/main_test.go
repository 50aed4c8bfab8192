package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"example.com/podharness/scripts/internal/conformance"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asPodscript is the environment variable that makes this binary podscript.
const asPodscript = "TEST_AS_PODSCRIPT"

// oneIn skips a test that is one of many, but for one in n. All are run with PODHARNESS_LONG=1.
func oneIn(t *testing.T, n uint32) {
	t.Helper()
	if os.Getenv("PODHARNESS_LONG") == "" && crc32.ChecksumIEEE([]byte(t.Name()))%n > 0 {
		t.Skip("they are many: run with PODHARNESS_LONG=1")
	}
}

func TestMain(m *testing.M) {
	if fault := os.Getenv(asWrongPod); fault != "" {
		runWrongPod(fault, os.Args[1:])
	}
	if os.Getenv(asPodscript) != "" {
		main()
	}
	os.Unsetenv("GITHUB_ACTIONS")
	os.Unsetenv("GITHUB_STEP_SUMMARY") // which is not about what is tested here
	flag.Parse()
	if !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.Contains(arg, "test.parallel=") }) {
		_ = flag.Set("test.parallel", "4") // the tests wait most of the time
	}
	os.Exit(m.Run())
}

// podscript runs the command in this process.
func podscript(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- run(args, &out, &errs) }()
	select {
	case status = <-ended:
	case <-time.After(time.Minute):
		require.Fail(t, "podscript has not ended", args)
	}
	return out.String(), errs.String(), status
}

func scenarioDir(t *testing.T, scenarios map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range scenarios {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

// process is podscript as a process of its own.
type process struct {
	*exec.Cmd
	temp           string // its TMPDIR
	stdout, stderr bytes.Buffer
	ended          chan error
}

// startProcess starts podscript with a TMPDIR of its own, of which, and of all
// that has it in its environment, nothing must be left a moment after its end.
func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	temp, err := os.MkdirTemp("/tmp", "ps") // not longer than the harness takes
	require.NoError(t, err)
	p := &process{Cmd: exec.Command(os.Args[0], args...), temp: temp, ended: make(chan error, 1)}
	p.Env = append(os.Environ(), asPodscript+"=1", "TMPDIR="+temp)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	p.WaitDelay = 10 * time.Second
	require.NoError(t, p.Start())
	go func() { p.ended <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		for _, pid := range processesWith(temp) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(temp)
	})
	return p
}

func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(30 * time.Second):
		require.Fail(t, "podscript has not ended")
		return nil
	}
}

// assertNothingIsLeft waits for the watchdog, and looks for what that finds here.
func (p *process) assertNothingIsLeft(t *testing.T) {
	t.Helper()
	var files []os.DirEntry
	var pids []int
	for late, tick := time.After(20*time.Second), time.Tick(5*time.Millisecond); ; { // nothing tells of it
		var err error
		files, err = os.ReadDir(p.temp)
		require.NoError(t, err)
		if findsProcesses {
			pids = processesWith(p.temp)
		}
		if len(files)+len(pids) == 0 {
			return
		}
		select {
		case <-tick:
			continue
		case <-late:
		}
		break
	}
	for _, pid := range pids {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		assert.Fail(t, "a process is left", "%d %q", pid, line)
	}
	assert.Empty(t, files)
}

// processesWith returns the processes with a text in their environment; none
// where that is not shown.
func processesWith(text string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		env, _ := os.ReadFile(file)
		if bytes.Contains(env, []byte(text)) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestPortableScenariosPassWithTheFakePod(t *testing.T) {
	t.Parallel()
	p := startProcess(t)
	assert.NoError(t, p.wait(t), "%s%s", &p.stdout, &p.stderr)
	assert.Regexp(t, `(?m)^PASS  independent +\d+\.\d{3}s$`, p.stdout.String())
	assert.Regexp(t, `^PASS  starts `, p.stdout.String(), "the others need it")
	assert.Regexp(t, `(?m)^SKIP  session +\d+\.\d{3}s  no stored session is named`, p.stdout.String())
	assert.Regexp(t, `\n[1-9]\d* passed, 0 failed, 0 warned, [13] skipped in \S+s\n$`, p.stdout.String())
	assert.Empty(t, p.stderr.String())
	p.assertNothingIsLeft(t)
}

// busy writes a scenario that starts whatever there is to be left: it says when
// it has begun, goes on for about 100 ms, and then hangs.
func busy(t *testing.T) (dir, begun string) {
	t.Helper()
	begun = filepath.Join(t.TempDir(), "begun")
	lines := []string{"exec sh -c 'trap \"\" INT; sleep 1000' &", "exec touch " + begun}
	for i := range 5 {
		lines = append(lines, fmt.Sprintf("podstart -fake escape p%d", i), "podcommand -fake escape", fmt.Sprintf("podspawn o%d", i), "exec sleep 1000 &")
	}
	lines = append(lines, "podstart -fake hang alpha")
	return scenarioDir(t, map[string]string{"hangs.txtar": strings.Join(lines, "\n")}), begun
}

// startBusy returns once the scenario has begun.
func startBusy(t *testing.T) *process {
	t.Helper()
	dir, begun := busy(t)
	p := startProcess(t, dir)
	require.Eventually(t, func() bool { _, err := os.Stat(begun); return err == nil }, 20*time.Second, time.Millisecond)
	return p
}

func TestNothingIsLeftOfAKilledPodscript(t *testing.T) {
	if !findsProcesses {
		t.Skip("what a killed process has left is found on Linux only")
	}
	t.Parallel()
	for range 24 {
		p := startBusy(t)
		time.Sleep(rand.N(150 * time.Millisecond)) // any moment will do
		require.NoError(t, p.Process.Kill())
		assert.EqualError(t, p.wait(t), "signal: killed")
		p.assertNothingIsLeft(t)
		if t.Failed() {
			return
		}
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, sig := range slices.Repeat([]os.Signal{os.Interrupt, syscall.SIGTERM}, 4) {
		p := startBusy(t)
		time.Sleep(rand.N(150 * time.Millisecond)) // any moment will do
		require.NoError(t, p.Process.Signal(sig))
		assert.EqualError(t, p.wait(t), "exit status 130")
		assert.Equal(t, "podscript: interrupted while these cases ran: hangs\n", p.stderr.String())
		if findsProcesses { // else they live on, and may make files in what is removed
			p.assertNothingIsLeft(t)
		}
		if t.Failed() {
			return
		}
	}
}

// TestInterruptedRunIsReported interrupts it once the first case was told of.
func TestInterruptedRunIsReported(t *testing.T) {
	t.Parallel()
	begun := filepath.Join(t.TempDir(), "begun")
	dir := scenarioDir(t, map[string]string{
		"good.txtar":  "exec true",
		"hangs.txtar": "# must: end\n# needs: good\n\nexec touch " + begun + "\npodstart -fake hang alpha",
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	p := startProcess(t, "-json", in("report.json"), "-junit", in("report.xml"), dir)
	require.Eventually(t, func() bool { _, err := os.Stat(begun); return err == nil }, 20*time.Second, time.Millisecond)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	assert.EqualError(t, p.wait(t), "exit status 130")
	assert.Contains(t, p.stdout.String(), "1 passed, 0 failed, 0 warned, 0 skipped, 1 not judged in ")
	report, err := os.ReadFile(in("report.json"))
	require.NoError(t, err)
	assert.Contains(t, string(report), `{"case":"hangs","requirement":"hangs","level":"must","result":"error","why":"interrupted while it ran"`)
	assert.Contains(t, string(report), `"ok":false`)
	report, err = os.ReadFile(in("report.xml"))
	require.NoError(t, err)
	assert.Contains(t, string(report), `<testcase name="good"`)
	assert.Contains(t, string(report), `<error message="interrupted while it ran">`)
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"wait.txtar":     "podstart alpha\npodwait -timeout 1h alpha",
		"stubborn.txtar": "podstart -fake stubborn -grace 1h alpha\npodstop alpha",
		"good.txtar":     "podstart alpha",
	})
	start := time.Now()
	p := startProcess(t, "-timeout", "2s", "-parallel", "3", dir)
	assert.EqualError(t, p.wait(t), "exit status 3")
	assert.Less(t, time.Since(start), 20*time.Second)
	assert.Contains(t, p.stdout.String(), "the time was over (-timeout 2s): podwait: pod alpha did not end within ", "that is no fault of the pod")
	assert.Contains(t, p.stdout.String(), "2 passed, 0 failed, 0 warned, 0 skipped, 1 not judged in ")
	assert.Equal(t, "podscript: the time was over (-timeout 2s) before all cases had ended by themselves\n", p.stderr.String())
	p.assertNothingIsLeft(t)
}

// TestHangingCommand runs what testscript itself waits for, for ever.
func TestHangingCommand(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"hangs.txtar": "exec sh -c 'trap \"\" QUIT; sleep 1000; true'"})
	p := startProcess(t, "-timeout", "500ms", dir)
	assert.EqualError(t, p.wait(t), "exit status 3")
	assert.Equal(t, "podscript: the time was over (-timeout 500ms) while these cases ran: hangs\n", p.stderr.String())
	p.assertNothingIsLeft(t)
}

func TestUnusableTemporaryDirectory(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), asPodscript+"=1", "TMPDIR=/nowhere")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), "%v", err)
	assert.Equal(t, 3, exit.ExitCode())
	assert.Equal(t, "podscript: make a temporary directory: stat /nowhere: no such file or directory (TMPDIR names where)\n", string(out))
}

func TestFailedScenarioIsShown(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"bad.txtar":  "podstart -fake 'log broken; exit 7' alpha",
		"good.txtar": "podstart alpha",
		"skip.txtar": "skip 'not today'",
	})
	stdout, _, status := podscript(t, dir)
	assert.Equal(t, 1, status)
	assert.Regexp(t, `(?m)^FAIL  bad `, stdout)
	assert.Contains(t, stdout, "      bad (must): pod exited before becoming ready (exit status 7): broken\n        > podstart ")
	assert.Contains(t, stdout, "        FAIL: "+filepath.Join(dir, "bad.txtar")+":1: ")
	assert.NotContains(t, stdout, "HANDSHAKE.md", "it says nothing of the contract")
	assert.Regexp(t, `(?m)^PASS  good `, stdout)
	assert.Regexp(t, `(?m)^SKIP  skip `, stdout)
	assert.Contains(t, stdout, "not today")
	assert.NotContains(t, stdout, "> podstart alpha", "of a scenario that passed")
	assert.Contains(t, stdout, "1 passed, 1 failed, 0 warned, 1 skipped in ")
}

func TestFindingTellsWhatThePodWroteLast(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"dies.txtar":    "podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"log ''out of {{memory}}''; exit 3\"}}'\n! podwait alpha\nstdout nothing",
		"healthy.txtar": "podstart alpha\nexists nothing",
	})
	stdout, _, status := podscript(t, dir)
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "\n        pod alpha wrote last: out of {memory}}\n")
	assert.Equal(t, 1, strings.Count(stdout, "wrote last"), "where it is no ready line:\n%s", stdout)
	assert.NotContains(t, stdout, "work/", "what is gone")
}

// TestFindingOfAClient has the reason that the client gave, or that its pod did.
func TestFindingOfAClient(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"spawn.txtar": "podcommand -fake early-exit\npodspawn alpha",
		"adopt.txtar": "podcommand -fake early-exit\nmkdir $RUNTIME_DIR/alpha\nexec sh -c '\"$YOI_POD_RUNTIME_COMMAND\" pod --workspace . --pod alpha 2>$RUNTIME_DIR/alpha/stderr.log; true'\npodadopt -timeout 500ms alpha",
	})
	all, _, out, _ := checks(t, dir)
	assert.Equal(t, "podspawn: pod exited before becoming ready (exit status 7): cannot open session store", all["spawn"].Why)
	assert.Equal(t, "no pod alpha to adopt within 500ms: it has written no ready line", all["adopt"].Why)
	assert.Contains(t, all["adopt"].Log, "\n    cannot open session store", out)
}

func TestFindingNamesTheLeak(t *testing.T) {
	t.Parallel()
	if !findsProcesses {
		t.Skip("what pods leave is not found here")
	}
	dir := scenarioDir(t, map[string]string{"leaves.txtar": "podstart -fake child alpha\npodsignal -process alpha INT\npodwait alpha\npodstop alpha"})
	stdout, _, status := podscript(t, dir)
	assert.Equal(t, 1, status)
	assert.Regexp(t, `leaves \(must\): pod alpha left processes behind, which were killed: process \d+ \(`, stdout)
	assert.NotContains(t, stdout, "Config.AllowLeaks", "it must not")
}

func TestAnotherPod(t *testing.T) {
	t.Parallel()
	stdout, _, status := podscript(t, "-run", "^arguments$", "-pod", "sh", "-pod-arg", "-c", "-pod-arg", "echo no such flag >&2; exit 2")
	assert.Zero(t, status, stdout)
	assert.Contains(t, stdout, "1 passed, 0 failed, 0 warned, 0 skipped in ")
	stdout, _, status = podscript(t, "-run", "^starts$", "-env", "WORD=broken", "-pod", "sh", "-pod-arg", "-c", "-pod-arg", "echo $WORD >&2; exit 2")
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "pod exited before becoming ready (exit status 2): broken")
	assert.Contains(t, stdout, "        FAIL: starts.txtar:5: podstart alpha failed", "a portable scenario is named, not a file that is gone")
	assert.Contains(t, stdout, "        a pod must become ready ")
	assert.Contains(t, stdout, "        fix: ")
	assert.Contains(t, stdout, "(N) is a section of the contract, spawn/HANDSHAKE.md\n")
	assert.NotContains(t, stdout, "WORK=")
	assert.NotContains(t, stdout, "log: ", "it is gone")
}

// TestPodIsRelativeToTheWorkingDirectory: a scenario runs in one of its own.
func TestPodIsRelativeToTheWorkingDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pod"), []byte("#!/bin/sh\necho no such flag >&2; exit 2\n"), 0o700))
	here, err := os.Getwd()
	require.NoError(t, err)
	relative, err := filepath.Rel(here, filepath.Join(dir, "pod"))
	require.NoError(t, err)
	stdout, _, status := podscript(t, "-run", "^arguments$", "-pod", relative)
	assert.Zero(t, status, stdout)
}

func TestVerboseShowsWhatAScenarioDoes(t *testing.T) {
	t.Parallel()
	stdout, _, _ := podscript(t, "-v", "-run", "^starts$")
	assert.Contains(t, stdout, "        # must: become ready")
	assert.Contains(t, stdout, "        > podstart alpha")
	assert.NotContains(t, stdout, "PODHARNESS_MARK=", "testscript's own variables")
}

// full is an output that cannot be written.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestOutputThatIsLostIsAFailure(t *testing.T) {
	t.Parallel()
	assert.Equal(t, 1, run([]string{"-run", "^starts$"}, full{}, full{}))
}

// fake returns the flags that name a fake pod of a program.
func fake(program string) (args []string) {
	command := harness.FakePod(program)
	args = []string{"-pod", command.Program}
	for _, arg := range command.PrefixArgs {
		args = append(args, "-pod-arg", arg)
	}
	return args
}

// checks runs podscript, and returns what it has told in JSON, too.
func checks(t *testing.T, args ...string) (byCase map[string]conformance.Check, summary conformance.Summary, stdout string, status int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.json")
	stdout, stderr, status := podscript(t, append([]string{"-json", file}, args...)...)
	require.Empty(t, stderr)
	results, err := conformance.ReadResults(file)
	require.NoError(t, err)
	byCase = map[string]conformance.Check{}
	for _, c := range results.Checks {
		byCase[c.Case] = c
	}
	require.Len(t, byCase, len(results.Checks))
	return byCase, results.Summary, stdout, status
}

func TestLevels(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"good.txtar":   "# must: be good\n\nexec true",
		"must.txtar":   "# must: be good\n# section: 1, 2\n# fix: mend it\n\n# It is not.\nexec echo hello\nstdout bye",
		"should.txtar": "# should: be better\n\nexec false",
		"may.txtar":    "# may: be best\n\nexec false",
	})
	all, summary, out, status := checks(t, dir)
	assert.Equal(t, 1, status)
	must := all["must"]
	must.Seconds = 0
	assert.Equal(t, conformance.Check{
		Case: "must", Requirement: "must", Level: "must", Section: "1, 2", Result: "fail", Fix: "mend it", Key: must.Key,
		Why: "no match for `bye` found in stdout: hello\na pod must be good (1, 2)",
		Log: "> exec echo hello\nhello\n> stdout bye\nFAIL: " + dir + "/must.txtar:7: no match for `bye` found in stdout",
	}, must)
	assert.Equal(t, []string{"pass", "warn", "missed"}, []string{all["good"].Result, all["should"].Result, all["may"].Result})
	assert.Equal(t, "unexpected command failure\na pod may be best", all["may"].Why)
	assert.Equal(t, map[string]int{"must": 1, "should": 1}, summary.Findings)
	assert.Contains(t, out, "1 passed, 1 failed, 1 warned, 0 skipped, 1 missed that a pod may leave out in ")
	assert.Regexp(t, `(?m)^MISS  may  .*s\n      may \(may\): unexpected command failure$`, out)

	for strict, want := range map[string]int{"-strict=false": 0, "-strict": 1} {
		all, summary, out, status := checks(t, strict, "-skip", "^must$", dir)
		assert.Equal(t, want, status, out)
		assert.Equal(t, want == 0, summary.OK)
		assert.Equal(t, want, summary.Failed)
		assert.Equal(t, want == 1, all["should"].Result == "fail", out)
	}
}

func TestWhatCannotBeLookedAtIsSkipped(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"a.txtar": "# must: a\n\nexec false",
		"b.txtar": "# must: b\n# needs: a\n\nexec true",
		"c.txtar": "# must: c\n# needs: b\n\nexec true",
		"d.txtar": "exec true",
	})
	all, _, out, _ := checks(t, dir)
	assert.Equal(t, "needs `a`", all["b"].Why)
	assert.Equal(t, "needs `a`", all["c"].Why)
	assert.Contains(t, out, "1 passed, 1 failed, 0 warned, 2 skipped in ")
	_, _, out, status := checks(t, "-run", "^[bc]$", dir)
	assert.Zero(t, status, "who is asked for alone is run alone:\n%s", out)
}

// TestPodThatIsNeverReady ends soon, and is told of once.
func TestPodThatIsNeverReady(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	begin := time.Now()
	all, summary, out, status := checks(t, append(fake("hang"), "-ready-timeout", timeout.String(), "-count", "3")...)
	assert.Less(t, time.Since(begin), 2*timeout, "it waits once")
	assert.Equal(t, 1, status)
	assert.Contains(t, all["starts"].Why, "pod did not become ready within 2s")
	assert.Equal(t, map[string]int{"starts": 1}, summary.Findings)
	assert.Equal(t, len(all)-1, summary.Skipped)
	assert.Equal(t, 1, strings.Count(out, "did not become ready"))
}

func TestKnownFindings(t *testing.T) {
	t.Parallel()
	known := filepath.Join(t.TempDir(), "known.txt")
	require.NoError(t, os.WriteFile(known, []byte("bad: for want of time\ngood: it was so\n"), 0o600))
	dir := scenarioDir(t, map[string]string{"bad.txtar": "exec false", "good.txtar": "exec true", "last.txtar": "# must: pass\n# needs: bad\n\nexec true"})
	all, summary, out, status := checks(t, "-known", known, "-failfast", "-parallel", "1", dir)
	assert.Equal(t, 0, status, out)
	assert.Equal(t, []string{"known", "for want of time", "needs `bad`"}, []string{all["bad"].Result, all["bad"].Known, all["last"].Why})
	assert.Equal(t, 1, summary.Known)
	assert.Contains(t, out, known+":2: good no longer shows: remove the line\n")
	_, summary, out, status = checks(t, "-known", known, "-strict", dir)
	assert.Equal(t, 1, status, out)
	assert.Equal(t, []int{0, 1, 1}, []int{summary.Failed, summary.Known, len(summary.Outdated)})
	_, stderr, status := podscript(t, "-known", filepath.Join(dir, "bad.txtar"), dir)
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "bad.txtar:1: \"exec false\": want REQUIREMENT: REASON")
}

func TestEarlierRun(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"bad.txtar": "exec false", "good.txtar": "exec true", "last.txtar": "# must: pass\n# needs: bad\n\nexec true"})
	run := filepath.Join(t.TempDir(), "run.json")
	_, _, status := podscript(t, "-json", run, dir)
	assert.Equal(t, 1, status)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bad.txtar"), []byte("exec true"), 0o600))
	all, _, out, status := checks(t, "-since", run, "-rerun", run, dir)
	assert.Equal(t, 0, status, out)
	assert.Len(t, all, 2)
	assert.Equal(t, []string{"pass", "pass"}, []string{all["bad"].Result, all["last"].Result})
	assert.Contains(t, out, "\nsince "+run+": 1 mended: bad\n")
	_, stderr, status := podscript(t, "-rerun", run)
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "did not pass in "+run+" (-rerun)")
}

// TestGitHubActions sets what its runner does.
func TestGitHubActions(t *testing.T) {
	summary := filepath.Join(t.TempDir(), "summary.md")
	t.Setenv("GITHUB_ACTIONS", "true")
	t.Setenv("GITHUB_STEP_SUMMARY", summary)
	dir := scenarioDir(t, map[string]string{"bad.txtar": "# must: be good\n# section: 1\n\nexec false", "good.txtar": "exec true"})
	for range 2 {
		out, _, status := podscript(t, dir)
		assert.Equal(t, 1, status)
		assert.Contains(t, out, "\n::error title=podscript%3A bad (must)::unexpected command failure%0Aa pod must be good (1)\n")
	}
	text, err := os.ReadFile(summary)
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(string(text), "| **FAIL** | **bad** must (1) | unexpected command failure<br>a pod must be good (1) |"), "%s", text)
}

func TestPageOfEarlierRuns(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"bad.txtar": "exec false", "good.txtar": "exec true"})
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, flags := range map[string][]string{"one": {"-run", "good"}, "two": nil} {
		podscript(t, append(flags, "-name", name, "-json", in(name+".json"), "-html", in(name+".html"), dir)...)
		assert.FileExists(t, in(name+".html"))
	}
	stdout, stderr, status := podscript(t, "-html", in("both.html"), in("one.json"), in("two.json"))
	assert.Zero(t, status)
	assert.Empty(t, stdout+stderr)
	text, err := os.ReadFile(in("both.html"))
	require.NoError(t, err)
	for _, want := range []string{`<th scope="col">one</th><th scope="col">two</th>`, "unexpected command failure", "podscript: 2 runs"} {
		assert.Contains(t, string(text), want)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	runs := filepath.Join(t.TempDir(), "runs")
	dir := scenarioDir(t, map[string]string{
		"good.txtar": "exec true",
		"odd.txtar":  "exec sh -c 'echo >>" + runs + "; [ $(wc -l <" + runs + ") != 2 ]'",
	})
	all, _, out, status := checks(t, "-count", "4", dir)
	assert.Equal(t, 1, status)
	assert.Equal(t, "3 of 4 passed: unexpected command failure", all["odd"].Why)
	assert.Equal(t, []int{4, 3}, []int{all["odd"].Runs, all["odd"].Passed})
	assert.Equal(t, "4 of 4 passed", all["good"].Why)
	assert.Contains(t, out, "      good (must): 4 of 4 passed\n")
}

// TestCountGoesByTheVerdict has a pod that exits, whatever it says of others.
func TestCountGoesByTheVerdict(t *testing.T) {
	t.Parallel()
	all, _, out, _ := checks(t, append(fake(`log "backend did not become ready within 5s"; exit 3`), "-run", "^starts$", "-count", "3")...)
	assert.Contains(t, all["starts"].Why, "0 of 3 passed: pod exited before becoming ready (exit status 3): backend did not become ready within 5s\n", out)
}

// TestPodCannotExcuseItself logs what the harness says of waits that it has cut.
func TestPodCannotExcuseItself(t *testing.T) {
	t.Parallel()
	const excuse = `log "note: the timeout of 5s was cut to 1s, to end before the test's deadline"; `
	dir := scenarioDir(t, map[string]string{
		"start.txtar": "podstart -fake '" + strings.ReplaceAll(excuse, "'", "''") + "exit 3' alpha",
		"own.txtar":   "podstart -fake '" + strings.ReplaceAll(excuse, "'", "''") + "bind; ready; serve' alpha\npodlog alpha\nexists nothing",
		"end.txtar":   "podstart -fake '" + strings.ReplaceAll(excuse, "'", "''") + "bind; ready; serve' alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"exit 3\"}}'\n! podwaitlog alpha 'what never comes'",
	})
	all, summary, out, status := checks(t, dir)
	assert.Equal(t, 1, status)
	assert.Equal(t, 3, summary.Failed, out)
	assert.Contains(t, all["start"].Why, "pod exited before becoming ready (exit status 3): note: the timeout of 5s was cut")
	assert.Contains(t, all["own"].Why, "nothing does not exist")
	assert.Contains(t, all["end"].Why, "pod alpha ended by itself during the test (exit status 3)")
}

// TestPodCannotForgeAFailure prints what testscript logs of one.
func TestPodCannotForgeAFailure(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"a.txtar": "exec echo 'FAIL: a.txtar:1: it was somebody else'\nexec echo hello\nstdout bye"})
	all, _, _, _ := checks(t, dir)
	assert.Equal(t, "no match for `bye` found in stdout: hello", all["a"].Why)
}

// TestFindingsAreTheSameByWhatWasFound: not by words that differ in numbers only.
func TestFindingsAreTheSameByWhatWasFound(t *testing.T) {
	t.Parallel()
	scenario := func(program string) string { return "podstart -fake '" + program + "' alpha" }
	dir := scenarioDir(t, map[string]string{
		"a.txtar": scenario("log \"port 80 is taken\"; exit 3"),
		"b.txtar": scenario("log more; log \"port 80 is taken\"; exit 3"),
		"c.txtar": scenario("log \"port 81 is taken\"; exit 3"),
		"d.txtar": scenario("log \"port 80 is taken\"; exit 4"),
	})
	_, _, out, _ := checks(t, "-parallel", "1", dir)
	assert.Equal(t, 1, strings.Count(out, "as in "), out)
	assert.Regexp(t, `\n      [ab] \(must\): as in [ab]\n`, out)
}

func TestNameOfAScenarioCannotRuleATerminal(t *testing.T) {
	t.Parallel()
	const evil = "\x1b]0;evil\a"
	dir := scenarioDir(t, map[string]string{evil + ".txtar": "podstart alpha\nexists nothing"})
	for _, args := range [][]string{{dir}, {"-v", dir}, {"-list", dir}, {dir, dir}} {
		stdout, stderr, _ := podscript(t, args...)
		assert.Contains(t, stdout+stderr, `\x1b]0;evil\a`)
		assert.NotContains(t, stdout+stderr, "\x1b")
		assert.NotContains(t, stdout+stderr, "\a")
	}
}

func TestFailFast(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"a.txtar": "exec false", "b.txtar": "exec false", "c.txtar": "exec false"})
	_, summary, out, status := checks(t, "-failfast", "-parallel", "1", dir)
	assert.Equal(t, 1, status)
	assert.Equal(t, 1, summary.Failed)
	assert.Equal(t, 2, strings.Count(out, "  not run after a failure (-failfast)\n"), out)
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"a.txtar": "# must: say it\n\nexec echo hello\ncmp stdout want\n-- want --\nbye\n"})
	_, _, _, status := checks(t, "-u", dir)
	assert.Zero(t, status)
	text, err := os.ReadFile(filepath.Join(dir, "a.txtar"))
	require.NoError(t, err)
	assert.Equal(t, "# must: say it\n\nexec echo hello\ncmp stdout want\n-- want --\nhello\n", string(text))
}

// TestMessagesNameNoFileThatIsGone looks at all that is said of failures of each
// kind.
func TestMessagesNameNoFileThatIsGone(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"start.txtar": "podstart -fake early-exit alpha",
		"file.txtar":  "podstart alpha\nexists $RUNTIME_DIR/alpha/nothing $WORK/nothing",
		"end.txtar":   "podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"exit 3\"}}'\n! podwaitlog alpha 'what never comes'",
	})
	evidence := filepath.Join(t.TempDir(), "evidence")
	for _, args := range [][]string{{}, {"-o", evidence}, {"-work"}, {"-v"}, {"-v", "-o", evidence, "-count", "2"}} {
		all, _, out, _ := checks(t, append(args, dir)...)
		kept := regexp.MustCompile(`(?m)^the scenarios worked in (/.*)$`).FindStringSubmatch(out)
		if kept != nil {
			t.Cleanup(func() { os.RemoveAll(kept[1]) })
		}
		assert.Equal(t, slices.Contains(args, "-work"), kept != nil)
		assert.Contains(t, all["end"].Why, "pod alpha ended by itself during the test (exit status 3)", args)
		for _, line := range strings.Split(out, "\n") {
			if regexp.MustCompile(`^ *(PATH|[A-Z_]*DIR|HOME|TMPDIR|YOI_\w+|GO\w+)=`).MatchString(line) {
				continue // the environment, with -v
			}
			for _, path := range regexp.MustCompile(`/(tmp|var)/[^\s:,;'"]+`).FindAllString(line, -1) {
				_, err := os.Lstat(path)
				assert.NoError(t, err, "%q: %s", args, line)
			}
		}
		for _, c := range all {
			assert.Equal(t, slices.Contains(args, "-o"), c.Evidence != "", "%q: %v", args, c)
			if c.Evidence != "" {
				assert.FileExists(t, filepath.Join(c.Evidence, "merged.log"))
			}
		}
	}
}

func TestWhatRealPodsNeed(t *testing.T) {
	t.Parallel()
	files := scenarioDir(t, map[string]string{"manifest.toml": "the manifest\n"})
	dir := scenarioDir(t, map[string]string{"needs.txtar": `
! podstart alpha
stderr 'alpha:/.*/manifest.toml --workspace /.* --worker alpha --profile p --ticket-role r --more \| the manifest \| the manifest$'
! podstart -session $SESSION beta
stderr '--session 6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11 --worker beta'
`})
	_, _, out, status := checks(t,
		"-pod", "sh", "-pod-arg", "-c", "-pod-arg", `(echo $0 "$@"; cat "$MANIFEST" $HOME/manifest.toml) >&2; exit 1`, "-pod-arg", "{name}:{workspace}/manifest.toml",
		"-workspace", files, "-home", files, "-env", "MANIFEST={workspace}/manifest.toml", "-session", "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11",
		"-name-flag", "--worker", "-extra-arg", "--more", "-profile", "p", "-ticket-role", "r", dir)
	assert.Zero(t, status, out)
	all, _, out, status := checks(t, append(fake("ready"), "-run", "^session$", "-session", "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11")...)
	assert.Zero(t, status, out)
	assert.Equal(t, conformance.Pass, all["session"].Result)
}

func TestShardsAreTheWhole(t *testing.T) {
	t.Parallel()
	whole, _, _ := podscript(t, "-list")
	whole = strings.TrimSuffix(whole, "\n")
	n := strings.Count(whole, "\n") + 1
	for _, parts := range []int{1, 2, 5, n, n + 3} {
		var union []string
		for part := 1; part <= parts; part++ {
			mine, _, status := podscript(t, "-list", "-shard", fmt.Sprintf("%d/%d", part, parts))
			assert.Zero(t, status)
			union = append(union, strings.Split(mine, "\n")...)
		}
		union = slices.DeleteFunc(union, func(line string) bool { return line == "" })
		assert.ElementsMatch(t, strings.Split(whole, "\n"), union, "each once, in %d parts", parts)
	}
}

// TestShardReportsItsOwn skips a case whose need another shard reports, as that of the need.
func TestShardReportsItsOwn(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"a.txtar": "exec false", "b.txtar": "# must: b\n# needs: a\n\nexec true", "c.txtar": "# must: c\n# needs: b\n\nexec true"})
	for shard, id := range map[string]string{"1/3": "a", "2/3": "b", "3/3": "c"} {
		all, _, out, _ := checks(t, "-shard", shard, dir)
		assert.Len(t, all, 1, out)
		assert.Contains(t, all, id, out)
	}
}

// TestBazel runs the shards as Bazel does, with a pod that cannot be stopped.
func TestBazel(t *testing.T) {
	t.Parallel()
	ran := map[string]int{}
	for shard := range 3 {
		dir := t.TempDir()
		in := func(name string) string { return filepath.Join(dir, name) }
		require.NoError(t, os.Mkdir(in("tmp"), 0o700))
		cmd := exec.Command(os.Args[0], append(fake("ignore INT; bind; ready; serve"), "-grace", "1s", "-ready-timeout", "5s")...)
		cmd.Env = append(os.Environ(), asPodscript+"=1", "TEST_TOTAL_SHARDS=3", fmt.Sprint("TEST_SHARD_INDEX=", shard), "TEST_SHARD_STATUS_FILE="+in("status"),
			"XML_OUTPUT_FILE="+in("test.xml"), "TEST_UNDECLARED_OUTPUTS_DIR="+in("outputs"), "TEST_TMPDIR="+in("tmp"))
		out, err := cmd.CombinedOutput()
		assert.FileExists(t, in("status"))
		report, readErr := os.ReadFile(in("test.xml"))
		require.NoError(t, readErr)
		for _, match := range regexp.MustCompile(`<testcase name="([^"]+)"`).FindAllSubmatch(report, -1) {
			ran[string(match[1])]++
		}
		left, readErr := os.ReadDir(in("tmp"))
		require.NoError(t, readErr)
		assert.Empty(t, left)
		if failed := regexp.MustCompile(`FAIL  (stop-(signal|connected)) `).FindSubmatch(out); failed != nil {
			assert.Error(t, err)
			assert.FileExists(t, in("outputs/"+string(failed[1])+"/merged.log"))
		} else {
			assert.NoError(t, err, "its own shard tells of the finding:\n%s", out)
			assert.NoDirExists(t, in("outputs/stop-signal"))
		}
	}
	for _, r := range scripts.Requirements() {
		assert.Equal(t, 1, ran[r.ID], r.ID)
	}
}

func TestWrongVariablesOfBazel(t *testing.T) {
	for _, tc := range []struct{ parts, index, temp, want string }{
		{"3", "3", "", `TEST_SHARD_INDEX "3" is no number from 0 to below TEST_TOTAL_SHARDS "3"`},
		{"3", "", "", `TEST_SHARD_INDEX "" is no number from 0`},
		{"0", "0", "", `below TEST_TOTAL_SHARDS "0"`},
		{"", "", "/nowhere", `no such file or directory (TEST_TMPDIR names where)`},
	} {
		t.Setenv("TEST_TOTAL_SHARDS", tc.parts)
		t.Setenv("TEST_SHARD_INDEX", tc.index)
		t.Setenv("TEST_TMPDIR", tc.temp)
		_, stderr, status := podscript(t)
		assert.NotZero(t, status)
		assert.Contains(t, stderr, tc.want)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := podscript(t, "-version")
	assert.Zero(t, status)
	assert.Empty(t, stderr)
	assert.Regexp(t, `^podscript \S+ commit \w+( \(modified\))? go1\.\S+ \w+/\w+\n$`, stdout)
}

func TestHelp(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := podscript(t, "-help")
	assert.Zero(t, status)
	assert.Empty(t, stderr)
	assert.Contains(t, stdout, "usage: podscript [flags] [FILE.txtar | DIRECTORY]...\n\nRuns the portable scenarios")
	assert.Contains(t, stdout, "Exit status: 0 if nothing failed")
	for _, flag := range []string{"pod PROGRAM", "pod-arg ARG", "env NAME=VALUE", "run REGEXP", "v", "timeout DURATION"} {
		assert.Contains(t, stdout, "\n  -"+flag)
	}
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"text": "no program", "a.txtar": "# must: a\n# nonsense\n", "b.txtar": "# must: b\n# needs: nowhere\n", "c.txtar": ""})
	in := func(name string) string { return filepath.Join(dir, name) }
	for want, args := range map[string][]string{
		"podscript: " + in("nosuch") + ": not found\n":                                         {"-pod", in("nosuch")},
		"podscript: main_test.go: not found in PATH: did you mean ./main_test.go?\n":           {"-pod", "main_test.go"},
		"podscript: nosuch-pod: not found in PATH\n":                                           {"-pod", "nosuch-pod"},
		"podscript: " + in("text") + ": permission denied (chmod +x makes a file a program)\n": {"-pod", in("text")},
		"podscript: " + dir + ": is a directory\n":                                             {"-pod", dir},
		"podscript: a report cannot be written to -: name":                                     {"-json", "-"},
		"podscript: open /nowhere/report.xml: no such file":                                    {"-junit", "/nowhere/report.xml"},
		"podscript: -o: mkdir " + in("text") + ": not a directory":                             {"-o", in("text")},
		"podscript: -o: ": {"-o", "/proc/evidence"},
		`invalid value "=x" for flag -env: it has no name`:                                      {"-env", "=x"},
		"podscript: " + in("a.txtar") + `:2: header of the sce`:                                 {in("a.txtar")},
		"podscript: " + in("b.txtar") + " needs nowhere, but t":                                 {in("b.txtar")},
		"podscript: two scenarios are called c: ":                                               {in("c.txtar"), in("c.txtar")},
		`for flag -shard: want I/N, such as 1/4`:                                                {"-shard", "5/4"},
		`invalid value "1/4x" for flag -shard`:                                                  {"-shard", "1/4x"},
		"-count 0 runs nothing":                                                                 {"-count", "0"},
		"-parallel 0 runs nothing":                                                              {"-parallel", "0"},
		"-ready-timeout 0s leaves no time":                                                      {"-ready-timeout", "0"},
		"-grace -1s leaves no time":                                                             {"-grace", "-1s"},
		"-u goes with named scenarios":                                                          {"-u"},
		`invalid value "x" for flag -session`:                                                   {"-session", "x"},
		in("text") + " is not a directory":                                                      {"-workspace", in("text")},
		"stat /nowhere: no such file or directory":                                              {"-home", "/nowhere"},
		`no case matches -run "" and not -skip "."`:                                             {"-skip", "."},
		"podscript: -pod-arg goes with -pod":                                                    {"-pod-arg", "x"},
		`podscript: no case matches -run "nonsense"`:                                            {"-run", "nonsense"},
		`podscript: invalid value "(" for flag -run: error parsing regexp`:                      {"-run", "("},
		"podscript: stat /nowhere: no such file or directory":                                   {"/nowhere"},
		"podscript: no *.txtar file in ":                                                        {t.TempDir()},
		"podscript: -timeout 0s leaves no time":                                                 {"-timeout", "0s"},
		"podscript: flag provided but not defined: -nonsense (podscript -help tells the usage)": {"-nonsense"},
	} {
		stdout, stderr, status := podscript(t, args...)
		assert.Equal(t, 2, status, want)
		assert.Contains(t, stderr, want)
		assert.Empty(t, stdout)
	}
}

func TestOutputThatDoesNotMatchIsShown(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "gong.txtar")
	require.NoError(t, os.WriteFile(script, []byte("podstart alpha\nstdout gong\n"), 0o600))
	stdout, _, status := podscript(t, script)
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "no match for `gong` found in stdout: alpha is ready: process ")
}
