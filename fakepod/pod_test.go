package fakepod_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestWhatIsWritten(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ program, stderr, end string }{
		{"log 'a b'; log ''; raw c; exit 0", "a b\n\nc", "exit status 0"},
		{`log "{name} {{name} {dir}"; exit 3`, "alpha {name} DIR\n", "exit status 3"},
		{"ready; ready other; ready '{name}' /x; exit 0", "YOI-READY\talpha\tDIR/sock\nYOI-READY\tother\tDIR/sock\nYOI-READY\talpha\t/x\n", "exit status 0"},
		{"log over", "over\n", "exit status 0"},
		{"out lost; exit 0", "", "exit status 0"},
		{"malformed-no-fields;", "fakepod: bad program: column 1: unknown verb \"malformed-no-fields\"", "exit status 2"},
		{"torn-ready", "YOI-READY\talpha\tDIR/sock\n", ""},
		{"crlf", "loading\r\nYOI-READY\talpha\tDIR/sock\r\n", ""},
		{"wrong-name", "YOI-READY\talpha-other\tDIR/sock\n", ""},
		{"invalid-utf8-exit", "caf\xe9 is closed\n", "exit status 7"},
		{"early-exit-signal", "about to crash\n", "signal: killed"},
		{"kill TERM", "", "signal: terminated"},
		{"ignore TERM; kill TERM; kill CHLD; log alive; exit 0", "alive\n", "exit status 0"},
		{"serve", "fakepod: serve: there is no socket yet: the step bind, or socket, comes before\n", "exit status 1"},
		{"listen", "fakepod: listen: there is no socket yet: the step bind, or socket, comes before\n", "exit status 1"},
		{"bind; bind", "fakepod: bind: there is a socket already\n", "exit status 1"},
		{"unlink sock", "fakepod: unlink: remove DIR/sock: no such file or directory\n", "exit status 1"},
		{"stop", "", "exit status 0"},
		{"kill INT", "", "exit status 0"},
	} {
		t.Run(tc.program, func(t *testing.T) {
			t.Parallel()
			r := launch(t, tc.program)
			want := strings.ReplaceAll(tc.stderr, "DIR", r.dir)
			if tc.end == "" {
				assert.Equal(t, want, func() (text string) {
					for len(text) < len(want) {
						text += r.line()
					}
					return text
				}())
				return
			}
			got := r.rest()
			assert.True(t, got == want || strings.HasPrefix(got, want) && strings.HasPrefix(want, "fakepod: bad program"), "%q", got)
			assert.Equal(t, tc.end, r.wait())
		})
	}
}

func TestFloodIsAsLongAsItSays(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args        string
		size, lines int
	}{
		{"1000", 1000, 13}, // 12 lines of 80 bytes, and a short one
		{"80", 80, 1},
		{"0", 0, 0},
		{"3MiB 1024", 3 << 20, 3 << 10},
		{"100KiB 0", 100 << 10, 0},
		{"2MiB 1", 2 << 20, 2 << 20},
	} {
		r := launch(t, "flood "+tc.args+"; exit 0")
		got := r.rest()
		assert.Len(t, got, tc.size, tc.args)
		assert.Equal(t, tc.lines, strings.Count(got, "\n"), tc.args)
	}
}

func TestPodDirectory(t *testing.T) {
	t.Parallel()
	r := launch(t, "log starting; flood 1MiB; bind; ready; serve")
	assert.Equal(t, "starting\n", r.line())
	status := func() (s struct {
		Name, State string
		PID         int
	}) {
		text, err := os.ReadFile(filepath.Join(r.dir, "status.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &s))
		return s
	}
	assert.Equal(t, "starting", status().State)
	// Its pipe is full until somebody reads.
	line := r.line()
	for strings.HasPrefix(line, ".") {
		line = r.line()
	}
	assert.Equal(t, r.ready(), line)
	assert.Equal(t, "ready", status().State)
	assert.Equal(t, "alpha", status().Name)
	assert.Equal(t, r.cmd.Process.Pid, status().PID)
	pid, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf("%d\n", r.cmd.Process.Pid), string(pid))
	left, err := filepath.Glob(filepath.Join(r.dir, "*.tmp"))
	require.NoError(t, err)
	assert.Empty(t, left, "they are written atomically")
	info, err := os.Stat(r.dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())

	r.signal(syscall.SIGTERM)
	assert.Equal(t, "signal: terminated", r.wait())
	assert.FileExists(t, filepath.Join(r.dir, "sock"), "it left everything")

	again := launchIn(t, filepath.Dir(r.dir), "ready")
	assert.Equal(t, again.ready(), again.line())
	again.client() // the stale socket was replaced
}

func TestInterruptIsAGracefulStopAtAnyStep(t *testing.T) {
	t.Parallel()
	for _, program := range []string{
		"log x; hang",
		"log x; sleep 1h",
		"bind; log x; serve",
		"socket; ready; hang",
		"log x; flood 1GiB; flood 1GiB; flood 1GiB", // nobody reads: it blocks
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			r := launch(t, program)
			r.line()
			r.signal(syscall.SIGINT)
			assert.Equal(t, "exit status 0", r.wait())
			assert.NoDirExists(t, r.dir)
		})
	}
}

