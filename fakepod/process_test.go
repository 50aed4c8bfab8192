package fakepod_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestModesWriteWhatTheySay(t *testing.T) {
	t.Parallel()
	const ready = "YOI-READY\talpha\tDIR/sock\n"
	for mode, want := range map[string]struct{ stderr, end string }{
		"ready":                  {ready, ""},
		"slow-bind":              {ready, ""},
		"late-listen":            {ready, ""},
		"never-ready":            {"loading\n", ""},
		"never-binds":            {ready, ""},
		"malformed-no-fields":    {"YOI-READY\t\n", ""},
		"malformed-no-socket":    {"YOI-READY\talpha\n", ""},
		"malformed-empty-socket": {"YOI-READY\talpha\t\n", ""},
		"malformed-empty-name":   {"YOI-READY\t\tDIR/sock\n", ""},
		"unterminated-ready":     {strings.TrimSuffix(ready, "\n"), ""},
		"invalid-utf8":           {"caf\xe9 \xff\n" + ready, ""},
		"duplicate-ready":        {ready + "YOI-READY\tother\t/nowhere\n", ""},
		"file-socket":            {"YOI-READY\talpha\tDIR/pid\n", ""},
		"long-line":              {strings.Repeat(".", 1<<20) + "\n" + ready, ""},
		"early-exit":             {"cannot open session store\n", "exit status 7"},
		"early-exit-zero":        {"nothing to do\n", "exit status 0"},
		"early-exit-silent":      {"", "exit status 1"},
		"exit-after-ready":       {"migrating\n" + ready + "migration failed\n", "exit status 3"},
		"control-characters":     {"\x1b[2J\x1b]0;owned\x07\x1b[31mred\n", "exit status 7"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := launch(t, mode)
			text := strings.ReplaceAll(want.stderr, "DIR", r.dir)
			if want.end == "" {
				assert.Equal(t, text, r.bytes(len(text)))
				return
			}
			assert.Equal(t, text, r.rest())
			assert.Equal(t, want.end, r.wait())
			assert.FileExists(t, filepath.Join(r.dir, "status.json"), "it left everything")
		})
	}
}

func TestStdout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stdout, stderr, status := run(t, []string{"YOI_RUNTIME_DIR=" + dir}, "-program", "out '{name} {dir}'; log b; exit 6", "--workspace", "/w", "--pod", "a")
	assert.Equal(t, "a "+dir+"/a\n", stdout)
	assert.Equal(t, "b\n", stderr)
	assert.Equal(t, 6, status)
}

func TestStoppedBetweenTheHalvesOfTheReadyLine(t *testing.T) {
	t.Parallel()
	r := launch(t, `bind; raw "YOI-READY\t{name}"; kill STOP; raw "\t{socket}\n"; exit 4`)
	r.stopped()
	half := "YOI-READY\talpha"
	assert.Equal(t, half, r.bytes(len(half)))
	assert.Zero(t, r.lines.Buffered(), "that is all so far")
	r.signal(syscall.SIGCONT)
	assert.Equal(t, strings.TrimPrefix(r.ready(), half), r.rest())
	assert.Equal(t, "exit status 4", r.wait())
}

func TestFloodLines(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args         string
		length, last int // of a line with its newline
	}{
		{"1000", 80, 40},
		{"1MiB", 80, 1 << 20 % 80},
		{"1048577 1024", 1024, 1},
		{"2097153 7", 7, 2097153 % 7},
		{"10 100", 100, 10},
	} {
		t.Run(tc.args, func(t *testing.T) {
			t.Parallel()
			lines := strings.SplitAfter(strings.TrimSuffix(launch(t, "flood "+tc.args+"; exit 0").rest(), "\n")+"\n", "\n")
			lines = lines[:len(lines)-1] // nothing is after the last newline
			for i, line := range lines {
				want := tc.length
				if i == len(lines)-1 {
					want = tc.last
				}
				if len(line) != want || strings.Trim(line, ".") != "\n" {
					t.Fatalf("line %d is %q, want %d bytes", i, line, want)
				}
			}
		})
	}
}

