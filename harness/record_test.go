package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
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
	tb := &recordingTB{name: t.Name(), artifacts: t.TempDir()}
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
	tb.failed = true
	begin := time.Now()
	tb.end()
	t.Logf("the end of the test took %v", time.Since(begin))

	size := int64(0)
	require.NoError(t, filepath.WalkDir(tb.artifacts, func(path string, entry fs.DirEntry, err error) error {
		if info, infoErr := entry.Info(); err == nil && infoErr == nil {
			size += info.Size()
		}
		return err
	}))
	assert.Less(t, size, int64(64<<20))
	assert.Greater(t, size, int64(24<<20), "there is room for much")
	log := readEvidence(t, tb.artifacts, "large.log")
	assert.True(t, strings.HasPrefix(log, "YOI-READY\tlarge\t"))
	left := regexp.MustCompile(`\[podharness: (\d+) bytes are left out here\]\n`).FindStringSubmatch(log)
	require.NotNil(t, left)
	assert.Equal(t, fmt.Sprint(int64(hole)+int64(len("\nlast words\n"))-int64(len(log)-len(left[0]))), left[1], "what is left out is said")
	assert.True(t, strings.HasSuffix(log, "\nlast words\n"))
	assert.Equal(t, ready, readEvidence(t, tb.artifacts, "small.log"), "the others do not suffer")
	merged := readEvidence(t, tb.artifacts, "merged.log")
	assert.Less(t, len(merged), 16<<20)
	for _, line := range []string{`many  x`, `many  \[podharness: \d+ bytes are left out here\]`, `small  YOI-READY.*`, `large  last words`, `large  \[podharness: \d+ bytes are left out here\]`} {
		assert.True(t, regexp.MustCompile(`(?m)^ *\+\d+\.\d{6}  `+line+`$`).MatchString(merged), line)
	}
}

func TestExcerptEndsAndBeginsWithALine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	text := "first\nsecond\n" + strings.Repeat("-", 100) + "\nlast but one\nlast"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	for most, want := range map[int64]string{
		20:   "first\n[podharness: 121 bytes are left out here]\nlast",
		40:   "first\nsecond\n[podharness: 101 bytes are left out here]\nlast but one\nlast",
		4:    "fi[podharness: 127 bytes are left out here]\nst",
		1000: text,
	} {
		var out strings.Builder
		require.NoError(t, excerptOf(sectionOf(file), most).copy(&out, &life{file: file}))
		assert.Equal(t, want, out.String(), most)
	}
}

func TestExcerptsUseTheirRoom(t *testing.T) {
	t.Parallel()
	var r record
	for _, line := range []string{"short\n", strings.Repeat("long", 100) + "\n", "\n"} {
		path := filepath.Join(t.TempDir(), "log")
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat(line, 10_000)), 0o600))
		file, err := os.Open(path)
		require.NoError(t, err)
		defer file.Close()
		r.Lives = append(r.Lives, &life{file: file})
	}
	const most, perLine = 300_000, 100
	for _, e := range r.excerpts(most, perLine) {
		assert.InEpsilon(t, most/3, e.cost(perLine), 0.02)
	}
}

func TestBoundOfTheEvidence(t *testing.T) {
	for text, want := range map[string]int64{"": 64 << 20, "1": 1 << 20, "1048576": 1 << 40, "0": -1, "-1": -1, "1.5": -1, "64M": -1, "1048577": -1} {
		t.Setenv("PODHARNESS_ARTIFACTS_MAX", text)
		most, err := maxEvidence()
		if want < 0 {
			assert.EqualError(t, err, fmt.Sprintf("PODHARNESS_ARTIFACTS_MAX=%q is not a number of MiB between 1 and 1048576", text))
		} else {
			assert.NoError(t, err)
			assert.Equal(t, want, most)
		}
	}
}

