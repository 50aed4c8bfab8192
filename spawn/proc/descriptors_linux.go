//go:build !portable

package proc

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// MayHoldInheritable reports whether this process has descriptors above 2 that a child would
// inherit. Of one with hundreds of descriptors it is not looked up: true.
func MayHoldInheritable() bool {
	may := true
	_ = open("/proc/self/fd", unix.O_DIRECTORY, func(dir int) error {
		block := make([]byte, 4096)
		n, err := unix.ReadDirent(dir, block)
		if n <= 0 || n > len(block)-512 {
			return err
		}
		_, _, names := unix.ParseDirent(block[:n], -1, nil)
		may = slices.ContainsFunc(names, func(name string) bool {
			fd, _ := strconv.Atoi(name)
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			return fd > 2 && (err != nil || flags&unix.FD_CLOEXEC == 0)
		})
		return nil
	})
	return may
}
