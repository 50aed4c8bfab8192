package spawn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// podEnv names the pod that this test binary is, of those that do what the fake
// pod does not.
const podEnv = "SPAWN_TEST_POD"

var testPods = map[string]func(){
	// A worker holds the listening socket, as a forked one does.
	"worker": func() {
		listener := listen(podSocket())
		file, err := listener.(*net.UnixListener).File()
		check(err)
		worker := exec.Command("/bin/sh", "-c", "while :; do read never; done")
		stdin, err := worker.StdinPipe()
		check(err)
		defer stdin.Close()
		worker.ExtraFiles = []*os.File{file}
		worker.Stderr = os.Stderr
		check(worker.Start())
		announce(podSocket())
		_ = worker.Wait()
	},
	// Its directory is removed and made again after the ready line.
	"remade": func() {
		socket := filepath.Join(filepath.Dir(podSocket()), "later", "sock")
		check(os.Mkdir(filepath.Dir(socket), 0o700))
		announce(socket)
		<-time.After(100 * time.Millisecond)
		check(os.Remove(filepath.Dir(socket)))
		<-time.After(100 * time.Millisecond)
		check(os.Mkdir(filepath.Dir(socket), 0o700))
		<-time.After(100 * time.Millisecond)
		serveBound(socket)
	},
	// It announces a link, and binds what that leads to later.
	"linked": func() {
		link := filepath.Join(filepath.Dir(podSocket()), "link")
		check(os.Mkdir(filepath.Dir(podSocket())+"/far", 0o700))
		check(os.Symlink("far/sock", link))
		announce(link)
		<-time.After(200 * time.Millisecond)
		serveBound(filepath.Dir(podSocket()) + "/far/sock")
	},
	// It announces a relative path in the directory that it has changed to.
	"elsewhere": func() {
		check(os.Mkdir("sub", 0o700))
		check(os.Chdir("sub"))
		listener := listen("sock")
		defer listener.Close()
		announce("sock")
		select {}
	},
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func podSocket() string { return os.Getenv("YOI_RUNTIME_DIR") + "/alpha/sock" }

func listen(socket string) net.Listener {
	_ = os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	check(err)
	return listener
}

func announce(socket string) { fmt.Fprintf(os.Stderr, "YOI-READY\talpha\t%s\n", socket) }

// serveBound tells when it listens, by the clock that all processes share.
func serveBound(socket string) {
	listener := listen(socket)
	defer listener.Close()
	fmt.Fprintln(os.Stderr, "monotonic", monotonic())
	select {}
}

func monotonic() int64 {
	var now unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	return now.Nano()
}

// testPod returns the config of one of the testPods.
func testPod(t testing.TB, name string) spawn.Config {
	cfg := fake(t, "")
	cfg.Command.PrefixArgs = nil
	cfg.Env = append(cfg.Env, podEnv+"="+name)
	return cfg
}

func TestSocketThatAnEarlierPodsWorkerHolds(t *testing.T) {
	if !proc.Proves {
		t.Skip("only Linux tells who listens on a socket")
	}
	t.Parallel()
	cfg := testPod(t, "worker")
	first := mustStart(t, cfg)
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGKILL))
	waitDone(t, first)
	require.Len(t, groupMembers(first.PID), 1, "the worker is left")
	conn, err := net.Dial("unix", first.SocketPath)
	require.NoError(t, err, "and holds the socket")
	conn.Close()
	e := mustFail(t, context.Background(), cfg)
	assert.ErrorIs(t, e, spawn.ErrAlreadyRuns)
	assert.Contains(t, e.Error(), fmt.Sprintf("pod already runs: a process, left by process %d, listens on its socket %s\n", first.PID, first.SocketPath))
	cfg.AllowSecond = true

	t.Run("a pod that never binds", func(t *testing.T) {
		second := fake(t, "ready; hang")
		second.Env, second.AllowSecond = cfg.Env, true
		e := mustFail(t, context.Background(), second)
		assert.ErrorIs(t, e, spawn.ErrSocket)
		assert.Contains(t, e.Error(), fmt.Sprintf("/alpha/sock: it is older than this pod (process %d), and something still listens on it", e.PID))
	})
	t.Run("a pod that replaces it", func(t *testing.T) {
		second := fake(t, "ready")
		second.Env, second.AllowSecond = cfg.Env, true
		ask(t, mustStart(t, second).SocketPath, `{"method":"ping"}`, nil)
	})
	t.Run("a pod that has a worker, too", func(t *testing.T) {
		mustStart(t, cfg)
	})
}

