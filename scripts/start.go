package scripts

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/options"
)

// starting is what the flags of podstart say.
type starting struct {
	spawn         spawn.Config
	config        harness.Config
	fake          string
	workspaceFrom string
	unset         []string
	hold          *holder // at the ready line; nil = nothing is held
}

// defaults returns what flags that are not given say.
func (o Options) defaults() starting {
	s := starting{config: o.Pod, spawn: spawn.Config{WorkspaceRoot: o.Pod.Workspace, ReadyTimeout: o.Pod.ReadyTimeout}}
	options.Of(o.Pod).To(&s.spawn)
	return s
}

func (c *call) startFlags(flags *flag.FlagSet) {
	c.starting = c.options.defaults()
	s := &c.starting
	c.fakeFlag(flags)
	s.spawn.Flags(flags)
	flags.Func("env", "a `NAME=VALUE` of its environment, or a NAME to pass on", func(entry string) error {
		s.config.Env = append(s.config.Env, entry)
		return nil
	})
	flags.Func("unset", "a variable `NAME` that is not in its environment; repeatable", func(name string) error {
		s.unset = append(s.unset, "-u", name)
		return nil
	})
	flags.Func("shutdown", "a `LINE` that podstop writes first", func(line string) error {
		s.config.Shutdown = []byte(line + "\n")
		return nil
	})
	flags.Func("signal", "the `SIGNAL` that podstop sends (INT)", func(name string) error {
		sig, err := parseSignal(name)
		s.config.StopSignal = sig
		return err
	})
	flags.DurationVar(&s.config.StopGrace, "grace", cmp.Or(s.config.StopGrace, sandbox.StopGrace), "the `DURATION` of each step of podstop")
	flags.Func("stop-status", "a `STATUS` that podstop may end it with, beside 0, or any; repeatable", func(text string) error {
		status, err := strconv.Atoi(text)
		if text == "any" {
			status, err = -1, nil
		}
		s.config.StopStatus = append(slices.Clip(s.config.StopStatus), status)
		return err
	})
	flags.BoolVar(&s.config.MustStopGracefully, "must-stop-gracefully", s.config.MustStopGracefully, "podstop must not end it by a signal")
	flags.BoolVar(&s.config.AllowLeaks, "allow-leaks", s.config.AllowLeaks, "the pod may leave processes behind")
	flags.BoolVar(&s.config.AllowReadyAgain, "allow-ready-again", s.config.AllowReadyAgain, "the pod may write a second ready line")
	flags.BoolVar(&s.config.ShowArgs, "show-args", s.config.ShowArgs, "evidence shows its arguments beyond the handshake's")
	flags.StringVar(&s.workspaceFrom, "workspace-from", "", "a `DIR` that is copied into its workspace in the sandbox")
	flags.Func("home-from", "a `DIR` that is copied into HOME", func(dir string) error {
		var err error
		s.config.HomeFrom, err = c.tree(dir)
		return err
	})
	flags.Func("hold", "`WHAT` is done while the pod writes its ready line: look, or a signal", func(what string) error {
		s.hold = &holder{what: what}
		if what == holdLook {
			return nil
		}
		_, err := parseSignal(what)
		return err
	})
}

func (c *call) fakeFlag(flags *flag.FlagSet) {
	flags.StringVar(&c.starting.fake, "fake", "", "the fake pod, with a `PROGRAM` or mode")
}

func (c *call) commandFlags(flags *flag.FlagSet) {
	c.fakeFlag(flags)
	c.starting.spawn.Command.Flags(flags)
}

func (c *call) start() error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	p, err := harness.TryStartPod(c.tb, cfg)
	var start *spawn.Error
	if err != nil && (!errors.As(err, &start) || start.Unseen != "" || errors.Is(err, fault.ErrUnsupported)) {
		return fatalError{error: err, kit: true} // nothing was started, or not with the faults
	}
	if err := c.checkHeld(err); err != nil {
		return err
	}
	if err == nil {
		c.keep(p)
		c.leaky[p] = cfg.AllowLeaks
	}
	return err
}

