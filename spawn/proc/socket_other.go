//go:build unix && (!linux || portable)

package proc

import (
	"fmt"
	"net"
)

// maxSocketAddress is the longest path that fits into a socket address:
// sun_path has 104 bytes on macOS and the BSDs (unix(4)).
const maxSocketAddress = 103

// SocketAddress returns an address for a path, if one can hold it.
func SocketAddress(path string) (address string, release func(), err error) {
	if len(path) > maxSocketAddress {
		return "", nil, fmt.Errorf("the path is %d bytes long, and a socket address takes %d on this system: use a shorter runtime directory", len(path), maxSocketAddress)
	}
	return path, func() {}, nil
}

// Listener connects to a socket and closes the connection. There is no portable way to
// know who listens there: the number is 0.
func Listener(path string) (pid int, err error) {
	address, release, err := SocketAddress(path)
	if err != nil {
		return 0, err
	}
	defer release()
	if len(address) > 0 && address[0] == '@' {
		address = "./" + address // else it would be an abstract address
	}
	// Connecting to a Unix socket never waits: there is nothing to cancel.
	conn, err := net.Dial("unix", address)
	if err != nil {
		if op, ok := err.(*net.OpError); ok {
			err = op.Err
		}
		return 0, err
	}
	return 0, conn.Close()
}

func holdListener(path string) (h *Handle, name string, err error) {
	_, err = Listener(path)
	return nil, "", err
}
