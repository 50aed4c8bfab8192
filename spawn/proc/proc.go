// Package proc is the inside of spawn, harness and scripts: no promise is made
// about it. It is their one reader of the process table: what a process is
// ([Lookup]), which processes belong to a pod ([Find], [Run]), who listens on a socket
// ([Listener]), and how a process is ended without hitting another one that has
// got its number ([Hold], [Kill]).
//
// Most of it needs Linux. Elsewhere nothing is found, and nothing is killed but by
// a number that is known to be right.
package proc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MarkEnv is the environment variable that marks whatever a pod starts: the UUID of
// the test binary, the number of the sandbox and the number of the pod, with a slash
// behind each.
const MarkEnv = "PODHARNESS_MARK"

// An ID tells a process from a later one with the same number. The zero ID is no
// process.
type ID struct {
	PID   int
	Start int64 // when the process started, in clock ticks since boot; 0 = not known
}

// A Process is one that Find has found.
type Process struct {
	ID
	Args []string // its command line
	Mark string   // the value of MarkEnv in its environment; "" = it has none
	Age  time.Duration
	// Restless tells that the process forks and exits all the time, so that it was
	// never seen twice: the ID was its own a moment ago.
	Restless bool

	parent, group, session int
}

// A Match says which processes are meant: those to which any of its fields applies.
// The zero Match means none.
type Match struct {
	Mark  string // a mark that begins so; "" = none
	Group int    // the process group that this process has led; 0 = none
	Logs  string // stderr is a file below this directory; "" = none
	// LogsSince is when the processes that Logs means have started, or later, on the clock
	// of ID.Start: the log of an older one was moved there. 0 = at any time.
	LogsSince int64
	// Sockets means a process that cannot be read and listens on a socket below this
	// directory; "" = none. SocketsBefore is when those have started, or earlier, on the
	// clock of ID.Start; 0 = at any time.
	Sockets       string
	SocketsBefore int64
	// Run is that of the pod whose processes are meant: none has started before it, and those
	// that it proves to be the pod's are meant, too; nil = nothing is known of it.
	Run *Run
	// OrphanSince means a child of this process's own parent that leads a process
	// group but no session and started then or later, if its environment cannot be
	// read: a pod whose parent has died before it could say so. 0 = none.
	OrphanSince int64
}

// AwaitQuiet waits until processes have ended or the size of what they write has not
// changed for a while, for at most d.
func AwaitQuiet(pids []int, d time.Duration, size func() int64) {
	const quiet = 100 * time.Millisecond
	runs := func(pid int) bool { return !Ended(pid) }
	begin := time.Now()
	last := int64(-1)
	for since := begin; slices.ContainsFunc(pids, runs) && time.Since(begin) < d && time.Since(since) < quiet; <-time.After(5 * time.Millisecond) {
		if now := size(); now != last {
			last, since = now, time.Now()
		}
	}
}

// parsePID reads the text of a file pid.
func parsePID(text []byte) (int, error) {
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("its file pid names no process: %.40q", text)
	}
	return pid, nil
}
