//go:build !portable

package spawn

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// maxSocketAddress is the longest path that fits into a socket address with
// the NUL that ends it: sun_path has 108 bytes (unix(7)).
const maxSocketAddress = 107

// socketAddress returns an address for a path of any length. The descriptor
// that a long one is reached through is open until release.
func socketAddress(path string) (address string, release func(), err error) {
	if len(path) <= maxSocketAddress {
		return path, func() {}, nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { _ = unix.Close(fd) }, nil
}

// connectOnce connects to a socket, closes the connection, and returns the
// process that listens there. It never waits. Package net would do the same with
// three times the system calls.
func connectOnce(path string) (listener int, err error) {
	address, release, err := socketAddress(path)
	if err != nil {
		return 0, err
	}
	defer release()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		return 0, os.NewSyscallError("connect", err)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return int(peer.Pid), nil
}

// checkListener returns an error if the process that listens on a socket is older
// than the pod with the process pid. Where one of them is gone, or the system does
// not show them, that is not known.
func checkListener(listener, pid int) error {
	ours, theirs := procStat(pid), procStat(listener)
	if ours.exiting || ours.state == "" && unix.Kill(pid, 0) == unix.ESRCH {
		return errEnded
	}
	if 0 < theirs.started && theirs.started < ours.started {
		return fmt.Errorf("process %d answers there, which is older than this pod (process %d): a stale pod of the same name?", listener, pid)
	}
	return nil
}
