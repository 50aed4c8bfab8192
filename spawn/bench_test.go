package spawn_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A starter starts a pod, waits until it is ready and returns its process
// group.
type starter struct {
	name  string
	start func(spawn.Config) (group int, reap func(), err error)
}

// The ways to start a pod that are compared.
var starters = []starter{
	{"spawn", startSpawn},
	{"floor", startFloor},
	{"peer", startPeer},
	{"poll", startPoll},
}

func startSpawn(cfg spawn.Config) (int, func(), error) {
	pod, err := spawn.Start(context.Background(), cfg)
	if err != nil {
		return 0, nil, err
	}
	return pod.PID, func() { <-pod.Done() }, nil
}

func command(cfg spawn.Config) *exec.Cmd {
	cmd := exec.Command(cfg.Command.Program, slices.Concat(cfg.Command.PrefixArgs, cfg.Args())...)
	cmd.Dir, cmd.Env = cfg.WorkspaceRoot, cfg.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// startFloor does the least that any parent can do: fork, exec, read one line
// from a pipe, connect.
func startFloor(cfg spawn.Config) (int, func(), error) {
	cmd := command(cfg)
	r, w, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	w.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		return 0, nil, err
	}
	conn, err := net.Dial("unix", strings.Split(strings.TrimSuffix(line, "\n"), "\t")[2])
	if err != nil {
		return 0, nil, err
	}
	conn.Close()
	return cmd.Process.Pid, func() { _ = cmd.Wait(); r.Close() }, nil
}

// startPeer is what one would write by hand: a scanner on a pipe, then a dial
// with a 10 ms retry.
func startPeer(cfg spawn.Config) (int, func(), error) {
	cmd := command(cfg)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
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
			return cmd.Process.Pid, func() { _ = cmd.Wait() }, nil
		}
		<-time.After(10 * time.Millisecond)
	}
}

// startPoll looks at the whole log again every 100 ms, and at the socket every
// 50 ms.
func startPoll(cfg spawn.Config) (int, func(), error) {
	dir := filepath.Join(cfg.WorkspaceRoot, "run", cfg.PodName)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, nil, err
	}
	path := filepath.Join(dir, "stderr.log")
	file, err := os.Create(path)
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	cmd := command(cfg)
	cmd.Stderr = file
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	socket := ""
	for {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, nil, err
		}
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
			return cmd.Process.Pid, func() { _ = cmd.Wait() }, nil
		}
		<-time.After(50 * time.Millisecond)
	}
}

// build builds a pod. The native one does nothing but become ready: the fake
// pod's own start takes twice as long and would hide the parent's.
func build(b *testing.B, source string) string {
	b.Helper()
	program := filepath.Join(shortDir(b), "pod")
	if out, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
		b.Skipf("%s cannot be built: %v: %s", source, err, out)
	}
	return program
}

const (
	nativePod = "./testdata/nativepod"
	fakePod   = "../fakepod/cmd/fakepod"
)

// inMemory puts the runtime directories that follow into memory, where they are
// in general ($XDG_RUNTIME_DIR), unless TMPDIR says where. On ext4 the benchmark
// would measure its own past: a new file passes over every inode that was freed
// in the last minutes.
func inMemory(b *testing.B) {
	const dir = "/dev/shm"
	if os.Getenv("TMPDIR") == "" && unix.Access(dir, unix.W_OK) == nil {
		b.Setenv("TMPDIR", dir)
	}
}

// built returns the config of a built pod in a runtime directory of its own.
func built(b *testing.B, pod string, prefixArgs ...string) spawn.Config {
	cfg := fake(b, "")
	cfg.Command = spawn.Command{Program: pod, PrefixArgs: prefixArgs}
	return cfg
}

