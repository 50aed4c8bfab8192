//go:build !portable

package proc

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inheriting is whether this process inherits what pods leave.
var inheriting struct {
	sync.Mutex                // guards all below
	users      int            // that have asked for it
	stop       func()         // ends it; nil = it has not begun
	wake       chan os.Signal // has it look for what has ended
}

// inheritOrphans makes this process a subreaper (prctl(2)) that reaps what it has inherited,
// until each caller has called the function that it got. A subreaper is the parent of what pods
// leave behind, and so can tell that from the rest of the system. Where it could not tell that
// from its own children, nothing is done.
func inheritOrphans() (release func()) {
	in := &inheriting
	in.Lock()
	defer in.Unlock()
	if in.users++; in.users == 1 && tellsOrphans() {
		beginInheriting()
	}
	return sync.OnceFunc(func() {
		in.Lock()
		defer in.Unlock()
		if in.users--; in.users == 0 && in.stop != nil {
			in.stop()
			in.stop = nil
		}
	})
}

func beginInheriting() {
	set := !inheritsOrphans() && unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == nil
	wake, end := make(chan os.Signal, 1), make(chan struct{})
	if !signal.Ignored(unix.SIGCHLD) { // else the system reaps all
		signal.Notify(wake, unix.SIGCHLD)
	}
	go func() { // for pods that wait until a process is gone
		defer signal.Stop(wake)
		for {
			select {
			case <-wake:
				// Those that wait for this process's own children come first, and many end at once.
				<-time.After(time.Millisecond)
				reapEnded()
			case <-end:
				return
			}
		}
	}()
	inheriting.wake = wake
	inheriting.stop = func() {
		if set {
			_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
		}
		close(end)
		reapEnded()
	}
}

// inheritsOrphans reports whether this process is the parent of what its descendants leave.
func inheritsOrphans() bool {
	var subreaper int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&subreaper)), 0, 0, 0)
	return os.Getpid() == 1 || err == nil && subreaper != 0
}

// reapEnded reaps the orphans that have ended.
func reapEnded() {
	var info unix.Siginfo
	if unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) != nil || info.Signo == 0 {
		return
	}
	for _, pid := range children() {
		if !ChildEnded(pid) {
			continue
		}
		if s, ok := Lookup(pid); ok && isOrphan(pid, s) {
			_ = unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG, nil)
		}
	}
}

// children returns those of the first thread, to which orphans are given.
func children() (pids []int) {
	text, _ := read(file(os.Getpid(), fmt.Sprintf("task/%d/children", os.Getpid())))
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// reap reaps the process if it is an orphan that has ended.
func (h *Handle) reap() {
	s, ok := Lookup(h.PID)
	if ok && s.Start == h.Start && s.Parent == os.Getpid() && (isOrphan(h.PID, s) || !tellsOrphans() && inheritsOrphans()) {
		_ = unix.Waitid(unix.P_PID, h.PID, nil, unix.WEXITED|unix.WNOHANG, nil)
	}
}

// started has the children of this process that Fork has made.
var started = struct {
	sync.Mutex // held while one is made (each that waited for syscall.ForkLock would keep a thread), and while orphans are told from children
	pids       map[int]bool
}{pids: map[int]bool{}}

// Fork calls start, which makes a child of this process without package os. Until Reaped is
// called with its number, the child is reaped by nobody else in this package.
func Fork(start func() (pid int, err error)) (pid int, err error) {
	started.Lock()
	defer started.Unlock()
	if pid, err = start(); err == nil {
		started.pids[pid] = true
	}
	return pid, err
}

// Reaped is called when nobody waits any more for a child, or a process that may have been
// inherited.
func Reaped(pid int) {
	started.Lock()
	delete(started.pids, pid)
	started.Unlock()
	inheriting.Lock()
	defer inheriting.Unlock()
	select {
	case inheriting.wake <- unix.SIGCHLD:
	default:
	}
}

// isOrphan reports whether a child of this process is known not to have been made by it.
func isOrphan(pid int, s Stat) bool {
	session := ownSession()
	switch {
	case s.Parent != os.Getpid() || !tellsOrphans():
		return false
	case s.Session != session && s.Session != pid:
		return true // its session was made by a forefather that is gone
	case s.Session == session && s.Group == unix.Getpgrp():
		return false // pods have groups of their own
	}
	started.Lock()
	defer started.Unlock()
	if started.pids[pid] {
		return false
	}
	children, err := pidfds()
	return err == nil && !children[pid]
}

// pidfds returns the processes of which this one has a pidfd that is not a handle's: among
// them is each child that package os has started, from its fork until it is waited for.
func pidfds() (map[int]bool, error) {
	pids := map[int]bool{}
	dir := file(os.Getpid(), "fdinfo")
	fds := names(dir)
	if len(fds) == 0 {
		return nil, unix.EMFILE
	}
	for _, name := range fds {
		fd, _ := strconv.Atoi(name)
		if _, ok := heldFDs.Load(fd); ok {
			continue
		}
		info, _ := read(dir + "/" + name)
		_, text, _ := strings.Cut(string(info), "\nPid:\t") // only pidfds have it
		var pid int
		if n, _ := fmt.Sscan(text, &pid); n == 1 {
			pids[pid] = true
		}
	}
	return pids, nil
}

// tellsOrphans reports whether orphans can be told from children: package os uses pidfds, and
// the system lists children.
var tellsOrphans = sync.OnceValue(func() bool {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return false
	}
	defer self.Release()
	pids, err := pidfds()
	_, noList := read(file(os.Getpid(), fmt.Sprintf("task/%d/children", os.Getpid())))
	return err == nil && pids[os.Getpid()] && noList == nil
})

func ownSession() int {
	session, _ := unix.Getsid(0)
	return session
}

// isInherited reports whether a process that cannot be read is one that pods may have left. One
// in this process's session is not told: what hides and lives on is a daemon, and those leave
// the session. Others may just as well come from this process's own children.
func isInherited(p Process) bool {
	s := Stat{Parent: p.parent, Group: p.group, Session: p.session}
	if tellsOrphans() {
		return p.session != ownSession() && isOrphan(p.PID, s)
	}
	return p.parent == 1 && strings.HasPrefix(Status(p.PID, "Uid")+"\t", fmt.Sprintf("%d\t", os.Getuid()))
}
