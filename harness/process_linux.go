//go:build !portable

package harness

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"example.com/podharness/spawn"
	"golang.org/x/sys/unix"
)

// find returns the processes that are kin. A mark is inherited by whatever a pod
// starts, in whatever group or session, and outlives its parents.
func find(k kin) []Leak { return search(k, allProcesses) }

// search returns the kin among the processes of a list.
//
// While /proc is read a process can start another one and end, and a number may be
// given whose process is not there yet. So all are looked at again until there is
// nothing new, and none that was found has ended meanwhile: it may have left a
// child.
func search(k kin, list func() []int) []Leak {
	const rounds = 100 // where processes come and go all the time
	looked := map[int]bool{}
	found := map[int]Leak{}
	for range rounds {
		again := false
		for _, pid := range list() {
			if looked[pid] {
				continue
			}
			what := k.lookAt(pid)
			if what == isKin {
				found[pid] = Leak{PID: pid, Command: commandLine(pid), Age: age(pid)}
			}
			looked[pid] = what == isKin || what == isOther
			again = again || what != isGone
		}
		for pid := range found {
			if k.lookAt(pid) != isKin {
				delete(found, pid)
				again = true
			}
		}
		if !again {
			break
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Leak) int { return cmp.Compare(a.PID, b.PID) })
}

// census is a moment in the numbering of processes and threads, which goes up and
// at the largest number begins anew (pid_namespaces(7)).
type census struct {
	forks int // how many numbers were given since boot, at least; 0 = not known
	pid   int // of a process that was made just after it
}

// takeCensus reads the line "processes" (proc(5)).
func takeCensus() (c census) {
	text, _ := readProc("/proc/stat")
	_, forks, _ := strings.Cut(string(text), "\nprocesses ")
	_, _ = fmt.Sscan(forks, &c.forks)
	return c
}

// younger returns a list of the processes that there may be of those made since: a few
// numbers, if few were given, and else all processes.
func (c census) younger() func() []int {
	const few = 200
	var last int // the number given last
	var pids []int
	return func() []int {
		before := last
		load, _ := readProc("/proc/loadavg")
		_, _ = fmt.Sscan(string(load[bytes.LastIndexByte(load, ' ')+1:]), &last)
		if last == before && pids != nil {
			return pids // none was given since
		}
		// Numbers between which the process is not are those of another system, as a
		// container may be shown them, or have begun anew.
		if c.forks == 0 || takeCensus().forks-c.forks > few || last < c.pid || last-c.pid > few {
			pids = nil
			return allProcesses()
		}
		for pid := max(c.pid, before+1); pid <= last; pid++ {
			pids = append(pids, pid)
		}
		return pids
	}
}

// readProc is os.ReadFile for what is in /proc: to look first whether it could be waited
// for costs as much again.
func readProc(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case n > 0:
			text = slices.Grow(text[:len(text)+n], 1)
		case err != unix.EINTR:
			return text, err
		}
	}
}

func allProcesses() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// What a look at a process tells.
type look int

const (
	isGone look = iota
	isOther
	isKin
	// isStarting: between two programs a process has neither environment nor
	// command line.
	isStarting
)

func (k kin) lookAt(pid int) look {
	env, err := environ(pid)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH):
		return isGone
	case k.isMarked(env) || k.isMember(pid) || k.hasLog(pid) || err != nil && k.isOrphan(pid):
		// A thread that is not the first one has files in /proc, too.
		if leader := status(pid, "Tgid"); leader != "" && leader != strconv.Itoa(pid) {
			return isOther
		}
		return isKin
	case err != nil || len(env) > 0:
		return isOther
	}
	// Threads of the kernel and processes that have ended have no program and no
	// command line either (proc(5)).
	_, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err == nil && commandLine(pid) == "" {
		return isStarting
	}
	if env, err := environ(pid); err != nil || len(env) > 0 {
		return isStarting // it has got both since
	}
	return isOther
}

func environ(pid int) ([]byte, error) { return readProc(fmt.Sprintf("/proc/%d/environ", pid)) }

