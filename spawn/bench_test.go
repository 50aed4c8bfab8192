package spawn_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/require"
)

// A starter starts a pod, waits until it is ready and returns its process
// group.
type starter struct {
	name  string
	start func(testing.TB, spawn.Config) (group int, reap func())
}

// The ways to start a pod that are compared.
var starters = []starter{
	{"spawn", startSpawn},
	{"floor", startFloor},
	{"peer", startPeer},
	{"poll", startPoll},
}

func startSpawn(t testing.TB, cfg spawn.Config) (int, func()) {
	pod, err := spawn.Start(context.Background(), cfg)
	require.NoError(t, err)
	return pod.PID, func() { <-pod.Done() }
}

func command(cfg spawn.Config) *exec.Cmd {
	cmd := exec.Command(cfg.Command.Program, slices.Concat(cfg.Command.PrefixArgs, cfg.Args())...)
	cmd.Dir, cmd.Env = cfg.WorkspaceRoot, cfg.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// startFloor does the least that any parent can do: fork, exec, read one line
// from a pipe, connect.
func startFloor(t testing.TB, cfg spawn.Config) (int, func()) {
	cmd := command(cfg)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stderr = w
	require.NoError(t, cmd.Start())
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	socket := strings.Split(strings.TrimSuffix(line, "\n"), "\t")[2]
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	conn.Close()
	return cmd.Process.Pid, func() { _ = cmd.Wait(); r.Close() }
}

// startPeer is what one would write by hand: a scanner on a pipe, then a dial
// with a 10 ms retry.
func startPeer(t testing.TB, cfg spawn.Config) (int, func()) {
	cmd := command(cfg)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines, socket := bufio.NewScanner(stderr), ""
	for socket == "" && lines.Scan() {
		if fields := strings.Split(lines.Text(), "\t"); len(fields) == 3 && fields[0] == "YOI-READY" {
			socket = fields[2]
		}
	}
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return cmd.Process.Pid, func() { _ = cmd.Wait() }
		}
		<-time.After(10 * time.Millisecond)
	}
}

// startPoll looks at the whole log again every 100 ms, and at the socket every
// 50 ms.
func startPoll(t testing.TB, cfg spawn.Config) (int, func()) {
	dir := filepath.Join(cfg.WorkspaceRoot, "run", cfg.PodName)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, "stderr.log")
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	cmd := command(cfg)
	cmd.Stderr = file
	require.NoError(t, cmd.Start())
	socket := ""
	for {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		if _, after, ok := bytes.Cut(text, []byte("YOI-READY\t")); ok {
			socket = strings.Split(strings.Split(string(after), "\n")[0], "\t")[1]
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	for {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return cmd.Process.Pid, func() { _ = cmd.Wait() }
		}
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			require.NoError(t, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// nativePod builds the fake pod's command: a small binary, so that its own
// start hides less of the parent's cost than this test binary's would.
func nativePod(b *testing.B) string {
	b.Helper()
	program := filepath.Join(shortDir(b), "fakepod")
	if out, err := exec.Command("go", "build", "-o", program, "../fakepod/cmd/fakepod").CombinedOutput(); err != nil {
		b.Skipf("the fake pod cannot be built: %v: %s", err, out)
	}
	return program
}

// native is fake with the native pod.
func native(b *testing.B, pod, program string) spawn.Config {
	cfg := fake(b, "")
	cfg.Command = spawn.Command{Program: pod, PrefixArgs: []string{"-program", program}}
	return cfg
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkSequentialStarts starts one pod after the other, every way in turn,
// so that what else the machine does is shared. Only the start is timed, not
// the pod's end. The metrics are medians in ms, and ratios to spawn's.
func BenchmarkSequentialStarts(b *testing.B) {
	pod := nativePod(b)
	for name, program := range map[string]string{"ready-at-once": "ready", "ready-after-5ms": "sleep 5ms; bind; ready; serve"} {
		b.Run(name, func(b *testing.B) {
			times := map[string][]time.Duration{}
			for range b.N {
				for _, s := range starters {
					cfg := native(b, pod, program)
					start := time.Now()
					group, reap := s.start(b, cfg)
					times[s.name] = append(times[s.name], time.Since(start))
					require.NoError(b, syscall.Kill(-group, syscall.SIGKILL))
					reap()
					os.RemoveAll(cfg.WorkspaceRoot)
				}
			}
			ours := median(times["spawn"])
			for _, s := range starters {
				m := median(times[s.name])
				b.ReportMetric(float64(m)/float64(time.Millisecond), s.name+"-ms")
				if s.name != "spawn" {
					b.ReportMetric(float64(m)/float64(ours), s.name+"/spawn")
				}
			}
		})
	}
}
