package sandbox

import (
	"os"
	"os/exec"
	"time"

	"example.com/podharness/spawn/fault"
)

// StopGrace is how long each step of a teardown may take if a config does not say it.
const StopGrace = 5 * time.Second

// A Child is a process that a test has started, which leads a process group of its own.
type Child struct {
	// PID is the number of the process and of its process group.
	PID int
	// Faults tells of the calls that faults have struck; nil = there are no faults.
	Faults *fault.Session

	cmd  *exec.Cmd
	done chan struct{}
}

// Reap returns the child that a command has started, and waits for its end. ended is called
// then, before Done is closed.
func Reap(cmd *exec.Cmd, ended func(*os.ProcessState)) *Child {
	c := &Child{PID: cmd.Process.Pid, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		_ = cmd.Wait()
		ended(cmd.ProcessState)
	}()
	return c
}

// Done is closed after the process has ended and was reaped.
func (c *Child) Done() <-chan struct{} { return c.done }

// State tells how the process ended; nil while it runs.
func (c *Child) State() *os.ProcessState {
	if EndsWithin(c.done, 0) {
		return c.cmd.ProcessState
	}
	return nil
}

// EndsWithin waits until done is closed, and reports whether it was in time.
func EndsWithin(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	select { // both may have come
	case <-done:
		return true
	default:
		return false
	}
}
