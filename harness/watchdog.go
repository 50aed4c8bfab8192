package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"github.com/google/uuid"
)

// watchdogArg is the first argument of the watchdog. The mark, the root, and where a
// directory for evidence is made follow.
const watchdogArg = "podharness-watchdog"

// binary is what the pods of this test binary have in common: made when the
// first sandbox is.
type binary struct {
	mark string
	root string // of all sandboxes

	base         string // where a directory for evidence is made
	few          bool   // of those of earlier runs in base only the newest are kept
	mostEvidence int64  // bytes for each failed test

	mu       sync.Mutex                 // guards all below
	pods     map[proc.ID]syscall.Signal // those whose teardown is not over, and what has them write what they do
	places   map[int]string             // where the evidence of a test goes, by the number of its sandbox
	shown    map[string]shownArgs       // what is shown of command lines, by mark, if it is not the usual
	pipe     *os.File                   // to the watchdog, which is told all of that; no other process has this end
	process  *os.Process                // the watchdog; nil in tests
	watchdog int                        // its number
	restarts int
}

var (
	thisBinaryMu sync.Mutex
	thisBinary   *binary // nil until the first sandbox is made
)

// artifacts is where the user wants evidence to go; "" = they do not say. A test may
// change its directory later.
var artifacts = func() string {
	dir := os.Getenv("PODHARNESS_ARTIFACTS")
	if abs, err := filepath.Abs(dir); dir != "" && err == nil {
		return abs
	}
	return dir
}()

// stderr is that of the test binary: a test may put another one in its place.
var stderr = os.Stderr

func makeBinary() (*binary, error) {
	thisBinaryMu.Lock()
	defer thisBinaryMu.Unlock()
	if thisBinary != nil {
		return thisBinary, nil
	}
	most, err := maxEvidence()
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp(shortTempDir(), "pod")
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(root, ownDir), 0o700); err != nil {
		return nil, errors.Join(err, os.Remove(root))
	}
	b := &binary{mark: uuid.NewString(), root: root, base: artifacts, mostEvidence: most, pods: map[proc.ID]syscall.Signal{}, places: map[int]string{}, shown: map[string]shownArgs{}}
	if b.base == "" {
		b.base, b.few = artifactsBase()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.watch(); err != nil {
		_ = os.RemoveAll(root)
		return nil, fmt.Errorf("start the watchdog that ends pods when this process dies: %w", printableError(err))
	}
	thisBinary = b
	return b, nil
}

// ownDir is the directory below the root for what is the harness's own and not the pods',
// in a directory for each sandbox: its journal, the logs once more, what clients print.
const ownDir = "own"

// watch starts the watchdog: this binary again, in a session of its own, which
// no signal to this one's process group or terminal reaches. It waits for the end
// of the pipe, so that the kernel tells it of any death of this process.
func (b *binary) watch() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(self, watchdogArg, b.mark, b.root, b.base)
	cmd.Stdin, cmd.Stderr = r, stderr
	cmd.Dir = "/"
	// Where this test binary was itself started by a pod, the watchdog must
	// outlive that pod's teardown: it ends by itself.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, proc.MarkEnv+"=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	b.pipe, b.process, b.watchdog = w, cmd.Process, cmd.Process.Pid
	for p, dump := range b.pods {
		b.tell("%c%d %d %d", isLaunched, p.PID, p.Start, dump)
	}
	for sandbox, dir := range b.places {
		b.tell("%c%d %q", isPlaced, sandbox, dir)
	}
	for mark, s := range b.shown {
		b.tell("%c%t %q %q", isShown, s.all, s.nameFlag, mark)
	}
	go func() {
		_ = cmd.Wait()
		b.watchAgain(cmd.ProcessState)
	}()
	return nil
}

// maxRestarts is how often a watchdog that was killed is started again.
const maxRestarts = 5

