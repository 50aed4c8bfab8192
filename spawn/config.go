package spawn

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// DefaultReadyTimeout is how long a pod may take to become ready if
// [Config.ReadyTimeout] is zero.
const DefaultReadyTimeout = 20 * time.Second

// A Config says which pod to start, and how.
type Config struct {
	// Command launches the pod. Its Program must not be empty; ResolveCommand
	// has the default one.
	Command Command
	// PodName is the pod's name and that of its directory below the runtime
	// directory: one path element, not empty. Nothing keeps a second pod of the
	// name from being started there: it takes the log and the socket over.
	PodName string
	// Profile selects a profile; "" = none. It is dropped when a session is
	// resumed.
	Profile string
	// TicketRole marks the process with a role; "" = none.
	TicketRole string
	// NameFlag is the flag by which the pod is told its name; "" = "--pod".
	NameFlag string
	// ExtraArgs follow the handshake arguments.
	ExtraArgs []string
	// WorkspaceRoot is the pod's workspace. It must not be empty; a relative
	// path is taken from this process's working directory.
	WorkspaceRoot string
	// Dir is the pod's working directory; "" = WorkspaceRoot. It is not told to
	// the pod in any other way. A relative path is as for WorkspaceRoot.
	Dir string
	// ResumeFrom is the session to resume, the nil UUID included; nil = a new
	// pod.
	ResumeFrom *uuid.UUID
	// Env is the pod's environment; nil = os.Environ(). It also decides where
	// the runtime directory is: see RuntimeDir.
	Env []string
	// ReadyTimeout is how long the ready line and the socket may take together,
	// from the start of the process; 0 = DefaultReadyTimeout.
	ReadyTimeout time.Duration
	// Progress is called, from the goroutine of Start, with every line that the
	// pod logs before it is ready, but not with the ready line: in order, once
	// each, invalid UTF-8 shown as U+FFFD, a line longer than 64 KiB cut and
	// marked. Of a log that an ended pod has left too long to be read in time, the
	// middle is missing. nil = nobody wants to know.
	Progress func(line string)
}

// Args returns the handshake arguments: what the pod is told on its command
// line after the prefix arguments of the command,
//
//	--workspace DIR --pod NAME [--profile P] [--ticket-role R]
//	--workspace DIR --session UUID --pod NAME [--ticket-role R]
//
// with NameFlag in place of --pod, and then ExtraArgs.
func (c Config) Args() []string {
	args, name := []string{"--workspace", c.WorkspaceRoot}, cmp.Or(c.NameFlag, "--pod")
	if c.ResumeFrom != nil {
		args = append(args, "--session", c.ResumeFrom.String(), name, c.PodName)
	} else {
		args = append(args, name, c.PodName)
		if c.Profile != "" {
			args = append(args, "--profile", c.Profile)
		}
	}
	if c.TicketRole != "" {
		args = append(args, "--ticket-role", c.TicketRole)
	}
	return append(args, c.ExtraArgs...)
}

// check returns an error that names the field of the config that cannot be right.
func (c Config) check() error {
	switch {
	case c.Command.Program == "":
		return errors.New("Command.Program is empty")
	case c.WorkspaceRoot == "":
		return errors.New("WorkspaceRoot is empty")
	case checkPodName(c.PodName) != nil:
		return checkPodName(c.PodName)
	case c.NameFlag != "" && !strings.HasPrefix(c.NameFlag, "-"):
		return fmt.Errorf("NameFlag %q must begin with -", c.NameFlag)
	case c.ReadyTimeout < 0:
		return fmt.Errorf("ReadyTimeout %v is negative", c.ReadyTimeout)
	}
	return c.checkNUL()
}

func checkPodName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00\t\r\n") {
		return fmt.Errorf("PodName %q must be one path element: not empty, . or .., and without /, NUL, tab, CR or newline", name)
	}
	return nil
}

