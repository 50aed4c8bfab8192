//go:build !portable

package harness_test

import (
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// agentSuite is the suite of an agent, in a module of its own.
const agentSuite = "../testdata/agent"

// agentBugs are the bugs that the agent can have.
var agentBugs = []struct {
	name  string
	test  string   // finds it
	says  []string // patterns of what that test says
	code  string   // of the line that it names
	page  string   // a pattern of what stands in report.html before the logs
	flags string   // of go build
	long  bool     // PODHARNESS_LONG alone runs it
}{
	{
		name: "deadlock", test: "TestQueuedJobIsCancelled", code: "a.mu.Lock()",
		says: []string{`sent no line that matches .*cancelled.*: none within 5s`, `goroutine \d+, sync\.Mutex\.Lock: main\.\(\*agent\)\.tell at agent/agent\.go:\d+ < main\.\(\*agent\)\.cancel at `},
		page: `goroutine \d+, sync\.Mutex\.Lock: main\.\(\*agent\)\.tell at agent/agent\.go:\d+ < main\.\(\*agent\)\.cancel at `,
	},
	{
		name: "panic", test: "TestJobIsDone", code: "a.counts[j.Kind]++",
		says: []string{`pod agent ended by itself during the test \(exit status 2\)`, `panic: assignment to entry in nil map`, `main\.\(\*agent\)\.schedule at agent/agent\.go:\d+`},
		page: `panic: assignment to entry in nil map\s.*main\.\(\*agent\)\.schedule at agent/agent\.go:\d+`,
	},
	{
		name: "leak", test: "TestStopsWhileAJobRuns",
		says: []string{`pod TestStopsWhileAJobRuns-1 left processes behind, which were killed:\n.*\n?\s*process \d+ \(sleep `},
		page: `left processes behind, which were killed:\n.*\n?\s*process \d+ \(sleep `,
	},
	{
		name: "status", test: "TestNotesOutliveARestart", long: true,
		says: []string{`was stopped by SIGINT and ended with exit status 1, not 0`, `agent: accept unix .*: use of closed network connection`},
		page: `ended with exit status 1, not 0.*use of closed network connection`,
	},
	{
		name: "memory", test: "TestMemoryAndDescriptorsAreGivenBack", long: true,
		says: []string{`it has grown by \d{2,3} MiB in 100 jobs`},
		page: `memory [^<]*1\d\d\.\d MiB`,
	},
	{
		name: "slow-stop", test: "TestStopsBesideAClient", code: "a.all.Wait()", long: true,
		says: []string{`did not stop within 5s of SIGINT: killed`, `sync\.WaitGroup\.Wait: main\.\(\*agent\)\.stop at agent/agent\.go:\d+ < main\.main at `},
		page: `did not stop within 5s of SIGINT: killed.*sync\.WaitGroup\.Wait: main\.\(\*agent\)\.stop at agent/agent\.go:\d+`,
	},
	{
		name: "ready-again", test: "TestReload", long: true,
		says: []string{`pod TestReload-1 wrote a second ready line: "YOI-READY\\tTestReload-1\\t`},
		page: `wrote a second ready line`,
	},
	{
		name: "race", test: "TestTwoJobsRunAtOnce", code: "a.state.Done++", flags: " -race", long: true,
		says: []string{`ended with exit status 66, not 0`, `WARNING: DATA RACE\n.*main\.\(\*agent\)\.work at agent/agent\.go:\d+`},
		page: `WARNING: DATA RACE\s.*main\.\(\*agent\)\.work at agent/agent\.go:\d+`,
	},
}

// TestAgent runs the suite of an agent as it is, and with each of its bugs: what the suite says then
// must name the bug.
func TestAgent(t *testing.T) {
	t.Parallel()
	needGo(t)
	suite := filepath.Join(t.TempDir(), "agent.test")
	build := exec.Command("go", "test", "-c", "-o", suite, ".")
	build.Dir, build.Env = agentSuite, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	source, err := os.ReadFile(agentSuite + "/cmd/agent/agent.go")
	require.NoError(t, err)
	code := strings.Split(string(source), "\n")

	// run returns what tests of the suite say, and where their evidence is.
	run := func(t *testing.T, tests, flags string) (out, artifacts string, err error) {
		artifacts = t.TempDir()
		cmd := exec.Command(suite, "-test.v", "-test.timeout=100s", "-test.run="+tests)
		cmd.Dir = agentSuite
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS="+flags, "PODHARNESS_ARTIFACTS="+artifacts)
		said, err := cmd.CombinedOutput()
		return string(said), artifacts, err
	}
	t.Run("without a bug", func(t *testing.T) {
		t.Parallel()
		out, artifacts, err := run(t, ".", "")
		require.NoError(t, err, out)
		assert.GreaterOrEqual(t, strings.Count(out, "--- PASS: Test"), 25, out)
		assert.NotContains(t, out, "harness: pods that ", "none had to be killed, or was late")
		entries, err := os.ReadDir(artifacts)
		require.NoError(t, err)
		assert.Empty(t, entries, "no evidence of what passes")
	})
	for _, bug := range agentBugs {
		t.Run(bug.name, func(t *testing.T) {
			t.Parallel()
			if bug.long && os.Getenv("PODHARNESS_LONG") == "" {
				t.Skip("run with PODHARNESS_LONG=1")
			}
			out, artifacts, err := run(t, "^"+bug.test+"$", "-ldflags=-X=main.bug="+bug.name+bug.flags)
			if strings.Contains(out, "-race requires cgo") || strings.Contains(out, "-race is not supported") {
				t.Skip(out)
			}
			require.Error(t, err, out)
			for _, pattern := range bug.says {
				assert.Regexp(t, pattern, out)
			}
			var named []string
			for _, place := range regexp.MustCompile(` at agent/agent\.go:(\d+)`).FindAllStringSubmatch(out, -1) {
				line, _ := strconv.Atoi(place[1])
				named = append(named, strings.TrimSpace(code[line-1]))
			}
			if bug.code != "" {
				assert.Contains(t, named, bug.code)
			}
			pages, err := filepath.Glob(artifacts + "/*/report.html")
			require.NoError(t, err)
			require.Len(t, pages, 1)
			page, err := os.ReadFile(pages[0])
			require.NoError(t, err)
			first, _, found := strings.Cut(html.UnescapeString(string(page)), "Their logs on that clock")
			require.True(t, found)
			assert.Regexp(t, "(?s)"+bug.page, first)
		})
	}
}
