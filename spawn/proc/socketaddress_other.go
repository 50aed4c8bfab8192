//go:build unix && (!linux || portable)

package proc

import (
	"fmt"
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
