package scripts

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"example.com/podharness/fakepod"
	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn/podlog"
	"github.com/rogpeppe/go-internal/testscript"
)

// verb is a command of the scripts; the package documentation is made of them.
// An error of run fails the script, or is what the script expects with !.
type verb struct {
	name, usage string
	min, max    int                        // arguments that are no flags
	flags       func(*call, *flag.FlagSet) // nil = those that usage names
	run         func(*call) error
	help        string
	not         string // what ! asks for; "" = it has no meaning
}

var verbs = []verb{
	{"podstart", "[flags] NAME", 1, 1, (*call).startFlags, (*call).start, "start a pod and wait until it is ready", "if the start must fail"},
	{"podcommand", "[-fake PROGRAM | -pod PROGRAM [-pod-arg ARG]...]", 0, 0, (*call).commandFlags, (*call).setCommand, "set what clients start from here on; without flags the pod under test", ""},
	{"podspawn", "[flags] NAME", 0, anyArgs, nil, (*call).spawn, "run the client podspawn as a process, with the flags of podspawn", "if its status must not be 0"},
	{"podadopt", "[-timeout DURATION] NAME", 1, 1, nil, (*call).adopt, "wait until a client has started the pod, and let the other verbs use it", "if the timeout must pass first"},
	{"podstop", "NAME", 1, 1, nil, (*call).stop, "stop the pod", "if it must have ended by itself, but see below"},
	{"podkill", "NAME", 1, 1, nil, (*call).kill, "kill the process group of the pod", ""},
	{"podsignal", "[-process] NAME SIGNAL", 2, 2, nil, (*call).signal, "send a signal to the process group of the pod, with -process to its process alone", ""},
	{"podwait", "[-timeout DURATION] NAME", 1, 1, nil, (*call).wait, "wait until the pod ends by itself with status 0", "if it must end in another way"},
	{"podlog", "NAME [PATTERN]", 1, 2, nil, (*call).log, "match the log so far, or print it", "if nothing must match"},
	{"podwaitlog", "[-timeout DURATION] [-next] NAME PATTERN", 2, 2, nil, (*call).waitLog, "wait until a line of the log matches, with -next a line after what the last podwaitlog or podlog has read", "if the timeout, or the end of the pod, must come first"},
	{"podalive", "[-for DURATION] NAME", 1, 1, nil, (*call).alive, "check that the process of the pod runs, and with -for that it goes on so", "if it must have ended"},
	{"podsend", "[-timeout DURATION] [-next] [-until PATTERN] [-open | -leave] NAME [LINE]", 1, 2, nil, (*call).send, "send a line and print the answer: the line that follows the snapshot; with -until print all lines that follow, up to the first that matches; without LINE print the snapshot, or with -until what follows it; with -open connect and stay silent until the script ends; with -next go on with the connection of the last -open or -next, or make one that stays open, and print the line that follows what was printed of it, or with -until all lines up to the first that matches; with -leave connect and disconnect at once", "if there must be no answer, or no match"},
	{"podquiet", "[-for DURATION] NAME", 1, 1, nil, (*call).quiet, "connect, and check that no line follows the snapshot for so long (100ms)", "if one must"},
	{"podplant", "NAME WHAT", 2, 2, nil, (*call).plant, "leave in the directory of the pod what an earlier life of it may have left: live-pid, pid-of-OTHER, garbage or empty", ""},
	{"podprobe", "[-timeout DURATION] NAME PROBE", 2, 2, nil, (*call).probe, "try a rule of the contract on the pod; the portable scenarios have all probes", ""},
}

// anyArgs is the most for a verb whose arguments are not its own.
const anyArgs = 1000

// scriptKey finds the script in the values of its testscript.
type scriptKey struct{}

// script is one running script.
type script struct {
	options Options
	tb      *scriptTB
	pods    map[string]*harness.Pod // the latest of each name
	leaky   map[*harness.Pod]bool   // it may leave processes behind
	seen    map[*harness.Pod]int64  // how much of its log podwaitlog and podlog have seen
	talks   map[*harness.Pod]*talk  // that podsend -next goes on with

	otherCommand bool // podcommand has chosen one that is not the pod under test
}

// noteLastLines notes why the pods have crashed, as they say themselves, or what they have
// written last; not what they write of their goroutines, when they are asked to.
func (s *script) noteLastLines() {
	lines := map[string]string{}
	for name, pod := range s.pods {
		log, _, _ := strings.Cut(pod.Log(), "\nSIGQUIT: quit\n")
		tail, err := podlog.ReadTail(io.NewSectionReader(strings.NewReader(log), 0, int64(len(log))))
		if err != nil {
			continue
		}
		shown := tail.Strings()
		last := tail.Reason()
		for i := len(shown) - 1; i >= 0 && last == ""; i-- {
			last = strings.TrimSpace(shown[i])
		}
		if last != "" && !strings.HasPrefix(last, "YOI-READY\t") {
			lines[name] = last
		}
	}
	s.tb.mu.Lock()
	defer s.tb.mu.Unlock()
	s.tb.failure.LastLines = lines
}

