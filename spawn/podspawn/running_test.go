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
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn/podspawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// needProcesses skips a test where the system does not tell which process is a pod's.
func needProcesses(t *testing.T) {
	t.Helper()
	if !proc.Proves {
		t.Skip("this system does not show the files of a process")
	}
}

// runFake runs podspawn without a pod's program.
func run(args ...string) (stdout, stderr string, status int) {
	var out, errs bytes.Buffer
	status = podspawn.Main(args, &out, &errs)
	return out.String(), errs.String(), status
}

// started starts a fake pod, and returns its process.
func started(t *testing.T, program, name string, flags ...string) (pid int) {
	t.Helper()
	stdout, stderr, status := runFake(t, program, append(flags, "-json", name)...)
	require.Zero(t, status, stderr)
	var pod struct{ PID int }
	require.NoError(t, json.Unmarshal([]byte(stdout), &pod))
	t.Cleanup(func() { _ = syscall.Kill(-pod.PID, syscall.SIGKILL) })
	return pod.PID
}

// unready starts a fake pod of which no ready line comes, once it has begun.
func unready(t *testing.T, program, name string) (pid int) {
	t.Helper()
	dir := filepath.Join(os.Getenv("YOI_RUNTIME_DIR"), name)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	log, err := os.Create(dir + "/stderr.log")
	require.NoError(t, err)
	defer log.Close()
	command, args := fakepod.Command(program)
	cmd := exec.Command(command, append(args, "--workspace", dir, "--pod", name)...)
	cmd.Stderr, cmd.SysProcAttr = log, &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(dir + "/stderr.log")
		return bytes.Contains(text, []byte("begun\n"))
	}, 10*time.Second, time.Millisecond)
	return cmd.Process.Pid
}

// act has a pod act a program out, and waits until that is done or the pod is gone.
func act(t *testing.T, name, program string) {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(os.Getenv("YOI_RUNTIME_DIR"), name, "sock"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = fmt.Fprintf(conn, `{"method":"run","params":{"program":%q}}`+"\n", program)
	require.NoError(t, err)
	answers := bufio.NewReader(conn)
	_, err = answers.ReadString('\n')
	require.NoError(t, err)
	_, _ = answers.ReadString('\n')
}

// hasEnded reports whether a process has ended, be it reaped or not.
func hasEnded(pid int) bool {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return syscall.Kill(pid, 0) == syscall.ESRCH || bytes.Contains(stat, []byte(") Z "))
}

// sleeper starts a process that is no pod.
func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "1009")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		assert.NoError(t, cmd.Process.Kill(), "it was left alone")
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestList(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	stdout, _, status := run("-list")
	assert.Zero(t, status)
	assert.Empty(t, stdout)

	ready := started(t, "ready", "ready \x1b[2J")
	elsewhere := started(t, "bind; ready '{name}' elsewhere/sock; serve", "elsewhere", "-workspace", dir)
	hanging := unready(t, "log begun; hang", "hanging")
	_, _, _ = runFake(t, "early-exit", "dead")
	foreign := sleeper(t)
	require.NoError(t, os.MkdirAll(dir+"/foreign", 0o700))
	require.NoError(t, os.WriteFile(dir+"/foreign/pid", []byte(fmt.Sprintln(foreign)), 0o600))
	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	require.NoError(t, os.Mkdir(dir+"/empty", 0o700))

	stdout, stderr, status := run("-list")
	require.Zero(t, status, stderr)
	for i, want := range []string{
		"dead stale no process 0s DIR/dead/sock",
		fmt.Sprintf("elsewhere answers process %d 0s DIR/elsewhere/sock", elsewhere),
		"empty stale no process 0s DIR/empty/sock",
		"foreign stale no process 0s DIR/foreign/sock",
		fmt.Sprintf("hanging silent process %d 0s DIR/hanging/sock", hanging),
		fmt.Sprintf(`ready \x1b[2J answers process %d 0s DIR/ready \x1b[2J/sock`, ready),
	} {
		line := strings.Join(strings.Fields(strings.Split(stdout, "\n")[i]), " ")
		line = regexp.MustCompile(` [0-5]s `).ReplaceAllString(line, " 0s ")
		assert.Equal(t, strings.ReplaceAll(want, "DIR", dir), line)
	}
	assert.Equal(t, 6, strings.Count(stdout, "\n"), stdout)

	stdout, _, _ = run("-list", "-json")
	lines := json.NewDecoder(strings.NewReader(stdout))
	var pods []map[string]any
	for lines.More() {
		var pod map[string]any
		require.NoError(t, lines.Decode(&pod))
		age, ok := pod["age_s"].(float64)
		assert.True(t, ok && age >= 0 && age < 60, age)
		delete(pod, "age_s")
		pods = append(pods, pod)
	}
	require.Len(t, pods, 6)
	assert.Equal(t, map[string]any{"name": "dead", "state": "stale", "socket": dir + "/dead/sock", "log": dir + "/dead/stderr.log"}, pods[0])
	assert.Equal(t, map[string]any{"name": "ready \x1b[2J", "state": "answers", "pid": float64(ready), "socket": dir + "/ready \x1b[2J/sock", "log": dir + "/ready \x1b[2J/stderr.log"}, pods[5])
}

