package fakepod_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestKillDoesWhatItDoesToACProgram(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere Go's own handlers stay")
	}
	for name, sig := range map[string]syscall.Signal{
		"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "SEGV": syscall.SIGSEGV,
		"ABRT": syscall.SIGABRT, "QUIT": syscall.SIGQUIT, "PIPE": syscall.SIGPIPE, "USR1": syscall.SIGUSR1,
	} {
		r := launch(t, "kill "+name+"; log survived")
		assert.Empty(t, r.rest(), name)
		status := r.end()
		assert.True(t, status.Signaled(), "%s: exit status %d", name, status.ExitStatus())
		assert.Equal(t, sig, status.Signal(), name)
		assert.False(t, status.CoreDump(), name)
	}
}

func TestKillThatThePodSurvives(t *testing.T) {
	t.Parallel()
	for _, kill := range []string{"kill URG", "kill WINCH", "kill CHLD", "kill CONT", "ignore USR1; kill USR1", "ignore sigint TERM; kill INT; kill term"} {
		r := launch(t, kill+"; log survived; exit 4")
		assert.Equal(t, "survived\n", r.rest(), kill)
		assert.Equal(t, 4, r.end().ExitStatus(), kill)
	}
	for _, sig := range []string{"STOP", "TSTP", "TTIN", "TTOU"} {
		r := launch(t, "log first; kill "+sig+"; log survived; exit 4")
		assert.Equal(t, "first\n", r.line(), sig)
		r.stopped()
		r.signal(syscall.SIGCONT)
		assert.Equal(t, "survived\n", r.rest(), sig)
		assert.Equal(t, 4, r.end().ExitStatus(), sig)
	}
}

func TestStopOfAChild(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"stop", "kill INT"} {
		name, args := fakepod.Command(program)
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		dir := t.TempDir()
		cmd := exec.Command(name, append([]string{args[0], "-role", "child"}, append(args[1:], "--workspace", "/w", "--pod", "a")...)...)
		cmd.Env = []string{"YOI_RUNTIME_DIR=" + dir}
		cmd.ExtraFiles = []*os.File{w}
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Run()
		timer.Stop()
		w.Close()
		assert.Equal(t, 130, cmd.ProcessState.ExitCode(), program)
		assert.NoDirExists(t, filepath.Join(dir, "a"), "it keeps none")
	}
	_, stderr, status := run(t, []string{"YOI_RUNTIME_DIR=" + t.TempDir()}, "-role", "child", "--workspace", "/w", "--pod", "a")
	assert.Equal(t, "fakepod: tell that it started: bad file descriptor\n", stderr, "nobody started it")
	assert.Equal(t, 1, status)
}

// TestDaemonGoesOnAfterTheOriginal starts a daemon by hand, in the original's place.
func TestDaemonGoesOnAfterTheOriginal(t *testing.T) {
	t.Parallel()
	started, startedEnd, err := os.Pipe()
	require.NoError(t, err)
	originalEnd, original, err := os.Pipe()
	require.NoError(t, err)
	stderr, stderrEnd, err := os.Pipe()
	require.NoError(t, err)
	for _, f := range []*os.File{started, original, stderr} {
		defer f.Close()
		require.NoError(t, f.SetDeadline(time.Now().Add(patience)))
	}
	name, args := fakepod.Command("ignore TERM; log on; exit 3")
	dir := t.TempDir()
	cmd := exec.Command(name, append([]string{args[0], "-role", "daemon"}, append(args[1:], "--workspace", "/w", "--pod", "a")...)...)
	cmd.Env = []string{"YOI_RUNTIME_DIR=" + dir}
	cmd.Stderr, cmd.ExtraFiles = stderrEnd, []*os.File{startedEnd, originalEnd}
	err = cmd.Start()
	for _, f := range []*os.File{startedEnd, originalEnd, stderrEnd} {
		f.Close()
	}
	require.NoError(t, err)
	defer cmd.Wait()
	defer cmd.Process.Kill()

	_, err = started.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF, "it tells that it acts its program out")
	pid, err := os.ReadFile(filepath.Join(dir, "a", "pid"))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintln(cmd.Process.Pid), string(pid), "it is the pod by then")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM), "which it ignores by then")
	require.NoError(t, stderr.SetDeadline(time.Now().Add(100*time.Millisecond)))
	_, err = stderr.Read(make([]byte, 1))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded, "it waits for the original's end")
	original.Close()
	require.NoError(t, stderr.SetDeadline(time.Now().Add(patience)))
	text, err := io.ReadAll(stderr)
	require.NoError(t, err)
	assert.Equal(t, "on\n", string(text))
}

func TestDaemonThatIsReadyBeforeItsParentEnds(t *testing.T) {
	t.Parallel()
	r := launch(t, "daemonize 1s; log '{pid}'; bind; ready; serve")
	pid := r.pid()
	assert.NotEqual(t, r.cmd.Process.Pid, pid)
	assert.Equal(t, r.ready(), r.line())
	r.client()
	select {
	case <-r.exited:
		assert.Fail(t, "its parent has ended")
	default:
	}
	assert.Equal(t, "exit status 0", r.wait())
	r.client()
	require.NoError(t, syscall.Kill(pid, syscall.SIGINT))
	assert.Empty(t, r.rest())
}

