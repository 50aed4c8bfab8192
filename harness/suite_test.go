package harness_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// suiteEnv names the suite that this binary is.
const suiteEnv = "HARNESS_TEST_SUITE"

func TestMain(m *testing.M) {
	if os.Getenv(suiteEnv) == "shares" {
		harness.Main(m)
	}
	os.Exit(run(m))
}

// run returns the status of the tests, or of the suite that this binary is.
func run(m *testing.M) (status int) {
	defer func() {
		if err := goleak.Find(); status == 0 && err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}()
	if os.Getenv(suiteEnv) != "" {
		defer fmt.Println("the suite's own teardown")
		return harness.Run(m)
	}
	flag.Parse()
	if !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.Contains(arg, "test.parallel=") }) {
		_ = flag.Set("test.parallel", "8") // the tests wait most of the time
	}
	return m.Run()
}

const crash = `{"method":"run","params":{"program":"log 'no memory'; exit 3"}}`

// suites are test binaries, by what they are about.
var suites = map[string]func(t *testing.T){
	"shares": func(t *testing.T) {
		for range 4 {
			t.Run("parallel", func(t *testing.T) {
				t.Parallel()
				pod := harness.Shared(t, "alpha", harness.Config{})
				assert.Contains(t, pod.Send(`{"method":"ping"}`, patience), "pong")
				fmt.Println("process", pod.PID)
			})
		}
	},
	"fails": func(t *testing.T) {
		cfg := fake("log 'says alpha'; bind; ready; serve")
		cfg.Redact = noSecrets // a function, which is equal to itself
		t.Run("passes", func(t *testing.T) { harness.Shared(t, "alpha", cfg) })
		t.Run("fails", func(t *testing.T) {
			harness.Shared(t, "alpha", cfg).WaitLog("nowhere", time.Millisecond)
		})
		t.Run("another passes", func(t *testing.T) { harness.Shared(t, "alpha", cfg) })
	},
	"dies": func(t *testing.T) {
		var ready, dead sync.WaitGroup
		ready.Add(2)
		dead.Add(1)
		t.Run("group", func(t *testing.T) {
			t.Run("kills", func(t *testing.T) {
				t.Parallel()
				pod := harness.Shared(t, "alpha", harness.Config{})
				ready.Done()
				ready.Wait()
				_, err := pod.TrySend(crash, patience)
				assert.ErrorContains(t, err, "it has closed the connection")
				<-pod.Done()
				dead.Done()
			})
			t.Run("uses", func(t *testing.T) {
				t.Parallel()
				harness.Shared(t, "alpha", harness.Config{})
				ready.Done()
				dead.Wait()
			})
		})
		t.Run("comes later", func(t *testing.T) { harness.Shared(t, "alpha", harness.Config{}) })
		t.Run("needs it not", func(t *testing.T) { harness.Shared(t, "beta", harness.Config{}) })
	},
	"starts": func(t *testing.T) {
		pod := harness.StartPod(t, harness.Config{Name: "alpha"})
		fmt.Println("process", pod.PID)
		require.NoError(t, pod.Stop())
		fmt.Println("process", pod.Restart().PID)
		harness.StartClient(t, harness.ClientConfig{Program: os.Args[0], Args: []string{clientArg, "-timeout", "10s", "beta"}})
		fmt.Println("process", harness.Adopt(t, "beta", patience).PID)
	},
	"fail alike":         failAlikeSuite,
	"is kept":            keptSuite,
	"is shared and kept": sharedKeptSuite,
	"differs": func(t *testing.T) {
		secret := harness.Config{Env: []string{"PASSWORD=hunter2"}}
		t.Run("first", func(t *testing.T) {
			harness.Shared(t, "alpha", secret)
			harness.Shared(t, "beta", harness.Config{})
		})
		t.Run("equal", func(t *testing.T) {
			harness.Shared(t, "beta", harness.Config{Name: "beta", StopGrace: 5 * time.Second, StopSignal: os.Interrupt})
		})
		t.Run("other environment", func(t *testing.T) { harness.Shared(t, "alpha", harness.Config{}) })
		t.Run("other grace", func(t *testing.T) { harness.Shared(t, "beta", harness.Config{StopGrace: time.Second}) })
		t.Run("other name", func(t *testing.T) { harness.Shared(t, "beta", harness.Config{Name: "gamma"}) })
		t.Run("no name", func(t *testing.T) { harness.Shared(t, "", harness.Config{}) })
		t.Run("misspelt", func(t *testing.T) { harness.Shared(t, "delta", fake("erly-exit")) })
	},
	"never starts": func(t *testing.T) {
		for _, name := range []string{"first", "second", "third"} {
			t.Run(name, func(t *testing.T) { harness.Shared(t, "alpha", fake("log 'no disk'; exit 7")) })
		}
	},
	"restarts": func(t *testing.T) {
		t.Run("restarts", func(t *testing.T) {
			pod := harness.Shared(t, "alpha", harness.Config{})
			require.NoError(t, pod.Kill())
			again := pod.Restart()
			assert.NotEqual(t, pod.PID, again.PID)
			assert.Equal(t, again.PID, harness.Shared(t, "alpha", harness.Config{}).PID)
		})
		t.Run("stops", func(t *testing.T) {
			require.NoError(t, harness.Shared(t, "alpha", harness.Config{}).Stop())
		})
		t.Run("too late", func(t *testing.T) { harness.Shared(t, "alpha", harness.Config{}) })
	},
	"hitches": func(t *testing.T) {
		stubborn := fake("stubborn")
		stubborn.StopGrace = 10 * time.Millisecond
		harness.Shared(t, "alpha", stubborn)
		t.Run("ended", func(t *testing.T) {
			harness.StartPod(t, harness.Config{StopSignal: syscall.SIGTERM})
			harness.StartPod(t, harness.Config{StopSignal: syscall.SIGTERM})
		})
		t.Run("late", func(t *testing.T) {
			slow := fake("sleep 600ms; bind; ready; serve")
			slow.ReadyTimeout = time.Second
			harness.StartPod(t, slow)
		})
	},
	"passes": func(t *testing.T) { harness.Shared(t, "alpha", harness.Config{}).Send(`{"method":"ping"}`, patience) },
	"leaks": func(t *testing.T) {
		mark := regexp.MustCompile(`PODHARNESS_MARK":"([^/"]+)/`).FindStringSubmatch(harness.Shared(t, "alpha", harness.Config{}).Send(`{"method":"env"}`, patience))
		require.NotNil(t, mark)
		cmd := exec.Command("sleep", "60") // in no sandbox
		cmd.Env = append(os.Environ(), "PODHARNESS_MARK="+mark[1]+"/0/")
		require.NoError(t, cmd.Start())
	},
	"reports": func(t *testing.T) {
		t.Run("fails", func(t *testing.T) {
			pod := harness.StartPod(t, harness.Config{})
			harness.Shared(t, "alpha", harness.Config{})
			harness.Shared(t, "beta", harness.Config{})
			_, _ = pod.TrySend(crash, patience)
			<-pod.Done()
			t.Fail()
		})
	},
	"lacks a workspace": func(t *testing.T) {
		t.Run("fails", func(t *testing.T) {
			harness.Shared(t, "alpha", harness.Config{WorkspaceFrom: os.DirFS("/dev/null")})
		})
	},
	"is killed": func(t *testing.T) {
		fmt.Println("process", harness.Shared(t, "alpha", fake("stubborn")).PID)
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	},
}

