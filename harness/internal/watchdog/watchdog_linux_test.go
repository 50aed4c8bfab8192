//go:build !portable

package watchdog

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/spawn/proc"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// startWatchdog starts a watchdog as a test binary does, and returns its process
// and what that tells it with.
func startWatchdog(t *testing.T) (*exec.Cmd, *Parent) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.Mkdir(root, 0o700))
	cmd := reexec.Command(arg, uuid.NewString(), root, t.TempDir())
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd.Stdin = r
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		w.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	b := To(w)
	b.cmd = cmd
	return cmd, b
}

func TestWatchdogHitsNobodyElse(t *testing.T) {
	t.Parallel()
	watchdog, b := startWatchdog(t)
	pods := map[string]*exec.Cmd{}
	for _, name := range []string{"told", "ended", "let go", "never told"} {
		pods[name] = startSleeper(t, 0)
	}
	member := startSleeper(t, pods["told"].Process.Pid)
	orphan := startSleeper(t, pods["ended"].Process.Pid)
	told := map[string]proc.ID{}
	for _, name := range []string{"told", "ended", "let go"} {
		b.Starting()
		told[name] = b.Launched(pods[name].Process.Pid, 0)
	}
	b.LetGo(told["let go"])
	b.LetGo(told["let go"])
	b.LetGo(proc.ID{PID: told["told"].PID, Start: told["told"].Start - 1}) // an earlier one of that number
	require.Eventually(t, func() bool { return pidfds(t, watchdog.Process.Pid) == 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, pods["ended"].Process.Kill())
	require.True(t, hasEnded(t, pods["ended"], 10*time.Second))
	b.pipe.Close()
	assert.True(t, hasEnded(t, watchdog, 10*time.Second))
	assert.True(t, hasEnded(t, pods["told"], 10*time.Second))
	assert.True(t, hasEnded(t, member, 10*time.Second), "the whole group")
	assert.True(t, hasEnded(t, orphan, 10*time.Second), "also of a pod that has ended")
	for _, name := range []string{"let go", "never told"} {
		assert.False(t, proc.Ended(pods[name].Process.Pid), name)
	}
}

func TestWatchdogHoldsOnePidfdForEachPod(t *testing.T) {
	t.Parallel()
	watchdog, b := startWatchdog(t)
	for range 50 {
		pod := startSleeper(t, 0)
		b.Starting()
		told := b.Launched(pod.Process.Pid, 0)
		b.LetGo(told)
		require.NoError(t, pod.Process.Kill())
	}
	pod := b.Launched(startSleeper(t, 0).Process.Pid, 0)
	assert.Eventually(t, func() bool { return pidfds(t, watchdog.Process.Pid) == 1 }, 10*time.Second, time.Millisecond)
	b.LetGo(pod)
	assert.Eventually(t, func() bool { return pidfds(t, watchdog.Process.Pid) == 0 }, 10*time.Second, time.Millisecond)
}

func TestStoppedWatchdogDoesNotHoldUpAStart(t *testing.T) {
	t.Parallel()
	watchdog, b := startWatchdog(t)
	require.NoError(t, watchdog.Process.Signal(syscall.SIGSTOP))
	begin := time.Now()
	for time.Since(begin) < 500*time.Millisecond { // until the socket is full
		b.Starting()
	}
	b.Starting()
	assert.Less(t, time.Since(begin), 10*time.Second)
}

func TestWhatTheWatchdogNotes(t *testing.T) {
	t.Parallel()
	w := newWatched()
	self := proc.Of(os.Getpid())
	line := func(what string, id proc.ID) string { return fmt.Sprint(what, id.PID, " ", id.Start) }
	w.note("")
	w.note("+0 0 0") // of a start that an earlier watchdog has seen begin
	w.note("*0 7")
	w.note("*0 8")
	assert.Equal(t, 2, w.starts)
	assert.Equal(t, int64(7), w.since)
	w.note(line("+", proc.ID{PID: self.PID, Start: self.Start - 1}) + " 0")
	assert.Empty(t, w.pods, "its number was given away")
	w.note(line("+", self) + " 3")
	require.Len(t, w.pods, 1)
	assert.Equal(t, syscall.SIGQUIT, w.pods[self].dump)
	w.note(line("-", self))
	assert.Empty(t, w.pods)
	w.note("*0 10")
	assert.Equal(t, 1, w.starts)
	assert.Equal(t, int64(10), w.since)
	w.note(`@7 "/a \"b\""`)
	assert.Equal(t, map[int]string{7: `/a "b"`}, w.places)
}

// TestWatchdogIsWaitedForWhileItIsUsed kills it while a sandbox needs it, and while none does.
func TestWatchdogIsWaitedForWhileItIsUsed(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.Mkdir(root, 0o700))
	b, err := Start(uuid.NewString(), root, t.TempDir(), os.Stderr)
	require.NoError(t, err)
	t.Cleanup(func() {
		b.pipe.Close()
		_ = b.cmd.Wait()
	})
	replaced := func(old, times int) func() bool {
		return func() bool {
			pid, restarts := b.Process()
			return pid != old && restarts == times
		}
	}
	waiting := func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		select {
		case <-b.waiting:
			return false
		default:
			return b.waiting != nil
		}
	}
	assert.False(t, waiting())
	var users sync.WaitGroup
	for range 20 {
		users.Add(1)
		go func() {
			defer users.Done()
			b.Use()
			b.Unuse()
		}()
	}
	users.Wait()
	assert.False(t, waiting(), "no goroutine is left")
	pid, _ := b.Process()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	b.Use()
	assert.Eventually(t, replaced(pid, 1), 10*time.Second, time.Millisecond)
	pid, _ = b.Process()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	assert.Eventually(t, replaced(pid, 2), 10*time.Second, time.Millisecond)
	assert.True(t, waiting())
	b.Unuse()
	assert.False(t, waiting())
}

// startSleeper starts a process in a group: 0 = one of its own.
func startSleeper(t *testing.T, group int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: group}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// hasEnded waits for the end of a child of the test, and reports whether it came.
func hasEnded(t *testing.T, cmd *exec.Cmd, within time.Duration) bool {
	t.Helper()
	if h, err := proc.Hold(proc.Of(cmd.Process.Pid)); err == nil {
		defer h.Close()
		if !h.EndsWithin(within) {
			return false
		}
	}
	_ = cmd.Wait()
	return true
}

// pidfds counts the processes that a process holds.
func pidfds(t *testing.T, pid int) (count int) {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	require.NoError(t, err)
	for _, file := range files {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, file.Name()))
		if strings.Contains(target, "pidfd") {
			count++
		}
	}
	return count
}