// TestLogFile is about the steps that need a log as real launchers make it.
func TestLogFile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		program string
		end     string
		left    []string // in the pod directory
		log     string
	}{
		{"log a; truncate; log b; exit 0", "exit status 0", []string{"pid", "status.json", "stderr.log"}, "b\n"},
		{"flood 64KiB; truncate; exit 0", "exit status 0", []string{"pid", "status.json", "stderr.log"}, ""},
		{"log a; unlink log; log b; exit 0", "exit status 0", []string{"pid", "status.json"}, "a\nb\n"},
		{"bind; exit 0", "exit status 0", []string{"pid", "sock", "status.json", "stderr.log"}, ""},
		{"bind; unlink sock; exit 0", "exit status 0", []string{"pid", "status.json", "stderr.log"}, ""},
		{"bind; unlink dir; log b; exit 0", "exit status 0", nil, "b\n"},
		{"bind; ready; log b; stop", "exit status 0", nil, "YOI-READY\talpha\tDIR/sock\nb\n"},
	} {
		t.Run(tc.program, func(t *testing.T) {
			t.Parallel()
			root := tempDir(t)
			dir := filepath.Join(root, "alpha")
			require.NoError(t, os.Mkdir(dir, 0o700))
			// Its own descriptor still reads what was removed.
			log, err := os.OpenFile(filepath.Join(dir, "stderr.log"), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
			require.NoError(t, err)
			defer log.Close()
			name, args := fakepod.Command(tc.program)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, name, append(args, "--workspace", root, "--pod", "alpha")...)
			cmd.Env = []string{"YOI_RUNTIME_DIR=" + root}
			cmd.Stderr = log
			_ = cmd.Run()
			assert.Equal(t, tc.end, cmd.ProcessState.String())
			text, err := io.ReadAll(io.NewSectionReader(log, 0, 1<<20))
			require.NoError(t, err)
			assert.Equal(t, strings.ReplaceAll(tc.log, "DIR", dir), string(text))
			var left []string
			entries, err := os.ReadDir(dir)
			if tc.left == nil {
				assert.ErrorIs(t, err, os.ErrNotExist)
			}
			for _, entry := range entries {
				left = append(left, entry.Name())
			}
			assert.Equal(t, tc.left, left)
		})
	}
}

func TestTerminationOfAStep(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"log x; hang", "log x; sleep 1h", "log x; flood 1GiB 0", "bind; log x; serve"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			r := launch(t, program)
			r.line()
			r.signal(syscall.SIGTERM)
			assert.Equal(t, "signal: terminated", r.wait())
			assert.FileExists(t, filepath.Join(r.dir, "pid"), "it left everything")
		})
	}
}

func TestInterruptOfAChildLeavesThePodAlone(t *testing.T) {
	t.Parallel()
	r := launch(t, `bind; child 'log "{pid}"; hang'; log over; serve`)
	var pid int
	for pid == 0 { // the two write at once
		if line := r.line(); line != "over\n" {
			_, err := fmt.Sscan(line, &pid)
			require.NoError(t, err)
		}
	}
	require.NoError(t, syscall.Kill(pid, syscall.SIGINT))
	r.client()
	assert.FileExists(t, filepath.Join(r.dir, "sock"))
}

// TestStderrEndsWithTheChild: the pod's stderr ends with the last process that
// holds it.
func TestStderrEndsWithTheChild(t *testing.T) {
	t.Parallel()
	r := launch(t, `child 'log "{pid}"; hang'; exit 5`)
	pid := r.pid()
	assert.Equal(t, "exit status 5", r.wait())
	require.NoError(t, syscall.Kill(pid, 0), "it outlives the pod")
	require.NoError(t, syscall.Kill(pid, syscall.SIGINT))
	assert.Empty(t, r.rest())
	assert.FileExists(t, filepath.Join(r.dir, "pid"), "a child removes nothing")
}

