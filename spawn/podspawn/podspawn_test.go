package podspawn_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podspawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asPodspawn is the environment variable that makes this binary podspawn.
const asPodspawn = "TEST_AS_PODSPAWN"

func TestMain(m *testing.M) {
	if os.Getenv(asPodspawn) != "" {
		os.Exit(podspawn.Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	if as := os.Getenv(asServer); as != "" {
		serve(as, os.Args[1])
	}
	os.Exit(m.Run())
}

// runFake runs podspawn with the fake pod.
func runFake(t *testing.T, program string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = podspawn.Main(append(fake(program), args...), &out, &errs)
	return out.String(), errs.String(), status
}

// fake returns the flags for a fake pod.
func fake(program string) []string {
	name, prefix := fakepod.Command(program)
	args := []string{"-pod", name}
	for _, arg := range prefix {
		args = append(args, "-pod-arg", arg)
	}
	return args
}

func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "podspawn")
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, pid := range pids(dir) {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(dir)
	})
	t.Setenv("YOI_RUNTIME_DIR", dir)
	return dir
}

// pids returns the processes of the pods in a runtime directory.
func pids(dir string) (all []int) {
	files, _ := filepath.Glob(dir + "/*/pid")
	for _, file := range files {
		if info, err := os.Lstat(file); err != nil || !info.Mode().IsRegular() {
			continue
		}
		text, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

func TestReadyPodIsReportedAndLivesOn(t *testing.T) {
	dir := runtimeDir(t)
	stdout, stderr, status := runFake(t, `log "loading \x1b[2J"; bind; ready; serve`, "-json", "-profile", "p", "alpha")
	require.Zero(t, status, stderr)
	var pod struct {
		Name, Socket, Log string
		PID               int
		ReadyMS           float64 `json:"ready_ms"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &pod))
	assert.Equal(t, []int{pod.PID}, pids(dir))
	assert.Equal(t, "alpha", pod.Name)
	assert.Equal(t, dir+"/alpha/sock", pod.Socket)
	assert.Equal(t, dir+"/alpha/stderr.log", pod.Log)
	assert.Positive(t, pod.ReadyMS)
	assert.NoError(t, syscall.Kill(pod.PID, 0))
	assert.Equal(t, "alpha: loading \\x1b[2J\n", stderr)
}

// snapshot returns what the pod tells of itself.
func snapshot(t *testing.T, socket string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	return line
}

func TestEveryFlagReachesThePod(t *testing.T) {
	runtimeDir(t)
	here, err := os.Getwd()
	require.NoError(t, err)
	workspace, dir := t.TempDir(), t.TempDir()
	session := "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11"
	for _, tc := range []struct{ args, want []string }{
		{nil, []string{`"workspace":"` + here + `","dir":"` + here + `"`}},
		{[]string{"-workspace", workspace}, []string{`"workspace":"` + workspace + `","dir":"` + workspace + `"`}},
		{[]string{"-workspace", workspace, "-dir", dir}, []string{`"workspace":"` + workspace + `","dir":"` + dir + `"`}},
		{[]string{"-profile", "p", "-ticket-role", "r"}, []string{`"profile":"p"`, `"ticket_role":"r"`}},
		{[]string{"-session", session}, []string{`"session":"` + session + `"`}},
	} {
		stdout, stderr, status := runFake(t, "ready", append(tc.args, "-replace", "-json", "alpha")...)
		require.Zero(t, status, stderr)
		var pod struct {
			Socket string
			PID    int
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &pod))
		t.Cleanup(func() { _ = syscall.Kill(-pod.PID, syscall.SIGKILL) }) // the next one takes its directory over
		told := snapshot(t, pod.Socket)
		for _, want := range tc.want {
			assert.Contains(t, told, want)
		}
	}
}

func TestTimeout(t *testing.T) {
	runtimeDir(t)
	start := time.Now()
	_, stderr, status := runFake(t, "hang", "-timeout", "50ms", "alpha")
	assert.Equal(t, 8, status)
	assert.Contains(t, stderr, "podspawn: pod did not become ready within 50ms")
	assert.Less(t, time.Since(start), 10*time.Second)
}

// help returns what -help prints.
func help(t *testing.T) string {
	t.Helper()
	var out, errs bytes.Buffer
	require.Zero(t, podspawn.Main([]string{"-help"}, &out, &errs))
	require.Empty(t, errs.String())
	return out.String()
}

func TestEveryVerdictHasItsStatus(t *testing.T) {
	runtimeDir(t)
	require.Zero(t, podspawn.Main(append(fake("ready"), "runs"), io.Discard, io.Discard))
	told := help(t)
	for _, tc := range []struct {
		program string
		args    []string
		status  int
		verdict string
	}{
		{"ready", []string{"alpha"}, 0, "ready"},
		{"ready", []string{"-record", "/nowhere/x", "alpha2"}, 1, "failed"},
		{"ready", []string{"runs"}, 10, "already runs"},
		{"ready", []string{"a/b"}, 2, "invalid config"},
		{"ready", []string{"-pod", "/nowhere/agent", "alpha"}, 4, "launch failed"},
		{"early-exit", []string{"beta"}, 5, "exited early"},
		{"malformed-no-socket", []string{"beta"}, 6, "malformed ready line"},
		{"wrong-name", []string{"beta"}, 7, "wrong name"},
		{"hang", []string{"-timeout", "50ms", "beta"}, 8, "timed out"},
		{"ready '{name}' /dev/null/sock; hang", []string{"beta"}, 9, "socket error"},
	} {
		stdout, stderr, status := runFake(t, tc.program, append([]string{"-json"}, tc.args...)...)
		assert.Equal(t, tc.status, status, tc.verdict)
		var got struct{ Verdict, Error string }
		require.NoError(t, json.Unmarshal([]byte(stdout), &got), stdout)
		assert.Equal(t, tc.verdict, got.Verdict)
		assert.Equal(t, tc.status == 0, got.Error == "", got.Error)
		assert.Contains(t, stderr, got.Error)
		assert.Regexp(t, fmt.Sprintf(`(?m)^ +%d  %s( |$)`, tc.status, tc.verdict), told)
	}
	for _, name := range []string{"YOI_RUNTIME_DIR", "YOI_HOME", "XDG_RUNTIME_DIR", "HOME"} {
		t.Setenv(name, "")
	}
	stdout, _, status := runFake(t, "ready", "-json", "alpha")
	assert.Equal(t, 3, status)
	assert.Contains(t, stdout, `"verdict":"runtime directory unavailable"`)
	_, _, status = runFake(t, "ready", "alpha")
	assert.Equal(t, 3, status)
	assert.Equal(t, 3, podspawn.Main([]string{"-list"}, io.Discard, io.Discard))
}

// TestVerdictsAreThoseOfTheContract compares the help with HANDSHAKE.md.
func TestVerdictsAreThoseOfTheContract(t *testing.T) {
	text, err := os.ReadFile("../../HANDSHAKE.md")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	_, section, _ := strings.Cut(string(text), "\n## 4. ")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := regexp.MustCompile(`(?m)^\| ([a-z][a-z ]*) \|`).FindAllStringSubmatch(section, -1)
	require.Len(t, rows, 12)
	for _, row := range rows[1:] {
		assert.Regexp(t, `(?m)^ +\d+  `+row[1]+`( |$)`, help(t))
	}
}

func TestFailureAsJSON(t *testing.T) {
	dir := runtimeDir(t)
	stdout, stderr, status := runFake(t, `log "one \x1b"; ready; log two; raw three; exit 7`, "-json", "alpha")
	assert.Equal(t, 5, status)
	assert.Equal(t, 1, strings.Count(stdout, "\n"))
	var all map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &all), stdout)
	keys := regexp.MustCompile(`[a-z_]+`).FindAllString(help(t), -1)
	for _, fields := range []map[string]any{all, all["timeline"].(map[string]any)} {
		for key := range fields {
			assert.Contains(t, keys, key, "what is not in the help")
		}
	}
	for _, key := range []string{"start", "launched_ms", "first_line_ms", "ready_line_ms", "ended_ms"} {
		assert.Contains(t, all["timeline"], key)
	}
	assert.NotContains(t, all["timeline"], "connected_ms")
	assert.NotContains(t, all, "ready_ms")
	assert.Positive(t, all["pid"])
	assert.Contains(t, stderr, all["error"])
	for key, want := range map[string]any{
		"name": "alpha", "verdict": "exited early", "status": "exit status 7", "tail": []any{"one \x1b", "two"}, "unfinished": "three",
		"socket": dir + "/alpha/sock", "log": dir + "/alpha/stderr.log",
	} {
		assert.Equal(t, want, all[key], key)
	}
}

// Package scripts runs recordings in its tests.
func TestRecording(t *testing.T) {
	runtimeDir(t)
	path := filepath.Join(t.TempDir(), "alpha.txtar")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("an older one\n", 100)), 0o600))
	_, _, status := runFake(t, `raw "it's {{over}\n"; exit 7`, "-timeout", "9s", "-record", path, "alpha")
	assert.Equal(t, 5, status)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Regexp(t, `^# What pod alpha did on .*\n! podstart -timeout 9s -fake '(sleep \S+; )?raw "it''s \{\{over\}\\n"; (sleep \S+; )?exit 7' 'alpha'\n`+
		`stderr '\^pod exited before becoming ready \\\(exit status 7\\\): it''s \\\{over\\\}'\n$`, string(text))

	_, stderr, status := runFake(t, "ready", "-record", "/nowhere/x", "alpha")
	assert.Equal(t, 1, status)
	assert.Equal(t, "podspawn: -record: open /nowhere/x: no such file or directory\n", stderr)

	var out, errs bytes.Buffer
	path = filepath.Join(t.TempDir(), "none.txtar")
	assert.Equal(t, 4, podspawn.Main([]string{"-pod", "/no/such/pod", "-record", path, "alpha"}, &out, &errs))
	assert.Contains(t, errs.String(), path+": nothing can be recorded: no process of the pod began\n")
	assert.NoFileExists(t, path)
}

func TestRunningPodIsNotReplacedUnasked(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	_, _, status := runFake(t, "log first; bind; ready; serve", "alpha")
	require.Zero(t, status)
	first := pids(dir)
	stdout, stderr, status := runFake(t, "log second; bind; ready; serve", "-json", "alpha")
	assert.Equal(t, 10, status)
	var told map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &told))
	delete(told, "timeline")
	assert.Equal(t, map[string]any{
		"name": "alpha", "verdict": "already runs", "pid": float64(first[0]), "socket": dir + "/alpha/sock",
		"error": strings.TrimPrefix(strings.TrimSuffix(stderr, "\n"), "podspawn: "),
	}, told)
	assert.Equal(t, fmt.Sprintf("podspawn: pod already runs: process %d listens on its socket %s/alpha/sock\n\tpod: alpha (process %[1]d)\n"+
		"\tto stop it: podspawn -stop alpha; -replace starts another one all the same\n", first[0], dir), stderr)
	log, err := os.ReadFile(dir + "/alpha/stderr.log")
	require.NoError(t, err)
	assert.Contains(t, string(log), "first", "nothing was touched")

	_, stderr, status = runFake(t, "log second; bind; ready; serve", "-replace", "alpha")
	assert.Zero(t, status, stderr)
	assert.NotEqual(t, first, pids(dir))
	assert.NoError(t, syscall.Kill(-first[0], syscall.SIGKILL), "the first one lives on")
}

