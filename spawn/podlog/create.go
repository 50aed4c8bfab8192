package podlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"example.com/podharness/spawn/safefile"
	"golang.org/x/sys/unix"
)

// LogName is the name of a pod's log in its directory.
const LogName = "stderr.log"

// Create makes the log in a pod directory, and opens it twice: for the pod, which appends
// to it, and for a reader. fresh has an older log replaced, not truncated. Links are
// refused: whoever can put one there would choose what gets overwritten.
func Create(podDir string, fresh bool) (stderr, reader *os.File, err error) {
	path := podDir + "/" + LogName
	if fresh {
		_ = os.Remove(path)
	}
	if stderr, err = openLogFile(path); err != nil {
		return nil, nil, err
	}
	if reader, err = safefile.Open(path); err != nil {
		stderr.Close()
		return nil, nil, fmt.Errorf("create pod log: %w", err)
	}
	return stderr, reader, nil
}

// openLogFile opens the log for appending, empty and 0600: what the pod writes after its
// log was truncated goes to the new end of the file, not to the old one.
func openLogFile(path string) (*os.File, error) {
	// Without waiting, should somebody have put a FIFO there.
	const flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	stderr, err := os.OpenFile(path, flags|os.O_EXCL, 0o600)
	fresh := err == nil // another name of it is that of a watcher, such as the harness
	if errors.Is(err, fs.ErrExist) {
		stderr, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		if info, statErr := os.Lstat(path); statErr == nil && !info.Mode().IsRegular() {
			return nil, notRegular(path, info)
		}
		return nil, fmt.Errorf("create pod log: %w", err)
	}
	info, err := stderr.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		stderr.Close()
		return nil, notRegular(path, info)
	case !fresh && info.Sys().(*syscall.Stat_t).Nlink > 1:
		// To truncate it would be to truncate a file elsewhere: it gets one name less.
		stderr.Close()
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("create pod log: %w", err)
		}
		return openLogFile(path)
	case info.Size() > 0:
		err = stderr.Truncate(0)
	}
	if err == nil && info.Mode().Perm() != 0o600 {
		err = stderr.Chmod(0o600)
	}
	if err == nil {
		err = syscall.SetNonblock(int(stderr.Fd()), false) // the pod shares the flag
	}
	if err != nil {
		stderr.Close()
		return nil, fmt.Errorf("create pod log: %w", err)
	}
	return stderr, nil
}

func notRegular(path string, info fs.FileInfo) error {
	return fmt.Errorf("pod log %s is a %s, not a regular file: remove it", PathText(path), fileKind(info))
}

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

func fileKind(info fs.FileInfo) string {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return "symbolic link"
	case info.IsDir():
		return "directory"
	case info.Mode().IsRegular():
		return "regular file"
	}
	return "special file"
}

// Trouble says why the last words of a pod may be missing in its open log; "" if there is
// no such reason.
func Trouble(log *os.File) string {
	path := log.Name()
	var disk unix.Statfs_t
	if err := unix.Statfs(path[:strings.LastIndexByte(path, '/')+1], &disk); err == nil && disk.Blocks > 0 && disk.Bavail == 0 {
		return "the disk of the log is full: the pod's last words may be missing"
	}
	var limit unix.Rlimit
	info, err := log.Stat()
	if err == nil && unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) == nil && uint64(info.Size()) >= limit.Cur {
		return fmt.Sprintf("the log has reached the file-size limit of %d bytes (ulimit -f): the pod's last words may be missing", limit.Cur)
	}
	if newer := Newer(log); newer != nil {
		newer.Close()
		return ReplacedTrouble
	}
	return ""
}
