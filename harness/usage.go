package harness

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.com/podharness/spawn/proc"
)

// A Usage is what the process of a pod uses at one moment.
type Usage struct {
	// RSS is how much memory it has, and PeakRSS the most that it has had, in bytes.
	RSS, PeakRSS int64
	// CPU is how much CPU time it has used, to 10 ms.
	CPU time.Duration
	// Descriptors is how many it has open.
	Descriptors int
	// Threads is how many it has, and Children how many processes that run are its own.
	Threads, Children int
}

// Usage returns what the pod's process uses now; what its children use is not part of it. It is
// an error if the pod has ended, if the system does not show all of it, and where that is not
// Linux.
func (p *Pod) Usage() (Usage, error) {
	u, err := usageOf(p.PID)
	if _, ended := p.Ended(); ended || err == nil && proc.Ended(p.PID) {
		return Usage{}, p.failed("", kind{fmt.Errorf("what pod %s uses is not known", p.name()), ErrEnded})
	}
	if err != nil {
		return Usage{}, fmt.Errorf("what pod %s uses is not known: %w", p.name(), err)
	}
	return u, nil
}

func usageOf(pid int) (u Usage, err error) {
	// A process that ends has no memory any more.
	for field, to := range map[string]*int64{"VmRSS": &u.RSS, "VmHWM": &u.PeakRSS} {
		kib, kibErr := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(proc.Status(pid, field)), " kB"), 10, 64)
		if kibErr != nil {
			return Usage{}, fmt.Errorf("the system does not show its %s", field)
		}
		*to = kib << 10
	}
	if u.Threads, err = strconv.Atoi(proc.Status(pid, "Threads")); err != nil {
		return Usage{}, errors.New("the system does not show its threads")
	}
	if u.Descriptors = len(proc.Descriptors(pid)); u.Descriptors == 0 {
		return Usage{}, errors.New("the system does not show its descriptors")
	}
	u.CPU = proc.CPUTime(pid)
	for _, other := range proc.All() {
		if s, ok := proc.Lookup(other); ok && s.Parent == pid && s.State != 'Z' {
			u.Children++
		}
	}
	return u, nil
}
