package conformance

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// enoughDescriptors is how many a run may need at once, with some to spare.
const enoughDescriptors = 256

// enough finds out whether this process may open enough files.
func enough() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= enoughDescriptors {
		return err
	}
	return fmt.Errorf("only %d files can be open at once here, too few to judge anything: ulimit -n %d raises that", limit.Cur, enoughDescriptors)
}

// Prepare keeps stray descriptors that this process has inherited from what it starts, and
// lets it read and enter what it makes, whatever its umask, so that the results do not
// depend on who runs it.
func Prepare() {
	unix.Umask(unix.Umask(0o777) &^ 0o700)

	entries, _ := os.ReadDir("/dev/fd")
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
