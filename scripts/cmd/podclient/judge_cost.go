package main

import (
	"time"
)

// resting returns the part of the wait in which the pod does nothing: what the client does
// then it does again and again.
func (s *sweepCase) resting() (from, to sample, long bool) {
	if len(s.seen.Steps) == 0 || !s.meter.seen() {
		return from, to, false
	}
	from, to = s.meter.at(s.seen.Steps[len(s.seen.Steps)-1].At+int64(settled)), s.meter.at(s.seen.Steps[0].At+int64(s.settings.timeout-early))
	return from, to, to.at-from.at >= int64(300*time.Millisecond)
}

// idle looks at the CPU time of a client that waits.
func (s *sweepCase) idle() *finding {
	from, to, long := s.resting()
	if !long {
		return s.unseen("%s for long enough", notShown)
	}
	// Beside others it would have used more in the time in which it waited for a core.
	used, had := to.cpu-from.cpu, time.Duration(to.at-from.at)-(to.late-from.late)
	if had < early {
		return s.unseen("the machine is too busy")
	}
	if used > had/5 {
		return s.found("5c", "the client used %v of CPU time in %v in which the pod did nothing; it should wait without a busy loop", used, had.Round(10*time.Millisecond))
	}
	return nil
}

// rereads looks at how much a client reads while nothing is written.
func (s *sweepCase) rereads() *finding {
	_, to, long := s.resting()
	if !long || to.read < 0 {
		return s.unseen("%s for long enough", notShown)
	}
	if read := to.read - s.meter.at(s.seen.Steps[0].At).read; read > 3*bigLog {
		return s.found("5c", "the client has read %d MiB, and the pod's log has %d MiB; it should read the log once", int(read>>20), bigLog>>20)
	}
	return nil
}

// tooMuch is how much more memory than before a flood a client may have needed after it.
const tooMuch = 64 << 20

// memory compares what the client needs before the floods and after them.
func (s *sweepCase) memory() *finding {
	var begin int64
	for _, b := range s.seen.Steps {
		if b.Step == 2 { // the first flood
			begin = b.At
		}
	}
	if begin == 0 || !s.meter.seen() {
		return s.unseen(notShown)
	}
	if more := s.meter.at(s.ended).peak - s.meter.at(begin).peak; more > tooMuch {
		return s.found("2", "the client needed %d MiB more of memory when the pod had written %d MiB; its memory must be bounded, whatever the pod writes", int(more>>20), 2*flood>>20)
	}
	return nil
}
