//go:build unix

package safefile_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn/safefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// tree makes files and directories (those that end in a slash), and links (name -> target).
func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		path, target, isLink := strings.Cut(name, " -> ")
		path = filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		switch {
		case isLink:
			require.NoError(t, os.Symlink(target, path))
		case strings.HasSuffix(name, "/"):
			require.NoError(t, os.MkdirAll(path, 0o700))
		default:
			require.NoError(t, os.WriteFile(path, []byte(name), 0o600))
		}
	}
	return dir
}

func open(t *testing.T, path string) *safefile.Dir {
	t.Helper()
	dir, err := safefile.OpenDir(path)
	require.NoError(t, err)
	t.Cleanup(func() { dir.Close() })
	return dir
}

// within fails the test if f has not returned in time.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		require.Fail(t, "it hangs")
	}
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	dir := tree(t, "in/file", "in/sub/file", "out/secret", "in/link -> ../out/secret", "in/dir -> ../out", "in/null -> /dev/null")
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "in/fifo"), 0o600))
	in := open(t, filepath.Join(dir, "in"))
	for path, want := range map[string]string{
		"file":          "",
		"sub/file":      "",
		"./sub//file":   "",
		"none":          "no such file",
		"link":          "is a symbolic link",
		"null":          "is a symbolic link",
		"dir/secret":    "dir: is a symbolic link",
		"../out/secret": "leads out of its directory",
		"sub":           "is no regular file",
		"fifo":          "is no regular file",
		"..":            "names no file",
	} {
		within(t, func() {
			text, err := in.ReadFile(path, 100)
			if want == "" {
				assert.NoError(t, err, path)
				assert.NotEmpty(t, text)
				return
			}
			assert.ErrorContains(t, err, want, path)
		})
	}
	require.NoError(t, os.Link(filepath.Join(dir, "out/secret"), filepath.Join(dir, "in/hard")))
	_, err := in.ReadFile("hard", 100)
	assert.ErrorContains(t, err, "in/hard: has a name elsewhere, too")
	_, err = in.ReadFile("file", 3)
	assert.ErrorContains(t, err, "is larger than 3 bytes")
	_, err = safefile.OpenDir(filepath.Join(dir, "in/dir"))
	assert.ErrorContains(t, err, "is a symbolic link")
}

func TestDevicesAreNotRead(t *testing.T) {
	t.Parallel()
	_, err := open(t, "/dev").ReadFile("zero", 100)
	assert.ErrorContains(t, err, "/dev/zero: is no regular file")
}

func TestCreateMakesNewFilesOnly(t *testing.T) {
	t.Parallel()
	dir := tree(t, "in/file", "in/sub/", "out/victim", "in/link -> ../out/victim", "in/new -> ../out/new", "in/dir -> ../out")
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "in/fifo"), 0o600))
	in := open(t, filepath.Join(dir, "in"))
	for _, path := range []string{"file", "link", "new", "dir/file", "fifo", "../out/file", "sub/../../out/file"} {
		within(t, func() {
			_, err := in.Create(path, 0o600)
			assert.Error(t, err, path)
		})
	}
	_, err := in.MkdirAll("dir/below", 0o700)
	assert.Error(t, err)
	sub, err := in.MkdirAll("sub/a/b", 0o700)
	require.NoError(t, err)
	defer sub.Close()
	file, err := in.Create("sub/a/b/file", 0o640)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	entries, err := sub.ReadDir(10)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	assert.Equal(t, "file", entries[0].Name())
	entries, err = os.ReadDir(filepath.Join(dir, "out"))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "nothing was made outside")
}

// TestModesDoNotDependOnTheUmask is not parallel: the umask is that of the process.
func TestModesDoNotDependOnTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o177, 0o777} {
		in := open(t, t.TempDir())
		before := syscall.Umask(umask)
		sub, err := in.MkdirAll("a/b", 0o751)
		require.NoError(t, err)
		require.NoError(t, sub.Mkdir("c", 0o500))
		file, err := sub.Create("file", 0o642)
		syscall.Umask(before)
		require.NoError(t, err)
		require.NoError(t, errors.Join(file.Close(), sub.Close()))
		for path, want := range map[string]os.FileMode{"a": 0o751, "a/b": 0o751, "a/b/c": 0o500, "a/b/file": 0o642} {
			info, err := os.Stat(filepath.Join(in.Name(), path))
			require.NoError(t, err)
			assert.Equal(t, want, info.Mode().Perm(), "%s with the umask %#o", path, umask)
		}
	}
}

