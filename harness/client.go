package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// ClientEnv returns the environment for a program that starts pods itself, a
// client: built like a pod's, in the sandbox of the test. YOI_POD_RUNTIME_COMMAND
// in it is an executable that starts pod with the arguments it is given; the zero
// Command is a healthy fake pod. It also serves tests that call a client library in
// their own process (t.Setenv).
//
// Whatever is started with it has the test's mark. The pods that make a directory
// in the sandbox's runtime directory are captured, and stopped gracefully at the
// end of the test; whatever else is left then is killed. It fails the test if the
// sandbox cannot be made.
func ClientEnv(tb TB, pod spawn.Command) []string {
	tb.Helper()
	box, err := sandboxOf(tb)
	var env []string
	if err == nil {
		env, err = box.clientEnv(nil, pod, box.newMark())
	}
	if err != nil {
		tb.Fatalf("harness: %s", podlog.PrintableLines(err.Error()))
		return nil
	}
	return env
}

func (b *sandbox) clientEnv(extra []string, pod spawn.Command, mark string) ([]string, error) {
	cfg, err := Config{Command: pod}.withDefaults()
	if err != nil {
		return nil, err
	}
	program, err := b.standIn(cfg.Command)
	if err != nil {
		return nil, fmt.Errorf("make a program that starts the pod: %w", err)
	}
	b.foreign.once.Do(func() { b.watchForeign() })
	return append(b.environ(append([]string{spawn.RuntimeCommandEnv + "=" + program}, extra...)), proc.MarkEnv+"="+mark), nil
}

