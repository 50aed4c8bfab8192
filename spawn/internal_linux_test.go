//go:build !portable

package spawn

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

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

func TestSignalSparesWhoeverHasTheNumberNow(t *testing.T) {
	t.Parallel()
	other := sleeper(t)
	// A pod that was reaped while its group had members, whose number was given
	// away since.
	p := &process{pid: other.Process.Pid, reaped: true}
	assert.ErrorIs(t, p.signal(syscall.SIGKILL), os.ErrProcessDone)
	assert.False(t, hasEnded(other.Process.Pid))
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
	assert.False(t, hasEnded(other.Process.Pid))
}

func TestLostWakeUpIsNoticed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	w, err := os.Create(path)
	require.NoError(t, err)
	defer w.Close()
	log, err := os.Open(path)
	require.NoError(t, err)
	defer log.Close()
	lines, done := make(chan string), make(chan error)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- Follow(ctx, log, func(line string) bool { lines <- line; return true }) }()
	_, err = w.WriteString("first\n")
	require.NoError(t, err)
	assert.Equal(t, "first", <-lines) // it watches now

	// The kernel forgets the watch, and nobody is told of the next line.
	watches.mu.Lock()
	wd, err := unix.InotifyAddWatch(watches.fd, path, unix.IN_MODIFY|unix.IN_MASK_ADD)
	require.NoError(t, err)
	_, err = unix.InotifyRmWatch(watches.fd, uint32(wd))
	watches.mu.Unlock()
	require.NoError(t, err)
	watched := func() bool {
		watches.mu.Lock()
		defer watches.mu.Unlock()
		return watches.wakes[int32(wd)] != nil
	}
	require.Eventually(t, func() bool { return !watched() }, 20*time.Second, time.Millisecond)
	_, err = w.WriteString("second\n")
	require.NoError(t, err)
	select {
	case line := <-lines:
		assert.Equal(t, "second", line)
	case <-time.After(20 * time.Second):
		t.Error("the line was not noticed")
	}
	cancel()
	<-done
}
