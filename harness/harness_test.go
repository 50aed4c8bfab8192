package harness_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const patience = 20 * time.Second

// waitFor receives, or fails the test.
func waitFor[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(2 * patience):
		require.Fail(t, "it did not come")
	}
	return v
}

func fake(program string) harness.Config {
	return harness.Config{Command: harness.FakePod(program)}
}

// ask sends a request to the pod and returns the data of the answer.
func ask(t *testing.T, pod *harness.Pod, request string, data any) {
	t.Helper()
	conn := pod.Dial()
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(conn, request+"\n")
	require.NoError(t, err)
	lines := bufio.NewScanner(conn)
	require.True(t, lines.Scan(), "no snapshot")
	require.True(t, lines.Scan(), "no answer")
	answer := struct{ Data any }{data}
	require.NoError(t, json.Unmarshal(lines.Bytes(), &answer))
}

func TestZeroConfigStartsAHealthyPod(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	assert.Regexp(t, `^TestZeroConfigStartsAHealthyPod-1$`, pod.Name)
	ask(t, pod, `{"method":"ping"}`, nil)
	require.NoError(t, pod.Stop())
	assert.Equal(t, "exit status 0", pod.State().String())
}

func TestSandbox(t *testing.T) {
	t.Parallel()
	var root, other string
	t.Run("test", func(t *testing.T) {
		a, b := harness.StartPod(t, harness.Config{}), harness.StartPod(t, harness.Config{})
		assert.NotEqual(t, a.Name, b.Name, "names are unique")
		runtimeDir := harness.RuntimeDir(t)
		assert.Equal(t, runtimeDir, filepath.Dir(filepath.Dir(a.LogPath)))
		assert.Equal(t, runtimeDir, filepath.Dir(filepath.Dir(b.LogPath)), "pods of one test share a runtime directory")
		root = filepath.Dir(runtimeDir)
		info, err := os.Stat(root)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
		t.Run("subtest", func(t *testing.T) {
			other = filepath.Dir(harness.RuntimeDir(t))
			assert.NotEqual(t, root, other, "pods of different tests never do")
		})
		assert.NoDirExists(t, other)
	})
	assert.NoDirExists(t, root)

	t.Run("a test with a very long name, strange characters /\u00e9\u00ff\x00\t and so on "+strings.Repeat("x", 300), func(t *testing.T) {
		pod := harness.StartPod(t, harness.Config{})
		assert.Less(t, len(pod.SocketPath), 104)
		assert.Regexp(t, `^[A-Za-z0-9_.][A-Za-z0-9_.-]*-1$`, pod.Name)
	})
}

func TestEnvironmentIsBuiltNotInherited(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("PASSED_ON", "by name")
	t.Setenv("YOI_HOME", "/the/developers/own")
	pod := harness.StartPod(t, harness.Config{Env: []string{"PASSED_ON", "NOT_THERE", "ADDED=1", "ADDED=2"}})
	var env map[string]string
	ask(t, pod, `{"method":"env"}`, &env)
	root := filepath.Dir(harness.RuntimeDir(t))
	for name, dir := range map[string]string{"HOME": "home", "TMPDIR": "tmp", "YOI_HOME": "home/.yoi", "YOI_RUNTIME_DIR": "run", "XDG_RUNTIME_DIR": "xdg"} {
		assert.Equal(t, filepath.Join(root, dir), env[name])
		assert.DirExists(t, env[name])
		delete(env, name)
	}
	assert.Equal(t, os.Getenv("PATH"), env["PATH"])
	assert.NotEmpty(t, env["LANG"])
	assert.Equal(t, "by name", env["PASSED_ON"])
	assert.Equal(t, "2", env["ADDED"])
	for _, name := range []string{"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "GOCOVERDIR", "GORACE", "PASSED_ON", "ADDED", "PODHARNESS_MARK"} {
		delete(env, name)
	}
	assert.Empty(t, env, "nothing else gets in")
}

func TestStartPodFailsTheTestWithTheEvidence(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	reached := false
	text := tb.Run(func() {
		cfg := fake("early-exit")
		cfg.Name = "alpha"
		harness.StartPod(tb, cfg)
		reached = true
	})
	assert.False(t, reached, "it ends the test")
	assert.True(t, tb.Failed())
	log := filepath.Join(tb.Artifacts, "alpha.log")
	assert.Regexp(t, `harness: pod exited before becoming ready \(exit status 7\): cannot open session store\n\tpod: alpha .*\n\tlog: `+log+`\n`, text)
	text = tb.End()
	assert.Equal(t, 1, strings.Count(text, "cannot open session store"), "a message says each thing once: %s", text)
	saved, err := os.ReadFile(log)
	require.NoError(t, err)
	assert.Equal(t, "cannot open session store\n", string(saved))
}

