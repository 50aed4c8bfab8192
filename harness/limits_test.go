package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func readEvidence(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(text)
}

// TestEvidenceIsBounded has a log of which most is a hole, and one of many lines
// that are shorter than what stands before each when they are merged.
func TestEvidenceIsBounded(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	const hole = 200 << 20
	write := func(pod *Pod, at int64, text string) {
		stderr, err := os.OpenFile(pod.LogPath, os.O_WRONLY, 0)
		require.NoError(t, err)
		defer stderr.Close()
		_, err = stderr.WriteAt([]byte(text), at)
		require.NoError(t, err)
	}
	large, err := TryStartPod(tb, Config{Name: "large"})
	require.NoError(t, err)
	write(large, hole, "\nlast words\n")
	small, err := TryStartPod(tb, Config{Name: "small"})
	require.NoError(t, err)
	many, err := TryStartPod(tb, Config{Name: "many"})
	require.NoError(t, err)
	write(many, int64(len(many.Log())), strings.Repeat("x\n", 4<<20))
	ready := small.Log()
	tb.Fail()
	begin := time.Now()
	tb.End()
	t.Logf("the end of the test took %v", time.Since(begin))

	size := int64(0)
	require.NoError(t, filepath.WalkDir(tb.Artifacts, func(path string, entry fs.DirEntry, err error) error {
		if info, infoErr := entry.Info(); err == nil && infoErr == nil {
			size += info.Size()
		}
		return err
	}))
	assert.Less(t, size, int64(64<<20))
	assert.Greater(t, size, int64(24<<20), "there is room for much")
	log := readEvidence(t, tb.Artifacts, "large.log")
	assert.True(t, strings.HasPrefix(log, "YOI-READY\tlarge\t"))
	left := regexp.MustCompile(`\[podharness: (\d+) bytes are left out here\]\n`).FindStringSubmatch(log)
	require.NotNil(t, left)
	assert.Equal(t, fmt.Sprint(int64(hole)+int64(len("\nlast words\n"))-int64(len(log)-len(left[0]))), left[1], "what is left out is said")
	assert.True(t, strings.HasSuffix(log, "\nlast words\n"))
	assert.Equal(t, ready, readEvidence(t, tb.Artifacts, "small.log"), "the others do not suffer")
	merged := readEvidence(t, tb.Artifacts, "merged.log")
	assert.Less(t, len(merged), 16<<20)
	for _, line := range []string{`many  x`, `many  \[podharness: \d+ bytes are left out here\]`, `small  YOI-READY.*`, `large  last words`, `large  \[podharness: \d+ bytes are left out here\]`} {
		assert.True(t, regexp.MustCompile(`(?m)^ *\+\d+\.\d{6}  `+line+`$`).MatchString(merged), line)
	}
}

func TestEvidenceOfATestThatIsLate(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]bool{"ends well": false, "fails": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := NewTB(t)
			tb.Late = time.Now().Add(6 * time.Second)
			own := filepath.Join(tb.Artifacts, "own")
			require.NoError(t, os.WriteFile(own, nil, 0o600))
			pod, err := TryStartPod(tb, Config{Name: "alpha"})
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				_, err := os.Stat(filepath.Join(tb.Artifacts, "report.html"))
				return err == nil
			}, 10*time.Second, time.Millisecond)
			assert.True(t, time.Now().Before(tb.Late), "before go test panics")
			assert.Equal(t, pod.Log(), readEvidence(t, tb.Artifacts, "alpha.log"))
			assert.Contains(t, readEvidence(t, tb.Artifacts, "processes.txt"), ": it was still running shortly before its deadline\n")
			assert.Regexp(t, `alpha: \d+\.\d{3}ms it still ran\n`, readEvidence(t, tb.Artifacts, "timelines.txt"))
			assert.NoError(t, syscall.Kill(pod.PID, 0), "nothing is done to the pod")
			if fails {
				tb.Fail()
			}
			tb.End()
			if fails {
				assert.Contains(t, readEvidence(t, tb.Artifacts, "processes.txt"), ": the test failed\n")
				assert.Contains(t, readEvidence(t, tb.Artifacts, "timelines.txt"), "ms exit status 0\n")
				return
			}
			left, err := os.ReadDir(tb.Artifacts)
			require.NoError(t, err)
			assert.Len(t, left, 1, "what is not ours stays")
		})
	}
}

