//go:build !portable && (amd64 || arm64)

package harness

import (
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

func needFaults(t *testing.T) {
	t.Helper()
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
}

func TestFaultsAreOnTheTimeline(t *testing.T) {
	t.Parallel()
	needFaults(t)
	tb := NewTB(t)
	pod, err := TryStartPod(tb, Config{Name: "alpha", Faults: []fault.Fault{{Calls: "accept", Path: "{runtime}/{name}/sock", Delay: time.Millisecond, When: 1}}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(pod.Faults.Strikes()) == 1 }, 10*time.Second, time.Millisecond)
	tb.Errorf("the test's own failure")
	tb.End()
	for _, name := range []string{"timelines.txt", "report.html"} {
		text, err := os.ReadFile(filepath.Join(tb.Artifacts, name))
		require.NoError(t, err)
		assert.Regexp(t, `fault: call 1 of accept4 /\S*/alpha/sock by thread \d+ of process \d+: delayed 1ms`, string(text))
	}
}

// TestPodIsKilledInTheMiddleOfASave and is started again: {home} is where it stores.
func TestPodIsKilledInTheMiddleOfASave(t *testing.T) {
	t.Parallel()
	needFaults(t)
	sh := spawn.Command{Program: "sh", PrefixArgs: []string{"-c", `echo new > "$HOME/state.tmp" && mv "$HOME/state.tmp" "$HOME/state" && exit 7`, "sh"}}
	cfg := Config{Name: "alpha", Command: sh, Faults: []fault.Fault{{Calls: "rename", Path: "{home}/state", Signal: syscall.SIGKILL, When: 1}}}
	_, err := TryStartPod(t, cfg)
	var start *spawn.Error
	require.ErrorAs(t, err, &start)
	require.Len(t, start.Strikes, 1)
	assert.Equal(t, "SIGKILL", start.Strikes[0].Result)
	cfg.Command, cfg.Faults = spawn.Command{}, []fault.Fault{{Calls: "mkdir", Error: syscall.EIO}}
	pod := StartPod(t, cfg).Restart()
	assert.Nil(t, pod.Faults, "the cause is gone")
}