func TestStubborn(t *testing.T) {
	t.Parallel()
	r := launch(t, "stubborn")
	r.line()
	r.signal(syscall.SIGINT)
	r.signal(syscall.SIGTERM)
	r.client()
	r.signal(syscall.SIGKILL)
	assert.Equal(t, "signal: killed", r.wait())
}

func TestChildren(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"child", "escape", "daemonize"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			program := verb + ` 'log "{pid}"; hang'; log over; hang`
			if verb == "daemonize" {
				program = `daemonize; log "{pid}"; hang`
			}
			r := launch(t, program)
			line := r.line()
			if line == "over\n" { // the two write at once
				line = r.line()
			}
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			require.NoError(t, err)
			own, err := unix.Getsid(0)
			require.NoError(t, err)
			session, err := unix.Getsid(pid)
			require.NoError(t, err)
			group, err := unix.Getpgid(pid)
			require.NoError(t, err)
			switch verb {
			case "child":
				assert.Equal(t, own, session)
				assert.Equal(t, r.cmd.Process.Pid, group)
			case "escape":
				assert.Equal(t, pid, session)
				assert.Equal(t, pid, group)
			case "daemonize":
				assert.NotEqual(t, own, session)
				assert.NotEqual(t, r.cmd.Process.Pid, group)
				assert.NotEqual(t, pid, session, "forked twice: it does not lead its session")
				assert.Equal(t, "exit status 0", r.wait())
				kept, err := os.ReadFile(filepath.Join(r.dir, "pid"))
				require.NoError(t, err)
				assert.Equal(t, fmt.Sprintln(pid), string(kept), "it is the pod now")
			}
		})
	}
}

func TestDeafPodHasAFullBacklog(t *testing.T) {
	t.Parallel()
	r := launch(t, "deaf")
	r.line()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.SetNonblock(fd, true))
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(r.dir, "sock")})
	assert.True(t, errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ECONNREFUSED), "%v", err)
}

func TestLongSocketPath(t *testing.T) {
	t.Parallel()
	r := launchIn(t, filepath.Join(tempDir(t), strings.Repeat("d", 200)), "ready")
	line := r.line()
	if strings.Contains(line, "a socket address takes") {
		t.Skip(line)
	}
	assert.Equal(t, r.ready(), line)
}

func TestSocket(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	ask := r.client().ask
	assert.Equal(t, `{"event":"pong","data":{"a":1}}`, ask(`{"method":"ping","params":{"a":1}}`))
	assert.Equal(t, `{"event":"pong"}`, ask(`{"method":"ping"}`))
	assert.Equal(t, `{"event":"echo","data":"x"}`, ask(`{"method":"echo","params":"x"}`))
	assert.Regexp(t, `^\{"event":"status","data":\{"name":"alpha","pid":\d+,.*"state":"ready"`, ask(`{"method":"status"}`))
	assert.Regexp(t, `^\{"event":"env","data":\{"YOI_RUNTIME_DIR":"[^"]+"\}\}$`, ask(`{"method":"env"}`))
	assert.Equal(t, `{"event":"done"}`, ask(`{"method":"run","params":{"program":"log hi"}}`))
	assert.Equal(t, "hi\n", r.line())
	assert.Contains(t, ask(`{"method":"run","params":{"program":"lgo hi"}}`), `unknown verb \"lgo\"`)
	assert.Contains(t, ask(`{"method":"run","params":3}`), `params want`)
	assert.Contains(t, ask(`{"method":"nonsense"}`), `unknown method \"nonsense\", want one of ping, echo, status, env, fds, run, shutdown`)
	assert.Contains(t, ask(`not JSON`), `"event":"error"`)
	assert.Equal(t, `{"event":"pong"}`, ask(`{"method":"ping"}`), "the connection goes on")
	assert.Equal(t, `{"event":"shutdown"}`, ask(`{"method":"shutdown"}`))
	assert.Equal(t, "exit status 0", r.wait())
	assert.NoDirExists(t, r.dir)
}

func TestClock(t *testing.T) {
	t.Parallel()
	now := func() int64 {
		var ts unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
		return ts.Nano()
	}
	before := now()
	var told int64
	_, err := fmt.Sscanf(launch(t, "clock; hang").line(), "monotonic %d\n", &told)
	require.NoError(t, err)
	assert.Less(t, before, told)
	assert.Less(t, told, now())
}

