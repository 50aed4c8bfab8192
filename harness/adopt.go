package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
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

	mu       sync.Mutex                   // guards attempts
	attempts map[string]*evidence.Attempt // the latest by name

	adopting sync.Mutex // held during adopt, before the roster's; it guards over
	over     bool       // no more are adopted
}

// watchForeign captures each log that appears in the runtime directory and is not
// that of a pod which the harness starts.
func (b *oneTest) watchForeign() {
	ctx, cancel := context.WithCancel(context.Background())
	f := &b.foreign
	f.cancel, f.done, f.attempts = cancel, make(chan struct{}), map[string]*evidence.Attempt{}
	go func() {
		defer close(f.done)
		watched := map[string]bool{}
		var dirs sync.WaitGroup
		defer dirs.Wait()
		podlog.WatchDir(ctx, b.Dir("run"), func() {
			for _, name := range b.captureAll() {
				// A log that is not there yet is noticed in its own directory.
				if info, err := os.Lstat(filepath.Join(b.Dir("run"), name)); err == nil && info.IsDir() && !watched[inode(info)] {
					watched[inode(info)] = true
					dirs.Add(1)
					go func() {
						defer dirs.Done()
						podlog.WatchDir(ctx, filepath.Join(b.Dir("run"), name), func() { b.captureForeign(name) })
					}()
				}
			}
		})
	}()
}

// captureAll captures what there is now, and returns the names in the runtime
// directory.
func (b *oneTest) captureAll() (names []string) {
	entries, _ := os.ReadDir(b.Dir("run"))
	for _, entry := range entries {
		names = append(names, entry.Name())
		b.captureForeign(entry.Name())
	}
	return names
}

func inode(info os.FileInfo) string {
	return strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)
}

// captureForeign captures the log of a pod, if it has one that was not captured
// yet, and returns what is known of it; nil = nothing.
func (b *oneTest) captureForeign(name string) *evidence.Attempt {
	f := &b.foreign
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.attempts[name]
	log, err := b.openLog(name)
	if err != nil {
		return known
	}
	info, err := log.Stat()
	if err != nil || b.isStarting(name) || b.evidence.Has(info) || !safefile.HasOneName(log) {
		log.Close()
		return known
	}
	f.attempts[name] = b.evidence.StartOfClient(name, log)
	return f.attempts[name]
}

// openLog opens the log of a pod that a client has started.
func (b *oneTest) openLog(name string) (*os.File, error) {
	run, err := b.Open("run")
	if err != nil {
		return nil, err
	}
	defer run.Close()
	return run.Open(filepath.Join(name, podlog.LogName))
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
		tb.Fatalf("harness: %v", toldOf(tb, err))
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
			return nil, e
		}
	}
}

// running returns the pod of a name that the test has and that runs; nil = none.
func (b *oneTest) running(name string) *Pod {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.pods {
		if _, ended := p.Ended(); p.Name == name && !ended {
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
	socket := told.Socket
	switch {
	case timeline.ReadyLine == 0:
		return nil, errors.New("it has written no ready line")
	case err != nil:
		return nil, fmt.Errorf("%w: %w", spawn.ErrMalformedReady, err)
	case told.Name != name:
		return nil, fmt.Errorf("%w: got %q, want %q", spawn.ErrNameMismatch, told.Name, name)
	}
	if !filepath.IsAbs(socket) {
		socket = b.whereThePodIs(name, socket)
	}
	owner, err := b.ownerOf(name, socket)
	if err != nil {
		return nil, err
	}
	p := &Pod{spawn.Adopt(owner), b.tb, &common{box: b, log: a.Captured, attempt: a, adopted: true}}
	p.cfg, _ = Config{Name: name}.withDefaults()
	p.Name, p.SocketPath, p.LogPath, p.Timeline = name, socket, a.Captured.Path(), timeline
	a.Change(func() { a.PID = p.PID })
	b.add(p)
	return p, nil
}

// whereThePodIs makes the relative path absolute that a client's pod has announced. What
// has the log as its stderr is the pod, or a script around it; where the system does not
// tell that, it is where clients are.
func (b *oneTest) whereThePodIs(name, socket string) string {
	for _, p := range proc.Find(proc.Match{Logs: filepath.Join(b.Dir("run"), name)}) {
		dir := proc.WorkingDir(p.PID, "")
		path := filepath.Join(dir, socket)
		if _, err := os.Lstat(path); err == nil && dir != "" {
			return path
		}
	}
	return filepath.Join(b.Dir("workspace"), socket)
}

// ownerOf returns the process of a pod that a client has started.
func (b *oneTest) ownerOf(name, socket string) (*proc.Handle, error) {
	run, err := b.Open("run")
	if err != nil {
		return nil, err
	}
	defer run.Close()
	dir, err := run.Dir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	owner := proc.OwnerOf(dir, socket, b.Made, b.mark)
	switch {
	case owner.Err != nil:
		return nil, fmt.Errorf("its socket %s: %w", podlog.Printable(socket), owner.Err)
	case owner.Handle == nil && !proc.Proves:
		return proc.Hold(proc.Of(owner.Named))
	case owner.Handle == nil:
		return nil, fmt.Errorf("whoever listens on its socket is not known to be the pod, and %w", owner.Unknown)
	}
	return owner.Handle, nil
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
	b.captureAll() // what has come so late that it was not noticed
	for name, a := range f.attempts {
		if p, err := b.adopt(name, a); err == nil { // else there is none that could be stopped
			p.expectEnd() // some end with others
		}
	}
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
