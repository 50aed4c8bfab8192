//go:build !portable && (amd64 || arm64)

package fault

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// compiled is a fault as it is matched.
type compiled struct {
	Fault
	names map[uint32]string // for the number of a call, what names it
	path  *regexp.Regexp
}

// due reports whether the call with a number fails.
func (f *compiled) due(number int) bool {
	return f.When == 0 || number == f.When || f.Onwards && number > f.When
}

func compileFault(f Fault) (*compiled, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(f.Path, "{") {
		return nil, fmt.Errorf("fault %q: nothing has replaced the word in braces at the beginning of the path", f)
	}
	c := &compiled{Fault: f, names: map[uint32]string{}}
	c.path, _ = compile(f.Path)
	for _, name := range strings.Split(f.Calls, ",") {
		for _, call := range calls()[name] {
			c.names[call.number] += "," + name
		}
	}
	return c, nil
}

// match counts a call, and finds the fault that strikes it. It reports whether the call still
// waits.
func (s *Session) match(c *call) bool {
	if s.excepts(c) {
		return true
	}
	s.mu.Lock()
	faults, healed := s.faults, s.healed
	s.mu.Unlock()
	var matching []int
	for i, f := range faults {
		if i < healed || f.Later {
			continue
		}
		if names := f.names[c.number]; names != "" && c.isNamed(names) && (f.path == nil || slices.ContainsFunc(c.Paths(), func(path string) bool {
			return f.path.MatchString(strings.ToValidUTF8(path, "\uFFFD"))
		})) {
			matching = append(matching, i)
		}
	}
	if len(matching) == 0 {
		return true
	}
	if !c.waits() { // what was read may have been another's
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range matching {
		s.counts[i]++
		if c.count == 0 && faults[i].due(s.counts[i]) {
			c.fault, c.meets, c.count = i, faults[i], s.counts[i]
		}
	}
	return true
}

// noteExec notes that a call which is about to be done makes its process one of Except.
func (s *Session) noteExec(c *call) {
	if s.except == nil || c.number != unix.SYS_EXECVE && c.number != unix.SYS_EXECVEAT || s.excepts(c) {
		return
	}
	for _, path := range c.Paths() {
		if info, err := os.Stat(path); err == nil && os.SameFile(info, s.except) {
			id := proc.Of(c.PID())
			s.mu.Lock()
			s.excepted[id.PID] = id.Start
			s.mu.Unlock()
		}
	}
}

// excepts reports whether a call is one of Except, or of what that has started.
func (s *Session) excepts(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.excepted) == 0 {
		return false
	}
	pid := c.Thread()
	if _, ok := s.excepted[pid]; !ok {
		pid = c.PID()
	}
	id := proc.ID{PID: pid}
	const most = 64 // they may change meanwhile
	for range most {
		stat, ok := proc.Lookup(pid)
		if !ok {
			break
		}
		if pid == id.PID {
			id.Start = stat.Start
		}
		_, group := s.excepted[stat.Group]
		_, session := s.excepted[stat.Session]
		if start, ok := s.excepted[pid]; ok && start == stat.Start || group || session {
			if len(s.excepted) < mostStrikes {
				s.excepted[id.PID] = id.Start // its parents may end
			}
			return true
		}
		if pid == s.pid {
			break
		}
		pid = stat.Parent
	}
	return false
}

// act strikes.
func (s *Session) act(c *call) {
	f := c.meets
	if f.Delay > 0 {
		c.pid = c.PID() // and the paths: its process may end meanwhile
		c.Paths()
		timer := time.NewTimer(f.Delay - time.Since(c.at))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ended:
		}
	}
	switch {
	case f.Look != nil:
		f.Look(c)
		c.answer(answer{flags: byItself, silent: true})
	case f.Error != 0:
		c.answer(answer{signal: f.Signal, errno: f.Error, result: unix.ErrnoName(f.Error)})
	case f.Short > 0:
		c.answer(answer{signal: f.Signal, short: f.Short})
	default:
		c.answer(answer{signal: f.Signal, flags: byItself})
	}
}

// failed keeps the first reason why a call could not be looked at. That its process has
// ended, or has given an address that is not its own, is none.
func (s *Session) failed(c *call, err error) {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EFAULT) || errors.Is(err, unix.ENOENT) || !c.waits() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil {
		s.trouble = fmt.Errorf("%s by thread %d could not be looked at: %w", c.name, c.thread, err)
	}
}
