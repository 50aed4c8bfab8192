package harness

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/internal/lines"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
)

// A Talk is a connection to a pod's socket, on which both speak lines of JSON. What the pod
// sends is read as it comes, and kept: nothing is lost between calls. Each call goes on after
// the line that the last one has returned. Those without a timeout of their own wait for at most
// that of [Pod.Talk]. A call in vain fails the test with the lines that have come since, and with
// what has come of an unfinished one. The methods that begin with Try return an error in place of
// that, which errors.Is tells apart: [ErrTimedOut], [ErrNoMatch], [ErrEnded], [ErrClosed] and
// [ErrBadPattern].
//
// Lines are without their line ending, and of the pod's at most 16 MiB long, or as long as
// [Config].MaxLine says. A Talk keeps 64 MiB of them, or a line more. Then it drops the oldest of
// those that a call has seen; if no call has seen any, it stops reading until one has. A Talk must not be used by several goroutines at once; the methods
// that fail the test must be called from its goroutine.
type Talk struct {
	pod     *Pod
	conn    net.Conn
	timeout time.Duration

	in      *lines.Inbox
	note    func(direction, line string) // in the evidence
	out     []byte
	greeted bool // the snapshot was read
	next    int  // the number of the line after the last one that a call has returned

	// Of this call:
	limit    time.Duration // how long it may wait
	deadline time.Time     // zero = it has not waited yet
	within   time.Duration
	wasCut   string // why that is less than the limit
	awaited  string // "none" if others came than what it waits for
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

// Send connects to the pod's socket, sends a line, and returns the line that follows the
// snapshot. That is the pod's answer, unless the pod also sends what others cause, as it may
// where tests share it: see [Pod.SendFor]. It fails the test if there is none within timeout.
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

// SendFor connects to the pod's socket, sends a line, and returns the answer: the first line that
// comes then and that matches the regular expression pattern. It fails the test if there is none
// within timeout.
func (p *Pod) SendFor(line, pattern string, timeout time.Duration) string {
	p.tb.Helper()
	answer, err := p.TrySendFor(line, pattern, timeout)
	if err != nil {
		p.check(p.failed("", err))
	}
	return answer
}

// TrySendFor is SendFor with an error in place of a failed test. It may be called from any
// goroutine.
func (p *Pod) TrySendFor(line, pattern string, timeout time.Duration) (string, error) {
	is, err := matching(pattern)
	if err != nil {
		return "", err
	}
	t, err := p.talk(timeout)
	if err != nil {
		return "", err
	}
	defer t.Close()
	if err := t.greet(); err != nil {
		return "", err
	}
	t.next = t.in.End()
	if err := t.write(line); err != nil {
		return "", err
	}
	return t.find(fmt.Sprintf("answer to %s that matches %q", p.shown(line), pattern), is)
}

// matching returns what reports whether a line matches a pattern.
func matching(pattern string) (func(string) bool, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, kind{fmt.Errorf("bad pattern: %w", evidence.PrintableError(err)), ErrBadPattern}
	}
	return re.MatchString, nil
}

func (p *Pod) talk(timeout time.Duration) (*Talk, error) {
	t := &Talk{pod: p, timeout: timeout, limit: timeout}
	if err := t.dial(); err != nil {
		return nil, err
	}
	t.note = p.attempt.Connection(testName(p.tb))
	t.in = lines.NewInbox(t.conn, t.maxLine(), func(line string) { t.note("<", line) }, func(why error) { t.note("=", whyClosed(why).Error()) })
	return t, nil
}

func (t *Talk) maxLine() int { return cmp.Or(t.pod.cfg.MaxLine, lines.Most) }

func (t *Talk) dial() (err error) {
	t.limit = t.timeout
	t.wait()
	ctx, cancel := context.WithDeadline(context.Background(), t.deadline)
	defer cancel()
	if t.conn, err = spawn.Dial(ctx, t.pod.SocketPath); err != nil {
		if err = t.explain(err); (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)) && t.pod.endsWithin(dyingGrace) {
			err = kind{err, ErrEnded}
		}
		t.pod.waited(err)
		return fmt.Errorf("could not connect to pod %s at %s: %w", t.pod.name(), podlog.Printable(t.pod.SocketPath), err)
	}
	t.pod.attempt.Note(evidence.Connected)
	return nil
}

// Close closes the connection.
func (t *Talk) Close() { t.in.Close() }

// Snapshot returns the first line that the pod has sent, but for alerts: a JSON object with
// "event":"snapshot". It must be called before the methods that wait for a line, which else pass
// over it.
func (t *Talk) Snapshot() string {
	line, err := t.TrySnapshot()
	if err != nil {
		t.pod.tb.Helper() // not each time: it takes a while
		t.fail(err)
	}
	return line
}

// Send sends a line and returns the next one of the pod, be it an answer or not: see WaitLine.
func (t *Talk) Send(line string) string {
	answer, err := t.TrySend(line)
	if err != nil {
		t.pod.tb.Helper()
		t.fail(err)
	}
	return answer
}

