// Package fakepod is a pod that misbehaves on command. It reproduces every failure
// of a pod's start exactly.
//
// Any binary that imports this package can be started as the fake pod: [Command]
// returns how. A test needs no TestMain for that. The command fakepod is the fake pod
// for programs that do not import the package.
//
// A program of steps says how the fake pod behaves. It is one line, and the steps are
// acted out in order. A mode is a program with a name ([Modes], fakepod -list):
//
//	bind; ready; serve                                  a healthy pod
//	log loading; sleep 500ms; bind; ready; serve        a slow one
//	log 'cannot open session store'; exit 7             one that dies
//
// # Steps
//
// A program is steps with semicolons between them. A step is a verb and its
// arguments with spaces between them. An argument is a bare word, a text in
// 'single quotes' (where two quotes stand for one), or a text in "double quotes" with
// the escapes of Go. A program that is one word, the name of a mode, is that mode: the
// step ready alone is written "ready;". In a TEXT, {name}, {socket}, {dir} and {pid}
// stand for the pod's name, socket, directory and process, and {{ for a brace.
//
//	log TEXT             write a line to stderr
//	out TEXT             write a line to stdout
//	raw TEXT             write to stderr, with no newline added
//	clock                log the line "monotonic N", CLOCK_MONOTONIC in ns
//	sleep DURATION       wait
//	hang                 wait for ever
//	socket               make the socket and bind it, without listening
//	listen [BACKLOG]     listen on it (128); again to change the backlog
//	bind                 socket and listen: what a healthy pod does
//	fill                 connect to the own socket until its backlog is full
//	ready [NAME [PATH]]  write the ready line
//	serve                accept connections and answer: for ever, or beside the steps that follow
//	answer METHOD JSON   from now on, answer a method with a line of JSON
//	event JSON           send a line to all connections, to later ones after their snapshot
//	garbage BYTES        the same with bytes as they are
//	stall DURATION       from now on, hold every line up in its middle
//	close                close all connections, later ones when they were sent what comes first
//	reset                from now on, reset a connection that asks for something
//	stop                 stop gracefully, as on SIGINT
//	exit STATUS          exit at once and leave everything
//	kill SIGNAL          send itself a signal; nothing follows a deadly one
//	ignore SIGNAL...     ignore signals from now on
//	child [PROGRAM]      start a process of the same process group (hang)
//	escape [PROGRAM]     start a process in a session of its own (hang)
//	daemonize            fork twice and exit: the next steps are the daemon's, in its own session
//	flood SIZE [LINE]    write SIZE bytes to stderr, in lines of LINE bytes (80; 0 = no newline)
//	unlink WHAT          remove the sock, the log or the whole pod dir
//	truncate             truncate the log
//
// kill has the signal's default effect, as in a C program: on Linux a deadly signal
// kills even where Go would write a stack trace or do nothing. A signal that stops the
// process, such as SIGSTOP, does not end the program: the next step follows SIGCONT.
//
// The fake pod refuses a bad program before it does anything. The error has the column,
// in bytes.
//
// # Habits
//
// Apart from its program, the fake pod does what real pods do. It refuses wrong
// handshake arguments with exit status 2. It finds the runtime directory by the same
// four variables. It keeps the files pid and status.json in the pod directory. It removes
// a stale socket before it binds. On SIGINT, at any step, it removes the whole pod
// directory and exits with status 0. SIGTERM kills it.
//
// # Socket
//
// serve speaks lines of JSON. The first line on each connection is
// {"event":"snapshot","data":{…}}. Its data has the pod's name, pid, workspace, dir and
// state; and session, profile and ticket_role if the pod was given them. Each line
// {"method":…,"params":…} of a client then gets one answer:
//
//	ping      {"event":"pong","data":<params>}
//	echo      {"event":"echo","data":<params>}
//	status    {"event":"status","data":<as in the snapshot>}
//	env       {"event":"env","data":{"NAME":"value",…}}: its environment
//	fds       {"event":"fds","data":{"0":"/dev/null",…}}: what it inherited (Linux)
//	run       {"event":"done"} once params {"program":"…"} was acted out
//	shutdown  {"event":"shutdown"}, then a graceful stop
//
// Any other line is answered with {"event":"error","data":{"message":"…"}}.
package fakepod

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// pod is the fake pod at work.
type pod struct {
	role    role
	told    handshake
	dir     string
	started time.Time

	fs       sync.Mutex // held while the pod directory or the socket changes
	listener int        // the socket's descriptor, -1 before there is one

	mu      sync.Mutex
	state   string
	ignored []string // signals, as ignore was given them

	habits habits // of serve
}

// act acts the steps out. A pod whose steps are over leaves everything.
func act(role role, told handshake, dir string, steps []Step, trace *os.File) error {
	p := &pod{role: role, told: told, dir: dir, started: time.Now(), listener: -1, state: "starting"}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT)
	go func() {
		<-interrupts
		_ = p.stop(nil)
	}()
	err := p.keep()
	if err == nil {
		err = p.begin(steps)
	}
	if err == nil {
		err = p.run(steps, func(i int) { _, _ = fmt.Fprintf(trace, "%d %d %d\n", i, monotonic(), os.Getpid()) })
	}
	return err
}

func (p *pod) path(name string) string { return p.dir + "/" + name }

// keep makes the pod directory and writes what a pod keeps in it. Like
// writeStatus, it leaves a child's pod alone.
func (p *pod) keep() error {
	if p.role.child {
		return nil
	}
	p.fs.Lock()
	err := os.MkdirAll(p.dir, 0o700)
	if err == nil {
		err = writeAtomically(p.path("pid"), strconv.Itoa(os.Getpid())+"\n")
	}
	p.fs.Unlock()
	if err == nil {
		err = p.writeStatus()
	}
	return err
}

func (p *pod) writeStatus() error {
	if p.role.child {
		return nil
	}
	p.fs.Lock()
	defer p.fs.Unlock()
	status, err := json.Marshal(p.status())
	if err == nil {
		err = writeAtomically(p.path("status.json"), string(status)+"\n")
	}
	return err
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
		Name: p.told["--pod"], PID: os.Getpid(), Workspace: p.told["--workspace"], Dir: wd, State: p.state, Started: p.started,
		Session: p.told["--session"], Profile: p.told["--profile"], TicketRole: p.told["--ticket-role"],
	}
}
