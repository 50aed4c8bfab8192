//go:build !portable

package spawn_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// long tells that tests may take minutes: PODHARNESS_LONG=1.
var long = os.Getenv("PODHARNESS_LONG") != ""

func TestNoDescriptorsLeft(t *testing.T) {
	if isHelper(t) {
		// One with a number above the limit could not be closed in a child.
		proc.CloseInherited()
		cfg := fake(t, "ready")
		mustStart(t, cfg) // the runtime's poller is there
		before := held()
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		// With every number of free descriptors up to enough, the start ends
		// with a verdict and leaves none behind.
		outcomes := map[string]int{}
		for free := uint64(0); ; free++ {
			require.Less(t, free, uint64(40))
			few := limit
			few.Cur = uint64(before.descriptors) + free
			c := cfg
			c.PodName = fmt.Sprint("pod", free)
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
			pod, err := spawn.Start(context.Background(), c)
			require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
			if err == nil {
				kill(t, pod)
				break
			}
			assert.ErrorIs(t, err, unix.EMFILE)
			assert.ErrorContains(t, err, fmt.Sprintf("(this process has no descriptor left: its limit is %d, ulimit -n)", few.Cur))
			for _, verdict := range []error{spawn.ErrLaunch, spawn.ErrSocket} {
				if strings.HasPrefix(err.Error(), verdict.Error()) {
					outcomes[verdict.Error()]++
				}
			}
			require.LessOrEqual(t, held().descriptors, before.descriptors, "%v", err)
		}
		assert.Positive(t, outcomes[spawn.ErrLaunch.Error()])
		fmt.Println(outcomes)
		return
	}
	t.Parallel()
	t.Log(inHelper(t, nil))
}

// TestStartsWithoutInotify runs in user namespaces of its own: the limits that it
// lowers are theirs, and nobody else is left without.
func TestStartsWithoutInotify(t *testing.T) {
	if isHelper(t) {
		limit := os.Getenv("SPAWN_TEST_LIMIT")
		if err := os.WriteFile("/proc/sys/user/"+limit, []byte("0"), 0); err != nil {
			t.Skipf("the limit cannot be lowered: %v", err)
		}
		instance, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err == nil {
			_, err = unix.InotifyAddWatch(instance, "/", unix.IN_CREATE)
		}
		require.Error(t, err, limit)
		for _, program := range []string{"log loading; sleep 20ms; bind; ready; serve", "ready; sleep 20ms; bind; serve"} {
			pod := mustStart(t, fake(t, program))
			assert.Less(t, pod.Timeline.Connected, patience/2)
		}
		return
	}
	t.Parallel()
	for _, limit := range []string{"max_inotify_watches", "max_inotify_instances"} {
		t.Log(inHelper(t, func(cmd *exec.Cmd) {
			cmd.Env = append(cmd.Env, "SPAWN_TEST_LIMIT="+limit)
			inNamespaces(t, cmd, 0)
		}))
	}
}

// TestTracedPodThatHasEnded: while a tracer has not looked, the parent cannot
// reap it.
func TestTracedPodThatHasEnded(t *testing.T) {
	if isHelper(t) {
		pid, err := strconv.Atoi(os.Getenv("SPAWN_TEST_TRACED"))
		require.NoError(t, err)
		runtime.LockOSThread()
		if err := unix.PtraceSeize(pid); err != nil {
			fmt.Println("cannot:", err)
			return
		}
		fmt.Println("traced")
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	t.Parallel()
	pod := mustStart(t, fake(t, "ready"))
	cmd := again(t, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(cmd.Env, helperEnv+"="+t.Name(), fmt.Sprint("SPAWN_TEST_TRACED=", pod.PID))
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() { stdin.Close(); _ = cmd.Wait() }()
	for lines := bufio.NewScanner(stdout); ; {
		require.True(t, lines.Scan())
		if cannot, ok := strings.CutPrefix(lines.Text(), "cannot:"); ok {
			t.Skipf("no process can be traced:%s", cannot)
		}
		if lines.Text() == "traced" {
			break
		}
	}
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		assert.NoError(t, pod.Signal(syscall.SIGKILL))
		require.Eventually(t, func() bool {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pod.PID))
			return bytes.Contains(stat, []byte(") Z "))
		}, patience, time.Millisecond)
		assert.Nil(t, pod.State(), "it was not reaped")
		assert.NoError(t, pod.Signal(syscall.SIGKILL))
	}()
	select {
	case <-returned:
	case <-time.After(patience):
		t.Error("Signal and State wait for the tracer")
	}
	stdin.Close() // the tracer ends
	waitDone(t, pod)
	assert.Equal(t, "signal: killed", pod.State().String())
}

