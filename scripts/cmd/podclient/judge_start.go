package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/spawn"
	"golang.org/x/sys/unix"
)

// inWorkspace looks at the directory that the pod was started in.
func (s *sweepCase) inWorkspace() *finding {
	dir, workspace := s.seen.Inherited.Dir, value(s.seen.Args, "--workspace")
	if !filepath.IsAbs(workspace) {
		workspace = filepath.Join(dir, workspace)
	}
	is, err := os.Stat(dir)
	if err != nil {
		return s.unseen("the pod's directory: %v", err)
	}
	if want, err := os.Stat(workspace); err != nil || !os.SameFile(is, want) {
		return s.found("1", "the pod was started in the directory %s; it must be in its workspace, %s", dir, workspace)
	}
	return nil
}

// inherits compares what the pod has with what the client was started with.
func (s *sweepCase) inherits() *finding {
	is := s.seen.Inherited
	if is == nil || is.Umask == "" {
		return s.unseen("the system does not show what a process has inherited")
	}
	environ, err := os.ReadFile(filepath.Join(s.tb.scrap, "environ"))
	if err != nil {
		return s.unseen("the client's environment: %v", err)
	}
	for _, entry := range strings.Split(string(environ), "\x00") {
		name, value, _ := strings.Cut(entry, "=")
		has := func(e string) bool {
			// A script that chooses a version of an interpreter puts that first.
			return e == entry || name == "PATH" && strings.HasPrefix(e, "PATH=") && strings.HasSuffix(e, ":"+value)
		}
		if !slices.ContainsFunc(is.Env, has) && !slices.Contains(shells, name) {
			got := slices.DeleteFunc(slices.Clone(is.Env), func(e string) bool { return !strings.HasPrefix(e, name+"=") })
			return s.found("1", "the pod's environment has, of the variable %s: %q; it must have %q, as the client's", name, got, entry)
		}
	}
	if want := fmt.Sprintf("%04o", s.at.Umask); is.Umask != want {
		return s.found("1", "the pod's umask is %s; it must be %s, as that with which the client was started", is.Umask, want)
	}
	for _, limit := range s.at.limits() {
		if want := fmt.Sprint(limit.soft); limit.may() && is.Limits[limit.name][0] != want {
			return s.found("1", "the pod's limit of %s is %s; it must be %s, as that with which the client was started", limit.name, is.Limits[limit.name][0], want)
		}
	}
	// A JVM has SIGQUIT blocked in all of its threads but one, and cannot help it.
	if more := besides(is.Blocked, append([]syscall.Signal{syscall.SIGQUIT}, s.at.Blocked...)); len(more) > 0 {
		return s.found("1", "the pod was started with %s blocked; it must not be, as the client was not", strings.Join(more, ", "))
	}
	if more := besides(is.Ignored, s.at.Ignored); len(more) > 0 {
		return s.found("1", "the pod was started with %s ignored; it must not be, as the client was not", strings.Join(more, ", "))
	}
	return nil
}

// shells are variables that a shell changes by itself.
var shells = []string{"PWD", "OLDPWD", "SHLVL", "_"}

// besides returns the names that are not those of the signals. Those above 31 have no
// names: glibc ignores some for itself.
func besides(names []string, signals []syscall.Signal) (more []string) {
	for _, name := range names {
		if sig := unix.SignalNum(name); sig != 0 && !slices.Contains(signals, sig) {
			more = append(more, name)
		}
	}
	return more
}

// signals looks for the signals that the client was started with.
func (s *sweepCase) signals() *finding {
	is := s.seen.Inherited
	if is == nil || is.Blocked == nil {
		return s.unseen("the system does not show which signals a process has inherited")
	}
	for _, set := range []struct {
		what string
		was  []syscall.Signal
		is   []string
	}{{"blocked", s.at.Blocked, is.Blocked}, {"ignored", s.at.Ignored, is.Ignored}} {
		for _, sig := range set.was {
			if name := unix.SignalName(sig); !slices.Contains(set.is, name) {
				return s.found("1", "the pod was started without %s %s; it may be as the client was started", name, set.what)
			}
		}
	}
	return nil
}

// silent looks at the connections that the client has made.
func (s *sweepCase) silent() *finding {
	if s.settings.ready != "" {
		return s.unseen("a client that stays open may talk to its pod")
	}
	ctx, cancel := context.WithTimeout(context.Background(), prompt)
	defer cancel()
	// One more, which is served after all that the client has made.
	conn, err := spawn.Dial(ctx, filepath.Join(s.podDir, "sock"))
	if err != nil {
		return s.unseen("the pod does not answer: %v", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(prompt))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		return s.unseen("the pod does not answer: %v", err)
	}
	for end := time.Now().Add(gone); ; <-time.After(5 * time.Millisecond) {
		s.readTrace()
		made := s.seen.Connections[:max(0, len(s.seen.Connections)-1)]
		bytes, open := int64(0), 0
		for _, c := range made {
			bytes += c.Bytes
			if c.Ended == 0 {
				open++
			}
		}
		switch over := time.Now().After(end); {
		case bytes > 0:
			return s.found("3", "the client has sent %d bytes to the pod; it must connect and say nothing", bytes)
		case len(made) > 1:
			return s.found("3", "the client has connected to the pod %d times; it must once", len(made))
		case open > 0 && over:
			return s.found("3", "the client has left a connection to the pod open; it must close the connection")
		case open == 0:
			return nil
		}
	}
}

// descriptors returns the descriptors of a process, with the flags of open.
func descriptors(pid int) map[int]uint64 {
	all := map[int]uint64{}
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	for _, entry := range entries {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, entry.Name()))
		_, flags, ok := strings.Cut(string(info), "flags:\t")
		bits, parseErr := strconv.ParseUint(strings.Fields(flags + " x")[0], 8, 64)
		if fd, fdErr := strconv.Atoi(entry.Name()); err == nil && ok && parseErr == nil && fdErr == nil {
			all[fd] = bits
		}
	}
	return all
}

// inherited returns the descriptors above 2 that a fake pod, which opens its own
// close-on-exec, was given.
func inherited(pid int, fds map[int]uint64) (stray []string) {
	for _, fd := range slices.Sorted(maps.Keys(fds)) {
		if fd > 2 && fds[fd]&syscall.O_CLOEXEC == 0 {
			target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
			stray = append(stray, fmt.Sprintf("descriptor %d (%s)", fd, target))
		}
	}
	return stray
}

// onePod looks at what became of a start while a pod of the name answered.
func (s *sweepCase) onePod() *finding {
	if s.succeeded() {
		return s.found("1", "the client has started a second pod of the name; it may refuse that while one answers")
	}
	return nil
}

// arguments looks at what the pod was told on its command line.
func (s *sweepCase) arguments() *finding {
	given := s.seen.Args
	if given == nil {
		return nil // it was not started, or has not come to tell
	}
	shown := strings.Join(given, " ")
	if len(given) == 0 || given[0] != "pod" {
		return s.found("1", "the pod was given: %s; the prefix argument pod must come first, since YOI_POD_RUNTIME_COMMAND replaces the program only", shown)
	}
	workspace, name := value(given, "--workspace"), value(given, "--pod")
	switch info, err := os.Stat(workspace); {
	case name != s.pod:
		return s.found("1", "the pod was given: %s; it must be given --pod %s", shown, s.pod)
	case strings.HasPrefix(workspace, "--") || workspace == "" || filepath.IsAbs(workspace) && (err != nil || !info.IsDir()):
		return s.found("1", "the pod was given: %s; it must be given --workspace with a directory that is there", shown)
	}
	return nil
}

func value(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}
