//go:build unix && (!linux || portable)

package proc

import (
	"net"
)

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
