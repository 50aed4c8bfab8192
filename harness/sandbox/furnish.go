package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
)

// An Error tells that a sandbox cannot be what a test needs, because of the files that it is
// to have, or of the machine. It is no fault of a pod or a client.
type Error struct {
	// Op is what cannot be done.
	Op string
	// Err is why.
	Err error
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Furnish returns the workspace that the pods of a name have for themselves. When
// there is none yet it is made, with a copy of what should be there and in HOME. leftOut says
// in a line what of that was not copied; "" = nothing. What cannot be copied is an [*Error].
func (b *Box) Furnish(name string, workspace, home fs.FS) (dir, leftOut string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if dir := b.workspaces[name]; dir != "" {
		return dir, "", nil
	}
	box, err := b.Open(".")
	if err != nil {
		return "", "", err
	}
	defer box.Close()
	dir = fmt.Sprint("workspace", len(b.workspaces)+1) // a pod's name may be no path element
	sandboxes, err := os.Stat(b.base)
	if err != nil {
		return "", "", err
	}
	var left []string
	for _, tree := range []struct {
		field, dir string
		from       fs.FS
	}{{"WorkspaceFrom", dir, workspace}, {"HomeFrom", "home", home}} {
		// It may be there: a copy has failed before.
		to, err := box.MkdirAll(tree.dir, 0o700)
		if err == nil && tree.from != nil {
			c := copying{from: treeOf(tree.from), except: sandboxes}
			err = c.dir(".", to)
			left = append(left, c.leftOut(tree.field)...)
		}
		if err != nil {
			op := "copy " + tree.field
			if tree.from == nil {
				op = "make the directory " + tree.dir
			}
			return "", "", &Error{op, err}
		}
		to.Close()
	}
	b.workspaces[name] = b.Dir(dir)
	return b.Dir(dir), strings.Join(left, "; "), nil
}

// CheckFiles returns what Furnish would tell of files that it copies, without copying them: it
// opens each. what names them in the error, which is an [*Error].
func CheckFiles(what string, files fs.FS) (leftOut string, err error) {
	if files == nil {
		return "", nil
	}
	c := copying{from: treeOf(files)}
	if err := c.dir(".", nil); err != nil {
		return "", &Error{"copy " + what, err}
	}
	return strings.Join(c.leftOut(what), ""), nil
}

// A tree is files that can be copied. ReadLink is nil where links cannot be told from what
// they lead to.
type tree struct {
	fs.FS
	readLink func(name string) (string, error)
	exact    bool // the modes of directories are right (an embed.FS has all read-only)
}

// treeOf knows what os.DirFS returns: an fs.FS has neither links, before Go 1.25, nor names
// that are not UTF-8.
func treeOf(files fs.FS) tree {
	if value := reflect.ValueOf(files); value.Type() == reflect.TypeOf(os.DirFS(".")) && value.String() != "" {
		root := dirTree(value.String())
		return tree{root, root.ReadLink, true}
	}
	if links, ok := files.(interface{ ReadLink(string) (string, error) }); ok { // fs.ReadLinkFS
		return tree{files, links.ReadLink, false}
	}
	return tree{FS: files}
}

// A dirTree is a directory of the system.
type dirTree string

func (d dirTree) path(name string) string { return filepath.Join(string(d), name) }

func (d dirTree) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(d.path(name)) }

func (d dirTree) ReadLink(name string) (string, error) { return os.Readlink(d.path(name)) }

// Open does not wait for what was a file a moment ago.
func (d dirTree) Open(name string) (fs.File, error) {
	return os.OpenFile(d.path(name), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
}

// copying is a copy on its way. What is there already stays, links are copied as links, and no
// link that a pod has made is followed.
type copying struct {
	from   tree
	except fs.FileInfo // a directory that is not copied: the copy would have no end; nil = none
	left   int         // sockets, FIFOs, devices, and links of which nothing is known
	first  []string    // some of those
}

// dir copies what is in a directory; to is nil if it is only looked at.
func (c *copying) dir(name string, to *safefile.Dir) error {
	entries, err := fs.ReadDir(c.from.FS, name)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := c.entry(path.Join(name, entry.Name()), entry, to); err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) entry(name string, entry fs.DirEntry, to *safefile.Dir) error {
	switch {
	case entry.IsDir():
		return c.subdir(name, entry, to)
	case entry.Type().IsRegular():
		return c.file(name, to)
	case entry.Type()&fs.ModeSymlink != 0 && c.from.readLink != nil:
		target, err := c.from.readLink(name)
		if err == nil && to != nil {
			err = to.Symlink(target, path.Base(name))
		}
		return unlessThere(err)
	case entry.Type()&fs.ModeSymlink != 0:
		if info, err := fs.Stat(c.from.FS, name); err == nil && info.Mode().IsRegular() {
			return c.file(name, to)
		}
	}
	if c.left++; len(c.first) < 3 {
		c.first = append(c.first, podlog.Printable(name))
	}
	return nil
}

func (c *copying) subdir(name string, entry fs.DirEntry, to *safefile.Dir) error {
	info, err := entry.Info()
	if err != nil || c.except != nil && os.SameFile(info, c.except) {
		return err
	}
	if to == nil {
		return c.dir(name, nil)
	}
	made := to.Mkdir(path.Base(name), 0o700)
	if unlessThere(made) != nil {
		return made
	}
	sub, err := to.Dir(path.Base(name))
	if err != nil {
		return err
	}
	defer sub.Close()
	err = c.dir(name, sub)
	mode := info.Mode().Perm()
	if !c.from.exact {
		mode |= 0o700
	}
	if made == nil {
		err = cmp.Or(err, sub.Chmod(mode))
	}
	return err
}

func (c *copying) file(name string, to *safefile.Dir) error {
	from, err := c.from.Open(name)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil || to == nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is a file no more", name)
	}
	file, err := to.Create(path.Base(name), info.Mode().Perm())
	if err != nil {
		return unlessThere(err)
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Close())
}

// unlessThere is nil where something was in the way: that stays.
func unlessThere(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// leftOut says what was not copied.
func (c *copying) leftOut(what string) []string {
	if c.left == 0 {
		return nil
	}
	names := strings.Join(c.first, ", ")
	if c.left > len(c.first) {
		names += ", ..."
	}
	return []string{fmt.Sprintf("%d left out of %s, which are no files, directories or links: %s", c.left, what, names)}
}
