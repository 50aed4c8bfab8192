package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/internal/watchdog"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/options"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// oneTest is what is known of one test: its sandbox, its mark, its pods and their evidence,
// and the names that are taken.
type oneTest struct {
	*sandbox.Box
	tb       TB
	binary   *binary
	number   int
	mark     string // what the marks of its pods begin with
	evidence *evidence.Collector
	late     *time.Timer // writes the evidence shortly before the test's deadline; nil = it has none
	roster
	foreign foreign

	// Under the roster's lock.
	named      int
	marks      int
	users      map[any][]*Pod // that a test uses which does not own them, by its testKey
	userFailed bool
}

// Where two locks are held at once, they are taken in this order: sandboxesMu, thisBinaryMu; a
// pod's restarting, its stopMu; a sandbox's adopting, its roster's mu; a pod's mu; a foreign's
// mu; those of the evidence; the watchdog's. Those of a suite and of a client are taken alone.

var (
	sandboxesMu  sync.Mutex           // guards both
	sandboxes    = map[any]*oneTest{} // by testKey
	sandboxCount int                  // of all that were made
)

// sandboxOf returns the sandbox of a test, made when it is first needed.
func sandboxOf(tb TB) (*oneTest, error) {
	if !reflect.TypeOf(tb).Comparable() {
		return nil, fmt.Errorf("a TB of type %T cannot be told from another one: pass a pointer", tb)
	}
	sandboxesMu.Lock()
	defer sandboxesMu.Unlock()
	if box := sandboxes[testKey(tb)]; box != nil {
		return box, nil
	}
	if t, ok := optional[interface{ Context() context.Context }](tb); ok && t.Context().Err() != nil {
		return nil, errTestEnded // its cleanups may have run
	}
	box, err := makeSandbox(tb)
	if err != nil {
		return nil, fmt.Errorf("make a sandbox: %w", evidence.PrintableError(err))
	}
	sandboxes[testKey(tb)] = box
	box.binary.Use()
	tb.Helper() // or the lines of a cleanup would be this one's
	tb.Cleanup(box.cleanup)
	return box, nil
}

func makeSandbox(tb TB) (*oneTest, error) {
	b, err := makeBinary()
	if err != nil {
		return nil, err
	}
	sandboxCount++
	n := fmt.Sprint(sandboxCount)
	box := &oneTest{tb: tb, binary: b, number: sandboxCount, mark: b.Mark + "/" + n + "/", roster: newRoster(), users: map[any][]*Pod{}}
	if box.Box, err = sandbox.New(b.Root, n, filepath.Join(watchdog.OwnDir, n)); err != nil {
		return nil, err
	}
	box.evidence = evidence.New(evidence.Test{
		Name: tb.Name(), Box: filepath.Join(b.Root, n), Own: box.Own, Prefix: b.base, Few: b.few, Most: b.mostEvidence,
		Place:  func(mayMake bool) string { return artifactDir(tb, mayMake && artifacts == "") },
		Placed: func(dir string) { b.Place(box.number, dir) },
		Processes: func() string {
			return evidence.Describe(proc.Find(proc.Match{Mark: box.mark}), b.Commands(""))
		},
		Stream: func(name string) func(string) { return streamOf(tb, name) },
		Log:    tb.Logf, Helper: tb.Helper,
	})
	box.Fails, box.Log = box.failsBy, tb.Logf
	if t, ok := optional[interface{ Sandboxed(*sandbox.Box) }](tb); ok { // package scripts needs more of it
		t.Sandboxed(box.Box)
	}
	box.writeLate()
	return box, nil
}

// writeLate has the evidence written of a test that still runs shortly before its deadline:
// go test panics then. The waits of this package have ended by then.
func (b *oneTest) writeLate() {
	if t, ok := optional[interface{ Deadline() (time.Time, bool) }](b.tb); ok {
		if deadline, ok := t.Deadline(); ok {
			left := time.Until(deadline)
			b.late = time.AfterFunc(left-min(left/10, 3*time.Second), b.evidence.WriteLate)
		}
	}
}

var errTestEnded = errors.New("the test has ended, and nobody would stop the pod")

// newName makes a pod's name of the test's.
func (b *oneTest) newName() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.named++
	const most = 32
	safe := evidence.SafeName(b.tb.Name())
	return fmt.Sprintf("%s-%d", cmp.Or(safe[:min(len(safe), most)], "pod"), b.named)
}

// spawnConfig returns what to start for a config whose defaults are filled in, with
// what the pod finds in place.
func (b *oneTest) spawnConfig(cfg Config) (spawn.Config, error) {
	sc := spawn.Config{Command: cfg.Command, PodName: cfg.Name, WorkspaceRoot: cfg.Workspace, Env: append(coverEnv(cfg.Command.Program), cfg.Env...), ReadyTimeout: cfg.ReadyTimeout}
	options.Of(cfg).To(&sc)
	return b.Prepare(sc, cfg.WorkspaceFrom, cfg.HomeFrom)
}

// newMark returns the mark of one more pod.
func (b *oneTest) newMark() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.marks++
	return fmt.Sprintf("%s%d/", b.mark, b.marks)
}

// cleanup runs after the cleanups of all pods of the test that are ready by then.
func (b *oneTest) cleanup() {
	b.tb.Helper()
	sandboxesMu.Lock()
	delete(sandboxes, testKey(b.tb))
	sandboxesMu.Unlock()
	b.endForeign()
	b.end()
	if b.foreign.cancel != nil && !b.kept { // what is in nobody's pod
		grace, _ := beforeDeadline(b.tb, "", killGrace)
		proc.Kill(proc.Match{Mark: b.mark, Sockets: filepath.Dir(b.Dir("run"))}, time.Now().Add(grace))
	}
	if b.failed() {
		if dir := b.evidence.Report(); dir != "" {
			attr(b.tb, dir)
		}
	}
	if b.late != nil {
		b.late.Stop()
	}
	b.evidence.Close(b.failed())
	if b.kept { // the watchdog ends them, and removes the sandbox
		b.binary.keeps(b.mark)
	} else if err := b.Remove(); err != nil {
		b.tb.Errorf("harness: the sandbox was not removed: %s", podlog.Printable(err.Error()))
	}
	b.binary.Unuse()
}