// TestHostThatReapsEveryChild ignores SIGCHLD, so that the kernel reaps at once.
func TestHostThatReapsEveryChild(t *testing.T) {
	if isHelper(t) {
		signal.Ignore(syscall.SIGCHLD)
		_, err := spawn.Start(context.Background(), fake(t, "early-exit"))
		assert.ErrorIs(t, err, spawn.ErrExited)
		assert.ErrorContains(t, err, "pod exited before becoming ready (its status is lost: ")
		assert.ErrorContains(t, err, "): cannot open session store")

		pod := mustStart(t, fake(t, "ready"))
		assert.NoError(t, pod.Signal(syscall.SIGKILL))
		waitDone(t, pod)
		assert.Nil(t, pod.State())
		assert.ErrorIs(t, pod.Signal(syscall.SIGKILL), os.ErrProcessDone, "its number may be somebody else's now")
		return
	}
	t.Parallel()
	inHelper(t, nil)
}

func TestFileSizeLimitOnTheLog(t *testing.T) {
	if isHelper(t) {
		limit := unix.Rlimit{Cur: 64 << 10, Max: unix.RLIM_INFINITY}
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
		e := mustFail(t, context.Background(), fake(t, "flood 1MiB; log 'no disk'; exit 7"))
		assert.ErrorIs(t, e, spawn.ErrExited)
		assert.Contains(t, e.Error(), "\n\tnote: the log has reached the file-size limit of 65536 bytes (ulimit -f): the pod's last words may be missing")
		return
	}
	t.Parallel()
	inHelper(t, nil)
}

// TestModesDoNotDependOnTheUmask makes parents of the runtime directory, too.
func TestModesDoNotDependOnTheUmask(t *testing.T) {
	if isHelper(t) {
		for _, mask := range []int{0, 0o177, 0o777} {
			cfg := fake(t, "")
			cfg.Command = spawn.Command{Program: "/bin/sh", PrefixArgs: []string{"-c", "umask >&2; exit 7", "sh"}}
			cfg.Env = []string{"YOI_RUNTIME_DIR=" + cfg.WorkspaceRoot + "/a/b//run"}
			old := unix.Umask(mask)
			_, err := spawn.Start(context.Background(), cfg)
			unix.Umask(old)
			require.ErrorContains(t, err, fmt.Sprintf("(exit status 7): %04o\n", mask), "the pod has the umask")
			for path, mode := range map[string]os.FileMode{"a": 0o700, "a/b": 0o700, "a/b/run": 0o700, "a/b/run/alpha": 0o700, "a/b/run/alpha/stderr.log": 0o600} {
				info, err := os.Stat(filepath.Join(cfg.WorkspaceRoot, path))
				require.NoError(t, err)
				assert.Equal(t, mode, info.Mode().Perm(), "%s with umask %03o", path, mask)
			}
		}
		return
	}
	t.Parallel()
	inHelper(t, nil)
}

func TestProgramOnAFileSystemWithoutPrograms(t *testing.T) {
	if isHelper(t) {
		cfg := fake(t, "ready")
		disk := filepath.Join(cfg.WorkspaceRoot, "disk")
		require.NoError(t, os.Mkdir(disk, 0o700))
		if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
			t.Skipf("nothing can be mounted: %v", err)
		}
		defer func() { assert.NoError(t, unix.Unmount(disk, unix.MNT_DETACH)) }()
		cfg.Command.Program = disk + "/pod"
		require.NoError(t, os.WriteFile(cfg.Command.Program, []byte("#!/bin/sh\n"), 0o700))
		e := mustFail(t, context.Background(), cfg)
		assert.ErrorIs(t, e, spawn.ErrLaunch)
		assert.ErrorIs(t, e, unix.EACCES)
		assert.Contains(t, e.Error(), "permission denied (its file system is mounted noexec)")
		return
	}
	t.Parallel()
	t.Log(inHelper(t, func(cmd *exec.Cmd) { inNamespaces(t, cmd, syscall.CLONE_NEWNS) }))
}

func TestFullDisk(t *testing.T) {
	if isHelper(t) {
		cfg := fake(t, "flood 1MiB; log 'no disk'; exit 7")
		disk := filepath.Join(cfg.WorkspaceRoot, "disk")
		require.NoError(t, os.Mkdir(disk, 0o700))
		// In a mount namespace that ends with this process.
		if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=128k"); err != nil {
			t.Skipf("a small disk cannot be mounted: %v", err)
		}
		defer func() { assert.NoError(t, unix.Unmount(disk, unix.MNT_DETACH)) }()
		cfg.Env = []string{"YOI_RUNTIME_DIR=" + disk}
		e := mustFail(t, context.Background(), cfg)
		assert.ErrorIs(t, e, spawn.ErrExited)
		assert.Contains(t, e.Error(), "\n\tnote: the disk of the log is full: the pod's last words may be missing")
		return
	}
	t.Parallel()
	t.Log(inHelper(t, func(cmd *exec.Cmd) { inNamespaces(t, cmd, syscall.CLONE_NEWNS) }))
}

