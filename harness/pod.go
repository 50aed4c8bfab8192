package harness

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// A Pod is a ready pod of a test. It embeds the [spawn.Pod]: its name, process,
// socket and log, Done, State and Signal.
//
// Its methods are safe for concurrent use; those that fail the test must be
// called from the test's goroutine, as FailNow must: see [Pod.With] for subtests.
type Pod struct {
	*spawn.Pod

	tb TB // that is told of failures
	*common
}

// common is what all who have a pod share.
type common struct {
	cfg     Config
	box     *oneTest
	log     *evidence.Log
	attempt *evidence.Attempt
	mark    string // of whatever it starts
	process proc.ID
	run     *proc.Run
	words   map[string]string // in the paths of faults
	adopted bool              // a client has started it

	mu        sync.Mutex // guards all up to broken
	expected  bool       // the test asked for the pod's end
	waits     int        // that expect it: calls of Wait, without those in vain
	killed    bool       // by the test: it could not clean up
	signalled bool       // by the test: it may end as it likes
	asked     bool       // to write what it does
	verdict   *Error     // that it had ended by itself, and was found so
	told      bool       // a test was told the verdict
	next      *Pod       // what it was restarted as
	broken    error      // that it could not be started again

	dying      atomic.Bool // SIGKILL was sent
	hangs      atomic.Bool // the last wait for it was in vain
	restarting sync.Mutex  // held during Restart

	stopMu  sync.Mutex // held during Stop; it guards its result
	stopped bool
	stopErr error
}

// With returns the pod for another test, such as a subtest: tb. After a Restart it returns
// the new pod. Failures and logs go to tb. tb fails if the pod has ended by itself, and the
// evidence is kept if tb fails. The pod is still torn down when the test that started it
// ends. With fails after that.
func (p *Pod) With(tb TB) *Pod {
	tb.Helper()
	if p.box.isClosed() {
		tb.Fatalf("harness: pod %s has ended with %s, in which it was started: Shared is for tests that follow each other", p.name(), testName(p.box.tb))
		return nil
	}
	p = p.latest().view(tb)
	p.box.use(p)
	return p
}

func (p *Pod) view(tb TB) *Pod { return &Pod{p.Pod, tb, p.common} }

// tellReady tells a verbose test (go test -v) where the pod is.
func (p *Pod) tellReady() {
	p.tb.Helper()
	if verbose(p.tb) {
		p.tb.Logf("harness: pod %s is ready: process %d, socket %s, log %s", p.name(), p.PID, podlog.Printable(p.SocketPath), podlog.Printable(p.LogPath))
	}
}

// Fail adds a fault to those of Config.Faults, from now on. The kernel watches only the calls that
// Config.Faults names. A fault there with Later set only names calls, for Fail.
//
//	pod := harness.StartPod(t, harness.Config{Faults: []fault.Fault{{Calls: "write", Later: true}}})
//	pod.Fail(fault.Fault{Calls: "write", Path: "{home}/**", Error: syscall.ENOSPC})
//
// The calls are counted from now on, and the words in braces are those of Config.Faults. Other
// tests that share the pod meet the fault, too, until Heal. Fail fails the test if there cannot
// be such a fault, or if the pod has ended.
func (p *Pod) Fail(f fault.Fault) {
	p.tb.Helper()
	err := fmt.Errorf("fault %q: Config.Faults is empty: start the pod with %q", f, fault.Fault{Calls: f.Calls, Later: true})
	if p.Faults != nil {
		err = p.Faults.Fail(f.Expand(p.words))
	}
	if err == nil && !p.runs() {
		p.check(p.failed("", kind{fmt.Errorf("pod %s cannot meet fault %q", p.name(), f), ErrEnded}))
	}
	if err != nil {
		p.check(fmt.Errorf("pod %s: %w", p.name(), err))
	}
	p.attempt.Note("from now on: fault " + podlog.Printable(f.String()))
}

// Heal has no fault strike from now on, until the next Fail. A call that waits already, because
// of a delay, goes on to wait.
func (p *Pod) Heal() {
	if p.Faults != nil {
		p.Faults.Heal()
		p.attempt.Note("from now on: no fault")
	}
}

// Dial connects to the pod's socket. The connection is closed at the end of the
// test at the latest. It fails the test if the pod cannot be connected to.
func (p *Pod) Dial() net.Conn {
	p.tb.Helper()
	t := &Talk{pod: p, timeout: killGrace}
	if err := t.dial(); err != nil {
		p.check(p.failed("", err))
		return nil
	}
	p.tb.Cleanup(func() { t.conn.Close() })
	return t.conn
}

