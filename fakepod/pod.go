package fakepod

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The roles of the processes that a fake pod starts of itself.
const (
	roleFlag   = "-role"
	rolePod    = "pod"
	roleChild  = "child"  // acts out its own program beside the pod
	roleFork   = "fork"   // the process between the two forks of a daemon
	roleDaemon = "daemon" // the pod after both
	// The same two for a child that makes a daemon of itself.
	roleChildFork   = "child-fork"
	roleChildDaemon = "child-daemon"
)

// pod is the fake pod at work.
type pod struct {
	role    string
	told    handshake
	dir     string
	started time.Time

	fs       sync.Mutex // held while the pod directory or the socket changes
	listener int        // the socket's descriptor, -1 before there is one

	mu      sync.Mutex
	state   string
	ignored map[syscall.Signal]bool
	filled  []int // connections that fill the backlog, kept
}

// verb is one kind of step. The table is the language: its parser, its help
// and its actor.
type verb struct {
	usage, doc string
	min, max   int
	check      []func(string) error // by argument; the last one goes on
	act        func(p *pod, args []string) error
}

const manyArgs = 100

// verbOrder is how the verbs are listed.
var verbOrder = []string{
	"log", "out", "raw", "clock", "sleep", "hang", "socket", "listen", "bind", "fill", "ready", "serve", "stop",
	"exit", "kill", "ignore", "child", "escape", "daemonize", "flood", "unlink", "truncate",
}

func verbNames() string { return strings.Join(verbOrder, ", ") }

// verbs is filled by init: an initializer would refer to itself, since acting
// out a step may mean to parse a program.
var verbs map[string]verb

func verbTable() map[string]verb {
	text, program := []func(string) error{checkText}, []func(string) error{checkProgram}
	return map[string]verb{
		"log": {"TEXT", "write a line to stderr", 1, 1, text, func(p *pod, args []string) error {
			return write(os.Stderr, p.expand(args[0])+"\n")
		}},
		"out": {"TEXT", "write a line to stdout", 1, 1, text, func(p *pod, args []string) error {
			return write(os.Stdout, p.expand(args[0])+"\n")
		}},
		"raw": {"TEXT", "write to stderr, with no newline added", 1, 1, text, func(p *pod, args []string) error {
			return write(os.Stderr, p.expand(args[0]))
		}},
		"clock":  {"", `log the line "monotonic N", CLOCK_MONOTONIC in ns`, 0, 0, nil, (*pod).clock},
		"sleep":  {"DURATION", "wait", 1, 1, []func(string) error{checkDuration}, (*pod).sleep},
		"hang":   {"", "wait for ever", 0, 0, nil, func(*pod, []string) error { select {} }},
		"socket": {"", "make the socket and bind it, without listening", 0, 0, nil, (*pod).socket},
		"listen": {"[BACKLOG]", "listen on it (128); again to change the backlog", 0, 1, []func(string) error{checkNumber(4096)}, (*pod).listen},
		"bind": {"", "socket and listen: what a healthy pod does", 0, 0, nil, func(p *pod, _ []string) error {
			if err := p.socket(nil); err != nil {
				return err
			}
			return p.listen(nil)
		}},
		"fill":  {"", "connect to the own socket until its backlog is full", 0, 0, nil, (*pod).fill},
		"ready": {"[NAME [PATH]]", "write the ready line", 0, 2, text, (*pod).ready},
		"serve": {"", "accept connections and answer, for ever", 0, 0, nil, (*pod).serve},
		"stop":  {"", "stop gracefully, as on SIGINT", 0, 0, nil, func(p *pod, _ []string) error { p.stop(); return nil }},
		"exit": {"STATUS", "exit at once and leave everything", 1, 1, []func(string) error{checkNumber(255)}, func(_ *pod, args []string) error {
			status, _ := strconv.Atoi(args[0])
			exit(status)
			return nil
		}},
		"kill":   {"SIGNAL", "send a signal to itself; what follows a deadly one is never reached", 1, 1, []func(string) error{checkSignal}, (*pod).kill},
		"ignore": {"SIGNAL...", "ignore signals from now on", 1, manyArgs, []func(string) error{checkSignal}, (*pod).ignore},
		"child": {"[PROGRAM]", "start a process of the same process group (hang)", 0, 1, program, func(p *pod, args []string) error {
			return p.fork(roleChild, append(args, "hang")[0], false)
		}},
		"escape": {"[PROGRAM]", "start a process in a session of its own (hang)", 0, 1, program, func(p *pod, args []string) error {
			return p.fork(roleChild, append(args, "hang")[0], true)
		}},
		// The steps after it are another process's: see act.
		"daemonize": {"", "fork twice: the next steps are those of a process in its own session", 0, 0, nil, nil},
		"flood": {"SIZE [LINE]", "write SIZE bytes to stderr, in lines of LINE bytes (80; 0 = no newline at all)", 1, 2,
			[]func(string) error{checkSize, checkNumber(1 << 30)}, (*pod).flood},
		"unlink": {"WHAT", "remove the sock, the log or the whole pod dir", 1, 1, []func(string) error{checkOneOf("sock", "log", "dir")}, (*pod).unlink},
		"truncate": {"", "truncate the log", 0, 0, nil, func(*pod, []string) error {
			return os.Stderr.Truncate(0)
		}},
	}
}