// TestListDoesNotWait shows pods that do nothing, and one whose log takes long to
// read.
func TestListDoesNotWait(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	full := started(t, "socket; listen 1; ready; hang", "full")
	for {
		conn, err := net.Dial("unix", dir+"/full/sock")
		if err != nil {
			break
		}
		defer conn.Close()
	}
	stopped := started(t, "ready", "stopped")
	require.NoError(t, syscall.Kill(stopped, syscall.SIGSTOP))
	_, _, _ = runFake(t, "early-exit", "large")
	require.NoError(t, os.Truncate(dir+"/large/stderr.log", 64<<30))

	start := time.Now()
	stdout, _, status := run("-list")
	assert.Zero(t, status)
	assert.Less(t, time.Since(start), 10*time.Second)
	assert.Regexp(t, fmt.Sprintf(`(?m)^stopped +\w+ +process %d `, stopped), stdout)
	assert.Regexp(t, fmt.Sprintf(`(?m)^full +silent +process %d `, full), stdout)
}

func TestStop(t *testing.T) {
	dir := runtimeDir(t)
	pid := started(t, "ready", "alpha")
	stdout, stderr, status := run("-stop", "alpha")
	require.Zero(t, status, stderr)
	assert.Regexp(t, `^pod alpha ended after \d+m?s\n$`, stdout)
	assert.Eventually(t, func() bool { return hasEnded(pid) }, 5*time.Second, time.Millisecond)
	assert.NoDirExists(t, dir+"/alpha", "it was a graceful stop")

	_, stderr, status = run("-stop", "alpha")
	assert.Equal(t, 1, status)
	assert.Equal(t, "podspawn: there is no pod alpha in "+dir+" (podspawn -list shows those that are there)\n", stderr)
}

func TestStopOfAStoppedPod(t *testing.T) {
	needProcesses(t)
	runtimeDir(t)
	pid := started(t, "ready", "alpha")
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	_, stderr, status := run("-stop", "alpha")
	assert.Zero(t, status, stderr)
}

func TestStopOfAPodThatIsNotReady(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	unready(t, "log begun; hang", "alpha")
	_, stderr, status := run("-stop", "alpha")
	assert.Zero(t, status, stderr)
	assert.NoDirExists(t, dir+"/alpha")
}