func TestOfStartsAtOnceOneIsReady(t *testing.T) {
	dir := runtimeDir(t)
	var all sync.WaitGroup
	statuses, told := make([]int, 4), make([]string, 4)
	for i := range statuses {
		all.Add(1)
		go func() {
			defer all.Done()
			_, told[i], statuses[i] = runFake(t, "sleep 300ms; bind; ready; serve", "alpha")
		}()
	}
	all.Wait()
	slices.Sort(statuses)
	assert.Equal(t, []int{0, 10, 10, 10}, statuses, "%q", told)
	assert.Contains(t, strings.Join(told, ""), "podspawn: pod already runs: another start of it is under way, and holds the lock on "+dir+"/alpha")
	var pods []int
	for _, file := range list(t, "/proc/[0-9]*/cmdline") {
		line, _ := os.ReadFile(file)
		env, _ := os.ReadFile(filepath.Dir(file) + "/environ")
		if bytes.Contains(line, []byte("\x00--pod\x00alpha")) && bytes.Contains(env, []byte("YOI_RUNTIME_DIR="+dir+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			require.NoError(t, err)
			pods = append(pods, pid)
		}
	}
	if len(list(t, "/proc/[0-9]*")) > 0 {
		assert.Equal(t, pids(dir), pods, "there are no others")
	}
}

func list(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	return paths
}

// begun starts podspawn as a process of its own, and waits until its pod logs a
// line that is followed by others when there is a file go in its directory.
func begun(t *testing.T, wrap ...string) (cmd *exec.Cmd, pod int, stderr *bufio.Scanner, pipe io.Closer) {
	t.Helper()
	dir := runtimeDir(t)
	script := `echo $$ >&2; until [ -e "$YOI_RUNTIME_DIR/go" ]; do :; done; while :; do echo more >&2; done`
	args := append(wrap, os.Args[0], "-timeout", "1h", "-pod", "/bin/sh", "-pod-arg", "-c", "-pod-arg", script, "-pod-arg", "sh", "alpha")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), asPodspawn+"=1", "YOI_RUNTIME_DIR="+dir)
	r, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stderr = bufio.NewScanner(r)
	require.True(t, stderr.Scan())
	_, err = fmt.Sscanf(stderr.Text(), "alpha: %d", &pod)
	require.NoError(t, err, stderr.Text())
	t.Cleanup(func() { _ = syscall.Kill(-pod, syscall.SIGKILL) })
	return cmd, pod, stderr, r
}

