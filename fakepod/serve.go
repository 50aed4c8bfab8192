package fakepod

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxRequest is how long a request line may be with its newline, in bytes.
const maxRequest = 2 << 20

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
		err = p.run(steps, false)
	}
	return nil, err
}

// habits are how a pod treats its clients, as its steps have it. Nothing is sent while
// mu is held; it is locked before that of a link.
type habits struct {
	mu             sync.Mutex
	answers        map[string]string
	greeting       string // after the snapshot
	stall          time.Duration
	closes, resets bool
	links          map[*link]bool // those that were greeted
}

// link is a connection.
type link struct {
	*net.UnixConn
	mu    sync.Mutex // held while a line is sent
	trace trace
	noted Connection // by the one who reads
}

// Read notes what its client does.
func (l *link) Read(b []byte) (int, error) {
	n, err := l.UnixConn.Read(b)
	if l.noted.Bytes += int64(n); l.noted.Bytes > 0 && l.noted.Spoke == 0 {
		l.noted.Spoke = monotonic()
		l.trace.note(l.noted)
	}
	if err != nil {
		l.noted.Ended = monotonic()
		l.trace.note(l.noted)
	}
	return n, err
}

// habit looks at the habits, or changes them.
func (p *pod) habit(do func(h *habits)) {
	p.habits.mu.Lock()
	defer p.habits.mu.Unlock()
	do(&p.habits)
}

func (p *pod) answerWith(s Step) error {
	p.habit(func(h *habits) { h.answers[s.Args[0]] = s.Args[1] })
	return nil
}

// garbage sends what a client that is gone does not get: that is no error.
func (p *pod) garbage(s Step) error {
	p.toAll(func(h *habits) { h.greeting += s.Args[0] }, func(l *link, stall time.Duration) error { return l.write(s.Args[0], stall) })
	return nil
}

func (p *pod) closeAll(Step) error {
	p.toAll(func(h *habits) { h.closes = true }, func(l *link, _ time.Duration) error { return l.Close() })
	return nil
}

// held is how long a client that reads nothing may hold up what is sent to all.
const held = time.Second

// toAll changes the habits, and does something with all links side by side. It drops one
// that reads nothing.
func (p *pod) toAll(change func(h *habits), do func(l *link, stall time.Duration) error) {
	var all sync.WaitGroup
	defer all.Wait()
	p.habit(func(h *habits) {
		change(h)
		for l := range h.links {
			all.Add(1)
			go func(stall time.Duration) {
				defer all.Done()
				_ = l.SetWriteDeadline(time.Now().Add(held + 2*stall)) // of an answer that is on its way, too
				l.mu.Lock()
				defer l.mu.Unlock()
				if do(l, stall) != nil {
					l.Close()
				}
				_ = l.SetWriteDeadline(time.Time{})
			}(h.stall)
		}
	})
}

// write sends text, in two halves where the pod stalls. The link is locked.
func (l *link) write(text string, stall time.Duration) error {
	half := 0
	if stall > 0 {
		half = len(text) / 2
		if _, err := io.WriteString(l, text[:half]); err != nil {
			return err
		}
		<-time.After(stall)
	}
	_, err := io.WriteString(l, text[half:])
	return err
}

// send sends an answer, which its client need not read: the lines that it has sent still count.
func (p *pod) send(l *link, e any) {
	var stall time.Duration
	p.habit(func(h *habits) { stall = h.stall })
	text, _ := json.Marshal(e) // what is in it was JSON, or is text
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.write(string(text)+"\n", stall)
}

// serve goes on when a connection cannot be accepted, as without a descriptor left.
func (p *pod) serve(Step) error {
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
	for n := 1; ; {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, unix.EINVAL): // nobody listens
			return err
		case err != nil:
			<-time.After(10 * time.Millisecond)
		default:
			l := &link{UnixConn: conn.(*net.UnixConn), trace: p.trace, noted: Connection{Number: n, Accepted: monotonic()}}
			l.trace.note(l.noted)
			go p.answer(l)
			n++
		}
	}
}

// serveBeside serves while the steps that follow are acted out.
func (p *pod) serveBeside(Step) error {
	if p.listener < 0 {
		return errNoSocket
	}
	go func() { exit(fail(p.serve(Step{}))) }()
	return nil
}

// greet sends what comes first, and reports whether the pod listens to the client.
func (p *pod) greet(l *link) bool {
	snapshot, _ := json.Marshal(event{"snapshot", p.status()}) // of texts
	var now habits
	p.habit(func(h *habits) {
		now.greeting, now.stall, now.closes, now.resets = h.greeting, h.stall, h.closes, h.resets
		if l.mu.Lock(); !h.closes { // what is sent to all from now on comes after the greeting
			h.links[l] = true
		}
	})
	_ = l.write(string(snapshot)+"\n", now.stall)
	_ = l.write(now.greeting, now.stall)
	l.mu.Unlock()
	return !now.closes && !(now.resets && l.asks())
}

// asks waits for a request: a connection that is closed with something unread is reset
// by the system.
func (l *link) asks() bool {
	raw, err := l.SyscallConn()
	return err != nil || raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	}) == nil
}

// answer speaks JSON lines with one client.
func (p *pod) answer(l *link) {
	defer func() {
		p.habit(func(h *habits) { delete(h.links, l) })
		l.Close()
	}()
	if !p.greet(l) {
		return
	}
	lines := bufio.NewScanner(l)
	lines.Buffer(nil, maxRequest)
	lines.Split(func(data []byte, _ bool) (int, []byte, error) { // a line that is never finished is none
		line, _, whole := bytes.Cut(data, []byte("\n"))
		if !whole {
			return 0, nil, nil
		}
		return len(line) + 1, line, nil
	})
	for lines.Scan() {
		if len(bytes.TrimSuffix(lines.Bytes(), []byte("\r"))) == 0 {
			continue
		}
		reply, stops, err := p.reply(lines.Bytes())
		if err != nil {
			reply = problem(err)
		}
		p.send(l, reply)
		if stops {
			_ = p.stop(Step{})
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		p.send(l, problem(fmt.Errorf("a request line is longer than %d bytes", maxRequest)))
	}
}

func problem(err error) event { return event{"error", map[string]string{"message": err.Error()}} }

// reply answers a request; the pod stops after some.
func (p *pod) reply(line []byte) (reply any, stops bool, err error) {
	var request map[string]json.RawMessage
	var name string
	if err = json.Unmarshal(line, &request); err == nil && request["method"] != nil {
		err = json.Unmarshal(request["method"], &name)
	}
	if !utf8.Valid(line) {
		err = errors.New("it is not UTF-8")
	}
	if err != nil {
		return nil, false, fmt.Errorf(`a request is a line {"method":"…","params":…}: %w`, err)
	}
	scripted, ok := "", false
	p.habit(func(h *habits) { scripted, ok = h.answers[name] })
	if ok {
		return json.RawMessage(scripted), false, nil
	}
	for _, m := range methods() {
		if m.name == name {
			data, err := m.act(p, request["params"])
			return event{m.event, data}, m.name == "shutdown" && err == nil, err
		}
	}
	return nil, false, fmt.Errorf("unknown method %.100q, want one of %s", name, names(methods()))
}