func TestSymlinkMakesNewLinksOnly(t *testing.T) {
	t.Parallel()
	dir := tree(t, "in/file", "out/victim")
	in := open(t, filepath.Join(dir, "in"))
	require.NoError(t, in.Symlink("../out", "link"))
	target, err := os.Readlink(filepath.Join(dir, "in/link"))
	require.NoError(t, err)
	assert.Equal(t, "../out", target)
	assert.ErrorIs(t, in.Symlink("elsewhere", "link"), os.ErrExist)
	assert.ErrorIs(t, in.Symlink("elsewhere", "file"), os.ErrExist)
}

func TestLinkFile(t *testing.T) {
	t.Parallel()
	dir := tree(t, "in/file", "in/other", "own/")
	own := open(t, filepath.Join(dir, "own"))
	file, err := open(t, filepath.Join(dir, "in")).Open("file")
	require.NoError(t, err)
	defer file.Close()
	require.NoError(t, own.LinkFile(file, "1"))
	assert.ErrorIs(t, own.LinkFile(file, "1"), os.ErrExist)
	text, err := os.ReadFile(filepath.Join(dir, "own/1"))
	assert.NoError(t, err)
	assert.Equal(t, "in/file", string(text))
	require.NoError(t, os.Rename(filepath.Join(dir, "in/other"), filepath.Join(dir, "in/file")))
	if own.LinkFile(file, "2") == nil { // elsewhere than on Linux it is lost
		text, err = os.ReadFile(filepath.Join(dir, "own/2"))
		assert.NoError(t, err)
		assert.Equal(t, "in/file", string(text), "and not what has its name now")
	}
}

func TestRemoveAll(t *testing.T) {
	t.Parallel()
	dir := tree(t, "out/victim", "in/a/b/c/file", "in/link -> ../out", "in/a/link -> ../../out/victim", "in/readonly/sub/file", "in/closed/file")
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "in/fifo"), 0o600))
	for range 1100 { // more than are read at once
		file, err := os.CreateTemp(filepath.Join(dir, "in/a"), "x")
		require.NoError(t, err)
		file.Close()
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "in/readonly/sub"), 0o500))
	require.NoError(t, os.Chmod(filepath.Join(dir, "in/readonly"), 0o500))
	require.NoError(t, os.Chmod(filepath.Join(dir, "in/closed"), 0))
	require.NoError(t, safefile.RemoveAll(filepath.Join(dir, "in")))
	assert.NoFileExists(t, filepath.Join(dir, "in"))
	assert.FileExists(t, filepath.Join(dir, "out/victim"))
	assert.NoError(t, safefile.RemoveAll(filepath.Join(dir, "in")))
	assert.NoError(t, safefile.RemoveAll(filepath.Join(dir, "none/in")))
	for _, path := range []string{"", ".", "..", dir + "/.", dir + "/out/..", dir + "/out/"} {
		assert.Error(t, safefile.RemoveAll(path), "%q names no element", path)
	}
	assert.NoError(t, safefile.RemoveAll(filepath.Join(dir, "out/victim")), "a file")
}

// TestRemoveAllOfADeepTree removes more directories in one another than may be open at once,
// whose paths would need gigabytes.
func TestRemoveAllOfADeepTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	top := open(t, dir)
	name := strings.Repeat("d", 200)
	at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	for range 5000 {
		require.NoError(t, unix.Mkdirat(at, name, 0o700))
		below, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Close(at))
		at = below
	}
	require.NoError(t, unix.Close(at))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, top.RemoveAll(name))
	runtime.ReadMemStats(&after)
	assert.Less(t, (after.TotalAlloc-before.TotalAlloc)>>20, uint64(500), "MiB; the paths from the top have 2500")
	entries, err := top.ReadDir(10)
	require.NoError(t, err)
	assert.Empty(t, entries)
}