func TestChildIgnoresFromTheBeginning(t *testing.T) {
	t.Parallel()
	r := launch(t, "child 'ignore TERM; log child; hang'; log pod; hang")
	first := r.line()
	if first == "child\n" { // the two write at once
		assert.Equal(t, "pod\n", r.line())
	}
	r.signal(syscall.SIGTERM)
	assert.Equal(t, "signal: terminated", r.wait())
	if first == "pod\n" {
		assert.Equal(t, "child\n", r.line(), "it was not killed before it ignored the signal")
	}
	require.NoError(t, syscall.Kill(-r.cmd.Process.Pid, 0), "it has survived")
}

func TestChildThatOnlyIgnores(t *testing.T) {
	t.Parallel()
	r := launch(t, "child 'ignore INT TERM'; log over; exit 5")
	assert.Equal(t, "over\n", r.rest())
	assert.Equal(t, "exit status 5", r.wait())
}

func TestDaemonIsThePod(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	r := launchIn(t, root, `log before; daemonize; log "{pid}"; bind; ready; serve`, "--profile", "p", "--ticket-role", "r")
	assert.Equal(t, "before\n", r.line())
	pid := r.pid()
	assert.NotEqual(t, r.cmd.Process.Pid, pid)
	assert.Equal(t, r.ready(), r.line())
	assert.Equal(t, "exit status 0", r.wait())
	c := r.client()
	status := c.ask(`{"method":"status"}`)
	assert.Contains(t, status, fmt.Sprintf(`"pid":%d,"workspace":%q,`, pid, root))
	assert.Contains(t, status, `"profile":"p","ticket_role":"r"}`)
	require.NoError(t, syscall.Kill(pid, syscall.SIGINT))
	assert.Empty(t, r.rest())
	assert.NoDirExists(t, r.dir, "it stopped gracefully")
}

func TestErrorsOfTheSocket(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("d", 120)
	for program, want := range map[string]string{
		"fill":                          "fakepod: fill: connection 1: no such file or directory\n",
		"socket; fill":                  "fakepod: fill: connection 1: connection refused\n",
		"socket; socket":                "fakepod: socket: there is a socket already\n",
		"unlink dir; bind":              "fakepod: bind: bind DIR/sock: no such file or directory\n",
		"log " + long + "; unlink log":  long + "\nfakepod: unlink: remove DIR/stderr.log: no such file or directory\n",
		"bind; daemonize; listen; exit": "fakepod: bad program: ",
		"bind; daemonize; listen":       "fakepod: listen: there is no socket yet: the step bind, or socket, comes before\n",
	} {
		r := launch(t, program)
		assert.Contains(t, r.rest(), strings.ReplaceAll(want, "DIR", r.dir), program)
	}
}

func TestSocketElsewhere(t *testing.T) {
	t.Parallel()
	for program, path := range map[string]string{
		`bind "{dir}/a\tb "; log bound; serve`:                 "a\tb ",
		`bind "{socket}\r"; log bound; serve`:                  "sock\r",
		"cd '{dir}'; bind s; log bound; serve":                 "s",
		"cd '{dir}'; socket s; cd /; listen; log bound; serve": "s",
	} {
		r := launch(t, program)
		assert.Equal(t, "bound\n", r.line(), program)
		conn, err := net.Dial("unix", filepath.Join(r.dir, path))
		require.NoError(t, err, program)
		conn.Close()
		r.signal(syscall.SIGINT)
		assert.Equal(t, "exit status 0", r.wait(), program)
		assert.NoDirExists(t, r.dir)
	}
	r := launch(t, "cd '{dir}/pid'")
	assert.Equal(t, "fakepod: cd: chdir "+r.dir+"/pid: not a directory\n", r.rest())
	r = launch(t, "bind '{dir}/s'; listen 0; fill; log full; hang")
	assert.Equal(t, "full\n", r.line())
}

