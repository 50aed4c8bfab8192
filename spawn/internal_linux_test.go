//go:build !portable

package spawn

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sleeper starts a process in a group of its own that is killed in the end.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read never")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		stdin.Close()
		_ = cmd.Wait()
	})
	return cmd
}

func TestSocketCountsForNothingOnceThePodHasEnded(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "spawn")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("unix", filepath.Join(dir, "sock"))
	require.NoError(t, err)
	defer listener.Close()
	cmd := sleeper(t)
	require.NoError(t, cmd.Process.Kill())
	require.NoError(t, unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil))

	made, err := os.Stat(dir)
	require.NoError(t, err)
	err = connect(filepath.Join(dir, "sock"), cmd.Process.Pid, made)
	assert.ErrorIs(t, err, errEnded)
	assert.True(t, isNotYet(err), "its end is told by the one who reaps it")
}

func TestWhatThisProcessLacksIsNamed(t *testing.T) {
	t.Parallel()
	for err, want := range map[syscall.Errno]string{
		syscall.EAGAIN: "may have no more processes", syscall.ENOMEM: "no memory for another process", syscall.ENFILE: "the system has no descriptor left",
		syscall.EBADF: "this process has no descriptor left", syscall.EMFILE: "this process has no descriptor left",
	} {
		got := launchError("pod", explainExec("/bin/sh", err))
		assert.ErrorIs(t, got, err)
		assert.ErrorIs(t, got, ErrLaunch)
		assert.ErrorContains(t, got, want)
	}
}

func TestSignalSparesWhoeverHasTheNumberNow(t *testing.T) {
	t.Parallel()
	other := sleeper(t)
	// A pod that was reaped while its group had members, whose number was given
	// away since.
	p := &process{pid: other.Process.Pid, reaped: true}
	assert.ErrorIs(t, p.signal(syscall.SIGKILL), os.ErrProcessDone)
	assert.False(t, proc.Ended(other.Process.Pid))
}

func TestKilledAlthoughItLeftItsGroup(t *testing.T) {
	t.Parallel()
	other := sleeper(t)
	cmd := exec.Command("sh", "-c", "read never")
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: other.Process.Pid}
	require.NoError(t, cmd.Start())
	p := &process{pid: cmd.Process.Pid, done: make(chan struct{})}
	go p.reap(watchExit(p.pid))
	require.NoError(t, p.kill())
	assert.Equal(t, "signal: killed", p.exitState().String())
	assert.False(t, proc.Ended(other.Process.Pid))
}

// TestKillThatIsNotPermittedSaysSo has a pod of another user than this process is
// by then.
func TestKillThatIsNotPermittedSaysSo(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can start another user's process")
	}
	other := sleeper(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillHelper$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprint("SPAWN_TEST_KILL=", other.Process.Pid), "SPAWN_TEST_SUPERVISED=1")
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), fmt.Sprintf("send killed to process group %d: operation not permitted", other.Process.Pid))
	assert.False(t, proc.Ended(other.Process.Pid))
}

func TestKillHelper(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv("SPAWN_TEST_KILL"))
	if err != nil {
		t.Skip("this is a part of TestKillThatIsNotPermittedSaysSo")
	}
	require.NoError(t, syscall.Setuid(65534))
	begin := time.Now()
	t.Log((&process{pid: pid, done: make(chan struct{})}).kill())
	assert.Less(t, time.Since(begin), killGrace, "it is not waited for")
}
