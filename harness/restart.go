package harness

import (
	"fmt"
	"slices"

	"example.com/podharness/spawn/fault"
)

// Restart starts the pod again with the same name, config and directories. Of Config.Faults it
// keeps only those with Later set, which strike nothing by themselves. It stops a pod that still
// runs first, as Stop does. From then on With and Shared return the new Pod, which is torn down when the old
// one would have been. The old Pod, and what With has returned for it, stay those of a pod that
// has ended. Restart fails the test if the stop or the start fails.
func (p *Pod) Restart() *Pod {
	p.tb.Helper()
	pod, err := p.TryRestart()
	if err != nil {
		p.tb.Fatalf("harness: restart: %v", p.box.failsBy(err))
	}
	return pod
}

// TryRestart is Restart with an error in place of a failed test. It may be called
// from any goroutine.
func (p *Pod) TryRestart() (*Pod, error) {
	p.tb.Helper()
	old := p.latest().view(p.tb)
	old.restarting.Lock()
	for next := old.successor(); next != nil; next = old.successor() { // another test was first
		old.restarting.Unlock()
		old = next.view(p.tb)
		old.restarting.Lock()
	}
	defer old.restarting.Unlock()
	if old.adopted {
		return nil, fmt.Errorf("pod %s was started by a client, which alone can start it again", p.name())
	}
	if err := old.tell(); err != nil {
		return nil, err
	}
	if err := old.Stop(); err != nil {
		return nil, err
	}
	cfg := old.cfg
	cfg.Faults = slices.DeleteFunc(slices.Clone(cfg.Faults), func(f fault.Fault) bool { return !f.Later })
	pod, err := p.box.start(cfg, func(pod *Pod) {
		old.mu.Lock()
		defer old.mu.Unlock()
		old.next = pod
	})
	if err != nil {
		old.mu.Lock()
		defer old.mu.Unlock()
		old.broken = fmt.Errorf("it could not be started again: %w", err)
		return nil, err
	}
	return pod.view(p.tb), nil
}

// successor returns what the pod was restarted as; nil = it was not.
func (p *Pod) successor() *Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// latest returns what the pod was restarted as last, or the pod. It waits for a restart
// that is under way.
func (p *Pod) latest() *Pod {
	for next := p; next != nil; {
		p = next
		p.restarting.Lock()
		next = p.successor()
		p.restarting.Unlock()
	}
	return p
}