func TestTryStartPodSaysNothing(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod, err := harness.TryStartPod(tb, fake("wrong-name"))
	assert.Nil(t, pod)
	assert.ErrorIs(t, err, spawn.ErrNameMismatch)
	var e *spawn.Error
	require.ErrorAs(t, err, &e)
	assert.Empty(t, tb.End())
	assert.False(t, tb.Failed())
}

func TestBadConfigIsRefused(t *testing.T) {
	t.Parallel()
	for message, cfg := range map[string]harness.Config{
		`Command.PrefixArgs without a Command.Program`: {Command: spawn.Command{PrefixArgs: []string{"x"}}},
		`StopGrace -1ns is negative`:                   {StopGrace: -1},
		`ReadyTimeout -1ns is negative`:                {ReadyTimeout: -1},
		`StopSignal no signal is not a syscall.Signal`: {StopSignal: noSignal{}},
		`PodName "../x" must be one path element`:      {Name: "../x"},
	} {
		_, err := harness.TryStartPod(t, cfg)
		assert.ErrorIs(t, err, spawn.ErrInvalidConfig)
		assert.ErrorContains(t, err, "invalid pod config: "+message)
	}
	left, err := os.ReadDir(harness.RuntimeDir(t))
	require.NoError(t, err)
	assert.Empty(t, left, "nothing was touched")
}

type noSignal struct{}

func (noSignal) Signal()        {}
func (noSignal) String() string { return "no signal" }

func isCut(err error) bool {
	var e *harness.Error
	return errors.As(err, &e) && e.Cut
}

func TestErrorHasItsFactsInFields(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Name: "alpha", Command: harness.FakePod("log 'note: the timeout of 5s was cut to 1s, to end before the test''s deadline'; bind; ready; serve")})
	var e *harness.Error
	_, err := pod.TryWait(time.Millisecond)
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "alpha", e.Pod)
	assert.Equal(t, pod.PID, e.PID)
	assert.Equal(t, pod.LogPath, e.Log)
	assert.Empty(t, e.Ended)
	assert.False(t, e.Cut, "whatever the pod has logged")
	assert.EqualError(t, e.Err, "pod alpha did not end within 1ms")
	require.NoError(t, pod.Kill())
	_, err = pod.TryWaitLog("nowhere", time.Second)
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "signal: killed", e.Ended)
	assert.Contains(t, err.Error(), "\n\tpod: it has ended (signal: killed)\n\tlog: "+pod.LogPath+"\n\tlast lines:\n\t\tnote: the timeout")

	c := harness.StartClient(t, harness.ClientConfig{Program: "sh", Args: []string{"-c", "echo said; exit 3"}})
	_, err = c.TryWaitOutput("nowhere", 10*time.Second)
	require.ErrorAs(t, err, &e)
	assert.Equal(t, []any{"", c.PID, "exit status 3", false}, []any{e.Pod, e.PID, e.Ended, e.Cut})
}

// TestWaitsEndBeforeTheTestsDeadline: go test would panic then, and the evidence
// would be lost.
func TestWaitsEndBeforeTheTestsDeadline(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		program string
		wait    func(tb *harness.FakeTB, pod *harness.Pod) string
		note    string
	}{
		"start": {"", func(tb *harness.FakeTB, _ *harness.Pod) string {
			_, err := harness.TryStartPod(tb, fake("never-ready"))
			assert.ErrorIs(t, err, spawn.ErrTimeout)
			assert.True(t, isCut(err))
			return fmt.Sprint(err)
		}, "the ready timeout of 20s was cut to"},
		"TryWait": {"ready", func(_ *harness.FakeTB, pod *harness.Pod) string {
			_, err := pod.TryWait(time.Hour)
			assert.True(t, isCut(err))
			return fmt.Sprint(err)
		}, "the timeout of 1h0m0s was cut to"},
		"TryWaitLog": {"ready", func(_ *harness.FakeTB, pod *harness.Pod) string {
			_, err := pod.TryWaitLog("nowhere", time.Hour)
			assert.True(t, isCut(err))
			return fmt.Sprint(err)
		}, "the timeout of 1h0m0s was cut to"},
		"Stop": {"stubborn", func(tb *harness.FakeTB, pod *harness.Pod) string {
			assert.NoError(t, pod.Stop())
			return tb.Text()
		}, "the stop grace of 20s was cut to"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := harness.NewTB(t)
			var pod *harness.Pod
			if tc.program != "" {
				cfg := fake(tc.program)
				cfg.StopGrace = patience
				var err error
				pod, err = harness.TryStartPod(tb, cfg)
				require.NoError(t, err)
			}
			tb.Late = time.Now().Add(3 * time.Second)
			waited := make(chan string, 1)
			go func() { waited <- tc.wait(tb, pod) }()
			var text string
			select {
			case text = <-waited:
			case <-time.After(10 * time.Second):
				require.Fail(t, "it waits on")
			}
			assert.True(t, time.Now().Before(tb.Late))
			assert.Regexp(t, tc.note+` [0-2]\.?[0-9]*m?s, to end before the test's deadline`, text)
		})
	}
}