// Log returns everything that the pod has logged so far, from the first byte to
// the last, also after it ended or removed its directory. For that the harness
// holds one descriptor for each pod until the end of the test; then it is empty.
func (p *Pod) Log() string {
	p.tb.Helper()
	all, err := io.ReadAll(p.log.Reader())
	if err != nil {
		p.tb.Errorf("harness: read the log of pod %s: %v", p.name(), evidence.PrintableError(err))
	}
	return string(all)
}

// WaitLog waits until a line of the pod's log, from its first one on, matches
// the regular expression pattern, and returns that line without its line
// ending. To wait for one of several lines write an alternation, such as "ready|failed": the line
// that is returned tells which one it is. WaitLog fails the test if there is none within timeout,
// or before the pod ends.
func (p *Pod) WaitLog(pattern string, timeout time.Duration) string {
	p.tb.Helper()
	return p.WaitLogAfter(0, pattern, timeout)
}

// LogEnd returns where the last whole line of the log ends, in bytes, of the log of this
// pod and no other one, such as what it is restarted as: what comes later is found by
//
//	from := pod.LogEnd()
//	pod.Signal(syscall.SIGHUP)
//	pod.WaitLogAfter(from, "reloaded", time.Second)
func (p *Pod) LogEnd() int64 { return p.log.End() }

// WaitLogAfter is WaitLog of the lines after an offset, that LogEnd has returned. A
// log that is shorter by now was truncated, and is read from its start.
func (p *Pod) WaitLogAfter(from int64, pattern string, timeout time.Duration) string {
	p.tb.Helper()
	line, _, err := p.TryWaitLogAfter(from, pattern, timeout)
	p.check(err)
	return line
}

// NoLog fails the test if a line of the log after an offset, as WaitLogAfter has it, matches the
// regular expression pattern. It looks at what is there now, and does not wait: what the pod
// should have done by now, an answer or a line of its log tells.
func (p *Pod) NoLog(from int64, pattern string) {
	p.tb.Helper()
	p.check(p.TryNoLog(from, pattern))
}

// TryNoLog is NoLog with an error in place of a failed test. It may be called from any goroutine.
// If a line matches, the error is none of [ErrTimedOut], [ErrNoMatch], [ErrEnded], [ErrClosed] and
// [ErrBadPattern].
func (p *Pod) TryNoLog(from int64, pattern string) error {
	line, _, err := p.TryWaitLogAfter(from, pattern, 0)
	switch {
	case errors.Is(err, ErrNoMatch) && p.logReplaced():
		return p.failed("", fmt.Errorf("whether a line of the log of pod %s matches %q is not known", p.name(), pattern))
	case errors.Is(err, ErrNoMatch):
		return nil
	case err != nil:
		return err
	}
	return p.failed("", fmt.Errorf("a line of the log of pod %s matches %q: %s", p.name(), pattern, podlog.Printable(evidence.Shorten(p.log.Redact(line), 1000))))
}

// TryWaitLog is WaitLog with an error in place of a failed test: [ErrTimedOut], [ErrEnded],
// [ErrClosed] or [ErrBadPattern]. It may be called from any goroutine. With a timeout of 0 it
// looks at all that is there, and the error is [ErrNoMatch] if nothing matches.
func (p *Pod) TryWaitLog(pattern string, timeout time.Duration) (string, error) {
	line, _, err := p.TryWaitLogAfter(0, pattern, timeout)
	return line, err
}

// TryWaitLogAfter is WaitLogAfter with an error in place of a failed test: see TryWaitLog. It also
// returns the offset at which the line ends, from which the next one is found.
func (p *Pod) TryWaitLogAfter(from int64, pattern string, timeout time.Duration) (line string, end int64, err error) {
	is, err := matching(pattern)
	if err != nil {
		return "", 0, fmt.Errorf("log of pod %s: %w", p.name(), err)
	}
	timeout, note := beforeDeadline(p.tb, "timeout", timeout)
	found, err := p.log.Search(max(0, from), is, timeout, p.Done())
	switch {
	case errors.Is(err, evidence.ErrOver):
		err = kind{err, ErrClosed}
		fallthrough
	case err != nil:
		return "", 0, fmt.Errorf("log of pod %s: %w", p.name(), evidence.PrintableError(err))
	case found != nil:
		p.waited(nil)
		return found.Line, found.End, nil
	}
	why, after := ErrTimedOut, ""
	if _, ended := p.Ended(); timeout <= 0 {
		why = ErrNoMatch
	} else if ended {
		why = ErrEnded
	}
	p.waited(why)
	if from > 0 {
		after = fmt.Sprintf(", after the first %d bytes", from)
	}
	return "", 0, p.failed(note, kind{fmt.Errorf("no line of the log of pod %s matched %q within %v%s", p.name(), pattern, timeout, after), why})
}

