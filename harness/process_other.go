//go:build unix && (!linux || portable)

package harness

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// There is no portable way to read another process's environment, nor to hold a
// process: what a pod leaves outside of its process group is not found here, and
// the watchdog kills nothing.

func find(kin) []Leak { return nil }

func kill(kin, time.Time) {}

type census struct{ pid int }

func takeCensus() census { return census{} }

func lasting(kin, census, time.Duration) []Leak { return nil }

func identify(int) (none podProcess) { return none }

func hold(podProcess) (pidfd int, ok bool) { return -1, false }

func killGroup(podProcess, int) {}

func sendTo(int, syscall.Signal) error { return errors.ErrUnsupported }

func awaitEnds([]int, time.Duration) {}

func bootTicks() int64 { return 0 }

func describeProcesses(w *strings.Builder, _ []Leak) {
	fmt.Fprintln(w, "this system does not tell which processes are alive")
}

func takes(int, unix.Signal) bool { return true } // nothing tells

func hasExited(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }

// stopsWithin does not wait: there is no portable way to.
func stopsWithin(int, time.Duration) bool { return true }
