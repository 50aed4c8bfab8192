package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// outside makes a directory with a secret, which nobody may read or change.
func outside(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "secret"), []byte("TOPSECRET"), 0o600))
	t.Cleanup(func() {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, entries, 1, "what is outside of the sandbox is as it was")
		text, err := os.ReadFile(filepath.Join(dir, "secret"))
		assert.NoError(t, err)
		assert.Equal(t, "TOPSECRET", string(text))
	})
	return dir
}

func TestNothingIsCopiedThroughALink(t *testing.T) {
	t.Parallel()
	victim := outside(t)
	pod := StartPod(t, Config{})
	home := pod.box.Dir("home")
	from := fstest.MapFS{".agent/settings": {Data: []byte("x")}}
	require.NoError(t, os.Symlink(victim, filepath.Join(home, ".agent")))
	_, err := TryStartPod(t, Config{Name: "b", HomeFrom: from})
	assert.ErrorContains(t, err, "copy HomeFrom: open "+home+"/.agent: is a symbolic link")
	require.NoError(t, os.Symlink(victim, pod.box.Dir("workspace3")))
	_, err = TryStartPod(t, Config{Name: "c", WorkspaceFrom: from})
	require.NoError(t, err, "a failed copy has its number again")
	_, err = TryStartPod(t, Config{Name: "d", WorkspaceFrom: from})
	assert.ErrorContains(t, err, "copy WorkspaceFrom: open "+pod.box.Dir("workspace3")+": is a symbolic link")
	require.NoError(t, os.Remove(filepath.Join(home, ".agent")))
	require.NoError(t, os.Mkdir(filepath.Join(home, ".agent"), 0o700))
	require.NoError(t, os.Symlink(filepath.Join(victim, "settings"), filepath.Join(home, ".agent/settings")))
	_, err = TryStartPod(t, Config{Name: "e", Workspace: t.TempDir(), HomeFrom: from})
	assert.ErrorContains(t, err, "is a symbolic link") // of the workspace again
}

func TestWhatLeadsOutOfThePodDirectoryIsNoEvidence(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(dir, victim string) error{
		"the directory is a link": func(dir, victim string) error {
			_ = os.Rename(dir, dir+".old")
			return os.Symlink(victim, dir)
		},
		"the runtime directory is a link": func(dir, victim string) error {
			run := filepath.Dir(dir)
			_ = os.Rename(run, run+".old")
			outer := victim + "-outer"
			if err := os.MkdirAll(filepath.Join(outer, "alpha"), 0o700); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(outer, "alpha", "secret"), []byte("TOPSECRET"), 0o600); err != nil {
				return err
			}
			return os.Symlink(outer, run)
		},
		"a file is a link":      func(dir, victim string) error { return os.Symlink(victim+"/secret", dir+"/status.json") },
		"a file is a hard link": func(dir, victim string) error { return os.Link(victim+"/secret", dir+"/status.json") },
		"a file is a FIFO":      func(dir, _ string) error { return syscall.Mkfifo(dir+"/status.json", 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			victim := outside(t)
			tb := NewTB(t)
			pod := StartPod(tb, Config{Name: "alpha"})
			dir := filepath.Dir(pod.LogPath)
			_ = os.Remove(filepath.Join(dir, "status.json"))
			require.NoError(t, act(dir, victim))
			tb.Errorf("it fails")
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				tb.End()
			}()
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
				require.Fail(t, "the end of the test hangs")
			}
			assert.FileExists(t, filepath.Join(tb.Artifacts, "report.html"))
			_ = filepath.WalkDir(tb.Artifacts, func(path string, entry os.DirEntry, err error) error {
				require.NoError(t, err)
				if entry.Type().IsRegular() {
					assert.NotContains(t, readEvidence(t, filepath.Dir(path), entry.Name()), "TOPSECRET", path)
				}
				return nil
			})
			if strings.Contains(name, "directory") {
				assert.Regexp(t, "some of it is lost: open "+filepath.Dir(dir)+"(/alpha)?: is a symbolic link", tb.Text())
			}
		})
	}
}

