//go:build unix && (!linux || portable)

package proc

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// There is no portable way to read another process's environment, nor to hold a process:
// what a pod leaves outside of its process group is not found here, and a process is not
// told from a later one with its number.

// Proves tells whether OwnerOf can prove whose a process is.
const Proves = false

// Stat is what the system tells of a process: nothing.
type Stat struct {
	State                  byte
	Parent, Group, Session int
	Exiting                bool
	Start                  int64
}

// Lookup cannot tell here.
func Lookup(int) (Stat, bool) { return Stat{}, false }

// All returns nothing here.
func All() []int { return nil }

// Of returns the number of a process; the zero ID if there is none.
func Of(pid int) ID {
	if Ended(pid) {
		return ID{}
	}
	return ID{PID: pid}
}

// OfChild cannot tell here.
func OfChild(int) ID { return ID{} }

// Ended reports whether a process has ended and was reaped.
func Ended(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }

// Ending is Ended here.
func Ending(pid int) bool { return Ended(pid) }

// Stopped cannot tell here.
func Stopped(int) bool { return false }

// ChildEnded cannot tell without reaping here.
func ChildEnded(int) bool { return false }

// StopsWithin does not wait: there is no portable way to.
func StopsWithin(int, time.Duration) bool { return true }

// Takes cannot tell here.
func Takes(int, unix.Signal) bool { return true }

// WorkingDir cannot tell here.
func WorkingDir(_ int, started string) string { return started }

// Ticks has no clock here.
func Ticks() int64 { return 0 }

func startedSince(ID, time.Time) bool { return true }

// Ancestors cannot tell here.
func Ancestors() []Process { return nil }

// Stderr cannot tell here.
func Stderr(int) fs.FileInfo { return nil }

func hasMark(int, string) bool { return false }

func hasFile(int, int, fs.FileInfo) bool { return false }

// Find finds nothing here.
func Find(Match) []Process { return nil }

// Kill kills nothing here.
func Kill(Match, time.Time) []Process { return nil }

// A Range is of no use here.
type Range struct{ First int }

// Now returns a Range.
func Now() Range { return Range{} }

// Lasting finds nothing here.
func Lasting(Match, Range, time.Duration) []Process { return nil }

// A Handle is a number here.
type Handle struct{ ID }

// Hold returns a handle of a process. The error is os.ErrProcessDone if it was reaped.
func Hold(id ID) (*Handle, error) {
	if id.PID <= 0 || Ended(id.PID) {
		return nil, os.ErrProcessDone
	}
	return &Handle{id}, nil
}

// Close does nothing.
func (h *Handle) Close() {}

// Signal sends a signal to the process.
func (h *Handle) Signal(sig unix.Signal) error { return done(unix.Kill(h.PID, sig)) }

// SignalGroup sends a signal to the process group that the process leads, or to the process.
func (h *Handle) SignalGroup(sig unix.Signal) error {
	if group, err := unix.Getpgid(h.PID); err == nil && group != h.PID {
		return h.Signal(sig)
	}
	return done(unix.Kill(-h.PID, sig))
}

func done(err error) error {
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// KillGroup kills the process group.
func (h *Handle) KillGroup() { _ = h.SignalGroup(unix.SIGKILL) }

// Ended reports whether the process was reaped.
func (h *Handle) Ended() bool { return Ended(h.PID) }

// EndsWithin waits until the process was reaped, for at most d, and reports whether that
// came.
func (h *Handle) EndsWithin(d time.Duration) bool {
	for end := time.Now().Add(d); !h.Ended(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// AwaitEnds does not wait.
func AwaitEnds([]*Handle, time.Duration) {}

// Describe says that nothing is known.
func Describe(w *strings.Builder, _ []Process, _ func(Process) string, _ func(string) string) {
	fmt.Fprintln(w, "this system does not tell which processes are alive")
}
