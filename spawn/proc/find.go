package proc

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Find returns the processes that match, those that end while it looks left out. A mark
// is inherited by whatever a pod starts, in whatever group or session, and outlives its
// parents.
func Find(m Match) []Process { return search(m.withRun()) }

func (m Match) withRun() Match {
	if m.Run == nil {
		m.Run = &Run{}
	}
	return m
}

// search returns the matches.
//
// While /proc is read a process can start another one and end, and a number may be
// given whose process is not there yet. So all are looked at again until there is
// nothing new, and none has ended meanwhile: it may have left a child. A match that goes on
// so to the last round is restless.
func search(m Match) []Process {
	const (
		rounds = 100 // where processes come and go all the time
		unseen = 10  // of those in a row in which only others have come and gone
	)
	looked := map[int]bool{}
	found, unread := map[int]Process{}, map[int]Process{}
	passed := map[string]Process{} // the last match that has gone, by its mark
	left, execs := unseen, 50
	for range rounds {
		again, gone, starting := false, false, false
		last := lastPID()
		pids, all := m.Run.numbers(last)
		for _, pid := range slices.Backward(pids) { // the youngest may end soon
			if looked[pid] {
				continue
			}
			what, p := m.look(pid)
			switch what {
			case isMatch:
				found[pid] = p
			case isUnread:
				unread[pid] = p
			}
			looked[pid] = what != isGone && what != isStarting
			again = again || what != isGone
			starting = starting || what == isStarting
			gone = gone || what == isGone
		}
		again = m.prove(found, unread) || again
		for pid, p := range found {
			switch now, _ := m.look(pid); now {
			case isMatch:
			case isStarting:
				delete(found, pid)
				looked[pid] = false
				again, starting = true, true
			default:
				delete(found, pid)
				p.Restless = true
				if len(p.Args) == 0 {
					p.Args = passed[p.Mark].Args // it had ended before they were read
				}
				passed[p.Mark] = p
				again, left = true, unseen
			}
		}
		if starting && execs > 0 { // nothing tells when it has begun
			execs--
			<-time.After(time.Millisecond)
		}
		if !again && (all && !gone || lastPID() == last) { // none was made since
			clear(passed)
			break
		}
		if !again {
			if left--; left == 0 {
				break
			}
		}
	}
	m.settle(found, unread)
	for _, p := range passed {
		if _, ok := found[p.PID]; !ok && p.group != 0 {
			found[p.PID] = p
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Process) int { return cmp.Compare(a.PID, b.PID) })
}

// What a look at a process tells.
type look int

const (
	isGone look = iota
	isOther
	isMatch
	isUnread // it cannot be read, and is no match for another reason
	// isStarting: between two programs a process has neither environment nor
	// command line.
	isStarting
)

// look also describes a process that is a match, or cannot be read.
func (m Match) look(pid int) (look, Process) {
	env, err := environ(pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return isGone, Process{}
	}
	what := isOther
	switch {
	case m.hasMark(env) || m.isMember(pid) || m.hasLog(pid) || err != nil && m.isOrphan(pid):
		what = isMatch
	case err != nil:
		what = isUnread
	}
	if what != isOther {
		s, ok := Lookup(pid)
		p := Process{ID{pid, s.Start}, CommandLine(pid), markIn(env), age(s.Start), false, s.Parent, s.Group, s.Session}
		switch {
		case !ok:
			return isGone, p
		case err != nil && (s.State == 'Z' || s.State == 'X'): // only root may read that it has no environment
			return isOther, p
		case what == isMatch || m.Run.knows(p.ID):
			return isMatch, p
		case p.Start < m.Run.start:
			return isOther, p
		}
		return isUnread, p
	}
	if len(env) > 0 {
		return isOther, Process{}
	}
	// Threads of the kernel and processes that have ended have no program and no
	// command line either (proc(5)).
	_, err = os.Readlink(file(pid, "exe"))
	if err == nil && CommandLine(pid) == nil {
		return isStarting, Process{}
	}
	if env, err := environ(pid); err != nil || len(env) > 0 {
		return isStarting, Process{} // it has got both since
	}
	return isOther, Process{}
}

func (m Match) hasMark(env []byte) bool {
	return m.Mark != "" && strings.HasPrefix(markIn(env), m.Mark)
}

func hasMark(pid int, mark string) bool {
	env, _ := environ(pid)
	return Match{Mark: mark}.hasMark(env)
}

// markIn returns the mark in an environment; "" = there is none.
func markIn(env []byte) string {
	entry := []byte("\x00" + MarkEnv + "=")
	if rest, ok := bytes.CutPrefix(env, entry[1:]); ok {
		env = rest
	} else if i := bytes.Index(env, entry); i >= 0 {
		env = env[i+len(entry):]
	} else {
		return ""
	}
	value, _, _ := bytes.Cut(env, []byte{0})
	return string(value)
}

// isMember reports whether a process that has not ended is in the group. The number of
// a group is given away with the last member, and then to a process.
func (m Match) isMember(pid int) bool {
	if m.Group == 0 {
		return false
	}
	s, ok := Lookup(pid)
	return ok && s.Group == m.Group && s.State != 'Z' && unix.Kill(m.Group, 0) == unix.ESRCH
}

func (m Match) hasLog(pid int) bool {
	if m.Logs == "" {
		return false
	}
	stderr, _ := os.Readlink(file(pid, "fd/2"))
	if !strings.HasPrefix(stderr, m.Logs+"/") {
		return false
	}
	s, ok := Lookup(pid)
	return ok && s.Start >= m.LogsSince
}

// isOrphan: whoever has inherited this process has inherited the other one, too.
func (m Match) isOrphan(pid int) bool {
	if m.OrphanSince == 0 {
		return false
	}
	s, ok := Lookup(pid)
	return ok && s.Group == pid && s.Session != pid && s.Parent == os.Getppid() && s.Start >= m.OrphanSince
}

// Lasting returns which matches are still there after at most d.
func Lasting(m Match, d time.Duration) []Process {
	m = m.withRun()
	begin := time.Now()
	found := search(m)
	if len(found) == 0 {
		return nil
	}
	AwaitEnds(m.holdAll(found), d)
	isAtRest := func(p Process) bool { return !p.Restless }
	left := search(m)
	for len(left) > 0 && time.Since(begin) < d && !slices.ContainsFunc(left, isAtRest) {
		left = search(m)
	}
	return left
}
