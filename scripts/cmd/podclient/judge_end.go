package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
)

func (s *sweepCase) verdict(want oracle.Outcome) *finding {
	state, ready := s.client.State(), "end with status 0"
	if s.settings.ready != "" {
		ready = "say so: -ready matches nowhere in its output"
	}
	switch {
	case s.late && s.starved():
		return s.unseen("the client did not end within %v, and had no core for much of that", s.longest)
	case s.late:
		return s.found("4", "the client did not end within %v, and said %s; it must end when the start has, within its timeout of %v (-timeout) at the latest", s.longest, s.firstWords(), s.settings.timeout)
	case want.Verdict == either:
	case want.Verdict != refused && s.seen.Args == nil:
		return s.found("1", "the client %s before a pod had begun, and said %s; it must start what YOI_POD_RUNTIME_COMMAND names, and wait for it", s.how(), s.firstWords())
	case want.Verdict == oracle.Ready && !s.succeeded():
		return s.found("2, 3", "the client %s and said %s; the pod became ready, so it must %s", s.how(), s.firstWords(), ready)
	case want.Verdict == cancelled && s.signalled.Load() == 0:
		return s.found("3, 4", "the client %s and said %s while the pod was still starting; it must wait for the pod", s.how(), s.firstWords())
	case want.Verdict == cancelled && (s.said || state.Success()):
		return s.found("4", "the client %s when %v had come in the middle of a start; it must end with another status than 0", s.how(), s.signal)
	case want.Verdict != oracle.Ready && (s.said || state.Success()):
		return s.found("2, 3, 4", "the client %s where the start is: %v; it must end with another status than 0", s.how(), want)
	case want.Verdict != oracle.Ready && want.Verdict != cancelled && strings.TrimSpace(s.output) == "":
		return s.found("4", "the client %s without a word; it must say why the pod did not start: %v", s.how(), want)
	case want.Verdict == oracle.TimedOut && s.took < s.settings.timeout-early:
		return s.found("3, 4", "the client gave up after %v and said %s; it must wait for the whole timeout, %v (-timeout), since the pod may become ready until then", s.took.Round(time.Millisecond), s.firstWords(), s.settings.timeout)
	}
	return nil
}

// prompt measures from the pod's own event, from its begin where only the timeout
// decides, or from the signal that ended the start.
func (s *sweepCase) prompt(want oracle.Outcome) *finding {
	limit := min(prompt, s.settings.timeout/2)
	var since int64
	var what string
	switch {
	case want.Verdict == refused, want.Verdict == either:
		since, what = s.clientBegun, "it began"
		limit += s.settings.timeout // it may start another one, in vain
		if want.Verdict == refused {
			limit = s.settings.timeout - early
		}
	case want.Verdict == cancelled:
		since, what = s.signalled.Load(), fmt.Sprintf("%v had come", s.signal)
	case want.Step < 0:
		since, what = s.seen.Steps[0].At+int64(s.settings.timeout), fmt.Sprintf("the timeout of %v was over", s.settings.timeout)
	default:
		since, what = s.seen.Steps[len(s.seen.Steps)-1].At, "it could be known: "+want.String()
		if e := s.decided(want); e != nil {
			since = e.At
		}
	}
	late := time.Duration(s.ended - since)
	switch rounded := late.Round(10 * time.Millisecond); {
	case late <= limit:
		return nil
	case s.wasBusy(since, limit):
		return s.unseen(lacked, rounded, what)
	default:
		return s.found("3, 4", "the client %s %v after %s; it must within %v", strings.Replace(s.how(), "ended with", "ended, with", 1), rounded, what, limit)
	}
}

// decided returns the step at which the outcome could be known; nil = it has not come to
// that.
func (s *sweepCase) decided(want oracle.Outcome) (at *fakepod.Began) {
	for i, b := range s.seen.Steps {
		if b.Step == want.Step || b.Step == want.Step+1 { // the step, or what follows it
			at = &s.seen.Steps[i]
		}
	}
	return at
}

// tooSlow reports whether the client has waited for its whole timeout, in which
// the pod has hardly come to what decides: that proves nothing against the client.
func (s *sweepCase) tooSlow(want oracle.Outcome) bool {
	if s.late || want.Step < 0 || s.refused != "" || s.took < s.settings.timeout-early || len(s.seen.Steps) == 0 {
		return false
	}
	e := s.decided(want)
	return e == nil || time.Duration(e.At-s.ended)+s.took > s.settings.timeout/2
}