func TestInSuite(t *testing.T) {
	suite := suites[os.Getenv(suiteEnv)]
	if suite == nil {
		t.Skip("this is for TestSuite")
	}
	suite(t)
}

// runSuite runs a suite, and returns its output and status.
func runSuite(t *testing.T, name string, args ...string) (out string, status int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-test.run=^TestInSuite$", "-test.timeout=1m", "-test.parallel=4"}, args...)...)
	cmd.Env = append(os.Environ(), suiteEnv+"="+name, "TMPDIR="+t.TempDir())
	text, _ := cmd.CombinedOutput()
	t.Logf("%s", text)
	return string(text), cmd.ProcessState.ExitCode()
}

// failures returns the tests that have failed.
func failures(out string) (names []string) {
	for _, match := range regexp.MustCompile(`(?m)^ *--- FAIL: TestInSuite/(\S+)`).FindAllStringSubmatch(out, -1) {
		names = append(names, match[1])
	}
	return names
}

var processLine = regexp.MustCompile(`(?m)^process (\d+)$`)

func TestSuiteSharesOnePod(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "shares")
	assert.Zero(t, status)
	processes := processLine.FindAllString(out, -1)
	require.Len(t, processes, 4)
	for _, process := range processes {
		assert.Equal(t, processes[0], process)
	}
	assert.ErrorIs(t, syscall.Kill(processOf(t, processes[0]), 0), syscall.ESRCH)
	assert.NotContains(t, out, "harness", "there is nothing to tell")
}