// standIn returns an executable that starts a command with the arguments that it is
// given: the variable that names it is a path, never a command line.
func (b *sandbox) standIn(command spawn.Command) (string, error) {
	if strings.Contains(command.Program, "/") {
		var err error
		if command.Program, err = filepath.Abs(command.Program); err != nil {
			return "", err
		}
	}
	own, err := b.own()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(own.Name(), "command")
	if err != nil {
		return "", err
	}
	var words []string
	for _, word := range append([]string{command.Program}, command.PrefixArgs...) {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	script := "#!/bin/sh\n# Starts the pod of this test with the arguments that a client gives.\n"
	if slices.ContainsFunc(command.PrefixArgs, func(arg string) bool { return arg == "pod" || arg == "worker" }) {
		// The prefix argument of a client's command is there already.
		script += "[ \"$1\" = pod ] && shift\n"
	}
	script += "exec " + strings.Join(words, " ") + ` "$@"` + "\n"
	// Renamed, not written in place: nobody has it open for writing then.
	path := filepath.Join(dir, "pod")
	if err := os.WriteFile(path+".tmp", []byte(script), 0o700); err != nil {
		return "", err
	}
	return path, os.Rename(path+".tmp", path)
}

// A ClientConfig says which client to start, and how. Only Program must be there.
type ClientConfig struct {
	// Program is the client. With a slash in it, it counts from this process's
	// working directory; without, it is looked up in PATH.
	Program string
	// Args are its arguments, as they stand: this is no template, and a relative
	// path in them counts from Dir.
	Args []string
	// Dir is its working directory; "" = the sandbox's workspace.
	Dir string
	// Env is added to its environment, as Config.Env is to a pod's.
	Env []string
	// ShowArgs has evidence and messages show the command lines of the client, and of what
	// it starts, whole; false = as with Config.ShowArgs.
	ShowArgs bool
	// Stdin is what it reads; nil = nothing. With TTY it must be nil: see
	// [Client.Write].
	Stdin io.Reader
	// Pod is what the client starts: see ClientEnv.
	Pod spawn.Command
	// TTY runs it on a pseudo terminal of its own, of 80 by 24 characters.
	TTY bool
	// StopGrace is how long Stop waits after SIGINT; 0 = DefaultStopGrace.
	StopGrace time.Duration
}

// A Client is a program of a test that starts pods itself, in a process group of
// its own. Its methods are safe for concurrent use; those that fail the test must
// be called from the test's goroutine.
type Client struct {
	// PID is the number of its process and of its process group.
	PID int

	tb      TB
	cfg     ClientConfig
	box     *sandbox
	mark    string
	cmd     *exec.Cmd
	process proc.ID
	done    chan struct{} // closed once it has ended and was reaped

	terminal       *os.File      // nil without TTY
	copied         chan struct{} // closed once all that came from it is captured; nil without TTY
	stdout, stderr *evidence.Log // with TTY stderr is nil
	outputs        []*evidence.Attempt

	mu      sync.Mutex
	stopped bool // by the test

	stopMu     sync.Mutex // held during Stop
	stopCalled bool
	stopErr    error
}

// StartClient starts a client. It fails the test if that cannot be. The client is
// stopped when the test ends, before the pods that it has started.
func StartClient(tb TB, cfg ClientConfig) *Client {
	tb.Helper()
	c, err := TryStartClient(tb, cfg)
	if err != nil {
		tb.Fatalf("harness: %s", podlog.PrintableLines(err.Error()))
	}
	return c
}

// TryStartClient is StartClient with an error in place of a failed test. It may be
// called from any goroutine.
func TryStartClient(tb TB, cfg ClientConfig) (*Client, error) {
	tb.Helper()
	switch {
	case cfg.Program == "":
		return nil, errors.New("ClientConfig.Program is empty")
	case cfg.TTY && cfg.Stdin != nil:
		return nil, errors.New("ClientConfig.Stdin and TTY exclude each other: write to the terminal with Client.Write")
	case cfg.StopGrace < 0:
		return nil, fmt.Errorf("ClientConfig.StopGrace %v is negative", cfg.StopGrace)
	case cfg.StopGrace == 0:
		cfg.StopGrace = DefaultStopGrace
	}
	box, err := sandboxOf(tb)
	if err != nil {
		return nil, err
	}
	c := &Client{tb: tb, cfg: cfg, box: box, mark: box.newMark(), done: make(chan struct{})}
	box.binary.Show(c.mark, evidence.Args{All: cfg.ShowArgs})
	if err := c.start(); err != nil {
		return nil, fmt.Errorf("start client %s: %w", evidence.Args{All: cfg.ShowArgs}.Words(spawn.Command{Program: cfg.Program, PrefixArgs: cfg.Args}), evidence.PrintableError(err))
	}
	tb.Cleanup(c.cleanup)
	return c, nil
}

func (c *Client) start() error {
	env, err := c.box.clientEnv(c.cfg.Env, c.cfg.Pod, c.mark)
	if err != nil {
		return err
	}
	program := c.cfg.Program
	if strings.Contains(program, "/") {
		if program, err = filepath.Abs(program); err != nil {
			return err
		}
	}
	c.cmd = exec.Command(program, c.cfg.Args...)
	c.cmd.Env, c.cmd.Dir, c.cmd.Stdin = env, c.cfg.Dir, c.cfg.Stdin
	if c.cmd.Dir == "" {
		c.cmd.Dir = c.box.dir("workspace")
	}
	stdout, err := c.capture("stdout")
	if err != nil {
		return err
	}
	defer stdout.Close()
	if c.cfg.TTY {
		return c.launch(func() (err error) {
			c.terminal, err = pty.StartWithSize(c.cmd, &pty.Winsize{Rows: 24, Cols: 80})
			if err == nil {
				err = c.copyTerminal(stdout)
			}
			return err
		})
	}
	stderr, err := c.capture("stderr")
	if err != nil {
		return err
	}
	defer stderr.Close()
	c.cmd.Stdout, c.cmd.Stderr = stdout, stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.WaitDelay = time.Second // for a Stdin that goes on
	return c.launch(c.cmd.Start)
}

// launch starts the process, of which the watchdog is told.
func (c *Client) launch(start func() error) error {
	c.box.binary.Starting()
	err := start()
	if err != nil {
		c.box.binary.Launched(0, 0)
		return err
	}
	c.PID = c.cmd.Process.Pid
	c.process = c.box.binary.Launched(c.PID, 0)
	for i, a := range c.outputs {
		a.Change(func() {
			if a.PID = c.PID; i == 0 {
				a.Timeline.Launched = time.Since(a.Timeline.Start)
			}
		})
	}
	go func() {
		defer close(c.done)
		_ = c.cmd.Wait()
		if c.copied != nil {
			select {
			case <-c.copied:
			case <-time.After(copyGrace): // another process has the terminal open
			}
		}
		c.outputs[0].Ended(c.cmd.ProcessState.String())
	}()
	return nil
}

// capture opens a file that one of the client's outputs goes to. It is no pipe:
// what the client has started may hold it open.
func (c *Client) capture(name string) (*os.File, error) {
	own, err := c.box.own()
	if err != nil {
		return nil, err
	}
	name = fmt.Sprintf("client-%s.%s", filepath.Base(strings.TrimSuffix(c.mark, "/")), name)
	file, err := own.Create(name, 0o600)
	if err != nil {
		return nil, err
	}
	a := c.box.evidence.Output(name)
	log, err := own.Open(name)
	if err != nil {
		file.Close()
		return nil, err
	}
	a.Captured.Capture(log)
	c.outputs = append(c.outputs, a)
	if len(c.outputs) == 1 {
		c.stdout = a.Captured
	} else {
		c.stderr = a.Captured
	}
	return file, nil
}

// copyGrace is how long what a client has written to its terminal may take to be captured.
const copyGrace = 500 * time.Millisecond

// copyTerminal has what the client writes to its terminal captured.
func (c *Client) copyTerminal(to *os.File) error {
	fd, err := unix.FcntlInt(to.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), to.Name())
	c.copied = make(chan struct{})
	go func() {
		defer close(c.copied)
		defer file.Close()
		_, _ = io.Copy(file, c.terminal) // ends with an error when the last process of the terminal has
	}()
	return nil
}

