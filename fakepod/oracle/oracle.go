// Package oracle says what the contract asks of a client that starts a given fake
// pod: the outcome of a program of steps ([Expect]). It also draws random programs
// for which there is one.
package oracle

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"example.com/podharness/fakepod"
	"golang.org/x/sys/unix"
)

// A Verdict is how a start ends.
type Verdict string

// The verdicts of the contract on a pod that was launched.
const (
	Ready       Verdict = "ready"
	Exited      Verdict = "exited"
	Malformed   Verdict = "malformed"
	WrongName   Verdict = "wrong name"
	TimedOut    Verdict = "timed out"
	SocketError Verdict = "socket error"
)

// An Outcome is what a client must conclude of a pod that acts out a program. In
// its texts {name}, {dir}, {pid} and {clock} stand for what only the pod itself
// knows: see [Outcome.For].
type Outcome struct {
	Verdict Verdict
	// Step is the index of the step after which all is known that the verdict
	// needs; -1 for TimedOut, which only the timeout decides.
	Step int
	// Status says how the process ended, as os.ProcessState does; "" unless the
	// verdict is Exited.
	Status string
	// Tail holds the last lines before the verdict, 8 at most and not the ready
	// line, each at most 64 KiB of it; nil if the verdict is Ready.
	Tail []string
	// Unfinished is what the pod has written after its last newline, as Tail is.
	Unfinished string
	// Line is the ready line if the verdict is Malformed; Name is the name in it
	// if that is WrongName; Socket the path in it, as it is there, once there was a right one.
	Line, Name, Socket string
	// Missing is what a start that TimedOut waited for: "ready line" or "socket". Why is
	// why it could not connect to that: "missing" (there is no file), "not a socket",
	// "refused" (nobody listens) or "deaf" (its backlog is full).
	Missing, Why string
}

// String returns the outcome in a few words.
func (o Outcome) String() string {
	last := ""
	if len(o.Tail) > 0 {
		last = fmt.Sprintf(": %.60q", o.Tail[len(o.Tail)-1])
	}
	switch o.Verdict {
	case Exited:
		return fmt.Sprintf("%s (%s)%s", o.Verdict, o.Status, last)
	case Malformed:
		return fmt.Sprintf("%s: %.60q", o.Verdict, o.Line)
	case WrongName:
		return fmt.Sprintf("%s: %q", o.Verdict, o.Name)
	case TimedOut:
		if o.Why != "" {
			return fmt.Sprintf("%s, waiting for its %s (%s)", o.Verdict, o.Missing, o.Why)
		}
		return fmt.Sprintf("%s, waiting for the %s", o.Verdict, o.Missing)
	}
	return string(o.Verdict)
}

// For returns the outcome for the pod of a name with a pod directory: {name} and
// {dir} are replaced in its texts. {pid} and {clock}, a number each, stay.
func (o Outcome) For(name, dir string) Outcome {
	r := strings.NewReplacer("{name}", name, "{dir}", dir)
	o.Unfinished, o.Line, o.Name, o.Socket = r.Replace(o.Unfinished), r.Replace(o.Line), r.Replace(o.Name), r.Replace(o.Socket)
	o.Tail = slices.Clone(o.Tail)
	for i := range o.Tail {
		o.Tail[i] = r.Replace(o.Tail[i])
	}
	return o
}

// List returns a table of the modes: name, program, meaning and outcome.
func List() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, m := range fakepod.Modes() {
		outcome, _ := Expect(m.Program+";", 20*time.Second) // each mode has one
		fmt.Fprintf(w, "%s\t%s\t# %s: %v\n", m.Name, m.Program, m.Doc, outcome)
	}
	_ = w.Flush() // a builder takes everything
	return b.String()
}

// noticed is how long a situation must last so that a client has certainly looked at
// it, even on a busy machine.
const noticed = 250 * time.Millisecond

