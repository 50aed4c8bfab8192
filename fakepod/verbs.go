package fakepod

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// verb is one kind of step.
type verb struct {
	name  string
	usage string // its arguments: [ before those that may be missing, ... after one that goes on
	doc   string
	act   func(p *pod, s Step) error
}

// verbs returns the language: what is parsed, acted out and documented. It is a
// function since a variable's value would refer to itself: acting out a step may
// mean to parse a program.
func verbs() []verb {
	return []verb{
		{"log", "TEXT", "write a line to stderr", func(p *pod, s Step) error { return write(os.Stderr, p.expand(s.Args[0])+"\n") }},
		{"out", "TEXT", "write a line to stdout", func(p *pod, s Step) error { return write(os.Stdout, p.expand(s.Args[0])+"\n") }},
		{"raw", "TEXT", "write to stderr, with no newline added", func(p *pod, s Step) error { return write(os.Stderr, p.expand(s.Args[0])) }},
		{"clock", "", `log the line "monotonic N", CLOCK_MONOTONIC in ns`, func(*pod, Step) error { return write(os.Stderr, fmt.Sprintf("monotonic %d\n", monotonic())) }},
		{"sleep", "DURATION", "wait", func(_ *pod, s Step) error { time.Sleep(s.Duration(0, "")); return nil }},
		{"hang", "", "wait for ever", func(*pod, Step) error { select {} }},
		{"socket", "[PATH]", "make the socket and bind it, to {socket} or another path, without listening", (*pod).socket},
		{"listen", "[BACKLOG]", "listen on it (128); again to change the backlog", (*pod).listen},
		{"bind", "[PATH]", "socket and listen: what a healthy pod does", (*pod).bind},
		{"fill", "", "connect to the own socket until its backlog is full", (*pod).fill},
		{"ready", "[NAME [PATH]]", "write the ready line", (*pod).ready},
		{"serve", "", "accept connections and answer: for ever, or beside the steps that follow", (*pod).serve},
		{"answer", "METHOD JSON", "from now on, answer a method with a line of JSON", (*pod).answerWith},
		{"event", "JSON", "send a line to all connections, to later ones after their snapshot", func(p *pod, s Step) error { return p.garbage(Step{Args: []string{s.Args[0] + "\n"}}) }},
		{"garbage", "BYTES", "the same with bytes as they are", (*pod).garbage},
		{"stall", "DURATION", "from now on, hold every line up in its middle", func(p *pod, s Step) error {
			p.habit(func(h *habits) { h.stall = s.Duration(0, "") })
			return nil
		}},
		{"close", "", "close all connections, later ones when they were sent what comes first", (*pod).closeAll},
		{"reset", "", "from now on, reset a connection that asks for something", func(p *pod, _ Step) error { p.habit(func(h *habits) { h.resets = true }); return nil }},
		{"stop", "", "stop gracefully, as on SIGINT", (*pod).stop},
		{"exit", "STATUS", "exit at once and leave everything", func(_ *pod, s Step) error { exit(s.Number(0, "")); return nil }},
		{"kill", "SIGNAL", "send itself a signal; nothing follows a deadly one", (*pod).kill},
		{"ignore", "SIGNAL...", "from now on, ignore signals", (*pod).ignore},
		{"on", "SIGNAL PROGRAM", "from now on, act a program out on a signal, beside the other steps", (*pod).on},
		{"cd", "PATH", "change the working directory", func(p *pod, s Step) error { return os.Chdir(p.expand(s.Args[0])) }},
		{"child", "[PROGRAM]", "start a process of the same process group (hang)", func(p *pod, s Step) error { return p.start(childRole, s.Arg(0, "hang"), false) }},
		{"escape", "[PROGRAM]", "start a process in a session of its own (hang)", func(p *pod, s Step) error { return p.start(childRole, s.Arg(0, "hang"), true) }},
		{"daemonize", "[DURATION]", "fork twice and exit, a DURATION after the daemon goes on: the next steps are its, in its own session", nil}, // see run
		{"flood", "SIZE [LINE]", "write SIZE bytes to stderr, in lines of LINE bytes (80; 0 = no newline)", (*pod).flood},
		{"unlink", "WHAT", "remove the sock, the log or the whole pod dir", (*pod).unlink},
		{"truncate", "", "truncate the log", func(*pod, Step) error { return os.Stderr.Truncate(0) }},
	}
}