func (k kin) isMarked(env []byte) bool {
	entry := []byte(markEnv + "=" + k.mark)
	return k.mark != "" && (bytes.HasPrefix(env, entry) || bytes.Contains(env, append([]byte{0}, entry...)))
}

// isMember reports whether a process that has not ended is in the group. The
// number of a group is given away with the last member, and then to a process.
func (k kin) isMember(pid int) bool {
	if k.group == 0 {
		return false
	}
	stat := procStat(pid)
	return stat != nil && stat.number(pgrp) == int64(k.group) && stat.state() != "Z" && unix.Kill(k.group, 0) == unix.ESRCH
}

// hasLog reports whether a process has its stderr below the directory of logs.
func (k kin) hasLog(pid int) bool {
	if k.logs == "" {
		return false
	}
	stderr, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/2", pid))
	return strings.HasPrefix(stderr, k.logs+"/")
}

// isOrphan reports whether a process is in the place of a pod whose start the test
// binary did not survive: one that leads a group, but no session, and that whoever
// has inherited the watchdog has inherited, too.
func (k kin) isOrphan(pid int) bool {
	stat := procStat(pid)
	return k.since > 0 && stat != nil && stat.number(pgrp) == int64(pid) && stat.number(session) != int64(pid) &&
		stat.number(ppid) == int64(os.Getppid()) && stat.number(starttime) >= k.since
}

// status returns a field of /proc/PID/status (proc(5)); "" if there is none.
func status(pid int, field string) string {
	text, _ := readProc(fmt.Sprintf("/proc/%d/status", pid))
	_, value, _ := strings.Cut(string(text), "\n"+field+":\t")
	value, _, _ = strings.Cut(value, "\n")
	return value
}

// takes reports whether a process handles, ignores or blocks a signal, so that it is
// not ended by it.
func takes(pid int, sig unix.Signal) bool {
	if sig == unix.SIGKILL {
		return true // nobody can, and it makes no difference
	}
	return slices.ContainsFunc([]string{"SigCgt", "SigIgn", "SigBlk"}, func(field string) bool {
		set, err := strconv.ParseUint(status(pid, field), 16, 64)
		return err != nil || set&(1<<(sig-1)) != 0 // or the process has ended
	})
}

func commandLine(pid int) string {
	line, _ := readProc(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Join(strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), " ")
}

// tick is the unit of the times in /proc (proc(5)).
const tick = time.Second / 100

// bootTicks returns the time now on the clock of those.
func bootTicks() int64 {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return int64(time.Duration(now.Nano()) / tick)
}

// age returns how long a process has run.
func age(pid int) time.Duration {
	if stat := procStat(pid); stat != nil {
		return max(0, time.Duration(bootTicks()-stat.number(starttime))*tick)
	}
	return 0
}

// stat holds the fields of /proc/PID/stat (proc(5)) from the third on.
type stat []string

// procStat returns nil for a process that is not there.
func procStat(pid int) stat {
	text, err := readProc(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The command's name, field 2, may hold spaces and parentheses.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return nil
	}
	return fields
}

// The numbers of fields.
const (
	ppid      = 4
	pgrp      = 5
	session   = 6
	starttime = 22
)

func (s stat) state() string { return s[0] }

func (s stat) number(field int) int64 {
	n, _ := strconv.ParseInt(s[field-3], 10, 64)
	return n
}

// identify returns what tells a child of this process from whoever has its number
// later; the number 0 if it was reaped.
func identify(pid int) podProcess {
	stat := procStat(pid)
	if stat == nil || stat.number(ppid) != int64(os.Getpid()) {
		return podProcess{}
	}
	return podProcess{pid, stat.number(starttime)}
}

// hold returns a pidfd of the process, if its number still is its own.
func hold(p podProcess) (pidfd int, ok bool) {
	pidfd, err := unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return -1, false
	}
	// In this order: who has the number now has the pidfd.
	if stat := procStat(p.pid); stat == nil || stat.number(starttime) != p.start {
		_ = unix.Close(pidfd)
		return -1, false
	}
	return pidfd, true
}

