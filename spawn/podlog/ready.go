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

// NearMiss says why a line is no ready line that was probably meant to be one; "" = it was
// not meant to be, or is one.
func NearMiss(line []byte) string {
	before, after, found := bytes.Cut(withoutColours(nil, line), []byte("YOI-READY"))
	if !found {
		wide := bytes.ReplaceAll(line, []byte{0}, nil)
		if len(wide) < len(line) && bytes.Contains(wide, []byte("YOI-READY")) {
			return "it is in UTF-16, which has a NUL for every second byte: stderr must be UTF-8"
		}
		return ""
	}
	escaped := bytes.TrimLeft(after, `\`)
	for _, tab := range []string{"t", "u0009", "x09"} {
		// In a line of source, which a stack trace may have, a placeholder or a quote follows.
		if rest, ok := bytes.CutPrefix(escaped, []byte(tab)); ok && len(escaped) < len(after) {
			if len(rest) == 0 || bytes.IndexByte([]byte("\"'`%${}#<+&)"), rest[0]) >= 0 {
				return ""
			}
			return "its tabs were escaped, as loggers do: write it to stderr itself, past the logger"
		}
	}
	switch {
	case IsReady(line):
		return ""
	case len(before) > 0 && string(before) == "\ufeff":
		return "a byte order mark stands before it"
	case len(before) > 0:
		return "something stands before it: write it to stderr itself, past a logger"
	case line[0] == 0x1b:
		return "a colour stands before it"
	}
	return "no tab follows YOI-READY"
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
