//go:build unix && !linux

package fakepod

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// shortName refuses a path that does not fit into a socket address (104 bytes
// with the NUL): there is no way around that here.
func shortName(path string) (name string, release func(), err error) {
	if len(path) >= 104 {
		return "", nil, fmt.Errorf("the socket's path is %d bytes long, and a socket address takes 103: use a shorter runtime directory", len(path))
	}
	return path, func() {}, nil
}

func inherited() (map[string]string, error) {
	return nil, errors.New("this system does not tell which descriptors were inherited")
}

// raise sends this process a signal. What Go makes of a deadly one stays.
func raise(sig syscall.Signal, _ bool) error { return syscall.Kill(os.Getpid(), sig) }

const parentDeathSignal = 0
