package spawn_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onLinux is what only Linux says.
func onLinux(text string) string {
	if isLinux {
		return text
	}
	return ""
}

func needsLinux(t *testing.T, why string) {
	t.Helper()
	if !isLinux {
		t.Skip(why)
	}
}

// supervisedEnv tells a test binary that another one ends what it leaves.
const supervisedEnv = "SPAWN_TEST_SUPERVISED"

// supervised runs the tests in a child of this process, which inherits and kills
// whatever that leaves behind, however it ends: package harness cannot be used to
// test what it is built on. Where there are no subreapers the tests run here.
func supervised(run func() int) int {
	if os.Getenv(supervisedEnv) != "" || becomeSubreaper() != nil {
		return run()
	}
	tests := exec.Command(os.Args[0], os.Args[1:]...)
	tests.Env = append(os.Environ(), supervisedEnv+"=1")
	tests.Stdin, tests.Stdout, tests.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Not ignored, which the tests would inherit. A terminal tells them by itself.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if err := tests.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a child:", err)
		return 1
	}
	go func() {
		for sig := range signals {
			if sig != syscall.SIGINT {
				_ = tests.Process.Signal(sig)
			}
		}
	}()
	status := reapUntil(tests.Process.Pid)
	for begin := time.Now(); len(children()) > 0 && time.Since(begin) < patience/2; <-time.After(10 * time.Millisecond) {
	} // what was killed may end late
	for _, pid := range children() {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		fmt.Fprintf(os.Stderr, "the tests have left process %d behind, killed: %q\n", pid, command)
		status = max(status, 1)
	}
	// The children of what is killed are children of this process next.
	for left := children(); len(left) > 0; left = children() {
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}
	return status
}

// reapUntil reaps every child until one has ended, and returns its exit status.
func reapUntil(pid int) int {
	for {
		var status unix.WaitStatus
		reaped, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			fmt.Fprintln(os.Stderr, "wait for the tests:", err)
			return 1
		case reaped == pid && status.Signaled():
			fmt.Fprintln(os.Stderr, "the tests were ended by signal:", status.Signal())
			return 2
		case reaped == pid:
			return status.ExitStatus()
		}
	}
}

// children returns the processes whose parent this process is, zombies not.
func children() []int {
	return processes(func(state string, parent, _ int) bool { return state != "Z" && parent == os.Getpid() })
}
