//go:build !portable

package harness_test

import (
	"os/exec"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// latePod handles SIGINT so many seconds after it became ready.
const latePod = `
import os, signal, socket, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.path.join(os.environ["YOI_RUNTIME_DIR"], "alpha", "sock"))
listener.listen()
os.write(2, b"YOI-READY\talpha\t" + listener.getsockname().encode() + b"\n")
time.sleep(float(sys.argv[1]))
signal.signal(signal.SIGINT, lambda *_: os._exit(0))
time.sleep(60)
`

// TestStopWaitsUntilThePodHandlesItsStopSignal stops pods at once, which a real pod
// survives by luck only.
func TestStopWaitsUntilThePodHandlesItsStopSignal(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skipf("no python3: %v", err)
	}
	for seconds, want := range map[string]string{
		"0.1": "",
		"30":  "harness: pod alpha was ended by SIGINT, which it should handle and end with a status\n",
	} {
		tb := harness.NewTB(t)
		pod := harness.StartPod(tb, harness.Config{Name: "alpha", Command: spawn.Command{Program: python, PrefixArgs: []string{"-c", latePod, seconds}}})
		begin := time.Now()
		assert.NoError(t, pod.Stop())
		assert.Less(t, time.Since(begin), 5*time.Second, "it waits for a moment only")
		assert.Equal(t, want, tb.End())
	}
}

func TestKillWaitsForTheWholeGroup(t *testing.T) {
	t.Parallel()
	for range 5 {
		pod := harness.StartPod(t, harness.Config{Name: "alpha", Command: harness.FakePod("child; child; child; child; bind; ready; serve")})
		require.NoError(t, pod.Kill())
		assert.Empty(t, proc.Find(proc.Match{Group: pod.PID}))
	}
}
