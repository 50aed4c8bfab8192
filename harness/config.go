package harness

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"github.com/google/uuid"
)

// A Config says which pod to start, and how. Every field is optional.
//
// In Command.PrefixArgs, ExtraArgs and Env the words {workspace}, {home}, {runtime}
// and {name} stand for the pod's own workspace, HOME, the runtime directory of the
// sandbox, and its name (not in a program of FakePod, which has such words itself).
type Config struct {
	// Command launches the pod; an empty Program = a healthy fake pod.
	Command spawn.Command
	// Name is the pod's name; "" = made from the name of the test, and unique
	// in it. A second pod of one name can be started once the first has ended.
	Name string
	// Profile selects a profile; "" = none.
	Profile string
	// TicketRole marks the process with a role; "" = none.
	TicketRole string
	// NameFlag is the flag by which the pod is told its name; "" = "--pod".
	NameFlag string
	// ExtraArgs follow the handshake arguments.
	ExtraArgs []string
	// Workspace is the pod's workspace; "" = a directory in the sandbox, which the
	// pods of this name have for themselves.
	Workspace string
	// WorkspaceFrom is copied into that directory when it is made; nil = nothing.
	// Workspace must be "" then. Of os.DirFS, and whatever else tells of links, these are
	// copied as links. Sockets, FIFOs and devices are left out, which the test's log tells.
	WorkspaceFrom fs.FS
	// HomeFrom is copied in the same way into HOME, which the pods of a test share, when the first
	// pod of this name is started: files that are there already stay; nil =
	// nothing.
	HomeFrom fs.FS
	// Dir is the pod's working directory; "" = the workspace.
	Dir string
	// ResumeFrom is the session to resume; nil = a new pod.
	ResumeFrom *uuid.UUID
	// Env is added to the pod's environment, the last of equal variables
	// counts. An entry "NAME=value" sets a variable; an entry "NAME" passes on
	// the test's own, if it has it.
	Env []string
	// ShowEnv names the variables of Env whose values the evidence of a failed
	// test shows; nil = none: of the others it has the name and the length, since
	// they may be secrets.
	ShowEnv []string
	// ShowArgs has evidence and messages show the command lines of the pod, and of what it
	// starts, whole; false = of arguments beyond the handshake's they have the length only,
	// since they may be secrets. The program, the words pod and worker, and the names of
	// long flags, as in --flag, are shown in any case.
	ShowArgs bool
	// Faults are met by system calls of the pod and of whatever it starts (Linux): see
	// package spawn/fault and spawn.Config. In their paths {home} stands for HOME, too. A
	// call that could not be looked at, and met no fault, fails the test. [Pod.Fail] adds one
	// while the pod runs.
	Faults []fault.Fault
	// Redact returns what may be shown of a line of the pod's log, or of one that the pod and the
	// test send to each other; nil = all of it. It is asked before a line goes into evidence, a
	// message, the test's log or a recording, by several goroutines at once. What the end of the
	// test binary cuts short cannot ask it: that evidence has no log of the pod.
	Redact func(line string) string
	// MaxLine is how many bytes a line of the pod may have that [Talk] reads; 0 = 16 MiB.
	MaxLine int
	// ReadyTimeout is how long the pod may take to become ready;
	// 0 = spawn.DefaultReadyTimeout. It is cut so that it ends before the
	// test's own deadline (go test -timeout), where TB has one.
	ReadyTimeout time.Duration
	// Shutdown is what to write to the pod's socket as the first step of its
	// teardown, such as {"method":"shutdown"} and a newline; nil = nothing.
	Shutdown []byte
	// StopSignal is the step after that, sent to the pod's process group;
	// nil = SIGINT, which real pods take as a request to stop gracefully.
	StopSignal os.Signal
	// StopGrace is how long each step of the teardown may take;
	// 0 = 5 s.
	StopGrace time.Duration
	// MustStopGracefully fails the test if the pod is ended by StopSignal instead
	// of handling it, or must be killed; false = the test's log tells.
	MustStopGracefully bool
	// StopStatus has the exit statuses, beside 0, with which the pod may end when it is
	// stopped, such as 130, a JVM's after SIGINT; one below 0 allows all. Another status fails
	// the test, unless that has failed anyway or has sent a signal to the pod.
	StopStatus []int
	// DumpSignal is a signal on which the pod writes to its log what it does; nil = SIGQUIT for a
	// program that is in Go, and none for another; syscall.Signal(0) = none. The harness sends it
	// once, before it ends a pod that hangs: that did not become ready in time, whose test has
	// failed after a wait in vain, that has not stopped though it must, or that runs when the test
	// is cut short. A pod that has answered after the wait in vain is stopped gracefully. The message
	// and report.html show what the goroutines of a pod in Go wait for.
	DumpSignal os.Signal
	// AllowLeaks lets the test pass although the pod leaves processes behind;
	// false = that fails the test. They are killed in any case.
	AllowLeaks bool
	// AllowReadyAgain lets the test pass although the pod writes a second ready line;
	// false = that fails the test.
	AllowReadyAgain bool
}

