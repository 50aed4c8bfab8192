//go:build !portable && (amd64 || arm64)

package podspawn_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPodspawnStaysWithAPodThatMeetsFaults(t *testing.T) {
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
	runtimeDir(t)
	_, stderr, status := runFake(t, "bind; ready; sleep 100ms; exit 3", "-fault", "listen:path={runtime}/{name}/sock:delay=1ms", "alpha")
	assert.Zero(t, status, stderr)
	assert.Regexp(t, `(?m)^podspawn: fault: call 1 of listen /.*/alpha/sock by thread \d+ of process \d+: delayed 1ms$`, stderr)
	assert.Contains(t, stderr, "podspawn: pod alpha has ended: exit status 3\n")

	stdout, _, status := runFake(t, "ready", "-json", "-fault", "bind:error=EACCES:when=1", "beta")
	assert.Equal(t, 5, status)
	var failed spawn.Error
	require.NoError(t, json.Unmarshal([]byte(stdout), &failed))
	require.Len(t, failed.Strikes, 1)
	assert.Equal(t, "EACCES", failed.Strikes[0].Result)

	_, stderr, status = runFake(t, "ready", "-fault", "open:eror=EIO", "beta")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, `fault "open:eror=EIO": "eror=EIO": unknown part`)
}

// TestPodspawnKillsThePodThatItAnswersFor tells it to end itself, and kills it.
func TestPodspawnKillsThePodThatItAnswersFor(t *testing.T) {
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		dir := runtimeDir(t)
		cmd := exec.Command(self, append(fake("ready"), "-fault", "mkdir:error=EIO", "alpha")...)
		cmd.Env = append(os.Environ(), asPodspawn+"=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		assert.True(t, strings.HasPrefix(line, "pod alpha is ready"), line)
		assert.Len(t, pids(dir), 1)
		pod := pids(dir)[0]
		require.NoError(t, cmd.Process.Signal(sig))
		_ = cmd.Wait()
		assert.Eventually(t, func() bool { return syscall.Kill(pod, 0) == syscall.ESRCH }, 10*time.Second, time.Millisecond)
		if sig == syscall.SIGTERM {
			assert.Equal(t, 130, cmd.ProcessState.ExitCode())
		}
	}
}
