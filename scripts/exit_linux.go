package scripts

import (
	"time"

	"golang.org/x/sys/unix"
)

// endsWithin waits for the end of a process that is not a child.
func endsWithin(pid int, timeout time.Duration) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err == unix.ESRCH
	}
	defer unix.Close(fd)
	deadline := time.Now().Add(timeout)
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((left+time.Millisecond-1)/time.Millisecond))
		if err != unix.EINTR {
			return n > 0
		}
	}
}
