package spawn_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what must happen. It is long: the
// machine may be busy.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if pod := os.Getenv(podEnv); pod != "" {
		testPods[pod]()
	}
	flag.Parse()
	_ = flag.Set("rapid.nofailfile", "true") // a failure is a line to paste
	if !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.Contains(arg, "test.parallel=") }) {
		// The tests wait for pods most of the time.
		_ = flag.Set("test.parallel", "8")
	}
	os.Exit(supervised(m.Run))
}

// shortDir returns a directory with a path that a socket address has room for.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "spawn")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// fake returns the config of a fake pod alpha in a runtime directory of its own.
func fake(t testing.TB, program string) spawn.Config { return fakeIn(shortDir(t), program) }

func fakeIn(dir, program string) spawn.Config {
	name, args := fakepod.Command(program)
	return spawn.Config{
		Command:       spawn.Command{Program: name, PrefixArgs: args},
		PodName:       "alpha",
		WorkspaceRoot: dir,
		Env:           []string{"YOI_RUNTIME_DIR=" + filepath.Join(dir, "run"), "PATH=" + os.Getenv("PATH")},
	}
}

// shell returns the config of a pod that is a shell script.
func shell(t testing.TB, script string) spawn.Config {
	cfg := fake(t, "")
	cfg.Command = spawn.Command{Program: "/bin/sh", PrefixArgs: []string{"-c", script, "sh"}}
	return cfg
}

// start is spawn.Start, but does not wait for ever where that does.
func start(t testing.TB, ctx context.Context, cfg spawn.Config) (pod *spawn.Pod, err error) {
	t.Helper()
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		pod, err = spawn.Start(ctx, cfg)
	}()
	select {
	case <-returned:
		return pod, err
	case <-time.After(cmp.Or(cfg.ReadyTimeout, spawn.DefaultReadyTimeout) + patience):
		require.FailNow(t, "Start has not returned in time")
		return nil, nil
	}
}

// mustStart starts a pod that is killed at the end of the test.
func mustStart(t testing.TB, cfg spawn.Config) *spawn.Pod {
	t.Helper()
	pod, err := start(t, context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { kill(t, pod) })
	return pod
}

func kill(t testing.TB, pod *spawn.Pod) {
	t.Helper()
	if err := pod.Signal(syscall.SIGKILL); err != nil {
		require.ErrorIs(t, err, os.ErrProcessDone)
	}
	waitDone(t, pod)
}

func waitDone(t testing.TB, pod *spawn.Pod) {
	t.Helper()
	select {
	case <-pod.Done():
	case <-time.After(patience):
		require.FailNow(t, "the pod has not ended", "process %d, after %v", pod.PID, patience)
	}
}

// mustFail starts a pod that must not become ready, and checks what must hold
// after every failure.
func mustFail(t testing.TB, ctx context.Context, cfg spawn.Config) *spawn.Error {
	t.Helper()
	pod, err := start(t, ctx, cfg)
	if pod != nil {
		kill(t, pod)
	}
	require.Error(t, err)
	var e *spawn.Error
	require.ErrorAs(t, err, &e)
	assert.Equal(t, cfg.PodName, e.Pod)
	if e.PID != 0 {
		require.NotNil(t, e.State, "the process was reaped")
		waitGroupGone(t, e.PID)
	}
	return e
}

// waitGroupGone waits until a process group has no member but zombies, which
// whoever inherited them has still to reap.
func waitGroupGone(t testing.TB, group int) {
	t.Helper()
	require.Eventually(t, func() bool { return len(groupMembers(group)) == 0 }, patience, time.Millisecond,
		"process group %d has members left", group)
}

func groupMembers(group int) (members []int) {
	if syscall.Kill(-group, 0) == syscall.ESRCH {
		return nil
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return []int{group} // the signal's word counts
	}
	return processes(func(state string, _, of int) bool { return state != "Z" && of == group })
}

// processes returns the processes that match by state, parent and group; none where the
// system does not show them.
func processes(match func(state string, parent, group int) bool) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parent, _ := strconv.Atoi(fields[1])
		group, _ := strconv.Atoi(fields[2])
		if match(fields[0], parent, group) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// ask sends a request to a pod's socket, after its snapshot, and returns the
// data of the answer.
func ask(t testing.TB, socket, request string, data any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := spawn.Dial(ctx, socket)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, request+"\n")
	require.NoError(t, err)
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	require.True(t, lines.Scan(), "no snapshot: %v", lines.Err())
	require.True(t, lines.Scan(), "no answer: %v", lines.Err())
	answer := struct {
		Event string
		Data  any
	}{Data: data}
	require.NoError(t, json.Unmarshal(lines.Bytes(), &answer))
	require.NotEqual(t, "error", answer.Event, "%s", lines.Text())
}

