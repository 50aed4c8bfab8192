package scripts_test

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
)

// asConformTest makes a test that fails run, as the whole of a test binary of its own.
const asConformTest = "TEST_CONFORM"

// TestConform checks the pod whose command another test has put into its environment.
func TestConform(t *testing.T) {
	switch os.Getenv(asConformTest) {
	case "":
		if testing.Short() {
			t.Skip("it takes as long as podscript does")
		}
		scripts.Conform(t, scripts.Options{Strict: true})
	case "wrong":
		scripts.Conform(t, scripts.Options{Command: harness.FakePod("ignore INT; bind; ready; serve"), Pod: harness.Config{StopGrace: 100 * time.Millisecond, ReadyTimeout: 3 * time.Second}})
	case "missing":
		scripts.Conform(t, scripts.Options{Command: spawn.Command{Program: "sh", PrefixArgs: []string{"-c", "echo no session store >&2; exit 3"}}})
	}
}

func TestConformFailsWhatIsNotMet(t *testing.T) {
	t.Parallel()
	conform := func(pod, run string) string {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestConform$"+run, "-test.v", "-test.timeout", "1m")
		cmd.Env = append(os.Environ(), asConformTest+"="+pod, "PODHARNESS_ARTIFACTS="+t.TempDir())
		out, err := cmd.CombinedOutput()
		assert.Error(t, err, "%s", out)
		return string(out)
	}
	out := conform("missing", "")
	assert.Contains(t, out, "--- FAIL: TestConform/starts")
	assert.Contains(t, out, "pod exited before becoming ready (exit status 3): no session store")
	assert.Contains(t, out, "a pod must become ready when it is started with --workspace DIR --pod NAME (1, 2, 3)\n        fix: ")
	assert.Contains(t, out, "--- SKIP: TestConform/snapshot")
	assert.Contains(t, out, "needs starts")
	assert.Contains(t, out, "needs snapshot", "what is skipped is not met either")

	out = conform("wrong", "/^(starts|stop-signal|stop-at-once|terminate)$")
	assert.Contains(t, out, "--- FAIL: TestConform/stop-signal")
	assert.Contains(t, out, "--- PASS: TestConform/terminate")
	assert.NotContains(t, out, "--- FAIL: TestConform/stop-at-once", "a should is a warning")
}
