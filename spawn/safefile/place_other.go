//go:build unix && (!linux || portable)

package safefile

import "golang.org/x/sys/unix"

// A place is a file system.
type place struct{ dev uint64 }

func placeOf(fd int) (place, error) {
	var info unix.Stat_t
	err := unix.Fstat(fd, &info)
	return place{uint64(info.Dev)}, err
}

// makeWritable lets the owner of a directory that cannot be opened read and write it.
func (d *Dir) makeWritable(name string) error {
	return unix.Fchmodat(int(d.file.Fd()), name, 0o700, unix.AT_SYMLINK_NOFOLLOW)
}