// TestTryWaitLogOfALargeLog has logs that nobody can read in time.
func TestTryWaitLogOfALargeLog(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	alive, dead := harness.StartPod(tb, harness.Config{}), harness.StartPod(tb, harness.Config{})
	require.NoError(t, dead.Kill())
	for _, pod := range []*harness.Pod{alive, dead} {
		require.NoError(t, os.Truncate(pod.LogPath, 8<<30)) // zeros, and no newline
		begin := time.Now()
		_, err := pod.TryWaitLog("nowhere", 100*time.Millisecond)
		assert.ErrorContains(t, err, "within 100ms")
		assert.Less(t, time.Since(begin), time.Second, "its size is not its limit")
		require.NoError(t, os.Truncate(pod.LogPath, 0))
	}
}

func TestTimeoutOf0LooksAtAllThatIsThere(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, fake("flood 4MiB; log last; bind; ready; serve"))
	lines, errs := make(chan string, 1), make(chan error, 1)
	go func() {
		line, err := pod.TryWaitLog("^last$", 0)
		assert.NoError(t, err)
		lines <- line
		_, err = pod.TryWaitLog("^nowhere$", 0)
		errs <- err
	}()
	assert.Equal(t, "last", waitFor(t, lines))
	assert.ErrorContains(t, waitFor(t, errs), `matched "^nowhere$" within 0s`)
}

func TestPodThatDiesByItselfFailsTheTest(t *testing.T) {
	t.Parallel()
	died := func(tb *harness.FakeTB) *harness.Pod {
		pod := harness.StartPod(tb, harness.Config{Name: "alpha"})
		_, err := pod.TryWait(time.Millisecond)
		require.Error(t, err, "it expects nothing of what comes later")
		conn := pod.Dial()
		_, _ = io.WriteString(conn, `{"method":"run","params":{"program":"log 'out of memory'; exit 3"}}`+"\n")
		waitFor(t, pod.Done())
		return pod
	}
	for _, tc := range []struct {
		name  string
		then  func(*harness.Pod) error
		fails bool
	}{
		{"nothing was said", func(*harness.Pod) error { return nil }, true},
		{"Stop", func(p *harness.Pod) error { return p.Stop() }, true},
		{"Wait", func(p *harness.Pod) error { p.Wait(patience); return nil }, false},
		{"Kill", func(p *harness.Pod) error { return p.Kill() }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tb := harness.NewTB(t)
			pod := died(tb)
			err := tc.then(pod)
			text := tb.End()
			assert.Equal(t, tc.fails, tb.Failed(), text)
			if tc.fails {
				assert.Contains(t, text, "pod alpha ended by itself during the test (exit status 3)\n\tlog: "+filepath.Join(tb.Artifacts, "alpha.log")+"\n\tlast lines:\n")
				assert.Contains(t, text, "\n\t\tout of memory")
			} else {
				assert.Empty(t, text)
			}
			if tc.name == "Stop" {
				assert.ErrorContains(t, err, "ended by itself")
			} else {
				assert.NoError(t, err)
			}
		})
	}
}

func TestTeardownLadder(t *testing.T) {
	t.Parallel()
	if signal.Ignored(syscall.SIGINT) {
		t.Skip("this process ignores SIGINT, as in the background of a script, and so do its pods")
	}
	const grace = time.Second
	shutdown := []byte(`{"method":"shutdown"}` + "\n")
	for _, tc := range []struct {
		name  string
		cfg   harness.Config
		state string
		log   string // "" = nothing is said
	}{
		{"SIGINT is enough", harness.Config{}, "exit status 0", ""},
		{"another signal", harness.Config{StopSignal: syscall.SIGTERM}, "signal: terminated",
			"harness: pod alpha was ended by SIGTERM, which it should handle and end with a status\n"},
		{"shutdown request is enough", harness.Config{Shutdown: shutdown}, "exit status 0", ""},
		{"shutdown request of a pod that ignores signals", harness.Config{Command: harness.FakePod("stubborn"), Shutdown: shutdown}, "exit status 0", ""},
		{"shutdown request that means nothing to it", harness.Config{Shutdown: []byte("hello\n"), StopGrace: 3 * grace}, "exit status 0",
			"harness: pod alpha was stopped by SIGINT, not by the shutdown request\n"},
		{"stubborn", harness.Config{Command: harness.FakePod("stubborn"), StopGrace: grace}, "signal: killed",
			"harness: pod alpha did not stop within 1s of SIGINT: killed\n"},
		{"stubborn, in three steps", harness.Config{Command: harness.FakePod("stubborn"), Shutdown: []byte("hello\n"), StopGrace: grace}, "signal: killed",
			"harness: pod alpha did not stop within 1s of SIGINT: killed\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tb := harness.NewTB(t)
			tc.cfg.Name = "alpha"
			pod := harness.StartPod(tb, tc.cfg)
			assert.Equal(t, tc.log, tb.End())
			assert.False(t, tb.Failed())
			require.NotNil(t, pod.State())
			assert.Equal(t, tc.state, pod.State().String())
		})
	}
}