func TestPodThatDoesNotStop(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	pid := started(t, "ignore INT; child 'log child-{pid}; hang'; bind; ready; serve", "alpha")
	var child int
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(dir + "/alpha/stderr.log")
		_, line, _ := strings.Cut(string(text), "child-")
		n, _ := fmt.Sscanln(line, &child)
		return n == 1
	}, 10*time.Second, time.Millisecond)
	_, stderr, status := run("-stop", "-grace", "50ms", "alpha")
	assert.Equal(t, 1, status)
	assert.Equal(t, fmt.Sprintf("podspawn: pod alpha still runs 50ms after SIGINT: process %d; podspawn -stop -kill alpha kills it\n", pid), stderr)
	require.NoError(t, syscall.Kill(pid, 0))

	stdout, stderr, status := run("-stop", "-grace", "50ms", "-kill", "alpha")
	assert.Zero(t, status, stderr)
	assert.Regexp(t, `^pod alpha was killed after \d+m?s\nlog     `+dir+`/alpha/stderr\.log\n$`, stdout)
	assert.Eventually(t, func() bool { return hasEnded(child) }, 10*time.Second, time.Millisecond, "the child, too")

	_, stderr, status = run("-stop", "alpha")
	assert.Equal(t, 1, status)
	assert.Equal(t, fmt.Sprintf("podspawn: pod alpha (stale) was not stopped: its socket does not answer, and process %d, which its file pid names, has ended; rm -r %s/alpha removes what it has left\n", pid, dir), stderr)
}

// TestNumberOfAnotherProcess has pid files that name processes which are not the pod.
func TestNumberOfAnotherProcess(t *testing.T) {
	dir := runtimeDir(t)
	require.NoError(t, os.Mkdir(dir+"/alpha", 0o700))
	require.NoError(t, os.WriteFile(dir+"/alpha/stderr.log", nil, 0o600))
	const unknown = "is not known to be the pod: its stderr is not the log stderr.log, or it is older than the pod"
	for text, want := range map[string]string{
		fmt.Sprint(sleeper(t)):          unknown,
		"1":                             `its file pid names no process: "1"`,
		"-1":                            `its file pid names no process: "-1"`,
		"many":                          `its file pid names no process: "many"`,
		strings.Repeat("1", 100):        `its file pid names no process: "1111`,
		strings.Repeat("1", 100) + "\n": "its file pid cannot be read: is larger than 100 bytes",
	} {
		require.NoError(t, os.WriteFile(dir+"/alpha/pid", []byte(text), 0o600))
		_, stderr, status := run("-stop", "-grace", "0s", "-kill", "alpha")
		assert.Equal(t, 1, status)
		assert.Contains(t, stderr, "podspawn: pod alpha (stale) was not stopped: its socket does not answer, and ")
		assert.Contains(t, stderr, want)
	}
	require.NoError(t, os.Remove(dir+"/alpha/pid"))
	_, stderr, _ := run("-stop", "alpha")
	assert.Contains(t, stderr, "and its file pid cannot be read: no such file or directory")
}

// TestSocketOfAnotherPod has a log that announces what is not the pod's own.
func TestSocketOfAnotherPod(t *testing.T) {
	dir := runtimeDir(t)
	beta := started(t, "ready", "beta")
	require.NoError(t, os.Mkdir(dir+"/alpha", 0o700))
	for _, name := range []string{"alpha", "beta"} {
		require.NoError(t, os.WriteFile(dir+"/alpha/stderr.log", []byte("YOI-READY\t"+name+"\t"+dir+"/beta/sock\n"), 0o600))
		stdout, _, _ := run("-list")
		assert.Regexp(t, `^alpha +stale +no process .*\nbeta +answers `, stdout)
		_, stderr, status := run("-stop", "alpha")
		assert.Equal(t, 1, status)
		assert.Contains(t, stderr, "podspawn: pod alpha (stale) was not stopped: its socket does not answer, and its file pid cannot be read")
		assert.False(t, hasEnded(beta))
	}
}

