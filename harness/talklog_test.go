package harness_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConversationsAreInTheEvidence(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha"})
	talk := pod.Talk(patience)
	assert.Equal(t, `{"event":"pong"}`, pod.Send(ping, patience))
	talk.Send(`{"method":"echo","params":"` + strings.Repeat("x", 5000) + `"}`)
	sub := harness.NewTB(t)
	sub.TestName = "TestOther"
	other := pod.With(sub).Talk(patience)
	other.Snapshot()
	require.NoError(t, pod.Stop())
	_, _ = other.TryReceive()
	sub.End()
	tb.Fail()
	tb.End()
	text := readFile(t, tb.Artifacts, "alpha.talk.log")
	assert.Regexp(t, `(?m)^#2 = connected by `+t.Name()+`$`, text)
	assert.Regexp(t, `(?ms)^#2 < \{"event":"snapshot".*^#2 > \{"method":"ping"\}$.*^#2 < \{"event":"pong"\}$.*^#2 = the test has closed the connection$`, text)
	assert.Regexp(t, `(?m)^#1 > \{"method":"echo","params":"x+… \(\d+ bytes more\)$`, text)
	assert.Regexp(t, `(?ms)^#3 = connected by TestOther$.*^#3 = it has closed the connection$`, text)
	assert.Regexp(t, `(?ms)^ +\+\d.*  alpha.talk.log  #2 > \{"method":"ping"\}$.*  alpha.talk.log  #2 < \{"event":"pong"\}$`, readFile(t, tb.Artifacts, "merged.log"))
	report := readFile(t, tb.Artifacts, "report.html")
	assert.Contains(t, report, "alpha.talk.log")
	assert.Contains(t, report, "#2 &lt; {&#34;event&#34;:&#34;pong&#34;}")
	assert.NotContains(t, tb.Text(), "alpha.talk.log\n\t", "the message is about the pod")

	tb = harness.NewTB(t)
	harness.StartPod(tb, harness.Config{Name: "alpha"})
	tb.Fail()
	tb.End()
	assert.NoFileExists(t, filepath.Join(tb.Artifacts, "alpha.talk.log"), "nobody has talked")
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(text)
}

// noSecrets is a Redact.
func noSecrets(line string) string { return strings.ReplaceAll(line, "sesame", "SECRET") }

func TestRedactIsAskedBeforeLinesAreShown(t *testing.T) {
	t.Parallel()
	everywhere := func(tb *harness.FakeTB, shown ...string) {
		t.Helper()
		all := tb.Text()
		entries, err := os.ReadDir(tb.Artifacts)
		require.NoError(t, err)
		require.NotEmpty(t, entries)
		for _, entry := range entries {
			if !entry.IsDir() {
				text := readFile(t, tb.Artifacts, entry.Name())
				assert.NotContains(t, text, "sesame", entry.Name())
				all += text
			}
		}
		assert.NotContains(t, tb.Text(), "sesame")
		for _, want := range shown {
			assert.Contains(t, all, want)
		}
		assert.Contains(t, readFile(t, tb.Artifacts, "alpha.log"), "SECRET")
		assert.Contains(t, readFile(t, tb.Artifacts, "merged.log"), "SECRET")
	}
	config := func(program string) harness.Config {
		cfg := fake(program)
		cfg.Name, cfg.Redact = "alpha", noSecrets
		return cfg
	}

	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, config("log 'open sesame'; bind; ready; serve; hang"))
	tb.Run(func() {
		talk := pod.Talk(patience)
		talk.Send(`{"method":"echo","params":"sesame 1"}`)
		talk.Write(`{"method":"echo","params":"sesame 2"}`)
		talk.WaitLine("nothing", patience/100)
	})
	tb.End()
	everywhere(tb, "it sent since:\n\t\t{\"event\":\"echo\",\"data\":\"SECRET 2\"}", "open SECRET")

	tb = harness.NewTB(t)
	tb.Run(func() { harness.StartPod(tb, config("log 'panic: open sesame'; raw 'sesame at last'; exit 3")) })
	tb.End()
	everywhere(tb, "panic: open SECRET", "SECRET at last")

	tb = harness.NewTB(t)
	pod = harness.StartPod(tb, config("log 'panic: open sesame'; bind; ready; serve; sleep 100ms; exit 3"))
	waitFor(t, pod.Done())
	tb.End()
	everywhere(tb, "panic: open SECRET")
}
