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

// Create makes the pod directory and the log, and opens it twice: for the
// pod, which appends to it, and for a reader. fresh has an older log replaced,
// not truncated. Links are refused: whoever can put one there would choose what
// gets overwritten.
func Create(podDir string, fresh bool) (stderr, reader *os.File, err error) {
	if err := createPodDir(podDir); err != nil {
		return nil, nil, err
	}
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
	return fmt.Errorf("pod log %s is a %s, not a regular file: remove it", path, fileKind(info))
}

func createPodDir(dir string) error {
	err := os.MkdirAll(dir, 0o700)
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(dir)
	}
	switch {
	case err != nil:
		return fmt.Errorf("create pod directory: %w", err)
	case !info.IsDir():
		return fmt.Errorf("pod directory %s is a %s, not a directory of its own: remove it", dir, fileKind(info))
	case int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
		return fmt.Errorf("pod directory %s belongs to user %d, not to user %d who starts the pod", dir, info.Sys().(*syscall.Stat_t).Uid, os.Geteuid())
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

// Trouble says why the last words of a pod may be missing in its log; "" if
// there is no such reason.
func Trouble(path string) string {
	var disk unix.Statfs_t
	if err := unix.Statfs(path[:strings.LastIndexByte(path, '/')+1], &disk); err == nil && disk.Blocks > 0 && disk.Bavail == 0 {
		return "the disk of the log is full: the pod's last words may be missing"
	}
	var limit unix.Rlimit
	info, err := os.Stat(path)
	if err == nil && unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) == nil && uint64(info.Size()) >= limit.Cur {
		return fmt.Sprintf("the log has reached the file-size limit of %d bytes (ulimit -f): the pod's last words may be missing", limit.Cur)
	}
	return ""
}