// call is one use of a verb in a script.
type call struct {
	*script
	verb
	ts       *testscript.TestScript
	neg      bool
	line     string       // as the script has it
	args     []string     // of line, without flags
	pod      *harness.Pod // the latest one of the name args[0]; nil = none
	timeout  time.Duration
	given    map[string]*bool // flags that have no value, by name
	starting starting         // of podstart and podcommand
	until    string           // the pattern of podsend -until
}

// usagef is the error of a verb used wrongly.
func (c *call) usagef(format string, args ...any) error {
	return fatalError{error: fmt.Errorf(format+"\nusage: %s %s (go doc example.com/podharness/scripts)", append(args, c.name, c.usage)...), kit: true}
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

// do runs the verb. An error tells nothing of the pod if no time is left for the
// script: the wait was cut to end before its deadline.
func (c *call) do() error {
	const coarse = 5 * time.Millisecond // timeouts are cut to whole milliseconds
	left, _ := sandbox.BeforeDeadline(c.tb, "", math.MaxInt64)
	end := time.Now().Add(left - coarse)
	c.tb.mu.Lock()
	c.tb.printed = [2]string{}
	c.tb.mu.Unlock()
	if err := c.parse(); err != nil {
		return err
	}
	err := c.run(c)
	if err == nil || time.Now().Before(end) {
		return err
	}
	return fatalError{error: err, cut: true}
}

// judge fails the script if the verb did not end as that says, and notes the failure.
func (c *call) judge(err error) {
	var fatal fatalError
	switch isFatal := errors.As(err, &fatal); {
	case isFatal:
		message := c.tb.box.Fails(err).Error()
		c.tb.note(failureOf(c.name, fmt.Errorf("%s: %w", c.name, err)))
		c.fatal(c.name + ": " + message)
	case err != nil && c.neg:
		c.printErr(err.Error() + "\n")
	case err != nil:
		message := c.tb.box.Fails(err).Error() // the evidence has it, too
		if c.options.Report == nil {
			c.printErr(message + "\n")
		}
		c.tb.note(failureOf(c.name, err))
		c.fatal(c.line + " failed")
	case c.neg:
		c.tb.note(Failure{Verb: c.name, Err: fmt.Errorf("%s did not fail", c.line)})
		c.fatal(c.line + " did not fail")
	}
}

func (c *call) fatal(message string) { c.ts.Fatalf("%s", visible(message)) }

// printOut prints to the script's stdout, printErr to its stderr.
func (c *call) printOut(text string) { c.print(c.ts.Stdout(), &c.tb.printed[0], text) }

func (c *call) printErr(text string) { c.print(c.ts.Stderr(), &c.tb.printed[1], text) }

func (c *call) print(w io.Writer, printed *string, text string) {
	text = visible(text)
	_, _ = io.WriteString(w, text)
	const most = 4 << 10
	c.tb.mu.Lock()
	defer c.tb.mu.Unlock()
	*printed += text[:min(len(text), most-min(len(*printed), most))]
}

// visible returns text of a pod in which the characters are escaped that a terminal
// obeys. All others, lines and tabs stay: stdout and stderr match the pod's own text.
func visible(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\r\n", "\n")
	var b strings.Builder
	for _, r := range text {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Bidi_Control) {
			b.WriteString(podlog.Printable(string(r)))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// parse parses flags and counts the arguments that follow them.
func (c *call) parse() error {
	if c.neg && c.not == "" {
		return c.usagef("! has no meaning here")
	}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	args := c.args
	if c.max < anyArgs { // else they are somebody else's
		if c.flags == nil {
			c.usageFlags(flags)
		} else {
			c.flags(c, flags)
		}
		if err := flags.Parse(c.args); err != nil {
			return c.usagef("%v", err)
		}
		args = flags.Args()
	}
	if len(args) < c.min || len(args) > c.max {
		return c.usagef("got %d arguments %q", len(args), args)
	}
	if c.args = args; len(args) > 0 {
		c.pod = c.pods[args[0]]
	}
	if c.pod == nil && !slices.Contains([]string{"podstart", "podcommand", "podspawn", "podadopt", "podplant"}, c.name) {
		return c.usagef("no pod %q was started in this script (podadopt takes over one that a client has started)", args[0])
	}
	return nil
}

// option matches a flag in the usage of a verb.
var option = regexp.MustCompile(`-([a-z]+)( DURATION| PATTERN)?`)

// usageFlags registers the flags that the usage of the verb names.
func (c *call) usageFlags(flags *flag.FlagSet) {
	c.given = map[string]*bool{}
	for _, m := range option.FindAllStringSubmatch(c.usage, -1) {
		switch m[2] {
		case " DURATION":
			c.timeout = 0
			if m[1] == "timeout" {
				c.timeout = 10 * time.Second
			}
			flags.DurationVar(&c.timeout, m[1], c.timeout, "")
		case " PATTERN":
			flags.StringVar(&c.until, m[1], "", "")
		default:
			c.given[m[1]] = flags.Bool(m[1], false, "")
		}
	}
}

// keep makes a pod the latest one of its name.
func (c *call) keep(p *harness.Pod) {
	c.pods[p.Name] = p
	c.printOut(fmt.Sprintf("%s is ready: process %d, socket %s\n", p.Name, p.PID, p.SocketPath))
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
	if err != nil && c.neg {
		c.tb.Logf("! podstop %s passes, but what it found fails the script at its end: expect a pod's own end with podwait, what it leaves behind with podstart -allow-leaks", c.args[0])
	}
	if unread := c.tb.unread; err == nil && len(unread) > 0 && !c.leaky[c.pod] {
		return fatalError{error: fmt.Errorf("%v may be what pod %s has left, and cannot be looked into: run this as root, or end it", unread[0], c.args[0]), kit: true}
	}
	return c.printEnd(err)
}

func (c *call) kill() error { return c.printEnd(c.pod.Kill()) }

func (c *call) printEnd(err error) error { return c.answer(end(c.pod), err) }

func (c *call) signal() error {
	sig, err := parseSignal(c.args[1])
	if err != nil {
		return c.usagef("%v", err)
	}
	if *c.given["process"] && runs(c.pod) {
		return c.pod.SignalProcess(sig)
	}
	return c.pod.Signal(sig)
}

func (c *call) wait() error {
	state, err := c.pod.TryWait(c.timeout)
	if err != nil {
		return fatalError{error: err} // no end is not another end
	}
	c.printOut(end(c.pod) + "\n")
	if state == nil || !state.Success() {
		return fmt.Errorf("pod %s ended with %s", c.args[0], end(c.pod))
	}
	return nil
}

func (c *call) log() error {
	all := c.pod.Log()
	c.seen[c.pod] = int64(strings.LastIndexByte(all, '\n') + 1)
	if len(c.args) == 1 {
		c.printOut(all)
		return nil
	}
	re, err := regexp.Compile("(?m)" + c.args[1])
	if err != nil {
		return c.usagef("%v", err)
	}
	if !re.MatchString(all) {
		c.printErr(all)
		return fmt.Errorf("no match for %q in the log of pod %s", c.args[1], c.args[0])
	}
	if c.neg {
		c.printErr(fmt.Sprintf("%q matches in the log of pod %s:\n%s", c.args[1], c.args[0], all))
	}
	return nil
}

func (c *call) waitLog() error {
	var from int64
	if *c.given["next"] {
		from = c.seen[c.pod]
	}
	line, end, err := c.pod.TryWaitLogAfter(from, c.args[1], c.timeout)
	if errors.Is(err, harness.ErrBadPattern) {
		return c.usagef("%v", err)
	}
	if err == nil {
		c.seen[c.pod] = end
	}
	return c.answer(line, err)
}

func (c *call) alive() error {
	if c.timeout > 0 {
		c.idle()
		goesOn, _ := sandbox.BeforeDeadline(c.tb, "", c.timeout)
		select {
		case <-c.pod.Done():
		case <-time.After(goesOn):
		}
	}
	if runs(c.pod) {
		return nil
	}
	return fmt.Errorf("pod %s has ended: %s", c.args[0], end(c.pod))
}

func (c *call) answer(line string, err error) error {
	if err == nil {
		c.printOut(line + "\n")
	}
	return err
}

func runs(p *harness.Pod) bool {
	_, ended := p.Ended()
	return !ended
}

// end says how a pod has ended.
func end(p *harness.Pod) string {
	how, ended := p.Ended()
	if !ended {
		return "it still runs"
	}
	return how
}

// parseSignal reads the name of a signal, with or without SIG.
func parseSignal(name string) (syscall.Signal, error) {
	sig := fakepod.ParseSignal(name)
	if sig == 0 {
		return 0, fmt.Errorf("unknown signal %q", name)
	}
	return sig, nil
}
