package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Descriptor is one that a process has open.
type Descriptor struct {
	PID, Number int
	Flags       int    // of open(2)
	Target      string // what it is open on, as /proc shows it
}

// Path returns a path that leads to what it is open on.
func (d Descriptor) Path() string { return file(d.PID, fmt.Sprint("fd/", d.Number)) }

// Descriptors returns what a process has open; none if that is not shown.
func Descriptors(pid int) (all []Descriptor) {
	entries, _ := os.ReadDir(file(pid, "fd"))
	for _, entry := range entries {
		number, _ := strconv.Atoi(entry.Name())
		d := Descriptor{PID: pid, Number: number}
		info, err := read(file(pid, "fdinfo/"+entry.Name()))
		_, text, found := strings.Cut(string(info), "flags:\t")
		flags, parseErr := strconv.ParseUint(strings.Fields(text + " x")[0], 8, 32)
		target, linkErr := os.Readlink(d.Path())
		if err == nil && found && parseErr == nil && linkErr == nil { // else it is closed by now
			d.Flags, d.Target = int(flags), target
			all = append(all, d)
		}
	}
	return all
}

// CountDescriptors returns how many descriptors a process has open; 0 if that is not shown.
func CountDescriptors(pid int) int { return len(names(file(pid, "fd"))) }

// Holders returns the processes that have the socket open that listens at a path.
func Holders(path string) (pids []int) {
	sockets := socketPaths()
	for _, pid := range All() {
		entries, _ := os.ReadDir(file(pid, "fd"))
		for _, entry := range entries {
			target, _ := os.Readlink(file(pid, "fd/"+entry.Name()))
			if s := sockets[target]; s.listens && s.path == path {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// CPUTime returns the CPU time that a process has used, to 10 ms.
func CPUTime(pid int) time.Duration {
	text, err := read(file(pid, "stat"))
	if err != nil {
		return 0
	}
	// The command's name may hold spaces and parentheses: fields 14 and 15 count from its end.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * tick
}

// OpenFiles returns how many files a process may open; 0 if that is not shown.
func OpenFiles(pid int) int {
	text, _ := read(file(pid, "limits"))
	_, line, _ := strings.Cut(string(text), "\nMax open files")
	n, _ := strconv.Atoi(strings.Fields(line + " x")[0])
	return n
}