func TestLogThatIsAHardLinkIsNoEvidence(t *testing.T) {
	t.Parallel()
	victim := outside(t)
	tb := NewTB(t)
	StartPod(tb, Config{Name: "alpha"})
	dir := filepath.Join(RuntimeDir(tb), "beta")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Link(victim+"/secret", dir+"/stderr.log"))
	_, err := TryAdopt(tb, "beta", 10*time.Millisecond)
	assert.ErrorContains(t, err, "nobody has made "+dir+"/stderr.log")
	tb.Errorf("it fails")
	tb.End()
	assert.FileExists(t, filepath.Join(tb.Artifacts, "alpha.log"))
	assert.NoFileExists(t, filepath.Join(tb.Artifacts, "beta.log"))
}

func TestOutputsOfClientsAreOutOfReach(t *testing.T) {
	t.Parallel()
	victim := outside(t)
	tmp := filepath.Join(filepath.Dir(RuntimeDir(t)), "tmp")
	for n := range 9 {
		require.NoError(t, os.Symlink(victim+"/secret", fmt.Sprintf("%s/client-%d.stdout", tmp, n)))
		require.NoError(t, syscall.Mkfifo(fmt.Sprintf("%s/client-%d.stderr", tmp, n), 0o600))
	}
	started := make(chan *Client, 1)
	go func() { started <- StartClient(t, ClientConfig{Program: "echo", Args: []string{"said"}}) }()
	select {
	case c := <-started:
		assert.Equal(t, "said", c.WaitOutput("said", 10*time.Second))
	case <-time.After(10 * time.Second):
		require.Fail(t, "StartClient hangs")
	}
	box, err := sandboxOf(t)
	require.NoError(t, err)
	own, err := box.Own()
	require.NoError(t, err)
	info, err := os.Stat(own.Name())
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	for _, dir := range []string{"run", "workspace", "home", "tmp", "xdg"} {
		assert.False(t, strings.HasPrefix(own.Name(), box.Dir(dir)), dir)
	}
}

func TestNoLogIsMadeThroughALinkToTheRuntimeDirectory(t *testing.T) {
	t.Parallel()
	victim := outside(t)
	run := RuntimeDir(t)
	require.NoError(t, os.Rename(run, run+".old"))
	require.NoError(t, os.Symlink(victim, run))
	_, err := TryStartPod(t, Config{Name: "alpha"})
	assert.ErrorContains(t, err, run+": is a symbolic link")
	_, err = TryAdopt(t, "alpha", 10*time.Millisecond)
	assert.Error(t, err)
}

// TestEvidenceIsWrittenThroughNoLink has a pod find the directory of the evidence, and put
// links in it, and then in its place.
func TestEvidenceIsWrittenThroughNoLink(t *testing.T) {
	t.Parallel()
	victim := outside(t)
	tb := &FakeTB{TestName: t.Name(), Artifacts: filepath.Join(t.TempDir(), "evidence")}
	require.NoError(t, os.Mkdir(tb.Artifacts, 0o700))
	StartPod(tb, Config{Name: "alpha"})
	StartPod(tb, Config{Name: "beta"})
	require.NoError(t, os.Symlink(victim, filepath.Join(tb.Artifacts, "alpha.dir")))
	require.NoError(t, os.Symlink(victim+"/secret", filepath.Join(tb.Artifacts, "processes.txt")))
	tb.Errorf("it fails")
	box, err := sandboxOf(tb)
	require.NoError(t, err)
	box.evidence.Snapshot()
	moved := tb.Artifacts + ".old"
	require.NoError(t, os.Rename(tb.Artifacts, moved))
	require.NoError(t, os.Symlink(victim, tb.Artifacts))
	tb.End()
	assert.Contains(t, tb.Text(), "some of it is lost: open "+tb.Artifacts+"/alpha.dir: is a symbolic link")
	for _, name := range []string{"processes.txt", "alpha.log", "beta.dir/status.json", "report.html"} {
		assert.FileExists(t, filepath.Join(moved, name))
	}
}
