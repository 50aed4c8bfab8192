package scripts

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/google/uuid"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// defaultWait is how long a verb waits unless told otherwise.
const defaultWait = 10 * time.Second

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
	ts   *testscript.TestScript
	verb verb
	neg  bool
	args []string
}

// verb is a command of the scripts. Its run returns an error that fails the
// script, or with ! is what the script expects; a usageError always fails it.
type verb struct {
	name, usage string
	mayFail     bool // ! has a meaning
	run         func(*call) error
}

var verbs = []verb{
	{"podstart", "[flags] NAME", true, (*call).start},
	{"podstop", "NAME", true, (*call).stop},
	{"podkill", "NAME", false, (*call).kill},
	{"podsignal", "NAME SIGNAL", false, (*call).signal},
	{"podwait", "[-timeout DURATION] NAME", true, (*call).wait},
	{"podlog", "NAME [PATTERN]", true, (*call).log},
	{"podwaitlog", "[-timeout DURATION] NAME PATTERN", true, (*call).waitLog},
	{"podalive", "NAME", true, (*call).alive},
	{"podsend", "[-timeout DURATION] NAME [LINE]", true, (*call).send},
}

// usageError is a verb used wrongly.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// fatalError fails the script, with ! too.
type fatalError struct{ error }

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){}
	for _, v := range verbs {
		all[v.name] = func(ts *testscript.TestScript, neg bool, args []string) {
			c := &call{script: ts.Value(scriptKey{}).(*script), ts: ts, verb: v, neg: neg, args: args}
			var err error
			if neg && !v.mayFail {
				err = usagef("! has no meaning here")
			} else {
				err = v.run(c)
			}
			var usage usageError
			var fatal fatalError
			switch {
			case errors.As(err, &usage):
				ts.Fatalf("%s: %v\nusage: %s %s (go doc example.com/podharness/scripts)", v.name, err, v.name, v.usage)
			case errors.As(err, &fatal):
				ts.Fatalf("%s: %v", v.name, err)
			case err != nil:
				fmt.Fprintln(ts.Stderr(), err)
				if !neg {
					ts.Fatalf("%s %s failed", v.name, strings.Join(args, " "))
				}
			case neg:
				ts.Fatalf("%s %s did not fail", v.name, strings.Join(args, " "))
			}
		}
	}
	return all
}

// parse parses flags that stand before min to max arguments, and keeps those.
func (c *call) parse(flags *flag.FlagSet, min, max int) error {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	if err := flags.Parse(c.args); err != nil {
		return usagef("%v", err)
	}
	c.args = flags.Args()
	if len(c.args) < min || len(c.args) > max {
		return usagef("got %d arguments %q", len(c.args), c.args)
	}
	return nil
}

// podArgs parses an optional -timeout, the name of a pod that was started, and
// up to more arguments.
func (c *call) podArgs(timeout *time.Duration, min, max int) (pod, error) {
	flags := flag.NewFlagSet(c.verb.name, flag.ContinueOnError)
	if timeout != nil {
		flags.DurationVar(timeout, "timeout", defaultWait, "")
	}
	if err := c.parse(flags, min, max); err != nil {
		return nil, err
	}
	p := c.pods[c.args[0]]
	if p == nil {
		return nil, usagef("no pod %q was started in this script", c.args[0])
	}
	return p, nil
}

