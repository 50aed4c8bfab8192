//go:build unix

// Package safefile is the inside of spawn, harness and scripts: no promise is made
// about it. It opens, makes and removes files below directories in which a pod can
// write, and so can put a link, a FIFO, a device or a mount in the place of anything.
//
// A path is taken from an open directory, element by element. No link is followed and
// no mount is crossed, and what is read is a regular file. (An os.Root follows links that
// stay below it, and crosses mounts.)
package safefile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Dir is an open directory. Its methods may be called by several goroutines at once.
type Dir struct {
	file  *os.File
	name  string // as paths in errors begin
	place place  // of the file system, and the mount, that all below must be on
}

// OpenDir opens a directory. Its own path may lead through links, but it must not be
// one. The caller closes it.
func OpenDir(path string) (*Dir, error) {
	file, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|os.O_RDONLY, 0)
	if err != nil {
		if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&fs.ModeSymlink != 0 {
			err = &fs.PathError{Op: "open", Path: path, Err: errLink}
		}
		return nil, err
	}
	return dirOf(file, path)
}

func dirOf(file *os.File, name string) (*Dir, error) {
	place, err := placeOf(int(file.Fd()))
	if err != nil {
		file.Close()
		return nil, &fs.PathError{Op: "stat", Path: file.Name(), Err: err}
	}
	return &Dir{file, name, place}, nil
}

// Close closes the directory.
func (d *Dir) Close() error { return d.file.Close() }

// Name returns the path that it was opened by.
func (d *Dir) Name() string { return d.name }

// path returns that of an element. It is not cleaned: behind a link that would be another.
func (d *Dir) path(name string) string {
	if name == "." {
		return d.name
	}
	return strings.TrimSuffix(d.name, "/") + "/" + name
}

// Born returns when the directory was made; zero = the system does not tell.
func (d *Dir) Born() time.Time { return born(int(d.file.Fd())) }

// Is reports whether a path leads to the same directory as another path below d does.
func (d *Dir) Is(path, below string) bool {
	at, err := d.Dir(below)
	if err != nil {
		return false
	}
	defer at.Close()
	info, err := at.file.Stat()
	other, otherErr := os.Stat(path)
	return err == nil && otherErr == nil && os.SameFile(info, other)
}

// Has reports whether there is something of a name in d.
func (d *Dir) Has(name string) bool { return d.kind(name) != 0 }

// IsSocket reports whether a socket is at a path below d.
func (d *Dir) IsSocket(path string) bool {
	dir, name, err := d.parent(path)
	if err != nil {
		return false
	}
	defer dir.Close()
	return dir.kind(name) == unix.S_IFSOCK
}

// kind returns the type of an element, that of a link itself; 0 = it is not there.
func (d *Dir) kind(name string) uint32 { return d.stat(name) & unix.S_IFMT }

// stat returns the type and the mode of an element, those of a link itself; 0 = it is not
// there.
func (d *Dir) stat(name string) uint32 {
	var info unix.Stat_t
	if unix.Fstatat(int(d.file.Fd()), name, &info, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return 0
	}
	return uint32(info.Mode)
}

