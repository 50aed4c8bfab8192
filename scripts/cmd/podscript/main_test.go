package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

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

func TestFailedScenarioIsShown(t *testing.T) {
	dir := scenarioDir(t, map[string]string{
		"bad.txtar":  "podstart -fake 'log broken; exit 7' alpha",
		"good.txtar": "podstart alpha",
		"skip.txtar": "skip 'not today'",
	})
	t.Setenv("TMPDIR", t.TempDir()) // where the logs are kept
	stdout, _, status := podscript(dir)
	assert.Equal(t, 1, status)
	assert.Regexp(t, `(?m)^FAIL  bad `, stdout)
	assert.Contains(t, stdout, "      pod exited before becoming ready (exit status 7): broken")
	assert.Regexp(t, `(?m)^PASS  good `, stdout)
	assert.Regexp(t, `(?m)^SKIP  skip `, stdout)
	assert.Contains(t, stdout, "not today")
	assert.Contains(t, stdout, "1 passed, 1 failed, 1 skipped in ")
}

func TestAnotherPod(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // where the logs of a failure are kept
	stdout, _, status := podscript("-run", "^wrong-arguments$", "-pod", "sh", "-pod-arg", "-c", "-pod-arg", "echo no such flag >&2; exit 2")
	assert.Zero(t, status, stdout)
	stdout, _, status = podscript("-run", "^starts$", "-pod", "sh", "-pod-arg", "-c", "-pod-arg", "echo broken >&2; exit 2")
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
		"flag provided but not defined: -nonsense":            {"-nonsense"},
	} {
		_, stderr, status := podscript(args...)
		assert.Equal(t, 2, status, want)
		assert.Contains(t, stderr, want)
	}
}
