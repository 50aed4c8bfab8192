package sandbox

import (
	"cmp"
	"io/fs"
	"slices"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn"
)

// Prepare makes what a pod finds when it starts, and completes the config of the start: with
// a workspace, if it has none, and the environment. In its arguments and variables the words
// {workspace}, {home}, {runtime} and {name} are replaced, but not in a program of the fake pod.
// workspace and home are as for Furnish.
func (b *Box) Prepare(cfg spawn.Config, workspace, home fs.FS) (spawn.Config, error) {
	own, leftOut, err := b.Furnish(cfg.PodName, workspace, home)
	if err != nil {
		return cfg, err
	}
	if leftOut != "" {
		b.Log("harness: %s", leftOut)
	}
	cfg.WorkspaceRoot = cmp.Or(cfg.WorkspaceRoot, own)
	expand := b.placeholders(cfg)
	if _, fake := FakeProgram(cfg.Command); !fake {
		cfg.Command.PrefixArgs = expand(cfg.Command.PrefixArgs)
	}
	cfg.Faults = slices.Clone(cfg.Faults)
	for i, f := range cfg.Faults {
		cfg.Faults[i] = f.Expand(map[string]string{"home": b.Dir("home")})
	}
	cfg.ExtraArgs, cfg.Env = expand(cfg.ExtraArgs), b.Environ(expand(cfg.Env))
	return cfg, nil
}

// FakeProgram returns the program of a command of the fake pod.
func FakeProgram(command spawn.Command) (program string, fake bool) {
	name, args := fakepod.Command("")
	last := len(args) - 1
	if command.Program != name || len(command.PrefixArgs) <= last || !slices.Equal(command.PrefixArgs[:last], args[:last]) {
		return "", false
	}
	return command.PrefixArgs[last], true
}