// watchAgain starts a new watchdog in place of one that somebody has killed.
func (b *binary) watchAgain(how *os.ProcessState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pipe.Close()
	b.restarts++
	if b.restarts == 1 {
		fmt.Fprintf(os.Stderr, "harness: the watchdog (process %d), which ends pods when this test binary dies, has ended (%v): it is started again\n", b.watchdog, how)
	}
	err := fmt.Errorf("it has ended %d times", b.restarts)
	if b.restarts <= maxRestarts {
		err = b.watch()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "harness: the watchdog is not started again (%v): should this test binary be killed, its pods live on\n", printableError(err))
	}
}

// What the watchdog is told, a line each.
const (
	startBegins = '*' // a process may be there soon, which starts after this time
	isLaunched  = '+' // this is the process, or there is none, and the signal that has it write what it does
	isLetGo     = '-' // nothing is left to do for the process
	isPlaced    = '@' // where the evidence of a sandbox goes
	isShown     = '=' // what is shown of the command lines of a mark
)

// starting tells the watchdog that a start begins; launched must follow.
func (b *binary) starting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell("%c%d %d", startBegins, 0, proc.Ticks())
}

// launched tells the watchdog the process of a start, 0 = there is none, and the signal
// that has it write what it does.
func (b *binary) launched(pid int, dump syscall.Signal) proc.ID {
	p := proc.OfChild(pid)
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.PID != 0 {
		b.pods[p] = dump
	}
	b.tell("%c%d %d %d", isLaunched, p.PID, p.Start, dump)
	return p
}

func (b *binary) letGo(p proc.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.pods[p]; ok {
		delete(b.pods, p)
		b.tell("%c%d %d", isLetGo, p.PID, p.Start)
	}
}

// place tells the watchdog where the evidence of a sandbox goes; "" = it is over.
func (b *binary) place(sandbox int, dir string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.places[sandbox] == dir {
		return
	}
	b.places[sandbox] = dir
	if dir == "" {
		delete(b.places, sandbox)
	}
	b.tell("%c%d %q", isPlaced, sandbox, dir)
}

// patience is how long the watchdog may take to read what it is told.
const patience = time.Second

// tell writes a line. The lock is held. A watchdog that has ended is replaced, and is told
// then; one that does not read, such as a stopped one, is ended.
func (b *binary) tell(format string, args ...any) {
	_ = b.pipe.SetWriteDeadline(time.Now().Add(patience))
	_, err := fmt.Fprintf(b.pipe, format+"\n", args...)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.pipe.Close() // nobody waits for this one again
		if b.process != nil {
			_ = b.process.Kill()
		}
	}
}

func init() {
	if len(os.Args) == 5 && os.Args[1] == watchdogArg {
		runWatchdog(os.Args[2], os.Args[3], os.Args[4])
		// Not os.Exit: in a binary that measures coverage that has hooks.
		syscall.Exit(0)
	}
}

// A Leak is a process that a pod started and left behind.
type Leak struct {
	PID int
	// Command is its command line, with spaces between the words, as Config.ShowArgs has
	// it.
	Command string
	// Age is how long it has run, to 1/100 s.
	Age time.Duration
	// Restless tells that the process forks and exits all the time, so that PID is the
	// number that it had a moment ago.
	Restless bool
}

// String names the process for a message.
func (l Leak) String() string {
	age := fmt.Sprintf("%v old", l.Age)
	if l.Restless {
		age = "which forks and exits all the time"
	}
	return fmt.Sprintf("process %d (%s, %s)", l.PID, podlog.Printable(l.Command), age)
}

func leaksOf(processes []proc.Process, command func(proc.Process) string) (leaks []Leak) {
	for _, p := range processes {
		leaks = append(leaks, Leak{p.PID, command(p), p.Age, p.Restless})
	}
	return leaks
}

// Leaks returns the processes that the pods of this test binary have started
// and that run now, the pods that were not stopped yet included. It is for a
// TestMain that wants to look once more at the end; each pod's own leaks fail
// its test anyway. They are found on Linux only.
func Leaks() []Leak {
	thisBinaryMu.Lock()
	b := thisBinary
	thisBinaryMu.Unlock()
	if b == nil {
		return nil
	}
	return leaksOf(proc.Find(proc.Match{Mark: b.mark}), b.commands(""))
}
