//go:build unix

package spawn

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// logTrouble tells why the last words of a pod may be missing in its log; "" if
// there is no such reason.
func logTrouble(path string) string {
	var disk unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &disk); err == nil && disk.Blocks > 0 && disk.Bavail == 0 {
		return "the disk of the log is full: the pod's last words may be missing"
	}
	var limit unix.Rlimit
	info, err := os.Stat(path)
	if err == nil && unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) == nil && uint64(info.Size()) >= limit.Cur {
		return fmt.Sprintf("the log has reached the file-size limit of %d bytes (ulimit -f): the pod's last words may be missing", limit.Cur)
	}
	return ""
}