func TestLivesOfARestartedPodAreToldApart(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	for _, words := range []string{"one", "two"} {
		pod, err := TryStartPod(tb, Config{Name: "alpha", Command: FakePod("log " + words + "; bind; ready; serve")})
		require.NoError(t, err)
		require.NoError(t, pod.Kill())
	}
	tb.Fail()
	tb.End()
	assert.Equal(t, "one\n", strings.SplitAfter(readEvidence(t, tb.Artifacts, "alpha.log"), "\n")[0])
	assert.Equal(t, "two\n", strings.SplitAfter(readEvidence(t, tb.Artifacts, "alpha.2.log"), "\n")[0])
	assert.Regexp(t, `(?s)  alpha  one\n.*  alpha.2  two\n`, readEvidence(t, tb.Artifacts, "merged.log"))
	assert.Regexp(t, `(?s)  alpha: \S+ms SIGKILL, \S+ms signal: killed\n.*  alpha\.2: \S+ms SIGKILL, \S+ms signal: killed\n`, readEvidence(t, tb.Artifacts, "timelines.txt"))
	assert.NoFileExists(t, filepath.Join(tb.Artifacts, "alpha.dir", "status.json"), "the second life has replaced it")
	assert.FileExists(t, filepath.Join(tb.Artifacts, "alpha.2.dir", "status.json"))
}

func TestTimelinesHaveTheErrorOfAStartWithoutALog(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	_, err := TryStartPod(tb, Config{Name: "alpha", Command: spawn.Command{Program: "/nowhere"}})
	require.ErrorIs(t, err, spawn.ErrLaunch)
	_, err = TryStartPod(tb, Config{Name: "al/pha"})
	require.ErrorIs(t, err, spawn.ErrInvalidConfig)
	tb.Fail()
	tb.End()
	timelines := readEvidence(t, tb.Artifacts, "timelines.txt")
	assert.Contains(t, timelines, ": invalid pod config: ")
	assert.Contains(t, timelines, ": failed to launch pod runtime command ")
}

func TestPodThatHangsDumps(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	_, err := TryStartPod(tb, Config{Name: "hangs", Command: FakePod("never-ready"), DumpSignal: syscall.SIGQUIT, ReadyTimeout: 2 * time.Second})
	require.ErrorContains(t, err, "waiting for the ready line; last lines: loading\n")
	pod, err := TryStartPod(tb, Config{Name: "alpha", DumpSignal: syscall.SIGQUIT})
	require.NoError(t, err)
	other, err := TryStartPod(tb, Config{Name: "beta"})
	require.NoError(t, err)
	_, err = pod.TryWait(time.Millisecond)
	require.Error(t, err)
	assert.NotContains(t, pod.Log(), "goroutine", "while the test goes on, nothing is done to the pod")
	tb.Errorf("%v", err)
	tb.End()
	assert.NotContains(t, tb.Text(), "ended by itself")
	assert.NotContains(t, tb.Text(), "SIGQUIT: quit", "the last lines are the pod's own")
	assert.Equal(t, "exit status 2", pod.State().String())
	assert.Equal(t, "exit status 0", other.State().String())
	for _, name := range []string{"hangs.log", "alpha.log", "merged.log"} {
		assert.Regexp(t, `(?s)SIGQUIT: quit.*goroutine \d+ .*example\.com/podharness/fakepod\.`, readEvidence(t, tb.Artifacts, name))
	}
	assert.Regexp(t, `alpha: .*SIGQUIT, \S+ms exit status 2\n`, readEvidence(t, tb.Artifacts, "timelines.txt"))
	NeedProcesses(t)
	assert.Regexp(t, `(?s)\nwhen the start of pod hangs had failed: 1 processes alive\n\d+  .* --pod hangs\n.*    thread \d+ `, readEvidence(t, tb.Artifacts, "processes.txt"))
}

func TestDumpOfAPodThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	_, err := TryStartPod(tb, Config{Name: "quiet", Command: FakePod("ignore QUIT; bind; ready; serve"), DumpSignal: syscall.SIGQUIT})
	require.NoError(t, err)
	tb.Fail()
	begin := time.Now()
	tb.End()
	assert.Less(t, time.Since(begin), dumpGrace, "a log that is quiet is not waited for")
}
