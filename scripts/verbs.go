package scripts

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// defaultWait is how long a verb waits unless told otherwise.
const defaultWait = 10 * time.Second

// verb is a command of the scripts; the package documentation is made of them.
// Its run returns an error that fails the script, or with ! is what the script
// expects.
type verb struct {
	name, usage string
	min, max    int                        // arguments that are no flags
	flags       func(*call, *flag.FlagSet) // nil = none
	run         func(*call) error
	help        string
	not         string // what ! asks for; "" = it has no meaning
}

var verbs = []verb{
	{"podstart", "[flags] NAME", 1, 1, (*call).startFlags, (*call).start, "start a pod and wait until it is ready", "if it must not"},
	{"podstop", "NAME", 1, 1, nil, (*call).stop, "stop it", "if it had ended by itself, but see below"},
	{"podkill", "NAME", 1, 1, nil, (*call).kill, "kill its process group", ""},
	{"podsignal", "NAME SIGNAL", 2, 2, nil, (*call).signal, "send a signal to its process group", ""},
	{"podwait", "[-timeout DURATION] NAME", 1, 1, (*call).waitFlags, (*call).wait, "wait until it ends by itself, with status 0", "with another one or by a signal"},
	{"podlog", "NAME [PATTERN]", 1, 2, nil, (*call).log, "match what it has logged so far", "if nothing does"},
	{"podwaitlog", "[-timeout DURATION] NAME PATTERN", 2, 2, (*call).waitFlags, (*call).waitLog, "wait until a line of its log matches", "if none does before the timeout, or its end"},
	{"podalive", "NAME", 1, 1, nil, (*call).alive, "whether its process runs", "if it has ended"},
	{"podsend", "[-timeout DURATION] NAME [LINE]", 1, 2, (*call).waitFlags, (*call).send, "send a line to its socket and print the answer: what comes after the snapshot, or without LINE the snapshot", "if there is none"},
}

// scriptKey finds the script in the values of its testscript.
type scriptKey struct{}

// script is one running script.
type script struct {
	options Options
	tb      *scriptTB
	pods    map[string]pod // the latest of each name
}

// pod is what the verbs need of a pod: a child of this process, or an orphan.
type pod interface {
	Stop() error
	Kill() error
	Signal(os.Signal) error
	alive() bool
	wait(time.Duration) (end string, ok bool, err error)
	end() string
	socket() string
	child() *harness.Pod // nil for an orphan
}

// call is one use of a verb in a script.
type call struct {
	*script
	verb
	ts             *testscript.TestScript
	neg            bool
	line           string        // as the script has it
	args           []string      // of line, without flags
	pod            pod           // the latest one of the name args[0]; nil = none
	asked, timeout time.Duration // the timeout, and what the deadline leaves of it
	starting       starting
}

// fatalError fails the script, with ! too.
type fatalError struct{ error }

// usagef is the error of a verb used wrongly.
func (c *call) usagef(format string, args ...any) error {
	return fatalError{fmt.Errorf(format+"\nusage: %s %s (go doc example.com/podharness/scripts)", append(args, c.name, c.usage)...)}
}

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){}
	for _, v := range verbs {
		all[v.name] = func(ts *testscript.TestScript, neg bool, args []string) {
			c := &call{script: ts.Value(scriptKey{}).(*script), verb: v, ts: ts, neg: neg, line: strings.Join(append([]string{v.name}, args...), " "), args: args}
			c.judge(c.do())
		}
	}
	return all
}

// do runs the verb. An error that comes when no time is left for the script tells
// nothing of the pod.
func (c *call) do() error {
	end := time.Now().Add(harness.BeforeDeadline(c.tb, math.MaxInt64))
	if err := c.parse(); err != nil {
		return err
	}
	err := c.run(c)
	if err == nil || time.Now().Before(end) {
		return err
	}
	if c.timeout < c.asked && !strings.Contains(err.Error(), "was cut to") { // the harness says so itself
		err = fmt.Errorf("%w\n\tnote: the timeout of %v was cut to %v, to end before the script's deadline", err, c.asked, c.timeout)
	}
	return fatalError{err}
}

// judge fails the script if the verb did not end as that says.
func (c *call) judge(err error) {
	var fatal fatalError
	switch {
	case errors.As(err, &fatal):
		c.ts.Fatalf("%s: %v", c.name, err)
	case err != nil:
		fmt.Fprintln(c.ts.Stderr(), err)
		if !c.neg {
			c.ts.Fatalf("%s failed", c.line)
		}
	case c.neg:
		c.ts.Fatalf("%s did not fail", c.line)
	}
}

