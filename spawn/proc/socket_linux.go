//go:build !portable

package proc

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxSocketAddress is the longest path that fits into a socket address with
// the NUL that ends it: sun_path has 108 bytes (unix(7)).
const maxSocketAddress = 107

// SocketAddress returns an address for a path of any length. The descriptor
// that a long one is reached through is open until release.
func SocketAddress(path string) (address string, release func(), err error) {
	if len(path) <= maxSocketAddress {
		return path, func() {}, nil
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), func() { _ = unix.Close(fd) }, nil
}

// Listener connects to a socket, closes the connection, and returns the process that
// listens there, or did when it began to. It never waits. Package net would do the same
// with three times the system calls.
func Listener(path string) (pid int, err error) {
	fd, err := connect(path)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return peer(fd)
}

func connect(path string) (fd int, err error) {
	address, release, err := SocketAddress(path)
	if err != nil {
		return -1, err
	}
	defer release()
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

func peer(fd int) (pid int, err error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, os.NewSyscallError("getsockopt", err)
	}
	return int(cred.Pid), nil
}

// holdListener holds the process that listens on a socket; nil if that has ended, and
// another one, such as its child, serves there. It also returns the name that the socket
// was bound to.
func holdListener(path string) (h *Handle, name string, err error) {
	fd, err := connect(path)
	if err != nil {
		return nil, "", err
	}
	defer unix.Close(fd)
	if address, err := unix.Getpeername(fd); err == nil {
		name = address.(*unix.SockaddrUnix).Name
	}
	pid, err := peer(fd)
	if err != nil || pid == 0 {
		return nil, name, err
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD) // since Linux 6.5
	if err != nil {
		h, err := Hold(Of(pid))
		if err == nil && !holdsListener(pid) { // the number may be somebody else's
			h.Close()
			h = nil
		}
		return h, name, nil
	}
	h = newHandle(Of(pid), pidfd)
	// In this order: while it has not ended, the number is its own.
	if h.Ended() || h.PID == 0 {
		h.Close()
		h = nil
	}
	return h, name, nil
}

// holdsListener reports whether a process has a Unix socket that listens.
func holdsListener(pid int) bool {
	sockets := socketPaths()
	entries, _ := os.ReadDir(file(pid, "fd"))
	return slices.ContainsFunc(entries, func(entry os.DirEntry) bool {
		target, _ := os.Readlink(file(pid, "fd/"+entry.Name()))
		return sockets[target].listens
	})
}