func TestStrayDescriptorBeyondTheLimit(t *testing.T) {
	if isHelper(t) {
		var limit unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		require.NoError(t, unix.Dup3(1, 900, 0))
		limit.Cur = 256
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		if err := unix.CloseRange(math.MaxUint32, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
			t.Skipf("a descriptor beyond the limit is passed on before Linux 5.11: %v", err)
		}
		pod := mustStart(t, fake(t, "ready"))
		var fds map[string]string
		ask(t, pod.SocketPath, `{"method":"fds"}`, &fds)
		assert.Len(t, fds, 3)
		return
	}
	t.Parallel()
	inHelper(t, nil)
}

// TestNoThreadKeepsItsOwnDescriptors: one that did would hold every file open
// that was open at the time. It could be the main thread, the only one that does
// not end.
func TestNoThreadKeepsItsOwnDescriptors(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "ready")
	for begin, started := time.Now(), false; !started; {
		if time.Since(begin) > 2*time.Second {
			t.Skip("the main thread has run none of the goroutines")
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if started = unix.Gettid() == unix.Getpid(); started {
				pod, err := spawn.Start(context.Background(), cfg)
				if assert.NoError(t, err) {
					kill(t, pod)
				}
			}
		}()
		<-done
	}
	file, err := os.Create(filepath.Join(cfg.WorkspaceRoot, "opened since"))
	require.NoError(t, err)
	defer file.Close()
	lack := func() (threads []string) {
		tasks, err := filepath.Glob("/proc/self/task/*")
		require.NoError(t, err)
		for _, task := range tasks {
			if path, _ := os.Readlink(fmt.Sprintf("%s/fd/%d", task, file.Fd())); path != file.Name() {
				threads = append(threads, task)
			}
		}
		return threads
	}
	// A thread on its way out is gone a moment later.
	for deadline := time.Now().Add(patience); len(lack()) > 0; runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), "they have descriptors of their own: %v", lack())
	}
}

func TestTimelineDoesNotDependOnTheWallClock(t *testing.T) {
	t.Parallel()
	pod := mustStart(t, fake(t, "ready"))
	assert.Contains(t, pod.Timeline.Start.String(), " m=", "a clock that jumps does not change the monotonic reading")
}

func TestFiveHundredPodsAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("500 processes")
	}
	const pods = 500
	cfg := fake(t, "ready")
	kill(t, mustStart(t, cfg)) // the inotify instance stays
	before := held()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience) // for all
	defer cancel()
	started := make([]*spawn.Pod, pods)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 64)
	for i := range pods {
		wg.Add(1)
		go func() {
			defer wg.Done()
			gate <- struct{}{}
			defer func() { <-gate }()
			c := cfg
			c.PodName = fmt.Sprint("pod", i)
			pod, err := spawn.Start(ctx, c)
			if assert.NoError(t, err) {
				started[i] = pod
			}
		}()
	}
	wg.Wait()
	for _, pod := range started {
		if pod != nil {
			t.Cleanup(func() { _ = pod.Signal(unix.SIGKILL) })
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	alive := held()
	t.Logf("with %d live pods: %+v", pods, alive)
	assert.LessOrEqual(t, alive.goroutines-before.goroutines, pods+10, "one goroutine for each live pod")
	assert.Less(t, threads(t), 100, "and no thread")
	for _, pod := range started {
		assert.NoError(t, pod.Signal(unix.SIGKILL))
	}
	for _, pod := range started {
		waitDone(t, pod)
	}
	eventuallyHeld(t, before)
}

func TestManyStartsInARow(t *testing.T) {
	starts := 500
	if long {
		starts = 10_000
	}
	cfg := shell(t, "exit 7")
	cfg.PodName = "alpha"
	round := func(n int) {
		for range n {
			_, err := spawn.Start(context.Background(), cfg)
			require.ErrorIs(t, err, spawn.ErrExited)
		}
	}
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	round(100)
	before, heap := held(), memory()
	round(starts)
	eventuallyHeld(t, before)
	grown := int64(memory()) - int64(heap)
	t.Logf("the heap grew by %d bytes in %d starts", grown, starts)
	assert.Less(t, grown, int64(1<<20))
}

// threads returns how many threads this process has.
func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	return len(tasks)
}

// TestDaemonIsNotReadyInThePodsStead starts many at once, so that the process that the
// daemon has left is held up in its end.
func TestDaemonIsNotReadyInThePodsStead(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "daemonize; bind; ready; serve; sleep 200ms; stop")
	var all sync.WaitGroup
	for i := range 60 {
		all.Add(1)
		go func() {
			defer all.Done()
			c := cfg
			c.PodName = fmt.Sprint("pod", i)
			pod, err := spawn.Start(context.Background(), c)
			assert.Nil(t, pod)
			assert.ErrorIs(t, err, spawn.ErrExited)
		}()
	}
	all.Wait()
	require.Eventually(t, func() bool {
		left, err := os.ReadDir(filepath.Join(cfg.WorkspaceRoot, "run"))
		return err == nil && len(left) == 0
	}, patience, 5*time.Millisecond, "the daemons end")
}
