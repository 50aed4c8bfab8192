package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// file returns the path of what /proc has of a process.
func file(pid int, name string) string { return fmt.Sprintf("%s/%d/%s", root, pid, name) }

// Stat is what /proc/PID/stat tells of a process (proc(5)).
type Stat struct {
	State                  byte // as ps shows it: Z has ended, T is stopped
	Parent, Group, Session int
	Exiting                bool // it is about to end, or has: its descriptors may be closed already
	Start                  int64
}

func readStat(path string) (s Stat, ok bool) {
	text, err := read(path)
	if err != nil {
		return Stat{}, false
	}
	// The command's name, field 2, may hold spaces and parentheses.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return Stat{}, false
	}
	number := func(field int) int {
		n, _ := strconv.Atoi(fields[field-3])
		return n
	}
	const exiting = 0x4 // PF_EXITING in the kernel's sched.h
	return Stat{
		State: fields[0][0], Parent: number(4), Group: number(5), Session: number(6),
		Exiting: number(9)&exiting != 0, Start: int64(number(22)),
	}, true
}

// Of returns the ID of the process that has a number now; the zero ID if there is none.
func Of(pid int) ID {
	if s, ok := Lookup(pid); ok {
		return ID{pid, s.Start}
	}
	return ID{}
}

// OfChild is Of for a child of this process; the zero ID if it was reaped.
func OfChild(pid int) ID {
	if s, ok := Lookup(pid); ok && s.Parent == os.Getpid() {
		return ID{pid, s.Start}
	}
	return ID{}
}

// Ended reports whether a process has ended, be it that nobody has reaped it yet.
func Ended(pid int) bool {
	s, ok := Lookup(pid)
	return !ok || s.State == 'Z' || s.State == 'X'
}

// Ending reports whether a process has ended, or is about to.
func Ending(pid int) bool {
	s, ok := Lookup(pid)
	return !ok || s.Exiting
}

// Stopped reports whether a process was stopped by a signal: each of its threads, of
// which one may still run for a moment on another core.
func Stopped(pid int) bool {
	if s, ok := Lookup(pid); !ok || s.State != 'T' {
		return false
	}
	return !slices.ContainsFunc(names(file(pid, "task")), func(thread string) bool {
		s, ok := readStat(file(pid, "task/"+thread+"/stat"))
		return ok && !strings.ContainsRune("TZX", rune(s.State))
	})
}

