package spawn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// Dial connects to the socket of a pod. Unlike [net.Dial] it takes a path that
// is longer than a socket address (108 bytes on Linux), where the system has a
// way to do that; elsewhere the error says so. The caller closes the
// connection.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	address, release, err := socketAddress(path)
	if err != nil {
		return nil, err
	}
	defer release()
	if strings.HasPrefix(address, "@") {
		address = "./" + address // else it would be an abstract address
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", address)
	var op *net.OpError
	if errors.As(err, &op) {
		// The address may be a stand-in for the path, which the caller's
		// message names anyway.
		err = op.Err
	}
	return conn, err
}

// connect connects to the socket of a pod with the process pid and closes the
// connection. notYet tells that a later try may succeed.
func connect(path string, pid int) (notYet bool, err error) {
	listener, err := connectOnce(path)
	if err == nil {
		err = checkListener(listener, pid)
	}
	return isNotYet(err), err
}

// errEnded: something listens on the socket, but the pod's process has ended.
var errEnded = errors.New("the pod has ended")

// isNotYet tells the failures that end when the pod binds its socket, listens
// on it, or accepts the connections that fill its backlog. One that has ended
// is about to be reaped, which is told in another way.
func isNotYet(err error) bool {
	return errors.Is(err, errEnded) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// socketTrouble says in words why a socket could not be connected to yet.
func socketTrouble(path string, err error) string {
	switch info, statErr := os.Stat(path); {
	case errors.Is(err, syscall.EAGAIN):
		return "its backlog is full, nobody accepts connections"
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case statErr == nil && info.Mode()&fs.ModeSocket == 0:
		return "it is not a socket"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused, nobody listens on it"
	}
	return fmt.Sprint(err)
}