// killGroup kills the process group that a process leads, or has led.
func killGroup(p podProcess, pidfd int) {
	const processGroup = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, since Linux 6.9
	if unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, processGroup) == unix.EINVAL {
		killLedGroup(p, pidfd)
	}
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it may have left its group
}

// killLedGroup kills the group by its number, which is the leader's while that is
// there.
func killLedGroup(p podProcess, pidfd int) {
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 0); n == 0 && err == nil {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
}

// kill kills kin until there is none left, or the deadline has passed.
func kill(k kin, deadline time.Time) {
	for found := find(k); len(found) > 0 && time.Now().Before(deadline); found = find(k) {
		// What has ended unseen is not found again, nor reaped.
		awaitEnds(k.signal(found, unix.SIGKILL), min(time.Until(deadline), time.Second))
	}
}

// signal sends a signal, 0 = none, to those that still are kin, and returns pidfds
// of all. Each is looked at again once it is held, so that a number that was given
// away meanwhile is never hit.
func (k kin) signal(found []Leak, sig unix.Signal) (pidfds []int) {
	for _, p := range found {
		fd, err := unix.PidfdOpen(p.PID, 0)
		if err != nil {
			continue
		}
		if k.lookAt(p.PID) == isKin {
			_ = unix.PidfdSendSignal(fd, sig, nil, 0)
		}
		pidfds = append(pidfds, fd)
	}
	return pidfds
}

// awaitEnds waits until all processes have ended, or for at most d, reaps those
// that this process has inherited, and closes their pidfds.
func awaitEnds(pidfds []int, d time.Duration) {
	deadline := time.Now().Add(d)
	inherits := inheritsOrphans()
	for _, fd := range pidfds {
		for {
			left := max(0, time.Until(deadline))
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((left+time.Millisecond-1)/time.Millisecond))
			if err != unix.EINTR {
				break
			}
		}
		if inherits {
			_ = unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil)
		}
		_ = unix.Close(fd)
	}
}

// inheritsOrphans reports whether this process is the parent of what pods leave
// behind. One that is not waits for none of them: they are somebody else's.
func inheritsOrphans() bool {
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return os.Getpid() == 1 || err == nil && subreaper != 0
}

// lasting returns which kin, all of them made after the census, are still there
// after at most d.
func lasting(k kin, since census, d time.Duration) []Leak {
	found := search(k, since.younger())
	if len(found) == 0 {
		return nil
	}
	awaitEnds(k.signal(found, 0), d)
	return search(k, since.younger())
}

// hasExited reports whether a process has ended, be it that nobody has reaped it yet.
func hasExited(pid int) bool {
	stat := procStat(pid)
	return stat == nil || strings.Contains("ZX", stat.state())
}

