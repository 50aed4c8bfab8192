package evidence

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/podharness/spawn/podlog"
)

// A Use is one of a shared pod by a test.
type Use struct {
	Test        string
	From, Until time.Time // Until is zero while it lasts
	Failed      bool      // the test has
}

// uses are those of one pod, in the order of their begin.
type uses struct {
	of   []Use
	left int // that were dropped
}

// maxUses bounds them. Beyond it one of a test that has passed is dropped.
const maxUses = 500

// add notes the begin of a use, or its end; it reports whether that is news.
func (s *uses) add(u Use) bool {
	for i, known := range slices.Backward(s.of) {
		if known.Test == u.Test && known.Until.IsZero() {
			if !u.Until.IsZero() {
				s.of[i].Until, s.of[i].Failed = u.Until, u.Failed
			}
			return !u.Until.IsZero()
		}
	}
	if !u.Until.IsZero() && !u.From.Before(u.Until) {
		return false // an end without a begin
	}
	if len(s.of) == maxUses {
		i := max(0, slices.IndexFunc(s.of[maxUses/4:], func(u Use) bool { return !u.Failed && !u.Until.IsZero() }))
		s.of = slices.Delete(s.of, maxUses/4+i, maxUses/4+i+1)
		s.left++
	}
	s.of = append(s.of, u)
	return true
}

// Use notes that a test uses a pod which belongs to another one.
func (a *Attempt) Use(test string) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	a.used(Use{Test: test, From: time.Now()})
}

// EndUses notes that a test is over, which has used pods.
func (e *Collector) EndUses(test string, failed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for _, a := range e.known.Lives {
		a.used(Use{Test: test, From: now, Until: now, Failed: failed})
	}
}

// used notes a use; the lock is held.
func (a *Attempt) used(u Use) {
	if len(u.Test) > maxName {
		u.Test = Shorten(u.Test, maxName/2)
	}
	if a.uses.add(u) && !a.e.over {
		a.e.journal.write(entry{Record: a.e.known, Uses: []journaledUse{{a.N, u}}})
	}
}

// journaledUse is a use in the journal, of an attempt by its number.
type journaledUse struct {
	N int
	Use
}

func (u Use) isPlausible(now time.Time) bool {
	return len(u.Test) <= maxName && isRecent(u.From, now) && (u.Until.IsZero() || isRecent(u.Until, now))
}

// users returns, in words, the tests that have used the pod, at most so many; those that have
// failed first.
func (r *Record) users(a *Attempt, most int) (words []string) {
	all := slices.Clone(a.uses.of)
	slices.SortStableFunc(all, func(a, b Use) int {
		if a.Failed != b.Failed {
			return map[bool]int{true: -1, false: 1}[a.Failed]
		}
		return 0
	})
	left := a.uses.left + max(0, len(all)-most)
	for _, u := range all[:min(len(all), most)] {
		words = append(words, r.use(u))
	}
	if left > 0 {
		words = append(words, fmt.Sprintf("%d more tests", left))
	}
	return words
}

func (r *Record) use(u Use) string {
	how := "on"
	if !u.Until.IsZero() {
		how = "until +" + short(r.since(u.Until))
		if u.Failed {
			how += ", failed"
		}
	}
	return fmt.Sprintf("%s from +%s %s", podlog.Printable(Shorten(u.Test, 300)), short(r.since(u.From)), how)
}

// failedUsers returns the tests that have used pods and failed, at most so many.
func (r *Record) failedUsers(most int) string {
	var names []string
	for _, a := range r.Lives {
		for _, u := range a.uses.of {
			if name := Shorten(u.Test, 300); u.Failed && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}
