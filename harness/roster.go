package harness

import (
	"context"
	"fmt"
	"sync"

	"example.com/podharness/spawn/podlog"
)

// roster holds the pods of one test: those that were started, and the names of
// those that are being started.
type roster struct {
	ctx    context.Context // ends with the test
	cancel context.CancelFunc
	starts sync.WaitGroup // that are under way

	mu       sync.Mutex // guards all up to pods, and what is said below
	closed   bool
	starting map[string]bool
	pods     []*Pod

	judgeOnce sync.Once
	fault     bool // one has ended by itself
	dumpOnce  sync.Once

	sampleOnce sync.Once
	keepOnce   sync.Once
	kept       bool // its pods live on until the test binary ends
}

func newRoster() roster {
	ctx, cancel := context.WithCancel(context.Background())
	return roster{ctx: ctx, cancel: cancel, starting: map[string]bool{}}
}

// begin is called before a pod is started, and the function that it returns
// after the pod was added.
func (r *roster) begin(name string) (end func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errTestEnded
	}
	if r.starting[name] {
		return nil, fmt.Errorf("pod %s is being started already: choose another name", podlog.Printable(name))
	}
	for _, p := range r.pods {
		if p.Name != name {
			continue
		}
		if p.runs() {
			return nil, fmt.Errorf("pod %s still runs (process %d): stop it first, or choose another name", p.name(), p.PID)
		}
	}
	r.starts.Add(1)
	r.starting[name] = true
	return func() {
		r.mu.Lock()
		delete(r.starting, name)
		r.mu.Unlock()
		r.starts.Done()
	}, nil
}

func (r *roster) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *roster) add(p *Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods = append(r.pods, p)
	theSampler.begin(p.common)
	go func() {
		<-p.Done()
		theSampler.end(p.common)
		p.noteEnd()
	}()
}

// judge notes, once, which pods have ended by themselves before the teardown of
// the first one began, and reports whether there are any: those of a group of pods
// may end each other then.
func (r *roster) judge() bool {
	r.judgeOnce.Do(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range r.pods {
			r.fault = p.judge() != nil || r.fault
		}
	})
	return r.fault
}

// living returns the pods that have not ended.
func (r *roster) living() (pods []*Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		if p.runs() {
			pods = append(pods, p)
		}
	}
	return pods
}

// sample looks at what the pods of a test that has failed use last.
func (r *roster) sample() {
	for _, p := range r.living() {
		p.sample(true)
	}
}

// end cancels the starts that are under way, and stops the pods that became
// ready since the test ended.
func (r *roster) end() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.starts.Wait()
	if r.kept {
		return
	}
	for _, p := range r.pods {
		_ = p.Stop() // again, for the others
	}
}
