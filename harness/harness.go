// Package harness starts pods in Go tests: isolated from the developer and from
// each other, their logs captured, torn down when the test ends.
//
//	func TestAgentAnswers(t *testing.T) {
//		pod := harness.StartPod(t, harness.Config{
//			Command: spawn.Command{Program: "/usr/local/bin/agent", PrefixArgs: []string{"pod"}},
//		})
//		conn := pod.Dial()
//		…
//	}
//
// The zero [Config] starts a healthy fake pod. [TryStartPod] is for tests that
// expect a start to fail.
//
// # Isolation
//
// The pods of one test share a sandbox, a private directory below the system's
// temporary one with a path that is short enough for a socket address; pods of
// different tests, subtests included, share nothing. It holds the runtime
// directory, HOME, TMPDIR and the default workspace, and is removed at the end.
//
// A pod's environment is built, not inherited: PATH, LANG, LC_ALL, LC_CTYPE, TZ
// and GOCOVERDIR as the test has them (LANG is C.UTF-8 where it has none), HOME,
// TMPDIR, YOI_HOME, YOI_RUNTIME_DIR and XDG_RUNTIME_DIR inside the sandbox, and
// last what [Config.Env] adds and PODHARNESS_MARK, see below. Nothing else of the
// developer's environment reaches a pod.
//
// A pod runs with the rights of its tester, so it can read, change and kill whatever the
// tester can. What the harness does for it stays in the sandbox: the harness follows no
// link, crosses no mount and waits for no FIFO or device that stands where pods can write,
// believes no number and no journal there, and signals only processes that are proven to
// be a pod's.
//
// # Teardown
//
// When the test ends, each pod is stopped, the last one first: see [Pod.Stop].
// A pod that ended by itself during the test fails it, unless the test called
// Stop, Kill or Wait. So does a pod that leaves processes behind, in whatever
// group or session ([Config.AllowLeaks], [Leaks]): they are killed and named.
//
// However the test binary ends, by a panic, os.Exit, its timeout or SIGKILL,
// what its pods have started is gone a moment later, and so are the sandboxes:
// a watchdog process, started with the first pod, waits for the end of the test
// binary and kills the process group of each pod and whatever has that binary's
// mark in its environment, the variable PODHARNESS_MARK. (A watchdog that was killed or
// stopped is replaced.) This, and the finding of leaks, needs Linux. A process that
// has left the pod's process group and hides or overwrites its environment, as a
// daemon may that sets its own title or is not dumpable, is not found.
//
// # Suites
//
// [Pod.With] has a pod in a subtest, [Pod.Restart] starts it again. Pods that all
// tests of a binary share need a TestMain, and are torn down after the last test:
//
//	func TestMain(m *testing.M) { harness.Main(m) }
//
//	func TestAnswers(t *testing.T) {
//		pod := harness.Shared(t, "agent", harness.Config{})
//		answer := pod.Send(`{"method":"ping"}`, time.Second)
//		…
//	}
//
// Main also tells, in one line at the end, which tests had pods that did not stop
// gracefully, or came close to their ready timeout. To restart a shared pod interrupts
// the tests beside that use it: one that does is better not parallel. [Pod.Talk] is for
// more than one line, [Pod.WaitLogAfter] for the next line of a log.
//
// # Clients
//
// A client is a program that starts pods itself. [StartClient] runs one in the
// test's sandbox, on a terminal if it wants one, and [Adopt] makes a Pod of what it
// has started:
//
//	client := harness.StartClient(t, harness.ClientConfig{Program: "my-client", Args: []string{"start", "alpha"}})
//	client.WaitOutput("alpha is ready", 10*time.Second)
//	pod := harness.Adopt(t, "alpha", 10*time.Second)
//
// What its pods log is captured, adopted or not. At the end of the test the client
// is stopped first, then its pods: living on without their client is what pods do.
// [ClientEnv] is for clients that are started in another way.
//
// # Evidence
//
// When a test failed, the last lines of each pod's log are reported, and the evidence
// is kept in a directory that one line names. It is named after the test and the time
// in the directory PODHARNESS_ARTIFACTS, if that environment variable is set; else it is
// the test's artifact directory (go test -artifacts), or a temporary one, of which the
// newest 20 are kept beside those of this run of tests. (A TB that is not of package
// testing and has ArtifactDir chooses itself.)
//
//	report.html     the verdict, a picture of all pods on one clock, their logs and
//	                processes, and what to do: the page to open first
//	NAME.log        the log of a pod, as it wrote it; NAME.2.log is its second life
//	NAME.txtar      a scenario that acts out again what the pod did, as far as its parent
//	                could see: podscript NAME.txtar; none of a pod that a client started
//	client-N.stdout what a client wrote to its stdout, or stderr
//	NAME.dir/       the small files of the pod's directory, such as status.json
//	merged.log      all of these logs on one clock
//	processes.txt   what lived when the test failed, or when a start did, before it was
//	                ended: with open files, sockets, and what each thread waits for; and
//	                the environment beyond the usual, values as [Config.ShowEnv] has it,
//	                and the arguments, as [Config.ShowArgs] does
//	timelines.txt   how long each step of each start took, and what came then, to the end
//
// All of it has at most 64 MiB, or as many as PODHARNESS_ARTIFACTS_MAX says: of logs that
// are too long the beginning and the end are kept.
//
// The same is written of each test that the end of the test binary cuts short, by a panic,
// os.Exit or a signal: by the watchdog, which looks at what lives, kills it, and has one
// line on the test binary's stderr say where the evidence is; it knows the times of lines
// to 100 ms. A test that
// still runs shortly before its deadline (go test -timeout) has its evidence written then.
// Every wait of this package ends before that, where TB has Deadline.
//
// On success nothing is written. What a cleanup fails that was registered before the test
// first used this package comes too late for all this: cleanups run last to first.
package harness

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"github.com/google/uuid"
)