// ReadDir returns what is in the directory, at most so many entries, sorted.
func (d *Dir) ReadDir(most int) ([]fs.DirEntry, error) {
	again, err := d.openat(".", unix.O_DIRECTORY, 0) // with an offset of its own
	if err != nil {
		return nil, err
	}
	defer again.Close()
	entries, err := again.ReadDir(most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return entries, err
}

// openat opens one element, whatever it is; a FIFO or a device is not waited for.
func (d *Dir) openat(name string, flags int, perm uint32) (*os.File, error) {
	path := d.path(name)
	if flags&unix.O_DIRECTORY == 0 {
		flags |= unix.O_NONBLOCK
	}
	for {
		fd, err := unix.Openat(int(d.file.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) || errors.Is(err, unix.ENOTDIR) && d.kind(name) == unix.S_IFLNK:
			err = errLink
		case errors.Is(err, unix.ENXIO):
			err = errNotRegular
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		file := os.NewFile(uintptr(fd), path)
		if at, err := placeOf(fd); err != nil || at != d.place {
			file.Close()
			return nil, &fs.PathError{Op: "open", Path: path, Err: cmp.Or(err, errMounted)}
		}
		return file, nil
	}
}

// ErrTooLarge is the error of ReadFile for a file that holds more than it may.
var ErrTooLarge = errors.New("is larger")

var (
	errMounted    = errors.New("something is mounted there")
	errLink       = errors.New("is a symbolic link")
	errNotRegular = errors.New("is no regular file")
	errSecondName = errors.New("has a name elsewhere, too")
)

// Dir opens the directory at a path below d. The caller closes it.
func (d *Dir) Dir(path string) (*Dir, error) {
	return d.walk(path, func(*Dir, string) error { return nil })
}

// MkdirAll is Dir, and makes what is missing, with this mode whatever the umask is.
func (d *Dir) MkdirAll(path string, perm fs.FileMode) (*Dir, error) {
	return d.walk(path, func(at *Dir, name string) error {
		if err := at.Mkdir(name, perm); !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// Mkdir makes a directory in d, where there must be nothing of that name, with this mode
// whatever the umask is.
func (d *Dir) Mkdir(name string, perm fs.FileMode) error {
	err := unix.Mkdirat(int(d.file.Fd()), name, uint32(perm.Perm()))
	if err == nil && d.stat(name)&0o777 != uint32(perm.Perm()) {
		err = d.chmod(name, perm)
	}
	if err != nil {
		return &fs.PathError{Op: "mkdir", Path: d.path(name), Err: err}
	}
	return nil
}

// Chmod changes the mode of the directory itself.
func (d *Dir) Chmod(perm fs.FileMode) error { return d.file.Chmod(perm) }

// Symlink makes a link to a target, whatever that is, in d, where there must be nothing of
// its name.
func (d *Dir) Symlink(target, name string) error {
	if err := unix.Symlinkat(target, int(d.file.Fd()), name); err != nil {
		return &os.LinkError{Op: "symlink", Old: target, New: d.path(name), Err: err}
	}
	return nil
}

func (d *Dir) walk(path string, before func(at *Dir, name string) error) (*Dir, error) {
	file, err := d.openat(".", unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	at := &Dir{file, d.name, d.place}
	for _, name := range elements(path) {
		err := before(at, name)
		var next *os.File
		if err == nil && name == ".." {
			err = &fs.PathError{Op: "open", Path: path, Err: errors.New("leads out of its directory")}
		}
		if err == nil {
			next, err = at.openat(name, unix.O_DIRECTORY, 0)
		}
		at.Close()
		if err != nil {
			return nil, err
		}
		at = &Dir{next, next.Name(), d.place}
	}
	return at, nil
}

// elements returns the elements of a path.
func elements(path string) (names []string) {
	for _, name := range strings.Split(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// parent opens the directory that holds the last element of a path.
func (d *Dir) parent(path string) (dir *Dir, name string, err error) {
	names := elements(path)
	if len(names) == 0 || names[len(names)-1] == ".." {
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: errors.New("names no file")}
	}
	last := len(names) - 1
	dir, err = d.Dir(strings.Join(names[:last], "/"))
	return dir, names[last], err
}

// Open opens the regular file at a path below d for reading.
func (d *Dir) Open(path string) (*os.File, error) {
	dir, name, err := d.parent(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	file, err := dir.openat(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: file.Name(), Err: errNotRegular}
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// HasOneName reports whether there is no other name of an open file. If there is, the file may
// be one from elsewhere, to which a pod has made a hard link.
func HasOneName(file *os.File) bool {
	info, err := file.Stat()
	return err == nil && info.Sys().(*syscall.Stat_t).Nlink <= 1
}

// Create makes the file at a path below d, which must not be there, for appending, with this
// mode whatever the umask is.
func (d *Dir) Create(path string, perm fs.FileMode) (*os.File, error) {
	dir, name, err := d.parent(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	file, err := dir.openat(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL, uint32(perm.Perm()))
	if err != nil {
		return nil, err
	}
	if err := file.Chmod(perm.Perm()); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// ReadFile returns what the regular file at a path below d holds. It is an error if that
// is more than most bytes, or if the file has another name.
func (d *Dir) ReadFile(path string, most int64) ([]byte, error) {
	file, err := d.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil {
		return nil, err
	} else if info.Sys().(*syscall.Stat_t).Nlink > 1 {
		return nil, &fs.PathError{Op: "read", Path: file.Name(), Err: errSecondName}
	}
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		return nil, &fs.PathError{Op: "read", Path: file.Name(), Err: fmt.Errorf("%w than %d bytes", ErrTooLarge, most)}
	}
	return text, err
}

// Rename gives what is at a name, in the directory at a path below d, another one.
func (d *Dir) Rename(path, from, to string) error {
	dir, err := d.Dir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Renameat(int(dir.file.Fd()), from, int(dir.file.Fd()), to); err != nil {
		return &os.LinkError{Op: "rename", Old: dir.path(from), New: dir.path(to), Err: err}
	}
	return nil
}

// LinkFile gives an open file one more name, in d.
func (d *Dir) LinkFile(file *os.File, name string) error {
	if err := linkat(file, int(d.file.Fd()), name); err != nil {
		return &os.LinkError{Op: "link", Old: file.Name(), New: d.path(name), Err: err}
	}
	return nil
}

// Open opens the regular file at a path, below the directory that holds it: that one's
// path may lead through links, the file must not be one.
func Open(path string) (*os.File, error) {
	dir, err := openParent(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Open(path[strings.LastIndexByte(path, '/')+1:])
}

// Mkdir makes a directory at a path, below the directory that holds it, with this mode whatever
// the umask is.
func Mkdir(path string, perm fs.FileMode) error {
	dir, err := openParent(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Mkdir(path[strings.LastIndexByte(path, '/')+1:], perm)
}

// openParent does not clean a path, which would remove a .. behind a link.
func openParent(path string) (*Dir, error) {
	name := path[:strings.LastIndexByte(path, '/')+1]
	file, err := os.OpenFile(cmp.Or(name, "."), unix.O_DIRECTORY|os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return dirOf(file, cmp.Or(name, "."))
}

// RemoveAll removes what is at a path, and all below it. What is mounted there, or below
// it, stays, and so do the directories that lead to it: the error names it. Directories
// that their owner may not write to, such as those of Go's module cache, are removed, too.
// It is no error if nothing is at the path.
func RemoveAll(path string) error {
	dir, err := openParent(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer dir.Close()
	return dir.RemoveAll(path[strings.LastIndexByte(path, '/')+1:])
}

// Remove removes the file, or whatever else is no directory, that is one element of d. It is
// no error if nothing is there.
func (d *Dir) Remove(name string) error {
	if err := d.unlink(name, 0); err != nil {
		return d.removeError(name, err)
	}
	return nil
}

// RemoveAll is the function RemoveAll for one element of d.
func (d *Dir) RemoveAll(name string) error { return d.remove(name, &removal{}) }

// A removal removes a tree, however deep that is.
type removal struct {
	top   *Dir // of the tree; nil = not yet known
	depth int  // of the directory that is removed now
	moved bool // something was moved to the top, and is to be removed there
}

// maxDepth is how many directories a removal holds open. What is deeper is moved to the top
// of the tree: a pod may make so many that neither the descriptors nor the memory for their
// paths suffice.
const maxDepth = 100

// moveUp moves a directory to the top of the tree.
func (r *removal) moveUp(from *Dir, name string) error {
	to := fmt.Sprintf(".deep-%x", rand.Uint64())
	err := unix.Renameat(int(from.file.Fd()), name, int(r.top.file.Fd()), to)
	if errors.Is(err, unix.EACCES) && from.chmod(name, 0o700) == nil { // its entry .. changes
		err = unix.Renameat(int(from.file.Fd()), name, int(r.top.file.Fd()), to)
	}
	if err != nil {
		return from.removeError(name, err)
	}
	r.moved = true
	return nil
}

func (d *Dir) remove(name string, r *removal) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
		return &fs.PathError{Op: "remove", Path: d.path(name), Err: unix.EINVAL}
	}
	err := d.unlink(name, 0)
	if err == nil {
		return nil
	}
	// EPERM is the answer for a directory in POSIX.
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return d.removeError(name, err)
	}
	if r.depth == maxDepth && d.kind(name) == unix.S_IFDIR {
		return r.moveUp(d, name)
	}
	if err := d.removeBelow(name, r); err != nil {
		return err
	}
	if err := d.unlink(name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOTDIR) {
		return d.removeError(name, err)
	} else if err != nil {
		return d.removeError(name, unix.EPERM) // a file that must not be removed
	}
	return nil
}

// unlink is nil for what is not there.
func (d *Dir) unlink(name string, flags int) error {
	for {
		switch err := unix.Unlinkat(int(d.file.Fd()), name, flags); {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

func (d *Dir) removeError(name string, err error) error {
	if errors.Is(err, unix.EBUSY) {
		err = errMounted
	}
	return &fs.PathError{Op: "remove", Path: d.path(name), Err: err}
}

// mostErrors bounds how many things that stay a message names.
const mostErrors = 10

// removeBelow removes what is in the directory of a name.
func (d *Dir) removeBelow(name string, r *removal) error {
	file, err := d.openat(name, unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrPermission) && d.chmod(name, 0o700) == nil {
		file, err = d.openat(name, unix.O_DIRECTORY, 0)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return nil // removed meanwhile, or no directory: unlink tells
	case err != nil:
		return err
	}
	dir := &Dir{file, file.Name(), d.place}
	defer dir.Close()
	isTop := r.top == nil
	if isTop {
		r.top = dir
	}
	r.depth++
	defer func() { r.depth-- }()
	var errs []error
	for more, writable := true, false; more; {
		errs, more, r.moved = nil, false, r.moved && !isTop
		for {
			names, err := file.Readdirnames(1024)
			for _, name := range names {
				err := dir.remove(name, r)
				if errors.Is(err, fs.ErrPermission) && !writable {
					writable = true
					if unix.Fchmod(int(file.Fd()), 0o700) == nil {
						err = dir.remove(name, r)
					}
				}
				more = more || err == nil || isTop && r.moved
				if err != nil && len(errs) < mostErrors {
					errs = append(errs, err)
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		// A directory that shrinks while it is read may pass over entries.
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
