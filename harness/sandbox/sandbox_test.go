package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBoxIsRemovedWithWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	b, err := New(base, "1", "own/1")
	require.NoError(t, err)
	own, err := b.Own()
	require.NoError(t, err)
	assert.DirExists(t, filepath.Join(base, "own/1"))
	assert.Equal(t, base+"/own/1", own.Name())
	name := b.name
	b.name += "\x00"
	assert.ErrorContains(t, b.Remove(), "invalid argument")
	b.name = name
	b2, err := New(base, "2", "own/2")
	require.NoError(t, err)
	require.NoError(t, b2.Remove())
	assert.NoDirExists(t, filepath.Join(base, "2"))
	assert.NoDirExists(t, filepath.Join(base, "own/2"))
}

func TestEnvironIsBuilt(t *testing.T) {
	t.Setenv("SECRET", "inherited")
	t.Setenv("PASSED", "on")
	base := t.TempDir()
	b, err := New(base, "1", "own/1")
	require.NoError(t, err)
	env := strings.Join(b.Environ([]string{"PASSED", "NONE", "A=b"}), "\n") + "\n"
	assert.NotContains(t, env, "SECRET")
	assert.NotContains(t, env, "NONE")
	assert.Contains(t, env, "HOME="+b.Dir("home")+"\n")
	assert.Contains(t, env, "PASSED=on\nA=b\n")
	assert.Contains(t, env, "YOI_HOME="+b.Dir("home")+"/.yoi\n")
	assert.DirExists(t, b.Dir("home/.yoi"))
}

func TestVariablesOfPodsThatAreBuiltForATest(t *testing.T) {
	b, err := New(t.TempDir(), "1", "own/1")
	require.NoError(t, err)
	cwd, err := os.Getwd()
	require.NoError(t, err)
	for _, test := range []struct {
		tester []string // its own variables
		extra  []string
		want   map[string]string
	}{
		{[]string{"GOCOVERDIR", "cover/../data"}, nil, map[string]string{"GOCOVERDIR": cwd + "/data", "GORACE": "atexit_sleep_ms=0"}},
		{[]string{"GOCOVERDIR", "/data"}, nil, map[string]string{"GOCOVERDIR": "/data"}},
		{[]string{"GOCOVERDIR", ""}, nil, map[string]string{"GOCOVERDIR": ""}},
		{[]string{"GOCOVERDIR", "data"}, []string{"GOCOVERDIR=own"}, map[string]string{"GOCOVERDIR": "own"}},
		{[]string{"GORACE", "halt_on_error=1"}, nil, map[string]string{"GORACE": "halt_on_error=1 atexit_sleep_ms=0"}},
		{[]string{"GORACE", "atexit_sleep_ms=100 halt_on_error=1"}, nil, map[string]string{"GORACE": "atexit_sleep_ms=100 halt_on_error=1"}},
		{[]string{"GORACE", "atexit_sleep_ms=100"}, []string{"GORACE=a", "GORACE=history_size=1"}, map[string]string{"GORACE": "history_size=1 atexit_sleep_ms=0"}},
		{[]string{"GORACE", "halt_on_error=1"}, []string{"GORACE=atexit_sleep_ms=7"}, map[string]string{"GORACE": "atexit_sleep_ms=7"}},
		{[]string{"GORACE", "atexit_sleep_ms=100"}, []string{"GORACE"}, map[string]string{"GORACE": "atexit_sleep_ms=100"}},
	} {
		t.Setenv("GORACE", "")
		t.Setenv(test.tester[0], test.tester[1])
		got := map[string]string{}
		for _, entry := range b.Environ(test.extra) { // the last one counts
			name, value, _ := strings.Cut(entry, "=")
			got[name] = value
		}
		for name, want := range test.want {
			assert.Equal(t, want, got[name], "%v", test)
		}
	}
}