// Expect returns what the contract requires a client with a ready timeout to conclude
// about a fake pod that acts out a program or a mode. It works that out from the steps,
// for a pod on Linux, in a pod directory of its own, whose name the program does not
// contain.
//
// It returns an error for a bad program, and for a program without a single right
// outcome: one that changes faster than a client must look, that comes close to the
// timeout, or that depends on the machine.
func Expect(program string, timeout time.Duration) (Outcome, error) {
	steps, err := fakepod.Parse(program)
	if err != nil {
		return Outcome{}, err
	}
	e := &expectation{latest: noticed, listening: -1, full: -1, reacts: map[syscall.Signal]string{}}
	past := []situation{e.look(-1)}
	see := func(step int) {
		past[len(past)-1].lasts = e.soonest - past[len(past)-1].soonest
		past = append(past, e.look(step))
	}
	for i, s := range steps {
		e.rest = steps[i+1:]
		if e.take(s); s.Verb != "sleep" || e.over {
			see(i)
		}
		if e.over && e.parentEnds > 0 { // the process that was started goes on until then
			e.pass(e.parentEnds - e.soonest)
			see(i)
		}
		if e.over {
			return judge(past, timeout)
		}
	}
	e.end("exit status 0")
	see(len(steps) - 1)
	return judge(past, timeout)
}

// situation is what there is to see after a step, until the next one changes it.
type situation struct {
	Outcome                       // TimedOut if it is not decided yet
	soonest, latest time.Duration // when it begins
	lasts           time.Duration // at the least
	unclear         error         // why nobody can tell
}

// judge finds the first situation that decides. The last one lasts for ever.
func judge(all []situation, timeout time.Duration) (Outcome, error) {
	unclear := func(format string, args ...any) (Outcome, error) {
		return Outcome{}, fmt.Errorf("it has no single outcome: "+format, args...)
	}
	for i := 0; i < len(all); i++ {
		s := all[i]
		if s.latest+noticed > timeout {
			return unclear("step %d comes close to the timeout of %v", s.Step+1, timeout)
		}
		for i+1 < len(all) && s.decides(all[i+1]) {
			i++
			s.lasts += all[i].lasts
		}
		last := i+1 == len(all)
		switch transient := s.Verdict != TimedOut && s.lasts < noticed && !last; {
		case transient && all[i+1].unclear != nil:
			return unclear("%w", all[i+1].unclear)
		case transient:
			return unclear("whoever looks at once after step %d concludes: %v; whoever does not: %v", s.Step+1, s.Outcome, all[i+1].Outcome)
		case s.Verdict == TimedOut && !last && all[i+1].soonest < timeout+noticed:
			continue // the next one begins before the timeout, or too close to it
		case s.unclear != nil:
			return unclear("%w", s.unclear)
		}
		if s.Verdict == TimedOut {
			s.Step = -1
		}
		return s.Outcome, nil
	}
	panic("the last situation decides")
}

// decides reports whether a later situation changes nothing for a client which
// has not looked at this one.
func (s situation) decides(later situation) bool {
	words := s.Verdict != SocketError || s.Unfinished == later.Unfinished && slices.Equal(s.Tail, later.Tail)
	return s.Verdict != TimedOut && s.Verdict == later.Verdict && words && later.unclear == nil
}

// expectation is a fake pod as its client sees it. Where it is not the pod itself
// that counts its texts are those of Outcome.
type expectation struct {
	soonest, latest time.Duration  // how much time may have passed
	rest            []fakepod.Step // what follows

	tail    []string
	pending string
	cut     bool // pending was longer
	told    *announcement

	size    int64         // of the log
	unread  int           // writes that a client may not have read
	fresh   bool          // the ready line is in them
	wrote   time.Duration // when the last one was, at the soonest
	former  int64         // the size of the log before it was truncated
	unclear error         // since then
	unsure  int           // how many more lines it takes until the tail is sure

	bound            string // the path of its socket, as resolve returns it; "" = it has none
	given            string // the same, as the program has it
	serving          bool   // it accepts connections
	cwd              string // its working directory; "" = the one that it was started in
	atPath           string // the path at which a socket is
	listening        int    // the backlog; -1 = it is not listened on
	full             int    // the backlog that was filled
	logGone, dirGone bool
	reacts           map[syscall.Signal]string // the verb that said how
	parentEnds       time.Duration             // when, at the soonest, the process ends that has become a daemon; 0 = there is none
	over             bool
	status           string
}