func TestWrongArguments(t *testing.T) {
	t.Parallel()
	const id = "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11"
	for args, want := range map[string]string{
		"":                                     "--workspace is missing",
		"--workspace /w":                       "--pod is missing",
		"--pod a":                              "--workspace is missing",
		"--workspace /w --pod":                 "--pod needs a value",
		"--workspace /w --pod a --nonsense x":  `unknown flag "--nonsense"`,
		"--workspace /w --pod=a":               `unknown flag "--pod=a"`,
		"--workspace /w --pod a b":             `unexpected argument "b"`,
		"pod pod --workspace /w --pod a":       `unexpected argument "pod"`,
		"--workspace /w --pod a --pod b":       "--pod is given twice",
		"--workspace /w --pod a/b":             `--pod "a/b" is not one path element`,
		"--workspace /w --pod ..":              `--pod ".." is not one path element`,
		"--workspace /w --pod a --session x":   `--session "x" is not a UUID`,
		"--workspace /w --pod a --profile":     "--profile needs a value",
		"-program":                             "-program needs a value",
		"-program redy --workspace /w --pod a": `bad program: column 1: unknown verb "redy"`,
		"-list --pod a":                        `unknown flag "-list"`,
		"--workspace /w --pod a --profile p --session " + id: "--profile cannot be used with --session",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			_, stderr, status := run(t, []string{"YOI_RUNTIME_DIR=" + dir}, strings.Fields(args)...)
			assert.Equal(t, 2, status)
			assert.True(t, strings.HasPrefix(stderr, "fakepod: "+want), stderr)
			assert.Contains(t, stderr, "\nusage: fakepod [pod] ")
			left, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Empty(t, left, "nothing was touched")
		})
	}
}

func TestGoodArguments(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"-program P --pod a --workspace /w",
		"pod -program P --workspace /w --pod a --profile p --ticket-role r",
		"-program P --workspace /w --session 00000000-0000-0000-0000-000000000000 --pod a",
	} {
		words := strings.Fields(args)
		for i := range words {
			if words[i] == "P" {
				words[i] = "log '{dir}'; exit 5"
			}
		}
		dir := t.TempDir()
		_, stderr, status := run(t, []string{"YOI_RUNTIME_DIR=" + dir}, words...)
		assert.Equal(t, dir+"/a\n", stderr)
		assert.Equal(t, 5, status)
	}
}

func TestProgramFromTheEnvironment(t *testing.T) {
	t.Parallel()
	_, stderr, status := run(t, []string{"HOME=" + t.TempDir(), fakepod.ProgramEnv + "=early-exit"}, "pod", "--workspace", "/w", "--pod", "a")
	assert.Equal(t, "cannot open session store\n", stderr)
	assert.Equal(t, 7, status)
}

func TestRuntimeDirectory(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, tc := range []struct {
		env  []string
		want string
	}{
		{[]string{"YOI_RUNTIME_DIR=R/1", "YOI_HOME=R/2", "XDG_RUNTIME_DIR=R/3", "HOME=R/4"}, "/1/a\n"},
		{[]string{"YOI_RUNTIME_DIR=", "YOI_HOME=R/2", "XDG_RUNTIME_DIR=R/3", "HOME=R/4"}, "/2/run/a\n"},
		{[]string{"XDG_RUNTIME_DIR=R/3", "HOME=R/4"}, "/3/yoi/a\n"},
		{[]string{"HOME=R/4"}, "/4/.yoi/run/a\n"},
	} {
		for i := range tc.env {
			tc.env[i] = strings.ReplaceAll(tc.env[i], "=R", "="+root)
		}
		_, stderr, _ := run(t, tc.env, "-program", "log '{dir}'", "--workspace", "/w", "--pod", "a")
		assert.Equal(t, root+tc.want, stderr)
	}
	wd, err := os.Getwd()
	require.NoError(t, err)
	up := strings.Repeat("../", strings.Count(wd, "/")) + root[1:]
	_, stderr, _ := run(t, []string{"YOI_RUNTIME_DIR=" + up}, "-program", "log '{dir}'", "--workspace", "/w", "--pod", "a")
	assert.Equal(t, wd+"/"+up+"/a\n", stderr, "a relative one is made absolute")
	assert.DirExists(t, root+"/a")
	_, stderr, status := run(t, []string{}, "--workspace", "/w", "--pod", "a")
	assert.Equal(t, 1, status)
	assert.Equal(t, "fakepod: no runtime directory: set YOI_RUNTIME_DIR, YOI_HOME, XDG_RUNTIME_DIR or HOME\n", stderr)
}

func ExampleModes() {
	for _, m := range fakepod.Modes()[:2] {
		fmt.Printf("%s: %s\n", m.Name, m.Program)
	}
	// Output:
	// ready: bind; ready; serve
	// delayed-ready: log loading; sleep 500ms; bind; ready; serve
}

func ExampleCommand() {
	name, args := fakepod.Command("log 'no disk'; exit 7")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, append(args, "--workspace", ".", "--pod", "alpha")...)
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	cmd.Env = []string{"YOI_RUNTIME_DIR=" + dir}
	out, err := cmd.CombinedOutput()
	fmt.Printf("%s%v\n", out, err)
	// Output:
	// no disk
	// exit status 7
}