// quantile returns the element below which the share q of all lies.
func quantile(d []time.Duration, q float64) time.Duration {
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

func median(d []time.Duration) time.Duration { return quantile(d, 0.5) }

// report reports medians in ms and the ratio of two of them, for each pair.
func report(b *testing.B, times map[string][]time.Duration, ratios ...[2]string) {
	for name, d := range times {
		b.ReportMetric(float64(median(d))/float64(time.Millisecond), name+"-ms")
	}
	for _, pair := range ratios {
		b.ReportMetric(float64(median(times[pair[0]]))/float64(median(times[pair[1]])), pair[0]+"/"+pair[1])
	}
}

// once starts one pod, ends it, and returns how long the start took.
func once(b *testing.B, s starter, cfg spawn.Config) time.Duration {
	begin := time.Now()
	group, reap, err := s.start(cfg)
	took := time.Since(begin)
	if !assert.NoError(b, err, s.name) {
		return took
	}
	assert.NoError(b, syscall.Kill(-group, syscall.SIGKILL))
	reap()
	return took
}

// BenchmarkSequentialStarts starts one pod after the other, every way in turn,
// so that what else the machine does is shared. Only the start is timed, not
// the pod's end.
func BenchmarkSequentialStarts(b *testing.B) {
	pod := build(b, nativePod)
	inMemory(b)
	b.Run("ready-at-once", func(b *testing.B) {
		times := map[string][]time.Duration{}
		for range b.N {
			for _, s := range starters[:3] {
				times[s.name] = append(times[s.name], once(b, s, built(b, pod)))
			}
		}
		report(b, times, [2]string{"spawn", "floor"}, [2]string{"spawn", "peer"})
	})
	b.Run("ready-after-5ms", func(b *testing.B) {
		times := map[string][]time.Duration{}
		for range b.N {
			for _, s := range starters {
				times[s.name] = append(times[s.name], once(b, s, built(b, pod, "5ms")))
			}
		}
		report(b, times, [2]string{"poll", "spawn"}, [2]string{"spawn", "floor"})
	})
}

// BenchmarkParallelStarts starts and ends 500 pods, 64 at a time, every way in
// turn, and times the whole.
func BenchmarkParallelStarts(b *testing.B) {
	pods, atATime, rounds := 500, 64, 5
	if testing.Short() {
		pods, rounds = 100, 1
	}
	pod := build(b, nativePod)
	inMemory(b)
	times := map[string][]time.Duration{}
	for i := range b.N * rounds {
		for j := range 3 {
			s := starters[(i+j)%3] // whatever the order does, it does to all
			var configs []spawn.Config
			for range pods {
				configs = append(configs, built(b, pod))
			}
			work := make(chan spawn.Config)
			var workers sync.WaitGroup
			begin := time.Now()
			for range atATime {
				workers.Add(1)
				go func() {
					defer workers.Done()
					for cfg := range work {
						once(b, s, cfg)
					}
				}()
			}
			for _, cfg := range configs {
				work <- cfg
			}
			close(work)
			workers.Wait()
			times[s.name] = append(times[s.name], time.Since(begin))
		}
	}
	report(b, times, [2]string{"spawn", "floor"}, [2]string{"spawn", "peer"})
}

// BenchmarkStart counts what one start allocates, and the goroutines that there
// are more while one waits for its pod.
func BenchmarkStart(b *testing.B) {
	pod := build(b, nativePod)
	inMemory(b)
	var before, after runtime.MemStats
	var allocations, bytes, waiting uint64
	for range b.N {
		cfg := built(b, pod)
		runtime.ReadMemStats(&before)
		started, err := spawn.Start(context.Background(), cfg)
		runtime.ReadMemStats(&after)
		require.NoError(b, err)
		allocations += after.Mallocs - before.Mallocs
		bytes += after.TotalAlloc - before.TotalAlloc
		kill(b, started)

		cfg = fake(b, "log waiting; hang")
		goroutines := runtime.NumGoroutine()
		ctx, cancel := context.WithCancel(context.Background())
		cfg.Progress = func(string) {
			waiting += uint64(runtime.NumGoroutine() - goroutines)
			cancel()
		}
		_, err = spawn.Start(ctx, cfg)
		require.ErrorIs(b, err, context.Canceled)
	}
	n := float64(b.N)
	b.ReportMetric(float64(allocations)/n, "allocs/start")
	b.ReportMetric(float64(bytes)/n, "B/start")
	b.ReportMetric(float64(waiting)/n, "goroutines/start")
}