func TestTheNewestDirectoriesOfEarlierRunsAreKept(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	now := time.Now()
	others := []string{"podharness", "podharness-x", "podharness-20201126T034512.123", "unpodharness-x-20201126T034512.123", "podharness-x-20201126T034512.123.txt", "podharness-x-20209926T034512.123"}
	for _, name := range others {
		require.NoError(t, os.Mkdir(filepath.Join(base, name), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(base, "podharness-x-20201126T034512.124"), nil, 0o600))
	mkdir := func(age time.Duration, end string) string {
		dir := filepath.Join(base, "podharness-z-"+now.Add(-age).Format(dirTime)+end)
		require.NoError(t, os.Mkdir(dir, 0o700))
		return dir
	}
	oldest := mkdir(1000*time.Hour, "")
	require.NoError(t, os.Mkdir(filepath.Join(oldest, "full"), 0o500))
	second := mkdir(999*time.Hour, "-2")
	var earlier, ours []string
	for i := range keptDirs {
		earlier = append(earlier, mkdir(time.Duration(10+i)*time.Hour, ""))
	}
	for i := range 3 * keptDirs {
		ours = append(ours, mkdir(time.Duration(i)*time.Second, ""))
	}
	(&record{base: base}).removeOld(now.Add(-time.Hour))
	assert.DirExists(t, oldest, "where the user wants it, all are kept")
	(&record{base: base, few: true}).removeOld(now.Add(-time.Hour))
	assert.NoDirExists(t, oldest)
	assert.NoDirExists(t, second)
	for _, dir := range slices.Concat(earlier, ours) {
		assert.DirExists(t, dir)
	}
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	assert.Len(t, left, len(earlier)+len(ours)+len(others)+1, "what is not ours stays")
}

func TestDirectoriesOfOneRunAreKeptAndDiffer(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	const tests = 200
	records := make([]record, tests)
	var group sync.WaitGroup
	begin := time.Now()
	for i := range records {
		records[i] = record{Test: "a/Test x", base: base, few: true}
		group.Add(1)
		go func() {
			defer group.Done()
			assert.NoError(t, records[i].makeDir())
		}()
	}
	group.Wait()
	assert.Less(t, time.Since(begin), 10*time.Second)
	made := map[string]bool{}
	for _, r := range records {
		assert.Regexp(t, `^`+base+`/podharness-a-Test-x-\d{8}T\d{6}\.\d{3}(-\d+)?$`, r.dir)
		assert.DirExists(t, r.dir)
		made[r.dir] = true
	}
	assert.Len(t, made, tests)
}

func TestRunBeganWithItsFirstAncestor(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"go test ./...": true, "go -C sub test": true, "/usr/local/go/bin/go test": true, "/tmp/go-build1/b001/harness.test -test.v": true,
		"go": false, "go run ./server": false, "bash": false, "gopls test": false, "": false,
	} {
		assert.Equal(t, want, isOfTests(strings.Fields(line)), line)
	}
	assert.False(t, runBegan().After(binaryBegan))
}

// lateTB is a test with a deadline, whose clock is the real one.
type lateTB struct {
	*recordingTB
	deadline time.Time
}

func (tb *lateTB) Deadline() (time.Time, bool) { return tb.deadline, true }

func TestEvidenceOfATestThatIsLate(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]bool{"ends well": false, "fails": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tb := &lateTB{&recordingTB{name: "TestLate", artifacts: t.TempDir()}, time.Now().Add(3 * time.Second)}
			own := filepath.Join(tb.artifacts, "own")
			require.NoError(t, os.WriteFile(own, nil, 0o600))
			pod, err := TryStartPod(tb, Config{Name: "alpha"})
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				_, err := os.Stat(filepath.Join(tb.artifacts, "trace.json"))
				return err == nil
			}, 10*time.Second, time.Millisecond)
			assert.True(t, time.Now().Before(tb.deadline), "before go test panics")
			assert.Equal(t, pod.Log(), readEvidence(t, tb.artifacts, "alpha.log"))
			assert.Contains(t, readEvidence(t, tb.artifacts, "processes.txt"), ": it was still running shortly before its deadline\n")
			assert.Regexp(t, `alpha: \d+\.\d{3}ms it still ran\n`, readEvidence(t, tb.artifacts, "timelines.txt"))
			assert.NoError(t, syscall.Kill(pod.PID, 0), "nothing is done to the pod")
			tb.failed = fails
			tb.end()
			if fails {
				assert.Contains(t, readEvidence(t, tb.artifacts, "processes.txt"), ": the test failed\n")
				assert.Contains(t, readEvidence(t, tb.artifacts, "timelines.txt"), "ms exit status 0\n")
				return
			}
			left, err := os.ReadDir(tb.artifacts)
			require.NoError(t, err)
			assert.Len(t, left, 1, "what is not ours stays")
		})
	}
}

