// Package watchdog is the inside of harness: a process that outlives the test binary, and
// ends what its pods have left. The parent's side starts it and tells it what it must know;
// the child's side waits for the parent's end.
package watchdog

import (
	"cmp"
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

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
)

// arg is the first argument of the watchdog. The mark, the root, and where a directory for
// evidence is made follow.
const arg = "podharness-watchdog"

// OwnDir is the directory below the root for what is the harness's own and not the pods',
// in a directory for each sandbox: its journal, the logs once more, what clients print.
const OwnDir = "own"

// A Parent is the test binary, and what it tells its watchdog. Its methods are safe for
// concurrent use.
type Parent struct {
	Mark string // that all of its pods have
	Root string // of all sandboxes
	base string // where a directory for evidence is made

	stderr   *os.File                   // of the watchdog
	mu       sync.Mutex                 // guards all below
	pods     map[proc.ID]syscall.Signal // those whose teardown is not over, and what has them write what they do
	places   map[int]string             // where the evidence of a test goes, by the number of its sandbox
	shown    map[string]evidence.Args   // what is shown of command lines, by mark, if it is not the usual
	pipe     *os.File                   // to the watchdog, which is told all of that; no other process has this end
	end      *os.File                   // of the watchdog's stdout: reading it returns once the watchdog has ended
	cmd      *exec.Cmd                  // the watchdog
	restarts int
	users    int           // sandboxes that pods may be in
	waiting  chan struct{} // closed when the goroutine has ended that waits for the watchdog's end; there is one while there are users

	using sync.Mutex // held during Use and Unuse, so that only one waits; it is taken before mu
}

// Start starts the watchdog of this process, which writes to stderr. The directory root is
// there.
func Start(mark, root, base string, stderr *os.File) (*Parent, error) {
	if err := safefile.Mkdir(filepath.Join(root, OwnDir), 0o700); err != nil {
		return nil, err
	}
	b := &Parent{Mark: mark, Root: root, base: base, stderr: stderr, pods: map[proc.ID]syscall.Signal{}, places: map[int]string{}, shown: map[string]evidence.Args{}}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b, b.watch()
}

// To returns a parent whose watchdog is whoever reads from a pipe: it is for tests.
func To(pipe *os.File) *Parent {
	return &Parent{pipe: pipe, pods: map[proc.ID]syscall.Signal{}, places: map[int]string{}, shown: map[string]evidence.Args{}}
}

// watch starts the watchdog: this binary again, in a session of its own, which
// no signal to this one's process group or terminal reaches. It waits for the end
// of the pipe, so that the kernel tells it of any death of this process.
func (b *Parent) watch() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	end, stdout, err := os.Pipe()
	if err != nil {
		w.Close()
		return err
	}
	defer stdout.Close()
	cmd := reexec.Command(arg, b.Mark, b.Root, b.base)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, stdout, b.stderr
	cmd.Dir = "/"
	// Where this test binary was itself started by a pod, the watchdog must
	// outlive that pod's teardown: it ends by itself.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, proc.MarkEnv+"=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		end.Close()
		return err
	}
	b.pipe, b.end, b.cmd = w, end, cmd
	for p, dump := range b.pods {
		b.tell("%c%d %d %d", isLaunched, p.PID, p.Start, dump)
	}
	for sandbox, dir := range b.places {
		b.tell("%c%d %q", isPlaced, sandbox, dir)
	}
	for mark, s := range b.shown {
		b.tell("%c%t %q %q", isShown, s.All, s.NameFlag, mark)
	}
	b.await()
	return nil
}

// Use has a watchdog replaced that ends, until Unuse. The pods of a sandbox that is made later
// need one again: it is replaced then.
func (b *Parent) Use() {
	b.using.Lock()
	defer b.using.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users++; b.users == 1 {
		b.await()
	}
}