// DefaultStopGrace is how long each step of a teardown may take if
// [Config.StopGrace] is zero.
const DefaultStopGrace = 5 * time.Second

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
	// Workspace must be "" then.
	WorkspaceFrom fs.FS
	// HomeFrom is copied into HOME, which the pods of a test share, when the first
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
	// 0 = DefaultStopGrace.
	StopGrace time.Duration
	// MustStopGracefully fails the test if the pod is ended by StopSignal instead
	// of handling it, or must be killed; false = the test's log tells.
	MustStopGracefully bool
	// DumpSignal has a pod that hangs write to its log what it does, such as SIGQUIT
	// for a Go program; nil = none. It is sent to the pod's process, once, before that
	// is ended: because it did not become ready in time, or runs when the test has
	// failed or was cut short.
	DumpSignal os.Signal
	// AllowLeaks lets the test pass although the pod leaves processes behind;
	// false = that fails the test. They are killed in any case.
	AllowLeaks bool
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

// StartPod starts a pod and waits until it is ready. It fails the test, with
// the evidence, if that cannot be; like FailNow it must then be called from the
// test's goroutine. The pod is torn down when the test ends.
func StartPod(tb TB, cfg Config) *Pod {
	tb.Helper()
	pod, err := start(tb, cfg)
	if err != nil {
		tb.Fatalf("harness: %s", messageOf(tb, err))
	}
	return pod
}

// TryStartPod is StartPod for tests that expect a failure: it returns the
// [*spawn.Error], and says nothing itself. Another error tells that no start was
// tried: there is no sandbox, the name is that of a pod that runs or is being
// started, or the test has ended. It may be called from any goroutine; a start
// that the end of the test overtakes is cancelled. (One that begins after the end
// is noticed where TB has Context, as *testing.T since Go 1.24.)
func TryStartPod(tb TB, cfg Config) (*Pod, error) {
	tb.Helper()
	return start(tb, cfg)
}

