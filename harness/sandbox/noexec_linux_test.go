//go:build !portable

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestStandInWhereNothingCanBeExecuted runs itself in namespaces of its own, in which it may
// mount.
func TestStandInWhereNothingCanBeExecuted(t *testing.T) {
	if dir := os.Getenv("SANDBOX_TEST_DIR"); dir != "" {
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		require.NoError(t, unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, ""))
		b, err := New(filepath.Join(dir, "base"), "1", "own/1")
		require.NoError(t, err)
		said := filepath.Join(dir, "said")
		program, err := b.StandIn(spawn.Command{Program: "sh", PrefixArgs: []string{"-c", `echo "$0 $*" >` + said}})
		require.NoError(t, err)
		require.NoError(t, exec.Command(program, "a b", "c").Run())
		text, err := os.ReadFile(said)
		require.NoError(t, err)
		assert.Equal(t, "a b c\n", string(text))
		require.NoError(t, b.Remove())
		assert.Error(t, exec.Command(program).Run())

		require.NoError(t, unix.Mount("none", "/proc", "tmpfs", 0, ""))
		b, err = New(filepath.Join(dir, "other"), "1", "own/1")
		require.NoError(t, err)
		_, err = b.StandIn(spawn.Command{Program: "true"})
		var e *Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, "execute programs below "+dir, e.Op)
		assert.ErrorIs(t, err, os.ErrPermission)
		assert.ErrorContains(t, err, "is it mounted noexec? Set TMPDIR to ")
		fmt.Println("tried")
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "SANDBOX_TEST_DIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	try := exec.Command("true")
	try.SysProcAttr = cmd.SysProcAttr
	if err := try.Run(); err != nil {
		t.Skipf("no user namespace can be made: %v", err)
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "tried\n")
}