// Write sends a line.
func (t *Talk) Write(line string) {
	if err := t.TryWrite(line); err != nil {
		t.pod.tb.Helper()
		t.fail(err)
	}
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

// WaitLine returns the next line of the pod that matches the regular expression pattern. The
// lines before it are passed over. Any line matches "", and one of several an alternation, such
// as "done|failed": what is returned tells which. If none comes within timeout, before the pod closes the
// connection, it fails the test, and the next call begins where this one did.
func (t *Talk) WaitLine(pattern string, timeout time.Duration) string {
	line, err := t.TryWaitLine(pattern, timeout)
	if err != nil {
		t.pod.tb.Helper()
		t.fail(err)
	}
	return line
}

// WaitJSON decodes the lines of a pod, and returns the next value for which match reports true.
// Lines that are no T in JSON are passed over; JSON without the fields of T is a T whose fields are
// zero, so match should look at a field that is not. For the rest it is [Talk.WaitLine].
func WaitJSON[T any](t *Talk, match func(T) bool, timeout time.Duration) T {
	value, err := TryWaitJSON(t, match, timeout)
	if err != nil {
		t.pod.tb.Helper()
		t.fail(err)
	}
	return value
}

// Quiet waits for d, and fails the test if a line comes meanwhile, a part of one, or the end of
// the connection, or if one has come that no call has returned.
func (t *Talk) Quiet(d time.Duration) {
	if err := t.TryQuiet(d); err != nil {
		t.pod.tb.Helper()
		t.fail(err)
	}
}

// Lines returns what the pod has sent so far, in whole lines, the snapshot first.
func (t *Talk) Lines() []string { return t.in.Lines(0) }

func (t *Talk) fail(err error) {
	t.pod.tb.Helper()
	t.pod.check(t.pod.failed("", err))
}

// TrySnapshot is Snapshot with an error in place of a failed test.
func (t *Talk) TrySnapshot() (string, error) {
	t.begin(t.timeout)
	return t.snapshot()
}

// TrySend is Send with an error in place of a failed test.
func (t *Talk) TrySend(line string) (string, error) {
	t.begin(t.timeout)
	return t.send(line)
}

// TryWrite is Write with an error in place of a failed test.
func (t *Talk) TryWrite(line string) error {
	t.begin(t.timeout)
	return t.write(line)
}

// TryReceive is Receive with an error in place of a failed test.
func (t *Talk) TryReceive() (string, error) {
	t.begin(t.timeout)
	return t.find("", anyLine)
}

// TryWaitLine is WaitLine with an error in place of a failed test. With a timeout of 0 it looks
// at what has come.
func (t *Talk) TryWaitLine(pattern string, timeout time.Duration) (string, error) {
	is, err := matching(pattern)
	if err != nil {
		return "", err
	}
	t.begin(timeout)
	if pattern == "" {
		return t.find("", is)
	}
	return t.find(fmt.Sprintf("line that matches %q", pattern), is)
}

// TryWaitJSON is WaitJSON with an error in place of a failed test. With a timeout of 0 it looks
// at what has come.
func TryWaitJSON[T any](t *Talk, match func(T) bool, timeout time.Duration) (value T, err error) {
	t.begin(timeout)
	_, err = t.find(fmt.Sprintf("line that is the %T waited for", value), func(line string) bool {
		var decoded T
		if json.Unmarshal([]byte(line), &decoded) != nil || !match(decoded) {
			return false
		}
		value = decoded
		return true
	})
	return value, err
}

// TryQuiet is Quiet with an error in place of a failed test. With a d of 0 it looks at what has
// come.
func (t *Talk) TryQuiet(d time.Duration) error {
	t.begin(t.timeout)
	if err := t.greet(); err != nil {
		return err
	}
	t.begin(d)
	_, _, err := t.line(t.next)
	rest := t.pod.log.Redact(t.in.Unfinished())
	late := errors.Is(err, ErrTimedOut) || errors.Is(err, ErrNoMatch)
	switch {
	case late && rest == "" && !isCut(err):
		return nil
	case late && rest == "":
		return fmt.Errorf("whether pod %s is quiet for %v is not known: %w", t.pod.name(), d, err)
	case late:
		err = fmt.Errorf("it sent a part of a line: %.200q", rest)
	case err == nil:
		err = errors.New("it sent a line")
	}
	return fmt.Errorf("pod %s was not quiet for %v: %w%s", t.pod.name(), d, err, t.since())
}

// begin begins a call that may wait for so long.
func (t *Talk) begin(limit time.Duration) { t.limit, t.deadline, t.awaited = limit, time.Time{}, "" }

func anyLine(string) bool { return true }

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
		line, next, err := t.line(t.next)
		t.pod.waited(err)
		if err != nil {
			return "", fmt.Errorf("pod %s sent no snapshot line: %w", t.pod.name(), err)
		}
		t.next = next
		switch event := lines.Event(line); event {
		case "snapshot":
			t.greeted = true
			return line, nil
		case "alert": // real pods may send some before the snapshot
		default:
			return "", fmt.Errorf("pod %s sent no snapshot line, which is a JSON object with \"event\":\"snapshot\", but %.200q", t.pod.name(), t.pod.log.Redact(line))
		}
	}
}

