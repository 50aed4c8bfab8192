package harness

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/spawn"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// markEnv is the environment variable that marks whatever a pod starts: the
// UUID of the test binary, the number of the sandbox, the number of the pod.
const markEnv = "PODHARNESS_MARK"

// watchdogArg is the first argument of the watchdog.
const watchdogArg = "podharness-watchdog"

// lastGrace is how long the watchdog goes on killing what forks faster than it
// is found.
const lastGrace = 10 * time.Second

// binary is what the pods of this test binary have in common: made when the
// first sandbox is.
type binary struct {
	mark string
	root string // of all sandboxes

	artifacts    string // where evidence goes, as the user wants it; "" = they do not say
	mostEvidence int64  // bytes for each failed test

	mu       sync.Mutex
	pods     map[podProcess]bool // those whose teardown is not over: a new watchdog is told them
	pipe     *os.File            // to the watchdog; no other process has this end
	watchdog int                 // its process
	restarts int
}

// podProcess is a process and when it started, in clock ticks since boot: its
// number alone may be given away.
type podProcess struct {
	pid   int
	start int64
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
	b := &binary{mark: uuid.NewString(), root: root, artifacts: artifacts, mostEvidence: most, pods: map[podProcess]bool{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.watch(); err != nil {
		_ = os.RemoveAll(root)
		return nil, fmt.Errorf("start the watchdog that ends pods when this process dies: %w", err)
	}
	thisBinary = b
	return b, nil
}

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
	cmd := exec.Command(self, watchdogArg, b.mark, b.root)
	cmd.Stdin, cmd.Stderr = r, stderr
	cmd.Dir = "/"
	// Where this test binary was itself started by a pod, the watchdog must
	// outlive that pod's teardown: it ends by itself.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, markEnv+"=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	b.pipe, b.watchdog = w, cmd.Process.Pid
	for p := range b.pods {
		b.tell(isLaunched, p)
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
		fmt.Fprintf(os.Stderr, "harness: the watchdog is not started again (%v): should this test binary be killed, its pods live on\n", err)
	}
}

// What the watchdog is told, a line each with a process and a time.
const (
	startBegins = '*' // a process may be there soon, which starts after this time
	isLaunched  = '+' // this is the process, or there is none
	isLetGo     = '-' // nothing is left to do for it
)

// starting tells the watchdog that a start begins; launched must follow.
func (b *binary) starting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(startBegins, podProcess{start: bootTicks()})
}

// launched tells the watchdog the process of a start; 0 = there is none.
func (b *binary) launched(pid int) podProcess {
	p := identify(pid)
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.pid != 0 {
		b.pods[p] = true
	}
	b.tell(isLaunched, p)
	return p
}

func (b *binary) letGo(p podProcess) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pods[p] {
		delete(b.pods, p)
		b.tell(isLetGo, p)
	}
}

// tell writes a line. Should that fail, there is the mark still: a watchdog that
// has ended is replaced, and is told then.
func (b *binary) tell(what rune, p podProcess) {
	_ = b.pipe.SetWriteDeadline(time.Now().Add(time.Second)) // the watchdog may be stopped
	_, _ = fmt.Fprintf(b.pipe, "%c%d %d\n", what, p.pid, p.start)
}

func init() {
	if len(os.Args) == 4 && os.Args[1] == watchdogArg {
		runWatchdog(os.Args[2], os.Args[3])
		// Not os.Exit: in a binary that measures coverage that has hooks.
		syscall.Exit(0)
	}
}

// runWatchdog is what the watchdog does: it waits for the end of the test binary,
// then writes the evidence of the tests that this has cut short, ends what its pods
// have left and removes their sandboxes.
func runWatchdog(mark, root string) {
	spawn.CloseInherited()
	debug.FreeOSMemory() // what the host's initialization used
	k := kin{mark: mark}
	k.logs, _ = filepath.EvalSymlinks(root) // as /proc has it
	w := watched{pods: map[podProcess]int{}}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var what rune
		var p podProcess
		_, _ = fmt.Sscanf(lines.Text(), "%c%d %d", &what, &p.pid, &p.start)
		w.note(what, p)
	}
	evidence := w.cutShort(root)
	told := sayWhere(evidence)
	for p, pidfd := range w.pods {
		killGroup(p, pidfd)
	}
	k.since = w.since
	kill(k, time.Now().Add(lastGrace))
	awaitEnds(slices.Collect(maps.Values(w.pods)), killGrace)
	for _, r := range evidence {
		r.write()
	}
	told()
	_ = removeAll(root)
}

