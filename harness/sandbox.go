package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn"
)

// sandbox is the private directory of one test, and what its pods left there.
type sandbox struct {
	tb        TB
	root      string
	runtime   string
	workspace string
	mark      string // what the marks of its pods begin with

	ctx    context.Context // ends with the sandbox
	cancel context.CancelFunc
	starts sync.WaitGroup // that are under way

	mu       sync.Mutex
	closed   bool
	starting map[string]bool // the names of pods that are being started
	named    int
	marks    int
	lent     bool // a config was handed out: what was started with it is not stopped by a pod's cleanup
	attempts []*attempt
	pods     []*Pod

	judgeOnce sync.Once

	// What there was when the first pod of a failed test was about to be
	// stopped.
	snapshotOnce sync.Once
	processes    string
	evidence     string // the directory where it is kept
	lost         []error
}

var (
	sandboxesMu  sync.Mutex
	sandboxes    = map[TB]*sandbox{}
	sandboxCount int // of all that were made
)

// sandboxOf returns the sandbox of a test, made when it is first needed.
func sandboxOf(tb TB) (*sandbox, error) {
	if !reflect.TypeOf(tb).Comparable() {
		return nil, fmt.Errorf("harness: a TB of type %T cannot be told from another one: pass a pointer", tb)
	}
	sandboxesMu.Lock()
	defer sandboxesMu.Unlock()
	if box := sandboxes[tb]; box != nil {
		return box, nil
	}
	if t, ok := tb.(interface{ Context() context.Context }); ok && t.Context().Err() != nil {
		return nil, errTestEnded // its cleanups may have run
	}
	sandboxCount++
	root, mark, err := sandboxRoot(sandboxCount)
	if err != nil {
		return nil, fmt.Errorf("harness: make a sandbox: %w", err)
	}
	box := &sandbox{
		tb:        tb,
		root:      root,
		mark:      mark,
		runtime:   filepath.Join(root, "run"),
		starting:  map[string]bool{},
		workspace: filepath.Join(root, "workspace"),
	}
	for _, dir := range []string{"run", "workspace", "home", "tmp", "yoi", "xdg"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			_ = os.RemoveAll(root)
			return nil, fmt.Errorf("harness: make a sandbox: %w", err)
		}
	}
	box.ctx, box.cancel = context.WithCancel(context.Background())
	sandboxes[tb] = box
	tb.Cleanup(box.cleanup)
	return box, nil
}

var errTestEnded = errors.New("harness: the test has ended, and nobody would stop the pod")

// begin is called before a pod is started, and the function that it returns
// after the pod was added.
func (b *sandbox) begin(name string) (end func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errTestEnded
	}
	if b.starting[name] {
		return nil, fmt.Errorf("harness: pod %s is being started already: choose another name", name)
	}
	for _, p := range b.pods {
		if p.Name != name {
			continue
		}
		if _, ended := p.ended(); !ended {
			return nil, fmt.Errorf("harness: pod %s still runs (process %d): stop it first, or choose another name", name, p.PID)
		}
	}
	b.starts.Add(1)
	b.starting[name] = true
	return func() {
		b.mu.Lock()
		delete(b.starting, name)
		b.mu.Unlock()
		b.starts.Done()
	}, nil
}

func (b *sandbox) add(p *Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pods = append(b.pods, p)
}

// judge notes, once, which pods have ended by themselves before the teardown of
// the first one began: those of a group of pods may end each other then.
func (b *sandbox) judge() {
	b.judgeOnce.Do(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.pods {
			p.judge()
		}
	})
}

// tempDir is the temporary directory as it was when the test binary began: a
// test may set TMPDIR to one of its own, which ends with it.
var tempDir = func() string {
	dir, err := filepath.Abs(os.TempDir())
	if err != nil {
		return "/tmp"
	}
	return dir
}()

// shortTempDir returns a temporary directory below which a socket's path fits
// into a socket address: the usual one, unless TMPDIR is long (as on macOS).
func shortTempDir() string {
	if len(tempDir) <= 40 {
		return tempDir
	}
	return "/tmp"
}

// maxName is how much of a test's name goes into the name of a pod.
const maxName = 32

