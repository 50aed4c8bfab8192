package harness_test

import (
	"html"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDeadlockIsShown has a pod whose goroutines wait for each other.
func TestDeadlockIsShown(t *testing.T) {
	t.Parallel()
	needGo(t)
	program := harness.Build(t, "./testdata/deadlock")
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha", Command: spawn.Command{Program: program}, StopGrace: time.Second})
	tb.Run(func() {
		first, second := pod.Talk(patience), pod.Talk(patience)
		first.Write("deposit")
		second.Write("withdraw")
		line, end, err := pod.TryWaitLogAfter(0, "^holds one", patience)
		assert.NoError(t, err, line)
		pod.WaitLogAfter(end, "^holds one", patience)
		second.WaitLine("done", 100*time.Millisecond)
	})
	tb.End()
	require.True(t, tb.Failed())
	deposits := `goroutine \d+, sync\.Mutex\.Lock: main\.deposit at deadlock/main\.go:23 < main\.serve at deadlock/main\.go:42\n`
	withdraws := `goroutine \d+, sync\.Mutex\.Lock: main\.withdraw at deadlock/main\.go:29 < main\.serve at deadlock/main\.go:44\n`
	both := regexp.MustCompile("^(" + deposits + withdraws + "|" + withdraws + deposits + `)(goroutine \d+, .*\n)*goroutine 1, IO wait: main\.main at deadlock/main\.go:71\n`)
	_, message, found := strings.Cut(tb.Text(), "harness: pod alpha ran when the test had failed\n\tits goroutines ")
	require.True(t, found, tb.Text())
	message, _, _ = strings.Cut(message, "\nharness: ")
	_, lines, _ := strings.Cut(strings.ReplaceAll(message, "\t", "")+"\n", ":\n")
	assert.Regexp(t, both, lines)
	assert.LessOrEqual(t, strings.Count(lines, "\n"), 8, "ten lines in all")
	assert.NotContains(t, lines, "runtime.")
	page := readFile(t, tb.Artifacts, "report.html")
	first, _, _ := strings.Cut(page, "Pods and clients on one clock")
	_, lines, _ = strings.Cut(html.UnescapeString(first), "what its goroutines did when it was asked</span></h3>\n<pre>")
	assert.Regexp(t, both, lines)
	assert.Contains(t, first, "What to do:</strong> It still ran: what its goroutines waited for is below, and in its log all of it.")
}

// TestStopInVainShowsGoroutines has a pod that does not take its stop signal.
func TestStopInVainShowsGoroutines(t *testing.T) {
	t.Parallel()
	needGo(t)
	program := harness.Build(t, "../fakepod/cmd/fakepod")
	config := func(steps string) harness.Config {
		return harness.Config{Name: "alpha", Command: spawn.Command{Program: program, PrefixArgs: []string{"pod", "-program", steps}}, StopGrace: 100 * time.Millisecond, ReadyTimeout: 2 * time.Second, MustStopGracefully: true}
	}
	tb := harness.NewTB(t)
	harness.StartPod(tb, config("ignore INT; bind; ready; serve; hang"))
	assert.Regexp(t, `(?s)harness: pod alpha did not stop within 100ms of SIGINT: killed\n.*\n\tits goroutines .*:(\n\t\tgoroutine [^\n]*)*\n\t\tgoroutine [^\n]*fakepod\.`, tb.End())

	tb = harness.NewTB(t)
	text := tb.Run(func() { harness.StartPod(tb, config("log loading; hang")) })
	assert.Regexp(t, `(?s)harness: pod did not become ready within 2s, .*\n\tits goroutines .*:(\n\t\tgoroutine [^\n]*)*\n\t\tgoroutine [^\n]*fakepod\.`, text)
	assert.Equal(t, 1, strings.Count(tb.End(), "its goroutines"), "they are told once")
}