// Stdout returns all that the client has written to its stdout so far, or with TTY
// to its terminal.
func (c *Client) Stdout() string { return c.stdout.Text() }

// Stderr returns all that the client has written to its stderr so far; "" with TTY.
func (c *Client) Stderr() string {
	if c.stderr == nil {
		return ""
	}
	return c.stderr.Text()
}

// WaitOutput waits until the regular expression pattern matches in what the client
// has written, to stdout or stderr, from its start on, and returns the match. Lines
// need not be whole, so that a prompt is found; ^ and $ match at lines' ends, and $
// where the output ends now. A match that is longer than 1 MiB may not be found, and an
// empty one is none. It fails the test if there is none within timeout, or before the
// client ends.
func (c *Client) WaitOutput(pattern string, timeout time.Duration) string {
	c.tb.Helper()
	match, err := c.TryWaitOutput(pattern, timeout)
	if err != nil {
		c.fail(err)
	}
	return match
}

// TryWaitOutput is WaitOutput with an error in place of a failed test. It may be
// called from any goroutine.
func (c *Client) TryWaitOutput(pattern string, timeout time.Duration) (string, error) {
	var scans []*scan
	for _, a := range c.outputs {
		s, err := newScan(a.Captured, pattern)
		if err != nil {
			return "", fmt.Errorf("output of client %s: bad pattern: %w", c.name(), evidence.PrintableError(err))
		}
		scans = append(scans, s)
	}
	timeout, note := beforeDeadline(c.tb, "timeout", timeout)
	late := time.NewTimer(timeout)
	defer late.Stop()
	for over := false; ; {
		changed := c.changed()
		for _, s := range scans {
			match, err := s.find()
			if err != nil {
				return "", fmt.Errorf("output of client %s: %w", c.name(), evidence.PrintableError(err))
			}
			if match != "" {
				return match, nil
			}
		}
		if over {
			return "", fmt.Errorf("no output of client %s matched %q within %v%s%s", c.name(), pattern, timeout, note, c.condition())
		}
		select {
		case <-changed:
		case <-c.done:
			over = true
		case <-late.C:
			over = true
		}
	}
}

// changed returns a channel that is closed when one of the outputs has grown.
func (c *Client) changed() <-chan struct{} {
	if c.stderr == nil {
		return c.stdout.Next()
	}
	either := make(chan struct{})
	out, err := c.stdout.Next(), c.stderr.Next()
	go func() {
		defer close(either)
		select {
		case <-out:
		case <-err:
		case <-c.done:
		}
	}()
	return either
}

// Write writes to the client's terminal, as a person who types does. Without TTY it
// is an error.
func (c *Client) Write(p []byte) (int, error) {
	if c.terminal == nil {
		return 0, errors.New("the client has no terminal: set ClientConfig.TTY")
	}
	return c.terminal.Write(p)
}

// Done is closed after the client has ended and was reaped.
func (c *Client) Done() <-chan struct{} { return c.done }

// State tells how the client ended; nil while it runs.
func (c *Client) State() *os.ProcessState {
	select {
	case <-c.done:
		return c.cmd.ProcessState
	default:
		return nil
	}
}

// Wait waits until the client has ended, and returns how. It fails the test if it
// is still there after timeout.
func (c *Client) Wait(timeout time.Duration) *os.ProcessState {
	c.tb.Helper()
	state, err := c.TryWait(timeout)
	if err != nil {
		c.fail(err)
	}
	return state
}

// TryWait is Wait with an error in place of a failed test. It may be called from
// any goroutine.
func (c *Client) TryWait(timeout time.Duration) (*os.ProcessState, error) {
	timeout, note := beforeDeadline(c.tb, "timeout", timeout)
	if !c.endsWithin(timeout) {
		return nil, fmt.Errorf("client %s did not end within %v%s%s", c.name(), timeout, note, c.condition())
	}
	return c.State(), nil
}

