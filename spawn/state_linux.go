package spawn

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// isStopped tells whether a process was stopped by a signal.
func isStopped(pid int) bool {
	stat := procStat(pid)
	return stat != nil && stat.state() == "T"
}

// stat holds the fields of /proc/PID/stat (proc(5)) from the third on.
type stat [][]byte

// procStat returns nil for a process that is not there.
func procStat(pid int) stat {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The command's name, field 2, may hold spaces and parentheses.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return nil
	}
	return fields
}

// state is field 3: R, S, D, Z (ended, not reaped), T (stopped), …
func (s stat) state() string { return string(s[0]) }

// startTime is field 22: when the process started, in clock ticks since boot.
func (s stat) startTime() uint64 {
	t, _ := strconv.ParseUint(string(s[19]), 10, 64)
	return t
}
