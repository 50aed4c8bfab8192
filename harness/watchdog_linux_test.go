//go:build !portable

package harness

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/harness/internal/watchdog"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// podKinds are pods that are hard to get rid of.
var podKinds = []struct{ name, program string }{
	{"normal", "ready"},
	{"stubborn", "ignore INT TERM HUP; bind; ready; serve"},
	{"stopped", "ready"},
	{"child", "child 'ignore INT TERM HUP; hang'; bind; ready; serve"},
	{"escape", "escape 'ignore INT TERM HUP; hang'; bind; ready; serve"},
	{"daemon", "escape 'daemonize; ignore INT TERM HUP; hang'; bind; ready; serve"},
}

// ends are the ways in which a test binary can end.
var ends = []struct {
	name   string
	args   []string
	signal syscall.Signal // sent to its process group; 0 = it ends by itself
	why    string         // the evidence is written; "" = by the watchdog, since the test binary ended
	end    func(t *testing.T)
}{
	{name: "pass", end: func(*testing.T) {}},
	{name: "Fatal", why: "the test failed", end: func(t *testing.T) { t.Fatal("as it should be") }},
	{name: "panic", why: "the test failed", end: func(*testing.T) { panic("as it should be") }},
	{name: "panic in a goroutine", end: func(t *testing.T) {
		go panic("as it should be")
		await(t)
	}},
	{name: "os.Exit", end: func(*testing.T) { os.Exit(3) }},
	{name: "timeout", args: []string{"-test.timeout=15s"}, why: "it was still running shortly before its deadline", end: await},
	{name: "SIGINT", signal: syscall.SIGINT, end: await},
	{name: "SIGTERM", signal: syscall.SIGTERM, end: await},
	{name: "SIGHUP", signal: syscall.SIGHUP, end: await},
	{name: "SIGKILL", signal: syscall.SIGKILL, end: await},
}

// await waits for an end from outside.
func await(t *testing.T) {
	<-time.After(time.Minute)
	t.Fatal("the end did not come")
}

const endEnv = "HARNESS_TEST_END"