func TestInterruptEndsTheStart(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if signal.Ignored(sig) {
			t.Logf("%v is ignored here, as under nohup, and so it is by podspawn", sig)
			continue
		}
		cmd, pod, stderr, _ := begun(t)
		require.NoError(t, cmd.Process.Signal(sig))
		require.True(t, stderr.Scan(), "%v", sig)
		assert.Contains(t, stderr.Text(), "podspawn: start of the pod was cancelled")
		for stderr.Scan() {
		}
		assert.EqualError(t, cmd.Wait(), "exit status 130")
		assert.Equal(t, syscall.ESRCH, syscall.Kill(pod, 0), "the pod of a start that %v ended", sig)
	}
}

func TestProgressThatNobodyReadsEndsTheStart(t *testing.T) {
	cmd, pod, _, pipe := begun(t)
	require.NoError(t, pipe.Close())
	require.NoError(t, os.WriteFile(os.Getenv("YOI_RUNTIME_DIR")+"/go", nil, 0o600))
	assert.EqualError(t, cmd.Wait(), "exit status 130")
	assert.Equal(t, syscall.ESRCH, syscall.Kill(pod, 0), "the pod is gone")
}

func TestNohupCounts(t *testing.T) {
	cmd, pod, stderr, _ := begun(t, "sh", "-c", `trap '' HUP; exec "$@"`, "sh")
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	require.NoError(t, os.WriteFile(os.Getenv("YOI_RUNTIME_DIR")+"/go", nil, 0o600))
	for range 1000 {
		require.True(t, stderr.Scan())
		require.Equal(t, "alpha: more", stderr.Text())
	}
	assert.NoError(t, syscall.Kill(pod, 0))
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for stderr.Scan() {
	}
	assert.EqualError(t, cmd.Wait(), "exit status 130")
}

