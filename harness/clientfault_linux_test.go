//go:build !portable && (amd64 || arm64)

package harness_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/spawn/fault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func needFaults(t *testing.T) {
	t.Helper()
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
}

// clients are some that start the pod alpha.
func clients(t *testing.T) map[string]harness.ClientConfig {
	clients := map[string]harness.ClientConfig{"podspawn": podspawn("")}
	// Not a shim in PATH, which is a client of its own.
	if python, err := exec.Command("python3", "-c", "import sys; print(sys.executable, end='')").Output(); err == nil {
		script, err := filepath.Abs("../testdata/clients/client.py")
		require.NoError(t, err)
		clients["client.py"] = harness.ClientConfig{Program: string(python), Args: []string{script, "--timeout", "10", "alpha"}}
	}
	return clients
}

// TestFaultsOfAClientSpareItsPod: the calls are those without which no pod begins to serve.
func TestFaultsOfAClientSpareItsPod(t *testing.T) {
	t.Parallel()
	needFaults(t)
	for name, cfg := range clients(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Faults = []fault.Fault{{Calls: "bind,listen,accept", Error: syscall.EMFILE}, {Calls: "open", Path: "{runtime}/alpha/p*", Signal: syscall.SIGKILL}, {Calls: "exec"}}
			c := harness.StartClient(t, cfg)
			require.Equal(t, "exit status 0", c.Wait(patience).String(), c.Stderr())
			pod := harness.Adopt(t, "alpha", patience) // its client has ended
			var env map[string]string
			ask(t, pod, `{"method":"env"}`, &env)
			assert.FileExists(t, filepath.Join(harness.RuntimeDir(t), "alpha", "pid"))
			strikes := c.Faults.Strikes()
			require.Len(t, strikes, 1, "its execution is the client's, and none that follows is")
			assert.Equal(t, pod.PID, strikes[0].PID)
			assert.Equal(t, "execve", strikes[0].Call)
			require.NoError(t, pod.Stop())
			assert.Len(t, c.Faults.Strikes(), 1)
		})
	}
}

func TestFaultsStrikeAClient(t *testing.T) {
	t.Parallel()
	needFaults(t)
	for name, cfg := range clients(t) {
		for _, tc := range []struct{ fault, says string }{
			{"exec:path=**/pod:error=ENOEXEC", "exec format error"}, {"mkdir:path={runtime}/alpha:error=EROFS", "read-only file system"},
			{"open:path={runtime}/alpha/stderr.log:error=EMFILE", "too many open files"}, {"chdir:path={workspace}:error=EIO", "input/output error"},
		} {
			t.Run(name+" "+tc.fault, func(t *testing.T) {
				t.Parallel()
				f, err := fault.Parse(tc.fault)
				require.NoError(t, err)
				tb := harness.NewTB(t)
				cfg := cfg
				cfg.Faults = []fault.Fault{f}
				c := harness.StartClient(tb, cfg)
				assert.False(t, c.Wait(patience).Success())
				assert.Contains(t, strings.ToLower(c.Stderr()), tc.says)
				require.NotEmpty(t, c.Faults.Strikes())
				tb.Errorf("the test's own failure")
				tb.End()
				text, err := os.ReadFile(filepath.Join(tb.Artifacts, "timelines.txt"))
				require.NoError(t, err)
				assert.Contains(t, string(text), "fault: "+c.Faults.Strikes()[0].String())
			})
		}
	}
}

func TestClientUnderFaultsOnATerminal(t *testing.T) {
	t.Parallel()
	needFaults(t)
	cfg := podspawn("")
	cfg.TTY, cfg.Faults = true, []fault.Fault{{Calls: "bind,listen", Error: syscall.EIO}}
	c := harness.StartClient(t, cfg)
	assert.Equal(t, "exit status 0", c.Wait(patience).String(), c.Stdout())
	assert.Contains(t, c.Stdout(), "pod alpha is ready")
}

func TestClientUnderFaultsThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	needFaults(t)
	for want, cfg := range map[string]harness.ClientConfig{
		"no such file or directory": {Program: "/nowhere"}, "/not/there: no such file or directory": {Program: "/not/there", TTY: true}, "executable file not found": {Program: "nowhere-in-path"},
		`unknown system call "opne"`: {Program: "/bin/true", Faults: []fault.Fault{{Calls: "opne"}}},
	} {
		if cfg.Faults == nil {
			cfg.Faults = []fault.Fault{{Calls: "open"}}
		}
		_, err := harness.TryStartClient(t, cfg)
		assert.ErrorContains(t, err, want)
	}
}

// TestPodspawnThatCannotTellWhetherAPodAnswers touches nothing of a pod that may run.
func TestPodspawnThatCannotTellWhetherAPodAnswers(t *testing.T) {
	t.Parallel()
	needFaults(t)
	for _, tc := range []struct{ fault, says string }{
		{"socket:error=EMFILE:when=1+", "too many open files"}, {"connect:error=ENOBUFS:when=1+", "no buffer space available"},
		{"connect:error=EINTR:when=1", "pod already runs"}, {"stat:path={runtime}/alpha:error=EIO:when=1+", "input/output error"},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			t.Parallel()
			f, err := fault.Parse(tc.fault)
			require.NoError(t, err)
			cfg := podspawn("")
			assert.True(t, harness.StartClient(t, cfg).Wait(patience).Success())
			pod := harness.Adopt(t, "alpha", patience)
			cfg.Faults = []fault.Fault{f}
			c := harness.StartClient(t, cfg)
			assert.False(t, c.Wait(patience).Success())
			assert.NotEmpty(t, c.Faults.Strikes())
			assert.Contains(t, c.Stderr(), tc.says)
			assert.Contains(t, pod.Log(), "YOI-READY", "its log was not truncated")
			pod.Send(`{"method":"ping"}`, patience)
		})
	}
}

// TestPodspawnInTrouble: what it can do without does not matter; else it says what failed, and
// has left nothing, which the end of the test checks.
func TestPodspawnInTrouble(t *testing.T) {
	t.Parallel()
	needFaults(t)
	for text, says := range map[string]string{
		"pidfd_open:error=EMFILE": "", "inotify_init1:error=EMFILE": "", "inotify_add_watch:error=ENOSPC": "", "lock:error=ENOLCK": "", "lock:error=EINTR:when=1": "", "wait:error=EINTR:when=1": "",
		"fork:error=EAGAIN": "may have no more processes", "setpgid:error=EPERM:when=1": "operation not permitted", "exec:path=**/pod:error=ENOMEM": "no memory for another process",
		"open:path={runtime}/alpha/stderr.log:error=EIO:when=2": "create pod log", "read:path=**/stderr.log:error=EIO": "read pod log", "stat:path={runtime}/alpha/stderr.log:error=EIO": "create pod log",
		"open:path={runtime}/alpha:error=ENOENT": "no such file or directory", "sockopt:error=ENOBUFS": "", "connect:path={runtime}/alpha/sock:error=ENOMEM:when=2": "cannot allocate memory",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			f, err := fault.Parse(text)
			require.NoError(t, err)
			cfg := podspawn("")
			cfg.Faults = []fault.Fault{f}
			c := harness.StartClient(t, cfg)
			assert.Equal(t, says == "", c.Wait(patience).Success(), c.Stderr())
			assert.Contains(t, c.Stderr(), says)
			assert.NotEmpty(t, c.Faults.Strikes())
			if says == "" {
				harness.Adopt(t, "alpha", patience).Send(`{"method":"ping"}`, patience)
			}
		})
	}
}