// newName makes a pod's name of the test's, with what is unsafe in a path or a
// shell replaced.
func (b *sandbox) newName() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.named++
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, b.tb.Name())
	// A name must not look like a flag, or be hidden.
	safe = strings.TrimLeft(safe, "-.")
	safe = safe[:min(len(safe), maxName)]
	if safe == "" {
		safe = "pod"
	}
	return fmt.Sprintf("%s-%d", safe, b.named)
}

// spawnConfig returns what to start for a config whose defaults are filled in.
func (b *sandbox) spawnConfig(cfg Config, mark string) spawn.Config {
	if cfg.Name == "" {
		cfg.Name = b.newName()
	}
	if cfg.Workspace == "" {
		cfg.Workspace = b.workspace
	}
	return spawn.Config{
		Command:       cfg.Command,
		PodName:       cfg.Name,
		Profile:       cfg.Profile,
		TicketRole:    cfg.TicketRole,
		WorkspaceRoot: cfg.Workspace,
		Dir:           cfg.Dir,
		ResumeFrom:    cfg.ResumeFrom,
		Env:           append(b.environ(cfg.Env), markEnv+"="+mark),
		ReadyTimeout:  cfg.ReadyTimeout,
	}
}

// newMark returns the mark of one more pod.
func (b *sandbox) newMark() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.marks++
	return fmt.Sprintf("%s%d/", b.mark, b.marks)
}

// passedOn are the variables that a pod gets as the test has them.
var passedOn = []string{"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "GOCOVERDIR"}

// environ returns the environment of a pod.
func (b *sandbox) environ(extra []string) []string {
	env := []string{"LANG=C.UTF-8"}
	pass := func(name string) {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range passedOn {
		pass(name)
	}
	env = append(env,
		"HOME="+filepath.Join(b.root, "home"),
		"TMPDIR="+filepath.Join(b.root, "tmp"),
		"YOI_HOME="+filepath.Join(b.root, "yoi"),
		"XDG_RUNTIME_DIR="+filepath.Join(b.root, "xdg"),
		"YOI_RUNTIME_DIR="+b.runtime,
	)
	for _, entry := range extra {
		if strings.Contains(entry, "=") {
			env = append(env, entry)
		} else {
			pass(entry)
		}
	}
	return env
}

// capture opens the log of a pod that is about to be started, so that every
// byte of it can be read whatever the pod does to its directory.
//
// It makes the log that Start then finds: Start only truncates it. A log that
// is left of an earlier pod of that name is unlinked first, since whoever reads
// that pod's log holds it open.
func (b *sandbox) capture(sc spawn.Config) *podLog {
	log := &podLog{pod: sc.PodName}
	path, err := sc.LogPath()
	if err != nil {
		return log // Start fails the same way
	}
	// What stands in the way is Start's to refuse: no error counts here.
	if os.MkdirAll(podDir(path), 0o700) != nil {
		return log
	}
	if info, err := os.Lstat(podDir(path)); err != nil || !info.IsDir() {
		return log
	}
	if info, err := os.Lstat(path); err == nil {
		if !info.Mode().IsRegular() {
			return log
		}
		_ = os.Remove(path)
	}
	if file, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		log.open(b.tb, file)
	}
	return log
}

// podDir is where a log is. It may hold .., which filepath.Dir would remove: behind
// a symbolic link that leads elsewhere than the text says.
func podDir(log string) string { return log[:strings.LastIndexByte(log, '/')] }

// cleanup runs after the cleanups of all pods of the test.
func (b *sandbox) cleanup() {
	b.tb.Helper()
	sandboxesMu.Lock()
	delete(sandboxes, b.tb)
	sandboxesMu.Unlock()
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.starts.Wait()
	for _, p := range b.pods {
		_ = p.Stop() // again, but for one that became ready since the test ended
	}
	if b.lent {
		killMarked(b.mark, time.Now().Add(DefaultStopGrace))
	}
	if b.tb.Failed() {
		b.report()
	}
	for _, a := range b.attempts {
		a.log.close()
	}
	if err := removeAll(b.root); err != nil {
		b.tb.Errorf("harness: the sandbox was not removed: %v", err)
	}
}
