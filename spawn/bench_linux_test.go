package spawn_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// logPath is where Start puts the pod's log.
func logPath(b *testing.B, cfg spawn.Config) string {
	dir, err := spawn.RuntimeDir(cfg.Env)
	require.NoError(b, err)
	return filepath.Join(dir, cfg.PodName, "stderr.log")
}

// cpuTime is what this process has used.
func cpuTime(b *testing.B, who int) time.Duration {
	var usage unix.Rusage
	require.NoError(b, unix.Getrusage(who, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkLatency measures from what a pod does, on the clock that it logs just
// before, to Start's return.
func BenchmarkLatency(b *testing.B) {
	for _, of := range []struct {
		name, program string
		verdict       error
	}{
		// Not the verb ready, which writes the pod's status file first.
		{"ready-line", `log loading; bind; clock; raw "YOI-READY\t{name}\t{socket}\n"; serve`, nil},
		{"exit", "log loading; clock; exit 7", spawn.ErrExited},
		{"late-bind", "ready; sleep 200ms; clock; bind; serve", nil},
	} {
		b.Run(of.name, func(b *testing.B) {
			pod := build(b, fakePod) // what it does after its start is measured
			inMemory(b)
			cfg := built(b, pod, "-program", of.program)
			var latencies []time.Duration
			for i := range b.N {
				cfg.PodName = fmt.Sprint("pod", i)
				started, err := spawn.Start(context.Background(), cfg)
				var now unix.Timespec
				require.NoError(b, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
				require.ErrorIs(b, err, of.verdict)
				log, err := os.ReadFile(logPath(b, cfg))
				require.NoError(b, err)
				_, clock, _ := strings.Cut(string(log), "monotonic ")
				clock, _, _ = strings.Cut(clock, "\n")
				then, err := strconv.ParseInt(clock, 10, 64)
				require.NoError(b, err)
				latencies = append(latencies, time.Duration(now.Nano()-then))
				if started != nil {
					kill(b, started)
				}
			}
			us := float64(time.Microsecond)
			b.ReportMetric(float64(median(latencies))/us, "median-µs")
			b.ReportMetric(float64(quantile(latencies, 0.99))/us, "p99-µs")
		})
	}
}

// BenchmarkSilentPod measures what waiting for a pod that says nothing costs.
func BenchmarkSilentPod(b *testing.B) {
	cfg := built(b, build(b, fakePod), "-program", "hang")
	cfg.ReadyTimeout = 10 * time.Second
	if testing.Short() {
		cfg.ReadyTimeout = time.Second
	}
	var used time.Duration
	for range b.N {
		before := cpuTime(b, unix.RUSAGE_SELF)
		_, err := spawn.Start(context.Background(), cfg)
		require.ErrorIs(b, err, spawn.ErrTimeout)
		used += cpuTime(b, unix.RUSAGE_SELF) - before
	}
	b.ReportMetric(float64(used)/float64(time.Millisecond)/float64(b.N), "cpu-ms")
}

// BenchmarkFlood starts a pod that logs 1 GiB before it is ready. The metrics
// are the CPU time that this process and cat need for the same bytes, and by how
// much the memory of this process grew at its peak.
func BenchmarkFlood(b *testing.B) {
	size := "1GiB"
	if testing.Short() {
		size = "64MiB"
	}
	cfg := built(b, build(b, fakePod), "-program", "flood "+size+"; bind; ready; serve")
	path := logPath(b, cfg)
	memory := func(field string) (kib int) {
		status, err := os.ReadFile("/proc/self/status")
		require.NoError(b, err)
		_, text, _ := strings.Cut(string(status), field+":")
		_, err = fmt.Sscan(text, &kib)
		require.NoError(b, err)
		return kib
	}
	var ours, cats time.Duration
	var growth int
	for range b.N {
		require.NoError(b, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)) // the peak is what is there now
		used, resident := cpuTime(b, unix.RUSAGE_SELF), memory("VmRSS")
		pod, err := spawn.Start(context.Background(), cfg)
		require.NoError(b, err)
		ours += cpuTime(b, unix.RUSAGE_SELF) - used
		growth = max(growth, memory("VmHWM")-resident)
		kill(b, pod)
		used = cpuTime(b, unix.RUSAGE_CHILDREN)
		require.NoError(b, exec.Command("sh", "-c", `cat "$0" > /dev/null`, path).Run())
		cats += cpuTime(b, unix.RUSAGE_CHILDREN) - used
	}
	b.ReportMetric(float64(ours)/float64(cats), "follow-cpu/cat-cpu")
	b.ReportMetric(float64(growth)/1024, "memory-MiB")
}
