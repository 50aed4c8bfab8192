//go:build !portable

package podlog

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestFollowersOfOneFileAreWokenByThemselves(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	first, second := make(chan struct{}, 1), make(chan struct{}, 1)
	stopFirst, ok := watchPath(path, logEvents, first)
	if !ok {
		t.Skip("there is no inotify instance")
	}
	stopSecond, ok := watchPath(path, logEvents, second)
	require.True(t, ok)
	defer stopSecond()
	stopFirst()
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	select {
	case <-second:
	case <-time.After(20 * time.Second):
		t.Error("who stopped took the other's watch along")
	}
	assert.Empty(t, first)
}

// TestReaderEndsWhenNobodyWatches is not parallel: no other test may watch meanwhile.
func TestReaderEndsWhenNobodyWatches(t *testing.T) {
	for _, removed := range []bool{false, true} {
		var stops []func()
		for range 3 {
			path := filepath.Join(t.TempDir(), "log")
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			stop, ok := watchPath(path, logEvents, make(chan struct{}, 1))
			if !ok {
				t.Skip("there is no inotify instance")
			}
			if stops = append(stops, stop); removed { // the kernel drops the watch then
				require.NoError(t, os.Remove(path))
			}
		}
		for _, stop := range stops {
			stop()
		}
		assert.Eventually(t, func() bool {
			watches.mu.Lock()
			defer watches.mu.Unlock()
			return !watches.reading && len(watches.wakes) == 0
		}, 10*time.Second, time.Millisecond)
	}
}

// forget removes the watch of a path behind the back of those who have it.
func forget(path string) (wd int, err error) {
	watches.mu.Lock()
	defer watches.mu.Unlock()
	if wd, err = unix.InotifyAddWatch(watches.fd, path, unix.IN_MODIFY|unix.IN_MASK_ADD); err == nil {
		_, err = unix.InotifyRmWatch(watches.fd, uint32(wd))
	}
	return wd, err
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
	lines, done := make(chan string, 2), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { done <- Follow(ctx, log, func(line string) bool { lines <- line; return true }) }()
	_, err = w.WriteString("first\n")
	require.NoError(t, err)
	select {
	case line := <-lines: // it watches now
		assert.Equal(t, "first", line)
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the first line was not noticed")
	}

	// The kernel forgets the watch, and nobody is told of the next line.
	wd, err := forget(path)
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
