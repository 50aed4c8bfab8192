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
// fakepod -help lists the verbs.
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
// a stale socket before it binds. On SIGINT, at any step and while a request runs, it
// removes the whole pod directory, the socket last, and exits with status 0. SIGTERM
// kills it. It stores no sessions, and accepts each --session.
//
// # Socket
//
// serve speaks lines of JSON. The first line on each connection is
// {"event":"snapshot","data":{…}}. Its data has the pod's name, pid, workspace, dir and
// state; and session, profile and ticket_role if the pod was given them. Each line
// {"method":…,"params":…} of a client then gets one answer; fakepod -help lists the
// methods. Any other line but an empty one is answered with
// {"event":"error","data":{"message":"…"}}, and one of more than 2 MiB ends its connection.
// A line that its client does not finish is dropped. A client that does not read holds up
// no other, and gets no answer either until it reads; one that holds up a line that is
// sent to all for a second is dropped.
package fakepod

import (
	"encoding/json"
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
	trace   trace
	told    handshake
	dir     string
	started time.Time

	fs       sync.Mutex // held while the pod directory or the socket changes
	listener int        // the socket's descriptor, -1 before there is one
	bound    string     // its path

	mu      sync.Mutex
	state   string
	reacts  map[syscall.Signal][]Step // nil = it ignores the signal
	signals chan os.Signal            // all others that it handles

	habits habits // of serve
}

// act acts the steps out. A pod whose steps are over leaves everything.
func act(role role, told handshake, dir string, steps []Step, trace trace) error {
	p := &pod{role: role, trace: trace, told: told, dir: dir, started: time.Now(), listener: -1, state: "starting", reacts: map[syscall.Signal][]Step{}, signals: make(chan os.Signal, 16)}
	p.habits.answers, p.habits.links = map[string]string{}, map[*link]bool{}
	signal.Notify(p.signals, syscall.SIGINT)
	go func() {
		for sig := range p.signals {
			go p.react(sig.(syscall.Signal))
		}
	}()
	if err := p.keep(); err != nil {
		return err
	}
	if err := p.begin(steps); err != nil {
		return err
	}
	return p.run(steps, true)
}

// react does what the steps have said of a signal: a pod stops on SIGINT.
func (p *pod) react(sig syscall.Signal) {
	p.mu.Lock()
	steps, told := p.reacts[sig]
	p.mu.Unlock()
	if !told {
		steps = []Step{{Verb: "stop"}}
	}
	if err := p.run(steps, false); err != nil {
		exit(fail(err))
	}
}

func (p *pod) path(name string) string { return p.dir + "/" + name }

// keep makes the pod directory and writes what a pod keeps in it. Like writeStatus, it
// leaves a child's pod alone.
func (p *pod) keep() error {
	if p.role.child {
		return nil
	}
	p.fs.Lock()
	err := os.MkdirAll(p.dir, 0o700)
	p.fs.Unlock()
	if err != nil {
		return err
	}
	if err := p.replace("pid", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	return p.writeStatus()
}

func (p *pod) writeStatus() error {
	if p.role.child {
		return nil
	}
	status, err := json.Marshal(p.status())
	if err != nil {
		return err
	}
	return p.replace("status.json", string(status))
}

// replace writes a line into a file of the pod directory, atomically.
func (p *pod) replace(name, line string) error {
	p.fs.Lock()
	defer p.fs.Unlock()
	if err := os.WriteFile(p.path(name)+".tmp", []byte(line+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(p.path(name)+".tmp", p.path(name))
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