// TestNoProcessOutlivesTheTestBinary is the proof: every way to end a test
// binary, with every kind of pod. What is left is counted by the mark.
func TestNoProcessOutlivesTheTestBinary(t *testing.T) {
	if name := os.Getenv(endEnv); name != "" {
		for _, kind := range podKinds {
			pod := StartPod(t, Config{Name: kind.name, Command: FakePod(kind.program), StopGrace: 100 * time.Millisecond, AllowLeaks: true})
			if kind.name == "stopped" {
				pod.Suspend()
			}
			fmt.Printf("pod %s %s\n", kind.name, pod.mark)
		}
		startControl(t)
		fmt.Printf("up %s\n", RuntimeDir(t))
		for _, e := range ends {
			if e.name == name {
				e.end(t)
			}
		}
		return
	}
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			if e.signal != 0 && signal.Ignored(e.signal) {
				t.Skipf("this process ignores %v, as under nohup, and so would the test binary", e.signal)
			}
			cmd := exec.Command(os.Args[0], append([]string{"-test.run=^TestNoProcessOutlivesTheTestBinary$"}, e.args...)...)
			control := uuid.NewString()
			cmd.Env = append(os.Environ(), endEnv+"="+e.name, controlEnv+"="+control, "TMPDIR="+t.TempDir())
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			cmd.Stderr = cmd.Stdout // as go test does
			require.NoError(t, cmd.Start())
			t.Cleanup(func() { proc.Kill(proc.Match{Mark: control}, time.Now().Add(10*time.Second)) })
			hung := time.AfterFunc(time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
			t.Cleanup(func() { hung.Stop() })
			marks, sandbox := map[string]string{}, ""
			lines := bufio.NewScanner(out)
			for sandbox == "" && lines.Scan() {
				var name, mark string
				if _, err := fmt.Sscanf(lines.Text(), "pod %s %s", &name, &mark); err == nil {
					marks[name] = mark
				}
				if dir, ok := strings.CutPrefix(lines.Text(), "up "); ok {
					sandbox = filepath.Dir(filepath.Dir(dir)) // the sandboxes' own directory
				}
			}
			require.Len(t, marks, len(podKinds), "%v", lines.Err())
			require.NotEmpty(t, sandbox)
			if e.signal != 0 {
				for kind, mark := range marks {
					require.NotEmpty(t, proc.Find(proc.Match{Mark: mark}), "the mark of %s finds what is alive", kind)
				}
				require.NoError(t, syscall.Kill(-cmd.Process.Pid, e.signal))
			}
			awaitEnd := time.Now()
			var evidence []string
			for lines.Scan() { // until nobody holds its stdout
				if strings.Contains(lines.Text(), "harness: ") && strings.Contains(lines.Text(), "evidence") {
					evidence = append(evidence, lines.Text())
				}
			}
			_ = cmd.Wait()
			if e.signal != 0 {
				assert.Less(t, time.Since(awaitEnd), 2*time.Second, "go test waits for that")
				t.Logf("stdout and stderr let go of after %v", time.Since(awaitEnd).Round(time.Millisecond))
			}
			if e.name == "pass" {
				assert.Empty(t, evidence)
			} else {
				require.Len(t, evidence, 1)
				assertEvidence(t, evidence[0], cmp.Or(e.why, endedWhy))
			}

			const soon = 2 * time.Second
			ended := time.Now()
			left := func() (all []string) {
				for kind, mark := range marks {
					for _, leak := range proc.Find(proc.Match{Mark: mark}) {
						all = append(all, fmt.Sprint(kind, ": ", leak))
					}
				}
				if _, err := os.Stat(sandbox); err == nil {
					all = append(all, sandbox)
				}
				return all
			}
			for len(left()) > 0 && time.Since(ended) < soon {
				<-time.After(time.Millisecond)
			}
			t.Logf("all gone after %v", time.Since(ended).Round(time.Millisecond))
			assert.Empty(t, left(), "%v after the end", soon)
			// Under load it may be between two programs for a while.
			assert.Eventually(t, func() bool { return len(proc.Find(proc.Match{Mark: control})) == 1 }, 10*time.Second, time.Millisecond,
				"a plain exec.Command in its own group survives, so that the count can fail")
		})
	}
}

const endedWhy = "the test binary ended while it ran"

// assertEvidence finds all files in the directory that a line names.
func assertEvidence(t *testing.T, line, why string) {
	t.Helper()
	const named = "TestNoProcessOutlivesTheTestBinary"
	if why == "the test failed" {
		require.Regexp(t, `^ +watchdog_linux_test\.go:\d+: harness: all evidence of this failure: /`, line)
	} else {
		require.Contains(t, line, fmt.Sprintf("harness: evidence of %s (%s): /", named, why))
	}
	dir := line[strings.LastIndex(line, ": ")+2:]
	assert.Regexp(t, "/podharness-([0-9a-f]{8}-)?"+named+`-\d{8}T\d{6}\.\d{3}$`, dir)
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(text)
	}
	processes, merged, timelines := read("processes.txt"), read("merged.log"), read("timelines.txt")
	assert.Contains(t, processes, named+", ")
	assert.Contains(t, processes, ": "+why+"\n")
	assert.Contains(t, read("report.html"), why)
	for _, kind := range podKinds {
		ready := "YOI-READY\t" + kind.name + "\t"
		assert.True(t, strings.HasPrefix(read(kind.name+".log"), ready), kind.name)
		assert.Regexp(t, `(?m)^ *\+\d+\.\d{6}  `+kind.name+`  YOI-READY`, merged)
		assert.FileExists(t, filepath.Join(dir, kind.name+".dir", "status.json"))
		if state := map[string]string{"stopped": "T"}[kind.name]; state == "" || why != endedWhy {
			assert.Regexp(t, `(?m)^\d+  `+cmp.Or(state, "[SRD]")+` \(.* --pod `+kind.name+`$`, processes)
		} // the kernel ends stopped processes whose parent has died (setpgid(2)), before anybody looks
		assert.Regexp(t, `(?m)^ *\+\d+\.\d{3}ms( +\d+\.\d{3}ms){4} +-  `+kind.name+": ", timelines)
	}
	assert.Regexp(t, `(?m)^    thread \d+ \(.*\): S \(sleeping\)`, processes)
}