// TestNothingIsReachedThroughALinkAboveTheBox has a pod put links in the places of the
// directories that its own are in.
func TestNothingIsReachedThroughALinkAboveTheBox(t *testing.T) {
	if !proc.Proves {
		t.Skip("only Linux has a path to a program by what is open")
	}
	t.Parallel()
	for _, place := range []string{"own", "1", "."} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			base, victim := filepath.Join(t.TempDir(), "base"), t.TempDir()
			b, err := New(base, "1", "own/1")
			require.NoError(t, err)
			own, err := b.Own()
			require.NoError(t, err)
			for _, dir := range []string{"1/kept", "own/1/kept", "run", "home"} {
				require.NoError(t, os.MkdirAll(filepath.Join(victim, dir), 0o700))
			}
			at := filepath.Join(base, place)
			require.NoError(t, os.Rename(at, at+".old"))
			require.NoError(t, os.Symlink(victim, at))
			_, err = b.StandIn(spawn.Command{Program: "true"})
			assert.NoError(t, err, "what is open stays what it is")
			_, err = New(base, "2", "own/2")
			assert.Equal(t, place == "1", err == nil, err)
			_, _, err = b.Furnish("a", nil, fstest.MapFS{"new": {}})
			assert.Equal(t, place == "own", err == nil, err)
			_, err = b.Open("run")
			assert.Equal(t, place == "own", err == nil, err)
			assert.Equal(t, place == "1", b.Remove() == nil, "a link alone is removed")
			_, err = own.ReadDir(1)
			assert.Error(t, err, "it is closed")
			for _, dir := range []string{"1/kept", "own/1/kept", "run", "home"} {
				assert.DirExists(t, filepath.Join(victim, dir))
			}
			for dir, want := range map[string]int{".": 4, "home": 0, "run": 0, "own": 1, "own/1": 1} {
				entries, err := os.ReadDir(filepath.Join(victim, dir))
				assert.NoError(t, err)
				assert.Len(t, entries, want, dir)
			}
		})
	}
}

// listing returns what is below a directory: types, modes, and what files and links hold.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := entry.Info()
		require.NoError(t, err)
		text := ""
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			text = info.Mode().String() + " " + string(content)
		case info.Mode()&fs.ModeSymlink != 0:
			text, err = os.Readlink(path)
			require.NoError(t, err)
			text = "-> " + text
		case path != dir:
			text = info.Mode().String()
		}
		name, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		all[name] = text
		return nil
	}))
	return all
}

// workingTree makes what people have in one.
func workingTree(t *testing.T) (dir string, copied map[string]string) {
	t.Helper()
	dir = t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.MkdirAll(in("pkg/sub"), 0o755))
	require.NoError(t, os.Mkdir(in("closed"), 0o700))
	for name, mode := range map[string]os.FileMode{"pkg/file": 0o644, "pkg/sub/tool": 0o755, "pkg/caf\xe9": 0o600, "closed/read-only": 0o444} {
		require.NoError(t, os.WriteFile(in(name), []byte(name), mode))
	}
	for name, target := range map[string]string{
		"bazel-bin": "pkg/sub", "python3": "/no/such/python3", "file": "pkg/file", "pkg/sub/up": "../../pkg", "outside": "../../..", "loop": "loop", "absolute": dir + "/pkg",
	} {
		require.NoError(t, os.Symlink(target, in(name)))
	}
	require.NoError(t, os.Chmod(in("closed"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(in("closed"), 0o700) })
	copied = listing(t, dir)
	for _, name := range []string{"fifo", "pkg/fifo\x1b", "pkg/sub/fifo"} {
		require.NoError(t, syscall.Mkfifo(in(name), 0o600))
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: in("a-socket"), Net: "unix"})
	require.NoError(t, err)
	t.Cleanup(func() { socket.Close() })
	return dir, copied
}

const leftOutOfTheTree = `4 left out of %s, which are no files, directories or links: a-socket, fifo, pkg/fifo\x1b, ...`

func TestWorkingTreeIsCopiedAsItIs(t *testing.T) {
	t.Parallel()
	dir, want := workingTree(t)
	atHome := maps.Clone(want)
	atHome[".yoi"] = "drwx------"
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	for _, from := range []string{dir, link} {
		b, err := New(t.TempDir(), "1", "own/1")
		require.NoError(t, err)
		workspace, leftOut, err := b.Furnish("alpha", os.DirFS(from), os.DirFS(from))
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf(leftOutOfTheTree, "WorkspaceFrom")+"; "+fmt.Sprintf(leftOutOfTheTree, "HomeFrom"), leftOut)
		assert.Equal(t, want, listing(t, workspace))
		assert.Equal(t, atHome, listing(t, b.Dir("home")))
		again, leftOut, err := b.Furnish("alpha", os.DirFS(from), nil)
		require.NoError(t, err)
		assert.Equal(t, workspace, again)
		assert.Empty(t, leftOut, "it is told once")
		_, _, err = b.Furnish("beta", nil, os.DirFS(from))
		require.NoError(t, err, "what is there already stays")
		assert.Equal(t, atHome, listing(t, b.Dir("home")))
		require.NoError(t, b.Remove())
	}
	assert.Equal(t, len(want)+4, len(listing(t, dir)), "the original is as it was")
	leftOut, err := CheckFiles("-workspace", os.DirFS(dir))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf(leftOutOfTheTree, "-workspace"), leftOut)
}

