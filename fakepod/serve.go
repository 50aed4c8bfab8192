package fakepod

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
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
	steps, err := parse(run.Program)
	if err == nil {
		err = p.run(steps)
	}
	return nil, err
}

// answer speaks JSON lines with one client.
func (p *pod) answer(conn net.Conn) {
	defer conn.Close()
	out := json.NewEncoder(conn)
	if out.Encode(event{"snapshot", p.status()}) != nil {
		return
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxRequest)
	for lines.Scan() {
		reply, err := p.reply(lines.Bytes())
		if err != nil {
			reply = problem(err)
		}
		if out.Encode(reply) != nil {
			return
		}
		if reply.Event == "shutdown" {
			_ = p.stop(nil)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		_ = out.Encode(problem(fmt.Errorf("a request line is longer than %d bytes", maxRequest)))
	}
}

func problem(err error) event { return event{"error", map[string]string{"message": err.Error()}} }

func (p *pod) reply(line []byte) (event, error) {
	var request struct {
		Method string
		Params json.RawMessage
	}
	if err := json.Unmarshal(line, &request); err != nil {
		return event{}, fmt.Errorf(`a request is a line {"method":"…","params":…}: %w`, err)
	}
	for _, m := range methods() {
		if m.name == request.Method {
			data, err := m.act(p, request.Params)
			return event{m.event, data}, err
		}
	}
	return event{}, fmt.Errorf("unknown method %q, want one of %s", request.Method, names(methods()))
}
