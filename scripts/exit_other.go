//go:build unix && !linux

package scripts

import (
	"os"
	"syscall"
	"time"
)

// hold has nothing to hold a process by here.
func hold(int) (*os.File, error) { return nil, nil }

// endsWithin waits for the end of the orphan. There is no event for that here.
func (o *orphan) endsWithin(timeout time.Duration) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(timeout); ; {
		if syscall.Kill(o.PID, 0) == syscall.ESRCH {
			return true
		}
		if !time.Now().Before(deadline) {
			return false
		}
		<-tick.C
	}
}