// announcement is a ready line.
type announcement struct {
	line, name, socket string
	leads              string // where, as resolve returns it
	malformed          bool
	tail               []string // before it
}

const (
	readyPrefix = "YOI-READY\t"
	longestLine = 64 << 10
	tailLines   = 8
	longestPath = 4095
)

// look is what a client that looks now can know.
func (e *expectation) look(step int) situation {
	o := Outcome{Verdict: TimedOut, Step: step, Tail: slices.Clone(e.tail), Unfinished: e.pending, Missing: "ready line"}
	s := situation{soonest: e.soonest, latest: e.latest, unclear: e.unclear}
	if e.unsure > 0 && s.unclear == nil {
		s.unclear = errors.New("lines that were written just before the log was truncated may or may not be read")
	}
	switch t := e.told; {
	case t != nil && t.malformed:
		o = Outcome{Verdict: Malformed, Step: step, Tail: t.tail, Line: t.line}
	case t != nil && t.name != "{name}":
		o = Outcome{Verdict: WrongName, Step: step, Tail: t.tail, Name: t.name}
	case e.status != "":
		o.Verdict, o.Status, o.Missing = Exited, e.status, ""
	case t != nil:
		var err error
		o.Socket = t.socket
		if o.Verdict, o.Why, err = e.connect(t.leads); err != nil {
			s.unclear = err
		}
		o.Missing = map[bool]string{true: "socket"}[o.Verdict == TimedOut]
		if o.Verdict == Ready {
			o.Tail, o.Unfinished, s.unclear = nil, "", e.unclear
		}
	}
	s.Outcome = o
	return s
}

// resolve returns a path from the root or {dir}, or, of one that counts from the directory
// in which the pod was started, the path as it is.
func (e *expectation) resolve(path string) string {
	if e.cwd == "" || strings.HasPrefix(path, "/") || strings.HasPrefix(path, "{dir}") {
		return path
	}
	return e.cwd + "/" + path
}

// plain is a path of which the program alone decides what is there: {dir}, a name in it or
// in the directory that the pod was started in, and one name below that.
var plain = regexp.MustCompile(`^(?:(\{dir\})(?:/|$))?(?:([^./{\x00][^/{\x00]{0,63})(/[^./{\x00][^/{\x00]{0,63})?)?$`)

// connect says what comes of a connection to a path.
func (e *expectation) connect(path string) (verdict Verdict, why string, err error) {
	parts := plain.FindStringSubmatch(path)
	if parts == nil {
		parts = []string{"", "", "", ""} // any path
	}
	inDir, name, below := parts[1] != "", parts[2], parts[3]
	isFile := name == "pid" || name == "status.json" || name == "stderr.log" && !e.logGone
	isSocket := name != "" && e.atPath == strings.TrimSuffix(path, below)
	switch {
	case !inDir && !isSocket:
		return TimedOut, "", fmt.Errorf("it depends on what is at %q", path)
	case inDir && (e.dirGone || !isFile && !isSocket && name != ""):
		return TimedOut, "missing", nil
	case below != "":
		return SocketError, "", nil // part of the path is not a directory
	case !isSocket:
		return TimedOut, "not a socket", nil
	case e.listening < 0:
		return TimedOut, "refused", nil
	case e.listening <= e.full:
		return TimedOut, "deaf", nil
	}
	return Ready, "", nil
}

