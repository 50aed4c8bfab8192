//go:build !portable

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"example.com/podharness/fakepod/reexec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestBinaryThatIsReplacedStartsItself runs a copy of this binary, which puts another program
// in its own place, as a build does.
func TestBinaryThatIsReplacedStartsItself(t *testing.T) {
	if other := os.Getenv(endEnv); other != "" {
		StartPod(t, Config{Name: "before"})
		require.NoError(t, os.Rename(other, reexec.Path()))
		pod := StartPod(t, Config{Name: "after"})
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pod.PID))
		require.NoError(t, err)
		assert.Contains(t, string(args), reexec.Path()+"\x00podharness-fakepod\x00", "argv[0] is the path")
		StartPod(t, Config{Command: FakePod("child; escape; bind; ready; serve"), AllowLeaks: true})
		_, err = TryStartPod(t, Config{Command: FakePod("daemon"), AllowLeaks: true})
		assert.ErrorContains(t, err, "(exit status 0)")
		script := `mkdir "$YOI_RUNTIME_DIR/alpha"; "$YOI_POD_RUNTIME_COMMAND" --workspace / --pod alpha 2>"$YOI_RUNTIME_DIR/alpha/stderr.log"`
		StartClient(t, ClientConfig{Program: "/bin/sh", Args: []string{"-c", script}})
		Adopt(t, "alpha", 10*time.Second)
		watchdog, _ := thisBinary.Process()
		require.NoError(t, unix.Kill(watchdog, unix.SIGKILL))
		restarts := func() int { _, n := thisBinary.Process(); return n }
		require.Eventually(t, func() bool { return restarts() == 1 }, 10*time.Second, time.Millisecond)
		assert.Never(t, func() bool { return restarts() > 1 }, 100*time.Millisecond, time.Millisecond, "the watchdog is the watchdog")
		fmt.Println("passed")
		return
	}
	t.Parallel()
	dir := t.TempDir()
	binary, other := filepath.Join(dir, "tests"), filepath.Join(dir, "other")
	text, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(binary, text, 0o700))
	require.NoError(t, os.WriteFile(other, []byte("#!/bin/sh\nexit 0\n"), 0o700))
	cmd := exec.Command(binary, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), endEnv+"="+other)
	out, err := cmd.CombinedOutput()
	assert.NoError(t, err)
	assert.Contains(t, string(out), "passed\n")
}
