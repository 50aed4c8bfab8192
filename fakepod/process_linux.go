package fakepod

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// shortName returns a name for a socket's path that fits into a socket address
// (108 bytes with the NUL): a long one goes through a descriptor of its
// directory, which is open until release.
func shortName(path string) (name string, release func(), err error) {
	if len(path) < 108 {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", filepath.Dir(path), err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { _ = unix.Close(fd) }, nil
}

// inherited returns the descriptors that the process was started with, and
// what they are: the ones that are not close-on-exec, as all are that the
// process opened itself.
func inherited() (map[string]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	fds := map[string]string{}
	for _, entry := range entries {
		fd, _ := strconv.Atoi(entry.Name())
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // its own, or the one that listed them
		}
		if fds[entry.Name()], err = os.Readlink("/proc/self/fd/" + entry.Name()); err != nil {
			return nil, err
		}
	}
	return fds, nil
}

// raise sends this process a signal, which takes effect before raise returns: a
// signal for the whole process may be taken by another thread, a little later. A
// deadly one kills, without a core file, whatever Go would make of it.
func raise(sig syscall.Signal, deadly bool) error {
	if deadly && sig != syscall.SIGKILL {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			return err
		}
		var byDefault [64]byte // a sigaction of zeros, wherever its fields are
		_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
		if errno != 0 {
			return errno
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return unix.Tgkill(os.Getpid(), unix.Gettid(), sig)
}

// parentDeathSignal is what the process was started with. It belongs to the thread on
// which packages are initialized.
var parentDeathSignal = func() (sig int) {
	_ = unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&sig)), 0, 0, 0)
	return sig
}()