// controlEnv holds the mark of a process that no harness watches.
const controlEnv = "HARNESS_TEST_CONTROL"

func startControl(t *testing.T) {
	t.Helper()
	name, args := fakepod.Command("hang")
	cmd := exec.Command(name, append(args, "--workspace", "/", "--pod", "control")...)
	cmd.Env = []string{"YOI_RUNTIME_DIR=" + filepath.Join(os.Getenv("TMPDIR"), "control"), proc.MarkEnv + "=" + os.Getenv(controlEnv)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
}

func TestWatchdogIsSmallAndHoldsNothing(t *testing.T) {
	t.Parallel()
	StartPod(t, Config{})
	b, err := makeBinary()
	require.NoError(t, err)
	pid, _ := b.Process()
	session, err := syscall.Getpgid(pid)
	require.NoError(t, err)
	assert.Equal(t, pid, session, "it leads its own group")
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	require.NoError(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink(fd)
		if filepath.Base(fd) == "2" {
			continue // the test binary's stderr
		}
		assert.True(t, target == "/dev/null" || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "pipe:"), "%s is %s", fd, target)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log(line)
		}
		var kib int
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
			assert.Less(t, kib, 32<<10, "half of it is the race detector's")
		}
	}
}

func TestLeakedProcessesFailTheTestAndAreNamed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, program string
		cfg           Config
		kill, dies    bool
		fails         bool
		says          string
	}{
		{name: "child", program: "child", fails: true},
		{name: "escape", program: "escape", fails: true},
		{name: "daemon", program: "escape 'daemonize; hang'; bind; ready; serve", fails: true},
		{name: "escape of a pod that ended by itself", program: "escape; bind; ready; serve", dies: true, fails: true},
		{name: "child in its group without environment", program: "leaky", fails: true},
		{name: "escape of a pod that was killed when it had ended", program: "escape; bind; ready; serve", dies: true, kill: true, fails: true},
		{name: "allowed", program: "escape", cfg: Config{AllowLeaks: true}},
		{name: "killed by the test", program: "escape", kill: true, says: "harness: pod alpha left processes behind"},
		// The signal that stops the pod ends its child too, maybe a moment later.
		{name: "children that end with it", program: "child; child; child; bind; ready; serve"},
		{name: "process that ends soon after it", program: "escape 'sleep 250ms'; bind; ready; serve"},
		{name: "no leak", program: "ready"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tb := NewTB(t)
			tc.cfg.Name, tc.cfg.Command, tc.cfg.ShowArgs = "alpha", FakePod(tc.program), true
			if tc.program == "leaky" {
				tc.cfg.Command = spawn.Command{Program: os.Args[0], PrefixArgs: []string{testPodArg, "leaky"}}
			}
			pod, err := TryStartPod(tb, tc.cfg)
			require.NoError(t, err)
			if tc.dies {
				require.NoError(t, syscall.Kill(pod.PID, syscall.SIGTERM))
				select {
				case <-pod.Done():
				case <-time.After(20 * time.Second):
					require.Fail(t, "it did not end")
				}
			}
			if tc.kill {
				require.NoError(t, pod.Kill())
			}
			tb.End()
			assert.Equal(t, tc.fails, tb.Failed(), tb.Text())
			if tc.fails {
				assert.Regexp(t, `pod alpha left processes behind, which were killed:\n\t\tprocess \d+ \(.*(podharness-fakepod -role |harness-test-pod child ).*, [0-9.]+m?s old\)`, tb.Text())
				assert.Contains(t, tb.Text(), "Config.AllowLeaks")
			}
			if tc.says != "" {
				assert.Contains(t, tb.Text(), tc.says)
			}
			if !tc.fails && tc.says == "" {
				assert.Empty(t, tb.Text())
			}
			assert.Empty(t, proc.Find(proc.Match{Mark: pod.mark}), "nothing is left")
		})
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	_, err := TryStartPod(t, Config{Name: "alpha", Command: FakePod("escape 'ignore INT TERM; hang'; exit 1")})
	require.Error(t, err)
	box, err := sandboxOf(t)
	require.NoError(t, err)
	assert.Empty(t, proc.Find(proc.Match{Mark: box.mark}))
}

