//go:build unix && !linux

package scripts

import (
	"syscall"
	"time"
)

// endsWithin waits for the end of a process that is not a child. There is no
// event for that here.
func endsWithin(pid int, timeout time.Duration) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); ; {
		if syscall.Kill(pid, 0) == syscall.ESRCH {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
		<-tick.C
	}
}