// stopsWithin waits until a process was stopped by a signal, or has ended: a
// signal is sent before it takes effect. Nothing tells of one that is not a child.
func stopsWithin(pid int, d time.Duration) bool {
	for end := time.Now().Add(d); ; <-time.After(time.Millisecond) {
		if stat := procStat(pid); stat == nil || strings.Contains("TZ", stat.state()) {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// sendTo sends a signal to the process of a pidfd.
func sendTo(pidfd int, sig unix.Signal) error { return unix.PidfdSendSignal(pidfd, sig, nil, 0) }

// Bounds of a snapshot.
const (
	maxProcesses = 500
	maxFiles     = 200
	maxThreads   = 100
	maxSnapshot  = 2 << 20 // bytes, and what one process adds
)

// describeProcesses writes the tree of processes, each with its state, its open files
// and its threads.
func describeProcesses(w *strings.Builder, processes []Leak) {
	fmt.Fprintf(w, "%d processes alive\n", len(processes))
	children := map[int64][]Leak{} // of 0 are those whose parent is not among them
	for _, p := range processes[:min(len(processes), maxProcesses)] {
		parent := int64(0)
		if stat := procStat(p.PID); stat != nil && slices.ContainsFunc(processes, func(l Leak) bool { return int64(l.PID) == stat.number(ppid) }) {
			parent = stat.number(ppid)
		}
		children[parent] = append(children[parent], p)
	}
	sockets := socketPaths()
	var describe func(parent int64, indent string)
	describe = func(parent int64, indent string) {
		for _, p := range children[parent] {
			if w.Len() > maxSnapshot {
				fmt.Fprintf(w, "%smore processes, which are left out here\n", indent)
				return
			}
			state := "ended"
			if stat := procStat(p.PID); stat != nil {
				state = fmt.Sprintf("%s, group %d, session %d", status(p.PID, "State"), stat.number(pgrp), stat.number(session))
			}
			fmt.Fprintf(w, "%s%d  %s, %v old: %s\n", indent, p.PID, state, p.Age, spawn.Printable(p.Command))
			for _, file := range openFiles(p.PID, sockets) {
				fmt.Fprintf(w, "%s    %s\n", indent, spawn.Printable(file))
			}
			describeThreads(w, p.PID, indent+"    ")
			describe(int64(p.PID), indent+"  ")
		}
	}
	describe(0, "")
}

// describeThreads writes what each thread of a process does: its state, where in the
// kernel it waits, and for which system call (proc(5)).
func describeThreads(w io.Writer, pid int, indent string) {
	dir, err := os.Open(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return // it has ended
	}
	defer dir.Close()
	threads, _ := dir.Readdirnames(maxThreads + 1)
	for _, thread := range threads[:min(len(threads), maxThreads)] {
		read := func(name string) string {
			text, err := os.ReadFile(filepath.Join(dir.Name(), thread, name))
			var system *fs.PathError
			if errors.As(err, &system) {
				return "unknown: " + system.Err.Error()
			}
			return strings.TrimSpace(string(text))
		}
		tid, _ := strconv.Atoi(thread)
		line := fmt.Sprintf("thread %s (%s): %s", thread, read("comm"), status(tid, "State"))
		if wchan := read("wchan"); wchan != "0" {
			line += ", waits in " + wchan
		}
		if call := read("syscall"); call != "running" && !strings.HasPrefix(call, "-1 ") {
			line += ", system call " + call
		}
		fmt.Fprintf(w, "%s%s\n", indent, spawn.Printable(line))
		if stack := read("stack"); !strings.HasPrefix(stack, "unknown: ") { // who is not root may not read it
			stack = strings.ReplaceAll(strings.TrimPrefix(stack, "[<0>] "), "\n[<0>]", " <")
			fmt.Fprintf(w, "%s    kernel stack: %s\n", indent, stack)
		}
	}
	if len(threads) > maxThreads {
		fmt.Fprintf(w, "%smore threads, which are left out here\n", indent)
	}
}

// openFiles lists the descriptors of a process, sockets by their path.
func openFiles(pid int, sockets map[string]string) (files []string) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{"open files unknown: " + err.Error()}
	}
	number := func(entry os.DirEntry) int { n, _ := strconv.Atoi(entry.Name()); return n }
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return cmp.Compare(number(a), number(b)) })
	for _, entry := range entries[:min(len(entries), maxFiles)] {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		files = append(files, strings.TrimSpace(fmt.Sprintf("fd %s: %s %s", entry.Name(), target, sockets[target])))
	}
	if more := len(entries) - maxFiles; more > 0 {
		files = append(files, fmt.Sprintf("%d more", more))
	}
	return files
}

// socketPaths returns the paths of Unix sockets by what /proc/PID/fd calls them,
// and whether they listen: /proc/net/unix (unix(7)).
func socketPaths() map[string]string {
	paths := map[string]string{}
	text, _ := readProc("/proc/net/unix")
	for _, line := range strings.Split(string(text), "\n") {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		state := "connected"
		if fields[3] == "00010000" { // SO_ACCEPTCON
			state = "listening"
		}
		paths["socket:["+fields[6]+"]"] = fmt.Sprintf("%s at %s", state, strings.Join(fields[7:], " "))
	}
	return paths
}
