package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// surroundings are what a client is started with, beside its arguments and environment.
// They depend on the case alone, and not on who runs podclient.
type surroundings struct {
	Umask            int
	Blocked, Ignored []syscall.Signal
	Files            uint64 // RLIMIT_NOFILE, also the hard one; 0 = as it is
	Core             uint64 // RLIMIT_CORE, if the hard one is as large; 0 = as it is
	Stray            bool   // it inherits descriptors
	// Command is what YOI_POD_RUNTIME_COMMAND holds in place of the path of the pod's
	// program: a path, at which a link is made, or a name, which is found in PATH then;
	// "" = that path.
	Command string
	// Failed is the file for the error of a client that cannot be started, and Environ that
	// for the client's environment.
	Failed, Environ string
}

// launcher is the first argument that makes podclient the program that becomes a client.
// The second one is the surroundings, as JSON, and the client's command follows.
const launcher = "podclient-launcher"

func init() {
	if len(os.Args) > 3 && os.Args[1] == launcher {
		var s surroundings
		err := json.Unmarshal([]byte(os.Args[2]), &s)
		if err == nil {
			err = s.become(os.Args[3:])
		}
		_ = os.WriteFile(s.Failed, []byte(err.Error()), 0o600)
		os.Exit(127)
	}
}

// launch returns the command that becomes the client.
func (s surroundings) launch(client []string) (program string, args []string) {
	program = "/proc/self/exe" // whatever is at its path by now
	if _, err := os.Stat(program); err != nil {
		program, _ = os.Executable()
	}
	text, _ := json.Marshal(s) // of numbers and paths
	return program, append([]string{launcher, string(text)}, client...)
}

// become makes this process the client. It returns only if that cannot be.
func (s surroundings) become(client []string) error {
	// All signals that Go handles have their default again in the client.
	signal.Notify(make(chan os.Signal, 1))
	for _, sig := range s.Ignored {
		signal.Ignore(sig)
	}
	if err := s.redirect(); err != nil {
		return err
	}
	for _, limit := range s.limits() {
		if !limit.may() {
			continue
		}
		if err := syscall.Setrlimit(limit.number, &syscall.Rlimit{Cur: limit.soft, Max: limit.hard}); err != nil {
			return fmt.Errorf("limit %s: %w", limit.name, err)
		}
	}
	proc.CloseInherited()
	for n := 0; s.Stray && n < 3; n++ {
		if _, err := unix.Open(os.DevNull, unix.O_RDONLY, 0); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(client[0])
	if err == nil {
		err = os.WriteFile(s.Environ, []byte(strings.Join(os.Environ(), "\x00")), 0o600)
	}
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := block(s.Blocked); err != nil {
		return err
	}
	unix.Umask(s.Umask)
	err = syscall.Exec(program, client, os.Environ())
	return &os.PathError{Op: "exec", Path: program, Err: err}
}

// limit is one that a client is started with.
type limit struct {
	number     int
	name       string // in /proc/PID/limits, without Max
	soft, hard uint64 // 0 = as it is
}

func (s surroundings) limits() []limit {
	var core syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_CORE, &core)
	// The hard limit, too, of files: Node raises its own up to that.
	return []limit{{syscall.RLIMIT_NOFILE, "open files", s.Files, s.Files}, {syscall.RLIMIT_CORE, "core file size", s.Core, core.Max}}
}

// may reports whether the limit is to be set, and can be.
func (l limit) may() bool {
	var now syscall.Rlimit
	return l.soft > 0 && syscall.Getrlimit(l.number, &now) == nil && now.Max >= l.soft
}

// redirect has YOI_POD_RUNTIME_COMMAND name the pod's program another way.
func (s surroundings) redirect() error {
	if s.Command == "" {
		return nil
	}
	path := s.Command
	if filepath.Base(path) == path {
		dir := filepath.Dir(s.Failed)
		path = filepath.Join(dir, path)
		os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Symlink(os.Getenv(spawn.RuntimeCommandEnv), path); err != nil {
		return err
	}
	return os.Setenv(spawn.RuntimeCommandEnv, s.Command)
}
