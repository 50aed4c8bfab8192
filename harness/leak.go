package harness

import (
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// A Leak is a process that a pod started and left behind.
type Leak struct {
	PID int
	// Command is its command line, with spaces between the words, as Config.ShowArgs has
	// it.
	Command string
	// Age is how long it has run, to 1/100 s.
	Age time.Duration
	// Restless tells that the process forks and exits all the time, so that PID is the
	// number that it had a moment ago.
	Restless bool
}

// String names the process for a message.
func (l Leak) String() string {
	age := fmt.Sprintf("%v old", l.Age)
	if l.Restless {
		age = "which forks and exits all the time"
	}
	return fmt.Sprintf("process %d (%s, %s)", l.PID, podlog.Printable(l.Command), age)
}

// leakGrace is how long the children of a pod or client may take to end after it.
const leakGrace = 500 * time.Millisecond

// clear kills what matches, and tells in words what was left; "" = nothing. found is called
// before it is killed.
func (b *oneTest) clear(m proc.Match, found func()) string {
	command := b.binary.Commands(m.Mark)
	grace, _ := beforeDeadline(b.tb, "", leakGrace)
	leaks := leaksOf(proc.Lasting(m, grace), command)
	if len(leaks) == 0 {
		return ""
	}
	found()
	b.tellLeft(leaks)
	grace, _ = beforeDeadline(b.tb, "", killGrace)
	text := "left processes behind, which were killed:"
	if left := leaksOf(proc.Kill(m, time.Now().Add(grace)), command); len(left) > 0 {
		text = fmt.Sprintf("left processes behind, of which %d could not be killed:", len(left))
		leaks = left
	}
	for _, leak := range leaks {
		text += "\n\t\t" + leak.String()
	}
	return text
}

// leftTB is a TB that is told what a pod has left behind, also one that ended before it was
// ready: package scripts judges that itself.
type leftTB interface{ Left(leaks []Leak) }

func (b *oneTest) tellLeft(leaks []Leak) {
	if t, ok := optional[leftTB](b.tb); ok && len(leaks) > 0 {
		t.Left(leaks)
	}
}

// clearFailed kills what a pod has left that did not become ready. Its process group is gone.
func (b *oneTest) clearFailed(name string, m proc.Match) {
	grace, _ := beforeDeadline(b.tb, "", killGrace)
	proc.Kill(b.withSockets(m, nil), time.Now().Add(grace))
	b.endRun(b.tb, name, m)
}

// withSockets has a match of one pod mean what listens in the sandbox, too, unless that may be
// another pod's: other reports whether one is another pod.
func (b *oneTest) withSockets(m proc.Match, other func(*Pod) bool) proc.Match {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.starting) > 1 || len(b.starting) == 1 && other != nil { // the one may be this
		return m
	}
	m.Sockets = filepath.Dir(b.Dir("run"))
	for _, p := range b.pods { // to which a younger process may belong
		if p.runs() && (other == nil || other(p)) && (m.SocketsBefore == 0 || p.run.Pod.Start < m.SocketsBefore) {
			m.SocketsBefore = max(1, p.run.Pod.Start)
		}
	}
	return m
}

// match means what the pod has started.
func (p *Pod) match() proc.Match {
	m := proc.Match{Mark: p.mark, Run: p.run}
	p.box.foreign.mu.Lock()
	unknown := len(p.box.foreign.attempts) > 0 // pods of which little is known yet
	p.box.foreign.mu.Unlock()
	if unknown && !p.adopted {
		return m
	}
	return p.box.withSockets(m, func(other *Pod) bool { return other.common != p.common })
}

// endRun tells what the pod of a name may have left: daemons that have begun while the pod ran,
// in another session than the test's, whose parents have ended. They cannot be looked into, since
// they are not dumpable or another user's, and nothing else tells whose they are.
func (b *oneTest) endRun(tb TB, name string, m proc.Match) {
	tb.Helper()
	unread := leaksOf(m.Run.Unproven(), b.binary.Commands(m.Mark))
	if t, ok := optional[interface{ Unreadable(leaks []Leak) }](tb); ok { // package scripts judges by that
		t.Unreadable(unread)
	}
	for _, left := range unread {
		tb.Logf("harness: %s began while pod %s ran, and cannot be looked into: the pod may have left it behind, and so it lives on", left, podlog.Printable(name))
	}
	m.Run.End()
}

// SignalProcess sends a signal to the pod's process alone, and not to its process group. It
// returns os.ErrProcessDone if the process has ended.
func (p *Pod) SignalProcess(sig syscall.Signal) error {
	h, err := proc.Hold(p.run.Pod)
	if err != nil {
		return err
	}
	defer h.Close()
	proc.Match{Mark: p.mark, Run: p.run}.Look()
	return h.Signal(sig)
}

func leaksOf(processes []proc.Process, command func(proc.Process) string) (leaks []Leak) {
	for _, p := range processes {
		leaks = append(leaks, Leak{p.PID, command(p), p.Age, p.Restless})
	}
	return leaks
}

// Leaks returns the processes that the pods of this test binary have started
// and that run now, the pods that were not stopped yet included. It is for a
// TestMain that wants to look once more at the end; each pod's own leaks fail
// its test anyway. They are found on Linux only.
func Leaks() []Leak {
	thisBinaryMu.Lock()
	b := thisBinary
	thisBinaryMu.Unlock()
	if b == nil {
		return nil
	}
	found := slices.DeleteFunc(proc.Find(proc.Match{Mark: b.Mark, Sockets: b.Root}), func(p proc.Process) bool { return b.isKept(p.Mark) })
	return leaksOf(found, b.Commands(""))
}
