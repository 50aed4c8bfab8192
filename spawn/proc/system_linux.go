//go:build !portable

package proc

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// root is where the system shows its processes.
const root = "/proc"

// Proves tells whether OwnerOf can prove whose a process is.
const Proves = true

// Lookup returns what the system tells of a process; ok is false if there is none, or
// it is not shown.
func Lookup(pid int) (s Stat, ok bool) { return readStat(file(pid, "stat")) }

// ChildEnded reports whether a child that was not reaped has ended.
func ChildEnded(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}

// Ticks returns the time now on the clock of ID.Start.
func Ticks() int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return int64(time.Duration(now.Nano()) / tick)
}

// withDescriptor calls f where a descriptor is free: in a copy of the descriptor table, that of
// a thread which ends then. It has all descriptors but one: the runtime may use its own there.
func withDescriptor(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // a goroutine that ends locked ends its thread
		if unix.Gettid() == unix.Getpid() {
			err = withDescriptor(f) // the main thread alone does not end: while it is locked, f is called elsewhere
			runtime.UnlockOSThread()
			return
		}
		fd := uint(3)
		for ; ; fd++ {
			if link, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd)); err != nil || !strings.HasPrefix(link, "anon_inode:") {
				break
			}
		}
		if err = unix.CloseRange(fd, fd, unix.CLOSE_RANGE_UNSHARE); err == nil {
			err = f()
		}
	}()
	<-done
	return err
}

// isProcess reports whether a number is that of a process, and not only of a thread, which has
// files in /proc, too.
func isProcess(pid int) bool { return unix.Tgkill(pid, pid, 0) != unix.ESRCH }

func openPidfd(pid int) (int, error) { return unix.PidfdOpen(pid, 0) }

func signalPidfd(fd int, sig unix.Signal, flags int) error {
	return unix.PidfdSendSignal(fd, sig, nil, flags)
}
