package podlog

import (
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
