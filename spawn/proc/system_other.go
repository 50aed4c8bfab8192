//go:build unix && (!linux || portable)

package proc

import (
	"os"

	"golang.org/x/sys/unix"
)

// There is no portable way to read another process's environment, nor to hold a process:
// what a pod leaves outside of its process group is not found here, and a process is not
// told from a later one with its number.

// root is where nothing is: what would be read there is not known.
const root = os.DevNull

// Proves tells whether OwnerOf can prove whose a process is.
const Proves = false

// Lookup tells only whether there is a process, which ends when it was reaped, and its group.
func Lookup(pid int) (s Stat, ok bool) {
	s.Group, _ = unix.Getpgid(pid)
	return s, unix.Kill(pid, 0) != unix.ESRCH
}

// ChildEnded cannot tell without reaping here.
func ChildEnded(int) bool { return false }

// Ticks has no clock here.
func Ticks() int64 { return 0 }

func withDescriptor(func() error) error { return unix.EMFILE }

func isProcess(int) bool { return false }

func openPidfd(int) (int, error) { return -1, unix.ENOSYS }

func signalPidfd(int, unix.Signal, int) error { return unix.ENOSYS }

func inheritOrphans() (release func()) { return func() {} }

func (h *Handle) reap() {}

// Fork calls start.
func Fork(start func() (pid int, err error)) (pid int, err error) { return start() }

// Reaped does nothing here.
func Reaped(int) {}

func isOrphan(int, Stat) bool { return false }

func isInherited(Process) bool { return false }

func ownSession() int { return -1 }

func (r *Run) listeners(string) map[int]bool { return nil }