func TestVerboseTestTellsWhereItsPodsAre(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "starts", "-test.v")
	assert.Zero(t, status)
	ready := regexp.MustCompile(`(?m)^ +suite_test\.go:\d+: harness: pod (\w+) is ready: process (\d+), socket /\S+/run/\w+/sock, log /\S+/stderr\.log$`).FindAllStringSubmatch(out, -1)
	require.Len(t, ready, 3, "of a client's, too")
	for i, process := range processLine.FindAllStringSubmatch(out, -1) {
		assert.Equal(t, process[1], ready[i][2])
	}
	out, _ = runSuite(t, "starts")
	assert.NotContains(t, out, "harness")
}

func processOf(t *testing.T, line string) (pid int) {
	t.Helper()
	_, err := fmt.Sscanf(line, "process %d", &pid)
	require.NoError(t, err)
	return pid
}

func TestSuiteTearsDownWhatIsItsOwn(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"passes": 0, "fails": 1} {
		out, status := runSuite(t, name)
		assert.Equal(t, want, status)
		assert.Contains(t, out, "the suite's own teardown\n")
		assert.NotContains(t, out, "goroutine")
	}
}

func TestSuiteKeepsEvidenceOfATestThatFails(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "fails", "-test.v")
	assert.Equal(t, 1, status)
	assert.Equal(t, []string{"fails"}, failures(out))
	assert.Regexp(t, `(?m)^    suite_test\.go:\d+: harness: no line of the log of pod alpha matched "nowhere"`, out)
	line := regexp.MustCompile(`harness: all evidence of this failure, once \S+ has ended: (\S+)\n`).FindAllStringSubmatch(out, -1)
	require.Len(t, line, 1)
	assert.Len(t, regexp.MustCompile(`(?m)^harness: pod alpha is ready: process \d+, socket /\S+/alpha/sock, log /\S+/alpha/stderr\.log$`).FindAllString(out, -1), 1)
	text, err := os.ReadFile(filepath.Join(line[0][1], "alpha.log"))
	require.NoError(t, err)
	assert.Contains(t, string(text), "says alpha\n")
	page, err := os.ReadFile(filepath.Join(line[0][1], "report.html"))
	require.NoError(t, err)
	assert.Contains(t, string(page), `<p>Tests that used these pods and failed: <strong class="bad">TestInSuite/fails</strong></p>`)
	assert.Regexp(t, `<li>used by TestInSuite/fails from \S+ until \S+, failed</li><li>used by TestInSuite/passes from \S+ until [^ ,]+</li><li>used by TestInSuite/another_passes from`, string(page))
	if _, ok := any(t).(interface{ Attr(key, value string) }); ok {
		assert.Contains(t, out, "=== ATTR  TestInSuite/fails evidence "+line[0][1]+"\n")
	}
}

