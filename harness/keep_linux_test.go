//go:build !portable

package harness_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness"
	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var keptPod = regexp.MustCompile(`harness: PODHARNESS_KEEP: TestInSuite/fails has failed, and its pods live on:\r?\n` +
	`(?:\s+why:    no line of the log of pod alpha matched "nowhere" within 1ms\r?\n)?` +
	`\s+pod alpha, process (\d+)\r?\n` +
	`\s+attach: dlv attach (\d+)\r?\n` +
	`\s+reach:  socat - UNIX-CONNECT:(\S+/run/alpha/sock)\r?\n` +
	`\s+log:    \S+/run/alpha/stderr.log\r?\n` +
	`\s+end:    kill -INT \d+\r?\n` +
	`(?:\s+pod beta, process \d+\r?\n(?:\s+(?:attach|reach|log|end): .*\r?\n){4})?` +
	`\s+list:   YOI_RUNTIME_DIR=\S+/run podspawn -list\r?\n`)

// keptCommand returns a suite whose failed tests keep their pods.
func keptCommand(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestInSuite$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), suiteEnv+"="+name, "PODHARNESS_KEEP=1", "TMPDIR="+t.TempDir())
	return cmd
}

func TestPodsOfAFailedTestLiveUntilTheBinaryEnds(t *testing.T) {
	t.Parallel()
	harness.NeedProcesses(t)
	cmd := keptCommand(t, "is kept")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal
	text, err := cmd.CombinedOutput()
	out := string(text)
	require.Error(t, err, out)
	kept := keptPod.FindStringSubmatch(out)
	require.NotNil(t, kept, out)
	assert.Contains(t, out, "This test binary has no terminal, on which it could wait for Enter: they are ended when the binary ends.\n")
	assert.Contains(t, out, "process "+kept[1]+": <nil>\n", "it lived on in the next test")
	assert.Contains(t, out, "harness: all evidence of this failure: ")
	assert.NotContains(t, out, "left behind")
	assert.NotContains(t, out, "evidence of TestInSuite/fails (", "the test was not cut short")
	assert.Contains(t, kept[0], "pod beta, process ", "a client's pod, too")
	assert.Contains(t, kept[0], "\twhy:    no line of")
	pid := processOf(t, "process "+kept[1])
	assert.Eventually(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }, patience, time.Millisecond)
	assert.Eventually(t, func() bool { _, err := os.Stat(kept[3]); return os.IsNotExist(err) }, patience, time.Millisecond, "its sandbox is gone")
}

func TestPodsOfAFailedTestLiveUntilEnterIsPressed(t *testing.T) {
	t.Parallel()
	harness.NeedProcesses(t)
	for _, suite := range []string{"is kept", "is shared and kept"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			cmd := keptCommand(t, suite)
			terminal, err := pty.Start(cmd)
			require.NoError(t, err)
			defer terminal.Close()
			_, err = terminal.WriteString("\n") // before it is asked
			require.NoError(t, err)
			var mu sync.Mutex
			var out bytes.Buffer
			over := make(chan error, 1)
			go func() {
				_, _ = io.Copy(writerFunc(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return out.Write(p) }), terminal)
				over <- cmd.Wait()
			}()
			text := func() string { mu.Lock(); defer mu.Unlock(); return out.String() }
			asked := regexp.MustCompile(`They are ended when you press Enter, or at \d\d:\d\d:\d\d \(go test -timeout\): `)
			require.Eventually(t, func() bool { return asked.MatchString(text()) }, patience, time.Millisecond)
			kept := keptPod.FindStringSubmatch(text())
			require.NotNil(t, kept, text())
			pid := processOf(t, "process "+kept[1])
			select {
			case <-over:
				assert.Fail(t, "it did not wait")
			case <-time.After(100 * time.Millisecond):
			}
			assert.NoError(t, syscall.Kill(pid, 0))
			_, err = terminal.WriteString("\n")
			require.NoError(t, err)
			assert.Error(t, waitFor(t, over), "the test has failed")
			assert.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
			assert.Len(t, asked.FindAllString(text(), -1), 1, text())
			assert.NotContains(t, text(), "left behind")
			if suite == "is kept" {
				assert.Contains(t, text(), "process "+kept[1]+": no such process")
			}
		})
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