func TestPodsThatBecomeReady(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		program string
		lines   []string // for the progress callback
	}{
		{program: "ready"},
		{program: "delayed-ready", lines: []string{"loading"}},
		{program: "slow-bind"},
		{program: "late-listen"},
		{program: "torn-ready"},
		{program: "crlf", lines: []string{"loading"}},
		{program: "invalid-utf8", lines: []string{"caf\uFFFD \uFFFD"}},
		{program: "long-line", lines: []string{strings.Repeat(".", 64<<10) + "… [line cut at 64 KiB]"}},
		{program: "stubborn"},
		{program: "child"},
		{program: "escape 'sleep 100ms'; bind; ready; serve"},
		{program: "remove-log"},
		// YOI-READY without the tab, or not at the start, is an ordinary line.
		{
			program: `bind; log YOI-READY; log " YOI-READY\t{name}\t{socket}"; log ''; ready; serve`,
			lines:   []string{"YOI-READY", " YOI-READY\talpha\t", ""},
		},
		// A relative socket is relative to the pod's working directory, and
		// further tabs belong to the path.
		{program: `bind; ready '{name}' run/alpha/sock; serve`},
		{program: `bind; ready '{name}' "{dir}/\t/../sock"; hang`},
		// Lines go to the callback until the socket is there.
		{program: `log one; ready; log two; sleep 50ms; bind; serve`, lines: []string{"one", "two"}},
		// The first ready line is the one.
		{program: `ready; ready other /nowhere; sleep 50ms; bind; serve`, lines: []string{"YOI-READY\tother\t/nowhere"}},
	} {
		t.Run(tc.program, func(t *testing.T) {
			t.Parallel()
			cfg := fake(t, tc.program)
			if strings.Contains(tc.program, `\t/../sock`) {
				require.NoError(t, os.MkdirAll(filepath.Join(cfg.WorkspaceRoot, "run", "alpha", "\t"), 0o700))
			}
			var lines []string
			cfg.Progress = func(line string) { lines = append(lines, line) }
			pod := mustStart(t, cfg)
			podDir := filepath.Join(cfg.WorkspaceRoot, "run", "alpha")
			assert.Equal(t, "alpha", pod.Name)
			assert.Equal(t, filepath.Join(podDir, "stderr.log"), pod.LogPath)
			assert.True(t, filepath.IsAbs(pod.SocketPath))
			assert.Nil(t, pod.State())
			require.Len(t, lines, len(tc.lines), "%.200q", lines)
			for i, want := range tc.lines {
				assert.True(t, strings.HasPrefix(lines[i], want), "line %d is %.200q", i, lines[i])
			}
			tl := pod.Timeline
			assert.WithinDuration(t, time.Now(), tl.Start, patience)
			assert.Positive(t, tl.Launched)
			assert.LessOrEqual(t, tl.FirstLine, tl.ReadyLine)
			assert.LessOrEqual(t, tl.Launched, tl.ReadyLine)
			assert.LessOrEqual(t, tl.ReadyLine, tl.Connected)
			assert.Zero(t, tl.Ended)
		})
	}
}

