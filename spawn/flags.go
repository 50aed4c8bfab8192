package spawn

import (
	"cmp"
	"flag"

	"github.com/google/uuid"
)

// Flags registers -pod and -pod-arg, which are parsed into c. It is there for
// the commands of this module, and for those who write one like them.
func (c *Command) Flags(flags *flag.FlagSet) {
	flags.StringVar(&c.Program, "pod", c.Program, "the pod's `PROGRAM`")
	flags.Func("pod-arg", "a prefix `ARG` of it; repeatable", func(arg string) error {
		c.PrefixArgs = append(c.PrefixArgs, arg)
		return nil
	})
}

// Flags registers the flags that describe a start, those of its Command included,
// as [Command.Flags] does. What c holds are the defaults.
func (c *Config) Flags(flags *flag.FlagSet) {
	c.Command.Flags(flags)
	flags.StringVar(&c.WorkspaceRoot, "workspace", c.WorkspaceRoot, "the pod's workspace `DIR`")
	flags.StringVar(&c.Dir, "dir", c.Dir, "the pod's `DIR` to work in (default: the workspace)")
	flags.StringVar(&c.Profile, "profile", c.Profile, "the pod's `PROFILE`")
	flags.StringVar(&c.TicketRole, "ticket-role", c.TicketRole, "the pod's ticket `ROLE`")
	flags.StringVar(&c.NameFlag, "name-flag", cmp.Or(c.NameFlag, "--pod"), "the `FLAG` by which the pod is told its name")
	flags.Func("extra-arg", "an `ARG` after the handshake's; repeatable", func(arg string) error {
		c.ExtraArgs = append(c.ExtraArgs, arg)
		return nil
	})
	flags.Func("session", "the `UUID` of the session to resume", func(s string) error {
		id, err := uuid.Parse(s)
		c.ResumeFrom = &id
		return err
	})
	flags.DurationVar(&c.ReadyTimeout, "timeout", cmp.Or(c.ReadyTimeout, DefaultReadyTimeout), "the `DURATION` that becoming ready may take")
}
