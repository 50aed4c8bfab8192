package spawn

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/options"
	"example.com/podharness/spawn/podlog"
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
	// PodName is the name of the pod and of its directory below the runtime
	// directory. It is one path element and not empty. A name is refused if a pod of it
	// answers, or is being started: see ErrAlreadyRuns and AllowSecond.
	PodName string
	// AllowSecond starts the pod even if another one of its name runs, or is being
	// started. It takes over the log, and it is for the pod itself to refuse.
	AllowSecond bool
	// Profile selects a profile; "" = none. It is ignored when a session is resumed.
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
	// Dir is the pod's working directory; "" = WorkspaceRoot. A relative path is
	// taken from this process's working directory. No argument tells it to the pod.
	Dir string
	// ResumeFrom is the session to resume, the nil UUID included; nil = a new
	// pod.
	ResumeFrom *uuid.UUID
	// Env is the pod's environment; nil = os.Environ(). It also decides where
	// the runtime directory is: see RuntimeDir.
	Env []string
	// Faults are met by system calls of the pod and of whatever it starts (Linux; elsewhere
	// the start fails with an error that matches fault.ErrUnsupported and ErrLaunch). In
	// their paths {workspace}, {runtime} and {name} stand for the pod's workspace, runtime
	// directory and name. A pod with faults is killed when this process ends. Package fault
	// says what else differs.
	Faults []fault.Fault
	// ReadyTimeout is how long the ready line and the socket may take together,
	// from the start of the process; 0 = DefaultReadyTimeout. Time in which this process
	// was stopped, as by SIGSTOP, or held up by Progress, does not count, but for two seconds
	// at a time, nor does that in which the machine was suspended. Before a start times out, all that
	// the log holds then is read, and the socket is tried once more.
	ReadyTimeout time.Duration
	// Progress is called from the goroutine of Start with each line that the pod logs
	// before it is ready, in order, except the ready line. Invalid UTF-8 is replaced
	// by U+FFFD; a line longer than 64 KiB is cut and marked. If the pod has ended and
	// its log is too long to be read in time, the lines in the middle are left out.
	// nil = the lines are not reported.
	Progress func(line string)
}

// Args returns the handshake arguments, which follow the prefix arguments of the
// command on the pod's command line:
//
//	--workspace DIR --pod NAME [--profile P] [--ticket-role R]
//	--workspace DIR --session UUID --pod NAME [--ticket-role R]
//
// NameFlag replaces --pod, and ExtraArgs come last.
func (c Config) Args() []string { return options.Of(c).Args(c.WorkspaceRoot, c.PodName) }

// Flags registers flags for the fields of c, and those of its Command (see
// [Command.Flags]). The values in c are the defaults.
func (c *Config) Flags(flags *flag.FlagSet) {
	c.Command.Flags(flags)
	flags.StringVar(&c.WorkspaceRoot, "workspace", c.WorkspaceRoot, "the pod's workspace `DIR`")
	options.Flags(c, flags)
	flags.DurationVar(&c.ReadyTimeout, "timeout", cmp.Or(c.ReadyTimeout, DefaultReadyTimeout), "the `DURATION` that becoming ready may take")
}

// check returns an error that names the field of the config that cannot be right.
func (c Config) check() error {
	switch {
	case c.Command.Program == "":
		return errors.New("Command.Program is empty")
	case c.WorkspaceRoot == "":
		return errors.New("WorkspaceRoot is empty")
	case c.ReadyTimeout < 0:
		return fmt.Errorf("ReadyTimeout %v is negative", c.ReadyTimeout)
	}
	for _, entry := range c.Env {
		if name, _, _ := strings.Cut(entry, "="); strings.ContainsRune(entry, 0) { // the value may be a secret
			return fmt.Errorf("%s %q holds a NUL byte", "Env", name)
		}
	}
	return cmp.Or(
		options.CheckName(c.PodName), options.Of(c).Check(), options.CheckNUL("Command.Program", c.Command.Program),
		options.CheckNUL("Command.PrefixArgs", c.Command.PrefixArgs...), options.CheckNUL("WorkspaceRoot", c.WorkspaceRoot),
	)
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
func (c Config) plan(shown string) (plan, error) {
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
		if *path, err = options.Absolute(*path); err != nil {
			return plan{}, launchError(shown, err)
		}
	}
	// As os/exec has it: the last of equal variables counts, and PWD is right
	// where the environment is inherited.
	p := plan{Config: c, environ: (&exec.Cmd{Dir: c.Dir, Env: c.Env}).Environ()}
	runtimeDir, err := RuntimeDir(p.environ)
	if err != nil {
		return plan{}, err
	}
	runtimeDir = options.Below(c.Dir, runtimeDir) // as the pod will take it
	p.podDir = options.Below(runtimeDir, c.PodName)
	p.Faults = slices.Clone(c.Faults)
	for i, f := range p.Faults {
		p.Faults[i] = f.Expand(map[string]string{"workspace": c.WorkspaceRoot, "runtime": runtimeDir, "name": c.PodName})
	}
	if len(p.Faults) > 0 {
		if _, err := fault.New(p.Faults, nil); err != nil && !errors.Is(err, fault.ErrUnsupported) {
			return plan{}, fmt.Errorf("%w: %w", ErrInvalidConfig, err)
		}
	}
	if p.program, err = lookUp(c.Command.Program); err == nil {
		err = checkDir(c.Dir)
	}
	if err != nil {
		err = launchError(shown, err)
	}
	return p, err
}

// lookUp returns the absolute path of a program. Its error says where it is not.
func lookUp(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err == nil {
		return options.Absolute(path)
	}
	if errors.Is(err, fs.ErrPermission) {
		if info, statErr := os.Stat(program); statErr == nil && info.Mode()&0o111 != 0 && isNoexec(program) {
			return "", fmt.Errorf("%w (its file system is mounted noexec)", err)
		}
	}
	if dir, wdErr := os.Getwd(); wdErr == nil && strings.Contains(program, "/") && !filepath.IsAbs(program) {
		return "", fmt.Errorf("%w (looked up from the working directory of this process, %s)", err, podlog.PathText(dir))
	}
	return "", err
}

// checkDir returns an error if the working directory is missing or must not be
// entered. The system's own error does not say whether the directory or the program is
// meant.
func checkDir(dir string) error {
	if err := unix.Access(dir+"/.", unix.X_OK); err != nil {
		return fmt.Errorf("working directory: %w", &fs.PathError{Op: "chdir", Path: dir, Err: err})
	}
	return nil
}

// launchError names the command as it may be shown.
func launchError(command string, err error) error {
	return fmt.Errorf("%w `%s`: %w", ErrLaunch, command, explainDescriptors(err))
}
