package podlog

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
	// A look that is so late was held up with all of this process, and not by other load.
	stopped = time.Second
)

// A Pace is the one timer of a wait. It says when to look again if no event says
// so, and never later than the deadline.
type Pace struct {
	timer       *time.Timer
	passed      time.Time     // until when Extend has looked
	planned     time.Duration // of the wait since
	deadline    time.Time     // zero = none
	quick, slow time.Duration
}

// NewPace returns the pace of a wait that begins; the zero deadline is none.
func NewPace(deadline time.Time) *Pace {
	return &Pace{deadline: deadline, passed: time.Now(), quick: firstLook, slow: firstSlowLook}
}

// Next returns a channel that receives when it is time to look again: rarely
// where events tell of any change.
func (p *Pace) Next(watched bool) <-chan time.Time {
	delay, last := &p.quick, lastLook
	if watched {
		delay, last = &p.slow, lastSlowLook
	}
	d := *delay
	*delay = min(2*d, last)
	if !p.deadline.IsZero() {
		d = min(d, firstSlowLook, time.Until(p.deadline)) // for Extend: a longer wait hides a stop
	}
	p.planned = d
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	return p.timer.C
}

// Extend moves the deadline by the time that has passed since it was called last, but for
// the wait of a Next since then, and returns how far, if that is so long that this process
// must have been stopped meanwhile, as by SIGSTOP. The clock does not count the time in which
// the machine was suspended.
func (p *Pace) Extend() time.Duration {
	late := time.Since(p.passed) - p.planned
	p.passed, p.planned = time.Now(), 0
	if late < stopped {
		return 0
	}
	p.deadline = p.deadline.Add(late)
	return late
}

// Woken starts the delays over: something happened, more may follow at once.
func (p *Pace) Woken() { p.quick, p.slow = firstLook, firstSlowLook }

// Stop ends the timer.
func (p *Pace) Stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}