func (v verb) String() string { return strings.TrimSpace(v.name + " " + v.usage) }
func (v verb) row() string    { return v.String() + "\t" + v.doc }

// Verbs returns the verbs of steps.
func Verbs() (names []string) {
	for _, v := range verbs() {
		names = append(names, v.name)
	}
	return names
}

func findVerb(name string) (verb, bool) {
	for _, v := range verbs() {
		if v.name == name {
			return v, true
		}
	}
	return verb{}, false
}

// run acts the steps of the program out, or others.
func (p *pod) run(steps []Step, program bool) error {
	for i, s := range steps {
		if program {
			p.trace.step(i)
		}
		v, _ := findVerb(s.Verb)
		act, rest := v.act, steps[i+1:]
		switch {
		case s.Verb == "daemonize":
			act = func(p *pod, s Step) error {
				return p.daemonize(rest, s.Duration(0, "0s"), map[bool]int{true: i + 1}[program])
			}
		case s.Verb == "serve" && len(rest) > 0:
			act = (*pod).serveBeside
		}
		if err := act(p, s); err != nil {
			return fmt.Errorf("%s: %w", s.Verb, err)
		}
	}
	return nil
}

// write is one write(2), unless the system takes less.
func write(file *os.File, text string) error {
	_, err := file.WriteString(text)
	return err
}

func (p *pod) expand(text string) string {
	return strings.NewReplacer("{{", "{", "{name}", p.told["--pod"], "{socket}", p.path("sock"), "{dir}", p.dir,
		"{pid}", strconv.Itoa(os.Getpid())).Replace(text)
}

// monotonic returns the time in ns by the clock that all processes share.
func monotonic() int64 {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // every system has it
	return now.Nano()
}

