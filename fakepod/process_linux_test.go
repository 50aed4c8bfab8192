package fakepod_test

import (
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
	r := launch(t, "ready")
	r.line()
	c := r.client()
	var limit unix.Rlimit
	require.NoError(t, unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: 1 << 10}, &limit))
	for program, what := range map[string]string{
		"child":     "child: pipe2: too many open files",
		"escape":    "escape: pipe2: too many open files",
		"daemonize": "daemonize: pipe2: too many open files",
		"fill":      "fill: connection 1: too many open files",
		"ready;":    "ready: open " + r.dir + "/status.json.tmp: too many open files",
	} {
		assert.Equal(t, `{"event":"error","data":{"message":"`+what+`"}}`, c.ask(`{"method":"run","params":{"program":"`+program+`"}}`))
	}
	limit.Max = 1 << 10
	limit.Cur = limit.Max
	require.NoError(t, unix.Prlimit(r.cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil))
	assert.Equal(t, `{"event":"done"}`, c.ask(`{"method":"run","params":{"program":"child; escape"}}`), "the pod goes on")
}

func TestStdoutThatTakesNothing(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()
	for args, want := range map[string]string{
		"-list": "fakepod: write /dev/stdout: no space left on device\n",
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
