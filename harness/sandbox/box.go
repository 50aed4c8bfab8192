// Package sandbox is the inside of harness and scripts: no promise is made about it. A Box
// is the directories of one test: what its pods find there, and what is not theirs. The
// package also cuts waits so that they end before the deadline of a test.
package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"example.com/podharness/spawn/safefile"
)

// dirs are the directories of a box.
var dirs = []string{"run", "workspace", "home", "home/.yoi", "tmp", "xdg"}

// A Box is the directories of one test. Its methods are safe for concurrent use.
type Box struct {
	Made time.Time
	// Fails returns an error that fails the test, as a message. It names the log in the
	// evidence, which outlives the test.
	Fails func(error) error
	// Log tells the test.
	Log func(format string, args ...any)

	base string // a directory of the harness; a pod may put a link there, too
	name string // of the root of all that is the pods', below base
	mine string // what is not theirs, below base
	own  func() (*safefile.Dir, error)

	mu         sync.Mutex        // guards both
	workspaces map[string]string // of the pods' own, by the pod's name
	inUse      []*os.File        // that Remove closes
}

// New makes the directories of a box at name, below base. What is not the pods' is at own,
// below base, too.
func New(base, name, own string) (*Box, error) {
	b := &Box{Made: time.Now(), base: base, name: name, mine: own, workspaces: map[string]string{}}
	// What cleans a temporary directory up may remove an idle one.
	if err := safefile.Mkdir(base, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
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
		made, err := root.MkdirAll(name, 0o700)
		if err != nil {
			_ = dir.RemoveAll(b.name)
			return nil, err
		}
		made.Close()
	}
	b.own = sync.OnceValues(func() (*safefile.Dir, error) {
		dir, err := safefile.OpenDir(base)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		return dir.MkdirAll(own, 0o700)
	})
	if _, err := b.own(); err != nil { // each test needs it: without, its evidence would be lost without a word
		_ = dir.RemoveAll(b.name)
		return nil, err
	}
	return b, nil
}

// root is the path of all that is the pods'.
func (b *Box) root() string { return filepath.Join(b.base, b.name) }

// Dir returns one of the directories: run, which is the runtime directory, workspace, home,
// tmp or xdg.
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

// Own returns the directory of what is not the pods'.
func (b *Box) Own() (*safefile.Dir, error) { return b.own() }

// Remove removes all of it but what is mounted there, which the error names.
func (b *Box) Remove() error {
	b.mu.Lock()
	for _, file := range b.inUse {
		file.Close()
	}
	b.inUse = nil
	b.mu.Unlock()
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
