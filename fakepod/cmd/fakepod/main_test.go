package main

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVersionIsTheCommit(t *testing.T) {
	t.Parallel()
	settings := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "false"}}
	system := " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	assert.Equal(t, "fakepod abc"+system, version(settings))
	settings[2].Value = "true"
	assert.Equal(t, "fakepod abc (modified)"+system, version(settings))
	assert.Equal(t, "fakepod of an unknown commit"+system, version(nil))
}

func TestCommandTellsOfItself(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	program := filepath.Join(t.TempDir(), "fakepod")
	out, err := exec.Command(tool, "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for flag, want := range map[string]string{
		"-version": "fakepod ", "--version": "fakepod ", "-list": "ready  ", "-help": "usage: fakepod ",
	} {
		command := exec.Command(program, flag)
		command.Env = []string{}
		out, err := command.Output()
		require.NoError(t, err, flag)
		assert.True(t, strings.HasPrefix(string(out), want), "%s: %s", flag, out)
	}
	for _, wrong := range [][]string{{}, {"-nonsense"}, {"list"}, {"-list", "x"}} {
		command := exec.Command(program, wrong...)
		command.Env = []string{}
		out, err := command.Output()
		var status *exec.ExitError
		require.ErrorAs(t, err, &status, wrong)
		assert.Equal(t, 2, status.ExitCode(), wrong)
		assert.Empty(t, out)
		assert.Contains(t, string(status.Stderr), "usage: fakepod ")
	}
}
