package spawn

import "time"

const (
	// slowLook is how often a watched log is looked at unasked, in case a
	// wake-up was lost.
	slowLook = 250 * time.Millisecond
	// A look for which there is no event comes after firstLook, then after
	// twice as long each time, lastLook at the most.
	firstLook = 100 * time.Microsecond
	lastLook  = 10 * time.Millisecond
)

// pace is the one timer of a wait: it says when to look again unasked, and
// never later than the deadline.
type pace struct {
	timer    *time.Timer
	deadline time.Time // zero = none
	delay    time.Duration
}

func newPace(deadline time.Time) *pace {
	return &pace{deadline: deadline, delay: firstLook}
}

// next returns a channel that receives when it is time to look again: rarely
// where events tell of any change, else after a growing delay.
func (p *pace) next(watched bool) <-chan time.Time {
	d := slowLook
	if !watched {
		d = p.delay
		p.delay = min(2*p.delay, lastLook)
	}
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
func (p *pace) woken() { p.delay = firstLook }

func (p *pace) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}