// TestPodIsKnownByItsSocket has neither pid file nor log.
func TestPodIsKnownByItsSocket(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	pid := started(t, "ignore INT; bind; ready; serve", "alpha")
	require.NoError(t, os.Remove(dir+"/alpha/pid"))
	require.NoError(t, os.Remove(dir+"/alpha/stderr.log"))
	past := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(dir+"/alpha/sock", past, past)) // which is its age
	stdout, _, _ := run("-list")
	assert.Regexp(t, fmt.Sprintf(`^alpha +answers +process %d +1h0m\ds `, pid), stdout)
	_, stderr, status := run("-stop", "-grace", "50ms", "-kill", "alpha")
	require.Zero(t, status, stderr)
	assert.Eventually(t, func() bool { return hasEnded(pid) }, 10*time.Second, time.Millisecond)
}

// asServer is the environment variable that makes this binary a server on a socket, of which
// nothing tells the process: the one that began to listen has ended.
const asServer = "TEST_AS_SERVER"

// serve listens, or serves what its parent listens on: it ends at the first line if it is to stop.
func serve(as, path string) {
	if as == "listens and stops" || as == "listens and stays" {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			panic(err)
		}
		file, _ := listener.File()
		cmd := exec.Command(os.Args[0], path)
		cmd.Env = append(os.Environ(), asServer+"="+strings.TrimPrefix(as, "listens and "))
		cmd.ExtraFiles = []*os.File{file}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Println(cmd.Process.Pid)
		syscall.Exit(0)
	}
	listener, err := net.FileListener(os.NewFile(3, ""))
	for err == nil {
		conn, _ := listener.Accept()
		if line, _ := bufio.NewReader(conn).ReadString('\n'); line != "" && as == "stops" {
			syscall.Exit(0) // os.Exit takes a second in a binary with the race detector
		}
		conn.Close()
	}
}

// startedUnknown starts a server, and returns its process.
func startedUnknown(t *testing.T, dir, as, name string) (pid int) {
	t.Helper()
	require.NoError(t, os.Mkdir(dir+"/"+name, 0o700))
	cmd := exec.Command(os.Args[0], dir+"/"+name+"/sock")
	cmd.Env = append(os.Environ(), asServer+"=listens and "+as)
	out, err := cmd.Output()
	require.NoError(t, err)
	_, err = fmt.Sscan(string(out), &pid)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	return pid
}

func TestPodWhoseProcessIsUnknown(t *testing.T) {
	dir := runtimeDir(t)
	pid := startedUnknown(t, dir, "stops", "alpha")
	stdout, _, _ := run("-list")
	assert.Regexp(t, "^alpha +answers +process unknown ", stdout)
	stdout, stderr, status := run("-stop", "alpha")
	require.Zero(t, status, stderr)
	assert.Regexp(t, `^pod alpha ended after \d+m?s\n`, stdout, "it was asked over its socket")
	assert.Eventually(t, func() bool { return hasEnded(pid) }, 10*time.Second, time.Millisecond)

	pid = startedUnknown(t, dir, "stays", "beta")
	_, stderr, status = run("-stop", "-grace", "50ms", "-kill", "beta")
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "podspawn: pod beta still answers 50ms after it was asked to stop, and cannot be killed: its file pid cannot be read: no such file or directory\n")
	assert.NoError(t, syscall.Kill(pid, 0))
}

