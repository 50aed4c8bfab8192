//go:build !portable

package proc

import (
	"fmt"

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