// signalledLate reports whether the signal came so late that the client may have timed out,
// because the pod was slow.
func (s *sweepCase) signalledLate(want oracle.Outcome) bool {
	if want.Verdict != cancelled || s.late {
		return false
	}
	if at := s.signalled.Load(); at != 0 {
		return time.Duration(at-s.seen.Steps[0].At) > s.settings.timeout/2
	}
	return s.took >= s.settings.timeout-early
}

// reason looks for what explains the failure in what the client has said.
func (s *sweepCase) reason(want oracle.Outcome) *finding {
	says := func(words ...string) *finding {
		for _, w := range words {
			// Wherever its lines are wrapped.
			if !strings.Contains(strings.ToLower(strings.Join(strings.Fields(s.output), " ")), strings.ToLower(strings.TrimSpace(w))) {
				return s.found("4", "the client said %s; it should say %q, which explains the failure", s.firstWords(), w)
			}
		}
		return nil
	}
	switch want.Verdict {
	case oracle.SocketError:
		return says(words(filepath.Base(want.Socket))...)
	case oracle.Exited:
		if len(want.Tail) > 0 {
			return says(words(want.Tail[len(want.Tail)-1])...)
		}
		return says(words(want.Unfinished)...)
	case oracle.WrongName:
		return says(want.Name)
	case oracle.Malformed:
		return says("YOI-READY")
	case oracle.TimedOut:
		if last := s.seen.Steps[len(s.seen.Steps)-1].At; want.Socket != "" && last-s.clientBegun > int64(s.settings.timeout-2*early) {
			return s.unseen("the pod was late to announce its socket")
		}
		if want.Socket != "" {
			return says(words(filepath.Base(want.Socket))...)
		}
		return says("ready")
	case refused:
		return says(s.refused)
	}
	return nil
}

var word = regexp.MustCompile(`[A-Za-z][A-Za-z ]{2,39}`)

// words returns the parts of a line that no client has to escape.
func words(line string) []string {
	found := word.FindAllString(line, 3)
	// After an escape, letters may be part of that.
	if strings.Contains(line, "\x1b") && len(found) > 0 {
		found = found[len(found)-1:]
		found[0] = found[0][len(found[0])-3:]
	}
	return found
}

// terminal looks for what the pod wrote and would rule a terminal. Colours of its
// own are the client's business.
func (s *sweepCase) terminal(want oracle.Outcome) *finding {
	const should = "the client wrote the raw bytes %.20q; control characters of a pod, and what is no UTF-8, should be escaped"
	if valid := strings.ToValidUTF8(s.output, "\xff"); strings.Contains(valid, "\xff") {
		return s.found("2", should, valid[max(0, strings.Index(valid, "\xff")-4):])
	}
	said := strings.Join(append([]string{want.Line, want.Name, want.Unfinished, rulers}, want.Tail...), "\n")
	for _, sequence := range control.FindAllString(said, -1) {
		if strings.Contains(s.output, sequence) {
			return s.found("2", should, sequence)
		}
	}
	return nil
}

// control matches a control character with what gives it a meaning.
var control = regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f-\x{9f}][^\x00-\x1f\x7f-\x{9f}]+`)

// notices looks for a client that slept on after what decides.
func (s *sweepCase) notices(want oracle.Outcome) *finding {
	e := s.decided(want)
	if e == nil {
		return s.unseen("the pod has not told when it could be known")
	}
	since := e.At
	if want.Verdict == oracle.Exited && s.meter != nil {
		since = max(since, s.meter.ended(e.Process)) // the step has only begun that
	}
	took := time.Duration(s.ended - since).Round(10 * time.Millisecond)
	switch {
	case took <= soon:
		return nil
	case !s.meter.seen():
		return s.unseen(notShown)
	case s.wasBusy(since, soon):
		return s.unseen(lacked, took, "it could be known: "+want.String())
	}
	return s.found("5c", "the client ended %v after it could be known: %v; it should notice that within %v", took, want, soon)
}

// timedOut reports whether the client has waited for its whole timeout.
func (s *sweepCase) timedOut() bool { return !s.late && s.took > s.settings.timeout-early }

// lackedTime reports whether a client has timed out because it had no core, or was busy with
// a flood: how fast it reads is not asked.
func (s *sweepCase) lackedTime() bool {
	steps, _ := fakepod.Parse(s.program)
	reads := len(s.seen.Steps) > 0 && slices.ContainsFunc(steps, func(s fakepod.Step) bool { return s.Verb == "flood" })
	// On a terminal it also waits until podclient has taken what it shows.
	return s.timedOut() && s.meter != nil && (s.starved() || reads && (s.tty || s.wasBusy(s.seen.Steps[0].At, s.settings.timeout/2)))
}