func TestTruncatedLogIsReadFromItsStart(t *testing.T) {
	t.Parallel()
	// How many of the lines were read before they were truncated is chance.
	mustStart(t, fake(t, "truncate-log"))
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	const soon = 3 * time.Second // for pods that never become ready: time enough to come as far as they do
	for _, tc := range []struct {
		program  string
		timeout  time.Duration
		verdict  error
		message  string // the first line
		tail     []string
		contains string
	}{
		{program: "early-exit", verdict: spawn.ErrExited, message: "pod exited before becoming ready (exit status 7): cannot open session store", tail: []string{"cannot open session store"}},
		{program: "early-exit-zero", verdict: spawn.ErrExited, message: "pod exited before becoming ready (exit status 0): nothing to do", tail: []string{"nothing to do"}},
		{program: "early-exit-signal", verdict: spawn.ErrExited, message: "pod exited before becoming ready (signal: killed): about to crash", tail: []string{"about to crash"}},
		{program: "early-exit-silent", verdict: spawn.ErrExited, message: "pod exited before becoming ready (exit status 1): it wrote nothing"},
		{program: "exit-after-ready", verdict: spawn.ErrExited, message: "pod exited before becoming ready (exit status 3): migrating | migration failed", tail: []string{"migrating", "migration failed"}},
		{program: "invalid-utf8-exit", verdict: spawn.ErrExited, message: "pod exited before becoming ready (exit status 7): caf\uFFFD is closed", tail: []string{"caf\uFFFD is closed"}},
		{program: "control-characters", verdict: spawn.ErrExited, message: `pod exited before becoming ready (exit status 7): \x1b[2J\x1b]0;owned\a\x1b[31mred`, tail: []string{"\x1b[2J\x1b]0;owned\a\x1b[31mred"}},
		// Whatever it forked before is on its own.
		{program: "daemonize; exit 0", verdict: spawn.ErrExited, message: "pod exited before becoming ready (exit status 0): it wrote nothing"},
		{program: "raw 'no newline'; exit 1", verdict: spawn.ErrExited, message: `pod exited before becoming ready (exit status 1); unfinished line: "no newline"`},
		{program: "log 1; log 2; log 3; log 4; log 5; log 6; log 7; log 8; log 9; exit 1", verdict: spawn.ErrExited,
			message: "pod exited before becoming ready (exit status 1): 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9", tail: []string{"2", "3", "4", "5", "6", "7", "8", "9"}},

		{program: "malformed-no-fields", verdict: spawn.ErrMalformedReady, message: `malformed ready line: "YOI-READY\t"`},
		{program: "malformed-no-socket", verdict: spawn.ErrMalformedReady, message: `malformed ready line: "YOI-READY\talpha"`},
		{program: "malformed-empty-socket", verdict: spawn.ErrMalformedReady, message: `malformed ready line: "YOI-READY\talpha\t"`},
		{program: "malformed-empty-name", verdict: spawn.ErrMalformedReady, message: `malformed ready line: "YOI-READY\t\t/`},
		{program: `log hm; raw "YOI-READY\t\n"; exit 1`, verdict: spawn.ErrMalformedReady, message: `malformed ready line: "YOI-READY\t" (it has no name); last lines: hm`, tail: []string{"hm"}},
		{program: `raw "YOI-READY\talpha\t"; flood 100KiB 0; log ''; hang`, verdict: spawn.ErrMalformedReady, message: `malformed ready line: "YOI-READY\talpha\t....`, contains: `bytes more)" (it is longer than 64 KiB)`},
		{program: `bind; raw "YOI-READY\t{name}\t{socket}\x00\n"; serve`, verdict: spawn.ErrMalformedReady, contains: `/sock\x00" (its socket path holds a NUL byte)`},
		{program: "wrong-name", verdict: spawn.ErrNameMismatch, message: `pod became ready under another name: got "alpha-other", want "alpha"`},

		{program: "never-ready", timeout: soon, verdict: spawn.ErrTimeout, message: "pod did not become ready within 3s, waiting for the ready line; last lines: loading", tail: []string{"loading"}},
		{program: "unterminated-ready", timeout: soon, verdict: spawn.ErrTimeout, message: `pod did not become ready within 3s, waiting for the ready line; unfinished line: "YOI-READY\talpha\t/`},
		{program: `bind; raw "YOI-READY {name} {socket}\n"; hang`, timeout: soon, verdict: spawn.ErrTimeout, contains: "\n\tnote: a ready line begins with YOI-READY and a tab, and the pod wrote \"YOI-READY alpha /"},
		{program: `bind; raw "12:00 INFO YOI-READY\t{name}\t{socket}\n"; exit 1`, verdict: spawn.ErrExited, contains: "\n\tnote: a ready line begins with YOI-READY and a tab, and the pod wrote \"12:00 INFO YOI-READY\\talpha"},
		{program: `raw "{{\"msg\":\"YOI-READY\\\\t{name}\"}\n"; ` + strings.Repeat("log on; ", 20) + "exit 1", verdict: spawn.ErrExited, contains: `: its tabs were escaped, as loggers do: write it to stderr itself, past the logger`},
		{program: "stdout-ready", timeout: soon, verdict: spawn.ErrTimeout, message: "pod did not become ready within 3s, waiting for the ready line",
			contains: "\n\tnote: the ready line belongs on stderr: the pod's stdout is /dev/null, which nobody reads"},
		{program: `raw "YOI-READY\t{name}\t@agent\n"; hang`, timeout: soon, verdict: spawn.ErrTimeout, contains: "/@agent (the relative path @agent, not an abstract socket) (it does not exist)"},
		{program: `raw "YOI-READY\t{name}\t~/sock\n"; hang`, timeout: soon, verdict: spawn.ErrTimeout, contains: "/~/sock (the relative path ~/sock: nobody expands ~) (it does not exist)"},
		{program: `raw "YOI-READY\t{name}\tunix:/run/sock\n"; hang`, timeout: soon, verdict: spawn.ErrTimeout, contains: "/unix:/run/sock (the relative path unix:/run/sock, not a URL) (it does not exist)"},
		{program: `bind; raw "YOI-READY\t{name}\t{socket} \n"; hang`, timeout: soon, verdict: spawn.ErrTimeout, message: `pod did not become ready within 3s, waiting for its socket "/`, contains: `/alpha/sock " (it does not exist)`},
		{program: "never-binds", timeout: soon, verdict: spawn.ErrTimeout, message: "pod did not become ready within 3s, waiting for its socket /", contains: "/alpha/sock (it does not exist)"},
		{program: "dead-socket", timeout: soon, verdict: spawn.ErrTimeout, contains: "/alpha/sock (the connection was refused, nobody listens on it)"},
		{program: "file-socket", timeout: soon, verdict: spawn.ErrTimeout, contains: "/alpha/pid (it is not a socket)"},
		{program: "deaf", timeout: soon, verdict: spawn.ErrTimeout, contains: "/alpha/sock (its backlog is full, nobody accepts connections)"},
		{program: "stopped", timeout: soon, verdict: spawn.ErrTimeout, contains: onLinux("the process is stopped by SIGSTOP")},
		{program: "kill TTIN; hang", timeout: soon, verdict: spawn.ErrTimeout, contains: onLinux("the process is stopped by SIGTTIN: it uses the terminal")},
		{program: "duplicate-ready; hang", verdict: spawn.ErrExited, contains: "exit status 2"},
		{program: "flood 64MiB; hang", timeout: soon, verdict: spawn.ErrTimeout, contains: "waiting for the ready line; last lines: ....."},

		{program: "bind; ready '{name}' '{dir}/pid/sock'; hang", verdict: spawn.ErrSocket, message: "could not connect to pod socket /", contains: "/alpha/pid/sock: connect: not a directory"},
	} {
		t.Run(tc.program, func(t *testing.T) {
			t.Parallel()
			cfg := fake(t, tc.program)
			cfg.ReadyTimeout = tc.timeout
			e := mustFail(t, context.Background(), cfg)
			for _, sentinel := range []error{spawn.ErrInvalidConfig, spawn.ErrRuntimeDirUnavailable, spawn.ErrLaunch, spawn.ErrExited,
				spawn.ErrMalformedReady, spawn.ErrNameMismatch, spawn.ErrTimeout, spawn.ErrSocket, context.Canceled} {
				assert.Equal(t, sentinel == tc.verdict, errors.Is(e, sentinel), "errors.Is %q", sentinel)
			}
			message := e.Error()
			assert.True(t, strings.HasPrefix(message, tc.message), "it begins: %s", message)
			assert.Contains(t, message, tc.contains)
			assert.Equal(t, e.Missing == "ready line" && len(e.Tail) == 0 && e.Unfinished == "", strings.Contains(message, "\n\tnote: the ready line belongs on stderr"), message)
			assert.Contains(t, message, fmt.Sprintf("\n\tpod: alpha (process %d)\n\tlog: %s", e.PID, e.LogPath))
			if tc.tail != nil {
				assert.Equal(t, tc.tail, e.Tail)
			}
			assert.Equal(t, filepath.Join(cfg.WorkspaceRoot, "run", "alpha", "stderr.log"), e.LogPath)
			assert.FileExists(t, e.LogPath, "the log stays for the reader")
			assert.Positive(t, e.Timeline.Ended)
			assert.Zero(t, e.Timeline.Connected)
		})
	}
}

// TestReasonOfACrashIsInTheMessage has pods that say first why they crash.
func TestReasonOfACrashIsInTheMessage(t *testing.T) {
	t.Parallel()
	stack := strings.Repeat("main.open(0x1)\n\t/src/pod.go:4 +0x27\n", 20)
	for name, tc := range map[string]struct{ log, reason, message string }{
		"before its stack":            {"panic: no store\n\ngoroutine 1 [running]:\n" + stack, "panic: no store", ": panic: no store |  | … 41 lines of a stack trace: main.open at src/pod.go:4\n"},
		"hundreds of lines before":    {"panic: no store\n" + strings.Repeat("on\n", 300), "panic: no store", ": panic: no store | … | on | on | on | on | on | on | on | on\n"},
		"an error without a stack":    {"Error: no store\n" + strings.Repeat("on\n", 9), "Error: no store", ": Error: no store | … | on | "},
		"on two lines, in the tail":   {"thread 'main' panicked at a.rs:1:2:\nno store\n", "thread 'main' panicked at a.rs:1:2: no store", ": thread 'main' panicked at a.rs:1:2: | no store\n"},
		"with its control characters": {"panic: \x1b[31m\a\n" + strings.Repeat("on\n", 9), "panic: \a", `: panic: \a | … | on | `},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, progress := range []func(string){nil, func(string) {}} {
				cfg := shell(t, `cat "$TEXT" >&2; exit 2`)
				cfg.Env = append(cfg.Env, "TEXT="+cfg.WorkspaceRoot+"/text")
				cfg.Progress = progress
				require.NoError(t, os.WriteFile(cfg.WorkspaceRoot+"/text", []byte(tc.log), 0o600))
				e := mustFail(t, context.Background(), cfg)
				assert.Equal(t, tc.reason, e.Reason)
				assert.True(t, strings.HasPrefix(e.Error(), "pod exited before becoming ready (exit status 2)"+tc.message), "%s", e)
			}
		})
	}
}

