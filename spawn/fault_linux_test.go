//go:build !portable && (amd64 || arm64)

package spawn_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// within bounds each wait.
const within = 10 * time.Second

// under returns the config with faults.
func under(t testing.TB, cfg spawn.Config, texts ...string) spawn.Config {
	t.Helper()
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
	for _, text := range texts {
		f, err := fault.Parse(text)
		require.NoError(t, err)
		cfg.Faults = append(cfg.Faults, f)
	}
	return cfg
}

func TestPodMeetsFaults(t *testing.T) {
	t.Parallel()
	cfg := under(t, fake(t, "ready"), "bind:path={runtime}/{name}/sock:error=EADDRINUSE")
	var struck []fault.Strike
	_, err := spawn.StartObserved(context.Background(), cfg, &spawn.Observer{Struck: func(s fault.Strike) { struck = append(struck, s) }})
	require.ErrorIs(t, err, spawn.ErrExited)
	assert.ErrorContains(t, err, "address already in use")
	assert.ErrorContains(t, err, "\n\tfault: call 1 of bind "+filepath.Join(cfg.WorkspaceRoot, "run/alpha/sock")+" by thread ")
	var e *spawn.Error
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Strikes, 1)
	assert.Equal(t, "EADDRINUSE", e.Strikes[0].Result)
	assert.Equal(t, e.PID, e.Strikes[0].PID)
	assert.Empty(t, e.Unseen)
	assert.Equal(t, e.Strikes, struck)
	line, err := json.Marshal(e)
	require.NoError(t, err)
	var again spawn.Error
	require.NoError(t, json.Unmarshal(line, &again))
	assert.Equal(t, e.Strikes[0].Call, again.Strikes[0].Call)
}

func TestPodThatServesMeetsFaults(t *testing.T) {
	t.Parallel()
	cfg := under(t, fake(t, "ready"), "accept:path=**/sock:delay=1ms", "mkdir:error=EIO")
	pod := mustStart(t, cfg)
	group, err := syscall.Getpgid(pod.PID)
	require.NoError(t, err)
	assert.Equal(t, pod.PID, group)
	conn, err := spawn.Dial(context.Background(), pod.SocketPath)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(within)))
	_, err = conn.Read(make([]byte, 1))
	require.NoError(t, err)
	strikes := pod.Faults.Strikes()
	require.NotEmpty(t, strikes)
	assert.Equal(t, "accept4", strikes[0].Call)
	assert.Equal(t, "delayed 1ms", strikes[0].Result)
	kill(t, pod)
	select {
	case <-pod.Faults.Done():
	case <-time.After(within):
		t.Error("the session goes on after the pod's end")
	}
	assert.NoError(t, pod.Faults.Err())
}

func TestTimeoutAndLaunchUnderFaults(t *testing.T) {
	t.Parallel()
	cfg := under(t, fake(t, "hang"), "write:path=**/alpha/stderr.log:error=ENOSPC")
	cfg.ReadyTimeout = 500 * time.Millisecond
	_, err := spawn.Start(context.Background(), cfg)
	assert.ErrorIs(t, err, spawn.ErrTimeout)
	slow := under(t, fake(t, "ready"), "bind:delay=1h")
	slow.ReadyTimeout = 500 * time.Millisecond
	_, err = spawn.Start(context.Background(), slow)
	assert.Regexp(t, `\n\tfault: call 1 of bind \S*/alpha/sock by thread \d+ of process [1-9]\d*: delayed 1h0m0s$`, err)
	text := filepath.Join(cfg.WorkspaceRoot, "text")
	require.NoError(t, os.WriteFile(text, []byte("#!/nowhere\n"), 0o700))
	cfg.Command = spawn.Command{Program: text}
	_, err = spawn.Start(context.Background(), cfg)
	assert.ErrorIs(t, err, spawn.ErrLaunch)
	assert.ErrorIs(t, err, syscall.ENOENT)
	assert.ErrorContains(t, err, "the interpreter or the loader that it names is not")
	cfg.Faults = []fault.Fault{{Calls: "nonsense"}}
	_, err = spawn.Start(context.Background(), cfg)
	assert.ErrorIs(t, err, spawn.ErrInvalidConfig)
	assert.ErrorContains(t, err, `unknown system call "nonsense"`)
	cfg.Faults, cfg.PodName = []fault.Fault{{Calls: "open", Path: "{runtme}/x"}}, "beta"
	_, err = spawn.Start(context.Background(), cfg)
	assert.ErrorIs(t, err, spawn.ErrInvalidConfig)
	assert.ErrorContains(t, err, "nothing has replaced the word in braces")
	runtime, err := spawn.RuntimeDir(cfg.Env)
	require.NoError(t, err)
	assert.NoDirExists(t, filepath.Join(runtime, "beta"), "nothing was touched")
}
