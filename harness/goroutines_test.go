package harness_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
)

// TestDeadlockIsShown has a pod whose goroutines wait for each other.
func TestDeadlockIsShown(t *testing.T) {
	t.Parallel()
	needGo(t)
	program := harness.Build(t, "./testdata/deadlock")
	deadlocked := func(cfg harness.Config) (*harness.FakeTB, *harness.Pod) {
		tb := harness.NewTB(t)
		cfg.Name, cfg.Command, cfg.StopGrace = "alpha", spawn.Command{Program: program}, time.Second
		pod := harness.StartPod(tb, cfg)
		tb.Run(func() {
			first, second := pod.Talk(patience), pod.Talk(patience)
			first.Write("deposit")
			second.Write("withdraw")
			second.WaitLine("done", 100*time.Millisecond)
		})
		tb.End()
		assert.True(t, tb.Failed())
		return tb, pod
	}
	lock := func(what, line, caller string) string {
		return `\n\t\tgoroutine \d+, sync\.Mutex\.Lock: main\.` + what + ` at deadlock/main\.go:` + line + ` < main\.serve at deadlock/main\.go:` + caller
	}
	both := lock("deposit", "24", "38") + lock("withdraw", "31", "40")
	tb, _ := deadlocked(harness.Config{})
	message := regexp.MustCompile(`harness: pod alpha hung when the test had failed\n\tits goroutines .*:((?:\n\t\tgoroutine .*)+)\n`).FindStringSubmatch(tb.Text())
	if assert.NotNil(t, message, tb.Text()) {
		assert.Regexp(t, "^"+both, message[1])
		assert.Regexp(t, `\n\t\tgoroutine 1, IO wait: main\.main at deadlock/main\.go:67`, message[1])
		assert.LessOrEqual(t, strings.Count(message[0], "\n"), 11)
		assert.NotContains(t, message[1], "runtime.")
	}
	page := readFile(t, tb.Artifacts, "report.html")
	first, _, _ := strings.Cut(page, "Pods and clients on one clock")
	assert.Regexp(t, strings.ReplaceAll(strings.ReplaceAll(both, `\t`, ""), "<", "&lt;"), strings.ReplaceAll(first, "<pre>", "\n"))
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
