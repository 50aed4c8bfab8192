package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn/proc"
)

// A sample is what the processes of a client have used up to a moment.
type sample struct {
	at   int64         // CLOCK_MONOTONIC, in ns
	cpu  time.Duration // of all of them
	busy time.Duration // in which a thread had a core, or waited for one
	late time.Duration // in which a thread waited for a core
	runs bool          // a thread has a core now, or waits for one, which late does not have yet
	read int64         // bytes, also those that came from memory; -1 = it cannot be known
	peak int64         // bytes of memory that the largest has needed
	pods []int         // children that have not ended, as far as the system lists them
}

// meter takes samples of a client until it ends.
type meter struct {
	stop chan struct{}
	over sync.WaitGroup
	all  []sample // once over
}

// sampled is how often.
const sampled = 20 * time.Millisecond

// watch begins to take samples of a process group.
func watch(group int) *meter {
	u := &meter{stop: make(chan struct{})}
	u.over.Add(1)
	go func() {
		defer u.over.Done()
		tick := time.NewTicker(sampled)
		defer tick.Stop()
		last := map[int]sample{} // of each process
		var known processes
		for n := 0; ; n++ {
			if n%8 == 0 { // to look for new ones costs more
				known = members(group)
			}
			total := sample{at: monotonic()}
			for _, pid := range known {
				if s, ok := sampleOf(pid); ok {
					last[pid], total.runs, total.pods = s, total.runs || s.runs, append(total.pods, s.pods...)
				}
			}
			for _, s := range last {
				total.cpu, total.busy, total.late, total.peak = total.cpu+s.cpu, total.busy+s.busy, total.late+s.late, max(total.peak, s.peak)
				if total.read += s.read; s.read < 0 || total.read < 0 {
					total.read = -1
				}
			}
			if len(last) > 0 {
				u.all = append(u.all, total)
			}
			select {
			case <-tick.C:
			case <-u.stop:
				return
			}
		}
	}()
	return u
}

// end ends the samples. Without a meter it does nothing.
func (u *meter) end() {
	if u != nil {
		close(u.stop)
		u.over.Wait()
	}
}

// sampleOf looks at one process.
func sampleOf(pid int) (s sample, ok bool) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return s, false
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
		var ran, waited int64
		if n, _ := fmt.Sscan(string(text), &ran, &waited); n == 2 {
			s.busy += time.Duration(ran + waited)
			s.late += time.Duration(waited)
		}
		text, _ = os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, task.Name()))
		_, state, _ := strings.Cut(string(text), ") ")
		s.runs = s.runs || strings.HasPrefix(state, "R")
		text, _ = os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, word := range strings.Fields(string(text)) {
			if child, _ := strconv.Atoi(word); !proc.Ended(child) {
				s.pods = append(s.pods, child)
			}
		}
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ") // of all threads, also those that have ended
	if fields := strings.Fields(rest); len(fields) > 13 {
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		s.cpu = time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
	}
	s.read = -1
	io, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if _, err := fmt.Sscanf(string(io), "rchar: %d", &s.read); err != nil {
		s.read = -1
	}
	kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(proc.Status(pid, "VmHWM")), " kB"), 10, 64)
	s.peak = kib << 10
	return s, s.peak > 0
}

// at returns the last sample that was taken before a moment, or the first one.
func (u *meter) at(moment int64) (s sample) {
	for i, next := range u.all {
		if i == 0 || next.at <= moment {
			s = next
		}
	}
	return s
}

// ended returns when a child may have ended, at the latest: a little after it was seen last.
func (u *meter) ended(child int) (at int64) {
	for _, s := range u.all {
		if slices.Contains(s.pods, child) {
			at = s.at + int64(sampled)
		}
	}
	return at
}

// seen reports whether there is enough to judge by.
func (u *meter) seen() bool { return len(u.all) > 1 }

const notShown = "the system does not show what the client's processes use"

// slept returns how long after a moment the client has waited for something else than a
// core, as far as samples tell; false = they do not. Where they are far apart, podclient
// itself had no core, and may have been as late to see what the client did.
func (s *sweepCase) slept(since int64) (slept time.Duration, known bool) {
	if s.meter == nil || !s.meter.seen() {
		return 0, false
	}
	last := s.meter.all[0]
	for _, next := range s.meter.all[1:] {
		if whole := next.at - last.at; next.at > since && whole < 5*int64(sampled) && !next.runs {
			slept += max(0, time.Duration(min(whole, next.at-since))-(next.busy-last.busy))
		}
		last = next
	}
	return slept, true
}

// wasBusy reports whether a client that took longer than a limit, from a moment on, lacked
// a core, or had much to do: the limit is for what it may wait.
func (s *sweepCase) wasBusy(since int64, limit time.Duration) bool {
	slept, known := s.slept(since)
	return known && slept < limit*8/10
}

// starved reports whether a client has waited for a core for much of its life.
func (s *sweepCase) starved() bool {
	return s.meter != nil && s.meter.seen() && s.meter.at(s.ended).late > s.took/3
}

// lacked is what is said of a client that was busy.
const lacked = "the client was busy, or had no core, for most of the %v after %s"