// TestFailuresTellWhatTheyKnow looks at the fields that programs go by.
func TestFailuresTellWhatTheyKnow(t *testing.T) {
	t.Parallel()
	const soon = 3 * time.Second
	for program, want := range map[string]spawn.Error{
		"log 'waiting for its socket'; hang": {Verdict: "timed out", Missing: "ready line"},
		"never-binds":                        {Verdict: "timed out", Missing: "socket", Why: "missing"},
		"file-socket":                        {Verdict: "timed out", Missing: "socket", Why: "not a socket"},
		"dead-socket":                        {Verdict: "timed out", Missing: "socket", Why: "refused"},
		"deaf":                               {Verdict: "timed out", Missing: "socket", Why: "deaf"},
		"stopped":                            {Verdict: "timed out", Missing: "ready line", Stopped: isLinux},
		"early-exit":                         {Verdict: "exited early", Status: "exit status 7"},
		"early-exit-signal":                  {Verdict: "exited early", Status: "signal: killed"},
		"wrong-name":                         {Verdict: "wrong name"},
		"malformed-no-fields":                {Verdict: "malformed ready line"},
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			cfg := fake(t, program)
			if want.Verdict == "timed out" {
				cfg.ReadyTimeout = soon
			}
			e := mustFail(t, context.Background(), cfg)
			assert.Equal(t, want, spawn.Error{Verdict: e.Verdict, Missing: e.Missing, Why: e.Why, Stopped: e.Stopped, Status: e.Status})
			text, err := json.Marshal(e)
			require.NoError(t, err)
			var again spawn.Error
			require.NoError(t, json.Unmarshal(text, &again), "%s", text)
			again.State, again.Err = e.State, e.Err
			again.Timeline.Start = e.Timeline.Start // without the monotonic clock
			assert.Equal(t, *e, again)
		})
	}
}

