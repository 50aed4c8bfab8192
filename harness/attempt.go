package harness

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// observe starts a pod, and has its attempt know what comes of it; launched is called with
// the pod's process.
func (b *sandbox) observe(a *evidence.Attempt, sc spawn.Config, mark string, launched func(pid int)) (*spawn.Pod, error) {
	o := &spawn.Observer{Fresh: true, Grown: a.Captured.Grown, Line: a.Captured.Stream()}
	o.Launched = func(pid int) {
		launched(pid)
		a.Captured.Take(o.Log)
		a.Change(func() { a.PID, a.Timeline.Launched = pid, time.Since(a.Timeline.Start) })
	}
	o.Socket = a.NoteSocket
	o.Failing = func(verdict error) { b.failing(a, mark, verdict) }
	pod, err := spawn.StartObserved(b.ctx, sc, o)
	shownInError(a.Args, err, sc.Command)
	a.Captured.Take(o.Log) // of one that was not launched, too
	a.Change(func() {
		var e *spawn.Error
		switch {
		case pod != nil:
			a.Timeline = pod.Timeline
		case errors.As(err, &e):
			failed := *e
			failed.Tail, failed.Unfinished = nil, "" // the log has them
			a.Timeline, a.Error, a.StartFailed = e.Timeline, err.Error(), &failed
		}
	})
	return pod, err
}

// failing writes down what of a start lives that is about to be killed: it hangs.
func (b *sandbox) failing(a *evidence.Attempt, mark string, verdict error) {
	if errors.Is(verdict, spawn.ErrExited) {
		return
	}
	text := evidence.Describe(proc.Find(proc.Match{Mark: mark}), b.binary.Commands(mark))
	a.Change(func() { a.Hung = text })
	if a.Dump != 0 && errors.Is(verdict, spawn.ErrTimeout) {
		dump(b.tb, []*evidence.Attempt{a})
	}
}

// dumpGrace is how long pods may take to write what they do.
const dumpGrace = 2 * time.Second

// dump sends Config.DumpSignal to pods that run, and waits for what they write then.
func dump(tb TB, pods []*evidence.Attempt) {
	var pids []int
	var logs []*os.File
	for _, a := range pods {
		a.Captured.KeepTail()
		if syscall.Kill(a.PID, a.Dump) == nil {
			a.Note(unix.SignalName(a.Dump))
			pids, logs = append(pids, a.PID), append(logs, a.Captured.File())
		}
	}
	grace, _ := beforeDeadline(tb, "", dumpGrace)
	proc.AwaitQuiet(pids, grace, func() (size int64) {
		for _, log := range logs {
			size += evidence.SectionOf(log).Size()
		}
		return size
	})
}

// life returns what is known of a start that is about to begin.
func (c Config) life(pod string) evidence.Life {
	l := evidence.Life{Pod: pod, Env: c.shownEnv(), Timeout: c.ReadyTimeout}
	if c.DumpSignal != nil {
		l.Dump = c.DumpSignal.(syscall.Signal)
	}
	return l
}

// shownEnv returns what Config.Env adds to a pod's environment, as it may be shown.
func (c Config) shownEnv() (shown []string) {
	for _, entry := range c.Env {
		name, value, ok := strings.Cut(entry, "=")
		if !ok {
			value = os.Getenv(name) // it was passed on
		}
		text := fmt.Sprintf("%s (%d bytes)", name, len(value))
		if slices.Contains(c.ShowEnv, name) {
			text = name + "=" + value
		}
		shown = append(shown, podlog.Printable(text))
	}
	return shown
}

// shownInError takes the arguments out of the error of a start, if they may not be shown.
func shownInError(s evidence.Args, err error, c spawn.Command) {
	var e *spawn.Error
	if errors.As(err, &e) && e.Err != nil {
		if text := e.Err.Error(); strings.Contains(text, c.String()) {
			e.Err = evidence.Reworded(strings.ReplaceAll(text, c.String(), s.Words(c)), e.Err)
		}
	}
}

// name is the pod's name in messages.
func (p *Pod) name() string { return podlog.Printable(p.Name) }

// name is the client's program in messages.
func (c *Client) name() string { return podlog.Printable(c.cfg.Program) }

// messageOf returns the message of a test that fails with an error: the log that it names
// is the one in the evidence.
func messageOf(tb TB, err error) string {
	box, boxErr := sandboxOf(tb)
	if boxErr != nil {
		return podlog.PrintableLines(err.Error())
	}
	return box.evidence.MessageOf(err)
}