func TestSuiteFailsEveryTestOfAPodThatDies(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "dies")
	assert.Equal(t, 1, status)
	assert.ElementsMatch(t, []string{"group", "group/kills", "group/uses", "comes_later"}, failures(out))
	assert.Equal(t, 1, strings.Count(out, "\tno memory\n"), "its last lines are shown once")
	assert.Regexp(t, `comes_later .*\n *suite_test\.go:\d+: harness: pod alpha ended by itself during the test \(exit status 3\)\n\s+log: /\S+/alpha\.log\n\s+all evidence of this failure`, out)
}

func TestSuiteHasOneConfigForAPod(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "differs")
	assert.Equal(t, 1, status)
	assert.ElementsMatch(t, []string{"other_environment", "other_grace", "other_name", "no_name", "misspelt"}, failures(out))
	assert.Contains(t, out, "harness: shared pod alpha is that of TestInSuite/first, with another Config.Env\n")
	assert.NotContains(t, out, "hunter2")
	assert.Contains(t, out, "harness: shared pod beta is that of TestInSuite/first, with another Config.StopGrace: 5s there, 1s here\n")
	assert.Contains(t, out, `harness: shared pod "beta": its name must not be empty, and Config.Name ("gamma") empty or the same`)
	assert.Contains(t, out, `unknown verb "erly-exit"`)
}

func TestSuiteTellsEveryTestOfAFailedStart(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "never starts")
	assert.Equal(t, 1, status)
	assert.Len(t, failures(out), 3)
	assert.Equal(t, 3, strings.Count(out, "shared pod alpha: pod exited before becoming ready (exit status 7): no disk"))
	dir := regexp.MustCompile(`all evidence of this failure, once \S+ has ended: (\S+)\n`).FindStringSubmatch(out)
	require.NotNil(t, dir)
	logs, err := filepath.Glob(filepath.Join(dir[1], "alpha*.log"))
	require.NoError(t, err)
	assert.Len(t, logs, 1, "it was started once")
}

func TestSuiteRestartsAPod(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "restarts")
	assert.Equal(t, 1, status)
	assert.Equal(t, []string{"too_late"}, failures(out))
	assert.Contains(t, out, "harness: shared pod alpha was stopped by a test (exit status 0), which should have restarted it\n")
}

func TestSuiteTellsOfHitches(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "hitches")
	assert.Zero(t, status)
	assert.Regexp(t, `(?m)^harness: pods that had to be killed: 1 \(\S+\); were ended by their stop signal: 2 \(TestInSuite/ended\); became ready after more than half of their ready timeout: 1 \(TestInSuite/late\)$`, out)
	assert.Equal(t, 1, strings.Count(out, "harness: "))
}

func TestSuiteReportsOnceAtTheLineOfTheTest(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "reports")
	assert.Equal(t, 1, status)
	assert.Equal(t, 1, strings.Count(out, "harness: all evidence of this failure, once "))
	lines := regexp.MustCompile(`(?m)^ +(\w+\.go):\d+: harness: `).FindAllStringSubmatch(out, -1)
	assert.Len(t, lines, 3)
	for _, line := range lines {
		assert.Equal(t, "suite_test.go", line[1])
	}
}

func TestSuiteHasNoEvidenceOfAPodThatItDidNotTryToStart(t *testing.T) {
	t.Parallel()
	out, status := runSuite(t, "lacks a workspace")
	assert.Equal(t, 1, status)
	assert.Regexp(t, `harness: shared pod alpha: copy WorkspaceFrom: .*\n\s+all evidence of this failure, once \S+ has ended: none \(no pod was started, or its test is over\)\n`, out)
}

