package spawn_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// exhaustInotify takes all inotify instances that the user has left, until the
// process ends.
func exhaustInotify(t *testing.T) bool {
	t.Helper()
	for range 2000 {
		if _, err := unix.InotifyInit1(unix.IN_CLOEXEC); err != nil {
			return true
		}
	}
	return false
}
