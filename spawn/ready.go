package spawn

import (
	"bytes"
	"strings"
)

// readyPrefix begins the ready line; the tab belongs to it.
const readyPrefix = "YOI-READY\t"

// parseReady reads one whole line of a pod's log, without its newline.
//
// isReady tells whether it is a ready line at all. One that is but lacks its
// name or its socket has ok false. Name and socket are the bytes that the pod
// wrote: a path need not be valid UTF-8.
func parseReady(line []byte) (name, socket string, isReady, ok bool) {
	rest, isReady := bytes.CutPrefix(line, []byte(readyPrefix))
	if !isReady {
		return "", "", false, false
	}
	name, socket, _ = strings.Cut(string(rest), "\t")
	return name, socket, true, name != "" && socket != ""
}

// isNearlyReady tells whether a line was probably meant to be a ready line, but
// is none: with a logger's time before it, or spaces for tabs.
func isNearlyReady(line string) bool {
	return strings.Contains(line, "YOI-READY") && !strings.HasPrefix(line, readyPrefix)
}