func TestSuiteFailsForALeak(t *testing.T) {
	t.Parallel()
	harness.NeedProcesses(t)
	out, status := runSuite(t, "leaks")
	assert.Equal(t, 1, status)
	left := regexp.MustCompile(`(?m)^PASS\nharness: left behind: (process \d+) \(sleep \(2 bytes\), .* old\)$`).FindStringSubmatch(out)
	require.NotNil(t, left)
	assert.NoError(t, syscall.Kill(processOf(t, left[1]), syscall.SIGKILL))
}

func TestSuiteThatIsKilledLeavesNoPod(t *testing.T) {
	t.Parallel()
	harness.NeedProcesses(t)
	out, _ := runSuite(t, "is killed")
	pid := processOf(t, processLine.FindString(out))
	assert.Eventually(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }, patience, time.Millisecond)
}

func TestSharedNeedsMain(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	log := tb.Run(func() { harness.Shared(tb, "alpha", harness.Config{}) })
	assert.Equal(t, "harness: harness.Shared needs TestMain to call harness.Main(m), or harness.Run(m)\n", log)
}

func TestWithBindsAPodToAnotherTest(t *testing.T) {
	t.Parallel()
	owner, sub := harness.NewTB(t), harness.NewTB(t)
	pod := harness.StartPod(owner, harness.Config{Name: "alpha"})
	view := pod.With(sub)
	assert.Equal(t, pod.PID, view.With(sub).PID)
	conn := view.Dial()
	log := sub.Run(func() { view.WaitLog("nowhere", time.Millisecond) })
	assert.Contains(t, log, `no line of the log of pod alpha matched "nowhere"`)
	log = sub.End()
	assert.Equal(t, 1, strings.Count(log, "harness: all evidence of this failure, once "+owner.Name()+" has ended: "+owner.Artifacts), log)
	_, err := conn.Write([]byte("x"))
	assert.Error(t, err, "a connection is that of the test that made it")
	assert.False(t, owner.Failed())
	_, ended := pod.Ended()
	assert.False(t, ended)
	owner.End()
	_, ended = pod.Ended()
	assert.True(t, ended)
	assert.FileExists(t, filepath.Join(owner.Artifacts, "alpha.log"))
	assert.False(t, owner.Failed())
}

func TestWithAfterTheEndOfTheTest(t *testing.T) {
	t.Parallel()
	owner, early, late := harness.NewTB(t), harness.NewTB(t), harness.NewTB(t)
	pod := harness.StartPod(owner, harness.Config{Name: "alpha"})
	pod.With(early)
	owner.End()
	early.Errorf("it fails")
	assert.Contains(t, early.End(), "harness: all evidence of this failure, once "+owner.Name()+" has ended: none (no pod was started, or its test is over)\n")
	assert.NoFileExists(t, filepath.Join(owner.Artifacts, "processes.txt"))
	log := late.Run(func() { pod.With(late) })
	assert.Equal(t, "harness: pod alpha has ended with "+owner.Name()+", in which it was started: Shared is for tests that follow each other\n", log)
}

func TestWithInASubtest(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, fake("bind; ready; log hello; serve"))
	t.Run("sub", func(t *testing.T) {
		pod := pod.With(t)
		pod.WaitLog("^hello$", patience)
		pod = pod.Restart()
		assert.Contains(t, pod.Send(`{"method":"ping"}`, patience), "pong")
	})
	assert.Contains(t, pod.With(t).Send(`{"method":"ping"}`, patience), "pong", "the new one outlives the subtest")
}