func TestUngracefulStopFailsTheTestThatForbidsIt(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]harness.Config{
		"harness: pod alpha was ended by SIGTERM, which it should handle and end with a status\n\tpod: it has ended (signal: terminated)\n": {StopSignal: syscall.SIGTERM},
		"harness: pod alpha did not stop within 100ms of SIGINT: killed\n\tpod: ":                                                           {Command: harness.FakePod("stubborn"), StopGrace: 100 * time.Millisecond},
		"": {},
	} {
		tb := harness.NewTB(t)
		cfg.Name, cfg.MustStopGracefully = "alpha", true
		harness.StartPod(tb, cfg)
		assert.Contains(t, tb.End(), want)
		assert.Equal(t, want != "", tb.Failed())
	}
}

func TestPodThatInheritedAnIgnoredStopSignal(t *testing.T) {
	t.Parallel()
	signal.Ignore(syscall.SIGUSR2)
	defer signal.Reset(syscall.SIGUSR2)
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha", StopSignal: syscall.SIGUSR2, StopGrace: 100 * time.Millisecond})
	assert.Equal(t, "harness: pod alpha did not stop within 100ms of SIGUSR2: killed\n"+
		"\tnote: this process ignores that signal, and the pods that it starts inherit that\n", tb.End())
	assert.Equal(t, "signal: killed", pod.State().String())
}

func TestWhatAnEndedPodHasLeftIsSeenAlthoughTheStopSignalWouldEndIt(t *testing.T) {
	t.Parallel()
	harness.NeedProcesses(t)
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha", Command: harness.FakePod("child hang; bind; ready; serve")})
	_, _ = pod.TrySend(`{"method":"run","params":{"program":"exit 0"}}`, patience)
	assert.True(t, pod.Wait(patience).Success())
	assert.ErrorContains(t, pod.Stop(), "pod alpha left processes behind, which were killed:")
}

func TestSuspendedPodIsStoppedGracefully(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	pod.Suspend()
	require.NoError(t, pod.Stop())
	assert.Equal(t, "exit status 0", pod.State().String())
}

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	pod.Suspend()
	conn := pod.Dial() // the system accepts it in the pod's stead
	pod.Resume()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Contains(t, line, "snapshot")
}

func TestStopIsIdempotentFromAnyGoroutine(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			assert.NoError(t, pod.Stop())
			assert.NotNil(t, pod.State())
		}()
	}
	wg.Wait()
	assert.NoError(t, pod.Kill())
}

func TestSecondPodOfTheSameName(t *testing.T) {
	t.Parallel()
	first := harness.StartPod(t, harness.Config{Name: "alpha", Command: harness.FakePod("log first; bind; ready; serve")})
	require.NoError(t, first.Kill())
	second := harness.StartPod(t, harness.Config{Name: "alpha", Command: harness.FakePod("log second; bind; ready; serve")})
	assert.True(t, strings.HasPrefix(first.Log(), "first\nYOI-READY\t"), first.Log())
	assert.True(t, strings.HasPrefix(second.Log(), "second\nYOI-READY\t"), second.Log())
}

func TestLogIsCompleteAfterThePodRemovedIt(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, fake("log first; bind; ready; log last; serve"))
	pod.WaitLog("^last$", patience)
	require.NoError(t, pod.Stop())
	require.NoFileExists(t, pod.LogPath)
	assert.Equal(t, fmt.Sprintf("first\nYOI-READY\t%s\t%s\nlast\n", pod.Name, pod.SocketPath), pod.Log())
}

