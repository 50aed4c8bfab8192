package proc

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Handle is a process that is held: a signal by it never hits another process that has
// got the number. Where the system gives out no pidfd (it is older than Linux 5.3, seccomp
// refuses it, no descriptor is left) the start time is compared before each signal.
type Handle struct {
	ID
	fd atomic.Int32 // a pidfd; -1 = there is none
}

func newHandle(id ID, fd int) *Handle {
	h := &Handle{ID: id}
	h.fd.Store(int32(fd))
	if fd >= 0 {
		heldFDs.Store(fd, true)
	}
	return h
}

// heldFDs has the descriptors of all handles.
var heldFDs sync.Map

// Hold returns a handle of a process, which the caller closes. The error is
// os.ErrProcessDone if the process has ended and was reaped.
func Hold(id ID) (*Handle, error) {
	if id.PID <= 0 {
		return nil, os.ErrProcessDone
	}
	fd, err := openPidfd(id.PID)
	if err != nil {
		fd = -1
	}
	h := newHandle(id, fd)
	if !h.isThere() { // in this order: who has the number now is held
		h.Close()
		return nil, os.ErrProcessDone
	}
	return h, nil
}

// isThere reports whether the number is still the process's own.
func (h *Handle) isThere() bool { return Of(h.PID) == h.ID }

// Close lets go of the process. It may be called again.
func (h *Handle) Close() {
	if fd := h.fd.Swap(-1); fd >= 0 {
		heldFDs.Delete(int(fd)) // first: the number is given away then
		_ = unix.Close(int(fd))
	}
}

// Signal sends a signal to the process. The error is os.ErrProcessDone if it has ended.
func (h *Handle) Signal(sig unix.Signal) error {
	err := error(unix.ENOSYS)
	if fd := int(h.fd.Load()); fd >= 0 {
		err = signalPidfd(fd, sig, 0)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) { // seccomp may say anything
		if !h.isThere() {
			return os.ErrProcessDone
		}
		err = unix.Kill(h.PID, sig)
	}
	return done(err)
}

func done(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// SignalGroup sends a signal to the process group that the process leads, or has led; to
// the process alone if it never did. The error is os.ErrProcessDone if nobody is left.
func (h *Handle) SignalGroup(sig unix.Signal) error {
	const processGroup = 1 << 2 // PIDFD_SIGNAL_PROCESS_GROUP, since Linux 6.9
	if fd := int(h.fd.Load()); fd >= 0 && signalPidfd(fd, sig, processGroup) == nil {
		return nil
	}
	return h.signalLedGroup(sig)
}

// signalLedGroup goes by the number of the group, which is the leader's while that is
// there.
func (h *Handle) signalLedGroup(sig unix.Signal) error {
	s, ok := Lookup(h.PID)
	if ok && s.Start == h.Start && s.Group == h.PID && s.State != 'Z' || !ok && !Proves {
		return done(unix.Kill(-h.PID, sig))
	}
	return h.Signal(sig)
}

// KillGroup kills the process, and the process group that it leads, or has led.
func (h *Handle) KillGroup() {
	_ = h.SignalGroup(unix.SIGKILL)
	_ = h.Signal(unix.SIGKILL) // it may have left its group
}

// Ended reports whether the process has ended.
func (h *Handle) Ended() bool { return h.EndsWithin(0) }

// EndsWithin waits until the process has ended, for at most d, and reports whether that
// came.
func (h *Handle) EndsWithin(d time.Duration) bool {
	if fd := h.fd.Load(); fd >= 0 {
		return isReadable(int(fd), d)
	}
	pause := time.Millisecond // nothing tells
	for deadline := time.Now().Add(d); h.isThere() && !Ended(h.PID); pause = min(2*pause, 10*time.Millisecond) {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		<-time.After(min(left, pause))
	}
	return true
}

// isReadable waits until something can be read from a descriptor, for at most d, and reports
// whether that came.
func isReadable(fd int, d time.Duration) bool {
	for deadline := time.Now().Add(d); ; {
		wait := min(max(0, time.Until(deadline)), time.Hour)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int((wait+time.Millisecond-1)/time.Millisecond))
		if n > 0 {
			return true
		}
		if wait == 0 && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// Kill kills the matches until there are none, or the deadline has passed. It returns
// those that are left.
func Kill(m Match, deadline time.Time) (left []Process) {
	m = m.withRun()
	for {
		left = Find(m)
		if len(left) == 0 || !time.Now().Before(deadline) {
			return left
		}
		restless := false
		handles := m.holdAll(left)
		for _, h := range handles {
			_ = h.Signal(unix.SIGKILL)
		}
		for _, p := range left {
			restless = restless || p.Restless
			if p.Restless && m.isAll(p.group) {
				_ = unix.Kill(-p.group, unix.SIGKILL) // which no member evades by a fork
			}
		}
		if restless {
			m.chase(min(time.Until(deadline), chaseTime))
		}
		// What has ended unseen is not found again, nor reaped.
		AwaitEnds(handles, min(time.Until(deadline), time.Second))
	}
}

// chaseTime is how long a restless process is looked for.
const chaseTime = 200 * time.Millisecond

// chase kills what has the mark and forks and exits faster than it is found, in a group of
// its own each time: it is looked for where the next number is. One that is killed while it
// forks leaves no child.
func (m Match) chase(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		last := lastPID()
		for pid := last; pid > last-4; pid-- {
			h, err := Hold(Of(pid))
			if err != nil {
				continue
			}
			// In this order: what has the mark now, or had it, is held.
			if env, _ := environ(pid); m.hasMark(env) {
				_ = h.Signal(unix.SIGKILL)
			}
			h.Close()
		}
	}
}

// isAll reports whether there is nobody in a process group but matches.
func (m Match) isAll(group int) bool {
	if group <= 1 || group == unix.Getpgrp() {
		return false
	}
	isMember := func(pid int) bool {
		s, ok := Lookup(pid)
		return ok && s.Group == group && s.State != 'Z'
	}
	return !slices.ContainsFunc(All(), func(pid int) bool {
		if !isMember(pid) {
			return false
		}
		what, _ := m.look(pid)
		return (what == isOther || what == isStarting) && isMember(pid) // it may have ended meanwhile
	})
}

// holdAll holds those of a list that still match. Each is looked at again once it is
// held, so that a number that was given away meanwhile is never hit.
func (m Match) holdAll(found []Process) (handles []*Handle) {
	for _, p := range found {
		h, err := Hold(p.ID)
		if err != nil {
			continue
		}
		if what, _ := m.look(p.PID); what != isMatch {
			h.Close()
			continue
		}
		handles = append(handles, h)
	}
	return handles
}

// AwaitEnds waits until all processes have ended, or for at most d, reaps those that
// this process has inherited, and closes the handles.
func AwaitEnds(handles []*Handle, d time.Duration) {
	deadline := time.Now().Add(d)
	for _, h := range handles {
		h.EndsWithin(time.Until(deadline))
		h.reap()
		h.Close()
	}
}