func (c *Client) endsWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
		return c.State() != nil
	}
}

// fail fails the test, and ends it.
func (c *Client) fail(err error) {
	c.tb.Helper()
	c.outputs[0].Change(func() { c.outputs[0].Failure = err.Error() })
	for _, a := range c.outputs {
		a.Shown = a.Shown || strings.Contains(err.Error(), outputsBegin)
	}
	c.tb.Fatalf("harness: %s", podlog.PrintableLines(err.Error()))
}

// outputsBegin stands before the last lines of a client in a message.
const outputsBegin = "\n\tstdout:"

// condition is what every message about a client ends with.
func (c *Client) condition() string {
	life := fmt.Sprintf("it still runs (process %d)", c.PID)
	if state := c.State(); state != nil {
		life = fmt.Sprintf("it has ended (%v)", state)
	}
	text := "\n\tclient: " + life + outputsBegin + c.stdout.Tail()
	if c.stderr != nil {
		text += "\n\tstderr:" + c.stderr.Tail()
	}
	return text
}

// Stop stops the client, if it runs: it sends SIGINT to its process group, then
// SIGKILL when ClientConfig.StopGrace is over. Its pods live on until the end of
// the test. But a pod, or another process, that is left by a client which has
// failed by itself, with a status other than 0, is a leak of the client: the error,
// which fails the test, too, names it, and it is killed. Stop may be called any
// number of times, from any goroutine, with the same result.
func (c *Client) Stop() error {
	c.tb.Helper()
	c.stopMu.Lock() // not sync.Once: the test's log would name its line
	defer c.stopMu.Unlock()
	if !c.stopCalled {
		c.stopCalled = true
		c.stopErr = c.stop()
	}
	return c.stopErr
}

func (c *Client) stop() error {
	c.tb.Helper()
	if c.State() != nil {
		return c.clear()
	}
	c.markStopped()
	grace, note := beforeDeadline(c.tb, "stop grace", c.cfg.StopGrace)
	_ = syscall.Kill(-c.PID, syscall.SIGCONT)
	_ = syscall.Kill(-c.PID, syscall.SIGINT)
	c.outputs[0].Note("SIGINT")
	if c.endsWithin(grace) {
		return nil
	}
	c.tb.Logf("harness: client %s did not stop within %v of SIGINT: killed%s", c.name(), grace, note)
	return c.Kill()
}

func (c *Client) markStopped() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

// Kill sends SIGKILL to the client's process group and waits until it has ended.
// It is nil for a client that has ended before.
func (c *Client) Kill() error {
	if c.State() != nil {
		return nil
	}
	c.markStopped()
	// Not reaped by now, or a moment ago: the number is its own.
	_ = syscall.Kill(-c.PID, syscall.SIGKILL)
	c.outputs[0].Note("SIGKILL")
	grace, note := beforeDeadline(c.tb, "wait", killGrace)
	if !c.endsWithin(grace) {
		return fmt.Errorf("client %s: process %d is still there %v after SIGKILL%s", c.name(), c.PID, grace, note)
	}
	return nil
}

// clear kills what a client has left that failed by itself, and names it.
func (c *Client) clear() error {
	c.mu.Lock()
	stopped := c.stopped
	c.mu.Unlock()
	if stopped || c.State().Success() {
		return nil
	}
	grace, _ := beforeDeadline(c.tb, "", leakGrace)
	leaks := leaksOf(proc.Lasting(proc.Match{Mark: c.mark}, proc.Range{}, grace), c.box.binary.Commands(c.mark))
	if len(leaks) == 0 {
		return nil
	}
	c.box.evidence.Snapshot()
	grace, _ = beforeDeadline(c.tb, "", killGrace)
	left := proc.Kill(proc.Match{Mark: c.mark}, time.Now().Add(grace))
	names := make([]string, len(leaks))
	for i, leak := range leaks {
		names[i] = leak.String()
	}
	return fmt.Errorf("client %s failed (%v) and left processes behind, %s:\n\t\t%s", c.name(), c.State(), fate(left, c.box.binary.Commands(c.mark)), strings.Join(names, "\n\t\t"))
}

