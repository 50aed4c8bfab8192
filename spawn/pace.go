package spawn

import "time"

const (
	// A look for which there is no event comes after firstLook, then after
	// twice as long each time, lastLook at the most.
	firstLook = 100 * time.Microsecond
	lastLook  = 10 * time.Millisecond
	// The same for looks without an event where there should be one, in case a
	// wake-up was lost. They are rare: for an idle Go process to wake and fall
	// asleep again takes 200 µs of CPU time.
	firstSlowLook = time.Second
	lastSlowLook  = 8 * time.Second
)

// pace is the one timer of a wait: it says when to look again unasked, and
// never later than the deadline.
type pace struct {
	timer       *time.Timer
	deadline    time.Time // zero = none
	quick, slow time.Duration
}

func newPace(deadline time.Time) *pace {
	return &pace{deadline: deadline, quick: firstLook, slow: firstSlowLook}
}

// next returns a channel that receives when it is time to look again: rarely
// where events tell of any change.
func (p *pace) next(watched bool) <-chan time.Time {
	delay, last := &p.quick, lastLook
	if watched {
		delay, last = &p.slow, lastSlowLook
	}
	d := *delay
	*delay = min(2*d, last)
	if !p.deadline.IsZero() {
		d = min(d, time.Until(p.deadline))
	}
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	return p.timer.C
}

// woken starts the delays over: something happened, more may follow at once.
func (p *pace) woken() { p.quick, p.slow = firstLook, firstSlowLook }

func (p *pace) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}
