// Package podharness runs the scenarios of testdata, and what the README says.
package podharness

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.Contains(arg, "test.parallel=") }) {
		// The tests wait for pods most of the time.
		_ = flag.Set("test.parallel", "8")
	}
	os.Unsetenv("GITHUB_ACTIONS")
	os.Unsetenv("GITHUB_STEP_SUMMARY") // which is not about what is tested here
	// The python3 in PATH may be a slow script that looks for it.
	if python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output(); err == nil {
		os.Setenv("PATH", filepath.Dir(string(python))+":"+os.Getenv("PATH"))
	}
	harness.Main(m)
}

// TestStartupFailures runs the scenarios that need the fake pod: one failure
// mode each.
func TestStartupFailures(t *testing.T) {
	scripts.Run(t, "testdata")
}

// readmeBlocks returns the fenced blocks of a language in README.md.
func readmeBlocks(t *testing.T, language string) (blocks []string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	fence := regexp.MustCompile("(?ms)^```" + language + "\n(.*?)^```$")
	for _, match := range fence.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, match[1])
	}
	require.NotEmpty(t, blocks)
	return blocks
}

func TestReadmeCommands(t *testing.T) {
	t.Parallel()
	goTool(t)
	dir := t.TempDir()
	for _, block := range readmeBlocks(t, "sh") {
		// This test is part of that command; .ci/run runs it.
		block = strings.ReplaceAll(block, "go test ./...\n", "")
		if strings.Contains(block, "podbench") && os.Getenv("PODHARNESS_LONG") == "" {
			t.Logf("run with PODHARNESS_LONG=1 alone:\n%s", block)
			continue
		}
		block = strings.ReplaceAll(block, "/podclient", "/podclient -run '^(ready|early-exit)$'") // its own tests have the whole sweep
		block = strings.ReplaceAll(block, "/podbench", "/podbench -short")                        // the figures themselves take minutes
		if strings.Contains(block, ".py") {
			if _, err := exec.LookPath("python3"); err != nil {
				t.Logf("not run, for want of python3:\n%s", block)
				continue
			}
		}
		block = strings.ReplaceAll(block, "/tmp/podharness", dir)
		cmd := exec.Command("sh", "-ec", block)
		if strings.Contains(block, "CLONE") {
			cmd = inAnotherModule(t, block)
		}
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s\n%s", block, out)
		t.Logf("%s\n%s", block, out)
	}
}

// inAnotherModule has a block run in a module that is new, and then the scenario of
// the README with podscript.
func inAnotherModule(t *testing.T, block string) *exec.Cmd {
	t.Helper()
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.org/agent\n\ngo 1.23.0\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "agent.txtar"), []byte(readmeBlocks(t, "txtar")[0]), 0o600))
	block = strings.ReplaceAll(block, "CLONE", root)
	cmd := exec.Command("sh", "-ec", block+"go run example.com/podharness/scripts/cmd/podscript agent.txtar")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	return cmd
}

// TestReadmeCommandsInCI runs what the files of CI systems run, in a directory with
// nothing but podscript and an agent.
func TestReadmeCommandsInCI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, source := range map[string]string{"podscript": "./scripts/cmd/podscript", "agent": "./fakepod/cmd/fakepod"} {
		build := exec.Command(goTool(t), "build", "-o", filepath.Join(dir, name), source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "known.txt"), []byte("session: none is stored here\n"), 0o600))
	commands := []string{"./podscript -pod ./agent -pod-arg pod -json main.json -shard 2/3"}
	for _, block := range readmeBlocks(t, "yaml") {
		commands = append(commands, regexp.MustCompile(`\./podscript .*`).FindAllString(block, -1)...)
	}
	require.Len(t, commands, 3)
	for _, command := range commands {
		cmd := exec.Command("sh", "-ec", strings.ReplaceAll(command, "${{ matrix.part }}", "3"))
		cmd.Dir = dir
		cmd.Env = []string{"PATH=/usr/bin:/bin", "CI_NODE_INDEX=1", "CI_NODE_TOTAL=3"}
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s\n%s", command, out)
		assert.Regexp(t, `\n\d+ passed, 0 failed, `, string(out), command)
	}
	assert.FileExists(t, filepath.Join(dir, "report.xml"))
}