func TestWaitLog(t *testing.T) {
	t.Parallel()
	t.Run("finds lines of the past and of the future", func(t *testing.T) {
		t.Parallel()
		pod := harness.StartPod(t, fake("log 'step 1'; bind; ready; serve"))
		assert.Equal(t, "step 1", pod.WaitLog(`^step \d$`, patience))
		found := make(chan string, 1)
		go func() {
			line, err := pod.TryWaitLog(`step [2-9]`, patience)
			assert.NoError(t, err)
			found <- line
		}()
		ask(t, pod, `{"method":"run","params":{"program":"log 'step 2'"}}`, nil)
		assert.Equal(t, "step 2", waitFor(t, found))
	})
	t.Run("shows what there was", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		pod := harness.StartPod(tb, fake(`log "a \x1b[31mred"; bind; ready; raw unfinished; serve`))
		pod.WaitLog("READY", patience)
		ask(t, pod, `{"method":"ping"}`, nil)
		text := tb.Run(func() { pod.WaitLog("nowhere", time.Millisecond) })
		assert.True(t, tb.Failed())
		assert.Contains(t, text, fmt.Sprintf(`no line of the log of pod %s matched "nowhere" within 1ms`, pod.Name))
		assert.Contains(t, text, fmt.Sprintf("pod: it still runs (process %d)\n\tlog: %s\n\tlast lines:\n\t\ta \\x1b[31mred", pod.PID, filepath.Join(tb.Artifacts, pod.Name+".log")))
		assert.Contains(t, text, "\n\t\tunfinished")
	})
	t.Run("does not wait for a pod that has ended", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		pod := harness.StartPod(tb, harness.Config{})
		require.NoError(t, pod.Kill())
		start := time.Now()
		_, err := pod.TryWaitLog("nowhere", 2*patience)
		assert.ErrorContains(t, err, "it has ended (signal: killed)")
		assert.Less(t, time.Since(start), patience)
	})
	t.Run("bad pattern", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		pod := harness.StartPod(tb, harness.Config{})
		assert.Contains(t, tb.Run(func() { pod.WaitLog("(", time.Second) }), "missing closing )")
	})
	t.Run("after the test", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		pod := harness.StartPod(tb, harness.Config{})
		tb.End()
		_, err := pod.TryWaitLog(".", time.Second)
		assert.ErrorContains(t, err, "the test has ended")
		assert.Empty(t, pod.Log())
	})
}

func TestFailedWaitAndDialSayWhy(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha"})
	assert.Contains(t, tb.Run(func() { pod.Wait(time.Millisecond) }), "pod alpha did not end within 1ms\n\tpod: it still runs")
	require.NoError(t, pod.Kill())
	assert.Contains(t, tb.Run(func() { pod.Dial() }), "could not connect to pod alpha at "+pod.SocketPath+": connect: connection refused\n\tpod: it has ended (signal: killed)")
	assert.Contains(t, tb.Run(func() { pod.Suspend() }), "process already finished")
}

func TestFailedTestKeepsAllLogs(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	harness.StartPod(tb, harness.Config{Name: "alpha"})
	_, err := harness.TryStartPod(tb, harness.Config{Name: "beta", Command: harness.FakePod("early-exit")})
	require.Error(t, err)
	_, err = harness.TryStartPod(tb, harness.Config{Name: "beta", Command: harness.FakePod("log again; exit 1")})
	require.Error(t, err)
	tb.Errorf("the test's own failure")
	text := tb.End()
	for file, want := range map[string]string{"alpha.log": `^YOI-READY\talpha\t`, "beta.log": "^cannot open session store\n$", "beta.2.log": "^again\n$"} {
		log, err := os.ReadFile(filepath.Join(tb.Artifacts, file))
		require.NoError(t, err)
		assert.Regexp(t, regexp.MustCompile(want), string(log))
		assert.Contains(t, text, "whole log: "+filepath.Join(tb.Artifacts, file))
	}
}

func TestNothingIsSaidOrKeptOnSuccess(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{})
	root := filepath.Dir(harness.RuntimeDir(tb))
	assert.Empty(t, tb.End())
	assert.NoDirExists(t, root)
	left, err := os.ReadDir(tb.Artifacts)
	require.NoError(t, err)
	assert.Empty(t, left)
	assert.NotNil(t, pod.State())
}

// uncomparableTB cannot be the key of a map.
type uncomparableTB struct {
	*harness.FakeTB
	_ []int
}

func TestUncomparableTBIsRefused(t *testing.T) {
	t.Parallel()
	_, err := harness.TryStartPod(uncomparableTB{FakeTB: harness.NewTB(t)}, harness.Config{})
	assert.ErrorContains(t, err, "pass a pointer")
}

func TestConnectionIsClosedAtTheEnd(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	conn := harness.StartPod(tb, harness.Config{}).Dial()
	tb.End()
	_, err := conn.Write([]byte("x"))
	assert.ErrorIs(t, err, net.ErrClosed)
}

