package harness_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// failAlikeSuite has starts fail, most of them in the same way.
func failAlikeSuite(t *testing.T) {
	broken, other := "log 'no disk'; exit 7", "log 'no disk'; exit 8"
	for _, test := range []struct{ name, program string }{
		{"first", broken}, {"second", broken}, {"other verdict", other}, {"works", "ready"}, {"again", broken}, {"and again", broken},
	} {
		t.Run(test.name, func(t *testing.T) { harness.StartPod(t, fake(test.program)) })
	}
	repaired := fake("log 'no disk'; exit 7")
	repaired.Env = []string{"A=1"}
	t.Run("other config", func(t *testing.T) { harness.StartPod(t, repaired) })
	second := fake("ready") // it works the second time only
	script := `n=$(cat "$0"); echo "x$n" >"$0"; [ "$n" = x ] && exec "$@"; echo 'no disk' >&2; exit 7`
	second.Command.Program, second.Command.PrefixArgs = "sh", append([]string{"-c", script, filepath.Join(t.TempDir(), "runs"), second.Command.Program}, second.Command.PrefixArgs...)
	for _, name := range []string{"breaks", "mends", "breaks again"} {
		t.Run(name, func(t *testing.T) { harness.StartPod(t, second) })
	}
	reasons := fake("ready") // another one each time, and the number of its process
	script = `echo x >>"$0"; case $(wc -l <"$0") in *1|*2) echo "$$: no disk" ;; *) echo "$$: the port is in use" ;; esac >&2; exit 7`
	reasons.Command.Program, reasons.Command.PrefixArgs = "sh", []string{"-c", script, filepath.Join(t.TempDir(), "runs")}
	for _, name := range []string{"reason", "same reason", "other reason"} {
		t.Run(name, func(t *testing.T) { harness.StartPod(t, reasons) })
	}
}

func TestSuiteTellsAStartThatFailsAsTheOneBeforeInOneLine(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "fail alike")
	assert.Equal(t, 1, status)
	assert.Equal(t, []string{"first", "second", "other_verdict", "again", "and_again", "other_config", "breaks", "breaks_again", "reason", "same_reason", "other_reason"}, failures(out))
	assert.Equal(t, 8, strings.Count(out, "\tlog: "), "each kind is told in full")
	const line = `--- FAIL: TestInSuite/%s .*\n\s+failfast_test\.go:\d+: harness: pod exited before becoming ready \(exit status 7\), as that of TestInSuite/%s with the same config: see there\n\s+\S+ harness: all evidence of this failure: \S+\n`
	for test, first := range map[string]string{"second": "first", "and_again": "again", "same_reason": "reason"} {
		assert.Regexp(t, strings.NewReplacer("%s .", test+" .", "%s with", first+" with").Replace(line), out)
	}
}

func TestSuiteEndsWhenAStartFailsAsTheOneBefore(t *testing.T) {
	t.Setenv("PODHARNESS_FAILFAST", "1")
	out, status := runSuite(t, "fail alike")
	assert.Equal(t, 1, status)
	began := failures(out)
	require.GreaterOrEqual(t, len(began), 2)
	assert.Equal(t, []string{"first", "second"}, began[:2])
	more := len(began) - 2 // none but with -race
	if more == 0 {
		assert.Contains(t, out, "harness: no other test begins, and no pod is started any more")
	}
	assert.Equal(t, 1+more, strings.Count(out, "no pod is started any more: PODHARNESS_FAILFAST is set, and the pod of TestInSuite/second did not start, as that of TestInSuite/first: pod exited before becoming ready (exit status 7)\n"))
	assert.Len(t, regexp.MustCompile(`harness: all evidence of this failure: (\S+)`).FindAllString(out, -1), 2)
	assert.Contains(t, out, "the suite's own teardown\n")
}