func TestInvalidConfigTouchesNothing(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		change  func(*spawn.Config)
		message string
	}{
		{"no program", func(c *spawn.Config) { c.Command.Program = "" }, "invalid pod config: Command.Program is empty"},
		{"no workspace", func(c *spawn.Config) { c.WorkspaceRoot = "" }, "invalid pod config: WorkspaceRoot is empty"},
		{"negative timeout", func(c *spawn.Config) { c.ReadyTimeout = -1 }, "invalid pod config: ReadyTimeout -1ns is negative"},
		{"NUL in the profile", func(c *spawn.Config) { c.Profile = "a\x00b" }, `invalid pod config: Profile "a\x00b" holds a NUL byte`},
		{"NUL in a secret", func(c *spawn.Config) { c.Env = append(c.Env, "TOKEN=x\x00y") }, `invalid pod config: Env "TOKEN" holds a NUL byte`},
		{"NUL in an argument", func(c *spawn.Config) { c.Command.PrefixArgs = []string{"--x=y\x00"} }, `invalid pod config: Command.PrefixArgs "--x=y\x00" holds a NUL byte`},
		{"name empty", func(c *spawn.Config) { c.PodName = "" }, `invalid pod config: PodName ""`},
		{"name .", func(c *spawn.Config) { c.PodName = "." }, `invalid pod config: PodName "."`},
		{"name ..", func(c *spawn.Config) { c.PodName = ".." }, `invalid pod config: PodName ".."`},
		{"name with a slash", func(c *spawn.Config) { c.PodName = "../x" }, `invalid pod config: PodName "../x"`},
		{"name with a NUL", func(c *spawn.Config) { c.PodName = "a\x00" }, `invalid pod config: PodName "a\x00"`},
		{"name with a tab", func(c *spawn.Config) { c.PodName = "a\tb" }, `invalid pod config: PodName "a\tb"`},
		{"name with a CR", func(c *spawn.Config) { c.PodName = "a\r" }, `invalid pod config: PodName "a\r"`},
		{"name with a newline", func(c *spawn.Config) { c.PodName = "a\nb" }, `invalid pod config: PodName "a\nb"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := fake(t, "ready")
			dir := cfg.WorkspaceRoot
			tc.change(&cfg)
			e := mustFail(t, context.Background(), cfg)
			assert.ErrorIs(t, e, spawn.ErrInvalidConfig)
			assert.True(t, strings.HasPrefix(e.Error(), tc.message), e.Error())
			assert.Zero(t, e.PID)
			assert.Empty(t, e.LogPath)
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Empty(t, left, "nothing was touched")
		})
	}
}

func TestRuntimeDir(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		env  []string
		want string
	}{
		{[]string{"YOI_RUNTIME_DIR=/r", "YOI_HOME=/y", "XDG_RUNTIME_DIR=/x", "HOME=/h"}, "/r"},
		{[]string{"YOI_RUNTIME_DIR=", "YOI_HOME=/y", "XDG_RUNTIME_DIR=/x", "HOME=/h"}, "/y/run"},
		{[]string{"XDG_RUNTIME_DIR=/x", "HOME=/h"}, "/x/yoi"},
		{[]string{"HOME=/h"}, "/h/.yoi/run"},
		{[]string{"HOME=/first", "HOME=/last"}, "/last/.yoi/run"},
		{[]string{"HOME="}, ""},
		{nil, ""},
	} {
		got, err := spawn.RuntimeDir(tc.env)
		assert.Equal(t, tc.want, got, "%q", tc.env)
		if tc.want == "" {
			assert.ErrorIs(t, err, spawn.ErrRuntimeDirUnavailable)
		}
	}
}

// TestDotsBehindALinkLeadWhereTheSystemSays: not where the text of the path does.
func TestDotsBehindALinkLeadWhereTheSystemSays(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real", "deep"), 0o700))
	require.NoError(t, os.Symlink("real/deep", filepath.Join(dir, "link")))
	cfg := fake(t, "bind; ready {name} ../run/alpha/sock; serve")
	cfg.WorkspaceRoot = dir + "/link"
	cfg.Env = []string{"YOI_RUNTIME_DIR=" + dir + "/real/run"}
	pod := mustStart(t, cfg)
	assert.Equal(t, dir+"/link/../run/alpha/sock", pod.SocketPath)

	cfg = shell(t, "exit 7")
	cfg.Env = []string{"YOI_RUNTIME_DIR=" + dir + "/link/../other"}
	e := mustFail(t, context.Background(), cfg)
	assert.Equal(t, dir+"/link/../other/alpha/stderr.log", e.LogPath)
	assert.FileExists(t, dir+"/real/other/alpha/stderr.log")
	assert.NoDirExists(t, dir+"/other")
}

func TestRuntimeDirComesFromTheEnvironmentOfThePod(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "ready")
	cfg.Env = []string{"PATH=/bin"}
	e := mustFail(t, context.Background(), cfg)
	assert.ErrorIs(t, e, spawn.ErrRuntimeDirUnavailable)
	assert.True(t, strings.HasPrefix(e.Error(), "could not resolve runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)"))

	cfg.Env = []string{"YOI_RUNTIME_DIR=relative"}
	pod := mustStart(t, cfg)
	assert.Equal(t, filepath.Join(cfg.WorkspaceRoot, "relative", "alpha", "stderr.log"), pod.LogPath)
}

func TestLaunchFailures(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, dir, name, text string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), mode))
		return path
	}
	for _, tc := range []struct {
		name    string
		change  func(*testing.T, *spawn.Config)
		message string
		cause   error
	}{
		{"missing program", func(t *testing.T, c *spawn.Config) {
			c.Command = spawn.Command{Program: "/nowhere/pod", PrefixArgs: []string{"a b"}}
		},
			"failed to launch pod runtime command `/nowhere/pod 'a b'`: exec: \"/nowhere/pod\": stat /nowhere/pod: no such file or directory", fs.ErrNotExist},
		{"missing relative program", func(t *testing.T, c *spawn.Config) { c.Command = spawn.Command{Program: "./nowhere/pod"} },
			"no such file or directory (looked up from the working directory of this process, " + workingDir(t) + ")", fs.ErrNotExist},
		{"not in PATH", func(t *testing.T, c *spawn.Config) { c.Command = spawn.Command{Program: "no-such-pod-anywhere"} },
			"failed to launch pod runtime command `no-such-pod-anywhere`: exec: \"no-such-pod-anywhere\": executable file not found in $PATH", exec.ErrNotFound},
		{"not executable", func(t *testing.T, c *spawn.Config) {
			c.Command = spawn.Command{Program: write(t, c.WorkspaceRoot, "pod", "#!/bin/sh\n", 0o600)}
		}, "permission denied", fs.ErrPermission},
		{"missing interpreter", func(t *testing.T, c *spawn.Config) {
			c.Command = spawn.Command{Program: write(t, c.WorkspaceRoot, "pod", "#!/no/interpreter\n", 0o700)}
		}, "the file is there: the interpreter or the loader that it names is not", fs.ErrNotExist},
		{"not a program", func(t *testing.T, c *spawn.Config) {
			c.Command = spawn.Command{Program: write(t, c.WorkspaceRoot, "pod", "echo\n", 0o700)}
		}, "a script needs a first line such as #!/bin/sh", syscall.ENOEXEC},
		{"missing working directory", func(t *testing.T, c *spawn.Config) { c.Dir = "/nowhere/dir" },
			"working directory: chdir /nowhere/dir: no such file or directory", fs.ErrNotExist},
		{"working directory is a file", func(t *testing.T, c *spawn.Config) { c.Dir = write(t, c.WorkspaceRoot, "file", "", 0o600) },
			"/file: not a directory", syscall.ENOTDIR},
		{"working directory that is closed", func(t *testing.T, c *spawn.Config) {
			if os.Geteuid() == 0 {
				t.Skip("nothing is closed to root")
			}
			c.Dir = filepath.Join(c.WorkspaceRoot, "closed")
			require.NoError(t, os.Mkdir(c.Dir, 0o600))
		}, "working directory: chdir ", fs.ErrPermission},
		{"runtime directory is a file", func(t *testing.T, c *spawn.Config) { write(t, c.WorkspaceRoot, "run", "", 0o600) },
			"create pod directory: mkdir ", syscall.ENOTDIR},
		{"pod directory is a link", func(t *testing.T, c *spawn.Config) {
			require.NoError(t, os.Mkdir(filepath.Join(c.WorkspaceRoot, "run"), 0o700))
			require.NoError(t, os.Symlink(c.WorkspaceRoot, filepath.Join(c.WorkspaceRoot, "run", "alpha")))
		}, "/run/alpha is a symbolic link, not a directory of its own: remove it", nil},
		{"log is a link", func(t *testing.T, c *spawn.Config) {
			require.NoError(t, os.MkdirAll(filepath.Join(c.WorkspaceRoot, "run", "alpha"), 0o700))
			victim := write(t, c.WorkspaceRoot, "victim", "precious", 0o600)
			require.NoError(t, os.Symlink(victim, filepath.Join(c.WorkspaceRoot, "run", "alpha", "stderr.log")))
			t.Cleanup(func() {
				text, err := os.ReadFile(victim)
				assert.NoError(t, err)
				assert.Equal(t, "precious", string(text))
			})
		}, "/run/alpha/stderr.log is a symbolic link, not a regular file: remove it", nil},
		{"log is a pipe", func(t *testing.T, c *spawn.Config) {
			require.NoError(t, os.MkdirAll(filepath.Join(c.WorkspaceRoot, "run", "alpha"), 0o700))
			require.NoError(t, syscall.Mkfifo(filepath.Join(c.WorkspaceRoot, "run", "alpha", "stderr.log"), 0o600))
		}, "/run/alpha/stderr.log is a special file, not a regular file: remove it", nil},
		{"pod directory of another user", func(t *testing.T, c *spawn.Config) {
			if os.Geteuid() != 0 {
				t.Skip("only root can make a directory that belongs to another user")
			}
			dir := filepath.Join(c.WorkspaceRoot, "run", "alpha")
			require.NoError(t, os.MkdirAll(dir, 0o700))
			require.NoError(t, os.Chown(dir, 12345, -1))
		}, "/run/alpha belongs to user 12345, not to user 0 who starts the pod", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			cfg := fake(t, "ready")
			tc.change(t, &cfg)
			e := mustFail(t, context.Background(), cfg)
			assert.ErrorIs(t, e, spawn.ErrLaunch)
			if tc.cause != nil {
				assert.ErrorIs(t, e, tc.cause)
			}
			assert.True(t, strings.HasPrefix(e.Error(), "failed to launch pod runtime command `"), e.Error())
			assert.Contains(t, e.Error(), tc.message)
			assert.Zero(t, e.PID)
			assert.NotContains(t, e.Error(), "\n\tlog: ", "there is nothing in it")
		})
	}
}

