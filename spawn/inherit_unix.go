//go:build unix

package spawn

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// closingInheritable returns the descriptors for a child so that it inherits no
// other: a number of -1 has one closed between fork and exec.
func closingInheritable(files []uintptr) []uintptr {
	for _, fd := range inheritable() {
		for fd >= len(files) {
			files = append(files, ^uintptr(0))
		}
	}
	return files
}

// CloseInherited closes every descriptor above 2 that is not close-on-exec: at
// the beginning of a process, those that it has inherited. It is for helper
// processes that must not hold what their parents have open.
func CloseInherited() {
	for _, fd := range inheritable() {
		_ = unix.Close(fd)
	}
}

// inheritable returns the descriptors above 2 that a child would inherit.
func inheritable() (fds []int) {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}
