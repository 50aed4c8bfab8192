package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

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
	// Faults are met by system calls of the client and of whatever it starts (Linux), but not of
	// its pods: a process is a pod's once it has executed Pod, as YOI_POD_RUNTIME_COMMAND names
	// it, and so is whatever that starts. See package spawn/fault. In their paths {workspace},
	// {home} and {runtime} stand for the sandbox's directories. Client.Faults has what they have
	// struck. A call that could not be looked at, and met no fault, fails the test.
	Faults []fault.Fault
	// TTY runs it on a pseudo terminal of its own, of 80 by 24 characters.
	TTY bool
	// StopGrace is how long Stop waits after SIGINT; 0 = 5 s.
	StopGrace time.Duration
}

// A Client is a program of a test that starts pods itself, in a process group of
// its own. It embeds a child process: PID, Done and State. Its methods are safe for
// concurrent use; those that fail the test must be called from the test's goroutine.
type Client struct {
	*sandbox.Child

	tb      TB
	cfg     ClientConfig
	box     *oneTest
	mark    string
	cmd     *exec.Cmd
	process proc.ID

	terminal       *sandbox.Terminal // nil without TTY
	stdout, stderr *evidence.Log     // with TTY stderr is nil
	outputs        []*evidence.Attempt

	mu      sync.Mutex // guards stopped
	stopped bool       // by the test

	stopMu     sync.Mutex // held during Stop; it guards its result
	stopCalled bool
	stopErr    error
}

// StartClient starts a client. It fails the test if that cannot be. The client is
// stopped when the test ends, before the pods that it has started.
func StartClient(tb TB, cfg ClientConfig) *Client {
	tb.Helper()
	c, err := TryStartClient(tb, cfg)
	if err != nil {
		fatal(tb, err)
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
		cfg.StopGrace = sandbox.StopGrace
	}
	box, err := sandboxOf(tb)
	if err != nil {
		return nil, err
	}
	c := &Client{tb: tb, cfg: cfg, box: box, mark: box.newMark()}
	box.binary.Show(c.mark, evidence.Args{All: cfg.ShowArgs})
	if err := c.start(); err != nil {
		return nil, fmt.Errorf("start client %s: %w", evidence.Args{All: cfg.ShowArgs}.Words(spawn.Command{Program: cfg.Program, PrefixArgs: cfg.Args}), evidence.PrintableError(err))
	}
	tb.Cleanup(c.cleanup)
	return c, nil
}

func (c *Client) start() error {
	env, pod, err := c.box.clientEnv(slices.Concat(coverEnv(c.cfg.Program), coverEnv(c.cfg.Pod.Program), c.cfg.Env), c.cfg.Pod, c.mark)
	if err != nil {
		return err
	}
	var faults *fault.Session
	if len(c.cfg.Faults) > 0 {
		if faults, err = c.faults(pod); err != nil {
			return err
		}
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
		c.cmd.Dir = c.box.Dir("workspace")
	}
	stdout, err := c.capture("stdout")
	if err != nil {
		return err
	}
	defer stdout.Close()
	if c.cfg.TTY {
		err := c.launch(faults, func() (err error) {
			c.terminal, err = sandbox.StartOnTerminal(c.cmd, stdout)
			return err
		})
		if err != nil && c.terminal != nil { // what was started could not execute the program
			c.terminal.Close()
		}
		return err
	}
	stderr, err := c.capture("stderr")
	if err != nil {
		return err
	}
	defer stderr.Close()
	c.cmd.Stdout, c.cmd.Stderr = stdout, stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.WaitDelay = time.Second // for a Stdin that goes on
	return c.launch(faults, c.cmd.Start)
}

// faults returns the session of the client's faults.
func (c *Client) faults(pod string) (*fault.Session, error) {
	words := map[string]string{"workspace": c.box.Dir("workspace"), "home": c.box.Dir("home"), "runtime": c.box.Dir("run")}
	var faults []fault.Fault
	for _, f := range c.cfg.Faults {
		faults = append(faults, f.Expand(words))
	}
	s, err := fault.New(faults, func(strike fault.Strike) { c.outputs[0].Note("fault: " + podlog.Printable(strike.String())) })
	if err == nil {
		s.Except = pod
	}
	return s, err
}

// launch starts the process, of which the watchdog is told.
func (c *Client) launch(faults *fault.Session, start func() error) (err error) {
	c.box.binary.Starting()
	if faults != nil {
		err = faults.StartCommand(c.cmd, start)
	} else {
		err = start()
	}
	if err != nil {
		c.box.binary.Launched(0, 0)
		return err
	}
	c.process = c.box.binary.Launched(c.cmd.Process.Pid, 0)
	for i, a := range c.outputs {
		a.Change(func() {
			if a.PID = c.cmd.Process.Pid; i == 0 {
				a.Timeline.Launched = time.Since(a.Timeline.Start)
			}
		})
	}
	c.Child = sandbox.Reap(c.cmd, func(state *os.ProcessState) {
		if c.terminal != nil {
			c.terminal.AwaitCopy()
		}
		c.outputs[0].Ended(state.String())
	})
	c.Faults = faults
	return nil
}

