package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// clean looks for what is left of a pod whose start has failed, or of a refused name.
func (s *sweepCase) clean() *finding {
	if s.refused == badName {
		if made := s.touched(); len(made) > 0 {
			return s.found("1", "the client has made %s; such a name must be refused before anything is touched", strings.Join(made, ", "))
		}
		if s.seen.Args != nil {
			return s.found("1", "the client has started the pod, with: %s; it must refuse the name itself", strings.Join(s.seen.Args, " "))
		}
	}
	if s.refused == noRuntimeDir && s.seen.Args != nil {
		return s.found("1", "the client has started the pod; where no variable names a runtime directory, there is nowhere for its log, and the start must fail")
	}
	if s.pid == 0 {
		return nil
	}
	for end := time.Now().Add(gone); ; <-time.After(5 * time.Millisecond) {
		left := members(s.pid)
		switch over := time.Now().After(end); {
		case len(left) == 0 && proc.Ended(s.pid):
			return nil
		case over && len(left) == 0:
			return s.found("4", "the client has left the pod, process %d; after a failed start it must be killed, with its whole group", s.pid)
		case over:
			return s.found("4", "the client has left of the pod: %s; after a failed start the whole group must be killed", left)
		}
	}
}

// touched returns what there is in the sandbox where only a pod that is started has something.
func (s *sweepCase) touched() (made []string) {
	for _, path := range []string{s.root(), s.runtime} {
		entries, _ := os.ReadDir(path)
		for _, entry := range entries {
			if path == s.runtime || entry.Name() == "stderr.log" || entry.Name() == "outside" {
				made = append(made, podlog.Printable(filepath.Join(path, entry.Name())))
			}
		}
	}
	return made
}

// independent looks at the pod that is ready, when its client has ended.
func (s *sweepCase) independent() *finding {
	if s.second {
		if proc.Ended(s.pid) {
			return s.found("1", "the client has ended the pod that answered before; it must leave that alone")
		}
		return nil
	}
	if s.pid == 0 {
		return s.found("1", "the client has left no pod: the one that it started has not begun; it must live on without its client")
	}
	serves := s.seen.Steps[len(s.seen.Steps)-1].Process // which the pod has left in its place, if it is a daemon
	for end := time.Now().Add(livesOn); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if proc.Ended(serves) {
			return s.found("1", "the client has left no pod that lives; it must live on without its client")
		}
	}
	if serves != s.pid {
		return nil // the rest is the daemon's own
	}
	if seen := s.seen.Inherited; seen != nil && seen.ParentDeathSignal != 0 {
		return s.found("1", "the pod gets %v when the process that has started it ends (PR_SET_PDEATHSIG); it must live on then", syscall.Signal(seen.ParentDeathSignal))
	}
	if group, err := syscall.Getpgid(s.pid); err == nil && group != s.pid {
		return s.found("1", "the pod (process %d) is in process group %d; it must lead one of its own", s.pid, group)
	}
	if len(members(s.pid)) == 0 {
		return nil // this system does not tell more
	}
	for fd, want := range []string{os.DevNull, os.DevNull, s.logPath()} {
		got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid, fd))
		got = strings.TrimSuffix(got, " (deleted)")
		if real, evalErr := filepath.EvalSymlinks(s.podDir); evalErr == nil && fd == 2 {
			want = filepath.Join(real, "stderr.log")
		}
		if err == nil && got != want {
			return s.found("1", "the pod's %s is %s; it must be %s", []string{"stdin", "stdout", "stderr"}[fd], got, want)
		}
	}
	fds := descriptors(s.pid)
	if flags, ok := fds[2]; ok && flags&syscall.O_APPEND == 0 {
		return s.found("1", "the pod's log is not open for appending (O_APPEND); it must be, or a log that is truncated gets a hole")
	}
	if stray := inherited(s.pid, fds); len(stray) > 0 {
		return s.found("1", "the pod has inherited %s; it must inherit no other descriptor than 0, 1 and 2, not even a stray one", strings.Join(stray, ", "))
	}
	return s.files()
}

func (s *sweepCase) logPath() string { return filepath.Join(s.podDir, "stderr.log") }

// files looks at the directories and the log that the client has made.
func (s *sweepCase) files() *finding {
	type made struct {
		path, what string
		mode       os.FileMode
	}
	wants := []made{{s.podDir, "directory", 0o700}, {s.logPath(), "stderr.log", 0o600}}
	for dir := filepath.Dir(s.podDir); dir != s.root() && !slices.Contains(sandboxDirs, strings.TrimPrefix(dir, s.root()+"/")); dir = filepath.Dir(dir) {
		wants = append(wants, made{dir, "directory's parent " + dir, 0o700})
	}
	for _, want := range wants {
		if info, err := os.Lstat(want.path); err == nil && info.Mode().Perm() != want.mode {
			return s.found("1", "%s has the mode %#o; it must be %#o", "the pod's "+want.what, info.Mode().Perm(), want.mode)
		}
	}
	// Through the pod's own descriptor: it may have removed the log.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/2", s.pid))
	if err == nil && !strings.Contains(string(text), "YOI-READY\t") {
		return s.found("1", "the pod's log does not hold its ready line; the log must be the pod's stderr itself")
	}
	return nil
}

// sandboxDirs are there before the client.
var sandboxDirs = []string{"run", "workspace", "home", "home/.yoi", "tmp", "xdg"}

// leavesLog reports whether the pod itself leaves its log alone.
func (s *sweepCase) leavesLog() bool {
	steps, _ := fakepod.Parse(s.program)
	return !slices.ContainsFunc(steps, func(s fakepod.Step) bool {
		return slices.Contains([]string{"unlink", "truncate", "stop", "kill", "on"}, s.Verb) && s.Arg(0, "") != "KILL" && s.Arg(0, "") != "STOP"
	})
}

// logKept looks at the log of a start that has failed.
func (s *sweepCase) logKept(want oracle.Outcome) *finding {
	info, err := os.Lstat(s.logPath())
	switch {
	case err != nil:
		return s.found("4", "the pod's log is gone: %v; it must stay after a failed start", err)
	case !info.Mode().IsRegular() || info.Mode().Perm() != 0o600:
		return s.found("1, 4", "the pod's log is left with the mode %v; it must stay as it was, a file with the mode 0600", info.Mode())
	case s.size > 0 && info.Size() != s.size:
		return s.found("4", "the pod's log has %d bytes; it must stay whole after a failed start, with the %d that the pod has written", info.Size(), s.size)
	}
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return s.unseen("%v", err)
	}
	left := strings.ReplaceAll(strings.ToValidUTF8(string(text), "\uFFFD"), "\r\n", "\n")
	for _, line := range append(slices.Clone(want.Tail), want.Line, want.Unfinished) {
		if !strings.Contains(left, strings.ToValidUTF8(line, "\uFFFD")) {
			return s.found("4", "the pod's log lacks %.100q, which the pod has written; it must stay whole after a failed start", line)
		}
	}
	return nil
}
