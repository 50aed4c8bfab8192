//go:build !portable

package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testPodArg is the first argument of this test binary as a pod that hides.
const testPodArg = "harness-test-pod"

func init() {
	reexec.Register(testPodArg, func(args []string) int {
		testPod(args[0], args[len(args)-1])
		return 0
	})
}

// testPod is a pod of one of these kinds. It does not outlive a failing test by
// more than a minute.
//
//	plain       is started without environment
//	undumpable  its /proc is not for everybody
//	hidden      both, and its stderr is no more the log
//	leaderless  leaves a hidden child in its group, and ends when it is connected
//	            to a second time
//	leaky       leaves a child without environment in its group when it stops
//	child       does nothing
func testPod(kind, name string) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	time.AfterFunc(time.Minute, func() { os.Exit(0) })
	if kind != "plain" && kind != "leaky" {
		_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	}
	if kind == "child" {
		select {}
	}
	dir := filepath.Join(os.Getenv("YOI_RUNTIME_DIR"), name)
	listener, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if kind == "leaderless" || kind == "leaky" {
		child := reexec.Command(testPodArg, "child", "--pod", name)
		child.Env = []string{}
		if err := child.Start(); err != nil {
			os.Exit(1)
		}
	}
	if kind == "leaky" {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGINT)
		go func() { <-stop; syscall.Exit(0) }()
	}
	fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, filepath.Join(dir, "sock"))
	if kind == "hidden" || kind == "leaderless" {
		null, _ := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		_ = unix.Dup3(int(null.Fd()), 2, 0)
	}
	for n := 1; ; n++ {
		conn, err := listener.Accept()
		if err != nil || kind == "leaderless" && n == 2 {
			syscall.Exit(0) // os.Exit takes a second in a binary with the race detector
		}
		conn.Close()
	}
}

// hiding returns the config of a pod that is hard to find.
func hiding(tb TB, kind, name string) Config {
	command := spawn.Command{Program: os.Args[0], PrefixArgs: []string{testPodArg, kind}}
	if kind != "undumpable" {
		command = spawn.Command{Program: "env", PrefixArgs: []string{"-i", "YOI_RUNTIME_DIR=" + RuntimeDir(tb), os.Args[0], testPodArg, kind}}
	}
	return Config{Name: name, Command: command}
}

// withWord returns the processes with a word in their command line.
func withWord(word string) (pids []int) {
	for _, pid := range proc.All() {
		if strings.Contains(strings.Join(proc.CommandLine(pid), " "), word) && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// assertSoonGone waits until a watchdog has removed the sandboxes below root, and
// then no process may have the word.
func assertSoonGone(t *testing.T, word, root string) {
	t.Helper()
	assert.Eventually(t, func() bool {
		_, err := os.Stat(root)
		return os.IsNotExist(err) && len(withWord(word)) == 0
	}, 20*time.Second, time.Millisecond)
	for _, pid := range withWord(word) {
		assert.Fail(t, "left", "%d %q", pid, proc.CommandLine(pid))
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// startSleeper starts a process of the test's own.
func startSleeper(t *testing.T, group int) *exec.Cmd {
	t.Helper()
	return startSleeperWith(t, &syscall.SysProcAttr{Setpgid: true, Pgid: group})
}

func startSleeperWith(t *testing.T, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	cmd := reexec.Command(testPodArg, "child", "--pod", "sleeper")
	cmd.SysProcAttr = attr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// pidfds counts the pidfds of a process.
func pidfds(t *testing.T, pid int) (count int) {
	t.Helper()
	fds, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/fd/*")
	require.NoError(t, err)
	for _, fd := range fds {
		if target, _ := os.Readlink(fd); target == "anon_inode:[pidfd]" {
			count++
		}
	}
	return count
}