// act acts the steps out and returns the exit status. A pod whose steps are
// over exits with status 0 and leaves everything.
func act(role string, told handshake, dir string, steps []step) int {
	p := &pod{role: role, told: told, dir: dir, started: time.Now(), listener: -1, state: "starting", ignored: map[syscall.Signal]bool{}}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT)
	go func() {
		<-interrupts
		p.stop()
	}()
	if p.keeps() {
		if err := p.keep(); err != nil {
			fmt.Fprintf(os.Stderr, "fakepod: %v\n", err)
			return 1
		}
	}
	if daemon := map[string]string{roleFork: roleDaemon, roleChildFork: roleChildDaemon}[role]; daemon != "" {
		if err := p.fork(daemon, format(steps), false, os.NewFile(originalFD, "original")); err != nil {
			fmt.Fprintf(os.Stderr, "fakepod: daemonize: %v\n", err)
			return 1
		}
	}
	if role != rolePod {
		for len(steps) > 0 && steps[0].verb == "ignore" { // what it survives from the beginning
			_ = p.ignore(steps[0].args)
			steps = steps[1:]
		}
		// The starter waits for the end of this pipe.
		if err := unix.Close(startedFD); err != nil {
			fmt.Fprintf(os.Stderr, "fakepod: tell that it started: %v\n", err)
			return 1
		}
	}
	switch role {
	case roleFork, roleChildFork:
		return 0
	case roleDaemon, roleChildDaemon:
		original := os.NewFile(originalFD, "original")
		_, _ = original.Read(make([]byte, 1))
		original.Close()
	}
	if err := p.run(steps); err != nil {
		fmt.Fprintf(os.Stderr, "fakepod: %v\n", err)
		return 1
	}
	return 0
}

func (p *pod) run(steps []step) error {
	for i, s := range steps {
		if s.verb == "daemonize" {
			if err := p.daemonize(steps[i+1:]); err != nil {
				return fmt.Errorf("daemonize: %w", err)
			}
		}
		if err := verbs[s.verb].act(p, s.args); err != nil {
			return fmt.Errorf("%s: %w", s.verb, err)
		}
	}
	return nil
}

// exit ends the process. os.Exit would write to stderr in a binary that
// measures coverage and was not told where to put it: nobody asked for that
// line in the pod's log.
func exit(status int) {
	if os.Getenv("GOCOVERDIR") != "" {
		os.Exit(status)
	}
	syscall.Exit(status)
}

// keeps tells whether the pod directory is this process's.
func (p *pod) keeps() bool { return p.role == rolePod || p.role == roleDaemon }

// stop is the graceful stop of real pods: everything goes, the log too. A child
// just ends.
func (p *pod) stop() {
	if !p.keeps() {
		exit(130)
	}
	p.fs.Lock()
	if err := os.RemoveAll(p.dir); err != nil {
		fmt.Fprintf(os.Stderr, "fakepod: stop: %v\n", err)
		exit(1)
	}
	exit(0)
}