func TestWhatAPodDoesOnASignal(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		program, log, end string
		sig               syscall.Signal
	}{
		{"on INT 'exit 3'; log on; hang", "", "exit status 3", syscall.SIGINT},
		{"on TERM 'log bye; sleep 10ms; stop'; log on; hang", "bye\n", "exit status 0", syscall.SIGTERM},
		{"on USR1 'log bye; bind; bind'; log on; hang", "bye\nfakepod: bind: there is a socket already\n", "exit status 1", syscall.SIGUSR1},
		{"on TERM hang; ignore TERM; on TERM 'exit 4'; log on; hang", "", "exit status 4", syscall.SIGTERM},
		{"on INT 'exit 3'; on INT 'exit 5'; log on; hang", "", "exit status 5", syscall.SIGINT},
		{"on USR1 'exit 7'; log on; kill USR1; hang", "", "exit status 7", 0},
	} {
		r := launch(t, tc.program)
		assert.Equal(t, "on\n", r.line(), tc.program)
		if tc.sig != 0 {
			_ = syscall.Kill(-r.cmd.Process.Pid, tc.sig)
		}
		assert.Equal(t, tc.log, r.rest(), tc.program)
		assert.Equal(t, tc.end, r.wait(), tc.program)
	}
}

func TestPodReactsToEachSignalOfMany(t *testing.T) {
	t.Parallel()
	r := launch(t, "on HUP 'log again; ready;'; bind; ready; serve")
	assert.Equal(t, r.ready(), r.line())
	for range 3 {
		r.signal(syscall.SIGHUP)
		assert.Equal(t, "again\n", r.line())
		assert.Equal(t, r.ready(), r.line())
	}
	r.signal(syscall.SIGINT)
	assert.Equal(t, "exit status 0", r.wait())
	assert.NoDirExists(t, r.dir)
}

func TestDaemonOfADaemon(t *testing.T) {
	t.Parallel()
	r := launch(t, `log "{pid}"; daemonize; log "{pid}"; daemonize; log "{pid}"; ready; daemonize`)
	first, second, third := r.pid(), r.pid(), r.pid()
	assert.Equal(t, r.cmd.Process.Pid, first)
	assert.NotEqual(t, first, second)
	assert.NotEqual(t, second, third)
	assert.Equal(t, r.ready(), r.line())
	assert.Equal(t, 0, r.end().ExitStatus())
}

func TestStopThatCannotRemove(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("the superuser can remove everything")
	}
	r := launch(t, "log started; sleep 1h")
	r.line()
	locked := filepath.Join(r.dir, "locked")
	require.NoError(t, os.MkdirAll(filepath.Join(locked, "x"), 0o700))
	require.NoError(t, os.Chmod(locked, 0o500))
	t.Cleanup(func() { _ = os.Chmod(locked, 0o700) })
	r.signal(syscall.SIGINT)
	assert.Contains(t, r.rest(), "fakepod: stop: unlinkat ")
	assert.Equal(t, 1, r.end().ExitStatus())
}

// stopped waits until the pod has stopped itself.
func (r *running) stopped() {
	r.t.Helper()
	require.Eventually(r.t, func() bool {
		var status unix.WaitStatus
		pid, err := unix.Wait4(r.cmd.Process.Pid, &status, unix.WUNTRACED|unix.WNOHANG, nil)
		return err == nil && pid > 0 && status.Stopped()
	}, patience, 5*time.Millisecond, "the pod has not stopped itself")
}

func TestChildThatEndsIsReaped(t *testing.T) {
	t.Parallel()
	r := launch(t, `child 'log "{pid}"'; hang`)
	pid := r.pid()
	require.Eventually(t, func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) },
		patience, 5*time.Millisecond, "process %d stays", pid)
}

func TestChildLeavesThePodDirectoryAlone(t *testing.T) {
	t.Parallel()
	r := launch(t, "child 'ready; stop'; child 'daemonize; ready; stop'; sleep 200ms; exit 4")
	r.rest() // both have ended
	assert.Equal(t, 4, r.end().ExitStatus())
	pid, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	require.NoError(t, err, "the child removed nothing")
	assert.Equal(t, strconv.Itoa(r.cmd.Process.Pid)+"\n", string(pid))
	status, err := os.ReadFile(filepath.Join(r.dir, "status.json"))
	require.NoError(t, err)
	assert.Contains(t, string(status), `"state":"starting"`, "the child wrote nothing")
}

func TestReadyDoesNotBringARemovedDirectoryBack(t *testing.T) {
	t.Parallel()
	r := launch(t, "unlink dir; ready; exit 4")
	assert.Equal(t, "YOI-READY\talpha\t"+r.dir+"/sock\n", r.rest())
	assert.NoDirExists(t, r.dir)
}