// checkNUL refuses what the system would take for the end of a text.
func (c Config) checkNUL() error {
	for _, field := range []struct {
		name   string
		values []string
	}{
		{"Command.Program", []string{c.Command.Program}},
		{"Command.PrefixArgs", c.Command.PrefixArgs},
		{"Profile", []string{c.Profile}},
		{"TicketRole", []string{c.TicketRole}},
		{"NameFlag", []string{c.NameFlag}},
		{"ExtraArgs", c.ExtraArgs},
		{"WorkspaceRoot", []string{c.WorkspaceRoot}},
		{"Dir", []string{c.Dir}},
		{"Env", c.Env},
	} {
		i := slices.IndexFunc(field.values, func(value string) bool { return strings.ContainsRune(value, 0) })
		if i < 0 {
			continue
		}
		value := field.values[i]
		if field.name == "Env" { // its values may be secrets
			value, _, _ = strings.Cut(value, "=")
		}
		return fmt.Errorf("%s %q holds a NUL byte", field.name, value)
	}
	return nil
}

// plan is a config that was checked, with its defaults filled in and all its
// paths absolute.
type plan struct {
	Config
	program string
	environ []string
	podDir  string
}

// plan works out what Start will do; it touches nothing.
func (c Config) plan() (plan, error) {
	if err := c.check(); err != nil {
		return plan{}, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	if c.ReadyTimeout == 0 {
		c.ReadyTimeout = DefaultReadyTimeout
	}
	if c.Dir == "" {
		c.Dir = c.WorkspaceRoot
	}
	for _, path := range []*string{&c.WorkspaceRoot, &c.Dir} {
		var err error
		if *path, err = absolute(*path); err != nil {
			return plan{}, c.launchError(err)
		}
	}
	// As os/exec has it: the last of equal variables counts, and PWD is right
	// where the environment is inherited.
	p := plan{Config: c, environ: (&exec.Cmd{Dir: c.Dir, Env: c.Env}).Environ()}
	runtimeDir, err := RuntimeDir(p.environ)
	if err != nil {
		return plan{}, err
	}
	p.podDir = below(below(c.Dir, runtimeDir), c.PodName) // as the pod will take it

	if p.program, err = exec.LookPath(c.Command.Program); err == nil {
		p.program, err = absolute(p.program)
	}
	if err == nil {
		err = checkDir(c.Dir)
	}
	if err != nil {
		err = c.launchError(err)
	}
	return p, err
}

// checkDir tells a missing or closed working directory from such a program: the
// system gives one error for both.
func checkDir(dir string) error {
	_, err := os.Stat(dir)
	if no := unix.Access(dir+"/.", unix.X_OK); err == nil && no != nil {
		err = &fs.PathError{Op: "chdir", Path: dir, Err: no}
	}
	if err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	return nil
}

func (c Config) launchError(err error) error {
	return fmt.Errorf("%w `%s`: %w", ErrLaunch, c.Command, err)
}

// RuntimeDir returns the runtime directory that a pod with the environment env
// (of the form "key=value", as in [os.Environ]) uses: $YOI_RUNTIME_DIR, else
// $YOI_HOME/run, else $XDG_RUNTIME_DIR/yoi, else $HOME/.yoi/run. An empty
// variable counts as unset, and of one that is there twice the last counts.
// The error is [ErrRuntimeDirUnavailable].
func RuntimeDir(env []string) (string, error) {
	for _, place := range []struct{ variable, below string }{
		{"YOI_RUNTIME_DIR", ""},
		{"YOI_HOME", "/run"},
		{"XDG_RUNTIME_DIR", "/yoi"},
		{"HOME", "/.yoi/run"},
	} {
		if base := lookupEnv(env, place.variable); base != "" {
			return clean(base + place.below), nil
		}
	}
	return "", ErrRuntimeDirUnavailable
}

func lookupEnv(env []string, key string) string {
	for _, entry := range slices.Backward(env) {
		if name, value, ok := strings.Cut(entry, "="); ok && name == key {
			return value
		}
	}
	return ""
}

// absolute returns path as it is from this process's working directory.
func absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return clean(path), nil
	}
	dir, err := os.Getwd()
	return below(dir, path), err
}

// below returns path as it is from dir.
func below(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = dir + "/" + path
	}
	return clean(path)
}

// clean is filepath.Clean but for a path with .. in it: where that leads behind
// a symbolic link, only the system knows.
func clean(path string) string {
	if slices.Contains(strings.Split(path, "/"), "..") {
		return path
	}
	return filepath.Clean(path)
}
