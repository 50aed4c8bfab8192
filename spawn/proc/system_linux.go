//go:build !portable

package proc

import (
	"os"
	"time"
	"unsafe"

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

// inheritsOrphans reports whether this process is the parent of what pods leave behind.
// One that is not waits for none of them: they are somebody else's.
func inheritsOrphans() bool {
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return os.Getpid() == 1 || err == nil && subreaper != 0
}

// reap reaps an orphan that this process has inherited.
func reap(pid, pidfd int) {
	if pidfd >= 0 {
		_ = unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|unix.WNOHANG, nil)
	} else {
		_ = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
	}
}

func openPidfd(pid int) (int, error) { return unix.PidfdOpen(pid, 0) }

func signalPidfd(fd int, sig unix.Signal, flags int) error {
	return unix.PidfdSendSignal(fd, sig, nil, flags)
}
