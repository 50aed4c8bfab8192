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
