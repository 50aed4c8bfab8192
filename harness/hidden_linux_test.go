//go:build !portable

package harness

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hiddenArg is the first argument of this test binary as a process that cannot be looked into.
const hiddenArg = "harness-test-hidden"

func init() {
	if len(os.Args) == 3 && os.Args[1] == hiddenArg {
		hidden(os.Args[2])
	}
}

// hidden is a process of one of these kinds. It lives for a minute at most.
//
//	child   writes its number to the file hidden in HOME
//	daemon  has a child in a session of its own go on, as daemons do
//	agent   listens in HOME, and has a child in a session of its own serve, as ssh-agent does
func hidden(kind string) {
	time.AfterFunc(time.Minute, func() { syscall.Exit(0) })
	again := func(kind string, listener *os.File) {
		r, w, _ := os.Pipe()
		cmd := exec.Command(os.Args[0], hiddenArg, kind)
		cmd.Stdout, cmd.ExtraFiles = w, []*os.File{listener}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		_ = cmd.Start()
		_, _ = r.Read(make([]byte, 1)) // it hides
		syscall.Exit(0)
	}
	switch kind {
	case "daemon":
		again("child", nil)
	case "agent":
		socket, _ := net.ListenUnix("unix", &net.UnixAddr{Name: os.Getenv("HOME") + "/agent.sock"})
		file, _ := socket.File()
		again("server", file)
	}
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = os.WriteFile(os.Getenv("HOME")+"/hidden", fmt.Append(nil, os.Getpid()), 0o600)
	fmt.Println("hides")
	if kind == "server" {
		socket, _ := net.FileListener(os.NewFile(3, ""))
		for {
			conn, err := socket.Accept()
			if err != nil {
				syscall.Exit(0)
			}
			_, _ = io.ReadFull(conn, make([]byte, 5))
			_, _ = conn.Write(make([]byte, 9))
			conn.Close()
		}
	}
	select {}
}

// alone runs the test again in a process of its own, which may not look into what is not
// dumpable, and reports whether this is that process.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv("HARNESS_TEST_ALONE") != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), "HARNESS_TEST_ALONE=1", "TMPDIR=/tmp")
	var out []byte
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // it ends with the thread
		for _, capability := range []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		}
		out, err = cmd.CombinedOutput()
	}()
	<-done
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "%s", out)
	return false
}

// startsHidden returns a pod that runs a line of shell first, in which $HIDDEN starts a hidden process.
func startsHidden(line, name string) Config {
	fake := FakePod("ready")
	return Config{Name: name, Env: []string{"HIDDEN=" + os.Args[0] + " " + hiddenArg}, Command: spawn.Command{
		Program: "/bin/sh", PrefixArgs: append([]string{"-c", line + ` exec "$0" "$@"`, fake.Program}, fake.PrefixArgs...),
	}}
}

// hiddenPID waits until a hidden process hides, and returns its number.
func hiddenPID(t *testing.T, pod *Pod) (pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(filepath.Join(pod.box.Dir("home"), "hidden"))
		_, err := fmt.Sscan(string(text), &pid)
		return err == nil
	}, 10*time.Second, time.Millisecond)
	_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	require.ErrorIs(t, err, os.ErrPermission)
	return pid
}

const asDaemon, asAgent, asChild = "$HIDDEN daemon;", "$HIDDEN agent;", "setsid $HIDDEN child &"

func TestHiddenLeak(t *testing.T) {
	if !alone(t) {
		return
	}
	for kind, line := range map[string]string{"agent": asAgent, "child": asChild} {
		tb := NewTB(t)
		pod := StartPod(tb, startsHidden(line, "alpha"))
		pid := hiddenPID(t, pod)
		if kind == "child" { // it has ended before it is stopped
			require.NoError(t, pod.SignalProcess(syscall.SIGINT))
			pod.Wait(10 * time.Second)
			assert.ErrorIs(t, pod.SignalProcess(syscall.SIGINT), os.ErrProcessDone)
		}
		err := pod.Stop()
		assert.ErrorContains(t, err, "pod alpha left processes behind, which were killed:\n\t\tprocess "+fmt.Sprint(pid), kind)
		assert.True(t, proc.Ended(pid))
		tb.End()
		assert.NotContains(t, tb.Text(), "cannot be looked into")
	}
}

