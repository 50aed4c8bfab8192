//go:build !portable

package harness

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// nativePod builds the pod that is measured: see spawn's benchmarks.
func nativePod(b *testing.B) spawn.Command {
	b.Helper()
	program := filepath.Join(b.TempDir(), "nativepod")
	if out, err := exec.Command("go", "build", "-o", program, "../spawn/testdata/nativepod").CombinedOutput(); err != nil {
		b.Skipf("the native pod cannot be built: %v: %s", err, out)
	}
	inMemory()
	return spawn.Command{Program: program}
}

// inMemory has the sandboxes made there, as spawn's benchmarks do.
func inMemory() {
	if os.Getenv("TMPDIR") == "" && unix.Access("/dev/shm", unix.W_OK) == nil {
		tempDir = "/dev/shm"
	}
}

func median(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2])
}

const ms = float64(time.Millisecond)

// BenchmarkStartAndStop compares a pod in a test with one that is started and
// killed by hand.
func BenchmarkStartAndStop(b *testing.B) {
	cfg := Config{Command: nativePod(b), StopSignal: syscall.SIGKILL}
	StartPod(b, cfg) // the watchdog starts with the first one
	box, err := sandboxOf(b)
	require.NoError(b, err)
	byHand := spawn.Config{Command: cfg.Command, WorkspaceRoot: b.TempDir(), Env: box.Environ(nil)}
	var harnesses, spawns []time.Duration
	for i := range b.N {
		begin := time.Now()
		require.NoError(b, StartPod(b, cfg).Stop())
		harnesses = append(harnesses, time.Since(begin))

		byHand.PodName = fmt.Sprint("by-hand-", i)
		begin = time.Now()
		pod, err := spawn.Start(context.Background(), byHand)
		require.NoError(b, err)
		require.NoError(b, pod.Signal(syscall.SIGKILL))
		<-pod.Done()
		spawns = append(spawns, time.Since(begin))
	}
	b.ReportMetric(median(harnesses)/ms, "harness-ms")
	b.ReportMetric(median(spawns)/ms, "spawn-ms")
	b.ReportMetric(median(harnesses)/median(spawns), "harness/spawn")
}