func TestWaitLogAfter(t *testing.T) {
	t.Parallel()
	run := func(program string) string {
		return `{"method":"run","params":{"program":"` + program + `"}}`
	}
	pod := harness.StartPod(t, fake("bind; ready; log 'reloaded 1'; raw 'half a '; serve"))
	pod.WaitLog("reloaded", patience)
	from := pod.LogEnd()
	_, _, err := pod.TryWaitLogAfter(from, "reloaded", time.Millisecond)
	assert.ErrorContains(t, err, fmt.Sprintf(`matched "reloaded" within 1ms, after the first %d bytes`, from))
	pod.Send(run("log line; log 'reloaded 2'; log 'reloaded 3'"), patience)
	assert.Equal(t, "half a line", pod.WaitLogAfter(from, "line$", patience), "an unfinished line comes later")
	line, end, err := pod.TryWaitLogAfter(from, "reloaded", patience)
	require.NoError(t, err)
	assert.Equal(t, "reloaded 2", line)
	line, end, err = pod.TryWaitLogAfter(end, "reloaded", patience)
	require.NoError(t, err)
	assert.Equal(t, "reloaded 3", line)
	assert.Equal(t, pod.LogEnd(), end)
	pod.Send(run("truncate; log 'reloaded 4'"), patience)
	assert.Equal(t, "reloaded 4", pod.WaitLogAfter(end, "reloaded", patience))
	assert.Equal(t, int64(len("reloaded 4\n")), pod.LogEnd())

	pod = harness.StartPod(t, fake("bind; ready; log last; flood 100000 0; serve"))
	pod.Send(`{"method":"ping"}`, patience)
	assert.Equal(t, int64(strings.LastIndexByte(pod.Log(), '\n')+1), pod.LogEnd(), "before a long unfinished line")
}

func TestMessageShowsTheLastLines(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, fake("bind; ready; log 1; log 2; log 3; log 4; log 5; log 6; log 7; log 8; log 9; log 10; serve"))
	pod.WaitLog("^10$", patience)
	_, err := pod.TryWait(0)
	assert.Regexp(t, `last lines:\n\t\t3\n\t\t4\n(.*\n)*\t\t10$`, fmt.Sprint(err))
}

// inHelper runs the calling test again as a go test of its own, with flags and variables.
func inHelper(t *testing.T, with ...string) (out string, err error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), helperEnv+"="+t.Name())
	for _, word := range with {
		if strings.HasPrefix(word, "-") {
			cmd.Args = append(cmd.Args, word)
		} else {
			cmd.Env = append(cmd.Env, word)
		}
	}
	text, err := cmd.CombinedOutput()
	return string(text), err
}

const helperEnv = "HARNESS_TEST_HELPER"

func isHelper(t *testing.T) bool { return os.Getenv(helperEnv) == t.Name() }

func TestEvidenceOfAllFailuresOfARunIsKept(t *testing.T) {
	const tests = 60 // three times what is kept of earlier runs
	if isHelper(t) {
		for i := range tests {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				harness.StartPod(t, harness.Config{})
				t.Error("it fails")
			})
		}
		return
	}
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("PODHARNESS_ARTIFACTS", "")
	out, _ := inHelper(t, "-test.parallel=32")
	assert.NotContains(t, out, "lost")
	dirs := regexp.MustCompile(`(?m)all evidence of this failure: (.*)$`).FindAllStringSubmatch(out, -1)
	assert.Len(t, dirs, tests, out)
	for _, dir := range dirs {
		for _, file := range []string{"processes.txt", "merged.log", "report.html"} {
			assert.FileExists(t, filepath.Join(dir[1], file))
		}
	}
}

func TestVerboseTestStreamsTheLog(t *testing.T) {
	if isHelper(t) {
		pod := harness.StartPod(t, harness.Config{Name: "alpha", Command: harness.FakePod(`log "one \x1b[31m"; bind; ready; log two; serve`)})
		pod.WaitLog("two", patience)
		return
	}
	t.Parallel()
	out, err := inHelper(t, "-test.v")
	require.NoError(t, err, out)
	assert.Regexp(t, `(?s)alpha: one \\x1b\[31m\n.*alpha: YOI-READY\\talpha\\t/.*\n.*alpha: two\n`, out)
	out, err = inHelper(t)
	require.NoError(t, err, out)
	assert.NotContains(t, out, "alpha")
}

func TestVerboseTestDoesNotStreamADump(t *testing.T) {
	if isHelper(t) {
		pod := harness.StartPod(t, harness.Config{Name: "alpha", DumpSignal: syscall.SIGQUIT})
		pod.WaitLog("^YOI", patience)
		pod.Wait(time.Millisecond)
	}
	t.Parallel()
	artifacts := t.TempDir()
	out, err := inHelper(t, "-test.v", "PODHARNESS_ARTIFACTS="+artifacts)
	require.Error(t, err)
	assert.Contains(t, out, "alpha: YOI-READY")
	assert.NotContains(t, out, "alpha: SIGQUIT: quit", "it is in the log")
	logs, _ := filepath.Glob(artifacts + "/*/alpha.log")
	require.Len(t, logs, 1)
	text, err := os.ReadFile(logs[0])
	require.NoError(t, err)
	assert.Contains(t, string(text), "SIGQUIT: quit")
}