func workingDir(t *testing.T) string {
	dir, err := os.Getwd()
	require.NoError(t, err)
	return dir
}

func TestProgramIsFoundFromTheWorkingDirectoryOfTheParent(t *testing.T) {
	t.Parallel()
	wd, err := os.Getwd()
	require.NoError(t, err)
	cfg := fake(t, "ready")
	cfg.Command.Program, err = filepath.Rel(wd, cfg.Command.Program)
	require.NoError(t, err)
	cfg.Dir = "/"
	mustStart(t, cfg)
}

func TestProgramThatIsBeingWritten(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T) (spawn.Config, *os.File) {
		cfg := fake(t, "ready")
		text, err := os.ReadFile(cfg.Command.Program)
		require.NoError(t, err)
		program := filepath.Join(cfg.WorkspaceRoot, "pod")
		file, err := os.OpenFile(program, os.O_WRONLY|os.O_CREATE, 0o700)
		require.NoError(t, err)
		t.Cleanup(func() { file.Close() })
		_, err = file.Write(text)
		require.NoError(t, err)
		cfg.Command.Program = program
		return cfg, file
	}
	t.Run("for a moment", func(t *testing.T) {
		t.Parallel()
		cfg, file := prepare(t)
		timer := time.AfterFunc(100*time.Millisecond, func() { file.Close() })
		defer timer.Stop()
		mustStart(t, cfg)
	})
	t.Run("for long", func(t *testing.T) {
		t.Parallel()
		cfg, _ := prepare(t)
		e := mustFail(t, context.Background(), cfg)
		assert.ErrorIs(t, e, spawn.ErrLaunch)
		assert.ErrorIs(t, e, syscall.ETXTBSY)
		assert.Contains(t, e.Error(), "something still has the program open for writing")
	})
	t.Run("until the caller gives up", func(t *testing.T) {
		t.Parallel()
		cfg, _ := prepare(t)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		e := mustFail(t, ctx, cfg)
		assert.ErrorIs(t, e, context.DeadlineExceeded)
		assert.NotErrorIs(t, e, spawn.ErrLaunch)
	})
}

func TestCancelledContext(t *testing.T) {
	t.Parallel()
	t.Run("before the start", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		cfg := fake(t, "ready")
		e := mustFail(t, ctx, cfg)
		assert.ErrorIs(t, e, context.Canceled)
		assert.NoDirExists(t, filepath.Join(cfg.WorkspaceRoot, "run"))
	})
	t.Run("waiting for the ready line", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		cfg := fake(t, "child; log loading; hang")
		cfg.Progress = func(string) { cancel() }
		e := mustFail(t, ctx, cfg)
		assert.ErrorIs(t, e, context.Canceled)
		assert.NotErrorIs(t, e, spawn.ErrTimeout)
		assert.Equal(t, "cancelled", e.Verdict)
		assert.Equal(t, "ready line", e.Missing)
		assert.Equal(t, []string{"loading"}, e.Tail)
	})
	t.Run("waiting for the socket", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		cfg := fake(t, "ready; log 'bound soon'; hang")
		cfg.Progress = func(string) { cancel() }
		e := mustFail(t, ctx, cfg)
		assert.ErrorIs(t, e, context.Canceled)
		assert.Equal(t, "socket", e.Missing)
	})
	t.Run("its deadline is not the ready timeout", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		e := mustFail(t, ctx, fake(t, "hang"))
		assert.ErrorIs(t, e, context.DeadlineExceeded)
		assert.NotErrorIs(t, e, spawn.ErrTimeout)
	})
	t.Run("after the start it does not concern the pod", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(context.Background())
		pod, err := spawn.Start(ctx, fake(t, "ready"))
		require.NoError(t, err)
		t.Cleanup(func() { kill(t, pod) })
		cancel()
		ask(t, pod.SocketPath, `{"method":"ping"}`, nil)
		assert.Nil(t, pod.State())
	})
}

func TestFailureKillsTheChildrenToo(t *testing.T) {
	t.Parallel()
	// mustFail looks at the group.
	for _, program := range []string{
		"child 'ignore INT TERM; hang'; exit 1",
		"child 'ignore INT TERM; hang'; ready other; hang",
		"child 'ignore INT TERM; flood 1GiB; flood 1GiB; flood 1GiB; flood 1GiB'; exit 1",
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			mustFail(t, context.Background(), fake(t, program))
		})
	}
}

