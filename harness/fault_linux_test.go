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

func TestPodFailsFromAMomentOnAndIsHealed(t *testing.T) {
	t.Parallel()
	needFaults(t)
	tb := NewTB(t)
	pod := StartPod(tb, Config{Name: "alpha", Faults: []fault.Fault{{Calls: "accept,open,write,send", Later: true}}})
	answer := func(request string) string {
		line, err := pod.TrySend(request, 300*time.Millisecond)
		if err != nil {
			return err.Error()
		}
		return line
	}
	const ping, child = `{"method":"ping"}`, `{"method":"run","params":{"program":"child 'exit 0'"}}`
	for _, tc := range []struct {
		fault         fault.Fault
		request, says string
	}{
		{fault.Fault{Calls: "accept", Path: "{runtime}/{name}/sock", Error: syscall.EMFILE}, ping, "no snapshot line"},
		{fault.Fault{Calls: "write,send", Path: "{runtime}/{name}/sock", Error: syscall.EPIPE}, ping, "no snapshot line"},
		{fault.Fault{Calls: "open", Path: "/dev/null", Error: syscall.EMFILE}, child, "too many open files"},
	} {
		assert.Contains(t, answer(tc.request), map[string]string{ping: "pong", child: "done"}[tc.request])
		pod.Fail(tc.fault)
		assert.Contains(t, answer(tc.request), tc.says, tc.fault)
		pod.Heal()
		assert.Contains(t, answer(tc.request), map[string]string{ping: "pong", child: "done"}[tc.request], tc.fault)
	}
	text := tb.Run(func() { pod.Fail(fault.Fault{Calls: "rename", Error: syscall.EIO}) })
	assert.Contains(t, text, `start it with "rename:later", too`)
	tb.End()
	timeline, err := os.ReadFile(filepath.Join(tb.Artifacts, "timelines.txt"))
	require.NoError(t, err)
	assert.Regexp(t, `(?s)from now on: fault accept:path=\{runtime\}/\{name\}/sock:error=EMFILE.*fault: call 1 of accept4 \S*/alpha/sock .*: EMFILE.*from now on: no fault`, string(timeline))
}

// TestMessageNamesTheCallsThatFaultsHaveStruck has a fault that another test has asked for.
func TestMessageNamesTheCallsThatFaultsHaveStruck(t *testing.T) {
	t.Parallel()
	needFaults(t)
	tb := NewTB(t)
	pod := StartPod(tb, Config{Name: "alpha", Faults: []fault.Fault{{Calls: "accept", Later: true}}})
	pod.Fail(fault.Fault{Calls: "accept", Error: syscall.EMFILE})
	other := NewTB(t)
	text := other.Run(func() { pod.With(other).Send(`{"method":"ping"}`, 300*time.Millisecond) })
	assert.Regexp(t, `sent no snapshot line: .*\n\tpod: .*\n\tlog: .*(\n\tfaults: they have struck \d+ calls before these)?(\n\tfault: call \d+ of accept4 \S*/alpha/sock by thread \d+ of process \d+: EMFILE){1,3}\n\tlast lines:`, text)
	other.End()
	tb.End()
}

func TestPodThatHasEndedMeetsNoFault(t *testing.T) {
	t.Parallel()
	needFaults(t)
	tb := NewTB(t)
	pod := StartPod(tb, Config{Name: "alpha", Faults: []fault.Fault{{Calls: "rename", Later: true}}})
	require.NoError(t, pod.Stop())
	text := tb.Run(func() { pod.Fail(fault.Fault{Calls: "rename", Error: syscall.EIO}) })
	assert.Contains(t, text, `harness: pod alpha cannot meet fault "rename:error=EIO"`+"\n\tpod: it has ended (exit status 0)\n")
	pod.Heal()
	tb.End()
}

func TestPodWithoutFaultsCannotFail(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	text := tb.Run(func() { StartPod(tb, Config{Name: "alpha"}).Fail(fault.Fault{Calls: "rename"}) })
	assert.Contains(t, text, `harness: pod alpha: fault "rename": Config.Faults is empty: start the pod with "rename:later"`)
}
