package proc

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Run is what is known of the run of a pod. A process that cannot be read, since it is not
// dumpable or is another user's (ptrace(2), PTRACE_MODE_READ), hides its mark. What everybody
// may read, /proc/PID/stat, proves it to be the pod's if its parent is, or if a process that is
// has made its group or session. Parents and leaders may end first: so a Run remembers
// matches. The zero Run began before all.
type Run struct {
	Pod     ID    // its process, for the caller to set
	start   int64 // on the clock of ID.Start
	forks   int   // how many numbers were given since boot when it began, at least; 0 = not known
	outside []int // groups and sessions that the pod has not made, but may be in
	end     func()

	mu       sync.Mutex      // guards all below
	known    map[ID]Process  // that were found to be the pod's
	asked    map[string]bool // sockets whose owner was asked for
	unproven []Process
}

// BeginRun begins a Run, which End ends. Until then this process inherits what pods leave.
func BeginRun() *Run {
	return &Run{start: Ticks(), forks: forks(), outside: []int{unix.Getpgrp(), ownSession()}, end: inheritOrphans(), asked: map[string]bool{}}
}

// RunOf is BeginRun for a pod that another program has started.
func RunOf(pod ID) *Run {
	r := BeginRun()
	r.Pod, r.start, r.forks = pod, pod.Start, 0
	if s, ok := Lookup(pod.PID); ok {
		r.outside = slices.DeleteFunc(append(r.outside, s.Group, s.Session), func(n int) bool { return n == pod.PID })
	}
	return r
}

// End ends the Run. It may be called again.
func (r *Run) End() {
	if r != nil && r.end != nil {
		r.end()
	}
}

// Unproven returns the processes that this process has inherited, that have begun during the
// Run, and that cannot be read, if nothing tells whose they are: as they were found last.
func (r *Run) Unproven() []Process {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unproven
}

func (r *Run) knows(id ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.known[id]
	return ok || id == r.Pod
}

// forks returns how many processes and threads were made since boot; 0 = not known.
func forks() (n int) {
	text, _ := read(root + "/stat") // its line "processes" (proc(5))
	_, line, _ := strings.Cut(string(text), "\nprocesses ")
	_, _ = fmt.Sscan(line, &n)
	return n
}

// numbers returns those of the processes that were made since the pod was, the number given
// last being last, if few were given, and else of all processes. Numbers go up, and at the
// largest begin anew (pid_namespaces(7)).
func (r *Run) numbers(last int) (pids []int, all bool) {
	const few = 200
	// Numbers between which the pod is not are those of another system, as a container may
	// be shown them, or have begun anew.
	if r.forks == 0 || forks()-r.forks > few || last < r.Pod.PID || last-r.Pod.PID > few {
		return All(), true
	}
	for pid := r.Pod.PID; pid <= last; pid++ {
		if isProcess(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, false
}

// prove moves the processes that are proven to be matches from those that cannot be read to
// those that were found, and reports whether there were any.
func (m Match) prove(found, unread map[int]Process) bool {
	before := len(unread)
	for again := before > 0; again; {
		again = false
		groups := m.Run.groups(found)
		for pid, p := range unread {
			if _, isChild := found[p.parent]; isChild || groups[p.group] || groups[p.session] {
				m.Run.know(p)
				found[pid] = p
				delete(unread, pid)
				again = true
			}
		}
	}
	return len(unread) < before
}

// Look has the Run remember what can be proven to be the pod's while that and others live: what
// descends from them. It looks once, and leaves /proc/PID/task alone: to reap a process of which
// that was read takes long on a busy machine.
func (m Match) Look() {
	m = m.withRun()
	found, unread := map[int]Process{}, map[int]Process{}
	pids, _ := m.Run.numbers(lastPID())
	for _, pid := range pids {
		switch what, p := m.look(pid); what {
		case isMatch:
			found[pid] = p
		case isUnread:
			unread[pid] = p
		}
	}
	m.prove(found, unread)
	for _, p := range found {
		m.Run.know(p) // it may hide from now on
	}
}

// settle has a Run remember what was found. Of the rest, which cannot be read, it proves by
// their sockets what it can, and has the Run tell what this process has inherited.
func (m Match) settle(found, unread map[int]Process) {
	for _, p := range found {
		m.Run.know(p) // it may hide from now on
	}
	if m.Sockets != "" && len(unread) > 0 {
		for pid := range m.Run.listeners(m.Sockets) {
			p, ok := unread[pid]
			if ok && (m.SocketsBefore == 0 || p.Start < m.SocketsBefore) && Of(pid) == p.ID && !isForeign(pid) {
				m.Run.know(p)
				found[pid] = p
				delete(unread, pid)
			}
		}
		m.prove(found, unread)
	}
	var unproven []Process
	for pid, p := range unread {
		if m.Run.outside != nil && isInherited(p) && Of(pid) == p.ID {
			unproven = append(unproven, p)
		}
	}
	slices.SortFunc(unproven, func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
	m.Run.mu.Lock()
	defer m.Run.mu.Unlock()
	m.Run.unproven = unproven
}

func (r *Run) know(p Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[ID]Process{}
	}
	r.known[p.ID] = p
}

// groups returns the process groups and sessions that matches have made.
func (r *Run) groups(found map[int]Process) map[int]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	groups := map[int]bool{}
	add := func(p Process) {
		for i, number := range []int{p.PID, p.group, p.session} {
			// A number whose process is younger was given away.
			if number > 0 && (i == 0 || r.outside != nil) && !slices.Contains(r.outside, number) && Of(number).Start <= p.Start {
				groups[number] = true
			}
		}
	}
	for _, p := range r.known {
		add(p)
	}
	for _, p := range found {
		add(p)
	}
	return groups
}

// isForeign reports whether a process descends from one that this process has started itself
// and that is no match: those of its forefathers that are pods are matches.
func isForeign(pid int) bool {
	const most = 64 // they may change meanwhile
	for range most {
		s, ok := Lookup(pid)
		if !ok || s.Parent <= 1 {
			return false
		}
		if s.Parent == os.Getpid() {
			return !isOrphan(pid, s)
		}
		pid = s.Parent
	}
	return false
}