// checkHeld skips a script, or notes why it must not be judged, if its pod had to be held and
// was not. start is the error of the pod's start.
func (c *call) checkHeld(start error) error {
	if c.starting.hold == nil {
		return nil
	}
	held, failed := c.starting.hold.result()
	switch {
	case failed != nil:
		return fatalError{error: failed, kit: true}
	case !held && start == nil:
		c.tb.t.Skip("the pod was not held in its write of the ready line: it writes that in a way that is not seen")
	case !held:
		c.tb.unheld = fmt.Errorf("the pod has not come to its ready line where its writes are held, which also disarms setuid programs: %w", start)
	}
	return nil
}

// config returns what podstart starts.
func (c *call) config() (harness.Config, error) {
	s, cfg := &c.starting, c.starting.config
	switch {
	case c.args[0] == "":
		return cfg, c.usagef("the pod's name is empty")
	case c.pod != nil && runs(c.pod):
		return cfg, c.usagef("pod %q still runs: stop it first", c.args[0])
	case s.workspaceFrom != "" && s.spawn.WorkspaceRoot != "":
		return cfg, c.usagef("-workspace and -workspace-from exclude each other")
	}
	var err error
	if cfg.Command, err = c.command(); err != nil {
		return cfg, err
	}
	cfg.Name = c.args[0]
	options.Of(s.spawn).To(&cfg)
	if s.hold != nil {
		cfg.Faults = slices.Concat(cfg.Faults, s.hold.faults())
	}
	cfg.Workspace, cfg.Dir = c.abs(s.spawn.WorkspaceRoot), c.abs(s.spawn.Dir)
	if cfg.Workspace != "" {
		cfg.WorkspaceFrom = nil // that of Options
	}
	if s.workspaceFrom != "" {
		if cfg.WorkspaceFrom, err = c.tree(s.workspaceFrom); err != nil {
			return cfg, c.usagef("-workspace-from: %v", err)
		}
	}
	cfg.Env, cfg.ReadyTimeout = slices.Concat(c.options.Env, cfg.Env), s.spawn.ReadyTimeout
	return cfg, nil
}

// tree returns a directory that is copied.
func (c *call) tree(dir string) (fs.FS, error) {
	dir = c.abs(dir)
	if _, err := os.ReadDir(dir); err != nil {
		return nil, err
	}
	return os.DirFS(dir), nil
}

// command returns the command that flags choose.
func (c *call) command() (spawn.Command, error) {
	s, command := &c.starting, c.options.Command
	switch {
	case s.fake != "" && s.spawn.Command.Program != "":
		return command, c.usagef("-fake and -pod exclude each other")
	case s.fake != "":
		command = harness.FakePod(s.fake)
	case strings.Contains(s.spawn.Command.Program, "/"):
		command = spawn.Command{Program: c.ts.MkAbs(s.spawn.Command.Program)}
	case s.spawn.Command.Program != "":
		command = spawn.Command{Program: s.spawn.Command.Program}
	case command.Program == "":
		command = harness.FakePod("ready")
	}
	command.PrefixArgs = slices.Concat(command.PrefixArgs, s.spawn.Command.PrefixArgs)
	if len(s.unset) > 0 {
		command = spawn.Command{Program: "env", PrefixArgs: slices.Concat(s.unset, []string{command.Program}, command.PrefixArgs)}
	}
	return command, nil
}

// setCommand sets the variable that clients go by.
func (c *call) setCommand() error {
	command, err := c.command()
	if err != nil {
		return err
	}
	c.otherCommand = c.starting.fake != "" || c.starting.spawn.Command.Program != ""
	for _, entry := range harness.ClientEnv(c.tb, command) {
		if value, ok := strings.CutPrefix(entry, spawn.RuntimeCommandEnv+"="); ok {
			c.ts.Setenv(spawn.RuntimeCommandEnv, value)
		}
	}
	return nil
}
