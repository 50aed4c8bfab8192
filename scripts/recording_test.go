package scripts_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/scripts"
	"example.com/podharness/spawn"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// record starts a pod and returns the recording as a scenario, and the verdict.
func record(t *testing.T, command spawn.Command, timeout time.Duration) (scenario, verdict string) {
	t.Helper()
	runtime, err := os.MkdirTemp("", "rec") // short enough for a socket
	require.NoError(t, err)
	t.Cleanup(func() {
		// What a pod leaves outside of its group, some on purpose.
		files, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, file := range files {
			if env, _ := os.ReadFile(file); bytes.Contains(env, []byte("YOI_RUNTIME_DIR="+runtime+"\x00")) {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		os.RemoveAll(runtime)
	})
	file := filepath.Join(runtime, "recording")
	args := []string{"podharness-podspawn", "-json", "-record", file, "-timeout", timeout.String(), "-pod", command.Program}
	for _, arg := range command.PrefixArgs {
		args = append(args, "-pod-arg", arg)
	}
	podspawn := exec.Command(os.Args[0], append(args, "alpha")...)
	podspawn.Env, podspawn.Dir = append(os.Environ(), "YOI_RUNTIME_DIR="+runtime), t.TempDir()
	out, _ := podspawn.Output() // its status is that of the verdict
	var started struct {
		PID   int
		Error string
	}
	require.NoError(t, json.Unmarshal(out, &started), "%s", out)
	if started.Error == "" {
		defer syscall.Kill(-started.PID, syscall.SIGKILL)
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text), started.Error
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
func message(verdict string) string {
	line, _, _ := strings.Cut(verdict, "\n")
	return anyPath.ReplaceAllString(line, "/PATH")
}

// TestRecordingsActOutTheSame records pods, plays the recordings, and records those
// again.
func TestRecordingsActOutTheSame(t *testing.T) {
	t.Parallel()
	pods := map[string]spawn.Command{}
	timesOut := map[string]time.Duration{"python silent": time.Second, "python refused": 4 * time.Second} // after its start
	for _, mode := range fakepod.Modes() {
		// What is recorded of a megabyte is the same.
		program, args := fakepod.Command(strings.Replace(mode.Program, "flood 16MiB", "flood 1MiB", 1) + ";")
		pods[mode.Name] = spawn.Command{Program: program, PrefixArgs: args}
		outcome, err := oracle.Expect(mode.Name, patience)
		require.NoError(t, err)
		if outcome.Verdict == oracle.TimedOut {
			timesOut[mode.Name] = time.Second
		}
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
			timeout := cmp.Or(timesOut[name], patience/2)
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
				assert.Greater(t, slept, 50*time.Millisecond, "bytes come at their times, however late they were seen")
			}
		})
	}
}

// TestRecordingOfEvidenceAnswersAsThePodDid asks a recording what the pod was asked.
func TestRecordingOfEvidenceAnswersAsThePodDid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const script = `podstart -fake 'answer greet ''{"event":"hello to {name}; \u003cb>", "n": 1}''; bind; ready; serve' alpha
podsend alpha '{"method":"greet","params":1}'
podsend alpha '{"method":"greet","params":2}'
podsend alpha '{"method":"echo","params":1}'
podsend alpha '{"method":"echo","params":2}'
exists nothing
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script.txtar"), []byte(script), 0o600))
	r := &recorder{artifacts: t.TempDir(), deadline: time.Now().Add(patience)}
	testscript.RunT(r, scripts.Params(scripts.Options{Dir: dir}))
	require.True(t, r.Failed(), r.log.String())
	text, err := os.ReadFile(filepath.Join(r.artifacts, "alpha.txtar"))
	require.NoError(t, err)
	assert.NotContains(t, string(text), "echo", "it was answered in two ways")
	const asks = `podsend alpha '{"method":"greet"}'
stdout '^\{"event":"hello to \{name\}; \\u003cb\\u003e","n":1\}$'
podsend alpha '{"method":"echo","params":3}'
stdout '"data":3'
`
	log, failed := runScript(t, string(text)+asks)
	assert.False(t, failed, "%s\n%s", text, log)
}

// TestRecordingsOfEvidence plays what failed tests have left.
func TestRecordingsOfEvidence(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"a start that failed":            "podstart -timeout 5s -fake early-exit alpha",
		"a pod that died":                "podstart -fake 'bind; ready; serve; sleep 700ms; log ''out of {{memory}''; exit 3' alpha\npodsend alpha\n! podwait alpha\nexists nothing",
		"a pod that ended well too soon": "podstart -fake 'bind; ready; serve; sleep 700ms; exit 0' alpha\npodwait alpha\nexists nothing",
		"a pod that was stopped":         "podstart -fake 'bind; ready; serve' alpha\npodstop alpha\nexists nothing",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "script.txtar"), []byte(script), 0o600))
			r := &recorder{artifacts: t.TempDir(), deadline: time.Now().Add(patience)}
			testscript.RunT(r, scripts.Params(scripts.Options{Dir: dir}))
			require.True(t, r.Failed(), r.log.String())
			text, err := os.ReadFile(filepath.Join(r.artifacts, "alpha.txtar"))
			require.NoError(t, err)
			log, failed := runScript(t, string(text))
			assert.False(t, failed, "%s\n%s", text, log)
			assert.Equal(t, name == "a start that failed", strings.Contains(string(text), "! podstart"))
			assert.Equal(t, name == "a pod that died", strings.Contains(string(text), "! podwait"), string(text))
		})
	}
}
