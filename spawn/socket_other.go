//go:build unix && (!linux || portable)

package spawn

import (
	"context"
	"fmt"
)

// maxSocketAddress is the longest path that fits into a socket address:
// sun_path has 104 bytes on macOS and the BSDs (unix(4)).
const maxSocketAddress = 103

func socketAddress(path string) (address string, release func(), err error) {
	if len(path) > maxSocketAddress {
		return "", nil, fmt.Errorf("the path is %d bytes long, and a socket address takes %d on this system: use a shorter runtime directory", len(path), maxSocketAddress)
	}
	return path, func() {}, nil
}

// connectOnce connects to a socket and closes the connection. There is no
// portable way to know who listens there.
func connectOnce(path string) (listener int, err error) {
	// Connecting to a Unix socket never waits: there is nothing to cancel.
	conn, err := Dial(context.Background(), path)
	if err != nil {
		return 0, err
	}
	return 0, conn.Close()
}

// checkListener cannot tell here.
func checkListener(int, int) error { return nil }
