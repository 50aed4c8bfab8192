package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
)

// What a connection, or a wait for a line of a conversation or of a log, has ended with in vain.
// errors.Is tells them apart.
var (
	// ErrTimedOut: the time was over.
	ErrTimedOut = errors.New("timed out")
	// ErrNoMatch: the timeout was 0, and of what is there no line matches.
	ErrNoMatch = errors.New("no match")
	// ErrEnded: the pod has closed the connection, or has ended: it logs nothing more, and nobody
	// can connect to it.
	ErrEnded = errors.New("ended")
	// ErrClosed: the test has closed the connection, or is over.
	ErrClosed = errors.New("closed")
	// ErrBadPattern: the pattern is no regular expression.
	ErrBadPattern = errors.New("bad pattern")
)

// kind is an error that is one of those, beside what it says.
type kind struct {
	error
	is error
}

func (k kind) Is(target error) bool { return target == k.is }

func (k kind) Unwrap() error { return k.error }

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
	// Reason is why the pod has crashed, of a pod that has ended by itself, as its log says:
	// see spawn.Error. "" = the log does not say it.
	Reason string
	// Err is what has happened.
	Err error

	note    string // how the wait was cut
	saysEnd bool   // Err says how the process has ended
	noted   bool   // the report has it
	shown   string // the last lines, as the message ends with them
}

// Error says what has happened, whether the process lives, and where its log is; its last
// lines follow. All of it can be shown on a terminal.
func (e *Error) Error() string {
	text := e.Err.Error() + e.note
	if e.PID != 0 && !e.saysEnd {
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
		text += "\n\tlog: " + podlog.Printable(e.Log)
	}
	return text + e.shown
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// cut returns an error of a wait that ends with the note of beforeDeadline.
func cut(err error, note string) error {
	if note == "" {
		return err
	}
	return &Error{Err: err, Cut: true, note: note}
}

// dyingGrace is how long a pod may take to end that has closed a connection, and that was
// killed: it does not "still run".
const dyingGrace = 200 * time.Millisecond

// failed returns an error about the pod, as it is now.
func (p *Pod) failed(note string, err error) *Error {
	if p.dying.Load() || errors.Is(err, ErrEnded) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		p.endsWithin(dyingGrace)
	}
	e := &Error{Pod: p.Name, PID: p.PID, Log: p.LogPath, Err: err, Cut: note != "" || isCut(err), note: note}
	e.Ended, _ = p.Ended()
	if p.logReplaced() {
		e.note += "\n\tnote: " + podlog.ReplacedTrouble
	}
	e.shown = p.lastStrikes() + "\n\tlast lines:" + p.log.Tail()
	return e
}

// lastStrikes returns which calls faults have struck last: another test may have asked for them.
func (p *Pod) lastStrikes() (text string) {
	if p.Faults == nil {
		return ""
	}
	strikes := slices.DeleteFunc(p.Faults.Strikes(), func(s fault.Strike) bool { return s.Result == "" })
	const most = 3
	first := max(0, len(strikes)-most)
	for _, strike := range strikes[first:] {
		text += "\n\tfault: " + podlog.Printable(strike.String())
	}
	if first > 0 {
		text += fmt.Sprintf("\n\tfault: %d calls before", first)
	}
	return text
}

// logReplaced reports whether another file is in the place of the log.
func (p *Pod) logReplaced() bool {
	log := p.log.File()
	if log == nil || p.box.evidence.ByLog(p.LogPath) != p.attempt { // else it is that of its next life
		return false
	}
	newer := podlog.Newer(log)
	if newer != nil {
		newer.Close()
	}
	return newer != nil
}

// failed returns an error about the client, as it is now.
func (c *Client) failed(note string, err error) *Error {
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

// fails returns an error that fails the test, as a message. If it names the log of an attempt,
// it names the one in the evidence from now on, which outlives the test.
func fails(a *evidence.Attempt, err error) error {
	var e *Error
	if errors.As(err, &e) && e.noted {
		return printable(err)
	}
	var start *spawn.Error
	if errors.As(err, &start) {
		start.Block = true
		defer func() { start.Block = false }() // it is the test's, too
	}
	failure := err.Error()
	if log := logOf(err); *log != "" && *log == a.Captured.Path() {
		kept := a.Keep()
		*log = a.FileName()
		failure = err.Error()
		*log = kept
	}
	if e != nil {
		e.noted = true
	}
	a.Fail(failure)
	return evidence.Reworded(podlog.PrintableLines(err.Error())+a.TellGoroutines(), err)
}

// failsBy is fails for the latest attempt of the test whose log an error names, if any.
func (b *oneTest) failsBy(err error) error {
	if a := b.evidence.ByLog(*logOf(err)); a != nil {
		return fails(a, err)
	}
	return printable(err)
}

// failsIn is failsBy for a test that may have no sandbox.
func failsIn(tb TB, err error) error {
	if box, boxErr := sandboxOf(tb); boxErr == nil {
		return box.failsBy(err)
	}
	return printable(err)
}

// fatal fails a test that a function of this package was called from, and ends it.
func fatal(tb TB, err error) {
	tb.Helper()
	tb.Fatalf("harness: %v", failsIn(tb, err))
}

func printable(err error) error { return evidence.Reworded(podlog.PrintableLines(err.Error()), err) }

// logOf returns where an error names a log.
func logOf(err error) *string {
	var e *Error
	var start *spawn.Error
	switch {
	case errors.As(err, &start):
		return &start.LogPath
	case errors.As(err, &e):
		return &e.Log
	}
	return new(string)
}

// name is the pod's name in messages.
func (p *Pod) name() string { return podlog.Printable(p.Name) }

// name is the client's program in messages.
func (c *Client) name() string { return podlog.Printable(c.cfg.Program) }