// RuntimeDir returns the runtime directory that the pods of a test share: the
// directory of the pod NAME is RuntimeDir(tb)/NAME. It fails the test if the
// sandbox cannot be made.
func RuntimeDir(tb TB) string {
	tb.Helper()
	box, err := sandboxOf(tb)
	if err != nil {
		tb.Fatalf("harness: %s", podlog.PrintableLines(err.Error()))
		return ""
	}
	return box.dir("run")
}

func start(tb TB, cfg Config) (*Pod, error) {
	tb.Helper()
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	box, err := sandboxOf(tb)
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = box.newName()
	}
	return box.start(cfg, func(pod *Pod) {
		tb.Helper()
		tb.Cleanup(pod.cleanup)
	})
}

// start starts a pod whose config is complete; keep is called with one that is ready.
func (b *sandbox) start(cfg Config, keep func(*Pod)) (*Pod, error) {
	b.tb.Helper()
	done, err := b.begin(cfg.Name)
	if err != nil {
		return nil, err
	}
	defer done()
	sc, err := b.spawnConfig(cfg)
	if err != nil {
		return nil, err
	}
	mark := b.newMark()
	args := evidence.Args{All: cfg.ShowArgs, NameFlag: cfg.NameFlag}
	b.binary.Show(mark, args)
	sc.Env = append(sc.Env, proc.MarkEnv+"="+mark)
	var note string
	sc.ReadyTimeout, note = beforeDeadline(b.tb, "ready timeout", cfg.ReadyTimeout)
	a := b.evidence.Start(cfg.life(sc.PodName), args)
	born := proc.Now()
	var process proc.ID
	launched := false
	b.binary.Starting()
	started, err := b.observe(a, sc, mark, func(pid int) {
		launched = true
		process = b.binary.Launched(pid, a.Dump)
	})
	if !launched {
		b.binary.Launched(0, 0)
	}
	a.Captured.Follow()
	if err != nil {
		grace, _ := beforeDeadline(b.tb, "", killGrace)
		proc.Kill(proc.Match{Mark: mark}, time.Now().Add(grace)) // what it left outside of its group
		b.binary.LetGo(process)
		a.Captured.EndFollowing()
		if errors.Is(err, spawn.ErrTimeout) && note != "" {
			err = fmt.Errorf("%w%s", err, note)
		}
		return nil, err
	}
	born.First = started.PID
	pod := &Pod{started, b.tb, &common{cfg: cfg, box: b, log: a.Captured, attempt: a, mark: mark, process: process, born: born}}
	if pod.Timeline.Connected > cfg.ReadyTimeout/2 {
		readyLate.happened(b.tb)
		b.tb.Logf("harness: pod %s became ready only after %v, more than half of its ready timeout of %v", pod.name(), pod.Timeline.Connected.Round(time.Millisecond), cfg.ReadyTimeout)
	}
	b.add(pod)
	keep(pod)
	return pod, nil
}

func (c Config) withDefaults() (Config, error) {
	if c.Command.Program == "" && len(c.Command.PrefixArgs) == 0 {
		c.Command = FakePod("ready")
	}
	if c.StopSignal == nil {
		c.StopSignal = syscall.SIGINT
	}
	c.StopGrace = cmp.Or(c.StopGrace, DefaultStopGrace)
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
	if c.StopGrace < 0 {
		return fmt.Errorf("StopGrace %v is negative", c.StopGrace)
	}
	if c.Workspace != "" && c.WorkspaceFrom != nil {
		return fmt.Errorf("WorkspaceFrom is for a workspace in the sandbox, and Workspace is %s", c.Workspace)
	}
	// A test that expects a pod to die must not be content with a fake pod that
	// refuses a misspelt mode.
	if program, ok := fakeProgram(c.Command); ok {
		return fakepod.Check(program)
	}
	return nil
}

// fakeProgram returns the program of a command that FakePod has made.
func fakeProgram(command spawn.Command) (program string, ok bool) {
	name, args := fakepod.Command("")
	last := len(args) - 1
	if command.Program != name || len(command.PrefixArgs) <= last || !slices.Equal(command.PrefixArgs[:last], args[:last]) {
		return "", false
	}
	return command.PrefixArgs[last], true
}