// Wait tells that the test expects the pod to end by itself, waits until it
// has, and returns how. It fails the test if the pod is still there after
// timeout.
func (p *Pod) Wait(timeout time.Duration) *os.ProcessState {
	p.tb.Helper()
	state, err := p.TryWait(timeout)
	p.check(err)
	return state
}

// TryWait is Wait with an error in place of a failed test. It may be called
// from any goroutine.
func (p *Pod) TryWait(timeout time.Duration) (*os.ProcessState, error) {
	await := func(n int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waits += n
	}
	await(1)
	timeout, note := beforeDeadline(p.tb, "timeout", timeout)
	if !p.endsWithin(timeout) {
		await(-1)
		p.waited(ErrTimedOut)
		return nil, p.failed(note, kind{fmt.Errorf("pod %s did not end within %v", p.name(), timeout), ErrTimedOut})
	}
	return p.State(), nil
}

// waited notes how a wait for the pod has ended.
func (p *Pod) waited(err error) {
	switch late := errors.Is(err, ErrTimedOut); {
	case late:
		p.hangs.Store(true)
	case err == nil && p.hangs.Load():
		p.hangs.Store(false)
	}
}

// Suspend stops all processes of the pod's group, as with SIGSTOP, until Resume.
// On Linux it returns once the pod itself has stopped.
func (p *Pod) Suspend() {
	p.tb.Helper()
	p.mustSignal(syscall.SIGSTOP)
	grace, note := beforeDeadline(p.tb, "wait", killGrace)
	if !proc.StopsWithin(p.PID, grace) {
		p.check(p.failed(note, fmt.Errorf("pod %s did not stop within %v of SIGSTOP", p.name(), grace)))
	}
}

// Resume lets the processes of the pod's group go on.
func (p *Pod) Resume() {
	p.tb.Helper()
	p.mustSignal(syscall.SIGCONT)
}

func (p *Pod) mustSignal(sig syscall.Signal) {
	p.tb.Helper()
	if err := p.signal(sig); err != nil {
		p.check(p.failed("", fmt.Errorf("%v: %w", sig, err)))
	}
}

// check fails the test, and ends it, if there is an error.
func (p *Pod) check(err error) {
	p.tb.Helper()
	if err != nil {
		p.tb.Fatalf("harness: %v", fails(p.attempt, err))
	}
}

// Signal is the embedded Pod's Signal; the evidence has when it was sent. From then on the pod
// may end with any status when it is stopped.
func (p *Pod) Signal(sig os.Signal) error {
	p.mu.Lock()
	p.signalled = true
	p.mu.Unlock()
	return p.signal(sig)
}

func (p *Pod) signal(sig os.Signal) error {
	proc.Match{Mark: p.mark, Run: p.run}.Look()
	if sig == syscall.SIGKILL {
		p.dying.Store(true)
	}
	err := p.Pod.Signal(sig)
	if number, ok := sig.(syscall.Signal); ok && err == nil {
		p.attempt.Note(unix.SignalName(number))
	}
	return err
}

// noteEnd notes how the pod has ended.
func (p *Pod) noteEnd() {
	if how, ended := p.Ended(); ended {
		p.attempt.Ended(how)
	}
}

// Ended reports whether the pod has ended, and how in words: its status, or why
// that is not known.
func (p *Pod) Ended() (how string, ok bool) {
	if state := p.State(); state != nil {
		return state.String(), true
	}
	select {
	case <-p.Done():
		if p.adopted {
			return "its status is not known: only its parent is told that", true
		}
		return "its status is lost: something else in this process waits for any child", true
	default:
		return "", false
	}
}

// runs reports whether the pod has not ended.
func (p *Pod) runs() bool {
	select {
	case <-p.Done():
		return false
	default:
		return true
	}
}

func (p *Pod) expectEnd() {
	p.mu.Lock()
	p.expected = true
	p.mu.Unlock()
}

func (p *Pod) endsWithin(d time.Duration) bool { return sandbox.EndsWithin(p.Done(), d) }
