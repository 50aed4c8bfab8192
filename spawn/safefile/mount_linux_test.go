//go:build !portable

package safefile_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"example.com/podharness/spawn/safefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMountsAreNotCrossed runs itself in namespaces of its own, in which it may mount.
func TestMountsAreNotCrossed(t *testing.T) {
	if dir := os.Getenv("SAFEFILE_TEST_DIR"); dir != "" {
		in := func(name string) string { return filepath.Join(dir, name) }
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		require.NoError(t, unix.Mount(in("out"), in("in/mnt"), "", unix.MS_BIND, ""))
		require.NoError(t, unix.Mount(in("out/victim"), in("in/file"), "", unix.MS_BIND, ""))
		require.NoError(t, unix.Mount("none", in("in/tmpfs"), "tmpfs", 0, ""))
		require.NoError(t, os.WriteFile(in("in/tmpfs/kept"), nil, 0o600))
		below := open(t, in("in"))
		_, err := below.ReadFile("mnt/victim", 100)
		assert.ErrorContains(t, err, "in/mnt: something is mounted there")
		_, err = below.ReadFile("file", 100)
		assert.ErrorContains(t, err, "in/file: something is mounted there")
		_, err = below.MkdirAll("mnt/made", 0o700)
		assert.ErrorContains(t, err, "in/mnt: something is mounted there")
		err = safefile.RemoveAll(in("in"))
		for _, name := range []string{"mnt", "file", "tmpfs"} {
			assert.ErrorContains(t, err, in("in/"+name)+": something is mounted there")
		}
		assert.NoFileExists(t, in("in/sub"), "all else is removed")
		assert.FileExists(t, in("in/tmpfs/kept"))
		entries, err := os.ReadDir(in("out"))
		require.NoError(t, err)
		assert.Len(t, entries, 1)
		fmt.Println("tried")
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "SAFEFILE_TEST_DIR="+tree(t, "out/victim", "in/mnt/", "in/file", "in/tmpfs/", "in/sub/file"))
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