// write appends to the log.
func (e *expectation) write(text string) {
	if text == "" {
		return
	}
	e.size += int64(len(text))
	e.wasRead()
	e.unread, e.wrote = e.unread+1, e.soonest
	if e.former > 0 && e.size >= e.former {
		e.unclear = errors.New("a log that was truncated and has grown as large again looks as if it had only grown")
	}
	for {
		line, rest, whole := strings.Cut(text, "\n")
		e.keep(line)
		if !whole {
			return
		}
		text = rest
		line, cut := e.pending, e.cut
		e.pending, e.cut = "", false
		if !cut {
			line = strings.TrimSuffix(line, "\r")
		}
		e.line(line, cut)
	}
}

// keep keeps as much of an unfinished line as counts: one byte more for a CR.
func (e *expectation) keep(text string) {
	e.pending += text
	if len(e.pending) > longestLine+1 {
		e.pending, e.cut = e.pending[:longestLine+1], true
	}
}

func (e *expectation) line(line string, cut bool) {
	cut = cut || len(line) > longestLine
	line = line[:min(len(line), longestLine)]
	if rest, isReady := strings.CutPrefix(line, readyPrefix); isReady && e.told == nil {
		name, socket, _ := strings.Cut(rest, "\t")
		malformed := cut || name == "" || socket == "" || strings.Contains(socket, "\x00") || len(socket) > longestPath
		e.fresh = true
		e.told = &announcement{line, name, socket, e.resolve(socket), malformed, slices.Clone(e.tail)}
		return
	}
	e.tail = append(e.tail, strings.ToValidUTF8(line, "\uFFFD"))
	e.tail = e.tail[max(0, len(e.tail)-tailLines):]
	e.unsure = max(0, e.unsure-1)
}

// end is the end of the process.
func (e *expectation) end(status string) {
	if e.parentEnds > 0 {
		e.unclear = errors.New("a daemon that ends before its parent is not followed")
	}
	e.over, e.status = true, status
}

// fail is a step that fails: the fake pod says so and ends.
func (e *expectation) fail(verb, format string, args ...any) {
	e.write(fmt.Sprintf("fakepod: "+verb+": "+format+"\n", args...))
	e.end("exit status 1")
}

func (e *expectation) expand(text string) string {
	return strings.NewReplacer("{{", "{", "{socket}", "{dir}/sock").Replace(text)
}

// What the fake pod says of a socket that is not there, or there already.
const (
	noSocket    = "there is no socket yet: the step bind, or socket, comes before"
	socketThere = "there is a socket already"
)

// take works out what a step comes to.
func (e *expectation) take(s fakepod.Step) {
	nothing := func() {} // that a client sees
	map[string]func(){
		"log":      func() { e.write(e.expand(s.Args[0]) + "\n") },
		"raw":      func() { e.write(e.expand(s.Args[0])) },
		"clock":    func() { e.write("monotonic {clock}\n") },
		"ready":    func() { e.write(e.expand(readyPrefix + s.Arg(0, "{name}") + "\t" + s.Arg(1, "{socket}") + "\n")) },
		"flood":    func() { e.flood(s) },
		"sleep":    func() { e.pass(s.Duration(0, "")) },
		"hang":     func() { e.over = true },
		"stop":     func() { e.end("exit status 0") },
		"exit":     func() { e.end(fmt.Sprint("exit status ", s.Number(0, ""))) },
		"kill":     func() { e.kill(fakepod.ParseSignal(s.Args[0])) },
		"ignore":   func() { e.react("ignore", s.Args...) },
		"on":       func() { e.react("on", s.Args[0]) },
		"socket":   func() { e.socket("socket", e.expand(s.Arg(0, "{socket}"))) },
		"bind":     func() { e.socket("bind", e.expand(s.Arg(0, "{socket}"))) },
		"cd":       func() { e.cd(e.resolve(e.expand(s.Args[0]))) },
		"listen":   func() { e.listen(s.Number(0, "128")) },
		"fill":     e.fill,
		"serve":    e.serve,
		"unlink":   func() { e.unlink(s.Args[0]) },
		"truncate": e.truncate,
		"child":    func() { e.child(s) }, "escape": func() { e.child(s) }, "daemonize": func() { e.daemonize(s.Duration(0, "0s")) },
		"out": nothing, "answer": nothing, "event": nothing, "garbage": nothing, "stall": nothing, "close": nothing, "reset": nothing,
	}[s.Verb]()
}

