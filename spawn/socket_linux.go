package spawn

import (
	"fmt"
	"net"
	"os"
	"syscall"

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

// checkPeer tells whether the process that listens on a socket can be the pod
// with the process pid. That pod's children, and whatever they leave behind,
// are younger than itself: a listener that is older belongs to somebody else,
// such as a stale pod of the same name.
func checkPeer(conn net.Conn, pid int) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if peerErr != nil {
		return os.NewSyscallError("getsockopt", peerErr)
	}
	if int(peer.Pid) == pid {
		return nil
	}
	ours := procStat(pid)
	if ours == nil || ours.state() == "Z" {
		return errEnded
	}
	if theirs := procStat(int(peer.Pid)); theirs != nil && theirs.startTime() < ours.startTime() {
		return fmt.Errorf("process %d answers there, which is older than this pod (process %d): a stale pod of the same name?", peer.Pid, pid)
	}
	return nil
}
