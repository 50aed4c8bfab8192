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
	name string
	doc  string // its answer
	act  func(p *pod, params json.RawMessage) (event, error)
}

func (m method) row() string { return m.name + "\t" + m.doc }

// methods returns all methods; a function for the reason that verbs is one.
func methods() []method {
	return []method{
		{"ping", `{"event":"pong","data":<params>}`, func(_ *pod, params json.RawMessage) (event, error) { return event{"pong", back(params)}, nil }},
		{"echo", `{"event":"echo","data":<params>}`, func(_ *pod, params json.RawMessage) (event, error) { return event{"echo", back(params)}, nil }},
		{"status", `{"event":"status","data":<as in the snapshot>}`, func(p *pod, _ json.RawMessage) (event, error) { return event{"status", p.status()}, nil }},
		{"env", `{"event":"env","data":{"NAME":"value",…}}: its environment`, (*pod).environment},
		{"fds", `{"event":"fds","data":{"0":"/dev/null",…}}: what it inherited (Linux)`, (*pod).descriptors},
		{"run", `{"event":"done"} once params {"program":"…"} was acted out`, (*pod).runProgram},
		// The stop comes after the answer was sent: see answer.
		{"shutdown", `{"event":"shutdown"}, then a graceful stop`, func(*pod, json.RawMessage) (event, error) { return event{Event: "shutdown"}, nil }},
	}
}

// back returns params as data: none for none.
func back(params json.RawMessage) any {
	if params == nil {
		return nil
	}
	return params
}

func (p *pod) environment(json.RawMessage) (event, error) {
	env := map[string]string{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return event{"env", env}, nil
}

func (p *pod) descriptors(json.RawMessage) (event, error) {
	fds, err := inherited()
	return event{"fds", fds}, err
}

func (p *pod) runProgram(params json.RawMessage) (event, error) {
	var run struct{ Program string }
	if err := json.Unmarshal(params, &run); err != nil {
		return event{}, fmt.Errorf(`params want {"program":"…"}: %w`, err)
	}
	steps, err := parse(run.Program)
	if err != nil {
		return event{}, err
	}
	return event{Event: "done"}, p.run(steps)
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
			return m.act(p, request.Params)
		}
	}
	return event{}, fmt.Errorf("unknown method %q, want one of %s", request.Method, names(methods()))
}
