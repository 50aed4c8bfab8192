package fakepod

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"example.com/podharness/fakepod/reexec"
	"golang.org/x/sys/unix"
)

// role is what sets a process that the fake pod has started apart from the pod.
type role struct {
	child  bool // it is beside the pod: the pod directory is not its own
	daemon bool // it goes on, in the background, for a process that ends
}

// Where such a process finds its ends of pipes: one to close once it acts its
// program out; for a daemon one that ends with the process that it goes on for.
const (
	startedFD  = 3
	originalFD = 4
)

var childRole = []string{"-role", "child"}

// again is the fake pod's own executable as a command.
func again(args []string) *exec.Cmd {
	cmd := reexec.Command(marker, args...)
	if len(os.Args) < 2 || os.Args[1] != marker { // it is the command fakepod
		cmd.Args = slices.Delete(cmd.Args, 1, 2)
	}
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts a process in the roles, and waits until it acts the program out.
func (p *pod) start(roles []string, program string, newSession bool, more ...*os.File) error {
	cmd := again(slices.Concat(roles, []string{"-program", program}, p.told.args()))
	started, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer started.Close()
	cmd.ExtraFiles = append([]*os.File{end}, more...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: newSession}
	err = cmd.Start()
	end.Close()
	if err == nil {
		go func() { _ = cmd.Wait() }()
		// Nothing is ever written: the end of the pipe tells that it has closed it,
		// or that it has died, which its words in the log explain.
		_, _ = started.Read(make([]byte, 1))
	}
	return err
}

// begin is a started process's half of start.
func (p *pod) begin(steps []Step) error {
	if p.role == (role{}) {
		return nil
	}
	for _, s := range steps { // what it survives from the beginning
		if s.Verb != "ignore" && s.Verb != "on" {
			break
		}
		if err := p.run([]Step{s}, false); err != nil {
			return err
		}
	}
	if err := unix.Close(startedFD); err != nil {
		return fmt.Errorf("tell that it started: %w", err)
	}
	if p.role.daemon {
		original := os.NewFile(originalFD, "original")
		defer original.Close()
		_, _ = original.Read(make([]byte, 1))
	}
	return nil
}

// daemonize forks twice and exits. Without a wait, the daemon goes on once this process
// is gone, so that nobody can take the one for the other. at is the index of the first of
// its steps, for the trace; 0 = they are none of the program.
func (p *pod) daemonize(steps []Step, wait time.Duration, at int) error {
	if len(steps) == 0 {
		steps = []Step{{Verb: "hang"}}
	}
	end, original, err := os.Pipe()
	if err != nil {
		return err
	}
	defer end.Close()
	defer original.Close() // not before exit
	roles := []string{"-role", "fork", "-role", "daemon"}
	if p.role.child {
		roles = append(roles, childRole...)
	}
	// The daemon is a new program, with Go's own handlers: it has to be told.
	reactions := p.reactions()
	if p.trace.file != nil && at > 0 {
		roles = append(roles, "-trace", p.trace.file.Name(), "-base", strconv.Itoa(p.trace.base+at-len(reactions)))
	}
	if err := p.start(roles, format(append(reactions, steps...)), true, end); err != nil {
		return err
	}
	if wait > 0 {
		original.Close()
		time.Sleep(wait)
	}
	exit(0)
	return nil
}

// fork is the process between the two forks, which leads the session and ends:
// the daemon that it starts does not lead it. Both ends of pipes go on to it.
func fork(args []string) error {
	cmd := again(args)
	cmd.ExtraFiles = []*os.File{os.NewFile(startedFD, "started"), os.NewFile(originalFD, "original")}
	return cmd.Start()
}

func exit(status int) { reexec.Exit(status) }