func TestLogIsReadToItsEndBeforeTheVerdict(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "log '{pid}'; flood 1MiB; log 'the reason'; exit 7")
	cfg.Progress = func(line string) {
		// The process has ended and was reaped before the second line is read.
		if pid, err := strconv.Atoi(line); err == nil {
			for deadline := time.Now().Add(patience); syscall.Kill(pid, 0) == nil && time.Now().Before(deadline); runtime.Gosched() {
			}
		}
	}
	e := mustFail(t, context.Background(), cfg)
	assert.ErrorIs(t, e, spawn.ErrExited)
	require.NotEmpty(t, e.Tail)
	assert.Equal(t, "the reason", e.Tail[len(e.Tail)-1])
}

// TestLogTooLongToBeReadInTime has a hole of 4 TiB.
func TestLogTooLongToBeReadInTime(t *testing.T) {
	t.Parallel()
	for name, timeout := range map[string]time.Duration{"the deadline": 2 * time.Second, "a context": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := shell(t, "echo first >&2; until [ -e go ]; do sleep 0.01; done; echo >&2; echo last >&2; exit 7")
			cfg.ReadyTimeout = timeout
			cfg.Progress = func(line string) {
				if line == "first" {
					assert.NoError(t, os.Truncate(cfg.WorkspaceRoot+"/run/alpha/stderr.log", 4<<40))
					assert.NoError(t, os.WriteFile(cfg.WorkspaceRoot+"/go", nil, 0o600))
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			e := mustFail(t, ctx, cfg)
			assert.ErrorIs(t, e, spawn.ErrExited)
			assert.Equal(t, "exit status 7", e.Status)
			require.Len(t, e.Tail, 3)
			assert.Equal(t, "first", e.Tail[0])
			assert.Equal(t, "last", e.Tail[2])
			assert.Less(t, e.Timeline.Ended, patience)
		})
	}
}

func TestOneDeadlineCoversTheReadyLineAndTheSocket(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "sleep 1s; ready; hang")
	cfg.ReadyTimeout = 8 * time.Second
	e := mustFail(t, context.Background(), cfg)
	assert.ErrorIs(t, e, spawn.ErrTimeout)
	assert.Equal(t, "socket", e.Missing)
	// However late the ready line is on a busy machine.
	assert.Less(t, e.Timeline.Ended-e.Timeline.ReadyLine, cfg.ReadyTimeout, "it does not count from the ready line on")
}

func TestPanicInProgressKillsThePod(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "log '{pid}'; hang")
	var pid int
	cfg.Progress = func(line string) {
		pid, _ = strconv.Atoi(line)
		panic("progress")
	}
	assert.PanicsWithValue(t, "progress", func() { _, _ = spawn.Start(context.Background(), cfg) })
	require.NotZero(t, pid)
	waitGroupGone(t, pid)
}

func TestPodIsIsolated(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "ready")
	cfg.Profile, cfg.TicketRole = "project:companion", "orchestrator"
	cfg.Dir = shortDir(t)
	pod := mustStart(t, cfg)
	group, err := syscall.Getpgid(pod.PID)
	require.NoError(t, err)
	assert.Equal(t, pod.PID, group, "it leads its own group")

	var snapshot struct {
		PID                              int
		Workspace, Dir, Profile, Session string
		TicketRole                       string `json:"ticket_role"`
	}
	ask(t, pod.SocketPath, `{"method":"status"}`, &snapshot)
	assert.Equal(t, pod.PID, snapshot.PID)
	assert.Equal(t, cfg.WorkspaceRoot, snapshot.Workspace)
	assert.Equal(t, cfg.Dir, snapshot.Dir)
	assert.Equal(t, "project:companion", snapshot.Profile)
	assert.Equal(t, "orchestrator", snapshot.TicketRole)

	for path, mode := range map[string]fs.FileMode{filepath.Dir(pod.LogPath): 0o700, pod.LogPath: 0o600} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), path)
	}
}

func TestArgs(t *testing.T) {
	t.Parallel()
	base := spawn.Config{PodName: "alpha", WorkspaceRoot: "/srv/project"}
	with := func(change func(*spawn.Config)) spawn.Config {
		c := base
		change(&c)
		return c
	}
	nilID := uuid.Nil
	for _, tc := range []struct {
		cfg  spawn.Config
		want string
	}{
		{base, "--workspace /srv/project --pod alpha"},
		{with(func(c *spawn.Config) { c.Profile = "p"; c.Dir = "/elsewhere" }), "--workspace /srv/project --pod alpha --profile p"},
		{with(func(c *spawn.Config) { c.Profile = "p"; c.TicketRole = "r" }), "--workspace /srv/project --pod alpha --profile p --ticket-role r"},
		{with(func(c *spawn.Config) { c.Profile = "p"; c.TicketRole = "r"; c.ResumeFrom = &nilID }),
			"--workspace /srv/project --session 00000000-0000-0000-0000-000000000000 --pod alpha --ticket-role r"},
		{with(func(c *spawn.Config) {
			c.NameFlag = "--worker"
			c.TicketRole = "r"
			c.ExtraArgs = []string{"--manifest", "m"}
		}),
			"--workspace /srv/project --worker alpha --ticket-role r --manifest m"},
		{with(func(c *spawn.Config) { c.NameFlag = "--worker"; c.ResumeFrom = &nilID }),
			"--workspace /srv/project --session 00000000-0000-0000-0000-000000000000 --worker alpha"},
	} {
		assert.Equal(t, strings.Fields(tc.want), tc.cfg.Args())
	}
}

func TestResolveCommand(t *testing.T) {
	t.Setenv(spawn.RuntimeCommandEnv, "")
	command, err := spawn.ResolveCommand()
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	assert.Equal(t, spawn.Command{Program: self, PrefixArgs: []string{"pod"}}, command)

	t.Setenv(spawn.RuntimeCommandEnv, "/opt/my agent; rm")
	command, err = spawn.ResolveCommand()
	require.NoError(t, err)
	assert.Equal(t, spawn.Command{Program: "/opt/my agent; rm", PrefixArgs: []string{"pod"}}, command)
	assert.Equal(t, "'/opt/my agent; rm' pod", command.String())
}

