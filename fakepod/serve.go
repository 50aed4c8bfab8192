package fakepod

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
	"strings"
)

// maxRequest is how long a request line may be, in bytes.
const maxRequest = 1 << 20

type request struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

type event struct {
	Event string `json:"event"`
	Data  any    `json:"data,omitempty"`
}

var methods = map[string]func(p *pod, params json.RawMessage) (event, error){
	"ping":   func(_ *pod, params json.RawMessage) (event, error) { return event{"pong", back(params)}, nil },
	"echo":   func(_ *pod, params json.RawMessage) (event, error) { return event{"echo", back(params)}, nil },
	"status": func(p *pod, _ json.RawMessage) (event, error) { return event{"status", p.status()}, nil },
	"env": func(*pod, json.RawMessage) (event, error) {
		env := map[string]string{}
		for _, entry := range os.Environ() {
			name, value, _ := strings.Cut(entry, "=")
			env[name] = value
		}
		return event{"env", env}, nil
	},
	"fds": func(*pod, json.RawMessage) (event, error) {
		fds, err := inherited()
		return event{"fds", fds}, err
	},
	"run": func(p *pod, params json.RawMessage) (event, error) {
		var run struct{ Program string }
		if err := json.Unmarshal(params, &run); err != nil {
			return event{}, fmt.Errorf(`params want {"program":"…"}: %w`, err)
		}
		steps, err := parse(run.Program)
		if err != nil {
			return event{}, err
		}
		return event{Event: "done"}, p.run(steps)
	},
	// The stop comes after the answer was sent: see answer.
	"shutdown": func(*pod, json.RawMessage) (event, error) { return event{Event: "shutdown"}, nil },
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
		var r request
		reply, err := event{}, json.Unmarshal(lines.Bytes(), &r)
		if err == nil {
			if method, ok := methods[r.Method]; ok {
				reply, err = method(p, r.Params)
			} else {
				err = fmt.Errorf("unknown method %q, want one of %s", r.Method, methodNames())
			}
		}
		if err != nil {
			reply = problem(err)
		}
		if out.Encode(reply) != nil {
			return
		}
		if reply.Event == "shutdown" {
			p.stop()
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		_ = out.Encode(problem(fmt.Errorf("a request line is longer than %d bytes", maxRequest)))
	}
}

// back returns params as data: none for none.
func back(params json.RawMessage) any {
	if params == nil {
		return nil
	}
	return params
}

func problem(err error) event {
	return event{"error", map[string]string{"message": err.Error()}}
}

func methodNames() string {
	var names []string
	for name := range methods {
		names = append(names, name)
	}
	sort.Strings(names)
	return strings.Join(names, ", ")
}