// TestSocketsThatNoEventTellsOf are noticed soon all the same.
func TestSocketsThatNoEventTellsOf(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"remade", "linked"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testPod(t, name)
			pod := mustStart(t, cfg)
			returned := monotonic()
			var bound int64
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			log, err := os.Open(pod.LogPath)
			require.NoError(t, err)
			defer log.Close()
			require.NoError(t, spawn.Follow(ctx, log, func(line string) bool {
				n, _ := fmt.Sscanf(line, "monotonic %d", &bound)
				return n == 0
			}))
			late := time.Duration(returned - bound)
			t.Log("noticed after", late)
			assert.Less(t, late, 900*time.Millisecond, "on an idle machine it is below 20 ms")
		})
	}
}

func TestRelativeSocketIsWhereThePodIs(t *testing.T) {
	t.Parallel()
	needsLinux(t, "only Linux tells where a process is")
	cfg := testPod(t, "elsewhere")
	pod := mustStart(t, cfg)
	assert.Equal(t, filepath.Join(cfg.WorkspaceRoot, "sub", "sock"), pod.SocketPath)
}

func TestSocketOfAnEscapedChildCounts(t *testing.T) {
	t.Parallel()
	startEscaped(t)
}

// startEscaped starts a pod whose socket is that of a child in a session of its own.
func startEscaped(t *testing.T) {
	t.Helper()
	pod := mustStart(t, fake(t, "escape 'bind; ready; serve'; hang"))
	var status struct{ PID int }
	ask(t, pod.SocketPath, `{"method":"status"}`, &status)
	require.NotZero(t, status.PID)
	t.Cleanup(func() { _ = syscall.Kill(status.PID, syscall.SIGKILL) })
	assert.NotEqual(t, pod.PID, status.PID)
}

// stderrByPath skips where a shell cannot open its stderr anew.
func stderrByPath(t *testing.T) {
	t.Helper()
	if err := exec.Command("/bin/sh", "-c", "echo hello > /dev/stderr").Run(); err != nil {
		t.Skipf("/dev/stderr cannot be written to: %v", err)
	}
}

// TestShellPodThatTruncatesItsOwnLog writes each line with > /dev/stderr, which
// opens the log anew.
func TestShellPodThatTruncatesItsOwnLog(t *testing.T) {
	t.Parallel()
	stderrByPath(t)
	cfg := fake(t, "bind; serve")
	own := []string{cfg.Command.Program}
	own = append(own, cfg.Command.PrefixArgs...)
	// The fake pod binds; the shell that has started it tells when. How much of
	// the first lines was read by then is chance.
	script := `for i in 1 2 3 4 5; do echo loading $i > /dev/stderr; done
		"$0" "$@" 2> /dev/null &
		until [ -S "$YOI_RUNTIME_DIR/alpha/sock" ]; do :; done
		printf 'YOI-READY\talpha\t%s\n' "$YOI_RUNTIME_DIR/alpha/sock" > /dev/stderr
		wait`
	cfg.Command = spawn.Command{Program: "/bin/sh", PrefixArgs: append([]string{"-c", script}, own...)}
	for i := range 10 {
		cfg.PodName = "alpha"
		pod := mustStart(t, cfg)
		kill(t, pod)
		require.NoError(t, os.RemoveAll(filepath.Dir(pod.LogPath)), "round %d", i)
	}
}

func TestTruncatedLogIsNamedWhereTheReadyLineIsMissing(t *testing.T) {
	t.Parallel()
	stderrByPath(t)
	cfg := shell(t, `echo first >&2; until [ -e go ]; do :; done; echo lost > /dev/stderr; exit 3`)
	cfg.Progress = func(line string) {
		if line == "first" {
			assert.NoError(t, os.WriteFile(filepath.Join(cfg.WorkspaceRoot, "go"), nil, 0o600))
		}
	}
	e := mustFail(t, context.Background(), cfg)
	assert.ErrorIs(t, e, spawn.ErrExited)
	assert.Contains(t, e.Error(), "\n\tnote: the log was truncated while it was read, and lines may be lost with it: a shell's `> /dev/stderr` does that, `>&2` does not")
}

func TestReplacedLogIsNamed(t *testing.T) {
	t.Parallel()
	rotate := `cd "$YOI_RUNTIME_DIR/alpha"; echo old >&2; mv stderr.log stderr.log.1; `
	for name, tc := range map[string]struct {
		then  string
		named bool
	}{
		"and made anew": {`exec 2>stderr.log; printf 'YOI-READY\talpha\t/sock\n' >&2`, true},
		"renamed alone": {"echo on >&2", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := shell(t, rotate+tc.then+"; while :; do sleep 1; done")
			cfg.ReadyTimeout = time.Second
			e := mustFail(t, context.Background(), cfg)
			assert.ErrorIs(t, e, spawn.ErrTimeout)
			assert.Equal(t, "old", e.Tail[0])
			assert.Equal(t, tc.named, strings.Contains(e.Error(), "\n\tnote: the log is another file now, as after a rotation"), "%s", e)
		})
	}
}

