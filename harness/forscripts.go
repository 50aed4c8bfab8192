package harness

import (
	"fmt"
	"os"
	"time"
)

// TempDir makes a directory that the watchdog removes when this process ends,
// in whatever way. It is there for the commands of package scripts.
func TempDir() (string, error) {
	b, err := makeBinary()
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	return os.MkdirTemp(b.root, "temp")
}

// MarkEntry returns an entry NAME=value for the environment of a process that
// the test starts itself: whatever has it is killed at the end of the test at
// the latest, and by the watchdog when this process dies first. It fails the test
// if the sandbox cannot be made. It is there for package scripts.
func MarkEntry(tb TB) string {
	tb.Helper()
	box, err := sandboxOf(tb)
	if err != nil {
		tb.Fatalf("%v", err)
		return ""
	}
	box.mu.Lock()
	box.lent = true
	box.mu.Unlock()
	return markEnv + "=" + box.newMark()
}

// BeforeDeadline cuts a timeout so that it ends before the deadline of the test,
// if it has one, and leaves time to tear down. It is there for package scripts.
func BeforeDeadline(tb TB, timeout time.Duration) time.Duration {
	timeout, _ = beforeDeadline(tb, "", timeout)
	return timeout
}