func TestFailureIsReportedAtTheCallersLine(t *testing.T) {
	calls := []func(*testing.T, *harness.Pod){
		func(t *testing.T, _ *harness.Pod) {
			harness.StartPod(t, harness.Config{Name: "beta", Command: harness.FakePod("early-exit")}) // line 0
		},
		func(t *testing.T, pod *harness.Pod) {
			pod.WaitLog("nowhere", time.Millisecond) // line 1
		},
		func(t *testing.T, pod *harness.Pod) {
			pod.Wait(time.Millisecond) // line 2
		},
		func(t *testing.T, pod *harness.Pod) {
			pod.SocketPath += "x"
			pod.Dial() // line 3
		},
		func(t *testing.T, pod *harness.Pod) {
			_ = pod.Kill()
			pod.Suspend() // line 4
		},
		func(t *testing.T, pod *harness.Pod) {
			_ = pod.Kill()
			pod.Resume() // line 5
		},
		func(t *testing.T, pod *harness.Pod) {
			_ = pod.Stop() // line 6
			t.Fail()
		},
		func(t *testing.T, pod *harness.Pod) {
			pod.SocketPath += "x"
			pod.Send("x", time.Second) // line 7
		},
		func(t *testing.T, pod *harness.Pod) {
			talk := pod.Talk(patience)
			talk.Snapshot()
			talk.Snapshot() // line 8
		},
		func(t *testing.T, pod *harness.Pod) {
			pod.WaitLogAfter(pod.LogEnd(), "nowhere", time.Millisecond) // line 9
		},
		func(t *testing.T, _ *harness.Pod) {
			c := harness.StartClient(t, harness.ClientConfig{Program: "/bin/sh", Args: []string{"-c", `trap "" INT; echo up; read x; sleep 1000`}, TTY: true, StopGrace: 10 * time.Millisecond})
			c.WaitOutput("up", patience)
			_ = c.Stop() // line 10
			t.Fail()
		},
	}
	if isHelper(t) {
		for i, call := range calls {
			t.Run(fmt.Sprint("call ", i), func(t *testing.T) {
				call(t, harness.StartPod(t, harness.Config{Name: "alpha", Command: harness.FakePod("stubborn"), StopGrace: 10 * time.Millisecond}))
			})
		}
		return
	}
	source, err := os.ReadFile("harness_test.go")
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the source is not here")
	}
	require.NoError(t, err)
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("PODHARNESS_ARTIFACTS", "")
	out, err := inHelper(t)
	require.Error(t, err)
	for i, message := range []string{
		"pod exited before becoming ready \\(exit status 7\\): cannot open session store", "no line of the log", "pod alpha did not end",
		"could not connect to pod alpha", "stopped .signal.: pod alpha: os: process already finished", "continued: pod alpha: os: process already finished", "pod alpha did not stop within 10ms of SIGINT: killed",
		"could not connect to pod alpha", "the snapshot of pod alpha was read before", "no line of the log",
		"client /bin/sh did not stop within 10ms of SIGINT: killed",
	} {
		line := 1 + strings.Count(string(source[:strings.Index(string(source), fmt.Sprint("// line ", i))]), "\n")
		assert.Regexp(t, fmt.Sprintf(`harness_test\.go:%d: harness: %s`, line, message), out)
	}
	path := regexp.MustCompile(`log: (.*/podharness-[0-9a-f]{8}-TestFailureIsReportedAtTheCallersLine-call_0-\d{8}T\d{6}\.\d{3}/beta\.log)`).FindStringSubmatch(out)
	require.NotNil(t, path, out)
	assert.FileExists(t, path[1], "it is kept")
	assert.True(t, strings.HasPrefix(path[1], temp+"/"), "in TMPDIR: %s", path[1])
}

func ExampleStartPod() {
	// In a test:
	_ = func(t *testing.T) {
		pod := harness.StartPod(t, harness.Config{})
		conn := pod.Dial()
		fmt.Fprintln(conn, `{"method":"ping"}`)
		pod.WaitLog("READY", time.Second)
	}
}

func ExamplePod_Restart() {
	// In a test:
	_ = func(t *testing.T) {
		pod := harness.StartPod(t, harness.Config{})
		if err := pod.Kill(); err != nil {
			t.Fatal(err)
		}
		pod = pod.Restart()
		t.Run("and answers", func(t *testing.T) {
			pod.With(t).Send(`{"method":"ping"}`, time.Second) // what fails here fails this subtest
		})
	}
}