func TestReadmeLinksToWhatIsThere(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	links := regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(string(text), -1)
	require.NotEmpty(t, links)
	for _, link := range links {
		_, err := os.Stat(link[1])
		assert.NoError(t, err)
	}
	assert.NotContains(t, string(text), "<!-- podbench -->\n<!-- /podbench -->", "the figures are there")
}

func TestReadmeScenario(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, block := range readmeBlocks(t, "txtar") {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("readme%d.txtar", i)), []byte(block), 0o600))
	}
	scripts.Run(t, dir)
}

// TestReadmeExample compiles and runs the Go examples, which are one file, in a module of
// its own, and looks at what is whose.
func TestReadmeExample(t *testing.T) {
	t.Parallel()
	tool := goTool(t)
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	sums, err := os.ReadFile("go.sum")
	require.NoError(t, err)
	for name, text := range map[string]string{
		"go.mod": "module example.org/agent\n\ngo 1.23.0\n\nrequire example.com/podharness v0.0.0\n\nreplace example.com/podharness => " + root + "\n",
		"go.sum": string(sums), "agent_test.go": strings.Join(readmeBlocks(t, "go"), "\n"), "testdata/empty.txtar": "podstart alpha\n",
		"again_test.go": `package agent_test

import (
	"testing"

	"example.com/podharness/harness"
)

func TestComesBack(t *testing.T) {
	pod := harness.StartPod(t, harness.Config{})
	_ = pod.Kill()
	pod.Restart()
}
`,
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	formatted, err := exec.Command("gofmt", "-l", dir).CombinedOutput()
	require.NoError(t, err)
	assert.Empty(t, string(formatted), "as gofmt has it")
	cmd := exec.Command(tool, "test", "-json", "./...")
	if fault.Supported() != nil {
		cmd.Args = append(cmd.Args, "-skip", "FullDisk|Crashes")
	}
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var passed []string
	ready := map[string][]string{} // the tests that have a pod's ready lines, by the pod
	line := regexp.MustCompile(`(\S+): YOI-READY`)
	for events := json.NewDecoder(bytes.NewReader(out)); ; {
		var e struct{ Action, Test, Output string }
		if err := events.Decode(&e); err == io.EOF {
			break
		} else {
			require.NoError(t, err, "%s", out)
		}
		if e.Action == "pass" {
			passed = append(passed, e.Test)
		}
		if match := line.FindStringSubmatch(e.Output); match != nil {
			ready[match[1]] = append(ready[match[1]], e.Test)
		}
	}
	assert.Subset(t, passed, []string{"TestAgentAnswers", "TestReloads", "TestScenarios/empty"})
	if fault.Supported() == nil {
		assert.Subset(t, passed, []string{"TestAgentOnAFullDisk", "TestAgentThatCrashesInASave"})
	}
	assert.Equal(t, []string{"TestAgentAnswers"}, ready["TestAgentAnswers-1"], "a pod's log is its test's:\n%s", out)
	assert.Equal(t, []string{"TestComesBack", "TestComesBack"}, ready["TestComesBack-1"], "both of its lives:\n%s", out)
}

// TestGinkgo runs a suite of Ginkgo, in a module of its own, some of whose specs fail.
func TestGinkgo(t *testing.T) {
	t.Parallel()
	run := func(args ...string) (string, error) {
		cmd := exec.Command(goTool(t), args...)
		cmd.Dir = "testdata/ginkgo"
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "TMPDIR="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("list", "-deps", "-test", "."); err != nil {
		t.Skipf("the modules of Ginkgo cannot be fetched: %v\n%s", err, out)
	}
	out, err := run("test", "-count=1", ".", "-ginkgo.no-color")
	require.Error(t, err, out)
	assert.Contains(t, out, "5 Passed | 2 Failed | ", out)
	process := regexp.MustCompile(`process (\d+)\n`).FindAllStringSubmatch(out, -1)
	require.Len(t, process, 2, out)
	assert.Equal(t, process[0], process[1], "a shared pod is the same in all specs")

	assert.Regexp(t, `\[FAILED\] harness: no line of the log of pod agent matched "nowhere" within 10ms\n`, out)
	evidence := regexp.MustCompile(`a shared pod \[It\] fails a spec\n(?:.*\n)*?.*harness: all evidence of this failure, once agent\.test has ended: (\S+)\n`).FindStringSubmatch(out)
	require.NotNil(t, evidence, out)
	assert.FileExists(t, filepath.Join(evidence[1], "agent.log"))
	assert.Contains(t, out, "[FAILED] harness: pod alpha ended by itself during the test (exit status 3)\n")
	own := regexp.MustCompile(`harness: all evidence of this failure: /\S+/podharness-[0-9a-f]{8}-a-pod-of-one-spec-dies-`)
	assert.Len(t, own.FindAllString(out, -1), 2, "the second attempt has a sandbox of its own")
}

var update = flag.Bool("update", false, "write the README's tables anew")

// TestReadmeTables makes them of what the fake pod and the scenarios say themselves.
func TestReadmeTables(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	want := string(text)
	for name, table := range map[string]string{"modes": modesTable(t), "requirements": requirementsTable()} {
		begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
		before, rest, ok := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		require.True(t, ok && ok2, "README.md has lost its table of %s", name)
		want = before + begin + table + end + after
	}
	if *update {
		require.NoError(t, os.WriteFile("README.md", []byte(want), 0o644))
		return
	}
	assert.Equal(t, want, string(text), "go test -run %s . -update writes them", t.Name())
}

func modesTable(t *testing.T) string {
	t.Helper()
	var verdicts []string
	pods := map[string][]string{} // by the verdict
	for _, mode := range fakepod.Modes() {
		outcome, err := oracle.Expect(mode.Name, spawn.DefaultReadyTimeout)
		require.NoError(t, err)
		verdict, pod := string(outcome.Verdict), fmt.Sprintf("`%s` %s", mode.Name, mode.Doc)
		switch {
		case outcome.Verdict == oracle.Ready:
			pod = "`" + mode.Name + "`"
		case outcome.Verdict == oracle.TimedOut && outcome.Socket != "":
			verdict += ", waiting for its socket"
		case outcome.Verdict == oracle.TimedOut:
			verdict += ", waiting for the " + outcome.Missing
		}
		if pods[verdict] == nil {
			verdicts = append(verdicts, verdict)
		}
		pods[verdict] = append(pods[verdict], pod)
	}
	return table("| a client must conclude | of the mode |\n", verdicts, pods)
}

func requirementsTable() string {
	pods := map[string][]string{} // by the level
	for _, r := range scripts.Requirements() {
		pods[r.Level] = append(pods[r.Level], fmt.Sprintf("`%s` %s", r.ID, r.Text))
	}
	return table("| a pod | |\n", []string{"must", "should", "may"}, pods)
}

// table has a row for each key, and a line in it for each entry.
func table(head string, keys []string, entries map[string][]string) string {
	var text strings.Builder
	text.WriteString(head + "| --- | --- |\n")
	for _, key := range keys {
		fmt.Fprintf(&text, "| %s | %s |\n", key, strings.Join(entries[key], "<br>"))
	}
	return text.String()
}

// goTool returns the go command, or skips the test.
func goTool(t *testing.T) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	if _, err := os.Stat("go.mod"); err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	return tool
}