func TestRestart(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	cfg := fake("log hello; bind; ready; serve")
	cfg.Name, cfg.Env = "alpha", []string{"A=1"}
	first := harness.StartPod(tb, cfg)
	workspace := look(t, first).Workspace
	require.NoError(t, os.WriteFile(filepath.Join(workspace, "state"), nil, 0o600))
	pod := first
	for _, end := range []func() error{pod.Stop, pod.Kill, func() error { return nil }} {
		require.NoError(t, end())
		next := pod.Restart()
		assert.NotEqual(t, pod.PID, next.PID)
		assert.Equal(t, "alpha", next.Name)
		assert.Equal(t, pod.SocketPath, next.SocketPath)
		_, ended := pod.Ended()
		assert.True(t, ended, "the end of the old one is waited for")
		assert.Equal(t, 1, strings.Count(next.Log(), "hello"))
		assert.Equal(t, workspace, look(t, next).Workspace)
		assert.Equal(t, "1", look(t, next).Env["A"])
		pod = next
	}
	assert.FileExists(t, filepath.Join(workspace, "state"))
	assert.Equal(t, pod.PID, first.With(tb).PID)
	_, err := harness.TryStartPod(tb, cfg)
	assert.ErrorContains(t, err, fmt.Sprintf("pod alpha still runs (process %d)", pod.PID))
	assert.Empty(t, tb.End())
	assert.NotNil(t, pod.State())
}

func TestRestartOfAPodThatFails(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{Name: "alpha"})
	_, _ = pod.TrySend(crash, patience)
	<-pod.Done()
	_, err := pod.TryRestart()
	assert.ErrorContains(t, err, "pod alpha ended by itself during the test (exit status 3)\n")
	log := tb.Run(func() { pod.Restart() })
	assert.Contains(t, log, "harness: restart: pod alpha ended by itself during the test (exit status 3)\n")
	assert.Contains(t, tb.End(), "pod alpha ended by itself during the test (exit status 3)\n")

	tb = harness.NewTB(t)
	once := fake("ready")
	once.Command.Program, once.Command.PrefixArgs = "sh", append([]string{"-c", `mkdir "$0" && exec "$@"`, "{home}/once", once.Command.Program}, once.Command.PrefixArgs...)
	pod = harness.StartPod(tb, once)
	log = tb.Run(func() { pod.Restart() })
	assert.Contains(t, log, "harness: restart: pod exited before becoming ready (exit status 1)")
}

func TestRestartsOfOnePodFollowEachOther(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, fake("delayed-ready"))
	const users = 8
	used := make(chan error, users)
	for range users {
		go func() {
			_, err := pod.TryRestart()
			used <- err
		}()
	}
	pod.With(tb) // waits for those that are under way
	for range users {
		assert.NoError(t, waitFor(t, used))
	}
	assert.Contains(t, pod.With(tb).Send(`{"method":"ping"}`, patience), "pong")
	assert.Empty(t, tb.End())
}

func TestRestartOfAClientsPod(t *testing.T) {
	t.Parallel()
	cfg := harness.ClientConfig{Program: os.Args[0], Args: []string{clientArg, "-timeout", "10s", "alpha"}}
	harness.StartClient(t, cfg)
	_, err := harness.Adopt(t, "alpha", patience).TryRestart()
	assert.EqualError(t, err, "pod alpha was started by a client, which alone can start it again")
}

// keptSuite has a pod whose test fails, and looks at it in a later test.
func keptSuite(t *testing.T) {
	pid := 0
	t.Run("fails", func(t *testing.T) {
		pod := harness.StartPod(t, harness.Config{Name: "alpha"})
		pid = pod.PID
		client := harness.StartClient(t, harness.ClientConfig{Program: os.Args[0], Args: []string{clientArg, "-timeout", "10s", "beta"}})
		client.Wait(patience)
		pod.WaitLog("nowhere", time.Millisecond)
	})
	t.Run("later", func(t *testing.T) {
		harness.StartPod(t, harness.Config{})
		fmt.Printf("process %d: %v\n", pid, syscall.Kill(pid, 0))
	})
}

// sharedKeptSuite has a test fail that uses a shared pod.
func sharedKeptSuite(t *testing.T) {
	t.Run("fails", func(t *testing.T) {
		harness.Shared(t, "alpha", harness.Config{})
		t.Error("it fails")
	})
}
