package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/internal/lines"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
)

// A Talk is a connection to a pod's socket, on which both speak lines of JSON. Each
// of its methods waits for at most the timeout of [Pod.Talk], and fails the test
// with what has come of an unfinished line. Lines are without their line ending, and
// of the pod's at most 16 MiB long. They must not be called by several goroutines at
// once; those that fail the test must be called from its goroutine.
type Talk struct {
	pod     *Pod
	conn    net.Conn
	timeout time.Duration

	in      *lines.Reader
	out     []byte
	greeted bool // the snapshot was read

	deadline time.Time // of this call; zero = it has not waited yet
	within   time.Duration
	note     string // why that is less than the timeout
}

// Talk connects to the pod's socket. It is closed at the end of the test at the
// latest. It fails the test if the pod cannot be connected to.
func (p *Pod) Talk(timeout time.Duration) *Talk {
	p.tb.Helper()
	t, err := p.TryTalk(timeout)
	if err != nil {
		p.check(p.failed("", err))
		return nil
	}
	return t
}

// TryTalk is Talk with an error in place of a failed test. It may be called from any
// goroutine.
func (p *Pod) TryTalk(timeout time.Duration) (*Talk, error) {
	t, err := p.talk(timeout)
	if err == nil {
		p.tb.Cleanup(t.Close)
	}
	return t, err
}

// Send connects to the pod's socket, sends a line, and returns the pod's answer: the
// line that follows the snapshot. It fails the test if there is none within timeout.
func (p *Pod) Send(line string, timeout time.Duration) string {
	p.tb.Helper()
	answer, err := p.TrySend(line, timeout)
	if err != nil {
		p.check(p.failed("", err))
	}
	return answer
}

// TrySend is Send with an error in place of a failed test. It may be called from any
// goroutine.
func (p *Pod) TrySend(line string, timeout time.Duration) (string, error) {
	t, err := p.talk(timeout)
	if err != nil {
		return "", err
	}
	defer t.Close()
	return t.send(line) // within the time of the connection
}

func (p *Pod) talk(timeout time.Duration) (*Talk, error) {
	t := &Talk{pod: p, timeout: timeout}
	if err := t.dial(); err != nil {
		return nil, err
	}
	t.in = lines.New((*talkReader)(t))
	return t, t.conn.SetDeadline(t.deadline)
}

func (t *Talk) dial() (err error) {
	t.wait()
	ctx, cancel := context.WithDeadline(context.Background(), t.deadline)
	defer cancel()
	if t.conn, err = spawn.Dial(ctx, t.pod.SocketPath); err != nil {
		return fmt.Errorf("could not connect to pod %s at %s: %w", t.pod.name(), podlog.Printable(t.pod.SocketPath), t.explain(err))
	}
	t.pod.attempt.Note(evidence.Connected)
	return nil
}

// Close closes the connection.
func (t *Talk) Close() { _ = t.conn.Close() }

// Snapshot returns the first line that the pod has sent, but for alerts: a JSON object with
// "event":"snapshot". It must be called before Send and Receive, which else pass over it.
func (t *Talk) Snapshot() string {
	line, err := t.TrySnapshot()
	if err != nil {
		t.pod.tb.Helper() // not each time: it takes a while
		t.fail(err)
	}
	return line
}

// Send sends a line and returns the one that the pod sends next.
func (t *Talk) Send(line string) string {
	answer, err := t.TrySend(line)
	if err != nil {
		t.pod.tb.Helper()
		t.fail(err)
	}
	return answer
}

// Receive returns the next line of the pod, such as an event.
func (t *Talk) Receive() string {
	line, err := t.TryReceive()
	if err != nil {
		t.pod.tb.Helper()
		t.fail(err)
	}
	return line
}

func (t *Talk) fail(err error) {
	t.pod.tb.Helper()
	t.pod.check(t.pod.failed("", err))
}

// TrySnapshot is Snapshot with an error in place of a failed test.
func (t *Talk) TrySnapshot() (string, error) {
	t.deadline = time.Time{}
	return t.snapshot()
}

// TrySend is Send with an error in place of a failed test.
func (t *Talk) TrySend(line string) (string, error) {
	t.deadline = time.Time{}
	return t.send(line)
}

// TryReceive is Receive with an error in place of a failed test.
func (t *Talk) TryReceive() (string, error) {
	t.deadline = time.Time{}
	if err := t.greet(); err != nil {
		return "", err
	}
	line, err := t.in.Line(t.explain)
	if err != nil {
		return "", fmt.Errorf("pod %s sent no line: %w", t.pod.name(), err)
	}
	return line, nil
}

// greet passes over the snapshot.
func (t *Talk) greet() error {
	if t.greeted {
		return nil
	}
	_, err := t.snapshot()
	return err
}

func (t *Talk) snapshot() (string, error) {
	if t.greeted {
		return "", fmt.Errorf("the snapshot of pod %s was read before", t.pod.name())
	}
	for {
		line, err := t.in.Line(t.explain)
		if err != nil {
			return "", fmt.Errorf("pod %s sent no snapshot line: %w", t.pod.name(), err)
		}
		switch event := lines.Event(line); event {
		case "snapshot":
			t.greeted = true
			return line, nil
		case "alert": // real pods may send some before the snapshot
		default:
			return "", fmt.Errorf("pod %s sent no snapshot line, which is a JSON object with \"event\":\"snapshot\", but %.200q", t.pod.name(), line)
		}
	}
}

func (t *Talk) send(line string) (string, error) {
	if strings.Contains(line, "\n") {
		return "", fmt.Errorf("a line for pod %s has a newline in it: %.200q", t.pod.name(), line)
	}
	if err := t.greet(); err != nil {
		return "", err
	}
	t.wait()
	t.out = append(append(t.out[:0], line...), '\n')
	if _, err := t.conn.Write(t.out); err != nil {
		return "", fmt.Errorf("could not send to pod %s: %w", t.pod.name(), t.explain(err))
	}
	answer, err := t.in.Line(t.explain)
	if err != nil {
		return "", fmt.Errorf("pod %s gave no answer to %s: %w", t.pod.name(), podlog.Printable(fmt.Sprintf("%.200s", line)), err)
	}
	return answer, nil
}

// talkReader reads for the buffer: only then a call waits, and has its deadline set.
type talkReader Talk

func (r *talkReader) Read(p []byte) (int, error) {
	(*Talk)(r).wait()
	return r.conn.Read(p)
}

// wait sets the deadline of a call, before the first thing that it waits for.
func (t *Talk) wait() {
	if !t.deadline.IsZero() {
		return
	}
	t.within, t.note = beforeDeadline(t.pod.tb, "timeout", t.timeout)
	t.deadline = time.Now().Add(t.within)
	if t.conn != nil {
		_ = t.conn.SetDeadline(t.deadline)
	}
}

var errClosed = errors.New("it has closed the connection")

// explain says in words what ended a wait.
func (t *Talk) explain(err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN): // of the connection
		return cut(fmt.Errorf("its backlog is full, and it accepted nothing within %v", t.within), t.note)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return cut(fmt.Errorf("nothing within %v", t.within), t.note)
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE):
		return errClosed
	}
	return evidence.PrintableError(err) // it may have the path of the socket
}
