package proc

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Find returns the processes that match, those that end while it looks left out. A mark
// is inherited by whatever a pod starts, in whatever group or session, and outlives its
// parents.
func Find(m Match) []Process { return search(m, Range{}) }

// search returns the matches among the processes that were made since a Range began.
//
// While /proc is read a process can start another one and end, and a number may be
// given whose process is not there yet. So all are looked at again until there is
// nothing new, and none has ended meanwhile: it may have left a child. A match that goes on
// so to the last round is restless.
func search(m Match, since Range) []Process {
	const (
		rounds = 100 // where processes come and go all the time
		unseen = 10  // of those in a row in which only others have come and gone
	)
	looked := map[int]bool{}
	found := map[int]Process{}
	passed := map[string]Process{} // the last match that has gone, by its mark
	left, execs := unseen, 50
	for range rounds {
		again, gone, starting := false, false, false
		last := lastPID()
		for _, pid := range slices.Backward(since.numbers(last)) { // the youngest may end soon
			if looked[pid] {
				continue
			}
			what, p := m.look(pid)
			if what == isMatch {
				found[pid] = p
			}
			looked[pid] = what == isMatch || what == isOther
			again = again || what != isGone
			starting = starting || what == isStarting
			gone = gone || what == isGone
		}
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
		if !again && (!gone || lastPID() == last) { // none was made since
			clear(passed)
			break
		}
		if !again {
			if left--; left == 0 {
				break
			}
		}
	}
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
	// isStarting: between two programs a process has neither environment nor
	// command line.
	isStarting
)

// look also describes a match.
func (m Match) look(pid int) (look, Process) {
	env, err := environ(pid)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH):
		return isGone, Process{}
	case m.hasMark(env) || m.isMember(pid) || m.hasLog(pid) || err != nil && m.isOrphan(pid):
		// A thread that is not the first one has files in /proc, too.
		if leader := Status(pid, "Tgid"); leader != "" && leader != strconv.Itoa(pid) {
			return isOther, Process{}
		}
		s, _ := Lookup(pid)
		return isMatch, Process{ID: ID{pid, s.Start}, Args: CommandLine(pid), Mark: markIn(env), Age: age(s.Start), group: s.Group}
	case err != nil || len(env) > 0:
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

// A Range is a moment in the numbering of processes and threads, which goes up and at
// the largest number begins anew (pid_namespaces(7)). The zero Range is before all.
type Range struct {
	forks int // how many numbers were given since boot, at least; 0 = not known
	// First is the number of a process that was made just after that moment.
	First int
}

// Now returns a Range that begins now. Its First is for the caller to set.
func Now() (r Range) {
	text, _ := read(root + "/stat") // its line "processes" (proc(5))
	_, forks, _ := strings.Cut(string(text), "\nprocesses ")
	_, _ = fmt.Sscan(forks, &r.forks)
	return r
}

// numbers returns those that processes made since may have, the last number given being
// last: a few, if few were given, and else those of all processes.
func (r Range) numbers(last int) (pids []int) {
	const few = 200
	// Numbers between which the process is not are those of another system, as a
	// container may be shown them, or have begun anew.
	if r.forks == 0 || Now().forks-r.forks > few || last < r.First || last-r.First > few {
		return All()
	}
	for pid := r.First; pid <= last; pid++ {
		pids = append(pids, pid)
	}
	return pids
}

// Lasting returns which matches, all of them made since a Range began, are still there
// after at most d.
func Lasting(m Match, since Range, d time.Duration) []Process {
	begin := time.Now()
	found := search(m, since)
	if len(found) == 0 {
		return nil
	}
	AwaitEnds(m.holdAll(found), d)
	isAtRest := func(p Process) bool { return !p.Restless }
	left := search(m, since)
	for len(left) > 0 && time.Since(begin) < d && !slices.ContainsFunc(left, isAtRest) {
		left = search(m, since)
	}
	return left
}