// pass lets time pass, which a parent may not live through.
func (e *expectation) pass(d time.Duration) {
	ends := e.parentEnds > 0 && e.soonest+d >= e.parentEnds
	if ends {
		d, e.parentEnds = e.parentEnds-e.soonest, 0
	}
	if e.soonest, e.latest = e.soonest+d, e.latest+d; ends {
		e.end("exit status 0")
	}
}

func (e *expectation) react(verb string, names ...string) {
	for _, name := range names {
		e.reacts[fakepod.ParseSignal(name)] = verb
	}
}

func (e *expectation) socket(verb, given string) {
	path := e.resolve(given)
	parts := plain.FindStringSubmatch(path)
	switch inDir := strings.HasPrefix(path, "{dir}"); {
	case e.bound != "":
		e.fail(verb, socketThere)
		return
	case parts == nil || parts[2] == "" || parts[3] != "" || inDir && slices.Contains([]string{"pid", "status.json", "stderr.log"}, parts[2]):
		e.unclear = fmt.Errorf("it depends on what is at %q", path)
	case inDir && e.dirGone:
		e.fail(verb, "bind %s: %v", given, unix.ENOENT)
		return
	case verb == "bind":
		e.listening = 128
	}
	e.bound, e.given, e.atPath = path, given, path
}

// cd is followed to the pod directory.
func (e *expectation) cd(path string) {
	e.wasRead()
	switch {
	case e.parentEnds > 0:
		e.unclear = errors.New("a relative path counts from the directory of the process that was started")
	case path != "{dir}":
		e.unclear = fmt.Errorf("it depends on what is at %q", path)
	case e.dirGone:
		e.fail("cd", "chdir {dir}: %v", unix.ENOENT)
	case e.told != nil && e.fresh && !strings.HasPrefix(e.told.leads, "/") && !strings.HasPrefix(e.told.leads, "{dir}"):
		e.unclear = errors.New("from where a relative path counts depends on when the ready line is read")
	}
	e.cwd = path
}

func (e *expectation) listen(backlog int) {
	if e.listening = backlog; e.bound == "" {
		e.fail("listen", noSocket)
	}
}

func (e *expectation) fill() {
	switch {
	case e.atPath == "" || e.dirGone && strings.HasPrefix(e.atPath, "{dir}"):
		e.fail("fill", "connection 1: %v", unix.ENOENT)
	case e.listening < 0:
		e.fail("fill", "connection 1: %v", unix.ECONNREFUSED)
	case e.serving:
		e.unclear = errors.New("how fast connections are accepted is chance")
	default:
		e.full = max(e.full, e.listening)
	}
}

func (e *expectation) serve() {
	switch {
	case e.bound == "":
		e.fail("serve", noSocket)
	case e.listening < 0 && len(e.rest) > 0:
		e.unclear = errors.New("when it fails beside the steps that follow is chance")
	case e.listening < 0:
		e.fail("serve", "accept unix %s: accept4: %v", e.given, unix.EINVAL)
	default:
		e.full, e.serving, e.over = -1, true, len(e.rest) == 0
	}
}

func (e *expectation) kill(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGKILL:
		e.end("signal: killed")
	case sig == syscall.SIGSTOP:
		e.over = true
	case e.reacts[sig] == "on":
		e.unclear = fmt.Errorf("what it does on %v is done beside the steps that follow", unix.SignalName(sig))
	case slices.Contains(harmless, sig) || e.reacts[sig] == "ignore":
	case sig == syscall.SIGINT:
		e.end("exit status 0")
	case sig == syscall.SIGTSTP || sig == syscall.SIGTTIN || sig == syscall.SIGTTOU:
		e.unclear = fmt.Errorf("whether %v stops a process depends on its session", unix.SignalName(sig))
		e.over = true
	default:
		e.end("signal: " + sig.String())
	}
}

