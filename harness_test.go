// Package podharness runs the scenarios of testdata and of scripts/scenarios,
// and what the README says.
package podharness

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"example.com/podharness/scripts"
	"example.com/podharness/spawn"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// TestStartupFailures runs the scenarios that need the fake pod: one failure
// mode each.
func TestStartupFailures(t *testing.T) {
	scripts.Run(t, "testdata")
}

// TestPortableScenarios runs what must hold for any pod, against several.
func TestPortableScenarios(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, scripts.Scenarios()))
	run := func(t *testing.T, command spawn.Command) {
		t.Parallel()
		testscript.Run(t, scripts.Params(scripts.Options{Dir: dir, Command: command}))
	}
	t.Run("built-in fake pod", func(t *testing.T) { run(t, spawn.Command{}) })
	t.Run("fakepod command", func(t *testing.T) {
		program := filepath.Join(t.TempDir(), "fakepod")
		out, err := exec.Command(goTool(t), "build", "-o", program, "./fakepod/cmd/fakepod").CombinedOutput()
		require.NoError(t, err, "%s", out)
		run(t, spawn.Command{Program: program, PrefixArgs: []string{"pod"}})
	})
	t.Run("pod.py", func(t *testing.T) {
		python, err := exec.LookPath("python3")
		if err != nil {
			t.Skipf("no python3: %v", err)
		}
		script, err := filepath.Abs("testdata/pod.py")
		require.NoError(t, err)
		run(t, spawn.Command{Program: python, PrefixArgs: []string{script, "pod"}})
	})
}

// goTool returns the go command, or skips the test.
func goTool(t *testing.T) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	if _, err := os.Stat("go.mod"); err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	return tool
}