// cleanup ends the client at the end of the test.
func (c *Client) cleanup() {
	c.tb.Helper()
	c.box.judge() // a client that is stopped before its pod's start is over ends that, too
	if failed(c.tb) {
		c.box.evidence.Snapshot()
	}
	if err := c.Stop(); err != nil {
		c.tb.Errorf("harness: %s", podlog.PrintableLines(err.Error()))
	}
	if c.State() != nil {
		c.box.binary.LetGo(c.process)
	}
	if c.terminal != nil {
		c.terminal.Close()
	}
}

// foreign are the pods of a sandbox that its clients have started.
type foreign struct {
	once   sync.Once
	cancel context.CancelFunc // of watching
	done   chan struct{}      // closed when that is over

	mu       sync.Mutex
	attempts map[string]*evidence.Attempt // the latest by name

	adopting sync.Mutex // held during adopt
	over     bool       // no more are adopted
}

// watchForeign captures each log that appears in the runtime directory and is not
// that of a pod which the harness starts.
func (b *sandbox) watchForeign() {
	ctx, cancel := context.WithCancel(context.Background())
	f := &b.foreign
	f.cancel, f.done, f.attempts = cancel, make(chan struct{}), map[string]*evidence.Attempt{}
	go func() {
		defer close(f.done)
		watched := map[string]bool{}
		var dirs sync.WaitGroup
		defer dirs.Wait()
		podlog.WatchDir(ctx, b.dir("run"), func() {
			for _, name := range b.captureAll() {
				// A log that is not there yet is noticed in its own directory.
				if info, err := os.Lstat(filepath.Join(b.dir("run"), name)); err == nil && info.IsDir() && !watched[inode(info)] {
					watched[inode(info)] = true
					dirs.Add(1)
					go func() {
						defer dirs.Done()
						podlog.WatchDir(ctx, filepath.Join(b.dir("run"), name), func() { b.captureForeign(name) })
					}()
				}
			}
		})
	}()
}

// captureAll captures what there is now, and returns the names in the runtime
// directory.
func (b *sandbox) captureAll() (names []string) {
	entries, _ := os.ReadDir(b.dir("run"))
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
func (b *sandbox) captureForeign(name string) *evidence.Attempt {
	f := &b.foreign
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.attempts[name]
	log, err := b.openLog(name)
	if err != nil {
		return known
	}
	info, err := log.Stat()
	if err != nil || b.isStarting(name) || b.evidence.Has(info) {
		log.Close()
		return known
	}
	f.attempts[name] = b.evidence.StartOfClient(name, log)
	return f.attempts[name]
}

// openLog opens the log of a pod that a client has started.
func (b *sandbox) openLog(name string) (*os.File, error) {
	run, err := safefile.OpenDir(b.dir("run"))
	if err != nil {
		return nil, err
	}
	defer run.Close()
	return run.Open(filepath.Join(name, "stderr.log"))
}

// isStarting reports whether the harness starts a pod of a name, whose log is its own.
func (b *sandbox) isStarting(name string) bool {
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
		tb.Fatalf("harness: %s", messageOf(tb, err))
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
			if a != nil {
				note += "\n\tlog: " + podlog.Printable(a.Captured.Path()) + "\n\tlast lines:" + a.Captured.Tail()
			}
			return nil, fmt.Errorf("no pod %s to adopt within %v: %w%s", podlog.Printable(name), timeout, evidence.PrintableError(err), note)
		}
	}
}

// running returns the pod of a name that the test has and that runs; nil = none.
func (b *sandbox) running(name string) *Pod {
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
func (b *sandbox) adopt(name string, a *evidence.Attempt) (*Pod, error) {
	b.foreign.adopting.Lock()
	defer b.foreign.adopting.Unlock()
	if p := b.running(name); p != nil {
		return p, nil
	}
	if b.foreign.over {
		return nil, errTestEnded
	}
	if a == nil {
		return nil, fmt.Errorf("nobody has made %s", podlog.Printable(filepath.Join(b.dir("run"), name, "stderr.log")))
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
func (b *sandbox) whereThePodIs(name, socket string) string {
	for _, p := range proc.Find(proc.Match{Logs: filepath.Join(b.dir("run"), name)}) {
		dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.PID))
		if path := filepath.Join(dir, socket); err == nil && isThere(path) {
			return path
		}
	}
	return filepath.Join(b.dir("workspace"), socket)
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// ownerOf returns the process of a pod that a client has started.
func (b *sandbox) ownerOf(name, socket string) (*proc.Handle, error) {
	run, err := safefile.OpenDir(b.dir("run"))
	if err != nil {
		return nil, err
	}
	defer run.Close()
	dir, err := run.Dir(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	owner := proc.OwnerOf(dir, socket, b.made, b.mark)
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
func (b *sandbox) endForeign() {
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