// writes counts what it is written.
type writes struct{ n, lines int }

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	w.lines += bytes.Count(p, []byte("\n"))
	return len(p), nil
}

func TestFloodIsNotWrittenLineByLine(t *testing.T) {
	runtimeDir(t)
	var stdout bytes.Buffer
	var stderr writes
	require.Zero(t, podspawn.Main(append(fake("flood 4MiB; bind; ready; serve"), "alpha"), &stdout, &stderr))
	assert.Greater(t, stderr.lines, 10_000)
	assert.Less(t, stderr.n, stderr.lines/10)
}

// full is an output that cannot be written.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestReportThatIsLostIsAFailure(t *testing.T) {
	runtimeDir(t)
	for _, name := range []string{"alpha", "beta"} {
		var errs bytes.Buffer
		flags := map[string][]string{"alpha": nil, "beta": {"-json"}}[name]
		assert.Equal(t, 1, podspawn.Main(slices.Concat(fake("ready"), flags, []string{name}), full{}, &errs))
		assert.Equal(t, "podspawn: pod "+name+" was ready, and was killed, since that could not be reported: no space left on device\n", errs.String())
		stdout, _, _ := run("-list")
		assert.NotContains(t, stdout, "answers")
	}
}

func TestHelp(t *testing.T) {
	told := help(t)
	assert.Contains(t, told, "usage: podspawn [flags] NAME\n")
	for _, flag := range []string{
		"pod PROGRAM", "pod-arg ARG", "workspace DIR", "dir DIR", "profile PROFILE", "ticket-role ROLE", "session UUID", "timeout DURATION", "json", "replace",
		"list", "stop", "grace DURATION", "kill", "follow", "prune", "version",
	} {
		assert.Contains(t, told, "\n  -"+flag)
	}
	assert.Contains(t, told, "(default 20s)")
	assert.NotContains(t, told, "podspawn: ")
	var errs bytes.Buffer
	assert.Equal(t, 1, podspawn.Main([]string{"-help"}, full{}, &errs))
	assert.Equal(t, "podspawn: no space left on device\n", errs.String())
}