func (p *pod) socket(s Step) error {
	path := p.expand(s.Arg(0, "{socket}"))
	p.fs.Lock()
	defer p.fs.Unlock()
	if p.listener >= 0 {
		return errSocketThere
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return withSocket(path, func(fd int, address unix.Sockaddr) error {
		if err := unix.Bind(fd, address); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
		p.listener, p.bound = fd, path
		return nil
	})
}

var (
	errNoSocket    = errors.New("there is no socket yet: the step bind, or socket, comes before")
	errSocketThere = errors.New("there is a socket already")
)

func (p *pod) listen(s Step) error {
	p.fs.Lock()
	defer p.fs.Unlock()
	if p.listener < 0 {
		return errNoSocket
	}
	return unix.Listen(p.listener, s.Number(0, "128"))
}

func (p *pod) bind(s Step) error {
	if err := p.socket(s); err != nil {
		return err
	}
	return p.listen(Step{})
}

// fill keeps its connections for as long as the process lives.
func (p *pod) fill(Step) error {
	p.fs.Lock()
	path := cmp.Or(p.bound, p.path("sock"))
	p.fs.Unlock()
	for n := range 10_000 {
		err := withSocket(path, unix.Connect)
		switch {
		case errors.Is(err, unix.EAGAIN), n > 0 && errors.Is(err, unix.ECONNREFUSED): // macOS
			return nil
		case err != nil:
			return fmt.Errorf("connection %d: %w", n+1, err)
		}
	}
	return errors.New("the backlog was not full after 10000 connections")
}

// withSocket calls use with a new Unix socket, which stays open unless that
// fails, and the address of a path.
func withSocket(path string, use func(fd int, address unix.Sockaddr) error) error {
	name, release, err := shortName(path)
	if err != nil {
		return err
	}
	defer release()
	syscall.ForkLock.RLock() // a child started just now would inherit it
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	if err = unix.SetNonblock(fd, true); err == nil {
		err = use(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

func (p *pod) ready(s Step) error {
	p.mu.Lock()
	p.state = "ready"
	p.mu.Unlock()
	// A pod whose directory was removed announces itself nevertheless.
	if err := p.writeStatus(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return write(os.Stderr, p.expand("YOI-READY\t"+s.Arg(0, "{name}")+"\t"+s.Arg(1, "{socket}")+"\n"))
}

// stop is the graceful stop of real pods: everything goes, the log too. A child
// just ends.
func (p *pod) stop(Step) error {
	if p.role.child {
		exit(130)
	}
	p.fs.Lock() // for good: nothing may come back
	if err := p.clear(); err != nil {
		exit(fail(fmt.Errorf("stop: %w", err)))
	}
	exit(0)
	return nil
}

// clear removes the pod directory, the socket last: until then nobody starts a new pod
// of the name, and after that nothing is removed that one may have made. Of a directory
// that is a link, the link is removed.
func (p *pod) clear() error {
	var entries []os.DirEntry
	info, err := os.Lstat(p.dir)
	if err == nil && info.IsDir() {
		entries, err = os.ReadDir(p.dir)
	}
	for _, entry := range entries {
		if entry.Name() != "sock" && err == nil {
			err = os.RemoveAll(p.path(entry.Name()))
		}
	}
	if err == nil && len(entries) > 0 {
		err = os.RemoveAll(p.path("sock"))
	}
	if err == nil {
		err = os.Remove(p.dir)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return err
}

// kill returns if the process survives the signal.
func (p *pod) kill(s Step) error {
	sig := ParseSignal(s.Args[0])
	p.mu.Lock()
	_, harmless := p.reacts[sig]
	p.mu.Unlock()
	switch sig {
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, // it goes on after SIGCONT
		syscall.SIGCONT, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH: // nothing happens
		harmless = true
	}
	deadly := !harmless && sig != syscall.SIGINT // which stops gracefully
	if err := raise(sig, deadly); err != nil || harmless {
		return err
	}
	select {} // the end may take a moment
}

func (p *pod) ignore(s Step) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, arg := range s.Args {
		sig := ParseSignal(arg)
		signal.Ignore(sig)
		p.reacts[sig] = nil
	}
	return nil
}

func (p *pod) on(s Step) error {
	steps, err := Parse(s.Args[1])
	p.mu.Lock()
	defer p.mu.Unlock()
	sig := ParseSignal(s.Args[0])
	p.reacts[sig] = steps
	signal.Notify(p.signals, sig)
	return err
}

// reactions returns the steps that have another process react as this one does.
func (p *pod) reactions() (steps []Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for sig, program := range p.reacts {
		if program == nil {
			steps = append(steps, Step{"ignore", []string{unix.SignalName(sig)}})
		} else {
			steps = append(steps, Step{"on", []string{unix.SignalName(sig), format(program)}})
		}
	}
	return steps
}

func (p *pod) flood(s Step) error {
	size, _ := ParseSize(s.Args[0])
	length := s.Number(1, "80")
	line := bytes.Repeat([]byte("."), max(1, length))
	if length > 0 {
		line[length-1] = '\n'
	}
	block := bytes.Repeat(line, max(1, 1<<20/len(line)))
	for size > int64(len(block)) {
		n, err := os.Stderr.Write(block)
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	if length > 0 && size > 0 {
		block[size-1] = '\n' // the last line may be a short one
	}
	return write(os.Stderr, string(block[:size]))
}

func (p *pod) unlink(s Step) error {
	p.fs.Lock()
	defer p.fs.Unlock()
	if s.Args[0] == "dir" {
		return os.RemoveAll(p.dir)
	}
	return os.Remove(p.path(map[string]string{"sock": "sock", "log": "stderr.log"}[s.Args[0]]))
}
