package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// podspawn runs the command with the fake pod.
func podspawn(t *testing.T, program string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	name, prefix := fakepod.Command(program)
	all := []string{"-pod", name}
	for _, arg := range prefix {
		all = append(all, "-pod-arg", arg)
	}
	var out, errs bytes.Buffer
	status = run(append(all, args...), &out, &errs)
	return out.String(), errs.String(), status
}

func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "podspawn")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("YOI_RUNTIME_DIR", dir)
	return dir
}

func TestReadyPodIsReportedAndLivesOn(t *testing.T) {
	dir := runtimeDir(t)
	stdout, stderr, status := podspawn(t, `log "loading \x1b[2J"; bind; ready; serve`, "-json", "-profile", "p", "alpha")
	require.Zero(t, status, stderr)
	var pod struct {
		Name, Socket, Log string
		PID               int
		ReadyMS           float64 `json:"ready_ms"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &pod))
	defer func() { _ = syscall.Kill(-pod.PID, syscall.SIGKILL) }()
	assert.Equal(t, "alpha", pod.Name)
	assert.Equal(t, dir+"/alpha/sock", pod.Socket)
	assert.Equal(t, dir+"/alpha/stderr.log", pod.Log)
	assert.Positive(t, pod.ReadyMS)
	assert.NoError(t, syscall.Kill(pod.PID, 0))
	assert.Equal(t, "alpha: loading \\x1b[2J\n", stderr)
}

func TestReportForPeople(t *testing.T) {
	runtimeDir(t)
	stdout, stderr, status := podspawn(t, "ready", "alpha")
	require.Zero(t, status, stderr)
	pid, err := strconv.Atoi(regexp.MustCompile(`process (\d+)`).FindStringSubmatch(stdout)[1])
	require.NoError(t, err)
	defer func() { _ = syscall.Kill(-pid, syscall.SIGKILL) }()
	assert.Regexp(t, `^pod alpha is ready after \S+\nprocess \d+\nsocket  /.*/alpha/sock\nlog     /.*/alpha/stderr\.log\n$`, stdout)
}

func TestFailureIsTold(t *testing.T) {
	runtimeDir(t)
	stdout, stderr, status := podspawn(t, "early-exit", "alpha")
	assert.Equal(t, 1, status)
	assert.Empty(t, stdout)
	assert.True(t, strings.HasPrefix(stderr, "alpha: cannot open session store\npodspawn: pod exited before becoming ready (exit status 7): cannot open session store\n"), stderr)
}

func TestWrongUsage(t *testing.T) {
	t.Setenv(spawn.RuntimeCommandEnv, "")
	for want, args := range map[string][]string{
		"podspawn: want one pod name, got []":               {"-pod", "x"},
		`podspawn: want one pod name, got ["a" "b"]`:        {"-pod", "x", "a", "b"},
		"podspawn: which pod? Give -pod PROGRAM or set YOI": {"alpha"},
		`invalid value "x" for flag -session`:               {"-session", "x", "alpha"},
	} {
		var out, errs bytes.Buffer
		assert.Equal(t, 2, run(args, &out, &errs), want)
		assert.Contains(t, errs.String(), want)
	}
}

func TestDefaultCommandIsTakenFromTheEnvironment(t *testing.T) {
	runtimeDir(t)
	t.Setenv(spawn.RuntimeCommandEnv, "/nowhere/agent")
	var out, errs bytes.Buffer
	assert.Equal(t, 1, run([]string{"-pod-arg", "more", "alpha"}, &out, &errs))
	assert.Contains(t, errs.String(), "failed to launch pod runtime command `/nowhere/agent pod more`")
}
