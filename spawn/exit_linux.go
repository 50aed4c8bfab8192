package spawn

import (
	"os"

	"golang.org/x/sys/unix"
)

// watchExit returns a function that returns once the process has ended and can
// be reaped, and leaves that to others. It waits on a pidfd through the runtime's
// poller: a blocking wait would hold a thread for every live pod. It returns nil
// where there is no pidfd (Linux before 5.10, no descriptor left).
func watchExit(pid int) func() {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	return func() {
		defer file.Close()
		if conn, err := file.SyscallConn(); err == nil {
			_ = conn.Read(func(fd uintptr) bool {
				ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
				n, err := unix.Poll(ready, 0)
				return n > 0 || err != nil && err != unix.EINTR
			})
		}
		// A tracer, such as a debugger, keeps one that has ended to itself until
		// it has looked.
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}
}

// hasEnded tells whether a child that was not reaped has ended.
func hasEnded(pid int) bool {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return err == nil && info.Signo != 0
}
