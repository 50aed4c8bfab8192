package proc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"example.com/podharness/spawn/podlog"
)

// Bounds of a snapshot.
const (
	maxProcesses = 500
	maxFiles     = 200
	maxThreads   = 100
	maxSnapshot  = 2 << 20 // bytes, and what one process adds
)

// Describe writes the tree of processes, each with its state, its open files and its
// threads. command returns the command line of a process as it may be shown.
func Describe(w *strings.Builder, processes []Process, command func(Process) string) {
	if !Proves {
		fmt.Fprintln(w, "this system does not tell which processes are alive")
		return
	}
	fmt.Fprintf(w, "%d processes alive\n", len(processes))
	children := map[int][]Process{} // of 0 are those whose parent is not among them
	for _, p := range processes[:min(len(processes), maxProcesses)] {
		parent := 0
		if s, ok := Lookup(p.PID); ok && slices.ContainsFunc(processes, func(other Process) bool { return other.PID == s.Parent }) {
			parent = s.Parent
		}
		children[parent] = append(children[parent], p)
	}
	sockets := socketPaths()
	var describe func(parent int, indent string)
	describe = func(parent int, indent string) {
		for _, p := range children[parent] {
			if w.Len() > maxSnapshot {
				fmt.Fprintf(w, "%smore processes, which are left out here\n", indent)
				return
			}
			state := "ended"
			if s, ok := Lookup(p.PID); ok {
				state = fmt.Sprintf("%s, group %d, session %d", Status(p.PID, "State"), s.Group, s.Session)
			}
			fmt.Fprintf(w, "%s%d  %s, %v old: %s\n", indent, p.PID, state, p.Age, podlog.Printable(command(p)))
			for _, file := range openFiles(p.PID, sockets) {
				fmt.Fprintf(w, "%s    %s\n", indent, podlog.Printable(file))
			}
			describeThreads(w, p.PID, indent+"    ")
			describe(p.PID, indent+"  ")
		}
	}
	describe(0, "")
}

// describeThreads writes what each thread of a process does: its state, where in the
// kernel it waits, and for which system call (proc(5)).
func describeThreads(w io.Writer, pid int, indent string) {
	dir, err := os.Open(file(pid, "task"))
	if err != nil {
		return // it has ended
	}
	defer dir.Close()
	threads, _ := dir.Readdirnames(maxThreads + 1)
	for _, thread := range threads[:min(len(threads), maxThreads)] {
		tell := func(name string) string {
			text, err := os.ReadFile(filepath.Join(dir.Name(), thread, name))
			var system *fs.PathError
			if errors.As(err, &system) {
				return "unknown: " + system.Err.Error()
			}
			return strings.TrimSpace(string(text))
		}
		tid, _ := strconv.Atoi(thread)
		line := fmt.Sprintf("thread %s (%s): %s", thread, tell("comm"), Status(tid, "State"))
		if wchan := tell("wchan"); wchan != "0" {
			line += ", waits in " + wchan
		}
		if call := tell("syscall"); call != "running" && !strings.HasPrefix(call, "-1 ") {
			line += ", system call " + call
		}
		fmt.Fprintf(w, "%s%s\n", indent, podlog.Printable(line))
		if stack := tell("stack"); !strings.HasPrefix(stack, "unknown: ") { // who is not root may not read it
			stack = strings.ReplaceAll(strings.TrimPrefix(stack, "[<0>] "), "\n[<0>]", " <")
			fmt.Fprintf(w, "%s    kernel stack: %s\n", indent, stack)
		}
	}
	if len(threads) > maxThreads {
		fmt.Fprintf(w, "%smore threads, which are left out here\n", indent)
	}
}

// openFiles lists the descriptors of a process, sockets by their path.
func openFiles(pid int, sockets map[string]socket) (files []string) {
	dir := file(pid, "fd")
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

// socket is a Unix socket.
type socket struct {
	path    string // "" = it has none, or is none
	listens bool
}

func (s socket) String() string {
	switch {
	case s.path == "":
		return ""
	case s.listens:
		return "listening at " + s.path
	}
	return "connected at " + s.path
}

// socketPaths returns the Unix sockets that have a path, by what /proc/PID/fd calls them:
// /proc/net/unix (unix(7)).
func socketPaths() map[string]socket {
	paths := map[string]socket{}
	text, _ := read(root + "/net/unix")
	for _, line := range strings.Split(string(text), "\n") {
		// Num RefCount Protocol Flags Type St Inode Path
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		const acceptsConnections = "00010000" // SO_ACCEPTCON
		paths["socket:["+fields[6]+"]"] = socket{strings.Join(fields[7:], " "), fields[3] == acceptsConnections}
	}
	return paths
}
