package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asPodscript is the environment variable that makes this binary podscript.
const asPodscript = "TEST_AS_PODSCRIPT"

func TestMain(m *testing.M) {
	if os.Getenv(asPodscript) != "" {
		main()
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
	case <-time.After(20 * time.Second):
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
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		var err error
		files, err = os.ReadDir(p.temp)
		require.NoError(t, err)
		if findsProcesses {
			pids = processesWith(p.temp)
		}
		if len(files)+len(pids) == 0 {
			return
		}
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
	assert.Regexp(t, `\n[1-9]\d* passed, 0 failed, 0 warned, 1 skipped in \S+s\n$`, p.stdout.String())
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

func TestDeadline(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{
		"wait.txtar":     "podstart alpha\npodwait -timeout 1h alpha",
		"stubborn.txtar": "podstart -fake stubborn -grace 1h alpha\npodstop alpha",
		"good.txtar":     "podstart alpha",
	})
	start := time.Now()
	p := startProcess(t, "-timeout", "1s", dir)
	assert.EqualError(t, p.wait(t), "exit status 1")
	assert.Less(t, time.Since(start), 20*time.Second)
	assert.Contains(t, p.stdout.String(), "pod alpha did not end within ")
	assert.Contains(t, p.stdout.String(), "2 passed, 1 failed, 0 warned, 0 skipped in ")
	p.assertNothingIsLeft(t)
}

// TestHangingCommand runs what testscript itself waits for, for ever.
func TestHangingCommand(t *testing.T) {
	t.Parallel()
	dir := scenarioDir(t, map[string]string{"hangs.txtar": "exec sh -c 'trap \"\" QUIT; sleep 1000; true'"})
	p := startProcess(t, "-timeout", "500ms", dir)
	assert.EqualError(t, p.wait(t), "exit status 1")
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
	assert.Equal(t, 1, exit.ExitCode())
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
}

// full is an output that cannot be written.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestOutputThatIsLostIsAFailure(t *testing.T) {
	t.Parallel()
	assert.Equal(t, 1, run([]string{"-run", "^starts$"}, full{}, full{}))
}

func TestHelp(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := podscript(t, "-help")
	assert.Zero(t, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "usage: podscript [flags] [FILE.txtar | DIRECTORY]...\n\nRuns the portable scenarios")
	for _, flag := range []string{"pod PROGRAM", "pod-arg ARG", "env NAME=VALUE", "run REGEXP", "v", "timeout DURATION"} {
		assert.Contains(t, stderr, "\n  -"+flag)
	}
	assert.NotContains(t, stderr, "podscript: ")
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
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