// parse parses flags and counts the arguments that follow them.
func (c *call) parse() error {
	if c.neg && c.not == "" {
		return c.usagef("! has no meaning here")
	}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	if c.flags != nil {
		c.flags(c, flags)
	}
	if err := flags.Parse(c.args); err != nil {
		return c.usagef("%v", err)
	}
	args := flags.Args()
	if len(args) < c.min || len(args) > c.max {
		return c.usagef("got %d arguments %q", len(args), args)
	}
	c.args, c.pod = args, c.pods[args[0]]
	c.asked, c.timeout = c.timeout, harness.BeforeDeadline(c.tb, c.timeout)
	if c.pod == nil && c.name != "podstart" {
		return c.usagef("no pod %q was started in this script", args[0])
	}
	return nil
}

func (c *call) waitFlags(flags *flag.FlagSet) {
	flags.DurationVar(&c.timeout, "timeout", defaultWait, "the `DURATION` that it may take")
}

// starting is what the flags of podstart say.
type starting struct {
	spawn          spawn.Config
	config         harness.Config
	fake, shutdown string
	orphan         bool
}

func (c *call) startFlags(flags *flag.FlagSet) {
	s := &c.starting
	flags.StringVar(&s.fake, "fake", "", "the fake pod, with a `PROGRAM` or mode")
	s.spawn.Flags(flags)
	flags.Func("env", "its `NAME=VALUE`, or a NAME to pass on", func(entry string) error {
		s.config.Env = append(s.config.Env, entry)
		return nil
	})
	flags.StringVar(&s.shutdown, "shutdown", "", "a `LINE` that podstop writes first")
	flags.Func("signal", "the `SIGNAL` that podstop sends (INT)", func(name string) error {
		sig, err := parseSignal(name)
		s.config.StopSignal = sig
		return err
	})
	flags.DurationVar(&s.config.StopGrace, "grace", harness.DefaultStopGrace, "the `DURATION` of each step of podstop")
	flags.BoolVar(&s.config.AllowLeaks, "allow-leaks", false, "it may leave processes behind")
	flags.BoolVar(&s.orphan, "orphan", false, "its parent exits at once, see below")
}

func (c *call) start() error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	var started pod
	var pid int
	if c.starting.orphan {
		c.asked = cmp.Or(cfg.ReadyTimeout, spawn.DefaultReadyTimeout)
		c.timeout = harness.BeforeDeadline(c.tb, c.asked)
		cfg.ReadyTimeout, cfg.StopGrace = c.timeout, harness.BeforeDeadline(c.tb, cfg.StopGrace)
		o, err := startOrphan(c.tb, cfg)
		if err != nil {
			return err
		}
		started, pid = o, o.PID
	} else {
		p, err := harness.TryStartPod(c.tb, cfg)
		if err != nil {
			return err
		}
		started, pid = child{p}, p.PID
	}
	c.pods[cfg.Name] = started
	fmt.Fprintf(c.ts.Stdout(), "%s is ready: process %d, socket %s\n", cfg.Name, pid, started.socket())
	return nil
}

// config returns what podstart starts.
func (c *call) config() (harness.Config, error) {
	s, cfg := &c.starting, c.starting.config
	switch {
	case c.args[0] == "":
		return cfg, c.usagef("the pod's name is empty")
	case c.pod != nil && c.pod.alive():
		return cfg, c.usagef("pod %q still runs: stop it first", c.args[0])
	case s.fake != "" && s.spawn.Command.Program != "":
		return cfg, c.usagef("-fake and -pod exclude each other")
	case s.orphan && s.shutdown != "":
		return cfg, c.usagef("-orphan and -shutdown exclude each other: podstop sends an orphan its signal alone")
	}
	cfg.Name, cfg.Command = c.args[0], c.command()
	cfg.Profile, cfg.TicketRole, cfg.ResumeFrom = s.spawn.Profile, s.spawn.TicketRole, s.spawn.ResumeFrom
	cfg.Workspace, cfg.Dir = c.abs(s.spawn.WorkspaceRoot), c.abs(s.spawn.Dir)
	cfg.Env, cfg.ReadyTimeout = slices.Concat(c.options.Env, cfg.Env), s.spawn.ReadyTimeout
	if s.shutdown != "" {
		cfg.Shutdown = []byte(s.shutdown + "\n")
	}
	return cfg, nil
}

// command returns the command that podstart's flags choose.
func (c *call) command() spawn.Command {
	s, command := &c.starting, c.options.Command
	switch {
	case s.fake != "":
		command = harness.FakePod(s.fake)
	case strings.Contains(s.spawn.Command.Program, "/"):
		command = spawn.Command{Program: c.ts.MkAbs(s.spawn.Command.Program)}
	case s.spawn.Command.Program != "":
		command = spawn.Command{Program: s.spawn.Command.Program}
	case command.Program == "":
		command = harness.FakePod("ready")
	}
	command.PrefixArgs = slices.Concat(command.PrefixArgs, s.spawn.Command.PrefixArgs)
	return command
}

// abs returns a path as the script means it; "" for "".
func (c *call) abs(path string) string {
	if path == "" {
		return ""
	}
	return c.ts.MkAbs(path)
}