func (p *pod) path(name string) string { return p.dir + "/" + name }

func (p *pod) expand(text string) string {
	return expand(text, map[string]string{
		"{name}":   p.told.pod,
		"{socket}": p.path("sock"),
		"{dir}":    p.dir,
		"{pid}":    strconv.Itoa(os.Getpid()),
	})
}

// write is one write(2), unless the system takes less.
func write(file *os.File, text string) error {
	_, err := file.WriteString(text)
	return err
}

// keep writes what a pod keeps in its directory.
func (p *pod) keep() error {
	p.fs.Lock()
	defer p.fs.Unlock()
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if err := writeAtomically(p.path("pid"), strconv.Itoa(os.Getpid())+"\n"); err != nil {
		return err
	}
	return p.writeStatus()
}

func (p *pod) writeStatus() error {
	status, err := json.Marshal(p.status())
	if err != nil {
		return err
	}
	return writeAtomically(p.path("status.json"), string(status)+"\n")
}

func writeAtomically(path, text string) error {
	if err := os.WriteFile(path+".tmp", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

type status struct {
	Name       string    `json:"name"`
	PID        int       `json:"pid"`
	Workspace  string    `json:"workspace"`
	Dir        string    `json:"dir"`
	State      string    `json:"state"`
	Started    time.Time `json:"started"`
	Session    string    `json:"session,omitempty"`
	Profile    string    `json:"profile,omitempty"`
	TicketRole string    `json:"ticket_role,omitempty"`
}

func (p *pod) status() status {
	p.mu.Lock()
	defer p.mu.Unlock()
	wd, _ := os.Getwd()
	return status{
		Name: p.told.pod, PID: os.Getpid(), Workspace: p.told.workspace, Dir: wd, State: p.state, Started: p.started,
		Session: p.told.session, Profile: p.told.profile, TicketRole: p.told.ticketRole,
	}
}

func (p *pod) clock([]string) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return write(os.Stderr, fmt.Sprintf("monotonic %d\n", now.Nano()))
}

func (p *pod) sleep(args []string) error {
	d, err := time.ParseDuration(args[0])
	if err == nil {
		<-time.After(d)
	}
	return err
}

func (p *pod) socket([]string) error {
	p.fs.Lock()
	defer p.fs.Unlock()
	if p.listener >= 0 {
		return errors.New("there is a socket already")
	}
	if err := os.Remove(p.path("sock")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return withSocket(p.path("sock"), func(fd int, address unix.Sockaddr) error {
		if err := unix.Bind(fd, address); err != nil {
			return fmt.Errorf("bind %s: %w", p.path("sock"), err)
		}
		p.listener = fd
		return nil
	})
}

func (p *pod) listen(args []string) error {
	p.fs.Lock()
	defer p.fs.Unlock()
	if p.listener < 0 {
		return errors.New("there is no socket yet")
	}
	backlog := 128
	if len(args) > 0 {
		backlog, _ = strconv.Atoi(args[0])
	}
	return unix.Listen(p.listener, backlog)
}

func (p *pod) fill([]string) error {
	for range 10_000 {
		err := withSocket(p.path("sock"), func(fd int, address unix.Sockaddr) error {
			if err := unix.Connect(fd, address); err != nil {
				return err
			}
			p.filled = append(p.filled, fd)
			return nil
		})
		switch {
		case errors.Is(err, unix.EAGAIN), len(p.filled) > 0 && errors.Is(err, unix.ECONNREFUSED): // macOS
			return nil
		case err != nil:
			return err
		}
	}
	return errors.New("the backlog was not full after 10000 connections")
}

// withSocket calls use with a new Unix socket and the address of a path. The
// socket is closed if use fails, and stays open else.
func withSocket(path string, use func(fd int, address unix.Sockaddr) error) error {
	syscall.ForkLock.RLock() // a child started just now would inherit it
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return err
	}
	name, release, err := shortName(path)
	if err == nil {
		err = use(fd, &unix.SockaddrUnix{Name: name})
		release()
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

func (p *pod) ready(args []string) error {
	p.mu.Lock()
	p.state = "ready"
	p.mu.Unlock()
	if p.keeps() {
		p.fs.Lock()
		err := p.writeStatus()
		p.fs.Unlock()
		// A pod whose directory was removed announces itself nevertheless.
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	name, socket := "{name}", "{socket}"
	if len(args) > 0 {
		name = args[0]
	}
	if len(args) > 1 {
		socket = args[1]
	}
	return write(os.Stderr, "YOI-READY\t"+p.expand(name)+"\t"+p.expand(socket)+"\n")
}

func (p *pod) serve([]string) error {
	p.fs.Lock()
	fd := p.listener
	p.fs.Unlock()
	if fd < 0 {
		return errors.New("there is no socket yet")
	}
	file := os.NewFile(uintptr(fd), p.path("sock"))
	defer file.Close() // and not by the garbage collector: listen still uses it
	listener, err := net.FileListener(file)
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go p.answer(conn)
	}
}

// kill returns if the process survives the signal.
func (p *pod) kill(args []string) error {
	sig := parseSignal(args[0])
	p.mu.Lock()
	ignored := p.ignored[sig]
	p.mu.Unlock()
	if ignored {
		return raise(sig, false)
	}
	switch sig {
	case syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, // it goes on after SIGCONT
		syscall.SIGCONT, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGWINCH: // nothing happens
		return raise(sig, false)
	}
	graceful := sig == syscall.SIGINT
	if err := raise(sig, !graceful); err != nil {
		return err
	}
	select {} // the end may take a moment
}

func (p *pod) ignore(args []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, arg := range args {
		sig := parseSignal(arg)
		signal.Ignore(sig)
		p.ignored[sig] = true
	}
	return nil
}

// Where a process that fork starts finds its ends of pipes: one to close once
// it has started; for a daemon one that ends with the original process.
const (
	startedFD  = 3
	originalFD = 4
)

// daemonize forks twice and exits. The daemon goes on once this process is
// gone, so that nobody can take the one for the other.
func (p *pod) daemonize(steps []step) error {
	if len(steps) == 0 {
		steps = []step{{verb: "hang"}}
	}
	// The daemon is a new program, with Go's own handlers: it has to be told.
	var ignored []string
	p.mu.Lock()
	for sig := range p.ignored {
		ignored = append(ignored, unix.SignalName(sig))
	}
	p.mu.Unlock()
	if len(ignored) > 0 {
		steps = append([]step{{"ignore", ignored}}, steps...)
	}
	end, original, err := os.Pipe()
	if err != nil {
		return err
	}
	defer original.Close() // not before exit
	role := roleFork
	if !p.keeps() {
		role = roleChildFork
	}
	if err := p.fork(role, format(steps), true, end); err != nil {
		return err
	}
	exit(0)
	return nil
}

// fork starts a process that acts a program out, and waits until it does.
func (p *pod) fork(role, program string, newSession bool, more ...*os.File) error {
	var args []string
	if len(os.Args) > 1 && os.Args[1] == marker {
		args = append(args, marker)
	}
	args = append(args, roleFlag, role, "-program", program, "--workspace", p.told.workspace, "--pod", p.told.pod)
	for _, flag := range [][2]string{{"--session", p.told.session}, {"--profile", p.told.profile}, {"--ticket-role", p.told.ticketRole}} {
		if flag[1] != "" {
			args = append(args, flag[:]...)
		}
	}
	started, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer started.Close()
	defer end.Close()
	cmd := exec.Command(self(), args...)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = append([]*os.File{end}, more...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: newSession}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	end.Close()
	// Nothing is ever written: the end of the pipe tells that it has closed it,
	// or that it has died, which its words in the log explain.
	_, _ = started.Read(make([]byte, 1))
	return nil
}

func (p *pod) flood(args []string) error {
	size, err := parseSize(args[0])
	if err != nil {
		return err
	}
	length := 80
	if len(args) > 1 {
		length, _ = strconv.Atoi(args[1])
	}
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

func (p *pod) unlink(args []string) error {
	p.fs.Lock()
	defer p.fs.Unlock()
	switch args[0] {
	case "sock":
		return os.Remove(p.path("sock"))
	case "log":
		return os.Remove(p.path("stderr.log"))
	default:
		return os.RemoveAll(p.dir)
	}
}
