package evidence

import (
	"encoding/json"
	"io"
	"slices"
	"strings"

	"example.com/podharness/fakepod/replay"
)

// answersOf returns how a pod has answered the requests of its tests, as its conversations show it.
func (r *Record) answersOf(a *Attempt) []replay.Answer {
	i := slices.IndexFunc(r.Lives, func(talk *Attempt) bool { return talk.Name == a.Name+talkFile })
	if i < 0 {
		return nil
	}
	return answersIn(SectionOf(r.Lives[i].file))
}

// answersIn returns the answers that a log of conversations has: of a method whose requests were
// all answered by one line, and by the same one. Nothing else can be told from what the pod sends
// for another reason, or depends on more than the method.
func answersIn(log *io.SectionReader) []replay.Answer {
	var methods []string            // in the order of their first answers
	answers := map[string]string{}  // by method; "" = there is none, or more than one
	asked := map[string]*exchange{} // the last request of each connection
	end := func(connection string) {
		e := asked[connection]
		if delete(asked, connection); e == nil || e.method == "" || e.lines == 0 {
			return
		}
		known, again := answers[e.method]
		if !again {
			methods = append(methods, e.method)
			known = e.answer
		}
		if e.lines > 1 || e.answer != known {
			known = ""
		}
		answers[e.method] = known
	}
	eachLine(log, func(text []byte, _ bool) {
		words := strings.SplitN(string(text), " ", 3)
		if len(words) < 3 || !strings.HasPrefix(words[0], "#") {
			return
		}
		switch connection, line := words[0], words[2]; words[1] {
		case ">":
			end(connection)
			asked[connection] = &exchange{method: methodOf(line)}
		case "<":
			if e := asked[connection]; e != nil {
				e.lines, e.answer = e.lines+1, line
			}
		default: // it is closed
			end(connection)
		}
	})
	for connection := range asked {
		end(connection)
	}
	var all []replay.Answer
	for _, method := range methods {
		if json.Valid([]byte(answers[method])) { // else it was cut, or is no JSON
			all = append(all, replay.Answer{Method: method, Line: answers[method]})
		}
	}
	return all
}

// An exchange is a request, and what has come since.
type exchange struct {
	method string // "" = it is none that a fake pod takes
	lines  int
	answer string // the last one
}

// methodOf returns the method of a request; "" = it has none, or one that stops a fake pod.
func methodOf(line string) string {
	var request struct {
		Method string `json:"method"`
	}
	if json.Unmarshal([]byte(line), &request) != nil || request.Method == "shutdown" || len(request.Method) > 200 {
		return ""
	}
	return request.Method
}
