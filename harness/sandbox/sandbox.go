// Package sandbox is the inside of harness and scripts: no promise is made about it. A Box
// is the directories of one test: what its pods find there, and what is not theirs. The
// package also cuts waits so that they end before the deadline of a test.
package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/safefile"
)

// dirs are the directories of a box.
var dirs = []string{"run", "workspace", "home", "tmp", "yoi", "xdg"}

// A Box is the directories of one test. Its methods are safe for concurrent use.
type Box struct {
	Made time.Time
	base string // a directory of the harness; a pod may put a link there, too
	name string // of the root of all that is the pods', below base
	mine string // what is not theirs, below base
	own  func() (*safefile.Dir, error)

	mu         sync.Mutex        // guards workspaces
	workspaces map[string]string // of the pods' own, by the pod's name
}

// New makes the directories of a box at name, below base. What is not the pods' is at own,
// below base, too.
func New(base, name, own string) (*Box, error) {
	b := &Box{Made: time.Now(), base: base, name: name, mine: own, workspaces: map[string]string{}}
	// All, since what cleans a temporary directory up may remove an idle one.
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, err
	}
	dir, err := safefile.OpenDir(base)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	root, err := dir.MkdirAll(name, 0o700)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for _, name := range dirs {
		if err := root.Mkdir(name, 0o700); err != nil {
			_ = dir.RemoveAll(b.name)
			return nil, err
		}
	}
	b.own = sync.OnceValues(func() (*safefile.Dir, error) {
		dir, err := safefile.OpenDir(base)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return dir.MkdirAll(own, 0o700)
	})
	return b, nil
}

// root is the path of all that is the pods'.
func (b *Box) root() string { return filepath.Join(b.base, b.name) }

// Dir returns one of the directories: run, which is the runtime directory, workspace, home,
// tmp, yoi or xdg.
func (b *Box) Dir(name string) string { return filepath.Join(b.root(), name) }

// Open opens the directory at a path below all that is the pods'. It is an error if a link is
// on the way. The caller closes it.
func (b *Box) Open(path string) (*safefile.Dir, error) {
	base, err := safefile.OpenDir(b.base)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	return base.Dir(b.name + "/" + path)
}

// Own returns the directory of what is not the pods', made when it is first needed.
func (b *Box) Own() (*safefile.Dir, error) { return b.own() }

// Remove removes all of it but what is mounted there, which the error names.
func (b *Box) Remove() error {
	if own, err := b.own(); err == nil {
		defer own.Close()
	}
	base, err := safefile.OpenDir(b.base)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer base.Close()
	err = base.RemoveAll(b.name)
	// Not by the path of own: a pod may have put a link on the way.
	mine, ownErr := base.Dir(path.Dir(b.mine))
	switch {
	case errors.Is(ownErr, fs.ErrNotExist):
		return err
	case ownErr != nil:
		return errors.Join(err, ownErr)
	}
	defer mine.Close()
	return errors.Join(err, mine.RemoveAll(path.Base(b.mine)))
}

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

// passedOn are the variables that a pod gets as the test has them.
var passedOn = []string{"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "GOCOVERDIR"}

// Environ returns the environment of a pod. Of extra, NAME=VALUE sets a variable, and NAME
// passes on this process's own.
func (b *Box) Environ(extra []string) []string {
	env := []string{"LANG=C.UTF-8"}
	pass := func(name string) {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range passedOn {
		pass(name)
	}
	env = append(env,
		"HOME="+b.Dir("home"),
		"TMPDIR="+b.Dir("tmp"),
		"YOI_HOME="+b.Dir("yoi"),
		"XDG_RUNTIME_DIR="+b.Dir("xdg"),
		"YOI_RUNTIME_DIR="+b.Dir("run"),
	)
	for _, entry := range extra {
		if strings.Contains(entry, "=") {
			env = append(env, entry)
		} else {
			pass(entry)
		}
	}
	return env
}

// StandIn returns an executable that starts a command with the arguments that it is
// given: the variable that names it is a path, never a command line.
func (b *Box) StandIn(command spawn.Command) (string, error) {
	if strings.Contains(command.Program, "/") {
		var err error
		if command.Program, err = filepath.Abs(command.Program); err != nil {
			return "", err
		}
	}
	own, err := b.Own()
	if err != nil {
		return "", err
	}
	var words []string
	for _, word := range append([]string{command.Program}, command.PrefixArgs...) {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	script := "#!/bin/sh\n# Starts the pod of this test with the arguments that a client gives.\n"
	if slices.ContainsFunc(command.PrefixArgs, func(arg string) bool { return arg == "pod" || arg == "worker" }) {
		// The prefix argument of a client's command is there already.
		script += "[ \"$1\" = pod ] && shift\n"
	}
	script += "exec " + strings.Join(words, " ") + ` "$@"` + "\n"
	dir := fmt.Sprintf("command%x", rand.Uint64())
	if err := own.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	file, err := own.Create(dir+"/pod.tmp", 0o700)
	if err != nil {
		return "", err
	}
	_, err = file.WriteString(script)
	if err = errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	// Renamed, not written in place: nobody has it open for writing then.
	return filepath.Join(own.Name(), dir, "pod"), own.Rename(dir, "pod.tmp", "pod")
}