func (c *call) start() error {
	cfg := harness.Config{Command: c.options.Command, Env: slices.Clone(c.options.Env)}
	flags := flag.NewFlagSet(c.verb.name, flag.ContinueOnError)
	var fake, program, shutdown string
	var prefix []string
	flags.StringVar(&fake, "fake", "", "")
	flags.StringVar(&program, "pod", "", "")
	flags.Func("pod-arg", "", func(s string) error { prefix = append(prefix, s); return nil })
	flags.DurationVar(&cfg.ReadyTimeout, "timeout", 0, "")
	flags.StringVar(&cfg.Profile, "profile", "", "")
	flags.StringVar(&cfg.TicketRole, "ticket-role", "", "")
	flags.Func("session", "", func(s string) error {
		id, err := uuid.Parse(s)
		cfg.ResumeFrom = &id
		return err
	})
	flags.StringVar(&cfg.Workspace, "workspace", "", "")
	flags.StringVar(&cfg.Dir, "dir", "", "")
	flags.Func("env", "", func(s string) error { cfg.Env = append(cfg.Env, s); return nil })
	flags.StringVar(&shutdown, "shutdown", "", "")
	flags.Func("signal", "", func(s string) error {
		sig, err := parseSignal(s)
		cfg.StopSignal = sig
		return err
	})
	flags.DurationVar(&cfg.StopGrace, "grace", 0, "")
	flags.BoolVar(&cfg.AllowLeaks, "allow-leaks", false, "")
	orphan := flags.Bool("orphan", false, "")
	if err := c.parse(flags, 1, 1); err != nil {
		return err
	}
	cfg.Name = c.args[0]
	if cfg.Name == "" {
		return usagef("the pod's name is empty")
	}
	if old := c.pods[cfg.Name]; old != nil && old.alive() {
		return usagef("pod %q still runs: stop it first", cfg.Name)
	}
	switch {
	case fake != "" && program != "":
		return usagef("-fake and -pod exclude each other")
	case *orphan && shutdown != "":
		return usagef("-orphan and -shutdown exclude each other: podstop sends an orphan its signal alone")
	case fake != "":
		cfg.Command = harness.FakePod(fake)
	case program != "":
		if strings.Contains(program, "/") {
			program = c.ts.MkAbs(program)
		}
		cfg.Command = spawn.Command{Program: program}
	}
	if cfg.Command.Program == "" {
		cfg.Command = harness.FakePod("ready")
	}
	cfg.Command.PrefixArgs = slices.Concat(cfg.Command.PrefixArgs, prefix)
	for _, dir := range []*string{&cfg.Workspace, &cfg.Dir} {
		if *dir != "" {
			*dir = c.ts.MkAbs(*dir)
		}
	}
	if shutdown != "" {
		cfg.Shutdown = []byte(shutdown + "\n")
	}

	var started pod
	var pid int
	if *orphan {
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

func (c *call) stop() error {
	p, err := c.podArgs(nil, 1, 1)
	if err != nil {
		return err
	}
	if err := p.Stop(); err != nil {
		return err
	}
	fmt.Fprintln(c.ts.Stdout(), p.end())
	return nil
}

func (c *call) kill() error {
	p, err := c.podArgs(nil, 1, 1)
	if err != nil {
		return err
	}
	if err := p.Kill(); err != nil {
		return err
	}
	fmt.Fprintln(c.ts.Stdout(), p.end())
	return nil
}

func (c *call) signal() error {
	p, err := c.podArgs(nil, 2, 2)
	if err != nil {
		return err
	}
	sig, err := parseSignal(c.args[1])
	if err != nil {
		return usagef("%v", err)
	}
	return p.Signal(sig)
}

func (c *call) wait() error {
	var timeout time.Duration
	p, err := c.podArgs(&timeout, 1, 1)
	if err != nil {
		return err
	}
	end, ok, err := p.wait(timeout)
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
	p, err := c.child(nil, 1, 2)
	if err != nil {
		return err
	}
	all := p.Log()
	if len(c.args) == 1 {
		_, err := io.WriteString(c.ts.Stdout(), all)
		return err
	}
	if _, err := regexp.Compile(c.args[1]); err != nil {
		return usagef("%v", err)
	}
	re := regexp.MustCompile("(?m)" + c.args[1])
	if !re.MatchString(all) {
		return fmt.Errorf("no match for %q in the log of pod %s:\n%s", c.args[1], c.args[0], all)
	}
	if c.neg {
		fmt.Fprintf(c.ts.Stderr(), "%q matches in the log of pod %s:\n%s", c.args[1], c.args[0], all)
	}
	return nil
}

func (c *call) waitLog() error {
	var timeout time.Duration
	p, err := c.child(&timeout, 2, 2)
	if err != nil {
		return err
	}
	if _, err := regexp.Compile(c.args[1]); err != nil {
		return usagef("%v", err)
	}
	line, err := p.FindLog(c.args[1], timeout)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.ts.Stdout(), line)
	return nil
}

// child is podArgs for verbs that need a pod whose log is captured.
func (c *call) child(timeout *time.Duration, min, max int) (*harness.Pod, error) {
	p, err := c.podArgs(timeout, min, max)
	if err != nil {
		return nil, err
	}
	if p.child() == nil {
		return nil, usagef("the log of an orphan is not captured: look at $RUNTIME_DIR/%s/stderr.log", c.args[0])
	}
	return p.child(), nil
}

func (c *call) alive() error {
	p, err := c.podArgs(nil, 1, 1)
	if err != nil {
		return err
	}
	if !p.alive() {
		if p.child() == nil {
			return fmt.Errorf("pod %s has ended", c.args[0])
		}
		return fmt.Errorf("pod %s has ended: %s", c.args[0], p.end())
	}
	return nil
}

func (c *call) send() error {
	var timeout time.Duration
	p, err := c.podArgs(&timeout, 1, 2)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := spawn.Dial(ctx, p.socket())
	if err != nil {
		return fmt.Errorf("could not connect to pod %s at %s: %w", c.args[0], p.socket(), err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	answers := bufio.NewReader(conn)
	line, err := answers.ReadString('\n')
	if err != nil {
		return fmt.Errorf("pod %s sent no snapshot line: %w", c.args[0], timedOut(err, timeout))
	}
	if len(c.args) == 2 {
		if _, err := io.WriteString(conn, c.args[1]+"\n"); err != nil {
			return fmt.Errorf("could not send to pod %s: %w", c.args[0], timedOut(err, timeout))
		}
		if line, err = answers.ReadString('\n'); err != nil {
			return fmt.Errorf("pod %s gave no answer to %s: %w", c.args[0], c.args[1], timedOut(err, timeout))
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
	state, err := p.AwaitEnd(timeout)
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
