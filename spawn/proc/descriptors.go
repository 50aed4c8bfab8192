package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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

// OpenFiles returns how many files a process may open; 0 if that is not shown.
func OpenFiles(pid int) int {
	text, _ := read(file(pid, "limits"))
	_, line, _ := strings.Cut(string(text), "\nMax open files")
	n, _ := strconv.Atoi(strings.Fields(line + " x")[0])
	return n
}

// CloseInherited closes every descriptor above 2 that is not close-on-exec: at the
// beginning of a process, those that it has inherited.
func CloseInherited() {
	for _, fd := range Inheritable() {
		_ = unix.Close(fd)
	}
}

// Inheritable returns the descriptors above 2 that a child would inherit.
func Inheritable() (fds []int) {
	dir, err := os.Open("/dev/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}
