package sandbox

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBoxIsRemovedWithWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	b, err := New(filepath.Join(base, "1"), base, "own/1")
	require.NoError(t, err)
	own, err := b.Own()
	require.NoError(t, err)
	assert.DirExists(t, filepath.Join(base, "own/1"))
	assert.Equal(t, base+"/own/1", own.Name())
	root := b.root
	b.root += "\x00"
	assert.ErrorContains(t, b.Remove(), "invalid argument")
	b.root = root
	b2, err := New(filepath.Join(base, "2"), base, "own/2")
	require.NoError(t, err)
	require.NoError(t, b2.Remove())
	assert.NoDirExists(t, filepath.Join(base, "2"))
	assert.NoDirExists(t, filepath.Join(base, "own/2"))
}

func TestEnvironIsBuilt(t *testing.T) {
	t.Setenv("SECRET", "inherited")
	t.Setenv("PASSED", "on")
	base := t.TempDir()
	b, err := New(filepath.Join(base, "1"), base, "own/1")
	require.NoError(t, err)
	env := strings.Join(b.Environ([]string{"PASSED", "NONE", "A=b"}), "\n") + "\n"
	assert.NotContains(t, env, "SECRET")
	assert.NotContains(t, env, "NONE")
	assert.Contains(t, env, "HOME="+b.Dir("home")+"\n")
	assert.True(t, strings.HasSuffix(env, "PASSED=on\nA=b\n"))
}
