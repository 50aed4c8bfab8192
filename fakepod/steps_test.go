package fakepod_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKillDoesWhatItDoesToACProgram(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere Go's own handlers stay")
	}
	for name, sig := range map[string]syscall.Signal{
		"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "SEGV": syscall.SIGSEGV,
		"ABRT": syscall.SIGABRT, "QUIT": syscall.SIGQUIT, "PIPE": syscall.SIGPIPE, "USR1": syscall.SIGUSR1,
	} {
		r := launch(t, "kill "+name+"; log survived")
		assert.Empty(t, r.rest(), name)
		status := r.end()
		assert.True(t, status.Signaled(), "%s: exit status %d", name, status.ExitStatus())
		assert.Equal(t, sig, status.Signal(), name)
		assert.False(t, status.CoreDump(), name)
	}
	r := launch(t, "ignore USR1; kill USR1; kill WINCH; log survived; exit 4")
	assert.Equal(t, "survived\n", r.rest())
	assert.Equal(t, 4, r.end().ExitStatus())
}

func TestChildLeavesThePodDirectoryAlone(t *testing.T) {
	t.Parallel()
	r := launch(t, "child 'ready; stop'; child 'daemonize; ready; stop'; sleep 200ms; exit 4")
	r.rest() // both have ended
	assert.Equal(t, 4, r.end().ExitStatus())
	pid, err := os.ReadFile(filepath.Join(r.dir, "pid"))
	require.NoError(t, err, "the child removed nothing")
	assert.Equal(t, strconv.Itoa(r.cmd.Process.Pid)+"\n", string(pid))
	status, err := os.ReadFile(filepath.Join(r.dir, "status.json"))
	require.NoError(t, err)
	assert.Contains(t, string(status), `"state":"starting"`, "the child wrote nothing")
}

func TestReadyDoesNotBringARemovedDirectoryBack(t *testing.T) {
	t.Parallel()
	r := launch(t, "unlink dir; ready; exit 4")
	assert.Equal(t, "YOI-READY\talpha\t"+r.dir+"/sock\n", r.rest())
	assert.NoDirExists(t, r.dir)
}
