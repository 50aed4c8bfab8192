package harness

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/podharness/harness/internal/evidence"
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
	if !p.runs() || err == nil && proc.Ended(p.PID) {
		return Usage{}, p.failed("", kind{fmt.Errorf("what pod %s uses is not known", p.name()), ErrEnded})
	}
	if err != nil {
		return Usage{}, fmt.Errorf("what pod %s uses is not known: %w", p.name(), err)
	}
	return u, nil
}

func usageOf(pid int) (Usage, error) {
	u, err := ownUsage(pid)
	if err != nil {
		return Usage{}, err
	}
	for _, other := range proc.All() {
		if s, ok := proc.Lookup(other); ok && s.Parent == pid && s.State != 'Z' {
			u.Children++
		}
	}
	return u, nil
}

// ownUsage returns all but the children, which it takes long to find.
func ownUsage(pid int) (u Usage, err error) {
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
	if u.Descriptors = proc.CountDescriptors(pid); u.Descriptors == 0 {
		return Usage{}, errors.New("the system does not show its descriptors")
	}
	u.CPU = proc.CPUTime(pid)
	return u, nil
}

// sampling is the time between two looks at what pods use. It is longer where a look takes more
// than a hundredth of that.
const sampling = time.Second

// A sampler looks at what the pods that live use, for the evidence.
type sampler struct {
	mu    sync.Mutex // guards both; it is taken alone
	pods  map[*common]bool
	timer *time.Timer // of the next look; nil = no pod lives, and no look is under way
}

// theSampler is that of this test binary: one goroutine looks at all of its pods.
var theSampler = sampler{pods: map[*common]bool{}}

// begin has a pod looked at, until end.
func (s *sampler) begin(p *common) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[p] = true
	if s.timer == nil {
		s.timer = time.AfterFunc(sampling, s.look)
	}
}

func (s *sampler) end(p *common) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, p)
	if len(s.pods) == 0 && s.timer != nil && s.timer.Stop() { // else a look is under way
		s.timer = nil
	}
}

func (s *sampler) look() {
	s.mu.Lock()
	pods := slices.Collect(maps.Keys(s.pods))
	s.mu.Unlock()
	begin := time.Now()
	for _, p := range pods {
		p.sample(false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pods) == 0 {
		s.timer = nil
		return
	}
	s.timer.Reset(max(sampling, 100*time.Since(begin)))
}

// sample looks at what the pod uses; last = it is about to be ended.
func (p *common) sample(last bool) {
	u, err := ownUsage(p.run.Pod.PID)
	if err == nil && proc.Of(p.run.Pod.PID) == p.run.Pod { // else it is another process, or none
		p.attempt.Sampled(evidence.Sample{At: time.Now(), RSS: u.RSS, CPU: u.CPU, Descriptors: u.Descriptors, Threads: u.Threads}, last)
	}
}
