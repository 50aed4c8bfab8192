package harness_test

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func needGo(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skipf("no go command: %v", err)
	}
	if _, err := os.Stat("../fakepod/cmd/fakepod"); err != nil {
		t.Skipf("the source is not here: %v", err)
	}
}

func TestBuildBuildsOnce(t *testing.T) {
	t.Parallel()
	needGo(t)
	var paths [3]string
	var all sync.WaitGroup
	for i := range paths {
		all.Add(1)
		go func() {
			defer all.Done()
			paths[i] = harness.Build(t, "../fakepod/cmd/fakepod")
		}()
	}
	all.Wait()
	assert.Equal(t, paths[0], paths[1])
	assert.Equal(t, paths[0], paths[2])
	assert.Equal(t, "fakepod", filepath.Base(paths[0]))
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: paths[0], PrefixArgs: []string{"pod"}}})
	assert.Equal(t, `{"event":"pong"}`, pod.Send(ping, patience))

	tagged := harness.Build(t, "example.com/podharness/fakepod/cmd/fakepod", "-tags=portable")
	assert.NotEqual(t, paths[0], tagged)
	info, err := buildinfo.ReadFile(tagged)
	require.NoError(t, err)
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	assert.Equal(t, "portable", settings["-tags"])
	own, _ := debug.ReadBuildInfo()
	hasRace := slices.ContainsFunc(own.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
	assert.Equal(t, hasRace, settings["-race"] == "true", "as the tests are")
}

func TestBuildThatFails(t *testing.T) {
	t.Parallel()
	needGo(t)
	for _, tc := range []struct {
		pkg, want string
		flags     []string
	}{
		{"./nowhere", "exit status 1: go build ", nil},
		{"./nowhere", "directory not found", nil},
		{"./internal/lines", "no main packages to build", nil},
		{"", `"" is no package`, nil},
		{"-x", `"-x" is no package`, nil},
		{"../fakepod/cmd/fakepod", "flag -o=x: Build chooses where the program is", []string{"-o=x"}},
		{"../fakepod/cmd/fakepod", "flag provided but not defined: -nonsense", []string{"-nonsense"}},
	} {
		for range 2 { // each test that wants it
			tb := harness.NewTB(t)
			log := tb.Run(func() { harness.Build(tb, tc.pkg, tc.flags...) })
			assert.True(t, tb.Failed())
			assert.Contains(t, log, "harness: build "+tc.pkg+": ")
			assert.Contains(t, log, tc.want)
		}
	}
}

// coverSuite is a test in a module of its own, whose pod is built with -cover.
const coverSuite = `package agent

import (
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
)

func TestBuilds(t *testing.T) {
	Covered()
	path := harness.Build(t, "./cmd/agent")
	harness.StartPod(t, harness.Config{Command: spawn.Command{Program: path, PrefixArgs: []string{"pod"}}}).Stop()
	t.Log("path", path)
}
`

func TestBuildCoversAsTheTestsAre(t *testing.T) {
	t.Parallel()
	needGo(t)
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	sums, err := os.ReadFile("../go.sum")
	require.NoError(t, err)
	for name, text := range map[string]string{
		"go.mod":            "module example.org/agent\n\ngo 1.24.0\n\nrequire example.com/podharness v0.0.0\n\nreplace example.com/podharness => " + root + "\n",
		"go.sum":            string(sums),
		"agent.go":          "package agent\n\nfunc Covered() int { return 1 }\n",
		"agent_test.go":     coverSuite,
		"cmd/agent/main.go": "package main\n\nimport (\n\t\"os\"\n\n\t\"example.com/podharness/fakepod\"\n)\n\nfunc main() { os.Exit(fakepod.Main(os.Args[1:])) }\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	data := filepath.Join(dir, "data")
	require.NoError(t, os.Mkdir(data, 0o700))
	cmd := exec.Command("go", "test", "-v", ".", "-cover", "-args", "-test.gocoverdir="+data)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOCOVERDIR=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.NotContains(t, string(out), "GOCOVERDIR not set")
	counters, err := filepath.Glob(data + "/covcounters.*")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(counters), 2, "of the tests, and of the pod: %s", out)
	_, path, found := bytes.Cut(out, []byte("path "))
	require.True(t, found, "%s", out)
	path, _, _ = bytes.Cut(path, []byte("\n"))
	assert.NoFileExists(t, string(path), "it was removed")
}

// TestGoPodThatHangsIsAskedForItsGoroutines has a pod that is no fake pod to the harness.
func TestGoPodThatHangsIsAskedForItsGoroutines(t *testing.T) {
	t.Parallel()
	needGo(t)
	program := harness.Build(t, "../fakepod/cmd/fakepod")
	config := func(steps string) harness.Config {
		return harness.Config{
			Name: "alpha", Command: spawn.Command{Program: program, PrefixArgs: []string{"pod", "-program", steps}},
			ReadyTimeout: patience, StopGrace: 300 * time.Millisecond, MustStopGracefully: true,
		}
	}
	const healthy = "bind; ready; serve; hang"
	for name, tc := range map[string]struct {
		cfg   harness.Config
		act   func(tb *harness.FakeTB, pod *harness.Pod)
		asked bool
	}{
		"a wait in vain": {config(healthy), func(tb *harness.FakeTB, pod *harness.Pod) {
			tb.Run(func() { pod.Talk(patience).WaitLine("never", 10*time.Millisecond) })
		}, true},
		"a wait in vain, and an answer": {config(healthy), func(tb *harness.FakeTB, pod *harness.Pod) {
			_, err := pod.TryWaitLog("never", 10*time.Millisecond)
			require.ErrorIs(t, err, harness.ErrTimedOut)
			pod.Send(ping, patience)
			tb.Fail()
		}, false},
		"a test that fails": {config(healthy), func(tb *harness.FakeTB, _ *harness.Pod) { tb.Fail() }, false},
		"a stop in vain":    {config("ignore INT; " + healthy), func(*harness.FakeTB, *harness.Pod) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, never := range []bool{false, true} {
				if never {
					tc.cfg.DumpSignal = syscall.Signal(0)
				}
				tb := harness.NewTB(t)
				pod, err := harness.TryStartPod(tb, tc.cfg)
				require.NoError(t, err)
				tc.act(tb, pod)
				tb.End()
				assert.True(t, tb.Failed())
				asked := strings.Contains(readFile(t, tb.Artifacts, "alpha.log"), "\nSIGQUIT: quit\n")
				assert.Equal(t, tc.asked && !never, asked)
				if !tc.asked {
					assert.Equal(t, "exit status 0", pod.State().String())
				}
			}
		})
	}
	t.Run("a start in vain", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		cfg := config("log loading; hang")
		cfg.ReadyTimeout = 2 * time.Second
		tb.Run(func() { harness.StartPod(tb, cfg) })
		tb.End()
		assert.Regexp(t, `(?s)SIGQUIT: quit.*goroutine \d+ `, readFile(t, tb.Artifacts, "alpha.log"))
	})
}
