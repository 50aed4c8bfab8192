package harness

import (
	"fmt"
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

// clear kills what matches, of processes made since a Range began, and tells in words what
// was left; "" = nothing. found is called before it is killed.
func (b *oneTest) clear(m proc.Match, since proc.Range, found func()) string {
	command := b.binary.Commands(m.Mark)
	grace, _ := beforeDeadline(b.tb, "", leakGrace)
	leaks := leaksOf(proc.Lasting(m, since, grace), command)
	if len(leaks) == 0 {
		return ""
	}
	found()
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
	return leaksOf(proc.Find(proc.Match{Mark: b.Mark}), b.Commands(""))
}