// Unuse ends a Use. No goroutine is left after the last one.
func (b *Parent) Unuse() {
	b.using.Lock()
	defer b.using.Unlock()
	b.mu.Lock()
	b.users--
	waiting := b.waiting
	if b.users > 0 {
		waiting = nil
	} else if b.end != nil {
		_ = b.end.SetReadDeadline(time.Unix(1, 0))
	}
	b.mu.Unlock()
	if waiting != nil {
		<-waiting
	}
}

// await has a goroutine wait for the end of the watchdog. The lock is held.
func (b *Parent) await() {
	if b.users == 0 || b.end == nil {
		return
	}
	end, cmd, over := b.end, b.cmd, make(chan struct{})
	_ = end.SetReadDeadline(time.Time{})
	b.waiting = over
	go func() {
		defer close(over)
		if _, err := end.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		_ = cmd.Wait()
		b.watchAgain(cmd.ProcessState)
	}()
}

// MaxRestarts is how often a watchdog that was killed is started again.
const MaxRestarts = 5

// watchAgain starts a new watchdog in place of one that somebody has killed.
func (b *Parent) watchAgain(how *os.ProcessState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pipe.Close()
	b.end.Close()
	b.end = nil
	b.restarts++
	if b.restarts == 1 {
		fmt.Fprintf(os.Stderr, "harness: the watchdog (process %d), which ends pods when this test binary dies, has ended (%v): it is started again\n", b.cmd.Process.Pid, how)
	}
	err := fmt.Errorf("it has ended %d times", b.restarts)
	if b.restarts <= MaxRestarts {
		err = b.watch()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "harness: the watchdog is not started again (%v): should this test binary be killed, its pods live on\n", evidence.PrintableError(err))
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

// Starting tells the watchdog that a start begins; Launched must follow.
func (b *Parent) Starting() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell("%c%d %d", startBegins, 0, proc.Ticks())
}

// Launched tells the watchdog the process of a start, 0 = there is none, and the signal
// that has it write what it does.
func (b *Parent) Launched(pid int, dump syscall.Signal) proc.ID {
	p := proc.OfChild(pid)
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.PID != 0 {
		b.pods[p] = dump
	}
	b.tell("%c%d %d %d", isLaunched, p.PID, p.Start, dump)
	return p
}

// LetGo tells the watchdog that nothing is left to do for a process.
func (b *Parent) LetGo(p proc.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.pods[p]; ok {
		delete(b.pods, p)
		b.tell("%c%d %d", isLetGo, p.PID, p.Start)
	}
}

// Place tells the watchdog where the evidence of a sandbox goes; "" = it is over.
func (b *Parent) Place(sandbox int, dir string) {
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
func (b *Parent) tell(format string, args ...any) {
	_ = b.pipe.SetWriteDeadline(time.Now().Add(patience))
	_, err := fmt.Fprintf(b.pipe, format+"\n", args...)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		b.pipe.Close() // nobody waits for this one again
		_ = b.cmd.Process.Kill()
	}
}

func init() {
	reexec.Register(arg, func(args []string) int {
		run(args[0], args[1], args[2])
		return 0
	})
}

// Show notes what is shown of the command lines of processes with a mark.
func (b *Parent) Show(mark string, s evidence.Args) {
	if s == (evidence.Args{}) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shown[mark] = s
	b.tell("%c%t %q %q", isShown, s.All, s.NameFlag, mark)
}

// Commands returns what returns the command line of a process as it may be shown. The mark
// is that of processes that are known to belong to it and whose own is not known.
func (b *Parent) Commands(mark string) func(proc.Process) string {
	return func(p proc.Process) string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.shown[cmp.Or(p.Mark, mark)].Command(p.Args)
	}
}

// Process returns the number of the watchdog's process, and how often it was started again.
func (b *Parent) Process() (pid, restarts int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cmd.Process.Pid, b.restarts
}

// Knows reports whether the watchdog ends a process should this one die.
func (b *Parent) Knows(p proc.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.pods[p]
	return ok
}