func TestVersion(t *testing.T) {
	var out, errs bytes.Buffer
	assert.Zero(t, podspawn.Main([]string{"-version"}, &out, &errs))
	assert.Regexp(t, `^podspawn \S+ of (unknown commit|commit [0-9a-f]{40}( \(modified\))?), go\S+\n$`, out.String())
	assert.Empty(t, errs.String())
}

func TestReportForPeople(t *testing.T) {
	dir := runtimeDir(t)
	stdout, stderr, status := runFake(t, "ready", "alpha")
	require.Zero(t, status, stderr)
	require.Len(t, pids(dir), 1)
	assert.Regexp(t, fmt.Sprintf(`^pod alpha is ready after \S+\nprocess %d\nsocket  /.*/alpha/sock\nlog     /.*/alpha/stderr\.log\n$`, pids(dir)[0]), stdout)
}

func TestFailureIsTold(t *testing.T) {
	runtimeDir(t)
	stdout, stderr, status := runFake(t, "early-exit", "alpha")
	assert.Equal(t, 5, status)
	assert.Empty(t, stdout)
	assert.True(t, strings.HasPrefix(stderr, "alpha: cannot open session store\npodspawn: pod exited before becoming ready (exit status 7): cannot open session store\n"), stderr)
}

func TestWrongUsage(t *testing.T) {
	t.Setenv(spawn.RuntimeCommandEnv, "")
	for want, args := range map[string][]string{
		"podspawn: want one pod name, after the flags, got []":         {"-pod", "x"},
		`podspawn: want one pod name, after the flags, got ["a" "b"]`:  {"-pod", "x", "a", "b"},
		"podspawn: which pod? Give -pod PROGRAM or set YOI":            {"alpha"},
		`invalid value "x" for flag -session`:                          {"-session", "x", "alpha"},
		"podspawn: flag provided but not defined: -x":                  {"-x", "alpha"},
		"podspawn: invalid pod config: PodName":                        {"-pod", "x", "a/b"},
		"(podspawn -help tells the usage)":                             {"-pod", "x"},
		"podspawn: -list does not go with -stop":                       {"-list", "-stop", "alpha"},
		"podspawn: -timeout does not go with -list":                    {"-list", "-timeout", "1s"},
		"podspawn: -json does not go with -follow":                     {"-follow", "-json", "alpha"},
		"podspawn: -pod-arg does not go with -stop":                    {"-pod-arg", "x", "-stop", "alpha"},
		"podspawn: -kill does not go with a start":                     {"-pod", "x", "-kill", "alpha"},
		`podspawn: -list takes no pod name, got ["alpha"]`:             {"-list", "alpha"},
		`podspawn: want one pod name, after the flags, got ["a" "-x"]`: {"-follow", "a", "-x"},
		"podspawn: -grace -1s is negative":                             {"-stop", "-grace", "-1s", "alpha"},
		"invalid pod config: PodName \"a/b\" must be":                  {"-stop", "a/b"},
		"invalid pod config: PodName \"..\" must be":                   {"-follow", ".."},
	} {
		var out, errs bytes.Buffer
		assert.Equal(t, 2, podspawn.Main(args, &out, &errs), want)
		assert.Contains(t, errs.String(), want)
	}
}

func TestDefaultCommandIsTakenFromTheEnvironment(t *testing.T) {
	runtimeDir(t)
	t.Setenv(spawn.RuntimeCommandEnv, "/nowhere/agent")
	var out, errs bytes.Buffer
	assert.Equal(t, 4, podspawn.Main([]string{"-pod-arg", "more", "alpha"}, &out, &errs))
	assert.Contains(t, errs.String(), "failed to launch pod runtime command `/nowhere/agent pod more`")
}
