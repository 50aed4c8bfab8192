package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"example.com/podharness/spawn"
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
	assert.True(t, strings.HasSuffix(env, "PASSED=on\nA=b\n"))
}

// TestNothingIsReachedThroughALinkAboveTheBox has a pod put links in the places of the
// directories that its own are in.
func TestNothingIsReachedThroughALinkAboveTheBox(t *testing.T) {
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
			assert.Equal(t, place != ".", err == nil, err)
			_, err = b.Furnish("a", nil, fstest.MapFS{"new": {}})
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
