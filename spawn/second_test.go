package spawn_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestSecondPodOfANameIsRefused(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "log first; bind; ready; serve")
	first := mustStart(t, cfg)
	before, err := os.ReadFile(first.LogPath)
	require.NoError(t, err)

	second := fakeIn(cfg.WorkspaceRoot, "log second; bind; ready; serve")
	_, err = start(t, context.Background(), second)
	var e *spawn.Error
	require.ErrorAs(t, err, &e)
	assert.ErrorIs(t, e, spawn.ErrAlreadyRuns)
	assert.NotErrorIs(t, e, spawn.ErrLaunch)
	assert.Equal(t, []any{"already runs", first.SocketPath, ""}, []any{e.Verdict, e.SocketPath, e.LogPath})
	if isLinux {
		assert.Equal(t, first.PID, e.PID)
		assert.Equal(t, fmt.Sprintf("pod already runs: process %d listens on its socket %s\n\tpod: alpha (process %d)", first.PID, first.SocketPath, first.PID), e.Error())
	}
	after, err := os.ReadFile(first.LogPath)
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after), "the log was not touched")
	ask(t, first.SocketPath, `{"method":"ping"}`, nil)

	second.AllowSecond = true
	ask(t, mustStart(t, second).SocketPath, `{"method":"ping"}`, nil)
}

func TestSecondPodIsRefusedWhileTheFirstOneIsDeaf(t *testing.T) {
	t.Parallel()
	needsLinux(t, "a full backlog is EAGAIN on Linux alone")
	first := fake(t, "deaf")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first.AllowSecond = true // it does not hold the lock
	deaf := make(chan struct{})
	o := &spawn.Observer{Socket: func(what string) {
		if what == "deaf" {
			close(deaf)
		}
	}}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, err := spawn.StartObserved(ctx, first, o)
		assert.ErrorIs(t, err, context.Canceled)
		o.Log.Close()
	}()
	select {
	case <-deaf:
	case <-over:
		require.FailNow(t, "the first start is over")
	case <-time.After(patience):
		require.FailNow(t, "the first pod is not deaf")
	}
	e := mustFail(t, context.Background(), fakeIn(first.WorkspaceRoot, "ready"))
	assert.ErrorIs(t, e, spawn.ErrAlreadyRuns)
	assert.Contains(t, e.Error(), "pod already runs: a process, whose backlog is full, listens on its socket /")
	late, end := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer end()
	_, err := spawn.Dial(late, filepath.Join(first.WorkspaceRoot, "run", "alpha", "sock"))
	assert.ErrorIs(t, err, unix.EAGAIN)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, "its backlog is full, nobody accepts connections")
	cancel()
	<-over
}

// TestDialWaitsForRoomInTheBacklog has a listener that accepts nothing until Dial waits.
func TestDialWaitsForRoomInTheBacklog(t *testing.T) {
	t.Parallel()
	needsLinux(t, "a full backlog is EAGAIN on Linux alone")
	address := &unix.SockaddrUnix{Name: filepath.Join(shortDir(t), "sock")}
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(listener)
	require.NoError(t, unix.Bind(listener, address))
	require.NoError(t, unix.Listen(listener, 0))
	first, err := spawn.Dial(context.Background(), address.Name)
	require.NoError(t, err)
	defer first.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connected := make(chan error, 1)
	go func() {
		conn, err := spawn.Dial(ctx, address.Name)
		if err == nil {
			conn.Close()
		}
		connected <- err
	}()
	select {
	case err := <-connected:
		require.FailNow(t, "it has not waited", "%v", err)
	case <-time.After(100 * time.Millisecond):
	}
	fd, _, err := unix.Accept(listener)
	require.NoError(t, err)
	defer unix.Close(fd)
	assert.NoError(t, <-connected)
}

func TestOfStartsAtOnceOneGoesOn(t *testing.T) {
	t.Parallel()
	const starts = 8
	cfg := fake(t, "log '{pid}'; sleep 300ms; bind; ready; serve")
	pods, errs := make([]*spawn.Pod, starts), make([]error, starts)
	var all sync.WaitGroup
	for i := range starts {
		all.Add(1)
		go func() {
			defer all.Done()
			pods[i], errs[i] = spawn.Start(context.Background(), cfg)
		}()
	}
	all.Wait()
	var one *spawn.Pod
	for i, pod := range pods {
		if pod != nil {
			t.Cleanup(func() { kill(t, pod) })
			assert.Nil(t, one, "one alone becomes ready")
			one = pod
			continue
		}
		assert.ErrorIs(t, errs[i], spawn.ErrAlreadyRuns)
	}
	require.NotNil(t, one)
	text, err := os.ReadFile(one.LogPath)
	require.NoError(t, err)
	assert.Contains(t, string(text), fmt.Sprintf("%d\n", one.PID), "nobody has truncated its log")
}

func TestLockEndsWithTheStart(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "early-exit")
	dir := filepath.Join(cfg.WorkspaceRoot, "run", "alpha")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	rival, err := os.Open(dir)
	require.NoError(t, err)
	defer rival.Close()
	lock := func() error { return unix.Flock(int(rival.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
	require.NoError(t, lock())
	e := mustFail(t, context.Background(), cfg)
	assert.ErrorIs(t, e, spawn.ErrAlreadyRuns)
	assert.Equal(t, "pod already runs: another start of it is under way, and holds the lock on "+dir+"; its process and socket are not known yet\n\tpod: alpha", e.Error())
	assert.NoFileExists(t, dir+"/stderr.log", "nothing was touched")
	require.NoError(t, unix.Flock(int(rival.Fd()), unix.LOCK_UN))

	for range 3 {
		assert.ErrorIs(t, mustFail(t, context.Background(), cfg), spawn.ErrExited)
	}
	assert.NoError(t, lock(), "after a failure")
	require.NoError(t, unix.Flock(int(rival.Fd()), unix.LOCK_UN))
	mustStart(t, fakeIn(cfg.WorkspaceRoot, "child; bind; ready; serve"))
	assert.NoError(t, lock(), "the pod and its child do not have it")
}

// TestStartRightAfterAKill has a worker listen that ends a moment after the pod.
func TestStartRightAfterAKill(t *testing.T) {
	if !proc.Proves {
		t.Skip("only Linux tells that who listens on a socket is about to end")
	}
	t.Parallel()
	cfg := testPod(t, "worker")
	for range 20 {
		pod := mustStart(t, cfg)
		require.NoError(t, pod.Signal(unix.SIGKILL))
		<-pod.Done()
	}
	cfg = fakeIn(cfg.WorkspaceRoot, "child 'bind; ready; serve'; hang")
	for range 20 {
		pod := mustStart(t, cfg)
		require.NoError(t, pod.Signal(unix.SIGKILL))
		<-pod.Done()
	}
}

// TestStartWhileAnEarlierPodIsBeingRemoved starts a pod whose directory goes all the time.
func TestStartWhileAnEarlierPodIsBeingRemoved(t *testing.T) {
	t.Parallel()
	cfg := shell(t, "exit 7")
	dir := filepath.Join(cfg.WorkspaceRoot, "run", "alpha")
	over, removed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(removed)
		for {
			select {
			case <-over:
				return
			case <-time.After(50 * time.Microsecond):
				_ = os.Remove(dir) // if it is empty
			}
		}
	}()
	for range 50 {
		_, err := start(t, context.Background(), cfg)
		if !errors.Is(err, spawn.ErrExited) {
			assert.ErrorIs(t, err, spawn.ErrExited)
			break
		}
		require.NoError(t, os.Remove(dir+"/stderr.log"))
	}
	close(over)
	<-removed
}
