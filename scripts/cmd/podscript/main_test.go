package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func podscript(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	status = run(args, &out, &errs)
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

func TestPortableScenariosPassWithTheFakePod(t *testing.T) {
	t.Parallel()
	stdout, stderr, status := podscript()
	assert.Zero(t, status, "%s%s", stdout, stderr)
	assert.Regexp(t, `(?m)^PASS  survives-its-parent +\d+\.\d{3}s$`, stdout)
	assert.Regexp(t, `\n[1-9]\d* passed, 0 failed, 0 skipped in \S+s\n$`, stdout)
	assert.Empty(t, stderr)
}

// removeEvidence removes what a failed scenario has left to look at.
func removeEvidence(t *testing.T, stdout string) {
	t.Helper()
	found := regexp.MustCompile(`all evidence of this failure: (\S+)`).FindAllStringSubmatch(stdout, -1)
	require.NotEmpty(t, found, stdout)
	for _, match := range found {
		require.NoError(t, os.RemoveAll(match[1]))
	}
}

// TestInterrupt runs podscript as a process of its own, which is interrupted.
func TestInterrupt(t *testing.T) {
	if dir := os.Getenv("PODSCRIPT_TEST_DIR"); dir != "" {
		os.Exit(run([]string{dir}, os.Stdout, os.Stderr))
	}
	t.Parallel()
	begun := filepath.Join(t.TempDir(), "begun")
	dir := scenarioDir(t, map[string]string{"hangs.txtar": "exec touch " + begun + "\npodstart -fake hang alpha"})
	cmd := exec.Command(os.Args[0], "-test.run=^TestInterrupt$")
	temp := t.TempDir()
	cmd.Env = append(os.Environ(), "PODSCRIPT_TEST_DIR="+dir, "TMPDIR="+temp)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(begun); return err == nil }, 20*time.Second, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	assert.EqualError(t, cmd.Wait(), "exit status 130")
	assert.Equal(t, "podscript: interrupted while these scenarios ran: hangs\n", stderr.String())
	scripts, err := filepath.Glob(filepath.Join(temp, "*script*"))
	require.NoError(t, err)
	assert.Empty(t, scripts, "its own directories are removed")
	assert.Eventually(t, func() bool {
		sandboxes, err := filepath.Glob(filepath.Join(temp, "pod*"))
		return err == nil && len(sandboxes) == 0
	}, 20*time.Second, time.Millisecond, "its watchdog removes the sandbox")
}

func TestFailedScenarioIsShown(t *testing.T) {
	dir := scenarioDir(t, map[string]string{
		"bad.txtar":  "podstart -fake 'log broken; exit 7' alpha",
		"good.txtar": "podstart alpha",
		"skip.txtar": "skip 'not today'",
	})
	stdout, _, status := podscript(dir)
	removeEvidence(t, stdout)
	assert.Equal(t, 1, status)
	assert.Regexp(t, `(?m)^FAIL  bad `, stdout)
	assert.Contains(t, stdout, "      pod exited before becoming ready (exit status 7): broken")
	assert.Regexp(t, `(?m)^PASS  good `, stdout)
	assert.Regexp(t, `(?m)^SKIP  skip `, stdout)
	assert.Contains(t, stdout, "not today")
	assert.Contains(t, stdout, "1 passed, 1 failed, 1 skipped in ")
}

func TestAnotherPod(t *testing.T) {
	stdout, _, status := podscript("-run", "^wrong-arguments$", "-pod", "sh", "-pod-arg", "-c", "-pod-arg", "echo no such flag >&2; exit 2")
	assert.Zero(t, status, stdout)
	stdout, _, status = podscript("-run", "^starts$", "-pod", "sh", "-pod-arg", "-c", "-pod-arg", "echo broken >&2; exit 2")
	removeEvidence(t, stdout)
	assert.Equal(t, 1, status)
	assert.Contains(t, stdout, "pod exited before becoming ready (exit status 2): broken")
}

func TestVerboseShowsWhatAScenarioDoes(t *testing.T) {
	t.Parallel()
	stdout, _, _ := podscript("-v", "-run", "^starts$")
	assert.Contains(t, stdout, "      > podstart alpha")
}

func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"podscript: -pod-arg goes with -pod":                  {"-pod-arg", "x"},
		`podscript: no scenario matches -run "nonsense"`:      {"-run", "nonsense"},
		"podscript: -run: error parsing regexp":               {"-run", "("},
		"podscript: stat /nowhere: no such file or directory": {"/nowhere"},
		"podscript: no *.txtar file in ":                      {t.TempDir()},
		"podscript: -timeout 0s leaves no time":               {"-timeout", "0s"},
		"flag provided but not defined: -nonsense":            {"-nonsense"},
	} {
		_, stderr, status := podscript(args...)
		assert.Equal(t, 2, status, want)
		assert.Contains(t, stderr, want)
	}
}
