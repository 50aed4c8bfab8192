package harness_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// crashes is a program that says why it dies, and then more than a message has lines.
const crashes = "log 'panic: no store'; log ''; log 'goroutine 1 [running]:'; log 'main.main()'; log '	/src/main.go:7 +0x1d'; " +
	"log one; log two; log three; log four; log five; log six; log seven; log eight; log nine; exit 2"

func TestMessageOfAFailedStartIsABlock(t *testing.T) {
	t.Parallel()
	cfg := fake(crashes)
	cfg.Name = "alpha"
	tb := harness.NewTB(t)
	log := tb.Run(func() { harness.StartPod(tb, cfg) })
	assert.Regexp(t, `^harness: pod exited before becoming ready \(exit status 2\): panic: no store
	pod: alpha \(process \d+\)
	log: `+regexp.QuoteMeta(filepath.Join(tb.Artifacts, "alpha.log"))+`
	last lines:
		two
		three
		four
		five
		six
		seven
		eight
		nine
$`, log)
	assert.Equal(t, 1, strings.Count(tb.End(), "\t\tnine\n"), "the lines are shown once")

	tb = harness.NewTB(t)
	_, err := harness.TryStartPod(tb, cfg)
	assert.Regexp(t, `^pod exited before becoming ready \(exit status 2\): panic: no store \| … \| two \| three .* \| nine\n`, err.Error())

	tb = harness.NewTB(t)
	cfg.Command.Program = "/nowhere/agent"
	log = tb.Run(func() { harness.StartPod(tb, cfg) })
	assert.Contains(t, log, "no such file or directory")
	assert.NotContains(t, log, "log:", "it is empty")
}

func TestMessageOfAPodThatCrashesSaysWhy(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha"})
	crash, err := json.Marshal(map[string]any{"method": "run", "params": map[string]string{"program": crashes}})
	require.NoError(t, err)
	sub, other := harness.NewTB(t), harness.NewTB(t)
	pod.With(sub)
	pod.With(other)
	_, _ = pod.TrySend(string(crash), patience)
	waitFor(t, pod.Done())
	log := sub.End()
	assert.Contains(t, log, "harness: pod alpha ended by itself during the test (exit status 2)\n\tlog: "+tb.Artifacts+"/alpha.log\n\tlast lines:\n\t\tpanic: no store\n\t\t…\n\t\ttwo\n")
	log = other.End()
	assert.Contains(t, log, "harness: pod alpha ended by itself during the test (exit status 2)\n\tlog: "+tb.Artifacts+"/alpha.log\n\treason: panic: no store\n")
	assert.NotContains(t, log, "\t\ttwo\n")
	_, err = pod.TryRestart()
	var e *harness.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "panic: no store", e.Reason)
}

// TestMessageSaysThatAPodHasEndedThatIsDying has pods close the connection before they end,
// and be killed.
func TestMessageSaysThatAPodHasEndedThatIsDying(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(p *harness.Pod){
		"it closes its connections": func(p *harness.Pod) {
			p.Send(`{"method":"run","params":{"program":"close; sleep 50ms; exit 3"}}`, patience)
		},
		"it was killed": func(p *harness.Pod) {
			_ = p.Signal(syscall.SIGKILL)
			p.WaitLog("never", 0)
		},
		"it did not stop": func(p *harness.Pod) {
			assert.ErrorContains(t, p.Stop(), "did not stop within 10ms of SIGINT: killed")
			p.Talk(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := harness.NewTB(t)
			cfg := fake("stubborn")
			cfg.Name, cfg.StopGrace, cfg.MustStopGracefully = "alpha", 10*time.Millisecond, true
			pod := harness.StartPod(tb, cfg)
			tb.Run(func() { act(pod) })
			log := tb.End()
			assert.True(t, tb.Failed())
			assert.NotContains(t, log, "still runs")
			assert.Regexp(t, `\tpod: it has ended \((exit status 3|signal: killed)\)\n`, log)
		})
	}
}

func TestLogThatWasReplacedIsTold(t *testing.T) {
	t.Parallel()
	const note = "\n\tnote: the log is another file now, as after a rotation: what was written to that one is not read"
	rotate := func(t *testing.T, log string) {
		t.Helper()
		require.NoError(t, os.Rename(log, log+".1"))
		require.NoError(t, os.WriteFile(log, []byte("the reason why\n"), 0o600))
	}
	t.Run("WaitLog", func(t *testing.T) {
		t.Parallel()
		pod := harness.StartPod(t, fake("log first; bind; ready; serve"))
		_, err := pod.TryWaitLog("reason", 10*time.Millisecond)
		require.Error(t, err)
		assert.NotContains(t, err.Error(), note)
		rotate(t, pod.LogPath)
		_, err = pod.TryWaitLog("reason", 10*time.Millisecond)
		assert.ErrorContains(t, err, note)
		assert.ErrorContains(t, err, "\n\t\tfirst\n")
	})
	t.Run("WaitLog of an earlier life", func(t *testing.T) {
		t.Parallel()
		pod := harness.StartPod(t, harness.Config{})
		pod.Restart()
		_, err := pod.TryWaitLog("reason", 10*time.Millisecond)
		require.Error(t, err)
		assert.NotContains(t, err.Error(), note)
	})
	t.Run("Adopt", func(t *testing.T) {
		t.Parallel()
		script := `mkdir "$YOI_RUNTIME_DIR/alpha"; cd "$YOI_RUNTIME_DIR/alpha"; echo loading >stderr.log; echo there; read x; mv stderr.log stderr.log.1; echo again >stderr.log; echo moved; read x`
		client := harness.StartClient(t, harness.ClientConfig{Program: "/bin/sh", Args: []string{"-c", script}, TTY: true})
		client.WaitOutput("there", patience)
		_, err := harness.TryAdopt(t, "alpha", 100*time.Millisecond)
		require.ErrorContains(t, err, "it has written no ready line")
		assert.NotContains(t, err.Error(), note)
		_, err = client.Write([]byte("\n"))
		require.NoError(t, err)
		client.WaitOutput("moved", patience)
		_, err = harness.TryAdopt(t, "alpha", 100*time.Millisecond)
		assert.ErrorContains(t, err, note)
	})
}
