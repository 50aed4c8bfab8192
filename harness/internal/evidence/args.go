package evidence

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// Args say what of command lines evidence and messages show.
type Args struct {
	All      bool   // Config.ShowArgs
	NameFlag string // by which the pod is told its name; "" = "--pod"
}

// handshakeFlags are the flags of [spawn.Config.Args] but for Config.NameFlag. Each is
// followed by its value.
var handshakeFlags = []string{"--workspace", "--pod", "--profile", "--ticket-role", "--session"}

var (
	longFlag      = regexp.MustCompile(`^--[a-z][a-z0-9-]*$`)
	longFlagEqual = regexp.MustCompile(`^--[a-z][a-z0-9-]*=`)
)

// Command returns a command line, with spaces between the words. Words that may be
// secrets are replaced by their length.
func (s Args) Command(args []string) string {
	if s.All {
		return strings.Join(args, " ")
	}
	shown := make([]string, len(args))
	isValue := true // of the handshake, or the program
	for i, arg := range args {
		flag := longFlagEqual.FindString(arg)
		isFlag := slices.Contains(handshakeFlags, arg) || s.NameFlag != "" && arg == s.NameFlag
		if isValue || isFlag || arg == "pod" || arg == "worker" || longFlag.MatchString(arg) {
			shown[i] = arg
		} else {
			shown[i] = fmt.Sprintf("%s(%d bytes)", flag, len(arg)-len(flag))
		}
		isValue = isFlag && !isValue
	}
	return strings.Join(shown, " ")
}

// Words returns a command as a message shows it.
func (s Args) Words(c spawn.Command) string {
	if s.All {
		return c.String()
	}
	return podlog.Printable(s.Command(append([]string{c.Program}, c.PrefixArgs...)))
}

// Describe returns what processes do, with the command lines that command returns.
func Describe(processes []proc.Process, command func(proc.Process) string) string {
	var text strings.Builder
	proc.Describe(&text, processes, command)
	return text.String()
}
