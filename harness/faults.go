package harness

import (
	"errors"
	"fmt"
	"slices"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
)

// mostStrikes is how many of the calls that faults have struck a message shows.
const mostStrikes = 3

// strikesText says in lines of a message what the faults of the pod have struck by now.
func (p *Pod) strikesText() (text string) {
	if p.Faults == nil {
		return ""
	}
	strikes := slices.DeleteFunc(p.Faults.Strikes(), func(s fault.Strike) bool { return s.Result == "" }) // it is noted only
	if len(strikes) == 0 {
		return "\n\tfaults: they have struck no call"
	}
	if more := len(strikes) - mostStrikes; more > 0 {
		text = fmt.Sprintf("\n\tfaults: they have struck %d calls before these", more)
		strikes = strikes[more:]
	}
	for _, strike := range strikes {
		text += "\n\tfault: " + podlog.Printable(strike.String())
	}
	return text
}

// tellStruck tells what Config.Faults have come to when the pod has ended, or was not started. A
// fault that strikes nothing has tested nothing.
func (b *oneTest) tellStruck(tb TB, name string, faults []fault.Fault, strikes []fault.Strike) {
	tb.Helper()
	for i, f := range faults {
		if !f.Later && f.Look == nil && !slices.ContainsFunc(strikes, func(s fault.Strike) bool { return s.Fault == i }) {
			tb.Logf("harness: the fault %s has struck no call of pod %s", podlog.Printable(f.String()), podlog.Printable(name))
		}
	}
}

// tellStruckBy is tellStruck for a start that failed.
func (b *oneTest) tellStruckBy(err error, name string, faults []fault.Fault) {
	b.tb.Helper()
	var e *spawn.Error
	if errors.As(err, &e) && e.PID != 0 && len(faults) > 0 {
		b.tellStruck(b.tb, name, faults, e.Strikes)
	}
}
