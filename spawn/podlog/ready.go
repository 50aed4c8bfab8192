package podlog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readyPrefix begins the ready line; the tab belongs to it.
const readyPrefix = "YOI-READY\t"

// IsReady reports whether a line is a ready line, a malformed one included.
func IsReady(line []byte) bool { return bytes.HasPrefix(line, []byte(readyPrefix)) }

// IsNearlyReady reports whether a line was probably meant to be a ready line, but is
// none: with a logger's time before it, or spaces for tabs. A line of source in a stack
// trace has an escaped tab.
func IsNearlyReady(line string) bool {
	return strings.Contains(strings.ReplaceAll(line, `YOI-READY\t`, ""), "YOI-READY") && !strings.HasPrefix(line, readyPrefix)
}

// A Ready is what a ready line says, in the bytes that the pod wrote: a path need
// not be valid UTF-8.
type Ready struct{ Name, Socket string }

// ParseReady reads a ready line, without its newline. Its error says what is
// wrong with a malformed one.
func ParseReady(line []byte) (Ready, error) {
	name, socket, _ := strings.Cut(strings.TrimPrefix(string(line), readyPrefix), "\t")
	switch {
	case name == "":
		return Ready{}, errors.New("it has no name")
	case socket == "":
		return Ready{}, errors.New("it has no socket path")
	case strings.ContainsRune(socket, 0):
		return Ready{}, errors.New("its socket path holds a NUL byte")
	case len(socket) >= unix.PathMax: // which counts the NUL that ends it
		return Ready{}, fmt.Errorf("its socket path has %d bytes, and no system call takes more than %d", len(socket), unix.PathMax-1)
	}
	return Ready{name, socket}, nil
}

// Ready returns the content of the first ready line of the log. If the log is too long to
// be read before late, its middle is left out. Ready returns an error if there is no ready
// line, or if it is malformed.
func (l *Log) Ready(late time.Time) (told Ready, err error) {
	err = errors.New("it has no ready line")
	l.Skip = new(Tail).Skip
	failed := l.Drain(func(line []byte, _ bool) error {
		if !IsReady(line) {
			return nil
		}
		told, err = ParseReady(line)
		return errStopFollowing
	}, func() bool { return time.Now().After(late) })
	if failed != nil && !errors.Is(failed, errStopFollowing) {
		err = failed
	}
	return told, err
}