// harmless are the signals that do nothing by default.
var harmless = []syscall.Signal{syscall.SIGCONT, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH}

// child is a process that is started beside the pod. What it does at the same time
// is worked out only if nobody can see it.
func (e *expectation) child(s fakepod.Step) {
	steps, _ := fakepod.Parse(s.Arg(0, "hang"))
	if i := slices.IndexFunc(steps, func(s fakepod.Step) bool { return !slices.Contains(unseen, s.Verb) }); i >= 0 {
		e.unclear = fmt.Errorf("%s is done by a child at the same time", steps[i].Verb)
	}
	e.latest += noticed
}

// unseen are the steps that leave neither words nor files.
var unseen = []string{"hang", "sleep", "ignore", "exit", "out"}

// daemonize ends the process, at once or after a wait, while another one goes on. Whether
// a client reads what that writes at once is chance.
func (e *expectation) daemonize(wait time.Duration) {
	if e.latest += noticed; e.parentEnds > 0 {
		e.unclear, e.over = errors.New("a daemon of a daemon whose parent lives is not followed"), true
		return
	}
	if wait > 0 {
		e.bound, e.serving, e.listening, e.full, e.parentEnds = "", false, -1, -1, e.soonest+wait
		return
	}
	daemon := *e
	daemon.tail = slices.Clone(e.tail)
	daemon.bound, daemon.listening, daemon.full = "", -1, -1 // it is another program
	for i, s := range e.rest {
		if daemon.over || daemon.soonest-e.soonest >= noticed {
			break
		}
		daemon.rest = e.rest[i+1:]
		daemon.take(s)
	}
	if daemon.unclear != nil { // as by a daemon of its own
		e.unclear = daemon.unclear
	}
	t := daemon.told
	if daemon.pending != e.pending || !slices.Equal(daemon.tail, e.tail) || t != nil && (t.malformed || t.name != "{name}") {
		e.unclear = errors.New("a client may or may not read what the daemon writes when the pod has just ended")
	}
	e.end("exit status 0")
}

func (e *expectation) flood(s fakepod.Step) {
	size, _ := fakepod.ParseSize(s.Args[0])
	length := int64(s.Number(1, "80"))
	e.latest += time.Duration(size) * time.Second / (32 << 20) // on a slow disk
	if length == 0 {
		n := min(size, longestLine+2)
		e.write(strings.Repeat(".", int(n)))
		e.size += size - n
		return
	}
	// The first line ends one that was unfinished; of the others the last count.
	lines, unread := (size+length-1)/length, e.unread
	for i := int64(0); i < lines; i++ {
		if i == 1 {
			i = max(i, lines-tailLines-1)
		}
		e.write(strings.Repeat(".", int(min(length, size-i*length)-1)) + "\n")
	}
	e.unread, e.size = unread+1, max(e.size, size) // it writes them in one piece, or nearly
}

func (e *expectation) unlink(what string) {
	switch {
	case what == "dir":
		e.dirGone, e.logGone = true, true
	case what == "sock" && e.atPath == "{dir}/sock" && !e.dirGone:
		e.atPath = ""
	case what == "log" && !e.logGone:
		e.logGone = true
	default:
		e.fail("unlink", "remove {dir}/%s: %v", map[string]string{"sock": "sock", "log": "stderr.log"}[what], unix.ENOENT)
	}
}

func (e *expectation) truncate() {
	e.wasRead()
	if e.unread > 1 || e.fresh {
		e.unclear = errors.New("how much of the log was read before it was truncated is chance")
	}
	if e.unread > 0 {
		e.unsure = tailLines
	}
	e.former, e.size, e.pending, e.cut, e.unread = e.size, 0, "", false, 0
}

// wasRead forgets what a client has read by now for certain.
func (e *expectation) wasRead() {
	if e.soonest-e.wrote >= noticed {
		e.unread, e.fresh = 0, false
	}
}