func TestStatesOfTheSocket(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]error{
		"log x; hang":                               syscall.ENOENT,
		"dead-socket":                               syscall.ECONNREFUSED,
		"bind; unlink sock; log x; hang":            syscall.ENOENT,
		"bind; unlink dir; log x; hang":             syscall.ENOENT,
		"bind; log x; hang":                         nil,
		"bind; listen 0; fill; listen; log x; hang": nil,
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			r := launch(t, program)
			r.line()
			conn, err := net.Dial("unix", filepath.Join(r.dir, "sock"))
			if err == nil {
				conn.Close()
			}
			if want == nil {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, want)
			}
		})
	}
}

func TestLongSocketPathIsServed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there is no way around a socket address's size")
	}
	root := tempDir(t)
	for _, length := range []int{107, 108, 200} { // 107 bytes is the longest that fits
		long := filepath.Join(root, strings.Repeat("d", length-len(root)-len("//alpha/sock")))
		r := launchIn(t, long, "ready")
		assert.Len(t, filepath.Join(r.dir, "sock"), length)
		assert.Equal(t, r.ready(), r.line())
		dir, err := os.Open(r.dir)
		require.NoError(t, err)
		defer dir.Close()
		conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/sock", dir.Fd()))
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		hello := make([]byte, len(`{"event":"snapshot"`))
		_, err = io.ReadFull(conn, hello)
		require.NoError(t, err)
		assert.Equal(t, `{"event":"snapshot"`, string(hello))
	}
}

func TestSleepIsNoShorter(t *testing.T) {
	t.Parallel()
	r := launch(t, "clock; sleep 60ms; clock; exit 0")
	var from, to int64
	_, err := fmt.Sscanf(r.line()+r.line(), "monotonic %d\nmonotonic %d\n", &from, &to)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, to-from, int64(60*time.Millisecond))
}

func TestFirstWordPod(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"YOI_RUNTIME_DIR=" + dir, fakepod.ProgramEnv + "=log environment; exit 8"}
	for _, tc := range []struct {
		args, stderr string
		status       int
	}{
		{"pod --workspace /w --pod pod", "environment\n", 8},
		{"--workspace /w --pod pod", "environment\n", 8},
		{"pod -program early-exit --workspace /w --pod pod", "cannot open session store\n", 7},
	} {
		_, stderr, status := run(t, env, strings.Fields(tc.args)...)
		assert.Equal(t, tc.stderr, stderr, tc.args)
		assert.Equal(t, tc.status, status, tc.args)
	}
	_, stderr, status := run(t, []string{"YOI_RUNTIME_DIR=" + dir, fakepod.ProgramEnv + "=redy"}, "--workspace", "/w", "--pod", "x")
	assert.True(t, strings.HasPrefix(stderr, "fakepod: bad program: column 1: "), stderr)
	assert.Equal(t, 2, status)
	assert.NoDirExists(t, filepath.Join(dir, "x"))
}

func TestHelp(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"-h", "-help", "--help"} {
		stdout, stderr, status := run(t, []string{}, flag)
		assert.Zero(t, status)
		assert.Empty(t, stderr)
		assert.Contains(t, stdout, "$FAKEPOD_PROGRAM")
		assert.Regexp(t, `(?m)^ready \[NAME \[PATH\]\]  +write the ready line$`, stdout)
		assert.Regexp(t, `(?m)^shutdown  +\{"event":"shutdown"\}, then a graceful stop$`, stdout)
		assert.Contains(t, stdout, "\n       fakepod -help | -list | -version\n")
		assert.Regexp(t, `(?m)^2  a wrong argument, or a bad program: nothing was touched$`, stdout)
		assert.True(t, strings.HasPrefix(stdout, "usage: fakepod [pod] [-trace FILE] [-program PROGRAM|MODE] --workspace W --pod NAME "), stdout)
	}
}
