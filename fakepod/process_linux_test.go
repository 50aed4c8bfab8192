package fakepod_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestNoDescriptorIsLeft takes all further descriptors of a pod away.
func TestNoDescriptorIsLeft(t *testing.T) {
	t.Parallel()
	for step, want := range map[string]string{
		"child":     "pipe2: too many open files",
		"escape":    "pipe2: too many open files",
		"daemonize": "pipe2: too many open files",
		"socket":    "too many open files",
		"ready":     "open DIR/status.json.tmp: too many open files",
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := launch(t, "kill STOP; "+step+"; log over")
			r.stopped()
			require.NoError(t, unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{}, nil))
			r.signal(unix.SIGCONT)
			assert.Equal(t, "fakepod: "+step+": "+strings.ReplaceAll(want, "DIR", r.dir)+"\n", r.rest())
			assert.Equal(t, "exit status 1", r.wait())
		})
	}
}

func TestPodWithoutADescriptorLeftServesLater(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	c := r.client()
	var before unix.Rlimit
	require.NoError(t, unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Max: 1 << 10}, &before))
	conn, err := net.Dial("unix", filepath.Join(r.dir, "sock"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	_, err = conn.Read(make([]byte, 1))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`))
	require.NoError(t, unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 10, Max: 1 << 10}, nil))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err = conn.Read(make([]byte, 1))
	assert.NoError(t, err, "the snapshot")
}

func TestBacklogIsAsLongAsItSays(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]int{"socket; listen 3": 4, "bind; listen 0": 1, "bind": 129} { // one more than the backlog
		r := launch(t, program+"; ready; hang")
		r.line()
		connected := 0
		for ; connected <= want; connected++ {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			require.NoError(t, err)
			t.Cleanup(func() { unix.Close(fd) })
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(r.dir, "sock")}); err != nil {
				require.ErrorIs(t, err, unix.EAGAIN)
				break
			}
		}
		assert.Equal(t, want, connected, program)
	}
}

func TestStdoutThatTakesNothing(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	for args, want := range map[string]string{
		"-help": "fakepod: write /dev/stdout: no space left on device\n",
		"-program|out x; exit 0|--workspace|/w|--pod|a": "fakepod: out: write /dev/stdout: no space left on device\n",
	} {
		name, prefix := fakepod.Command("")
		cmd := exec.Command(name, append(prefix[:1], strings.Split(args, "|")...)...)
		cmd.Env = []string{"YOI_RUNTIME_DIR=" + t.TempDir()}
		var stderr strings.Builder
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = full, &stderr, time.Second
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Run()
		timer.Stop()
		assert.Equal(t, want, stderr.String())
		assert.Equal(t, 1, cmd.ProcessState.ExitCode())
	}
}

func TestChildInheritsNothingOfThePod(t *testing.T) {
	t.Parallel()
	r := launch(t, `socket; listen; child 'log "{pid}"; hang'; escape 'log "{pid}"; hang'; hang`)
	for range 2 {
		fds, err := filepath.Glob("/proc/" + strings.TrimSpace(r.line()) + "/fd/*")
		require.NoError(t, err)
		require.NotEmpty(t, fds)
		for _, fd := range fds {
			what, _ := os.Readlink(fd)
			assert.NotContains(t, what, "socket:", fd)
			if n := filepath.Base(fd); n == "3" || n == "4" {
				assert.NotContains(t, what, "pipe:", "the starter's, %s", fd)
			}
		}
	}
}