// StopsWithin waits until a process was stopped by a signal, or has ended, for at most d,
// and reports whether that came: a signal is sent before it takes effect. Nothing tells of
// a process that is not a child.
func StopsWithin(pid int, d time.Duration) bool {
	for end := time.Now().Add(d); ; <-time.After(time.Millisecond) {
		if Stopped(pid) || Ended(pid) || !Proves {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// Status returns a field of /proc/PID/status (proc(5)); "" if there is none.
func Status(pid int, field string) string {
	text, _ := read(file(pid, "status"))
	_, value, _ := strings.Cut(string(text), "\n"+field+":\t")
	value, _, _ = strings.Cut(value, "\n")
	return value
}

// Takes reports whether a process handles, ignores or blocks a signal, so that the
// signal does not end it.
func Takes(pid int, sig unix.Signal) bool {
	if sig == unix.SIGKILL {
		return true // nobody can, and it makes no difference
	}
	return slices.ContainsFunc([]string{"SigCgt", "SigIgn", "SigBlk"}, func(field string) bool {
		set, err := strconv.ParseUint(Status(pid, field), 16, 64)
		return err != nil || set&(1<<(sig-1)) != 0 // or the process has ended
	})
}

// WorkingDir returns the directory that a process is in: started, if it is still
// in that one, or that cannot be known.
func WorkingDir(pid int, started string) string {
	link := file(pid, "cwd")
	dir, err := os.Readlink(link)
	if err != nil {
		return started
	}
	// The link leads there by itself, whatever its text says: "(deleted)", or the
	// name that the directory has for a process with another root.
	at, err := os.Stat(link)
	if err != nil || isAt(at, started) || !isAt(at, dir) {
		return started
	}
	return dir
}

func isAt(dir fs.FileInfo, path string) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(dir, info)
}

// tick is the unit of the times in /proc (proc(5)).
const tick = time.Second / 100

// age returns how long a process has run that started at a time.
func age(start int64) time.Duration { return max(0, time.Duration(Ticks()-start)*tick) }

// StartedSince reports whether a process started at a time, as a file has it, or later.
func StartedSince(id ID, t time.Time) bool {
	// Both times of the process are in ticks, and the clocks of file systems are coarse.
	return time.Now().Add(-age(id.Start)).After(t.Add(-3 * tick))
}

func environ(pid int) ([]byte, error) { return read(file(pid, "environ")) }

// CommandLine returns the words of a process's command line; nil if it has none.
func CommandLine(pid int) []string {
	line, _ := read(file(pid, "cmdline"))
	if line = bytes.TrimRight(line, "\x00"); len(line) == 0 {
		return nil
	}
	return strings.Split(string(line), "\x00")
}

// Ancestors returns the processes that this one descends from, the nearest first, as far
// as the system shows them.
func Ancestors() (above []Process) {
	const most = 64 // they may change meanwhile
	for pid := os.Getppid(); Proves && pid > 0 && len(above) < most; {
		s, ok := Lookup(pid)
		if !ok {
			break
		}
		above = append(above, Process{ID: ID{pid, s.Start}, Args: CommandLine(pid), Age: age(s.Start)})
		pid = s.Parent
	}
	return above
}

// Stderr describes the file that is the stderr of a process; nil if that is not known.
func Stderr(pid int) fs.FileInfo {
	info, err := os.Stat(file(pid, "fd/2"))
	if err != nil {
		return nil
	}
	return info
}

// hasFile reports whether a descriptor of a process is open on a file, and by the name that
// the file was opened by here: a log with several names may be another process's.
func hasFile(pid, fd int, log *os.File) bool {
	theirs := file(pid, fmt.Sprint("fd/", fd))
	open, err := os.Stat(theirs)
	info, ownErr := log.Stat()
	if err != nil || ownErr != nil || !os.SameFile(open, info) {
		return false
	}
	if info.Sys().(*syscall.Stat_t).Nlink == 1 {
		return true // in whatever mount namespace it has another path
	}
	name, err := os.Readlink(theirs)
	own, ownErr := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", log.Fd()))
	return err == nil && ownErr == nil && name == own
}

// All returns the numbers of all processes that the system shows.
func All() (pids []int) {
	for _, name := range names(root) {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// lastPID returns the number that was given last to a process or a thread.
func lastPID() (pid int) {
	load, _ := read(root + "/loadavg")
	_, _ = fmt.Sscan(string(load[bytes.LastIndexByte(load, ' ')+1:]), &pid)
	return pid
}

// read is os.ReadFile for what is in /proc: to look first whether it could be waited
// for costs as much again.
func read(path string) (text []byte, err error) {
	err = open(path, 0, func(fd int) error {
		text = make([]byte, 0, 4096)
		for {
			n, err := unix.Read(fd, text[len(text):cap(text)])
			switch {
			case n > 0:
				text = slices.Grow(text[:len(text)+n], 1)
			case !errors.Is(err, unix.EINTR):
				return err
			}
		}
	})
	return text, err
}

// names returns what is in a directory of /proc.
func names(dir string) (names []string) {
	_ = open(dir, unix.O_DIRECTORY, func(fd int) error {
		block := make([]byte, 8192)
		for {
			n, err := unix.ReadDirent(fd, block)
			if n <= 0 {
				return err
			}
			_, _, names = unix.ParseDirent(block[:n], -1, names)
		}
	})
	return names
}

// open calls f with a descriptor of a file. What ends processes must not depend on whether
// one is left.
func open(path string, flags int, f func(fd int) error) error {
	attempt := func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|flags, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return f(fd)
	}
	err := attempt()
	if errors.Is(err, unix.EMFILE) {
		err = withDescriptor(attempt)
	}
	return err
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
