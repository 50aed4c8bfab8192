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
	"time"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// Dial connects to the socket of a pod. Unlike [net.Dial] it takes a path that
// is longer than a socket address (108 bytes on Linux), where the system has a
// way to do that; elsewhere the error says so. While the backlog of the socket is full,
// Dial waits: a pod that is busy accepts the connection later. If ctx ends first, the
// error says so, and wraps EAGAIN and the context's. The caller closes the connection.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	address, release, err := proc.SocketAddress(path)
	if err != nil {
		return nil, err
	}
	defer release()
	if strings.HasPrefix(address, "@") {
		address = "./" + address // else it would be an abstract address
	}
	var d net.Dialer
	pace := podlog.NewPace(time.Time{})
	defer pace.Stop()
	for full := error(nil); ; {
		conn, err := d.DialContext(ctx, "unix", address)
		var op *net.OpError
		if errors.As(err, &op) {
			// The address may be a stand-in for the path, which the caller's
			// message names anyway.
			err = op.Err
		}
		switch {
		case errors.Is(err, syscall.EAGAIN):
			full = err
		case full == nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled):
			return conn, err
		}
		select {
		case <-pace.Next(false):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w (%w)", inSentences[deaf], full, ctx.Err())
		}
	}
}

// connect connects to the socket that the pod with the process pid has announced,
// and closes the connection. launch is a file that was made just before that
// process. The error may be one that a later try has not: see isNotYet.
func connect(path string, pid int, launch fs.FileInfo) error {
	// First: a socket that is replaced meanwhile is not taken for the new one.
	info, statErr := os.Stat(path)
	listener, err := proc.Listener(path)
	switch {
	case proc.ChildEnded(pid) || syscall.Kill(pid, 0) == syscall.ESRCH:
		return errEnded // whatever comes of what it has announced
	case err != nil:
		return err
	case statErr != nil:
		return errors.Unwrap(statErr) // it has just been bound
	case listener == pid:
		return nil
	}
	// The pod's children, and whatever they leave behind, are younger than itself. Where
	// one of the two is gone, or the system does not show them, that is not known.
	ours, isShown := proc.Lookup(pid)
	theirs, _ := proc.Lookup(listener)
	if ours.Exiting || !isShown && syscall.Kill(pid, 0) == syscall.ESRCH {
		return errEnded
	}
	if 0 < theirs.Start && theirs.Start < ours.Start {
		return fmt.Errorf("process %d answers there, which is older than this pod (process %d): a stale pod of the same name?", listener, pid)
	}
	if now, err := os.Stat(path); err != nil || !now.ModTime().Equal(info.ModTime()) {
		return syscall.ENOENT // it was replaced meanwhile: the next look tells by whom
	}
	if isOlder(info, launch) {
		return fmt.Errorf("it is older than this pod (process %d), and something still listens on it: a process that an earlier pod of the name has left?", pid)
	}
	return nil
}

// isOlder reports whether a socket was made before a file, as far as the clocks of
// their file systems tell.
func isOlder(socket, file fs.FileInfo) bool {
	made := socket.ModTime()
	if socket.Sys().(*syscall.Stat_t).Dev != file.Sys().(*syscall.Stat_t).Dev {
		made = made.Add(time.Second) // their clocks may be coarse, or another machine's
	}
	return made.Before(file.ModTime())
}

// errEnded: something listens on the socket, but the pod's process has ended.
var errEnded = errors.New("the pod has ended")

// isNotYet reports whether a failure is one that ends when the pod binds its socket, listens
// on it, or accepts the connections that fill its backlog. One that has ended
// is about to be reaped, which is told in another way.
func isNotYet(err error) bool {
	return errors.Is(err, errEnded) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
}

// What is at an announced path, in the words of [Error.Why] and of an [Observer].
const (
	listened  = "listened on"
	missing   = "missing"
	notSocket = "not a socket"
	refused   = "refused"
	deaf      = "deaf"
)

// stateOf returns what is at a path that was just connected to, with what error.
func stateOf(path string, err error) string {
	info, statErr := os.Stat(path)
	switch {
	case err == nil:
		return listened
	case errors.Is(err, syscall.EAGAIN):
		return deaf
	case statErr != nil || errors.Is(err, fs.ErrNotExist):
		return missing
	case info.Mode()&fs.ModeSocket == 0:
		return notSocket
	}
	return refused
}
