package harness

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// shownArgs says what of command lines evidence and messages show.
type shownArgs struct {
	all      bool   // Config.ShowArgs
	nameFlag string // by which the pod is told its name; "" = "--pod"
}

func (c Config) shownArgs() shownArgs { return shownArgs{c.ShowArgs, c.NameFlag} }

// handshakeFlags are the flags of [spawn.Config.Args] but for Config.NameFlag. Each is
// followed by its value.
var handshakeFlags = []string{"--workspace", "--pod", "--profile", "--ticket-role", "--session"}

var (
	longFlag      = regexp.MustCompile(`^--[a-z][a-z0-9-]*$`)
	longFlagEqual = regexp.MustCompile(`^--[a-z][a-z0-9-]*=`)
)

// command returns a command line, with spaces between the words. Words that may be
// secrets are replaced by their length.
func (s shownArgs) command(args []string) string {
	if s.all {
		return strings.Join(args, " ")
	}
	shown := make([]string, len(args))
	isValue := true // of the handshake, or the program
	for i, arg := range args {
		flag := longFlagEqual.FindString(arg)
		isFlag := slices.Contains(handshakeFlags, arg) || s.nameFlag != "" && arg == s.nameFlag
		if isValue || isFlag || arg == "pod" || arg == "worker" || longFlag.MatchString(arg) {
			shown[i] = arg
		} else {
			shown[i] = fmt.Sprintf("%s(%d bytes)", flag, len(arg)-len(flag))
		}
		isValue = isFlag && !isValue
	}
	return strings.Join(shown, " ")
}

// words returns a command as a message shows it.
func (s shownArgs) words(c spawn.Command) string {
	if s.all {
		return c.String()
	}
	return podlog.Printable(s.command(append([]string{c.Program}, c.PrefixArgs...)))
}

// inError takes the arguments out of the error of a start, if they may not be shown.
func (s shownArgs) inError(err error, c spawn.Command) {
	var e *spawn.Error
	if errors.As(err, &e) && e.Err != nil {
		if text := e.Err.Error(); strings.Contains(text, c.String()) {
			e.Err = reworded{strings.ReplaceAll(text, c.String(), s.words(c)), e.Err}
		}
	}
}

// show notes what is shown of the command lines of processes with a mark.
func (b *binary) show(mark string, s shownArgs) {
	if s == (shownArgs{}) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shown[mark] = s
	b.tell("%c%t %q %q", isShown, s.all, s.nameFlag, mark)
}

// commands returns what returns the command line of a process as it may be shown. The mark
// is that of processes that are known to belong to it and whose own is not known.
func (b *binary) commands(mark string) func(proc.Process) string {
	return func(p proc.Process) string {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.shown[cmp.Or(p.Mark, mark)].command(p.Args)
	}
}