func TestCommandIsShownAsAShellTakesIt(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"plain-1.2_x/y:z@%+,=": "plain-1.2_x/y:z@%+,=", "": "''", "a b": "'a b'", "a;b": "'a;b'", "$x": "'$x'", "a*": "'a*'", "~": "'~'", "a#b": "'a#b'",
		"it's": `'it'\''s'`, "a|b": "'a|b'", "a&b": "'a&b'", "<": "'<'", "\x1b[2J": `'\x1b[2J'`,
	} {
		assert.Equal(t, "sh "+want, spawn.Command{Program: "sh", PrefixArgs: []string{word}}.String())
	}
}

func TestSignalReachesTheGroupAlsoWithoutItsLeader(t *testing.T) {
	t.Parallel()
	pod := mustStart(t, fake(t, "child 'ignore INT TERM; hang'; bind; ready; serve"))
	require.NoError(t, pod.Signal(syscall.SIGINT))
	waitDone(t, pod)
	assert.Equal(t, "exit status 0", pod.State().String())
	assert.Len(t, groupMembers(pod.PID), 1, "the child is left")
	require.NoError(t, pod.Signal(syscall.SIGKILL))
	waitGroupGone(t, pod.PID)
	assert.Eventually(t, func() bool { return errors.Is(pod.Signal(syscall.SIGKILL), os.ErrProcessDone) }, patience, time.Millisecond)
}

func TestSignalAfterTheEndHitsNobody(t *testing.T) {
	t.Parallel()
	pod := mustStart(t, fake(t, "ready"))
	kill(t, pod)
	assert.ErrorIs(t, pod.Signal(syscall.SIGKILL), os.ErrProcessDone)
}

func TestStaleSocketOfADeadPodIsReplaced(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "slow-bind")
	first := mustStart(t, cfg)
	kill(t, first)
	require.FileExists(t, first.SocketPath)
	second := mustStart(t, cfg)
	// Nobody would answer yet if the dead pod's socket had counted.
	ask(t, second.SocketPath, `{"method":"ping"}`, nil)
}

func TestLongSocketPath(t *testing.T) {
	t.Parallel()
	cfg := fake(t, "ready")
	deep := filepath.Join(cfg.WorkspaceRoot, strings.Repeat("d", 200))
	cfg.Env = []string{"YOI_RUNTIME_DIR=" + deep}
	pod, err := spawn.Start(context.Background(), cfg)
	if !isLinux {
		require.ErrorContains(t, err, "bytes long")
		return
	}
	require.NoError(t, err)
	t.Cleanup(func() { kill(t, pod) })
	assert.Greater(t, len(pod.SocketPath), 200)
	ask(t, pod.SocketPath, `{"method":"ping"}`, nil)
}

func TestManyStartsAtOnce(t *testing.T) {
	t.Parallel()
	const pods = 200
	cfg := fake(t, "ready")
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience) // for all
	defer cancel()
	var wg sync.WaitGroup
	for i := range pods {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := cfg
			c.PodName = fmt.Sprint("pod", i)
			pod, err := spawn.Start(ctx, c)
			if !assert.NoError(t, err) {
				return
			}
			assert.Equal(t, c.PodName, pod.Name)
			assert.Equal(t, c.PodName, filepath.Base(filepath.Dir(pod.SocketPath)))
			assert.NoError(t, pod.Signal(syscall.SIGINT))
			waitDone(t, pod)
			assert.True(t, pod.State().Success(), "%v", pod.State())
		}()
	}
	wg.Wait()
	left, err := os.ReadDir(filepath.Join(cfg.WorkspaceRoot, "run"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// TestPodOutlivesItsParent starts a pod from a process that exits: this test
// again, told so by its environment.
func TestPodOutlivesItsParent(t *testing.T) {
	const parent = "SPAWN_TEST_PARENT_OF"
	if dir := os.Getenv(parent); dir != "" {
		program, args := fakepod.Command("ready")
		pod, err := spawn.Start(context.Background(), spawn.Config{
			Command:       spawn.Command{Program: program, PrefixArgs: args},
			PodName:       "alpha",
			WorkspaceRoot: dir,
			Env:           []string{"YOI_RUNTIME_DIR=" + dir},
		})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Printf("started %d %s\n", pod.PID, pod.SocketPath)
		os.Exit(0)
	}
	t.Parallel()
	dir := shortDir(t)
	cmd := again(t, "-test.run=^TestPodOutlivesItsParent$")
	cmd.Env = append(cmd.Env, parent+"="+dir)
	cmd.WaitDelay = 0
	// A pipe: the pod must not hold its write end, or this would hang.
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	var pid int
	var socket string
	_, err = fmt.Sscanf(string(out[strings.Index(string(out), "started"):]), "started %d %s", &pid, &socket)
	require.NoError(t, err, "%s", out)
	t.Cleanup(func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })

	var status struct{ PID int }
	ask(t, socket, `{"method":"status"}`, &status)
	assert.Equal(t, pid, status.PID)
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, `{"method":"shutdown"}`+"\n")
	require.NoError(t, err)
	_, err = io.ReadAll(conn)
	require.NoError(t, err)
	waitGroupGone(t, pid)
	assert.NoDirExists(t, filepath.Join(dir, "alpha"))
}

func TestPodInAnotherLanguage(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("no python3: %v", err)
	}
	cfg := fake(t, "")
	cfg.Command = spawn.Command{Program: python, PrefixArgs: []string{"../testdata/pods/pod.py", "pod"}}
	cfg.Command.PrefixArgs[0], err = filepath.Abs(cfg.Command.PrefixArgs[0])
	require.NoError(t, err)
	pod := mustStart(t, cfg)
	require.NoError(t, pod.Signal(syscall.SIGINT))
	waitDone(t, pod)
	assert.True(t, pod.State().Success())
}

func TestShellPodThatDies(t *testing.T) {
	t.Parallel()
	e := mustFail(t, context.Background(), shell(t, `echo "args: $*" >&2; echo lost; exit 9`))
	assert.ErrorIs(t, e, spawn.ErrExited)
	assert.Contains(t, e.Error(), "(exit status 9): args: --workspace ")
	assert.NotContains(t, e.Error(), "lost")
}