// capture opens a file that one of the client's outputs goes to. It is no pipe:
// what the client has started may hold it open.
func (c *Client) capture(name string) (*os.File, error) {
	own, err := c.box.Own()
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
	c.check(err)
	return match
}

// TryWaitOutput is WaitOutput with an error in place of a failed test. It may be
// called from any goroutine.
func (c *Client) TryWaitOutput(pattern string, timeout time.Duration) (string, error) {
	timeout, note := beforeDeadline(c.tb, "timeout", timeout)
	match, err := evidence.WaitMatch(c.outputs, pattern, timeout, c.Done())
	switch {
	case err != nil:
		return "", fmt.Errorf("output of client %s: %w", c.name(), evidence.PrintableError(err))
	case match == "":
		return "", c.failed(note, fmt.Errorf("no output of client %s matched %q within %v", c.name(), pattern, timeout))
	}
	return match, nil
}

// Write writes to the client's terminal, as a person who types does. Without TTY it
// is an error.
func (c *Client) Write(p []byte) (int, error) {
	if c.terminal == nil {
		return 0, errors.New("the client has no terminal: set ClientConfig.TTY")
	}
	return c.terminal.Write(p)
}

// Wait waits until the client has ended, and returns how. It fails the test if it
// is still there after timeout.
func (c *Client) Wait(timeout time.Duration) *os.ProcessState {
	c.tb.Helper()
	state, err := c.TryWait(timeout)
	c.check(err)
	return state
}

// TryWait is Wait with an error in place of a failed test. It may be called from
// any goroutine.
func (c *Client) TryWait(timeout time.Duration) (*os.ProcessState, error) {
	timeout, note := beforeDeadline(c.tb, "timeout", timeout)
	if !c.endsWithin(timeout) {
		return nil, c.failed(note, fmt.Errorf("client %s did not end within %v", c.name(), timeout))
	}
	return c.State(), nil
}

func (c *Client) endsWithin(d time.Duration) bool { return sandbox.EndsWithin(c.Done(), d) }

// check fails the test, and ends it, if there is an error.
func (c *Client) check(err error) {
	c.tb.Helper()
	if err == nil {
		return
	}
	c.outputs[0].Fail(err.Error())
	var e *Error
	for _, a := range c.outputs {
		a.Shown = a.Shown || errors.As(err, &e) && e.shown != ""
	}
	c.tb.Fatalf("harness: %s", podlog.PrintableLines(err.Error()))
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
		return cut(fmt.Errorf("client %s: process %d is still there %v after SIGKILL", c.name(), c.PID, grace), note)
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
	left := c.box.clear(proc.Match{Mark: c.mark}, c.box.evidence.Snapshot)
	if left == "" {
		return nil
	}
	return fmt.Errorf("client %s failed (%v) and %s", c.name(), c.State(), left)
}

// cleanup ends the client at the end of the test.
func (c *Client) cleanup() {
	c.tb.Helper()
	c.box.judge() // a client that is stopped before its pod's start is over ends that, too
	if failed(c.tb) {
		c.box.evidence.Snapshot()
		if c.box.keep(c.tb) {
			return
		}
	}
	if err := c.Stop(); err != nil {
		c.tb.Errorf("harness: %s", podlog.PrintableLines(err.Error()))
	}
	if c.Faults != nil && c.Faults.Err() != nil {
		c.tb.Errorf("harness: a call of client %s met no fault, and the test proves nothing: %v", c.name(), printable(c.Faults.Err()))
	}
	if c.State() != nil {
		c.box.binary.LetGo(c.process)
	}
	if c.terminal != nil {
		c.terminal.Close()
	}
}

// ClientEnv returns the environment for a client, a program that starts pods itself. It is
// built as a pod's is, in the sandbox of the test. YOI_POD_RUNTIME_COMMAND names an
// executable that starts pod with the arguments it is given; the zero Command is a healthy
// fake pod. A test that calls a client library in its own process can set the variables with
// t.Setenv.
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
		env, _, err = box.clientEnv(nil, pod, box.newMark())
	}
	if err != nil {
		fatal(tb, err)
	}
	return env
}

// clientEnv also returns the program that the environment names.
func (b *oneTest) clientEnv(extra []string, pod spawn.Command, mark string) (env []string, program string, err error) {
	cfg, err := Config{Command: pod}.withDefaults()
	if err != nil {
		return nil, "", err
	}
	if program, err = b.StandIn(cfg.Command); err != nil {
		return nil, "", fmt.Errorf("make a program that starts the pod: %w", err)
	}
	b.foreign.once.Do(func() { b.watchForeign() })
	return append(b.Environ(append([]string{spawn.RuntimeCommandEnv + "=" + program}, extra...)), proc.MarkEnv+"="+mark), program, nil
}
