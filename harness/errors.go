package harness

import (
	"errors"
	"fmt"
	"strings"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
)

// An Error is something that a pod or a client has not done as the test wants it: an answer
// that did not come, a stop in vain, an end of its own. A start that fails is a
// [*spawn.Error]; if the test's deadline has cut its wait, an Error with Cut wraps that.
type Error struct {
	// Pod is the pod's name; "" = the error is about a client.
	Pod string
	// PID is the number of the process; 0 = it is not known.
	PID int
	// Ended tells how the process had ended; "" = it still ran.
	Ended string
	// Log is the path of the pod's log; "" = the error does not show it. A failed test
	// names the copy in its evidence instead.
	Log string
	// Cut tells that the wait was cut short to end before the test's deadline (go test
	// -timeout), so that the error says little about the pod.
	Cut bool
	// Err is what has happened.
	Err error

	note  string // how the wait was cut
	shown string // the last lines, as the message ends with them
}

// Error says what has happened, whether the process lives, and where its log is; its last
// lines follow. All of it can be shown on a terminal.
func (e *Error) Error() string { return e.text(same) }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// text is the message, with logs named as rename has it.
func (e *Error) text(rename func(log string) string) string {
	text := textOf(e.Err, rename) + e.note
	if e.PID != 0 {
		life := fmt.Sprintf("it still runs (process %d)", e.PID)
		if e.Ended != "" {
			life = fmt.Sprintf("it has ended (%s)", e.Ended)
		}
		who := "client"
		if e.Pod != "" {
			who = "pod"
		}
		text += "\n\t" + who + ": " + life
	}
	if e.Log != "" {
		text += "\n\tlog: " + podlog.Printable(rename(e.Log))
	}
	return text + e.shown
}

func same(log string) string { return log }

// textOf is the message of an error, with the logs of pods named as rename has it.
func textOf(err error, rename func(log string) string) string {
	switch e := err.(type) {
	case *Error:
		return e.text(rename)
	case *spawn.Error:
		named := *e
		if e.LogPath != "" {
			named.LogPath = rename(e.LogPath)
		}
		return named.Error()
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return strings.Replace(err.Error(), inner.Error(), textOf(inner, rename), 1)
		}
	case interface{ Unwrap() []error }:
		text := err.Error()
		for _, inner := range e.Unwrap() {
			text = strings.Replace(text, inner.Error(), textOf(inner, rename), 1)
		}
		return text
	}
	return err.Error()
}

// brief is what has happened, in one line.
func brief(err error) string {
	var e *Error
	var start *spawn.Error
	switch {
	case errors.As(err, &e):
		return brief(e.Err)
	case errors.As(err, &start):
		return (&spawn.Error{Err: start.Err, Tail: start.Tail, Unfinished: start.Unfinished}).Error()
	}
	return err.Error()
}

// logOf returns the path of the log that an error shows; "" = none.
func logOf(err error) string {
	var e *Error
	var start *spawn.Error
	switch {
	case errors.As(err, &e) && e.Log != "":
		return e.Log
	case errors.As(err, &start):
		return start.LogPath
	}
	return ""
}

// cut returns an error of a wait that ends with the note of beforeDeadline.
func cut(err error, note string) error {
	if note == "" {
		return err
	}
	return &Error{Err: err, Cut: true, note: note}
}

// failed returns an error about the pod, as it is now.
func (p *Pod) failed(note string, err error) error {
	e := &Error{Pod: p.Name, PID: p.PID, Log: p.LogPath, Err: err, Cut: note != "" || isCut(err), note: note, shown: "\n\tlast lines:" + p.log.Tail()}
	e.Ended, _ = p.Ended()
	return e
}

// failed returns an error about the client, as it is now.
func (c *Client) failed(note string, err error) error {
	e := &Error{PID: c.PID, Err: err, Cut: note != "" || isCut(err), note: note, shown: "\n\tstdout:" + c.stdout.Tail()}
	if state := c.State(); state != nil {
		e.Ended = state.String()
	}
	if c.stderr != nil {
		e.shown += "\n\tstderr:" + c.stderr.Tail()
	}
	return e
}

func isCut(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Cut
}

// told returns an error as a failed test tells it: the log that it names is the one in the
// evidence.
func told(a *evidence.Attempt, err error) error {
	log, kept := a.Captured.Path(), false
	text := textOf(err, func(path string) string {
		if path != log || log == "" {
			return path
		}
		kept = true
		return a.Keep()
	})
	if kept {
		a.Fail(textOf(err, func(string) string { return a.FileName() }))
	} else {
		a.Fail(text)
	}
	return evidence.Reworded(podlog.PrintableLines(text), err)
}

// toldOf is told for the latest attempt of a test that an error is about.
func toldOf(tb TB, err error) error {
	if box, boxErr := sandboxOf(tb); boxErr == nil {
		if a := box.evidence.ByLog(logOf(err)); a != nil {
			return told(a, err)
		}
	}
	return evidence.Reworded(podlog.PrintableLines(err.Error()), err)
}

// Told returns the error with the message of a failed test, which names the log in the
// evidence. Told is for package scripts.
func Told(tb TB, err error) error { return toldOf(tb, err) }

// name is the pod's name in messages.
func (p *Pod) name() string { return podlog.Printable(p.Name) }

// name is the client's program in messages.
func (c *Client) name() string { return podlog.Printable(c.cfg.Program) }