// BenchmarkSuite compares suites of tests with a pod each, and with one that they share,
// with what one would write by hand. TMPDIR says where their directories are; unset = in memory.
func BenchmarkSuite(b *testing.B) {
	tests := 200
	if testing.Short() {
		tests = 20
	}
	inMemory()
	for name, program := range map[string]string{"fake": "ready", "100ms": "sleep 100ms; bind; ready; serve"} {
		cfg := Config{Command: FakePod(program)}
		for _, parallel := range []int{1, 2, 8} {
			b.Run(fmt.Sprintf("%s/%d", name, parallel), func(b *testing.B) {
				var wall, cpu [3][]time.Duration // with a pod each, with one for all, by hand
				for range b.N {
					shared := StartPod(b, cfg)
					for i, test := range []func(n int){
						func(int) {
							tb := &FakeTB{TestName: b.Name(), Artifacts: "/nowhere"}
							StartPod(tb, cfg).Dial()
							tb.End()
						},
						func(int) {
							tb := &FakeTB{TestName: b.Name()}
							shared.With(tb).Dial()
							tb.End()
						},
						func(int) { byHand(b, cfg.Command) },
					} {
						begin, used := time.Now(), cpuTimeOf(b, unix.RUSAGE_SELF)+cpuTimeOf(b, unix.RUSAGE_CHILDREN)
						inParallel(parallel, tests, test)
						wall[i] = append(wall[i], time.Since(begin))
						cpu[i] = append(cpu[i], cpuTimeOf(b, unix.RUSAGE_SELF)+cpuTimeOf(b, unix.RUSAGE_CHILDREN)-used)
					}
					require.NoError(b, shared.Stop())
				}
				b.ReportMetric(median(wall[0])/ms, "each-ms")
				b.ReportMetric(median(wall[1])/ms, "shared-ms")
				b.ReportMetric(median(wall[2])/ms, "by-hand-ms")
				b.ReportMetric(median(wall[0])/median(wall[2]), "each/by-hand")
				b.ReportMetric(median(cpu[0])/median(cpu[2]), "each-cpu/by-hand-cpu")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// inParallel calls f with the numbers below n, so many at a time.
func inParallel(parallel, n int, f func(int)) {
	var all sync.WaitGroup
	for first := range parallel {
		all.Add(1)
		go func() {
			defer all.Done()
			for i := first; i < n; i += parallel {
				f(i)
			}
		}()
	}
	all.Wait()
}

// BenchmarkStartClient compares a client in a test with a bare command.
func BenchmarkStartClient(b *testing.B) {
	StartClient(b, ClientConfig{Program: "true"}).Wait(time.Minute) // the watchdog starts with the first one
	var clients, bare []time.Duration
	for range b.N {
		begin := time.Now()
		StartClient(b, ClientConfig{Program: "true"}).Wait(time.Minute)
		clients = append(clients, time.Since(begin))

		begin = time.Now()
		require.NoError(b, exec.Command("true").Run())
		bare = append(bare, time.Since(begin))
	}
	b.ReportMetric(median(clients)/ms, "client-ms")
	b.ReportMetric(median(bare)/ms, "bare-ms")
	b.ReportMetric((median(clients)-median(bare))/ms, "added-ms")
}

// BenchmarkFirstPod measures the first and the second start of a test binary:
// the first one starts the watchdog, too.
func BenchmarkFirstPod(b *testing.B) {
	const env = "HARNESS_FIRST_POD"
	if program := os.Getenv(env); program != "" {
		for range 2 {
			begin := time.Now()
			StartPod(b, Config{Command: spawn.Command{Program: program}, StopSignal: syscall.SIGKILL})
			fmt.Println("took", time.Since(begin).Nanoseconds())
		}
		return
	}
	pod := nativePod(b)
	var first, second []time.Duration
	for range b.N {
		cmd := exec.Command(os.Args[0], "-test.run=^$", "-test.bench=^BenchmarkFirstPod$", "-test.benchtime=1x")
		cmd.Env = append(os.Environ(), env+"="+pod.Program, "TMPDIR="+tempDir)
		out, err := cmd.CombinedOutput()
		require.NoError(b, err, "%s", out)
		var took [2]time.Duration
		_, after, _ := strings.Cut(string(out), "took ")
		_, err = fmt.Sscanf(after, "%d\ntook %d", &took[0], &took[1])
		require.NoError(b, err, "%s", out)
		first, second = append(first, took[0]), append(second, took[1])
	}
	b.ReportMetric(median(first)/ms, "first-ms")
	b.ReportMetric(median(second)/ms, "second-ms")
	b.ReportMetric(median(first)/median(second), "first/second")
}

func cpuTimeOf(b *testing.B, who int) time.Duration {
	var usage unix.Rusage
	require.NoError(b, unix.Getrusage(who, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// byHand is a test of a pod without the harness: a directory, a start up to the ready line, a
// connection, SIGINT, a wait, and the removal.
func byHand(b *testing.B, command spawn.Command) {
	dir, err := os.MkdirTemp(cmp.Or(tempDir, os.TempDir()), "by-hand")
	require.NoError(b, err)
	defer os.RemoveAll(dir)
	cmd := exec.Command(command.Program, append(slices.Clip(command.PrefixArgs), "--workspace", dir, "--pod", "by-hand")...)
	cmd.Env = []string{"YOI_RUNTIME_DIR=" + dir}
	stderr, err := cmd.StderrPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(b, err)
	conn, err := net.Dial("unix", strings.Split(strings.TrimSuffix(line, "\n"), "\t")[2])
	require.NoError(b, err)
	conn.Close()
	require.NoError(b, cmd.Process.Signal(os.Interrupt))
	require.NoError(b, cmd.Wait())
}

// BenchmarkEvidence measures what the evidence of a failed test costs, and what each
// start costs so that it is there.
func BenchmarkEvidence(b *testing.B) {
	command := nativePod(b)
	for _, pods := range []int{1, 20, 200} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			var took, told []time.Duration
			size := int64(0)
			for range b.N {
				tb := &FakeTB{TestName: b.Name(), Artifacts: b.TempDir()}
				var pod *Pod
				for range pods {
					pod = StartPod(tb, Config{Command: command, StopSignal: syscall.SIGKILL})
				}
				e := sandboxes[tb].evidence
				for range pods {
					begin := time.Now()
					pod.attempt.Change(func() {})
					told = append(told, time.Since(begin))
				}
				begin := time.Now()
				e.Snapshot()
				e.Report()
				took = append(took, time.Since(begin))
				size = 0
				require.NoError(b, filepath.WalkDir(tb.Artifacts, func(_ string, entry os.DirEntry, err error) error {
					if info, infoErr := entry.Info(); err == nil && infoErr == nil && !entry.IsDir() {
						size += info.Size()
					}
					return err
				}))
				tb.End()
			}
			b.ReportMetric(median(took)/ms, "ms")
			b.ReportMetric(float64(size), "bytes")
			b.ReportMetric(median(told)/float64(time.Microsecond), "µs/told")
			b.ReportMetric(0, "ns/op")
		})
	}
}
