package spawn

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// readyPrefix begins the ready line; the tab belongs to it.
const readyPrefix = "YOI-READY\t"

// isReadyLine reports whether a line is a ready line, a malformed one included.
func isReadyLine(line []byte) bool { return bytes.HasPrefix(line, []byte(readyPrefix)) }

// isNearlyReady reports whether a line was probably meant to be a ready line, but
// is none: with a logger's time before it, or spaces for tabs. A line of source in a stack
// trace has an escaped tab.
func isNearlyReady(line string) bool {
	return strings.Contains(strings.ReplaceAll(line, `YOI-READY\t`, ""), "YOI-READY") && !strings.HasPrefix(line, readyPrefix)
}

// announcement is what a ready line says, in the bytes that the pod wrote: a path
// need not be valid UTF-8.
type announcement struct{ name, socket string }

// parseReady reads a ready line, without its newline. Its error says what is
// wrong with a malformed one.
func parseReady(line []byte) (announcement, error) {
	name, socket, _ := strings.Cut(strings.TrimPrefix(string(line), readyPrefix), "\t")
	switch {
	case name == "":
		return announcement{}, errors.New("it has no name")
	case socket == "":
		return announcement{}, errors.New("it has no socket path")
	case strings.ContainsRune(socket, 0):
		return announcement{}, errors.New("its socket path holds a NUL byte")
	case len(socket) >= unix.PathMax: // which counts the NUL that ends it
		return announcement{}, fmt.Errorf("its socket path has %d bytes, and no system call takes more than %d", len(socket), unix.PathMax-1)
	}
	return announcement{name, socket}, nil
}
