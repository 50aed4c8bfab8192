package harness

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
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

	mu       sync.Mutex
	pods     map[podProcess]bool // those whose teardown is not over: a new watchdog is told them
	line     int                 // a socket to the watchdog; no other process has this end
	watchdog int                 // its process
	restarts int
}

// podProcess is a process and when it started, in clock ticks since boot: its
// number alone may be given away.
type podProcess struct {
	pid   int
	start uint64
}

var (
	thisBinaryMu sync.Mutex
	thisBinary   *binary // nil until the first sandbox is made
)

func makeBinary() (*binary, error) {
	thisBinaryMu.Lock()
	defer thisBinaryMu.Unlock()
	if thisBinary != nil {
		return thisBinary, nil
	}
	root, err := os.MkdirTemp(shortTempDir(), "pod")
	if err != nil {
		return nil, err
	}
	b := &binary{mark: uuid.NewString(), root: root, pods: map[podProcess]bool{}}
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
// of the socket, so that the kernel tells it of any death of this process.
func (b *binary) watch() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ends, err := socketPair()
	if err != nil {
		return err
	}
	stdin := os.NewFile(uintptr(ends[1]), "watchdog")
	defer stdin.Close()
	cmd := exec.Command(self, watchdogArg, b.mark, b.root)
	cmd.Stdin = stdin
	cmd.Dir = "/"
	// Where this test binary was itself started by a pod, the watchdog must
	// outlive that pod's teardown: it ends by itself.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, markEnv+"=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		_ = unix.Close(ends[0])
		return err
	}
	b.line, b.watchdog = ends[0], cmd.Process.Pid
	for p := range b.pods {
		if again, pidfd, ok := hold(p.pid); ok {
			if again == p {
				b.tell(isLaunched, p, pidfd)
			}
			_ = unix.Close(pidfd)
		}
	}
	go func() {
		_ = cmd.Wait()
		b.watchAgain(cmd.ProcessState)
	}()
	return nil
}

// socketPair makes a pair of connected sockets. What is written to a watchdog that
// was stopped fails after a second.
func socketPair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	ends, err := unix.Socketpair(unix.AF_UNIX, lineType, 0)
	if err != nil {
		return ends, os.NewSyscallError("socketpair", err)
	}
	unix.CloseOnExec(ends[0])
	unix.CloseOnExec(ends[1])
	return ends, unix.SetsockoptTimeval(ends[0], unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})
}

// maxRestarts is how often a watchdog that was killed is started again.
const maxRestarts = 5

// watchAgain starts a new watchdog in place of one that somebody has killed.
func (b *binary) watchAgain(how *os.ProcessState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = unix.Close(b.line)
	b.restarts++
	if b.restarts == 1 {
		fmt.Fprintf(os.Stderr, "harness: the watchdog (process %d), which ends pods when this test binary dies, has ended (%v): it is started again\n", b.watchdog, how)
	}
	err := fmt.Errorf("it has ended %d times", b.restarts)
	if b.restarts <= maxRestarts {
		err = b.watch()
	}
	if err != nil {
		b.line = -1
		fmt.Fprintf(os.Stderr, "harness: the watchdog is not started again (%v): should this test binary be killed, its pods live on\n", err)
	}
}

// What the watchdog is told of a pod, in a message each.
const (
	startBegins = '*' // at what time, in place of a process
	isLaunched  = '+' // with a pidfd: its process may have been reaped since
	startEnds   = '.' // without a process
	isLetGo     = '-'
)

// startBegins tells the watchdog that a process may be there soon.
func (b *binary) startBegins() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(startBegins, podProcess{start: bootTicks()})
}

// launched tells the watchdog of the process of a start that has begun; 0 = there
// is none.
func (b *binary) launched(pid int) podProcess {
	p, pidfd, ok := hold(pid)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !ok { // or it was reaped, or this system has no pidfds
		b.tell(startEnds, p)
		return p
	}
	defer unix.Close(pidfd)
	b.pods[p] = true
	b.tell(isLaunched, p, pidfd)
	return p
}

