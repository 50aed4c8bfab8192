package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/internal/watchdog"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/handshake"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
)

// sandbox is what the pods of one test share: its private directory, its mark,
// its names.
type sandbox struct {
	tb       TB
	binary   *binary
	number   int
	made     time.Time
	root     string                        // of its directories
	mark     string                        // what the marks of its pods begin with
	own      func() (*safefile.Dir, error) // the directory of what is not the pods', made when it is first needed
	evidence *evidence.Collector
	late     *time.Timer // writes the evidence shortly before the test's deadline; nil = it has none
	roster
	foreign foreign

	// Under the roster's lock.
	named      int
	marks      int
	workspaces map[string]string // of the pods' own, by the pod's name
	users      map[user]bool
	userFailed bool
}

// dirs are the directories of a sandbox.
var dirs = []string{"run", "workspace", "home", "tmp", "yoi", "xdg"}

func (b *sandbox) dir(name string) string { return filepath.Join(b.root, name) }

var (
	sandboxesMu  sync.Mutex
	sandboxes    = map[any]*sandbox{} // by testKey
	sandboxCount int                  // of all that were made
)

// sandboxOf returns the sandbox of a test, made when it is first needed.
func sandboxOf(tb TB) (*sandbox, error) {
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
	tb.Helper() // or the lines of a cleanup would be this one's
	tb.Cleanup(box.cleanup)
	return box, nil
}

func makeSandbox(tb TB) (*sandbox, error) {
	b, err := makeBinary()
	if err != nil {
		return nil, err
	}
	sandboxCount++
	n := fmt.Sprint(sandboxCount)
	box := &sandbox{tb: tb, binary: b, number: sandboxCount, made: time.Now(), root: filepath.Join(b.Root, n), mark: b.Mark + "/" + n + "/", roster: newRoster(), workspaces: map[string]string{}, users: map[user]bool{}}
	// All, since what cleans a temporary directory up may remove an idle one.
	if err := os.MkdirAll(box.root, 0o700); err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := os.Mkdir(box.dir(dir), 0o700); err != nil {
			_ = os.RemoveAll(box.root)
			return nil, err
		}
	}
	box.own = sync.OnceValues(func() (*safefile.Dir, error) {
		root, err := safefile.OpenDir(b.Root)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		return root.MkdirAll(filepath.Join(watchdog.OwnDir, n), 0o700)
	})
	box.evidence = evidence.New(evidence.Test{
		Name: tb.Name(), Mark: box.mark, Own: box.own, Base: b.base, Few: b.few, Most: b.mostEvidence,
		Place:  func(mayMake bool) string { return artifactDir(tb, mayMake && artifacts == "") },
		Placed: func(dir string) { b.Place(box.number, dir) },
		Processes: func() string {
			return evidence.Describe(proc.Find(proc.Match{Mark: box.mark}), b.Commands(""))
		},
		Stream: func(name string) func(string) { return streamOf(tb, name) },
		Log:    tb.Logf, Helper: tb.Helper,
	})
	box.writeLate()
	return box, nil
}

// writeLate has the evidence written of a test that still runs shortly before its deadline:
// go test panics then. The waits of this package have ended by then.
func (b *sandbox) writeLate() {
	if t, ok := optional[interface{ Deadline() (time.Time, bool) }](b.tb); ok {
		if deadline, ok := t.Deadline(); ok {
			left := time.Until(deadline)
			b.late = time.AfterFunc(left-min(left/10, 3*time.Second), b.evidence.WriteLate)
		}
	}
}

var errTestEnded = errors.New("the test has ended, and nobody would stop the pod")

