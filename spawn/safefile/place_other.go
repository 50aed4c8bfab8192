//go:build unix && (!linux || portable)

package safefile

import (
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A place is a file system.
type place struct{ dev uint64 }

func placeOf(fd int) (place, error) {
	var info unix.Stat_t
	err := unix.Fstat(fd, &info)
	return place{uint64(info.Dev)}, err
}

func born(int) (unknown time.Time) { return unknown }

// linkat goes by the name of the file, and takes the link back if another one is there.
func linkat(file *os.File, dir int, name string) error {
	if err := unix.Linkat(unix.AT_FDCWD, file.Name(), dir, name, 0); err != nil {
		return err
	}
	var linked, open unix.Stat_t
	err := unix.Fstatat(dir, name, &linked, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		err = unix.Fstat(int(file.Fd()), &open)
	}
	if err == nil && (linked.Dev != open.Dev || linked.Ino != open.Ino) {
		err = unix.ESTALE
	}
	if err != nil {
		_ = unix.Unlinkat(dir, name, 0)
	}
	return err
}

// chmod changes the mode of a directory that perhaps cannot be opened.
func (d *Dir) chmod(name string, perm fs.FileMode) error {
	return unix.Fchmodat(int(d.file.Fd()), name, uint32(perm.Perm()), unix.AT_SYMLINK_NOFOLLOW)
}