func TestLivesOfARestartedPodAreToldApart(t *testing.T) {
	t.Parallel()
	tb := &recordingTB{name: t.Name(), artifacts: t.TempDir()}
	for _, words := range []string{"one", "two"} {
		pod, err := TryStartPod(tb, Config{Name: "alpha", Command: FakePod("log " + words + "; bind; ready; serve")})
		require.NoError(t, err)
		require.NoError(t, pod.Kill())
	}
	tb.failed = true
	tb.end()
	assert.Equal(t, "one\n", strings.SplitAfter(readEvidence(t, tb.artifacts, "alpha.log"), "\n")[0])
	assert.Equal(t, "two\n", strings.SplitAfter(readEvidence(t, tb.artifacts, "alpha.2.log"), "\n")[0])
	assert.Regexp(t, `(?s)  alpha  one\n.*  alpha.2  two\n`, readEvidence(t, tb.artifacts, "merged.log"))
	assert.Regexp(t, `(?s)  alpha: \S+ms SIGKILL, \S+ms signal: killed\n.*  alpha\.2: \S+ms SIGKILL, \S+ms signal: killed\n`, readEvidence(t, tb.artifacts, "timelines.txt"))
	trace := readEvidence(t, tb.artifacts, "trace.json")
	assert.Regexp(t, `"name":"alpha \(process \d+\)".*"name":"life".*"end":"signal: killed".*"name":"alpha\.2 \(process \d+\)".*"name":"life"`, trace)
	assert.NoFileExists(t, filepath.Join(tb.artifacts, "alpha.dir", "status.json"), "the second life has replaced it")
	assert.FileExists(t, filepath.Join(tb.artifacts, "alpha.2.dir", "status.json"))
}

func TestTraceHasTheErrorOfAStartWithoutALog(t *testing.T) {
	t.Parallel()
	tb := &recordingTB{name: t.Name(), artifacts: t.TempDir()}
	_, err := TryStartPod(tb, Config{Name: "alpha", Command: spawn.Command{Program: "/nowhere"}})
	require.ErrorIs(t, err, spawn.ErrLaunch)
	_, err = TryStartPod(tb, Config{Name: "al/pha"})
	require.ErrorIs(t, err, spawn.ErrInvalidConfig)
	tb.failed = true
	tb.end()
	trace := readEvidence(t, tb.artifacts, "trace.json")
	assert.Contains(t, trace, `"error":"invalid pod config: `)
	assert.Contains(t, trace, `"error":"failed to launch pod runtime command `)
}

func TestMarksAreBounded(t *testing.T) {
	t.Parallel()
	var l life
	for i := range 10 * maxMarks {
		l.add(mark{What: fmt.Sprint(i)})
	}
	assert.Len(t, l.Marks, maxMarks)
	assert.Equal(t, "0", l.Marks[0].What)
	assert.Equal(t, fmt.Sprint(10*maxMarks-1), l.Marks[maxMarks-1].What)
}

func TestPodThatHangsDumps(t *testing.T) {
	t.Parallel()
	tb := &recordingTB{name: t.Name(), artifacts: t.TempDir()}
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
	tb.end()
	assert.NotContains(t, tb.log, "ended by itself")
	assert.NotContains(t, tb.log, "goroutine", "the last lines are the pod's own")
	assert.Equal(t, "exit status 2", pod.State().String())
	assert.Equal(t, "exit status 0", other.State().String())
	for _, name := range []string{"hangs.log", "alpha.log", "merged.log"} {
		assert.Regexp(t, `(?s)SIGQUIT: quit.*goroutine \d+ .*example\.com/podharness/fakepod\.`, readEvidence(t, tb.artifacts, name))
	}
	assert.Regexp(t, `alpha: .*SIGQUIT, \S+ms exit status 2\n`, readEvidence(t, tb.artifacts, "timelines.txt"))
	NeedProcesses(t)
	assert.Regexp(t, `(?s)\nwhen the start of pod hangs had failed: 1 processes alive\n\d+  .* --pod hangs\n.*    thread \d+ `, readEvidence(t, tb.artifacts, "processes.txt"))
}

func TestDumpOfAPodThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	tb := &recordingTB{name: t.Name(), artifacts: t.TempDir()}
	_, err := TryStartPod(tb, Config{Name: "quiet", Command: FakePod("ignore QUIT; bind; ready; serve"), DumpSignal: syscall.SIGQUIT})
	require.NoError(t, err)
	tb.failed = true
	begin := time.Now()
	tb.end()
	assert.Less(t, time.Since(begin), dumpGrace, "a log that is quiet is not waited for")
}