// TestTimeInWhichTheParentIsStoppedDoesNotCount stops a process that starts a pod for longer
// than the pod may take. The pod becomes ready meanwhile, or after that.
func TestTimeInWhichTheParentIsStoppedDoesNotCount(t *testing.T) {
	const timeout = 3 * time.Second
	if isHelper(t) {
		cfg := fakeIn(os.Getenv("SPAWN_TEST_DIR"), os.Getenv("SPAWN_TEST_PROGRAM"))
		cfg.ReadyTimeout = timeout
		o := &spawn.Observer{Launched: func(int) { fmt.Println("\nlaunched") }}
		pod, err := spawn.StartObserved(context.Background(), cfg, o)
		require.NoError(t, err)
		o.Log.Close()
		kill(t, pod)
		return
	}
	t.Parallel()
	for name, program := range map[string]string{"ready meanwhile": "sleep 1s; bind; ready; serve", "ready later": "sleep 5s; bind; ready; serve"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			cmd := again(t, "-test.run=^TestTimeInWhichTheParentIsStoppedDoesNotCount$", "-test.v")
			cmd.Env = append(cmd.Env, helperEnv+"=TestTimeInWhichTheParentIsStoppedDoesNotCount", "SPAWN_TEST_DIR="+dir, "SPAWN_TEST_PROGRAM="+program)
			stdout, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			out := bufio.NewReader(stdout)
			for line := ""; line != "launched\n"; {
				line, err = out.ReadString('\n')
				require.NoError(t, err)
			}
			require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
			<-time.After(timeout + time.Second)
			require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
			rest, _ := io.ReadAll(out)
			assert.NoError(t, cmd.Wait(), "%s", rest)
		})
	}
}

// zombies returns how many children of this process nobody has reaped.
func zombies() int {
	return len(processes(func(state string, parent, _ int) bool { return state == "Z" && parent == os.Getpid() }))
}

// TestSubreaperReapsWhatItKills runs where orphans become children of the process
// that starts pods, as in a container without init.
func TestSubreaperReapsWhatItKills(t *testing.T) {
	if isHelper(t) {
		require.NoError(t, becomeSubreaper())
		child := "child 'ignore INT TERM; hang'; "
		none := func(what string) {
			t.Helper()
			require.Eventually(t, func() bool { return zombies() == 0 }, patience, time.Millisecond, "zombies after %s", what)
		}
		gone := func(pod *spawn.Pod) { // a moment after its zombies are
			t.Helper()
			require.Eventually(t, func() bool { return errors.Is(pod.Signal(syscall.SIGKILL), os.ErrProcessDone) }, patience, time.Millisecond)
		}
		for range 5 {
			mustFail(t, context.Background(), fake(t, child+child+"exit 7"))
			mustFail(t, context.Background(), fake(t, child+"ready other; hang"))
			assert.Zero(t, zombies(), "when a start has failed, everything is over")

			pod := mustStart(t, fake(t, child+"bind; ready; serve"))
			kill(t, pod)
			none("a kill of the group")
			gone(pod)

			pod = mustStart(t, fake(t, child+"bind; ready; serve"))
			require.NoError(t, pod.Signal(syscall.SIGINT)) // the child stays
			waitDone(t, pod)
			require.NoError(t, pod.Signal(syscall.SIGKILL))
			none("a kill of what was left")
			gone(pod)
		}
		return
	}
	t.Parallel()
	needsLinux(t, "only Linux has subreapers")
	inHelper(t, nil)
}

func TestWithoutProc(t *testing.T) {
	if isHelper(t) {
		// In a mount namespace that ends with this process.
		if err := mountOver("/proc"); err != nil {
			t.Skipf("nothing can be mounted over /proc: %v", err)
		}
		mustStart(t, fake(t, "ready"))
		startEscaped(t)
		e := mustFail(t, context.Background(), fake(t, "early-exit"))
		assert.ErrorIs(t, e, spawn.ErrExited)
		return
	}
	t.Parallel()
	needsLinux(t, "only Linux has mount namespaces")
	t.Log(inHelper(t, func(cmd *exec.Cmd) { inNamespaces(t, cmd, newMounts) }))
}
