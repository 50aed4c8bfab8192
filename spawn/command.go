package spawn

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"example.com/podharness/spawn/podlog"
)

// RuntimeCommandEnv names the environment variable that replaces the program
// of [ResolveCommand]. It holds a path, never a shell command.
const RuntimeCommandEnv = "YOI_POD_RUNTIME_COMMAND"

// A Command is how a pod's process is launched: the program and the arguments
// that come before the handshake arguments of [Config.Args].
//
// A Program with a slash in it is relative to the working directory of this
// process, not of the pod; one without is looked up in this process's PATH.
type Command struct {
	Program    string
	PrefixArgs []string
}

// ResolveCommand returns the command that launches pods by default: the
// running executable with the prefix argument "pod". A non-empty
// YOI_POD_RUNTIME_COMMAND replaces the program and leaves the prefix argument.
// It fails, with an error that matches [ErrLaunch], only if the system does not know
// the path of the running executable.
func ResolveCommand() (Command, error) {
	program := os.Getenv(RuntimeCommandEnv)
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return Command{}, fmt.Errorf("%w: the running executable is unknown (set %s): %w", ErrLaunch, RuntimeCommandEnv, err)
		}
	}
	return Command{Program: program, PrefixArgs: []string{"pod"}}, nil
}

// String returns the command as a person would type it into a shell.
func (c Command) String() string {
	words := make([]string, 0, 1+len(c.PrefixArgs))
	for _, word := range append([]string{c.Program}, c.PrefixArgs...) {
		words = append(words, podlog.ShellWord(word))
	}
	return strings.Join(words, " ")
}

// Flags registers the flags -pod and -pod-arg, which are parsed into c.
func (c *Command) Flags(flags *flag.FlagSet) {
	flags.StringVar(&c.Program, "pod", c.Program, "the pod's `PROGRAM`")
	flags.Func("pod-arg", "a prefix `ARG` of it; repeatable", func(arg string) error {
		c.PrefixArgs = append(c.PrefixArgs, arg)
		return nil
	})
}