// letGo tells the watchdog that nothing is left to do for a pod.
func (b *binary) letGo(p podProcess) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pods[p] {
		delete(b.pods, p)
		b.tell(isLetGo, p)
	}
}

// tell sends a message about a pod. Should that fail, there is the mark still: a
// watchdog that has ended is replaced, and is told then.
func (b *binary) tell(what rune, p podProcess, pidfd ...int) {
	var rights []byte
	if len(pidfd) > 0 {
		rights = unix.UnixRights(pidfd...)
	}
	_ = sendMessage(b.line, fmt.Sprintf("%c%d %d", what, p.pid, p.start), rights)
}

func init() {
	if len(os.Args) == 4 && os.Args[1] == watchdogArg {
		runWatchdog(os.Args[2], os.Args[3])
		// Not os.Exit: in a binary that measures coverage that has hooks.
		syscall.Exit(0)
	}
}

// runWatchdog is what the watchdog does: it waits for the end of the test binary,
// then ends what its pods have left and removes their sandboxes.
func runWatchdog(mark, root string) {
	spawn.CloseInherited()
	debug.FreeOSMemory() // what the host's initialization used
	w := watched{pods: map[podProcess]int{}}
	k := kin{mark: mark, logs: root, session: sessionOf(os.Getppid())}
	if real, err := filepath.EvalSymlinks(root); err == nil {
		k.logs = real // as /proc has it
	}
	for w.hear(0) {
	}
	for p, pidfd := range w.pods {
		killGroup(p, pidfd)
	}
	if w.starts > 0 {
		k.since = w.since
	}
	kill(k, time.Now().Add(lastGrace))
	awaitEnds(slices.Collect(maps.Values(w.pods)), killGrace)
	_ = removeAll(root)
}

// watched is what the watchdog knows.
type watched struct {
	pods   map[podProcess]int // by a pidfd each
	starts int                // whose process is not known yet
	since  uint64             // the begin of the first of those
}

// hear takes a message of the test binary, and reports false once that has ended.
func (w *watched) hear(line int) bool {
	var text, rights [128]byte
	n, m, _, _, err := unix.Recvmsg(line, text[:], rights[:], 0)
	if err == unix.EINTR {
		return true
	}
	if err != nil || n <= 0 {
		return false
	}
	var what rune
	var p podProcess
	_, _ = fmt.Sscanf(string(text[:n]), "%c%d %d", &what, &p.pid, &p.start)
	pidfd := -1
	if all, err := unix.ParseSocketControlMessage(rights[:m]); err == nil && len(all) == 1 {
		if fds, err := unix.ParseUnixRights(&all[0]); err == nil && len(fds) == 1 {
			pidfd = fds[0]
		}
	}
	w.note(what, p, pidfd)
	return true
}

func (w *watched) note(what rune, p podProcess, pidfd int) {
	switch what {
	case startBegins:
		if w.starts++; w.starts == 1 {
			w.since = p.start
		}
	case startEnds:
		w.starts = max(0, w.starts-1) // a new watchdog is told what it has not seen begin
	case isLaunched:
		w.starts = max(0, w.starts-1)
		w.pods[p] = pidfd
	case isLetGo:
		if pidfd, known := w.pods[p]; known {
			_ = unix.Close(pidfd)
			delete(w.pods, p)
		}
	}
}

// kin says which processes are meant: those that have any of these.
type kin struct {
	mark  string // a mark that begins so
	group int    // the process group that this process led; 0 = none
	logs  string // stderr in a file below this directory; "" = none
	// An environment that may not be read, a start at or after this time, and the
	// place in the system that the pods of a dead test binary of this session have,
	// if this is its watchdog. 0 = none.
	since   uint64
	session int
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