// TestPodIsKnownByWhoListens has pods that other clients have started, or that have lost their
// log: none has it as stderr.
func TestPodIsKnownByWhoListens(t *testing.T) {
	needProcesses(t)
	for name, start := range map[string]func(t *testing.T, dir string) (pid int){
		"its stderr is elsewhere": func(t *testing.T, dir string) int {
			require.NoError(t, os.Mkdir(dir+"/alpha", 0o700))
			require.NoError(t, os.WriteFile(dir+"/alpha/stderr.log", []byte("YOI-READY\talpha\t"+dir+"/alpha/sock\n"), 0o600))
			return startedElsewhere(t)
		},
		"it has made its directory": func(t *testing.T, dir string) int {
			return startedElsewhere(t)
		},
		"it has renamed its log": func(t *testing.T, dir string) int {
			pid := started(t, "ignore INT; bind; ready; serve", "alpha")
			require.NoError(t, os.Rename(dir+"/alpha/stderr.log", dir+"/alpha/stderr.log.1"))
			return pid
		},
		"its directory was made anew": func(t *testing.T, dir string) int {
			pid := started(t, "ignore INT; bind; ready; serve", "alpha")
			require.NoError(t, os.Rename(dir+"/alpha", dir+"/.alpha"))
			require.NoError(t, os.Mkdir(dir+"/alpha", 0o700))
			require.NoError(t, os.Rename(dir+"/.alpha/sock", dir+"/alpha/sock"))
			require.NoError(t, os.RemoveAll(dir+"/.alpha"))
			return pid
		},
	} {
		t.Run(name, func(t *testing.T) {
			pid := start(t, runtimeDir(t))
			stdout, _, _ := run("-list")
			assert.Regexp(t, fmt.Sprintf("^alpha +answers +process %d ", pid), stdout)
			_, stderr, status := run("-stop", "-grace", "50ms", "-kill", "alpha")
			assert.Zero(t, status, stderr)
			assert.Eventually(t, func() bool { return hasEnded(pid) }, 10*time.Second, time.Millisecond)
		})
	}
}

// startedElsewhere starts the pod alpha as other clients do.
func startedElsewhere(t *testing.T) (pid int) {
	t.Helper()
	command, args := fakepod.Command("ignore INT; bind; ready; serve")
	cmd := exec.Command(command, append(args, "--workspace", t.TempDir(), "--pod", "alpha")...)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	_, err = bufio.NewReader(stderr).ReadString('\n')
	require.NoError(t, err)
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	return cmd.Process.Pid
}

func TestPrune(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	stdout, stderr, status := run("-prune")
	assert.Zero(t, status, stderr)
	assert.Empty(t, stdout)

	started(t, "ready", "answers")
	unready(t, "log begun; hang", "unready")
	require.NoError(t, os.Remove(dir+"/unready/pid"))
	starting := exec.Command(os.Args[0], append(fake("log begun; hang"), "-timeout", "1m", "starting")...)
	starting.Env = append(os.Environ(), asPodspawn+"=1")
	require.NoError(t, starting.Start())
	t.Cleanup(func() {
		_ = starting.Process.Signal(os.Interrupt)
		_ = starting.Wait()
	})
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(dir + "/starting/stderr.log")
		return len(text) > 0
	}, 10*time.Second, time.Millisecond)
	startedUnknown(t, dir, "stays", "unknown")
	_, _, _ = runFake(t, "early-exit", "dead")
	killed := started(t, "bind; ready; serve", "killed")
	require.NoError(t, syscall.Kill(-killed, syscall.SIGKILL))
	require.Eventually(t, func() bool { return hasEnded(killed) }, 10*time.Second, time.Millisecond)
	for name, pid := range map[string]int{"foreign": sleeper(t), "maybe": named(t, "maybe")} {
		require.NoError(t, os.Mkdir(dir+"/"+name, 0o700))
		writePID(t, dir+"/"+name, pid)
	}
	require.NoError(t, os.Mkdir(dir+"/empty", 0o700))
	require.NoError(t, os.Mkdir(dir+"/mine", 0o700))
	victim := t.TempDir()
	for _, file := range []string{dir + "/mine/thesis", dir + "/file", victim + "/stderr.log"} {
		require.NoError(t, os.WriteFile(file, nil, 0o600))
	}
	require.NoError(t, os.Symlink(victim, dir+"/link"))
	require.NoError(t, os.Symlink(victim, dir+"/dead/link"))

	stdout, stderr, status = run("-prune")
	assert.Zero(t, status, stderr)
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	wants := []string{
		"left     answers: answers, process ", "removed  dead", "removed  empty", "removed  foreign", "removed  killed",
		"left     maybe: process ", "left     mine: it holds nothing of a pod", "left     starting: a start of it is under way",
		"left     unknown: answers, process unknown", "left     unready: process ",
	}
	require.Len(t, lines, len(wants), stdout)
	for i, want := range wants {
		assert.True(t, strings.HasPrefix(lines[i], want), "%q: want %q", lines[i], want)
		name := strings.TrimSuffix(strings.Fields(want)[1], ":")
		_, err := os.Stat(dir + "/" + name)
		assert.Equal(t, strings.HasPrefix(want, "removed"), os.IsNotExist(err), name)
	}
	for _, path := range []string{dir + "/file", dir + "/mine/thesis", dir + "/link", victim + "/stderr.log"} {
		assert.FileExists(t, path)
	}
	_, err := os.Lstat(dir + "/link")
	assert.NoError(t, err)

	require.NoError(t, os.Symlink(dir, victim+"/run"))
	t.Setenv("YOI_RUNTIME_DIR", victim+"/run")
	stdout, _, _ = run("-prune", "-json")
	assert.Contains(t, stdout, `{"name":"mine","removed":false,"why":"it holds nothing of a pod"}`+"\n")
}

