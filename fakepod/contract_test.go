package fakepod_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// files returns what is below a directory.
func files(t *testing.T, dir string) (found []string) {
	t.Helper()
	require.NoError(t, filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		found = append(found, path)
		return err
	}))
	return found[1:]
}

func TestOddNamesAndSurroundings(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	surroundings := []string{"LANG=C", "TMPDIR=" + filepath.Join(root, "tmp")}
	workspace := filepath.Join(root, "a\n workspace ")
	for _, dir := range []string{filepath.Join(root, "tmp"), workspace} {
		require.NoError(t, os.Mkdir(dir, 0o700))
	}
	longest := strings.Repeat("x", 107-len(filepath.Join(root, "run", "", "sock"))-1)
	names := []string{"-x", "--pod", "a b", " ", "ALPHA", "caf\u00e9", "cafe\u0301", "{name}", "'\"$`\\", "...", "\x01\x7f", longest}
	if runtime.GOOS == "linux" {
		names = append(names, "\xff\xfe", longest+"x", strings.Repeat("y", 255))
	}
	for _, name := range names {
		runtimeDir := filepath.Join(root, "run")
		r := launchAs(t, runtimeDir, name, "ready", surroundings, "--workspace", workspace, "--ticket-role", "r", "--profile", "p")
		assert.Equal(t, "YOI-READY\t"+name+"\t"+filepath.Join(r.dir, "sock")+"\n", r.line())
		var snapshot struct {
			Data struct{ Name, Workspace string }
		}
		text, err := os.ReadFile(filepath.Join(r.dir, "status.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &snapshot.Data))
		assert.Equal(t, strings.ToValidUTF8(name, "\uFFFD"), strings.ReplaceAll(snapshot.Data.Name, "\uFFFD\uFFFD", "\uFFFD"))
		assert.Equal(t, workspace, snapshot.Data.Workspace)
		assert.Len(t, files(t, runtimeDir), 4, name)
		r.signal(syscall.SIGINT)
		assert.Equal(t, "exit status 0", r.wait())
		assert.Empty(t, r.rest(), "it logged nothing")
		assert.Empty(t, files(t, runtimeDir))
	}
	assert.Empty(t, files(t, filepath.Join(root, "tmp")))
	assert.Empty(t, files(t, workspace))

	r := launchAs(t, filepath.Join(root, "run"), strings.Repeat("z", 256), "ready", nil, "--workspace", workspace)
	assert.Contains(t, r.rest(), "file name too long")
	assert.Equal(t, "exit status 1", r.wait())
	r = launchAs(t, filepath.Join(root, "new\nline"), "alpha", "ready", nil, "--workspace", workspace)
	assert.Contains(t, r.rest(), "the runtime directory has a newline in its path")
	assert.Equal(t, "exit status 1", r.wait())
	assert.NoDirExists(t, filepath.Join(root, "new\nline"))
}

func TestWhatAnEarlierLifeLeftDoesNotMatter(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	dir, beside := filepath.Join(root, "alpha"), filepath.Join(root, "beta")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Mkdir(beside, 0o700))
	for name, text := range map[string]string{
		"alpha/pid": strconv.Itoa(os.Getpid()) + "\n", "alpha/status.json": "{garbage", "alpha/sock": "no socket", "alpha/pid.tmp": "x", "alpha/status.json.tmp": strings.Repeat("x", 1<<16),
		"beta/pid": "1", "beta/status.json": "{}", "beta/sock": "",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o600))
	}
	r := launchIn(t, root, "ready")
	assert.Equal(t, r.ready(), r.line())
	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintln(r.cmd.Process.Pid), string(pid))
	text, err := os.ReadFile(filepath.Join(dir, "status.json"))
	require.NoError(t, err)
	var status map[string]any
	require.NoError(t, json.Unmarshal(text, &status), "%s", text)
	assert.Equal(t, "ready", status["state"])
	r.client()
	r.signal(syscall.SIGINT)
	assert.Equal(t, "exit status 0", r.wait())
	assert.Len(t, files(t, root), 4, "it touches nothing beside it")
}

func TestHangupBringsNoSecondReadyLine(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	assert.Equal(t, r.ready(), r.line())
	r.signal(syscall.SIGHUP)
	assert.Equal(t, "signal: hangup", r.wait())
	assert.Empty(t, r.rest())
}

// TestStopTouchesNothingOfANewPod has a new pod of the name begin as soon as the socket is gone.
func TestStopTouchesNothingOfANewPod(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	for i := range 1000 { // which take a while to be removed
		require.NoError(t, os.WriteFile(filepath.Join(r.dir, fmt.Sprint("z", i)), nil, 0o600))
	}
	made := make(chan error)
	go func() {
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if _, err := os.Lstat(filepath.Join(r.dir, "sock")); err != nil {
				_ = os.Mkdir(r.dir, 0o700) // which may be removed once more while it is empty
				if os.WriteFile(filepath.Join(r.dir, "stderr.log"), nil, 0o600) == nil {
					made <- nil
					return
				}
			}
		}
		made <- os.ErrDeadlineExceeded
	}()
	r.signal(syscall.SIGINT)
	assert.Equal(t, "exit status 0", r.wait())
	require.NoError(t, <-made)
	assert.Equal(t, []string{filepath.Join(r.dir, "stderr.log")}, files(t, r.dir))
}

func TestStopRemovesNoDirectoryThatALinkLeadsTo(t *testing.T) {
	t.Parallel()
	root, elsewhere := tempDir(t), tempDir(t)
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(root, "alpha")))
	require.NoError(t, os.WriteFile(filepath.Join(elsewhere, "kept"), nil, 0o600))
	r := launchIn(t, root, "ready")
	assert.Equal(t, r.ready(), r.line())
	r.signal(syscall.SIGINT)
	assert.Equal(t, "exit status 0", r.wait())
	assert.FileExists(t, filepath.Join(elsewhere, "kept"))
	assert.Empty(t, files(t, root))
}

func TestStopAfterTheDirectoryIsGone(t *testing.T) {
	t.Parallel()
	r := launch(t, "bind; unlink dir; ready; serve")
	assert.Equal(t, r.ready(), r.line())
	r.signal(syscall.SIGINT)
	assert.Equal(t, "exit status 0", r.wait())
	assert.Empty(t, r.rest())
}

func TestIdlePodIsIdle(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	r.client()
	ticks := func() (n int) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
		if err != nil {
			t.Skip("this system does not tell")
		}
		_, after, _ := strings.Cut(string(text), ") ")
		for _, field := range strings.Fields(after)[11:13] { // in user mode, and in the kernel
			i, err := strconv.Atoi(field)
			require.NoError(t, err)
			n += i
		}
		return n
	}
	before := ticks()
	<-time.After(time.Second)
	assert.LessOrEqual(t, ticks()-before, 3, "in 1/100 s")
	r.signal(syscall.SIGTERM)
	assert.Empty(t, r.rest())
	assert.Equal(t, "signal: terminated", r.wait())
}
