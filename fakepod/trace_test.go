package fakepod_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// traced returns what a traced fake pod has noted when it has ended; before are the words
// of a command that starts another one.
func traced(t *testing.T, program string, before []string, handshake ...string) fakepod.Trace {
	t.Helper()
	file := filepath.Join(t.TempDir(), "trace")
	name, args := fakepod.Traced(program, file)
	words := slices.Concat(before, []string{name}, args, handshake)
	cmd := exec.Command(words[0], words[1:]...)
	root := tempDir(t)
	cmd.Env, cmd.Dir = []string{"YOI_RUNTIME_DIR=" + root, "PATH=" + os.Getenv("PATH"), "ODD=a b\n\"c'$(x)`"}, root
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	out, err := cmd.CombinedOutput()
	timer.Stop()
	if err != nil && cmd.ProcessState.ExitCode() > 100 {
		t.Skipf("%v: %s", err, out)
	}
	trace, err := fakepod.ReadTrace(file)
	require.NoError(t, err, "%s", out)
	return trace
}

func TestTraceHasTheArgumentsAndTheSteps(t *testing.T) {
	t.Parallel()
	handshake := []string{"pod", "--workspace", "a b\n'", "--pod", "alpha"}
	trace := traced(t, "log a; cd /; log '{pid}'; exit 3", nil, handshake...)
	assert.Equal(t, handshake, trace.Args)
	require.Len(t, trace.Steps, 4)
	for i, step := range trace.Steps {
		assert.Equal(t, i, step.Step)
		assert.Equal(t, trace.Inherited.Process, step.Process)
		assert.GreaterOrEqual(t, step.At, trace.Steps[max(0, i-1)].At)
	}
	assert.Empty(t, trace.Connections)

	refused := traced(t, "ready", nil, "--nonsense")
	assert.Equal(t, []string{"--nonsense"}, refused.Args)
	assert.NotNil(t, refused.Inherited)
	assert.Empty(t, refused.Steps)
}

func TestTraceOfADaemonGoesOn(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"daemonize", "daemonize 10ms"} {
		trace := traced(t, "ignore USR1; on USR2 hang; cd /; "+verb+"; log a; exit 3", nil, "--workspace", "w", "--pod", "alpha")
		assert.Len(t, trace.Args, 4)
		var steps []int
		for _, step := range trace.Steps[4:] {
			steps = append(steps, step.Step)
			assert.NotEqual(t, trace.Inherited.Process, step.Process)
		}
		assert.Equal(t, []int{2, 3, 4, 5}, steps, "it ignores, and reacts, once more")
	}
}

func TestTraceHasWhatWasInherited(t *testing.T) {
	t.Parallel()
	got := traced(t, "exit 0", nil, "--workspace", "w", "--pod", "alpha").Inherited
	assert.Contains(t, got.Env, "ODD=a b\n\"c'$(x)`")
	assert.NotContains(t, strings.Join(got.Env, "\n"), "podharness")
	assert.True(t, strings.HasPrefix(filepath.Base(got.Dir), "fp"), got.Dir)
	if runtime.GOOS != "linux" {
		return
	}
	assert.Empty(t, got.Blocked)
	assert.NotNil(t, got.Blocked)
	assert.NotContains(t, got.Ignored, "SIGUSR1")
	assert.Zero(t, got.ParentDeathSignal)
	assert.Equal(t, "/dev/null", got.Descriptors["0"])
	for fd, what := range got.Descriptors {
		assert.NotRegexp(t, "^/proc|trace$", what, "%s is its own, or the shell's", fd)
	}

	got = traced(t, "exit 0", []string{"/bin/sh", "-c", `umask 0027; ulimit -Sn 77; ulimit -c 0; trap '' TERM PIPE HUP; exec 7</dev/null; exec "$@"`, "sh"}, "--workspace", "w", "--pod", "alpha").Inherited
	assert.Equal(t, "0027", got.Umask)
	assert.Equal(t, "77", got.Limits["open files"][0])
	assert.Equal(t, [2]string{"0", "0"}, got.Limits["core file size"])
	assert.Len(t, got.Limits, 16)
	for _, sig := range []string{"SIGTERM", "SIGPIPE", "SIGHUP"} {
		assert.Contains(t, got.Ignored, sig)
	}
	assert.Equal(t, "/dev/null", got.Descriptors["7"])
}

func TestTraceHasTheBlockedSignals(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("this system does not tell")
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip(err)
	}
	block := `import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1, 40])
ctypes.CDLL(None).prctl(1, 10)
os.execv(sys.argv[1], sys.argv[1:])`
	got := traced(t, "exit 0", []string{python, "-c", block}, "--workspace", "w", "--pod", "alpha").Inherited
	assert.Equal(t, []string{"SIGINT", "SIGUSR1", "SIGCHLD", "signal 40"}, got.Blocked)
	assert.Equal(t, 10, got.ParentDeathSignal)
}

func TestTraceHasTheConnections(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "trace")
	root := tempDir(t)
	name, args := fakepod.Traced("ready", file)
	r := launchCommand(t, root, "alpha", name, args, nil, "--workspace", root)
	assert.Equal(t, r.ready(), r.line())
	trace := func() []fakepod.Connection {
		trace, err := fakepod.ReadTrace(file)
		require.NoError(t, err)
		return trace.Connections
	}
	soon := func(what string, is func(all []fakepod.Connection) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return is(trace()) }, patience, 5*time.Millisecond, what)
	}
	quiet, open, talks := r.client(), r.client(), r.client()
	quiet.conn.Close()
	soon("the first has left", func(all []fakepod.Connection) bool { return len(all) == 3 && all[0].Ended > 0 })
	_, err := fmt.Fprint(talks.conn, "{")
	require.NoError(t, err)
	soon("the third has sent a byte", func(all []fakepod.Connection) bool { return all[2].Bytes == 1 })
	talks.write(strings.Repeat(" ", 99))
	talks.conn.Close()
	soon("the third has left", func(all []fakepod.Connection) bool { return all[2].Ended > 0 })
	all := trace()
	assert.Zero(t, all[0].Bytes)
	assert.Zero(t, all[0].Spoke)
	assert.GreaterOrEqual(t, all[0].Ended, all[0].Accepted)
	assert.Zero(t, all[1].Ended)
	assert.Zero(t, all[1].Bytes)
	assert.Equal(t, int64(100), all[2].Bytes)
	assert.Greater(t, all[2].Spoke, all[2].Accepted)
	assert.GreaterOrEqual(t, all[2].Ended, all[2].Spoke)
	assert.Equal(t, `{"event":"pong"}`, open.ask(`{"method":"ping"}`))
	r.signal(syscall.SIGINT)
	assert.Equal(t, "exit status 0", r.wait())
}