// named starts a process that has a pod's name on its command line.
func named(t *testing.T, name string) int {
	t.Helper()
	cmd := exec.Command("sh", "-c", "sleep 1009 & wait", "sh", "--pod", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		assert.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// TestWhatIsNotThePods has things in a pod directory that lead elsewhere, or nowhere. Each
// command ends in time, and harms nobody.
func TestWhatIsNotThePods(t *testing.T) {
	needProcesses(t)
	for name, prepare := range map[string]func(t *testing.T, dir string, stranger int){
		"pid is a FIFO":   func(t *testing.T, dir string, _ int) { require.NoError(t, syscall.Mkfifo(dir+"/pid", 0o600)) },
		"pid is a device": func(t *testing.T, dir string, _ int) { require.NoError(t, os.Symlink("/dev/zero", dir+"/pid")) },
		"pid is a dir":    func(t *testing.T, dir string, _ int) { require.NoError(t, os.Mkdir(dir+"/pid", 0o700)) },
		"log is a FIFO":   func(t *testing.T, dir string, _ int) { require.NoError(t, syscall.Mkfifo(dir+"/stderr.log", 0o600)) },
		"log is a device": func(t *testing.T, dir string, n int) {
			writePID(t, dir, n)
			require.NoError(t, os.Symlink("/dev/null", dir+"/stderr.log"))
		},
		"log is a link": func(t *testing.T, dir string, n int) {
			writePID(t, dir, n)
			require.NoError(t, os.Symlink(dir+"/../stranger", dir+"/stderr.log"))
		},
		"log is a name": func(t *testing.T, dir string, n int) {
			writePID(t, dir, n)
			require.NoError(t, os.Link(dir+"/../stranger", dir+"/stderr.log"))
		},
		"sock is a link": func(t *testing.T, dir string, _ int) {
			require.NoError(t, os.Symlink(dir+"/../other/sock", dir+"/sock"))
		},
		"sock is a name":   func(t *testing.T, dir string, _ int) { require.NoError(t, os.Link(dir+"/../other/sock", dir+"/sock")) },
		"sock is a parent": func(t *testing.T, dir string, _ int) { announce(t, dir, dir+"/../other/sock") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := runtimeDir(t)
			log, err := os.Create(dir + "/stranger")
			require.NoError(t, err)
			defer log.Close()
			stranger := exec.Command("sleep", "1000")
			stranger.Stderr, stranger.SysProcAttr = log, &syscall.SysProcAttr{Setpgid: true}
			require.NoError(t, stranger.Start())
			other := started(t, "ready", "other")
			t.Cleanup(func() {
				assert.NoError(t, stranger.Process.Kill(), "it lives")
				_ = stranger.Wait()
				assert.False(t, hasEnded(other))
			})
			age := func() time.Duration { return time.Since(began(t, dir+"/stranger")) }
			require.Eventually(t, func() bool { return age() > 100*time.Millisecond }, 10*time.Second, time.Millisecond)
			require.NoError(t, os.Mkdir(dir+"/alpha", 0o700))
			prepare(t, dir+"/alpha", stranger.Process.Pid)
			for _, args := range [][]string{{"-list"}, {"-stop", "-kill", "-grace", "50ms", "alpha"}, {"-follow", "alpha"}} {
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					run(args...)
				}()
				select {
				case <-ended:
				case <-time.After(10 * time.Second):
					require.Fail(t, "it has no end", args)
				}
			}
		})
	}
}