func TestNameOfARunningPodIsRefused(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha"})
	_, err := harness.TryStartPod(tb, harness.Config{Name: "alpha"})
	require.EqualError(t, err, fmt.Sprintf("pod alpha still runs (process %d): stop it first, or choose another name", pod.PID))
	require.NoError(t, pod.Stop())
	harness.StartPod(tb, harness.Config{Name: "alpha"})
	assert.Empty(t, tb.End())
}

func TestNameIsStartedOnceAtATime(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	const starts = 8
	errs := make(chan error, starts)
	for range starts {
		go func() {
			_, err := harness.TryStartPod(tb, harness.Config{Name: "alpha"})
			errs <- err
		}()
	}
	started := 0
	for range starts {
		if err := waitFor(t, errs); err == nil {
			started++
		} else {
			assert.Regexp(t, "pod alpha (is being started already|still runs)", err.Error())
		}
	}
	assert.Equal(t, 1, started)
	assert.Empty(t, tb.End())
}

func TestLogBehindALink(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	dir, err := os.MkdirTemp("", "pod")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real", "deep"), 0o700))
	require.NoError(t, os.Symlink("real/deep", filepath.Join(dir, "link")))
	pod := harness.StartPod(tb, harness.Config{Env: []string{"YOI_RUNTIME_DIR=" + dir + "/link/../run"}})
	assert.Contains(t, pod.Log(), "YOI-READY\t"+pod.Name)
	assert.NoDirExists(t, filepath.Join(dir, "run"))
	assert.Empty(t, tb.End())
}

func TestEndOfTheTestCancelsAStart(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	started := make(chan error, 1)
	first := harness.StartPod(tb, harness.Config{})
	go func() {
		_, err := harness.TryStartPod(tb, fake("log waiting; hang"))
		started <- err
	}()
	log := filepath.Join(harness.RuntimeDir(tb), first.Name[:len(first.Name)-1]+"2", "stderr.log")
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(log)
		return len(text) > 0
	}, patience, time.Millisecond)
	assert.Empty(t, tb.End())
	var e *spawn.Error
	require.ErrorAs(t, waitFor(t, started), &e)
	assert.ErrorIs(t, e, context.Canceled)
	assert.NotNil(t, e.State, "its process was reaped")
}

func TestPodsMayEndEachOtherDuringTheTeardown(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	worker := harness.StartPod(tb, harness.Config{})
	var leader *harness.Pod
	tb.Cleanup(func() { // once the leader was stopped
		waitFor(t, leader.Done())
		assert.NoError(t, worker.Signal(syscall.SIGINT), "as the leader might")
		waitFor(t, worker.Done())
	})
	leader = harness.StartPod(tb, harness.Config{})
	assert.Empty(t, tb.End())
	assert.False(t, tb.Failed())
}

func TestShutdownRequestToAPodThatHasMuchToSay(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Shutdown: []byte("stop\n"), StopGrace: patience})
	// A socket of the test's own, which ends the pod once it was asked to.
	pod.SocketPath = filepath.Join(filepath.Dir(pod.LogPath), "talkative")
	listener, err := net.Listen("unix", pod.SocketPath)
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write(bytes.Repeat([]byte("x"), 8<<20))
		if line, _ := bufio.NewReader(conn).ReadString('\n'); line == "stop\n" {
			_ = pod.Signal(syscall.SIGINT)
		}
	}()
	assert.NoError(t, pod.Stop())
	assert.Empty(t, tb.End(), "the first step was enough")
}

func TestShutdownRequestThatCannotBeSentIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Shutdown: []byte("stop\n"), StopGrace: 3 * patience})
	require.NoError(t, os.Remove(pod.SocketPath))
	begin := time.Now()
	assert.NoError(t, pod.Stop())
	assert.Less(t, time.Since(begin), 2*patience)
	assert.Regexp(t, "the shutdown request: .*no such file or directory\nharness: pod .* was stopped by SIGINT, not by the shutdown request", tb.End())
}

func TestMisspeltModeIsNoPodThatFails(t *testing.T) {
	t.Parallel()
	_, err := harness.TryStartPod(harness.NewTB(t), fake("erly-exit"))
	require.ErrorIs(t, err, spawn.ErrInvalidConfig)
	assert.ErrorContains(t, err, `bad program: column 1: unknown verb "erly-exit"`)
}

func TestStartThatCameCloseToItsTimeoutIsTold(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	harness.StartPod(tb, harness.Config{Name: "alpha", Command: harness.FakePod("sleep 1600ms; bind; ready; serve"), ReadyTimeout: 3 * time.Second})
	assert.Regexp(t, `harness: pod alpha became ready only after \S+s, more than half of its ready timeout of 3s\n`, tb.Text())
}
