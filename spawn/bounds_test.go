package spawn_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// holdings is what a process holds that a start could leave behind.
type holdings struct{ goroutines, descriptors, watches, zombies int }

func (h holdings) noMoreThan(most holdings) bool {
	return h.goroutines <= most.goroutines && h.descriptors <= most.descriptors && h.watches <= most.watches && h.zombies <= most.zombies
}

// held counts the holdings of this process; without /proc, the goroutines.
func held() holdings {
	h := holdings{goroutines: runtime.NumGoroutine()}
	fds, _ := os.ReadDir("/proc/self/fd")
	h.descriptors = len(fds)
	instance := false
	for _, fd := range fds {
		// One inotify instance stays once it was needed. When that is, nobody knows.
		if link, _ := os.Readlink("/proc/self/fd/" + fd.Name()); link == "anon_inode:inotify" && !instance {
			instance = true
			h.descriptors--
		}
		info, _ := os.ReadFile("/proc/self/fdinfo/" + fd.Name())
		h.watches += strings.Count(string(info), "inotify wd:")
	}
	h.zombies = zombies()
	return h
}

// TestStartsLeaveNothingBehind is not parallel: it counts for the whole process.
func TestStartsLeaveNothingBehind(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 5
	}
	round := func() {
		for _, program := range []string{"ready", "slow-bind", "early-exit", "exit-after-ready", "wrong-name", "malformed-no-socket", "dead-socket"} {
			cfg := fake(t, program)
			if program == "dead-socket" {
				cfg.ReadyTimeout = 20 * time.Millisecond
			}
			if program == "slow-bind" {
				cfg = fake(t, "ready; sleep 5ms; bind; serve")
				// Longer than a socket address.
				cfg.Env = []string{"YOI_RUNTIME_DIR=" + filepath.Join(cfg.WorkspaceRoot, strings.Repeat("d", 200))}
			}
			pod, err := spawn.Start(context.Background(), cfg)
			if err == nil {
				kill(t, pod)
			}
			os.RemoveAll(cfg.WorkspaceRoot)
		}
	}
	round() // the runtime's own stay
	before := held()
	for range rounds {
		round()
	}
	eventuallyHeld(t, before)
}

// eventuallyHeld waits until the process holds no more than before.
func eventuallyHeld(t *testing.T, before holdings) {
	t.Helper()
	// Not assert.Eventually, which has goroutines of its own.
	for deadline := time.Now().Add(patience); !held().noMoreThan(before); runtime.Gosched() {
		if time.Now().After(deadline) {
			require.FailNow(t, "something is left behind", "before %+v, now %+v", before, held())
		}
	}
}

// inHelper runs the calling test again in a process of its own, where it finds
// isHelper true, and returns what that printed.
func inHelper(t *testing.T, prepare func(*exec.Cmd)) string {
	t.Helper()
	cmd := again(t, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(cmd.Env, helperEnv+"="+t.Name())
	if prepare != nil {
		prepare(cmd)
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// again returns this test binary as a command, which is killed when it takes too
// long: what it prints can be read to its end.
func again(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), supervisedEnv+"=1")
	cmd.WaitDelay = patience
	return cmd
}

const helperEnv = "SPAWN_TEST_HELPER"

func isHelper(t *testing.T) bool { return os.Getenv(helperEnv) == t.Name() }

func TestStrayDescriptorsAreNotInherited(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc, so a pod cannot tell what it inherited")
	}
	if isHelper(t) {
		pod := mustStart(t, fake(t, "ready"))
		var fds map[string]string
		ask(t, pod.SocketPath, `{"method":"fds"}`, &fds)
		assert.Equal(t, map[string]string{"0": "/dev/null", "1": "/dev/null", "2": pod.LogPath}, fds)
		own, err := os.Readlink("/proc/self/fd/5")
		assert.NoError(t, err, "this process keeps what it was given")
		assert.Contains(t, own, "pipe:")
		return
	}
	t.Parallel()
	inHelper(t, func(cmd *exec.Cmd) {
		// Descriptors 3 to 5 of the helper, without close-on-exec.
		for range 3 {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			t.Cleanup(func() { r.Close(); w.Close() })
			cmd.ExtraFiles = append(cmd.ExtraFiles, w)
		}
	})
}

func TestSocketOfAnOlderProcessIsRefused(t *testing.T) {
	t.Parallel()
	needsLinux(t, "only Linux tells how old a listener's process is")
	cfg := fake(t, "ready; hang")
	cfg.AllowSecond = true
	dir := filepath.Join(cfg.WorkspaceRoot, "run", "alpha")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	// This process is older than the pod that it starts.
	listener, err := net.Listen("unix", filepath.Join(dir, "sock"))
	require.NoError(t, err)
	defer listener.Close()
	e := mustFail(t, context.Background(), cfg)
	assert.ErrorIs(t, e, spawn.ErrSocket)
	assert.Contains(t, e.Error(), fmt.Sprintf("could not connect to pod socket %s/sock: process %d answers there, which is older than this pod (process %d)", dir, os.Getpid(), e.PID))
}

func TestMemoryIsBoundedWhateverThePodWrites(t *testing.T) {
	if isHelper(t) {
		// Alone in its process, so that nothing else counts.
		before := peakMemory(t)
		for _, program := range []string{"flood 256MiB; bind; ready; serve", "flood 256MiB 0; raw \"\\n\"; bind; ready; serve"} {
			cfg := fake(t, program)
			cfg.ReadyTimeout = 2 * patience
			mustStart(t, cfg)
			os.RemoveAll(cfg.WorkspaceRoot)
		}
		grown := peakMemory(t) - before
		fmt.Printf("peak memory grew by %d KiB\n", grown)
		assert.Less(t, grown, 128<<10, "KiB") // the race detector takes much of it
		return
	}
	t.Parallel()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc to read the peak memory from")
	}
	inHelper(t, nil)
}

// peakMemory returns the most memory that this process ever had, in KiB.
func peakMemory(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, after, ok := strings.Cut(string(status), "VmHWM:")
	require.True(t, ok)
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	require.NoError(t, err)
	return kib
}
