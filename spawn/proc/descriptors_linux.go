//go:build !portable

package proc

import (
	"golang.org/x/sys/unix"
)

// MayHoldInheritable reports whether this process has descriptors above 2 that a child would
// inherit. Of one with a hundred descriptors, or before Linux 6.2, it is not known: true.
func MayHoldInheritable() bool {
	const most = 100
	var dir unix.Stat_t
	if unix.Stat("/proc/self/fd", &dir) != nil || dir.Size > most {
		return true
	}
	left := dir.Size // how many are open; to list them takes ten times as long
	for fd := uintptr(0); left > 0 && fd < 2*most; fd++ {
		flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
		switch {
		case err != nil:
		case fd > 2 && flags&unix.FD_CLOEXEC == 0:
			return true
		default:
			left--
		}
	}
	return dir.Size == 0 || left > 0
}
