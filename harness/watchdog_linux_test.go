//go:build !portable

package harness

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	end    func(t *testing.T)
}{
	{name: "pass", end: func(*testing.T) {}},
	{name: "Fatal", end: func(t *testing.T) { t.Fatal("as it should be") }},
	{name: "panic", end: func(*testing.T) { panic("as it should be") }},
	{name: "panic in a goroutine", end: func(t *testing.T) {
		go panic("as it should be")
		await(t)
	}},
	{name: "os.Exit", end: func(*testing.T) { os.Exit(3) }},
	{name: "timeout", args: []string{"-test.timeout=4s"}, end: await},
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
			require.NoError(t, cmd.Start())
			t.Cleanup(func() { kill(kin{mark: control}, time.Now().Add(10*time.Second)) })
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
					require.NotEmpty(t, find(kin{mark: mark}), "the mark of %s finds what is alive", kind)
				}
				require.NoError(t, syscall.Kill(-cmd.Process.Pid, e.signal))
			}
			for lines.Scan() { // until nobody holds its stdout
			}
			_ = cmd.Wait()

			const soon = 2 * time.Second
			ended := time.Now()
			left := func() (all []string) {
				for kind, mark := range marks {
					for _, leak := range find(kin{mark: mark}) {
						all = append(all, kind+": "+leak.String())
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
			assert.Len(t, find(kin{mark: control}), 1, "a plain exec.Command in its own group survives, so that the count can fail")
		})
	}
}

// controlEnv holds the mark of a process that no harness watches.
const controlEnv = "HARNESS_TEST_CONTROL"

func startControl(t *testing.T) {
	t.Helper()
	name, args := fakepod.Command("hang")
	cmd := exec.Command(name, append(args, "--workspace", "/", "--pod", "control")...)
	cmd.Env = []string{"YOI_RUNTIME_DIR=" + filepath.Join(os.Getenv("TMPDIR"), "control"), markEnv + "=" + os.Getenv(controlEnv)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, cmd.Start())
}

func TestWatchdogIsSmallAndHoldsNothing(t *testing.T) {
	t.Parallel()
	StartPod(t, Config{})
	b, err := makeBinary()
	require.NoError(t, err)
	session, err := syscall.Getpgid(b.watchdog)
	require.NoError(t, err)
	assert.Equal(t, b.watchdog, session, "it leads its own group")
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", b.watchdog))
	require.NoError(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink(fd)
		assert.True(t, target == "/dev/null" || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "pipe:"), "%s is %s", fd, target)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.watchdog))
	require.NoError(t, err)
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log(line)
		}
		var kib int
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kib); err == nil {
			assert.Less(t, kib, 16<<10)
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
		{name: "allowed", program: "escape", cfg: Config{AllowLeaks: true}},
		{name: "killed by the test", program: "escape", kill: true, says: "harness: pod alpha left processes behind"},
		// The signal that stops the pod ends its child too, maybe a moment later.
		{name: "children that end with it", program: "child; child; child; bind; ready; serve"},
		{name: "no leak", program: "ready"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tb := &recordingTB{name: t.Name(), artifacts: t.TempDir()}
			tc.cfg.Name, tc.cfg.Command = "alpha", FakePod(tc.program)
			pod, err := TryStartPod(tb, tc.cfg)
			require.NoError(t, err)
			if tc.dies {
				require.NoError(t, syscall.Kill(pod.PID, syscall.SIGTERM))
				<-pod.Done()
			}
			if tc.kill {
				require.NoError(t, pod.Kill())
			}
			tb.end()
			assert.Equal(t, tc.fails, tb.failed, tb.log)
			if tc.fails {
				assert.Regexp(t, `pod alpha left processes behind, which were killed:\n\t\tprocess \d+ \(.*podharness-fakepod -role .*, [0-9.]+m?s old\)`, tb.log)
				assert.Contains(t, tb.log, "Config.AllowLeaks")
			}
			if tc.says != "" {
				assert.Contains(t, tb.log, tc.says)
			}
			if !tc.fails && tc.says == "" {
				assert.Empty(t, tb.log)
			}
			assert.Empty(t, find(kin{mark: pod.mark}), "nothing is left")
		})
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	_, err := TryStartPod(t, Config{Name: "alpha", Command: FakePod("escape 'ignore INT TERM; hang'; exit 1")})
	require.Error(t, err)
	box, err := sandboxOf(t)
	require.NoError(t, err)
	assert.Empty(t, find(kin{mark: box.mark}))
}

func TestYoungerProcesses(t *testing.T) {
	t.Parallel()
	before := takeCensus()
	if before.last == 0 {
		t.Skip("/proc does not tell which number was given last")
	}
	pod := StartPod(t, Config{})
	found := search(kin{mark: pod.mark}, pod.born.younger)
	require.Len(t, found, 1, "a process, and not each of its threads")
	assert.Equal(t, pod.PID, found[0].PID)
	before.pid = pod.PID
	assert.Contains(t, before.younger(), pod.PID)

	now := takeCensus()
	for name, c := range map[string]census{
		"none":                 {},
		"too many":             {last: now.last, forks: now.forks - 1000, pid: now.last + 1},
		"the numbers go round": {last: now.last + 10000, forks: now.forks, pid: pod.PID},
		"stale numbers":        {last: now.last - 100, forks: now.forks, pid: now.last + 10000},
	} {
		assert.Contains(t, c.younger(), os.Getpid(), "%s: then all are listed", name)
	}
}

func TestEvidenceOfALeakShowsIt(t *testing.T) {
	t.Parallel()
	tb := &recordingTB{name: t.Name(), artifacts: t.TempDir()}
	pod := StartPod(tb, Config{Name: "alpha", Command: FakePod("escape; bind; ready; serve")})
	leaks := find(kin{mark: pod.mark})
	tb.end()
	require.True(t, tb.failed)
	text, err := os.ReadFile(filepath.Join(tb.artifacts, "processes.txt"))
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
		watchdog, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", thisBinary.watchdog))
		require.NoError(t, err)
		assert.NotContains(t, string(watchdog), markEnv, "the pod's harness would kill it before its work")
		require.NoError(t, os.RemoveAll(thisBinary.root), "as what tidies a temporary directory may")
		t.Run("last", func(t *testing.T) { StartPod(t, Config{}) })
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), endEnv+"=yes", markEnv+"=of/the/pod/")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