func TestHiddenLeakIsThatOfAPodThatRanThen(t *testing.T) {
	if !alone(t) {
		return
	}
	tb := NewTB(t)
	older := StartPod(tb, Config{})
	require.Eventually(t, func() bool { return proc.Ticks() > older.process.Start }, 10*time.Second, time.Millisecond)
	pod := StartPod(tb, startsHidden(asAgent, "alpha"))
	pid := hiddenPID(t, pod)
	require.Eventually(t, func() bool { return proc.Ticks() > proc.Of(pid).Start }, 10*time.Second, time.Millisecond)
	younger := StartPod(tb, Config{})
	assert.NoError(t, younger.Stop())
	assert.NoError(t, pod.Stop(), "it may be the older one's")
	assert.False(t, proc.Ended(pid))
	assert.ErrorContains(t, older.Stop(), "left processes behind, which were killed:\n\t\tprocess "+fmt.Sprint(pid))
	tb.End()
}

func TestHiddenProcessOfWhichNothingIsKnown(t *testing.T) {
	if !alone(t) {
		return
	}
	tb := NewTB(t)
	own := exec.Command(os.Args[0], hiddenArg, "child")
	own.Env = append(os.Environ(), "HOME="+t.TempDir())
	pod := StartPod(tb, startsHidden(asDaemon, "alpha"))
	require.NoError(t, own.Start())
	pid := hiddenPID(t, pod)
	assert.NoError(t, pod.Stop())
	assert.False(t, proc.Ended(pid), "it is not killed")
	tb.End()
	assert.Equal(t, 1, strings.Count(tb.Text(), "cannot be looked into"), "the test's own child is not told: %s", tb.Text())
	assert.Contains(t, tb.Text(), fmt.Sprintf("harness: process %d (", pid))
	assert.False(t, tb.Failed(), tb.Text())
	assert.Contains(t, tb.Text(), fmt.Sprintf("harness: process %d (%s ", pid, os.Args[0]))
	assert.Contains(t, tb.Text(), " old) began while pod alpha ran, and cannot be looked into: ")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.NoError(t, own.Process.Kill())
	assert.EqualError(t, own.Wait(), "signal: killed")
}

func TestHiddenLeakOfAPodThatDoesNotBecomeReady(t *testing.T) {
	if !alone(t) {
		return
	}
	for kind, line := range map[string]string{"agent": asAgent, "child": asChild} {
		cfg := startsHidden(line+" while ! [ -e $HOME/hidden ]; do :; done; exit 3;", "alpha")
		if kind == "child" {
			cfg = startsHidden(line+" sleep 100;", "alpha")
			cfg.ReadyTimeout = time.Second
		}
		tb := NewTB(t)
		_, err := TryStartPod(tb, cfg)
		require.Error(t, err)
		text, err := os.ReadFile(filepath.Join(filepath.Dir(RuntimeDir(tb)), "home", "hidden"))
		require.NoError(t, err, kind)
		pid, err := strconv.Atoi(string(text))
		require.NoError(t, err)
		assert.True(t, proc.Ended(pid), kind)
		tb.End()
		assert.NotContains(t, tb.Text(), "cannot be looked into")
	}
}

// TestHiddenProcessesEndWithTheTestBinary runs itself, and kills that.
func TestHiddenProcessesEndWithTheTestBinary(t *testing.T) {
	if home := os.Getenv(endEnv); home != "" {
		agent, child := StartPod(t, startsHidden(asAgent, "agent")), StartPod(NewTB(t), startsHidden(asChild, "child"))
		fmt.Println("HIDDEN", hiddenPID(t, agent), hiddenPID(t, child))
		select {}
	}
	if !alone(t) {
		return
	}
	cmd, lines := startHelper(t, t.Name(), "1")
	var agent, child int
	_, err := fmt.Sscanf(waitForLine(t, lines, "HIDDEN"), "HIDDEN %d %d", &agent, &child)
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	assert.Eventually(t, func() bool { return proc.Ended(agent) && proc.Ended(child) }, 10*time.Second, time.Millisecond, "%d listens in a sandbox, and %d descends from a pod", agent, child)
	for _, pid := range withWord(hiddenArg) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
