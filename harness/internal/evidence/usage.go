package evidence

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// A Sample is what the process of a pod used at one moment.
type Sample struct {
	At                   time.Time
	RSS                  int64 // bytes of memory
	CPU                  time.Duration
	Descriptors, Threads int
}

// samples are those of one pod, in the order of time.
type samples struct {
	at    []Sample
	apart time.Duration // one that comes sooner after the last one is left out
}

// maxSamples bounds them. Beyond it every other one is dropped, and they are twice as far apart.
const maxSamples = 512

// add reports whether it has taken one; the last one counts in any case.
func (s *samples) add(now Sample, last bool) bool {
	if n := len(s.at); n > 0 && !last && now.At.Sub(s.at[n-1].At) < s.apart {
		return false
	}
	if len(s.at) == maxSamples {
		for i := range maxSamples / 2 {
			s.at[i] = s.at[2*i]
		}
		s.at = s.at[:maxSamples/2]
		s.apart = 2 * s.at[len(s.at)-1].At.Sub(s.at[0].At) / maxSamples
	}
	s.at = append(s.at, now)
	return true
}

// Sampled notes what the pod uses; last = the pod is about to be ended.
func (a *Attempt) Sampled(s Sample, last bool) {
	a.e.mu.Lock()
	defer a.e.mu.Unlock()
	if a.samples.add(s, last) && !a.e.over {
		a.e.journal.write(entry{Record: a.e.known, Samples: []sampled{{a.N, s}}})
	}
}

// sampled is a sample in the journal, of an attempt by its number.
type sampled struct {
	N int
	Sample
}

func (s Sample) isPlausible(now time.Time) bool {
	return isRecent(s.At, now) && s.RSS >= 0 && s.CPU >= 0 && s.CPU < maxAge && s.Descriptors >= 0 && s.Threads >= 0
}

// A chart is how one figure of a pod went, as a line in a picture that is 100 wide and 20 high.
type chart struct {
	Label, Points string
	Rises         bool // as where something leaks
}

// charts returns the figures of a pod, each with at most so many points; nothing without samples.
func (s samples) charts(most int) (all []chart) {
	if len(s.at) == 0 {
		return nil
	}
	some := s.at
	if len(s.at) > most {
		some = nil
		for i := range most {
			some = append(some, s.at[i*(len(s.at)-1)/(most-1)])
		}
	}
	for _, figure := range []struct {
		name string
		of   func(i int) float64
		show func(float64) string
		much float64 // to rise by
	}{
		{"memory", func(i int) float64 { return float64(some[i].RSS) / (1 << 20) }, func(v float64) string { return fmt.Sprintf("%.1f MiB", v) }, 16},
		{"descriptors", func(i int) float64 { return float64(some[i].Descriptors) }, whole, 20},
		{"threads", func(i int) float64 { return float64(some[i].Threads) }, whole, 20},
		{"CPU", func(i int) float64 {
			i = min(max(i, 1), len(some)-1) // since the one before; of the first one it is not known
			return 100 * float64(some[i].CPU-some[max(0, i-1)].CPU) / float64(max(1, some[i].At.Sub(some[max(0, i-1)].At)))
		}, func(v float64) string { return whole(v) + " %" }, math.Inf(1)},
	} {
		var values []float64
		for i := range some {
			values = append(values, max(0, figure.of(i)))
		}
		begin, top, end := values[0], slices.Max(values), values[len(values)-1]
		first, last := figure.show(begin), figure.show(end)
		c := chart{Label: figure.name + " " + first, Rises: end > 2*begin && end > 0.9*top && end-begin >= figure.much}
		switch {
		case len(some) == 1 && figure.name == "CPU":
			c.Label = fmt.Sprintf("CPU time %v", some[0].CPU)
		case len(some) == 1:
		case figure.show(top) != first && figure.show(top) != last:
			c.Label += fmt.Sprintf(" → %s → %s", figure.show(top), last)
		case first != last:
			c.Label += " → " + last
		}
		if len(some) > 1 && c.Label != figure.name+" "+first { // else it is a flat line
			length := some[len(some)-1].At.Sub(some[0].At)
			var points []string
			for i, v := range values {
				points = append(points, fmt.Sprintf("%.1f,%.1f", 100*float64(some[i].At.Sub(some[0].At))/float64(max(1, length)), 19-18*v/max(top, 1e-9)))
			}
			c.Points = strings.Join(points, " ")
		}
		all = append(all, c)
	}
	return all
}

func whole(v float64) string { return fmt.Sprintf("%.0f", v) }

// Sampling returns from when to when there are samples.
func (r *row) Sampling() string {
	at := r.samples.at
	if len(at) < 2 {
		return "at the end"
	}
	return fmt.Sprintf("in the last %v", short(at[len(at)-1].At.Sub(at[0].At)))
}