func (c *call) stop() error {
	err := c.pod.Stop()
	if err != nil && c.neg && c.pod.child() != nil {
		c.tb.Logf("! podstop %s passes, but what it found fails the script at its end: expect a pod's own end with podwait, what it leaves behind with podstart -allow-leaks", c.args[0])
	}
	return c.printEnd(err)
}

func (c *call) kill() error { return c.printEnd(c.pod.Kill()) }

func (c *call) printEnd(err error) error {
	if err == nil {
		fmt.Fprintln(c.ts.Stdout(), c.pod.end())
	}
	return err
}

func (c *call) signal() error {
	sig, err := parseSignal(c.args[1])
	if err != nil {
		return c.usagef("%v", err)
	}
	return c.pod.Signal(sig)
}

func (c *call) wait() error {
	timeout := c.asked
	if c.pod.child() == nil {
		timeout = c.timeout // the harness does not cut that
	}
	end, ok, err := c.pod.wait(timeout)
	if err != nil {
		return fatalError{err} // no end is not another end
	}
	fmt.Fprintln(c.ts.Stdout(), end)
	if !ok {
		return fmt.Errorf("pod %s ended with %s", c.args[0], end)
	}
	return nil
}

func (c *call) log() error {
	p, err := c.captured()
	if err != nil {
		return err
	}
	all := p.Log()
	if len(c.args) == 1 {
		_, err := io.WriteString(c.ts.Stdout(), all)
		return err
	}
	re, err := regexp.Compile("(?m)" + c.args[1])
	if err != nil {
		return c.usagef("%v", err)
	}
	if !re.MatchString(all) {
		return fmt.Errorf("no match for %q in the log of pod %s:\n%s", c.args[1], c.args[0], all)
	}
	if c.neg {
		fmt.Fprintf(c.ts.Stderr(), "%q matches in the log of pod %s:\n%s", c.args[1], c.args[0], all)
	}
	return nil
}

func (c *call) waitLog() error {
	p, err := c.captured()
	if err != nil {
		return err
	}
	line, err := p.TryWaitLog(c.args[1], c.asked)
	if bad := (*syntax.Error)(nil); errors.As(err, &bad) {
		return c.usagef("%v", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(c.ts.Stdout(), line)
	return nil
}

// captured returns the pod for verbs that need its log.
func (c *call) captured() (*harness.Pod, error) {
	if c.pod.child() == nil {
		return nil, c.usagef("the log of an orphan is not captured: look at $RUNTIME_DIR/%s/stderr.log", c.args[0])
	}
	return c.pod.child(), nil
}

func (c *call) alive() error {
	switch {
	case c.pod.alive():
		return nil
	case c.pod.child() == nil:
		return fmt.Errorf("pod %s has ended", c.args[0])
	}
	return fmt.Errorf("pod %s has ended: %s", c.args[0], c.pod.end())
}

func (c *call) send() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	conn, err := spawn.Dial(ctx, c.pod.socket())
	if err != nil {
		return fmt.Errorf("could not connect to pod %s at %s: %w", c.args[0], c.pod.socket(), err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	answers := bufio.NewReader(conn)
	line, err := answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("pod %s sent no snapshot line: %w", c.args[0], timedOut(err, c.timeout))
	}
	if len(c.args) == 2 {
		if _, err := io.WriteString(conn, c.args[1]+"\n"); err != nil {
			return fmt.Errorf("could not send to pod %s: %w", c.args[0], timedOut(err, c.timeout))
		}
		if line, err = answers.ReadString('\n'); err != nil {
			return fmt.Errorf("pod %s gave no answer to %s: %w", c.args[0], c.args[1], timedOut(err, c.timeout))
		}
	}
	_, err = io.WriteString(c.ts.Stdout(), line)
	return err
}

func timedOut(err error, timeout time.Duration) error {
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return fmt.Errorf("nothing within %v", timeout)
	}
	return err
}

// child is a pod that the harness started.
type child struct{ *harness.Pod }

func (p child) child() *harness.Pod { return p.Pod }
func (p child) socket() string      { return p.SocketPath }

func (p child) alive() bool {
	select {
	case <-p.Done():
		return false
	default:
		return p.State() == nil
	}
}

func (p child) end() string {
	if p.alive() {
		return "it still runs"
	}
	return end(p.State())
}

// end says how a pod has ended; nil = something in this process has reaped it.
func end(state *os.ProcessState) string {
	if state == nil {
		return "its status is lost"
	}
	return state.String()
}

func (p child) wait(timeout time.Duration) (string, bool, error) {
	state, err := p.TryWait(timeout)
	if err != nil {
		return "", false, err
	}
	return end(state), state != nil && state.Success(), nil
}

// parseSignal reads the name of a signal, with or without SIG.
func parseSignal(s string) (syscall.Signal, error) {
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