func (c Config) withDefaults() (Config, error) {
	if c.Command.Program == "" && len(c.Command.PrefixArgs) == 0 {
		c.Command = FakePod("ready")
	}
	if c.StopSignal == nil {
		c.StopSignal = syscall.SIGINT
	}
	c.StopGrace = cmp.Or(c.StopGrace, sandbox.StopGrace)
	c.ReadyTimeout = cmp.Or(c.ReadyTimeout, spawn.DefaultReadyTimeout)
	if err := c.check(); err != nil {
		return c, &spawn.Error{Verdict: "invalid config", Pod: c.Name, Err: fmt.Errorf("%w: %w", spawn.ErrInvalidConfig, err)}
	}
	return c, nil
}

// check finds what Start would not.
func (c Config) check() error {
	if c.Command.Program == "" {
		return errors.New("Command.PrefixArgs without a Command.Program")
	}
	if _, ok := c.StopSignal.(syscall.Signal); !ok {
		return fmt.Errorf("StopSignal %v is not a syscall.Signal", c.StopSignal)
	}
	if _, ok := c.DumpSignal.(syscall.Signal); !ok && c.DumpSignal != nil {
		return fmt.Errorf("DumpSignal %v is not a syscall.Signal", c.DumpSignal)
	}
	if c.MaxLine < 0 {
		return fmt.Errorf("MaxLine %d is negative", c.MaxLine)
	}
	if c.StopGrace < 0 {
		return fmt.Errorf("StopGrace %v is negative", c.StopGrace)
	}
	if c.Workspace != "" && c.WorkspaceFrom != nil {
		return fmt.Errorf("WorkspaceFrom is for a workspace in the sandbox, and Workspace is %s", c.Workspace)
	}
	// A test that expects a pod to die must not be content with a fake pod that
	// refuses a misspelt mode.
	if program, ok := sandbox.FakeProgram(c.Command); ok {
		return fakepod.Check(program)
	}
	return nil
}

// FakePod returns the command of a fake pod that behaves as a program of steps,
// or a mode, says: see package fakepod.
//
//	harness.StartPod(t, harness.Config{Command: harness.FakePod("delayed-ready")})
//
// A start with a bad program fails with spawn.ErrInvalidConfig.
func FakePod(program string) spawn.Command {
	name, args := fakepod.Command(program)
	return spawn.Command{Program: name, PrefixArgs: args}
}

// life returns what is known of a start that is about to begin.
func (c Config) life(pod string) *evidence.Attempt {
	l := &evidence.Attempt{Pod: pod, Env: evidence.ShownEnv(c.Env, c.ShowEnv), Timeout: c.ReadyTimeout, Redact: c.Redact}
	_, fake := sandbox.FakeProgram(c.Command)
	switch {
	case c.DumpSignal != nil:
		l.Dump = c.DumpSignal.(syscall.Signal)
	case !fake && isGo(c.Command.Program):
		l.Dump = syscall.SIGQUIT
	}
	return l
}
