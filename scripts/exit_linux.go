package scripts

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// hold returns a pidfd of a process that is not a child. Whatever is given its
// number later, the pidfd tells of that process alone.
func hold(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// endsWithin waits for the end of the orphan.
func (o *orphan) endsWithin(timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for {
		left := max(0, time.Until(deadline))
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(o.held.Fd()), Events: unix.POLLIN}}, int((left+time.Millisecond-1)/time.Millisecond))
		if err != unix.EINTR {
			return n > 0
		}
	}
}