// sayWhere names the evidence on the test binary's stderr, and lets go of that, for
// the end of which go test waits: when the function that it returns is called, since
// whoever goes on then may collect the evidence, but no later than in a second.
func sayWhere(evidence []*record) (written func()) {
	over, said := make(chan struct{}), make(chan struct{})
	late := time.After(time.Second)
	signal.Ignore(syscall.SIGPIPE) // nobody may read it any more
	go func() {
		defer close(said)
		if len(evidence) > 0 {
			select {
			case <-over:
			case <-late:
			}
		}
		for _, r := range evidence {
			where := r.Dir
			if where == "" {
				where = fmt.Sprintf("lost: %v", errors.Join(r.lost...))
			}
			fmt.Fprintf(os.Stderr, "harness: evidence of %s (%s): %s\n", spawn.Printable(r.Test), r.Why, where)
		}
		os.Stderr.Close()
	}()
	return func() {
		close(over)
		select {
		case <-said:
		case <-time.After(time.Second): // nobody reads it, and it is full
		}
	}
}

// watched is what the watchdog knows.
type watched struct {
	pods   map[podProcess]int // by a pidfd each
	starts int                // whose process is not known yet
	since  int64              // the begin of the first of those; 0 = there is none
}

// cutShort takes the snapshots of the tests that the end of the test binary has cut
// short, and has their pods write what they do. Nothing was killed yet.
func (w *watched) cutShort(root string) (evidence []*record) {
	dirs, _ := filepath.Glob(filepath.Join(root, "*", journalDir))
	for _, dir := range dirs {
		// What a TB of its own keeps below root goes with the sandboxes.
		if r := readJournal(dir); r != nil && !strings.HasPrefix(r.Place, root+"/") {
			evidence = append(evidence, r)
		}
	}
	most, _ := maxEvidence()
	var pids []int
	var logs []*os.File
	for _, r := range evidence {
		r.most = most / int64(len(evidence))
		if r.Until.IsZero() {
			r.freeze(whyEnded)
		}
		for p, pidfd := range w.pods {
			i := slices.IndexFunc(r.Lives, func(l *life) bool { return l.PID == p.pid && l.Dump != 0 })
			if i < 0 {
				continue
			}
			l := r.Lives[i]
			l.stamp() // of its own words
			if sendTo(pidfd, l.Dump) == nil {
				l.add(mark{What: unix.SignalName(l.Dump), At: time.Now()})
				pids, logs = append(pids, p.pid), append(logs, l.file)
			}
		}
	}
	awaitQuiet(pids, logs, dumpGrace/4)
	for _, r := range evidence {
		for _, l := range r.Lives {
			l.complete()
		}
	}
	return evidence
}

// note takes what the test binary tells.
func (w *watched) note(what rune, p podProcess) {
	pidfd, known := w.pods[p]
	switch {
	case what == startBegins:
		if w.starts++; w.starts == 1 {
			w.since = p.start
		}
	case what == isLaunched:
		if w.starts = max(0, w.starts-1); w.starts == 0 { // a new one has not seen all begin
			w.since = 0
		}
		if pidfd, ok := hold(p); ok {
			w.pods[p] = pidfd
		}
	case what == isLetGo && known:
		_ = unix.Close(pidfd)
		delete(w.pods, p)
	}
}

// kin says which processes are meant: those that have any of these.
type kin struct {
	mark  string // a mark that begins so; "" = none
	group int    // the process group that this process has led; 0 = none
	logs  string // stderr in a file below this directory; "" = none
	since int64  // an orphan of a start that began then: see isOrphan; 0 = none
}

// A Leak is a process that a pod started and left behind.
type Leak struct {
	PID int
	// Command is its command line, with spaces between the words.
	Command string
	// Age is how long it has run, to 1/100 s.
	Age time.Duration
}

// String names the process for a message.
func (l Leak) String() string {
	return fmt.Sprintf("process %d (%s, %v old)", l.PID, spawn.Printable(l.Command), l.Age)
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
	return find(kin{mark: b.mark})
}
