package fakepod

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxRequest is how long a request line may be with its newline, in bytes.
const maxRequest = 1 << 20

type event struct {
	Event string `json:"event"`
	Data  any    `json:"data,omitempty"`
}

// method is what a client may ask for.
type method struct {
	name, event string
	doc         string // the answer
	act         func(p *pod, params json.RawMessage) (data any, err error)
}

func (m method) row() string { return m.name + "\t" + m.doc }

// methods returns all methods; a function for the reason that verbs is one.
func methods() []method {
	return []method{
		{"ping", "pong", `{"event":"pong","data":<params>}`, (*pod).back},
		{"echo", "echo", `{"event":"echo","data":<params>}`, (*pod).back},
		{"status", "status", `{"event":"status","data":<as in the snapshot>}`, func(p *pod, _ json.RawMessage) (any, error) { return p.status(), nil }},
		{"env", "env", `{"event":"env","data":{"NAME":"value",…}}: its environment`, (*pod).environment},
		{"fds", "fds", `{"event":"fds","data":{"0":"/dev/null",…}}: what it inherited (Linux)`, func(*pod, json.RawMessage) (any, error) { return inherited() }},
		{"run", "done", `{"event":"done"} once params {"program":"…"} was acted out`, (*pod).runProgram},
		// The stop comes after the answer was sent: see answer.
		{"shutdown", "shutdown", `{"event":"shutdown"}, then a graceful stop`, func(*pod, json.RawMessage) (any, error) { return nil, nil }},
	}
}

// back returns params as data: none for none.
func (p *pod) back(params json.RawMessage) (any, error) {
	if params == nil {
		return nil, nil
	}
	return params, nil
}

func (p *pod) environment(json.RawMessage) (any, error) {
	env := map[string]string{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env, nil
}

func (p *pod) runProgram(params json.RawMessage) (any, error) {
	var run struct{ Program string }
	if err := json.Unmarshal(params, &run); err != nil {
		return nil, fmt.Errorf(`params want {"program":"…"}: %w`, err)
	}
	steps, err := Parse(run.Program)
	if err == nil {
		err = p.run(steps, nil)
	}
	return nil, err
}

// habits are how a pod treats its clients, as its steps have it.
type habits struct {
	mu       sync.Mutex // also held while something is sent
	answers  map[string]string
	greeting string // after the snapshot
	stall    time.Duration
	closes   bool
	resets   bool
	held     map[net.Conn]bool
}

func (p *pod) answerWith(args []string) error {
	p.habits.mu.Lock()
	defer p.habits.mu.Unlock()
	if p.habits.answers == nil {
		p.habits.answers = map[string]string{}
	}
	p.habits.answers[args[0]] = args[1]
	return nil
}

func (p *pod) event(args []string) error { return p.garbage([]string{args[0] + "\n"}) }

// garbage sends what a client that is gone does not get: that is no error.
func (p *pod) garbage(args []string) error {
	h := &p.habits
	h.mu.Lock()
	defer h.mu.Unlock()
	h.greeting += args[0]
	for conn := range h.held {
		_ = h.write(conn, args[0])
	}
	return nil
}

func (p *pod) stall(args []string) error {
	p.habits.mu.Lock()
	defer p.habits.mu.Unlock()
	p.habits.stall, _ = time.ParseDuration(args[0])
	return nil
}

func (p *pod) closeAll([]string) error {
	p.habits.mu.Lock()
	defer p.habits.mu.Unlock()
	p.habits.closes = true
	for conn := range p.habits.held {
		conn.Close()
	}
	return nil
}

func (p *pod) reset([]string) error {
	p.habits.mu.Lock()
	defer p.habits.mu.Unlock()
	p.habits.resets = true
	return nil
}

// write sends text, in two halves where the pod stalls.
func (h *habits) write(conn net.Conn, text string) error {
	half := 0
	if h.stall > 0 {
		half = len(text) / 2
		if _, err := io.WriteString(conn, text[:half]); err != nil {
			return err
		}
		<-time.After(h.stall)
	}
	_, err := io.WriteString(conn, text[half:])
	return err
}

func (h *habits) send(conn net.Conn, e any) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.write(conn, string(text)+"\n")
}

func (p *pod) serve([]string) error {
	p.fs.Lock()
	fd := p.listener
	p.fs.Unlock()
	if fd < 0 {
		return errNoSocket
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

// serveBeside serves while the steps that follow are acted out.
func (p *pod) serveBeside([]string) error {
	if p.listener < 0 {
		return errNoSocket
	}
	go func() { exit(fail(p.serve(nil))) }()
	return nil
}

// greet begins a connection, and reports whether it goes on.
func (p *pod) greet(conn net.Conn) bool {
	h := &p.habits
	snapshot, err := json.Marshal(event{"snapshot", p.status()})
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || h.write(conn, string(snapshot)+"\n") != nil || h.write(conn, h.greeting) != nil || h.closes {
		return false
	}
	if h.held == nil {
		h.held = map[net.Conn]bool{}
	}
	h.held[conn] = true
	return true
}

// answer speaks JSON lines with one client.
func (p *pod) answer(conn net.Conn) {
	h := &p.habits
	defer func() {
		h.mu.Lock()
		delete(h.held, conn)
		h.mu.Unlock()
		conn.Close()
	}()
	if !p.greet(conn) || p.isReset(conn) {
		return
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxRequest)
	for lines.Scan() {
		reply, stops, err := p.reply(lines.Bytes())
		if err != nil {
			reply = problem(err)
		}
		if h.send(conn, reply) != nil {
			return
		}
		if stops {
			_ = p.stop(nil)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		_ = h.send(conn, problem(fmt.Errorf("a request line is longer than %d bytes", maxRequest)))
	}
}

// isReset reports whether a connection is to be reset, once there is a request: one
// that is closed with something unread is reset by the system.
func (p *pod) isReset(conn net.Conn) bool {
	p.habits.mu.Lock()
	resets := p.habits.resets
	p.habits.mu.Unlock()
	if raw, err := conn.(*net.UnixConn).SyscallConn(); resets && err == nil {
		_ = raw.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
			return !errors.Is(err, unix.EAGAIN)
		})
	}
	return resets
}

func problem(err error) event { return event{"error", map[string]string{"message": err.Error()}} }

// reply answers a request; the pod stops after some.
func (p *pod) reply(line []byte) (reply any, stops bool, err error) {
	var request struct {
		Method string
		Params json.RawMessage
	}
	if err := json.Unmarshal(line, &request); err != nil {
		return nil, false, fmt.Errorf(`a request is a line {"method":"…","params":…}: %w`, err)
	}
	p.habits.mu.Lock()
	scripted, ok := p.habits.answers[request.Method]
	p.habits.mu.Unlock()
	if ok {
		return json.RawMessage(scripted), false, nil
	}
	for _, m := range methods() {
		if m.name == request.Method {
			data, err := m.act(p, request.Params)
			return event{m.event, data}, m.name == "shutdown" && err == nil, err
		}
	}
	return nil, false, fmt.Errorf("unknown method %q, want one of %s", request.Method, names(methods()))
}
