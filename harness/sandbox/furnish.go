package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"example.com/podharness/fakepod"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/safefile"
)

// Furnish returns the workspace that the pods of a name have for themselves. When
// there is none yet it is made, with a copy of what should be there and in HOME.
func (b *Box) Furnish(name string, workspace, home fs.FS) (path string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if dir := b.workspaces[name]; dir != "" {
		return dir, nil
	}
	box, err := b.Open(".")
	if err != nil {
		return "", err
	}
	defer box.Close()
	dir := fmt.Sprint("workspace", len(b.workspaces)+1) // a pod's name may be no path element
	for _, tree := range []struct {
		field, dir string
		from       fs.FS
	}{{"WorkspaceFrom", dir, workspace}, {"HomeFrom", "home", home}} {
		// It may be there: a copy has failed before.
		to, err := box.MkdirAll(tree.dir, 0o700)
		if err == nil {
			err = errors.Join(copyFS(to, tree.from), to.Close())
		}
		if err != nil {
			return "", fmt.Errorf("copy %s: %w", tree.field, err)
		}
	}
	b.workspaces[name] = b.Dir(dir)
	return b.Dir(dir), nil
}

// Prepare makes what a pod finds when it starts, and completes the config of the start: with
// a workspace, if it has none, and the environment. In its arguments and variables the words
// {workspace}, {home}, {runtime} and {name} are replaced, but not in a program of the fake pod.
// workspace and home are as for Furnish.
func (b *Box) Prepare(cfg spawn.Config, workspace, home fs.FS) (spawn.Config, error) {
	own, err := b.Furnish(cfg.PodName, workspace, home)
	if err != nil {
		return cfg, err
	}
	cfg.WorkspaceRoot = cmp.Or(cfg.WorkspaceRoot, own)
	words := strings.NewReplacer("{workspace}", cfg.WorkspaceRoot, "{home}", b.Dir("home"), "{runtime}", b.Dir("run"), "{name}", cfg.PodName)
	expand := func(texts []string) (expanded []string) {
		for _, text := range texts {
			expanded = append(expanded, words.Replace(text))
		}
		return expanded
	}
	if _, fake := FakeProgram(cfg.Command); !fake {
		cfg.Command.PrefixArgs = expand(cfg.Command.PrefixArgs)
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

// copyFS is os.CopyFS, but files that are there already stay, of a link the file that it
// leads to is copied, and no link that a pod has made is followed.
func copyFS(dir *safefile.Dir, from fs.FS) error {
	if from == nil {
		return nil
	}
	return fs.WalkDir(from, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := fs.Stat(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			made, err := dir.MkdirAll(path, info.Mode().Perm()|0o700)
			if err != nil {
				return err
			}
			return made.Close()
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", path)
		}
		text, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		file, err := dir.Create(path, info.Mode().Perm())
		if err != nil {
			if errors.Is(err, fs.ErrExist) {
				return nil
			}
			return err
		}
		_, err = file.Write(text)
		return errors.Join(err, file.Close())
	})
}
