//go:build !portable

package safefile

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A place is a file system and, where the system tells (Linux 5.8), a mount of it.
type place struct{ dev, mount uint64 }

func placeOf(fd int) (place, error) {
	var info unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &info)
	if err != unix.ENOSYS && err != unix.EPERM {
		return place{unix.Mkdev(info.Dev_major, info.Dev_minor), info.Mnt_id}, err
	}
	var old unix.Stat_t // seccomp refuses statx
	err = unix.Fstat(fd, &old)
	return place{dev: uint64(old.Dev)}, err
}

func born(fd int) time.Time {
	var info unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &info) != nil || info.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}
	}
	return time.Unix(info.Btime.Sec, int64(info.Btime.Nsec))
}

func linkat(file *os.File, dir int, name string) error {
	// Not by its name, at which there may be another file by now.
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", file.Fd()), dir, name, unix.AT_SYMLINK_FOLLOW)
}

// chmod changes the mode of a directory that perhaps cannot be opened.
func (d *Dir) chmod(name string, perm fs.FileMode) error {
	fd, err := unix.Openat(int(d.file.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if at, err := placeOf(fd); err != nil || at != d.place {
		return cmp.Or(err, errMounted)
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), perm)
}