func TestEvidenceOfALeakShowsIt(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	pod := StartPod(tb, Config{Name: "alpha", Command: FakePod("escape; bind; ready; serve")})
	leaks := proc.Find(proc.Match{Mark: pod.mark})
	tb.End()
	require.True(t, tb.Failed())
	text, err := os.ReadFile(filepath.Join(tb.Artifacts, "processes.txt"))
	require.NoError(t, err)
	require.Len(t, leaks, 2)
	for _, leak := range leaks {
		if leak.PID != pod.PID {
			assert.Contains(t, string(text), fmt.Sprintf("\n%d  ", leak.PID))
		}
	}
}

// TestTestBinaryThatAPodStarts is a test binary with a mark and a temporary
// directory that are not for good.
func TestTestBinaryThatAPodStarts(t *testing.T) {
	if os.Getenv(endEnv) != "" {
		t.Run("first", func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			StartPod(t, Config{})
		})
		StartPod(t, Config{})
		pid, _ := thisBinary.Process()
		watchdog, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		require.NoError(t, err)
		assert.NotContains(t, string(watchdog), proc.MarkEnv, "the pod's harness would kill it before its work")
		require.NoError(t, os.RemoveAll(thisBinary.Root), "as what tidies a temporary directory may")
		t.Run("last", func(t *testing.T) { StartPod(t, Config{}) })
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), endEnv+"=yes", proc.MarkEnv+"=of/the/pod/")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// TestHidingPodDoesNotOutliveTheTestBinary kills test binaries at random moments,
// while their pods, which the mark does not tell, start, live and end.
func TestHidingPodDoesNotOutliveTheTestBinary(t *testing.T) {
	if name := os.Getenv(endEnv); name != "" {
		kind, word, _ := strings.Cut(name, ":")
		RuntimeDir(t)
		fmt.Println("root", thisBinary.Root)
		fmt.Println("begin")
		for i := 0; ; i++ {
			pod := StartPod(t, hiding(t, kind, fmt.Sprint(word, "-", i)))
			if kind == "leaderless" {
				// What is told later is taken later.
				watchdog, _ := thisBinary.Process()
				held := func(n int) func() bool { return func() bool { return pidfds(t, watchdog) == n } }
				other := thisBinary.Launched(startSleeper(t, 0).Process.Pid, 0)
				require.Eventually(t, held(i+2), 10*time.Second, time.Millisecond)
				thisBinary.LetGo(other)
				require.Eventually(t, held(i+1), 10*time.Second, time.Millisecond)
				pod.Dial()
				_, _ = pod.TryWait(time.Minute)
			}
			if loops := kind == "plain" || kind == "undumpable"; loops && i%2 == 1 {
				_ = pod.Kill()
			} else if !loops && i == 3 {
				fmt.Println("settled")
				await(t)
			}
		}
	}
	t.Parallel()
	rounds := 10
	if os.Getenv("PODHARNESS_LONG") != "" {
		rounds = 500
	}
	for kind, moment := range map[string]string{"plain": "begin", "undumpable": "begin", "hidden": "settled", "leaderless": "settled"} {
		t.Run(kind+" pod, after "+moment, func(t *testing.T) {
			t.Parallel()
			for range rounds {
				word := uuid.NewString()
				cmd, lines := startHelper(t, "TestHidingPodDoesNotOutliveTheTestBinary", kind+":"+word)
				root := strings.TrimPrefix(waitForLine(t, lines, "root "), "root ")
				waitForLine(t, lines, moment)
				<-time.After(time.Duration(rand.Int64N(int64(20 * time.Millisecond))))
				require.NoError(t, cmd.Process.Kill())
				_ = cmd.Wait()
				assertSoonGone(t, word, root)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// startHelper runs a test of this binary in a process of its own, which is killed
// at the end of the test, and returns its output line by line.
func startHelper(t *testing.T, test, end string, env ...string) (*exec.Cmd, <-chan string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	cmd.Env = append(append(os.Environ(), endEnv+"="+end, "TMPDIR="+t.TempDir()), env...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	lines := make(chan string, 10000)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for late := time.After(20 * time.Second); ; { // until its watchdog has written the evidence
			select {
			case _, more := <-lines:
				if more {
					continue
				}
			case <-late:
			}
			break
		}
		_ = cmd.Wait()
	})
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return cmd, lines
}

// waitForLine reads to the line that begins with a word, and returns it.
func waitForLine(t *testing.T, lines <-chan string, word string) string {
	t.Helper()
	late := time.After(time.Minute) // on a machine that has much else to do
	var all []string
	for {
		select {
		case line, ok := <-lines:
			all = append(all, line)
			if strings.HasPrefix(line, word) {
				return line
			}
			require.True(t, ok, "the helper has ended without %q: %q", word, all)
		case <-late:
			require.Fail(t, "no line in time", "%q in %q", word, all)
		}
	}
}

const watchdogs = watchdog.MaxRestarts

func TestKilledWatchdogIsReplaced(t *testing.T) {
	if word := os.Getenv(endEnv); word != "" {
		StartPod(t, hiding(t, "hidden", word))
		fmt.Println("root", thisBinary.Root)
		kills, err := strconv.Atoi(os.Getenv("KILLS"))
		require.NoError(t, err)
		for range kills {
			watchdog, _ := thisBinary.Process()
			require.NoError(t, unix.Kill(watchdog, unix.SIGKILL))
			require.Eventually(t, func() bool {
				pid, restarts := thisBinary.Process()
				return pid != watchdog || restarts > watchdogs
			}, 10*time.Second, time.Millisecond)
		}
		StartPod(t, hiding(t, "hidden", word+"-2"))
		fmt.Println("up")
		await(t)
	}
	t.Parallel()
	t.Run("and knows the pods", func(t *testing.T) {
		t.Parallel()
		word := uuid.NewString()
		cmd, lines := startHelper(t, "TestKilledWatchdogIsReplaced", word, "KILLS=2")
		root := strings.TrimPrefix(waitForLine(t, lines, "root "), "root ")
		assert.Regexp(t, `^harness: the watchdog \(process \d+\), which ends pods when this test binary dies, has ended \(signal: killed\): it is started again$`, waitForLine(t, lines, "harness:"))
		assert.Equal(t, "up", waitForLine(t, lines, ""), "it is said once")
		require.Len(t, withWord(word), 2)
		require.NoError(t, cmd.Process.Kill())
		assertSoonGone(t, word, root)
	})
	t.Run("a few times", func(t *testing.T) {
		t.Parallel()
		word := uuid.NewString()
		cmd, lines := startHelper(t, "TestKilledWatchdogIsReplaced", word, fmt.Sprint("KILLS=", watchdogs+1))
		root := strings.TrimPrefix(waitForLine(t, lines, "root "), "root ")
		t.Cleanup(func() { os.RemoveAll(root) })
		waitForLine(t, lines, "harness: the watchdog (process")
		assert.Contains(t, waitForLine(t, lines, "harness:"), "is not started again (it has ended 6 times): should this test binary be killed, its pods live on")
		assert.Equal(t, "up", waitForLine(t, lines, ""), "pods start without one")
		require.NoError(t, cmd.Process.Kill())
		for _, pid := range withWord(word) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
}

func TestPodIsLetGoAfterItsTeardown(t *testing.T) {
	t.Parallel()
	pod := StartPod(t, Config{})
	id := proc.Of(pod.PID)
	assert.True(t, thisBinary.Knows(id))
	require.NoError(t, pod.Stop())
	assert.False(t, thisBinary.Knows(id))
	_, err := TryStartPod(t, Config{Command: FakePod("early-exit")})
	var e *spawn.Error
	require.ErrorAs(t, err, &e)
	assert.NotZero(t, e.PID)
}

// TestWhatTheWatchdogIsTold: each start that begins is launched or not, and each
// pod is let go.
func TestWhatTheWatchdogIsTold(t *testing.T) {
	t.Parallel()
	tb := &FakeTB{TestName: t.Name()}
	box, err := sandboxOf(tb)
	require.NoError(t, err)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	defer box.binary.Unuse()
	box.binary = &binary{Parent: watchdog.To(w)}
	_, err = TryStartPod(tb, Config{Command: spawn.Command{Program: "/nowhere"}})
	require.Error(t, err)
	_, err = TryStartPod(tb, Config{Command: FakePod("never-ready"), ReadyTimeout: 100 * time.Millisecond})
	require.Error(t, err)
	pod, err := TryStartPod(tb, Config{})
	require.NoError(t, err)
	tb.End()
	require.NoError(t, w.Close())
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Regexp(t, `^\*0 [1-9]\d*\n\+0 0 0\n\*0 \d+\n\+[1-9]\d* [1-9]\d* 0\n-[1-9]\d* [1-9]\d*\n\*0 \d+\n`+
		fmt.Sprintf(`\+%[1]d %[2]d 0\n-%[1]d %[2]d\n$`, pod.PID, pod.process.Start), string(text))
}

// TestZombiesOfASubreaper runs in a process that inherits what pods leave behind,
// as process 1 of a container does.
func TestZombiesOfASubreaper(t *testing.T) {
	if os.Getenv(endEnv) != "" {
		require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
		const left = "child 'ignore INT TERM HUP; hang'; escape 'ignore INT TERM HUP; hang'; "
		var all sync.WaitGroup
		for range 8 {
			all.Add(1)
			go func() {
				defer all.Done()
				_, err := TryStartPod(t, Config{Command: FakePod(left + "exit 7")})
				assert.ErrorIs(t, err, spawn.ErrExited)
				for _, program := range []string{left, "child; escape; "} {
					pod, err := TryStartPod(t, Config{Command: FakePod(program + "bind; ready; serve"), AllowLeaks: true})
					if assert.NoError(t, err) {
						assert.NoError(t, pod.Stop())
					}
				}
			}()
		}
		all.Wait()
		t.Cleanup(func() {
			zombies := func() (all []string) {
				for _, pid := range proc.All() {
					if s, ok := proc.Lookup(pid); ok && s.Parent == os.Getpid() && s.State == 'Z' {
						all = append(all, fmt.Sprint(pid))
					}
				}
				return all
			}
			require.Eventually(t, func() bool { return len(zombies()) == 0 }, 5*time.Second, time.Millisecond, "%v", zombies())
			fmt.Println("no zombies")
		})
		return
	}
	t.Parallel()
	_, lines := startHelper(t, "TestZombiesOfASubreaper", "yes")
	waitForLine(t, lines, "no zombies")
}

// TestKillHoldsNoDescriptors is not parallel: it counts those of the process.
func TestKillHoldsNoDescriptors(t *testing.T) {
	tb := NewTB(t)
	StartPod(t, Config{}) // the watchdog is held, too
	begin := pidfds(t, os.Getpid())
	for range 5 {
		pod, err := TryStartPod(tb, Config{Command: FakePod("escape 'ignore INT TERM HUP; hang'; bind; ready; serve"), AllowLeaks: true})
		require.NoError(t, err)
		require.NoError(t, pod.Stop())
	}
	tb.End()
	assert.Eventually(t, func() bool { return pidfds(t, os.Getpid()) <= begin }, 10*time.Second, time.Millisecond)
}

// TestKillTellsOfAProcessThatStays has a tracer keep the pod's end to itself.
func TestKillTellsOfAProcessThatStays(t *testing.T) {
	if pid := os.Getenv(endEnv); pid != "" {
		runtime.LockOSThread()
		n, err := strconv.Atoi(pid)
		require.NoError(t, err)
		fmt.Println("attached", unix.PtraceSeize(n))
		await(t)
	}
	t.Parallel()
	pod := StartPod(t, Config{Name: "alpha"})
	tracer, lines := startHelper(t, "TestKillTellsOfAProcessThatStays", fmt.Sprint(pod.PID))
	if line := waitForLine(t, lines, "attached"); line != "attached <nil>" {
		t.Skip("no process may be traced here: " + line)
	}
	tb := &innerTB{}
	other := &Pod{Pod: pod.Pod, tb: &outerTB{plainTB{&FakeTB{}}, tb}, common: &common{box: pod.box, log: pod.log, attempt: pod.attempt}}
	assert.ErrorContains(t, other.Kill(), fmt.Sprintf("pod alpha: process %d is still there 1.4", pod.PID))
	require.NoError(t, tracer.Process.Kill())
	require.NoError(t, pod.Kill())
}

// TestEvidenceOfTheWatchdog has it write what it was told, and what is on disk.
func TestEvidenceOfTheWatchdog(t *testing.T) {
	if os.Getenv(endEnv) != "" {
		old := StartPod(t, Config{Name: "alpha", Command: FakePod("log old; bind; ready; serve")})
		require.NoError(t, old.Kill())
		alpha := StartPod(t, Config{Name: "alpha", Command: FakePod("log new; bind; ready; serve"), DumpSignal: syscall.SIGQUIT, Env: []string{"PIN=1234"}, ShowArgs: true})
		_, err := TryStartPod(t, Config{Name: "hangs", Command: FakePod("never-ready"), ReadyTimeout: 100 * time.Millisecond})
		require.Error(t, err)
		c := StartClient(t, ClientConfig{Program: "/bin/sh", Args: []string{"-c", "echo hello; exec sleep 1000"}})
		c.WaitOutput("hello", 10*time.Second)
		alpha.Dial()
		secret := StartPod(t, Config{Name: "secret", Command: FakePod("log sesame; bind; ready; serve"), Redact: func(line string) string { return strings.ReplaceAll(line, "sesame", "SECRET") }})
		secret.Send(`{"method":"echo","params":"sesame"}`, 10*time.Second)
		<-time.After(2 * evidence.ApartNoted)
		stderr, err := os.OpenFile(alpha.LogPath, os.O_WRONLY|os.O_APPEND, 0)
		require.NoError(t, err)
		fmt.Fprintln(stderr, "later")
		alpha.WaitLog("later", 10*time.Second)
		if os.Getenv("KILLS") != "" {
			watchdog, _ := thisBinary.Process()
			require.NoError(t, unix.Kill(watchdog, unix.SIGKILL))
			require.Eventually(t, func() bool {
				pid, _ := thisBinary.Process()
				return pid != watchdog
			}, 10*time.Second, time.Millisecond)
		}
		t.Run("passed", func(t *testing.T) { StartPod(t, Config{}) })
		require.NoError(t, os.RemoveAll(filepath.Dir(alpha.LogPath)))
		fmt.Println("up")
		await(t)
	}
	for name, env := range map[string]string{"the first one": "", "the second one": "KILLS=1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			artifacts := t.TempDir()
			cmd, lines := startHelper(t, "TestEvidenceOfTheWatchdog", "yes", "PODHARNESS_ARTIFACTS="+artifacts, env)
			waitForLine(t, lines, "up")
			require.NoError(t, cmd.Process.Kill())
			const says = "harness: evidence of TestEvidenceOfTheWatchdog (the test binary ended while it ran): "
			dir := strings.TrimPrefix(waitForLine(t, lines, says), says)
			assert.Equal(t, artifacts, filepath.Dir(dir))
			_, more := <-lines
			assert.False(t, more, "nothing is said of the test that has passed")
			read := func(name string) string { return readEvidence(t, dir, name) }

			assert.Regexp(t, `(?s)^new\nYOI-READY.*\nlater\nSIGQUIT: quit.*goroutine \d+ `, read("alpha.2.log"), "although the pod's directory is gone")
			assert.Regexp(t, "^old\nYOI-READY.*\n$", read("alpha.log"), "although the second life has replaced it")
			assert.Equal(t, "loading\n", read("hangs.log"))
			assert.Equal(t, "hello\n", read("client-4.stdout"))
			assert.Empty(t, read("client-4.stderr"))

			assert.Equal(t, "[podharness: the log is not shown: the test binary, which has Config.Redact, has ended]\n", read("secret.log"))
			assert.Contains(t, read("secret.talk.log"), `#1 < {"event":"echo","data":"SECRET"}`)

			timelines := read("timelines.txt")
			const phases = `(?m)^ *\+\d+\.\d{3}ms( +\d+\.\d{3}ms){4} +-  `
			assert.Regexp(t, phases+`alpha: \S+ms SIGKILL, \S+ms signal: killed$`, timelines)
			assert.Regexp(t, phases+`alpha\.2: \S+ms connect, \S+ms SIGQUIT, \S+ms it has ended, how is not known$`, timelines)
			assert.Regexp(t, `  hangs: pod did not become ready within 100ms, waiting for the ready line`, timelines)
			assert.Regexp(t, `  client-4.stdout: \S+ms it still ran`, timelines)

			assert.Regexp(t, `<h3>alpha\.2 <span class="dim">what its goroutines did when it was asked</span></h3>\n<pre>(goroutine .*\n)*goroutine \d+, .*: fakepod\.`, read("report.html"))

			processes := read("processes.txt")
			assert.Regexp(t, `(?m)^\d+  S .* --pod alpha\n(    fd .*\n)+    thread \d+ `, processes)
			assert.Contains(t, processes, "log new; bind; ready; serve --workspace ", "it is shown by choice")
			assert.Contains(t, processes, " old: sleep (4 bytes)\n")
			assert.Contains(t, processes, "\nwhen the start of pod hangs had failed: 1 processes alive\n")
			assert.Contains(t, processes, "\nenvironment of pod alpha.2 beyond the usual:\n  PIN (4 bytes)\n")

			var at, later, quit time.Duration
			merged := read("merged.log")
			assert.NotContains(t, merged, "sesame")
			assert.Contains(t, merged, "  secret.talk.log  #1 < ")
			assert.Regexp(t, `(?s)  alpha\.2  new\n.*  client-4\.stdout  hello\n.*  alpha\.2  later\n`, merged)
			for what, to := range map[string]*time.Duration{"new": &at, "later": &later, "SIGQUIT: quit": &quit} {
				found := regexp.MustCompile(`(?m)^ *\+(\d+\.\d{6})  alpha\.2  ` + what + `$`).FindStringSubmatch(merged)
				require.NotNil(t, found, merged)
				var err error
				*to, err = time.ParseDuration(found[1] + "s")
				require.NoError(t, err)
			}
			assert.Greater(t, later-at, evidence.ApartNoted, "the times of lines are roughly those")
			assert.Greater(t, quit, later, "what it was asked for came then")
		})
	}
}