func (t *Talk) send(line string) (string, error) {
	if err := oneLine(t.pod, line); err != nil {
		return "", err
	}
	if err := t.greet(); err != nil {
		return "", err
	}
	if err := t.write(line); err != nil {
		return "", err
	}
	answer, next, err := t.line(t.next)
	t.pod.waited(err)
	if err != nil {
		return "", fmt.Errorf("pod %s gave no answer to %s: %w", t.pod.name(), t.pod.shown(line), err)
	}
	t.next = next
	return answer, nil
}

func oneLine(p *Pod, line string) error {
	if strings.Contains(line, "\n") {
		return fmt.Errorf("a line for pod %s has a newline in it: %.200q", p.name(), p.log.Redact(line))
	}
	return nil
}

func (t *Talk) write(line string) error {
	if err := oneLine(t.pod, line); err != nil {
		return err
	}
	t.wait()
	_ = t.conn.SetWriteDeadline(t.deadline)
	t.out = append(append(t.out[:0], line...), '\n')
	t.note(">", line)
	if _, err := t.conn.Write(t.out); err != nil {
		err = t.explain(err)
		t.pod.waited(err)
		return fmt.Errorf("could not send to pod %s: %w", t.pod.name(), err)
	}
	return nil
}

// find returns the next line of which is reports true, and passes over those before; what names
// it in an error, "" = any line.
func (t *Talk) find(what string, is func(line string) bool) (string, error) {
	if err := t.greet(); err != nil {
		return "", err
	}
	for at := t.next; ; {
		line, next, err := t.line(at)
		if err == nil && !is(line) {
			at, t.awaited = next, "none"
			continue
		}
		t.pod.waited(err)
		switch {
		case err == nil:
			t.next = next
			return line, nil
		case what == "":
			return "", fmt.Errorf("pod %s sent no line: %w", t.pod.name(), err)
		}
		return "", fmt.Errorf("pod %s sent no %s: %w%s", t.pod.name(), what, err, t.since())
	}
}

// since returns the lines that have come since the last one that was returned, for a message.
func (t *Talk) since() string {
	const most, longest = 8, 300
	all := t.in.Lines(t.next)
	if len(all) == 0 {
		return ""
	}
	text := "\n\tit sent since:"
	if left := len(all) - most; left > 0 {
		text, all = fmt.Sprintf("\n\tit sent %d lines since, the last ones:", len(all)), all[left:]
	}
	for _, line := range all {
		text += "\n\t\t" + podlog.Printable(evidence.Shorten(t.pod.log.Redact(line), longest))
	}
	return text
}

// shown returns a line for a message.
func (p *Pod) shown(line string) string {
	return podlog.Printable(fmt.Sprintf("%.200s", p.log.Redact(line)))
}

// line returns the first line from a number on, and the number of the one after it.
func (t *Talk) line(from int) (string, int, error) {
	until := t.until
	if t.limit <= 0 {
		until = nil
	}
	line, next, ok, err := t.in.Next(from, until)
	switch {
	case ok:
		return line, next, nil
	case errors.Is(err, lines.ErrTooLong):
		return "", from, fmt.Errorf("its line is longer than %s: %.200q", size(t.maxLine()), t.pod.log.Redact(t.in.Unfinished()))
	case err == nil && until == nil:
		err = kind{errors.New("none has come"), ErrNoMatch}
	case err == nil:
		err = t.explain(os.ErrDeadlineExceeded)
	default:
		err = t.explain(err)
	}
	if rest := t.pod.log.Redact(t.in.Unfinished()); rest != "" {
		err = fmt.Errorf("%w (its line has no newline: %.200q)", err, rest)
	}
	return "", from, err
}

// size returns a number of bytes in words.
func size(n int) string {
	switch {
	case n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

func (t *Talk) until() time.Time {
	t.wait()
	return t.deadline
}

// wait sets the deadline of a call, before the first thing that it waits for.
func (t *Talk) wait() {
	if t.deadline.IsZero() {
		t.within, t.wasCut = beforeDeadline(t.pod.tb, "timeout", t.limit)
		t.deadline = time.Now().Add(t.within)
	}
}

// explain says in words what ended a wait.
func (t *Talk) explain(err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN): // of the connection
		return cut(kind{fmt.Errorf("its backlog is full, and it accepted nothing within %v", t.within), ErrTimedOut}, t.wasCut)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return cut(kind{fmt.Errorf("%s within %v", cmp.Or(t.awaited, "nothing"), t.within), ErrTimedOut}, t.wasCut)
	}
	return whyClosed(err)
}

// whyClosed says in words why nothing more comes, or goes.
func whyClosed(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		return kind{errors.New("it has closed the connection"), ErrEnded}
	case errors.Is(err, net.ErrClosed):
		return kind{errors.New("the test has closed the connection"), ErrClosed}
	}
	return evidence.PrintableError(err) // it may have the path of the socket
}