// roster holds the pods of one test: those that were started, and the names of
// those that are being started.
type roster struct {
	ctx    context.Context // ends with the test
	cancel context.CancelFunc
	starts sync.WaitGroup // that are under way

	mu       sync.Mutex
	closed   bool
	starting map[string]bool
	pods     []*Pod

	judgeOnce sync.Once
	fault     bool // one has ended by itself
	dumpOnce  sync.Once
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
		if _, ended := p.Ended(); !ended {
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
	go func() {
		<-p.Done()
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

// dump has the pods of a test that has failed write what they do, once: they are
// about to be stopped.
func (r *roster) dump(tb TB) {
	r.dumpOnce.Do(func() {
		r.mu.Lock()
		pods := slices.DeleteFunc(slices.Clone(r.pods), func(p *Pod) bool {
			_, ended := p.Ended()
			return ended || p.attempt.Dump == 0
		})
		r.mu.Unlock()
		attempts := make([]*evidence.Attempt, len(pods))
		for i, p := range pods {
			attempts[i] = p.attempt
		}
		dump(tb, attempts)
		for _, p := range pods {
			p.mu.Lock()
			_, ended := p.Ended()
			p.killed = p.killed || ended
			p.mu.Unlock()
		}
	})
}

// end cancels the starts that are under way, and stops the pods that became
// ready since the test ended.
func (r *roster) end() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.starts.Wait()
	for _, p := range r.pods {
		_ = p.Stop() // again, for the others
	}
}

// tempDir is the temporary directory as it was when the test binary began: a
// test may set TMPDIR to one of its own, which ends with it.
var tempDir, _ = filepath.Abs(os.TempDir())

// shortTempDir returns a temporary directory below which a socket's path fits
// into a socket address: the usual one, unless TMPDIR is long (as on macOS).
func shortTempDir() string {
	if tempDir == "" || len(tempDir) > 40 {
		return "/tmp"
	}
	return tempDir
}

// newName makes a pod's name of the test's.
func (b *sandbox) newName() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.named++
	const most = 32
	safe := evidence.SafeName(b.tb.Name())
	return fmt.Sprintf("%s-%d", cmp.Or(safe[:min(len(safe), most)], "pod"), b.named)
}

// spawnConfig returns what to start for a config whose defaults are filled in, with
// what the pod finds in place.
func (b *sandbox) spawnConfig(cfg Config) (sc spawn.Config, err error) {
	workspace, err := b.furnish(cfg)
	if err != nil {
		return sc, err
	}
	workspace = cmp.Or(cfg.Workspace, workspace)
	own := strings.NewReplacer("{workspace}", workspace, "{home}", b.dir("home"), "{runtime}", b.dir("run"), "{name}", cfg.Name)
	expand := func(words []string) (expanded []string) {
		for _, word := range words {
			expanded = append(expanded, own.Replace(word))
		}
		return expanded
	}
	if _, ok := fakeProgram(cfg.Command); !ok {
		cfg.Command.PrefixArgs = expand(cfg.Command.PrefixArgs)
	}
	sc = spawn.Config{
		Command:       cfg.Command,
		PodName:       cfg.Name,
		WorkspaceRoot: workspace,
		Env:           b.environ(expand(cfg.Env)),
		ReadyTimeout:  cfg.ReadyTimeout,
	}
	handshake.Of(cfg).To(&sc)
	sc.ExtraArgs = expand(cfg.ExtraArgs)
	return sc, nil
}

// furnish returns the workspace that the pods of a name have for themselves. When
// there is none yet it is made, with what the config wants there and in HOME.
func (b *sandbox) furnish(cfg Config) (workspace string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if dir := b.workspaces[cfg.Name]; dir != "" {
		return dir, nil
	}
	box, err := safefile.OpenDir(b.root)
	if err != nil {
		return "", err
	}
	defer box.Close()
	name := fmt.Sprint("workspace", len(b.workspaces)+1) // a pod's name may be no path element
	for _, tree := range []struct {
		field, dir string
		from       fs.FS
	}{{"WorkspaceFrom", name, cfg.WorkspaceFrom}, {"HomeFrom", "home", cfg.HomeFrom}} {
		// It may be there: a copy has failed before.
		dir, err := box.MkdirAll(tree.dir, 0o700)
		if err == nil {
			err = errors.Join(copyFS(dir, tree.from), dir.Close())
		}
		if err != nil {
			return "", fmt.Errorf("copy %s: %w", tree.field, evidence.PrintableError(err))
		}
	}
	b.workspaces[cfg.Name] = b.dir(name)
	return b.dir(name), nil
}

// copyFS is os.CopyFS, but files that are there already stay, of a link the file that it
// leads to is copied, and no link that a pod has made is followed.
func copyFS(dir *safefile.Dir, from fs.FS) error {
	if from == nil {
		return nil
	}
	return fs.WalkDir(from, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := fs.Stat(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			made, err := dir.MkdirAll(path, info.Mode().Perm()|0o700)
			if err != nil {
				return err
			}
			return made.Close()
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", path)
		}
		text, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		file, err := dir.Create(path, info.Mode().Perm())
		if err != nil {
			if errors.Is(err, fs.ErrExist) {
				return nil
			}
			return err
		}
		_, err = file.Write(text)
		return errors.Join(err, file.Close())
	})
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
		"HOME="+b.dir("home"),
		"TMPDIR="+b.dir("tmp"),
		"YOI_HOME="+b.dir("yoi"),
		"XDG_RUNTIME_DIR="+b.dir("xdg"),
		"YOI_RUNTIME_DIR="+b.dir("run"),
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

// cleanup runs after the cleanups of all pods of the test that are ready by then.
func (b *sandbox) cleanup() {
	b.tb.Helper()
	sandboxesMu.Lock()
	delete(sandboxes, testKey(b.tb))
	sandboxesMu.Unlock()
	b.endForeign()
	b.end()
	if b.foreign.cancel != nil { // what is in nobody's pod
		grace, _ := beforeDeadline(b.tb, "", killGrace)
		proc.Kill(proc.Match{Mark: b.mark}, time.Now().Add(grace))
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
	err := safefile.RemoveAll(b.root)
	if own, ownErr := b.own(); ownErr == nil {
		err = errors.Join(err, safefile.RemoveAll(own.Name()), own.Close())
	}
	if err != nil {
		b.tb.Errorf("harness: the sandbox was not removed: %s", podlog.Printable(err.Error()))
	}
}