func writePID(t *testing.T, dir string, pid int) {
	t.Helper()
	require.NoError(t, os.WriteFile(dir+"/pid", []byte(fmt.Sprint(pid)), 0o600))
}

func announce(t *testing.T, dir, socket string) {
	t.Helper()
	require.NoError(t, os.WriteFile(dir+"/stderr.log", []byte("YOI-READY\talpha\t"+socket+"\n"), 0o600))
}

func began(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.ModTime()
}

func TestFollow(t *testing.T) {
	needProcesses(t)
	dir := runtimeDir(t)
	started(t, `log "one \x1b[2J"; bind; ready; serve`, "alpha")
	r, w := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- podspawn.Main([]string{"-follow", "alpha"}, w, os.Stderr)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	next := func() string {
		require.True(t, lines.Scan())
		return lines.Text()
	}
	assert.Equal(t, `one \x1b[2J`, next())
	assert.Equal(t, `YOI-READY\talpha\t`+dir+"/alpha/sock", next())
	act(t, "alpha", "log two; raw unfinished; exit 3")
	assert.Equal(t, "two", next())
	assert.Equal(t, "unfinished", next())
	assert.False(t, lines.Scan())
	assert.Zero(t, <-status)

	stdout, stderr, over := run("-follow", "alpha")
	assert.Zero(t, over, stderr)
	assert.Contains(t, stdout, "two\nunfinished\n", "the log of a dead pod is still there")
}

func TestFollowUntilSomebodyHasEnough(t *testing.T) {
	runtimeDir(t)
	pid := started(t, "log one; bind; ready; serve", "alpha")
	for want, enough := range map[int]func(*exec.Cmd, io.Closer){
		130: func(cmd *exec.Cmd, _ io.Closer) { _ = cmd.Process.Signal(os.Interrupt) },
		0: func(_ *exec.Cmd, pipe io.Closer) {
			pipe.Close()
			act(t, "alpha", "log more")
		},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-follow", "alpha")
		cmd.Env = append(os.Environ(), asPodspawn+"=1")
		pipe, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(pipe)
		require.True(t, lines.Scan())
		assert.Equal(t, "one", lines.Text())
		enough(cmd, pipe)
		_ = cmd.Wait()
		assert.Equal(t, want, cmd.ProcessState.ExitCode())
		assert.NoError(t, syscall.Kill(pid, 0), "the pod lives on")
	}
}

func TestFollowSaysWhatIsMissing(t *testing.T) {
	dir := runtimeDir(t)
	require.NoError(t, os.Mkdir(dir+"/alpha", 0o700))
	_, stderr, status := run("-follow", "alpha")
	assert.Equal(t, 1, status)
	assert.Equal(t, "podspawn: pod alpha has no log "+dir+"/alpha/stderr.log that can be read: no such file or directory\n", stderr)
	_, stderr, status = run("-follow", "beta")
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "podspawn: there is no pod beta in "+dir)
	started(t, "ready", "gamma")
	var errs bytes.Buffer
	assert.Equal(t, 1, podspawn.Main([]string{"-follow", "gamma"}, full{}, &errs))
	assert.Equal(t, "podspawn: no space left on device\n", errs.String())
}