func TestFilesWithoutLinks(t *testing.T) {
	t.Parallel()
	b, err := New(t.TempDir(), "1", "own/1")
	require.NoError(t, err)
	files := fstest.MapFS{"dir/file": {Data: []byte("x"), Mode: 0o444}, "device": {Mode: fs.ModeDevice}}
	workspace, leftOut, err := b.Furnish("alpha", struct{ fs.FS }{files}, nil)
	require.NoError(t, err)
	assert.Equal(t, "1 left out of WorkspaceFrom, which are no files, directories or links: device", leftOut)
	assert.Equal(t, map[string]string{".": "", "dir": "drwxr-xr-x", "dir/file": "-r--r--r-- x"}, listing(t, workspace), "directories can be written to")
}

// TestCopyHasAnEnd copies the directory that the sandboxes are in.
func TestCopyHasAnEnd(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o600))
	b, err := New(filepath.Join(base, "pod123"), "1", "own/1")
	require.NoError(t, err)
	workspace, _, err := b.Furnish("alpha", os.DirFS(base), nil)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{".": "", "file": "-rw------- "}, listing(t, workspace))
}

func TestFilesThatCannotBeCopiedAreTheCallersTrouble(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, secret := filepath.Join(dir, "file"), filepath.Join(dir, "below/secret")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Dir(secret), 0o700))
	require.NoError(t, os.WriteFile(secret, nil, 0o000))
	trees := map[string]fs.FS{"open /nowhere: no such file": os.DirFS("/nowhere"), file + ": not a directory": os.DirFS(file), "open below/secret: permission denied": locked{os.DirFS(dir)}}
	if os.Geteuid() != 0 {
		trees["open "+secret+": permission denied"] = os.DirFS(dir)
	}
	for want, files := range trees {
		b, err := New(t.TempDir(), "1", "own/1")
		require.NoError(t, err)
		_, _, err = b.Furnish("alpha", nil, files)
		var e *Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, "copy HomeFrom", e.Op)
		assert.ErrorContains(t, err, want)
		_, err = CheckFiles("-home", files)
		require.ErrorAs(t, err, &e)
		assert.Equal(t, "copy -home", e.Op)
		assert.ErrorContains(t, err, want)
	}
	_, err := CheckFiles("-home", nil)
	assert.NoError(t, err)
}

// locked is files of which nobody may read secret ones, not even root.
type locked struct{ fs.FS }

func (l locked) Open(name string) (fs.File, error) {
	if strings.HasSuffix(name, "secret") {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return l.FS.Open(name)
}

// TestModesDoNotDependOnTheUmask is not parallel: the umask is that of the process.
func TestModesDoNotDependOnTheUmask(t *testing.T) {
	dir, want := workingTree(t)
	for _, umask := range []int{0, 0o177, 0o777} {
		base := t.TempDir()
		before := syscall.Umask(umask)
		b, err := New(filepath.Join(base, "new"), "1", "own/1")
		require.NoError(t, err)
		workspace, _, furnishErr := b.Furnish("alpha", os.DirFS(dir), nil)
		program, err := b.StandIn(spawn.Command{Program: "true"})
		syscall.Umask(before)
		require.NoError(t, errors.Join(furnishErr, err))
		assert.Equal(t, want, listing(t, workspace))
		for _, path := range append([]string{filepath.Join(base, "new"), b.root(), b.Dir("run"), b.Dir("home"), workspace, program}, filepath.Dir(program), filepath.Join(base, "new/own/1")) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o700), info.Mode().Perm(), "%s with the umask %#o", path, umask)
		}
		require.NoError(t, b.Remove())
	}
}
