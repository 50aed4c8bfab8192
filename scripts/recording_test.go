package scripts_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// record starts a pod and returns the recording as a scenario, and the verdict.
func record(t *testing.T, command spawn.Command, timeout time.Duration) (scenario string, verdict error) {
	t.Helper()
	runtime, err := os.MkdirTemp("", "rec") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(runtime) })
	r := &spawn.Recording{Pod: "alpha", Timeout: timeout}
	o := &spawn.Observer{}
	r.Observe(o)
	cfg := spawn.Config{
		Command: command, PodName: r.Pod, WorkspaceRoot: t.TempDir(), ReadyTimeout: r.Timeout,
		Env: append(os.Environ(), "YOI_RUNTIME_DIR="+runtime),
	}
	pod, err := spawn.StartObserved(context.Background(), cfg, o)
	require.NotNil(t, o.Log)
	defer o.Log.Close()
	if pod != nil {
		defer func() {
			require.NoError(t, pod.Signal(os.Kill))
			<-pod.Done()
		}()
	}
	r.End(pod, err)
	scenario, scenarioErr := r.Scenario()
	require.NoError(t, scenarioErr)
	return scenario, err
}

var (
	fakeProgram = regexp.MustCompile(`-fake '((?:[^']|'')*)' `)
	pause       = regexp.MustCompile(`sleep ([\d.]+m?s); `)
	joined      = regexp.MustCompile(`"; raw "`)
	comment     = regexp.MustCompile(`(?m)^#.*\n`)
	anyPath     = regexp.MustCompile(`/\S*/alpha/\w+`)
)

// timeless is a scenario without what two runs of one program differ in: the moments
// at which bytes came and a socket was looked at, its date, and how much was left out.
func timeless(scenario string) string {
	text := joined.ReplaceAllString(pause.ReplaceAllString(comment.ReplaceAllString(scenario, ""), ""), "")
	return strings.ReplaceAll(text, "socket; listen;", "bind;")
}

// message is the first line of a verdict, wherever the pod was.
func message(err error) string {
	if err == nil {
		return "ready"
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return anyPath.ReplaceAllString(line, "/PATH")
}

// TestRecordingsActOutTheSame records pods, plays the recordings, and records those
// again.
func TestRecordingsActOutTheSame(t *testing.T) {
	t.Parallel()
	pods := map[string]spawn.Command{}
	timesOut := map[string]bool{"python silent": true, "python refused": true}
	for _, mode := range fakepod.Modes() {
		program, args := fakepod.Command(mode.Name)
		pods[mode.Name] = spawn.Command{Program: program, PrefixArgs: args}
		outcome, err := fakepod.Expect(mode.Name, patience)
		require.NoError(t, err)
		timesOut[mode.Name] = outcome.Verdict == fakepod.TimedOut
	}
	if python, err := exec.LookPath("python3"); err == nil {
		for name, script := range map[string]string{
			"python exits":    `import sys; sys.exit("cannot open {config}")`,
			"python crashes":  `import os; os.write(2, b"\xff' \t"); os.abort()`,
			"python silent":   `import time; time.sleep(60)`,
			"python in lines": `import os, time; [(os.write(2, b"line %d\n" % i), time.sleep(0.05)) for i in range(5)]; os._exit(9)`,
			"python refused":  `import os, socket, time; s = socket.socket(socket.AF_UNIX); p = os.environ["YOI_RUNTIME_DIR"] + "/alpha/s"; s.bind(p); os.write(2, b"YOI-READY\talpha\t" + p.encode() + b"\n"); time.sleep(60)`,
			"python ready":    `import os, socket, time; s = socket.socket(socket.AF_UNIX); p = os.environ["YOI_RUNTIME_DIR"] + "/alpha/s"; os.write(2, b"YOI-READY\talpha\t" + p.encode() + b"\n"); time.sleep(0.1); s.bind(p); s.listen(); time.sleep(60)`,
		} {
			pods[name] = spawn.Command{Program: python, PrefixArgs: []string{"-c", script}}
		}
	}
	for name, command := range pods {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := patience / 2
			if timesOut[name] {
				timeout = time.Second
			}
			scenario, want := record(t, command, timeout)
			log, failed := runScript(t, scenario)
			require.False(t, failed, "%s\n%s", scenario, log)

			program, args := fakepod.Command(strings.ReplaceAll(fakeProgram.FindStringSubmatch(scenario)[1], "''", "'"))
			again, got := record(t, spawn.Command{Program: program, PrefixArgs: args}, timeout)
			assert.Equal(t, message(want), message(got))
			assert.Equal(t, timeless(scenario), timeless(again))
			if name == "torn-ready" {
				between := regexp.MustCompile(`raw "YOI-READY\\talpha"; ` + pause.String() + `raw`).FindStringSubmatch(scenario)
				require.Len(t, between, 2, scenario)
				slept, err := time.ParseDuration(between[1])
				require.NoError(t, err)
				assert.Greater(t, slept, 150*time.Millisecond, "bytes come at their times")
			}
		})
	}
}
