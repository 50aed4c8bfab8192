package harness

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	// alive is the end of a pipe that only this process has. The watchdog waits
	// for its end, so that the kernel tells it of any death of this process.
	alive    *os.File
	watchdog int // its process
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
	b := &binary{mark: uuid.NewString(), root: root}
	if err := b.watch(); err != nil {
		_ = os.RemoveAll(root)
		return nil, fmt.Errorf("start the watchdog that ends pods when this process dies: %w", err)
	}
	thisBinary = b
	return b, nil
}

// watch starts the watchdog: this binary again, in a session of its own, which
// no signal to this one's process group or terminal reaches.
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
	cmd.Stdin = r
	cmd.Dir = "/"
	// Where this test binary was itself started by a pod, the watchdog must
	// outlive that pod's teardown: it ends by itself.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, markEnv+"=") })
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	go func() { _ = cmd.Wait() }()
	b.alive, b.watchdog = w, cmd.Process.Pid
	return nil
}

func init() {
	if len(os.Args) == 4 && os.Args[1] == watchdogArg {
		reap(os.Args[2], os.Args[3])
		// Not os.Exit: in a binary that measures coverage that has hooks.
		syscall.Exit(0)
	}
}

// reap is the watchdog: it waits for the end of the test binary, then ends what
// its pods have left and removes their sandboxes.
func reap(mark, root string) {
	spawn.CloseInherited()
	debug.FreeOSMemory() // what the host's initialization used
	_, _ = io.Copy(io.Discard, os.Stdin)
	killMarked(mark, time.Now().Add(lastGrace))
	_ = removeAll(root)
}

// removeAll is os.RemoveAll, also of directories that their owner may not write
// to, such as those of Go's module cache.
func removeAll(root string) error {
	err := os.RemoveAll(root)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() {
			_ = os.Chmod(path, 0o700) // before it is read
		}
		return nil
	})
	return os.RemoveAll(root)
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
	return marked(b.mark)
}

// sandboxRoot makes the directory of one more sandbox.
func sandboxRoot(n int) (root, mark string, err error) {
	b, err := makeBinary()
	if err != nil {
		return "", "", err
	}
	root = filepath.Join(b.root, fmt.Sprint(n))
	// All, since what cleans a temporary directory up may remove an idle one.
	return root, fmt.Sprintf("%s/%d/", b.mark, n), os.MkdirAll(root, 0o700)
}
