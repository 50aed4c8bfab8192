package harness

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
)

// foreign are the pods of a sandbox that its clients have started.
type foreign struct {
	once   sync.Once
	cancel context.CancelFunc // of watching
	done   chan struct{}      // closed when that is over

	mu       sync.Mutex                   // guards both
	attempts map[string]*evidence.Attempt // the latest by name
	replaced map[string]bool              // the pod, or its client, has renamed its log, by name

	adopting sync.Mutex // held during adopt; it guards over
	over     bool       // no more are adopted
}

// watchForeign captures each log that appears in the runtime directory and is not
// that of a pod which the harness starts.
func (b *oneTest) watchForeign() {
	ctx, cancel := context.WithCancel(context.Background())
	f := &b.foreign
	f.cancel, f.done = cancel, make(chan struct{})
	f.attempts, f.replaced = map[string]*evidence.Attempt{}, map[string]bool{}
	go func() {
		defer close(f.done)
		b.WatchPods(ctx, func(name string) { b.captureForeign(name) })
	}()
}

// captureForeign captures the log of a pod, if it has one that was not captured
// yet, and returns what is known of it; nil = nothing.
func (b *oneTest) captureForeign(name string) *evidence.Attempt {
	f := &b.foreign
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.attempts[name]
	log, err := b.OpenLog(name)
	if err != nil {
		return known
	}
	info, err := log.Stat()
	if err != nil || b.isStarting(name) || b.evidence.Has(info) || !safefile.HasOneName(log) {
		log.Close()
		return known
	}
	f.replaced[name] = known != nil && b.IsRenamed(name, known.Captured.File())
	f.attempts[name] = b.evidence.StartOfClient(name, log)
	return f.attempts[name]
}

// wasReplaced reports whether there is an earlier log of a client's pod, under another name.
func (b *oneTest) wasReplaced(name string) bool {
	b.foreign.mu.Lock()
	defer b.foreign.mu.Unlock()
	return b.foreign.replaced[name]
}

// isStarting reports whether the harness starts a pod of a name, whose log is its own.
func (b *oneTest) isStarting(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.starting[name]
}

// Adopt returns the pod of a name in the test's runtime directory, whoever has
// started it, once it is there: its ready line, and whoever listens on the socket
// in that. It is then a Pod like any other, but for its exit status, which only its
// parent is told: State stays nil. If whoever listens is not the pod, as when it has
// ended and its child serves, the pod directory's file pid names the process. Adopt takes
// a process only if it has the pod's log as its stderr, listens on a socket in the pod's
// directory, or has the mark of the test. Adopt fails the test if there is none within
// timeout.
func Adopt(tb TB, name string, timeout time.Duration) *Pod {
	tb.Helper()
	p, err := TryAdopt(tb, name, timeout)
	if err != nil {
		fatal(tb, err)
	}
	return p
}

// TryAdopt is Adopt with an error in place of a failed test. It may be called from
// any goroutine.
func TryAdopt(tb TB, name string, timeout time.Duration) (*Pod, error) {
	tb.Helper()
	box, err := sandboxOf(tb)
	if err != nil {
		return nil, err
	}
	if p := box.running(name); p != nil {
		return p, nil
	}
	box.foreign.once.Do(func() { box.watchForeign() })
	timeout, note := beforeDeadline(tb, "timeout", timeout)
	late := time.NewTimer(timeout)
	defer late.Stop()
	tick := time.NewTicker(5 * time.Millisecond) // nothing tells that a socket is listened on
	defer tick.Stop()
	for {
		a := box.captureForeign(name)
		p, err := box.adopt(name, a)
		if err == nil {
			p.tellReady()
		}
		if err == nil || errors.Is(err, errTestEnded) {
			return p, err
		}
		select {
		case <-tick.C:
		case <-late.C:
			e := &Error{Pod: name, Cut: note != "", note: note, Err: fmt.Errorf("no pod %s to adopt within %v: %w", podlog.Printable(name), timeout, evidence.PrintableError(err))}
			if a != nil {
				e.Log, e.shown = a.Captured.Path(), "\n\tlast lines:"+a.Captured.Tail()
			}
			if box.wasReplaced(name) {
				e.note += "\n\tnote: " + podlog.ReplacedTrouble
			}
			return nil, e
		}
	}
}

// running returns the pod of a name that the test has and that runs; nil = none.
func (b *oneTest) running(name string) *Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.pods {
		if p.Name == name && p.runs() {
			return p
		}
	}
	return nil
}

// adopt makes a Pod of what a client has started, if that is ready, or returns the one
// that another goroutine has made.
func (b *oneTest) adopt(name string, a *evidence.Attempt) (*Pod, error) {
	b.foreign.adopting.Lock()
	defer b.foreign.adopting.Unlock()
	if p := b.running(name); p != nil {
		return p, nil
	}
	if b.foreign.over {
		return nil, errTestEnded
	}
	if a == nil {
		return nil, fmt.Errorf("nobody has made %s", podlog.Printable(filepath.Join(b.Dir("run"), name, podlog.LogName)))
	}
	timeline, told, err := a.Seen()
	switch {
	case timeline.ReadyLine == 0:
		return nil, errors.New("it has written no ready line")
	case err != nil:
		return nil, fmt.Errorf("%w: %w", spawn.ErrMalformedReady, err)
	case told.Name != name:
		return nil, fmt.Errorf("%w: got %q, want %q", spawn.ErrNameMismatch, told.Name, name)
	}
	socket := b.Socket(name, told.Socket)
	owner, err := b.Owner(name, socket, b.mark)
	if err != nil {
		return nil, err
	}
	p := &Pod{spawn.Adopt(owner), b.tb, &common{box: b, log: a.Captured, attempt: a, run: proc.RunOf(owner.ID), adopted: true}}
	p.cfg, _ = Config{Name: name}.withDefaults()
	p.Name, p.SocketPath, p.LogPath, p.Timeline = name, socket, a.Captured.Path(), timeline
	a.Change(func() { a.PID = p.PID })
	b.add(p)
	return p, nil
}

// adoptForeign makes pods of what clients have started so far.
func (b *oneTest) adoptForeign() {
	b.foreign.mu.Lock()
	attempts := maps.Clone(b.foreign.attempts)
	b.foreign.mu.Unlock()
	for name, a := range attempts {
		if p, err := b.adopt(name, a); err == nil { // else there is none that could be stopped
			p.expectEnd() // some end with others
		}
	}
}

// endForeign stops the pods that clients have left, as pods are, and lets go of
// what captures them.
func (b *oneTest) endForeign() {
	f := &b.foreign
	f.once.Do(func() {}) // nobody begins to watch from now on
	if f.cancel == nil {
		return
	}
	f.cancel()
	<-f.done
	for _, name := range b.PodNames() { // what has come so late that it was not noticed
		b.captureForeign(name)
	}
	b.adoptForeign()
	f.adopting.Lock()
	f.over = true
	f.adopting.Unlock()
	b.mu.Lock()
	pods := slices.Clone(b.pods)
	b.mu.Unlock()
	for _, p := range pods {
		if p.adopted {
			p.cleanup()
		}
	}
	for _, a := range f.attempts {
		a.Captured.EndFollowing()
	}
}
