package podlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrClaimed is the error of Claim while somebody else has the directory.
var ErrClaimed = errors.New("is claimed already")

// A Claim is a pod directory that one start has for itself.
type Claim struct{ dir *os.File }

// NewClaim makes the pod directory and, if lock is set, locks it. It does not wait: if
// another start has the lock, the error is ErrClaimed. The kernel lets go of the lock with
// its holder. Where the file system has no locks, nobody is refused.
func NewClaim(podDir string, lock bool) (*Claim, error) {
	for again := 100; ; again-- { // a pod that stops removes its directory
		err := createPodDir(podDir)
		var dir *os.File
		if err == nil {
			dir, err = os.OpenFile(podDir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		}
		if errors.Is(err, fs.ErrNotExist) && again > 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		c := &Claim{dir}
		if lock {
			for err = unix.EINTR; err == unix.EINTR; {
				err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
			}
			if err == unix.EWOULDBLOCK {
				dir.Close()
				return nil, ErrClaimed
			}
		}
		own, err := dir.Stat()
		now, nowErr := os.Lstat(podDir)
		if err == nil && nowErr == nil && os.SameFile(own, now) {
			return c, nil
		}
		c.Release()
		switch err := cmp.Or(err, nowErr); {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case again == 0:
			return nil, fmt.Errorf("pod directory %s is replaced again and again", PathText(podDir))
		}
	}
}

// Release unlocks the directory. To close it would not do: a child that another goroutine
// has just forked has it open until its exec.
func (c *Claim) Release() {
	_ = unix.Flock(int(c.dir.Fd()), unix.LOCK_UN)
	c.dir.Close()
}

// mkdirAll is os.MkdirAll with a mode of 0700 whatever the umask of this process, which may
// be anything where it is a service.
func mkdirAll(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	dir = strings.TrimRight(dir, "/")
	if i := strings.LastIndexByte(dir, '/'); i > 0 {
		if err := mkdirAll(dir[:i]); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		info, statErr := os.Stat(dir)
		switch {
		case statErr == nil && info.IsDir():
			return nil // somebody has just made it
		case statErr != nil && !errors.Is(statErr, fs.ErrNotExist): // a link to nothing is no directory
			return statErr
		}
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return err
	}
	if info, err := os.Lstat(dir); err != nil || info.Mode().Perm() == 0o700 {
		return err
	}
	// Not through a link that has taken its place; Linux can do that since 6.6.
	if unix.Fchmodat(unix.AT_FDCWD, dir, 0o700, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil
	}
	return os.Chmod(dir, 0o700)
}

func createPodDir(dir string) error {
	err := mkdirAll(dir)
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(dir)
	}
	switch {
	case err != nil:
		return fmt.Errorf("create pod directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("pod directory %s is a %s, not a directory of its own: remove it", PathText(dir), fileKind(info))
	case int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
		return fmt.Errorf("pod directory %s belongs to user %d, not to user %d who starts the pod", PathText(dir), info.Sys().(*syscall.Stat_t).Uid, os.Geteuid())
	}
	return nil
}
