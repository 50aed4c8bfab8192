package harness

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEvidenceOfAFailedTest(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	const password = "hunter2-and-more"
	_, err := TryStartPod(tb, Config{Name: "broken", Command: FakePod("log 'no disk'; exit 7")})
	require.Error(t, err)
	alpha, err := TryStartPod(tb, Config{Name: "alpha", Env: []string{"DB_PASSWORD=" + password, "COLOR=blue\x1b[2J", "URL=http://me:" + password + "@host/"}, ShowEnv: []string{"COLOR"}, ShowArgs: true,
		Command: FakePod("child; log first; bind; ready; serve")})
	require.NoError(t, err)
	beta, err := TryStartPod(tb, Config{Name: "beta", Command: FakePod("log second; bind; ready; serve"), StopGrace: time.Second, ShowArgs: true})
	require.NoError(t, err)
	beta.Suspend()
	conn := alpha.Dial()
	defer conn.Close()
	_, err = conn.Write([]byte(`{"method":"run","params":{"program":"log \"third \\x1b[2J\""}}` + "\n"))
	require.NoError(t, err)
	_, err = alpha.TryWaitLog("third", 20*time.Second)
	require.NoError(t, err)
	assert.Empty(t, tb.Text())
	tb.Errorf("the test's own failure")
	tb.End()

	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(tb.Artifacts, name))
		require.NoError(t, err)
		return string(text)
	}
	assert.Contains(t, tb.Text(), "harness: all evidence of this failure: "+tb.Artifacts+"\n")
	assert.NotContains(t, tb.Text(), "lost")
	assert.Equal(t, "no disk\n", read("broken.log"))
	assert.True(t, strings.HasPrefix(read("alpha.log"), "first\nYOI-READY\talpha\t"))
	assert.Contains(t, read("alpha.log"), "third \x1b[2J\n", "a pod's own log is as it wrote it")

	merged := read("merged.log")
	for _, line := range []string{`broken  no disk`, `alpha  first`, `beta  second`, `alpha  third \\x1b\[2J`} {
		assert.Regexp(t, `(?m)^ *\+\d+\.\d{6}  `+line+`$`, merged)
	}
	order := regexp.MustCompile(`no disk|first|second|third`).FindAllString(merged, -1)
	assert.Equal(t, []string{"no disk", "first", "second", "third"}, order, merged)

	var status struct{ State string }
	require.NoError(t, json.Unmarshal([]byte(read("alpha.dir/status.json")), &status))
	assert.Equal(t, "ready", status.State)
	assert.NoFileExists(t, filepath.Join(tb.Artifacts, "alpha.dir", "stderr.log"))

	timelines := read("timelines.txt")
	assert.Regexp(t, `(?m)^ *\+0\.000ms +.*ms  broken: pod exited before becoming ready \(exit status 7\): no disk$`, timelines)
	assert.Regexp(t, `(?m)^ *\+\d+\.\d{3}ms( +\d+\.\d{3}ms){4} +-  alpha: \d+\.\d{3}ms connect, \d+\.\d{3}ms SIGINT, \d+\.\d{3}ms exit status 0$`, timelines)

	report := read("report.html")
	for _, text := range []string{"<h1>" + t.Name() + "</h1>", "The start of broken failed", "exit status 7): no disk", "\tlog: broken.log", `href="./alpha.dir"`, `href="./broken.txtar"`, `third \x1b[2J`} {
		assert.Contains(t, report, text)
	}
	assert.NotContains(t, report, password)

	NeedProcesses(t)
	processes := read("processes.txt")
	assert.Contains(t, report, strings.SplitAfter(processes, " alive\n")[0])
	assert.NotContains(t, processes, password)
	assert.Contains(t, processes, "DB_PASSWORD (16 bytes)")
	assert.Contains(t, processes, "URL (32 bytes)")
	assert.Contains(t, processes, `COLOR=blue\x1b[2J`)
	assert.Contains(t, processes, "3 processes alive\n")
	assert.Regexp(t, `(?m)^\d+  \w \(\w+\), group \d+, session \d+, \S+ old: .*child; log first;.*\n(    fd .*\n)+(    thread .*\n(        kernel stack: .*\n)?)+  \d+  \w \(\w+\), .*-role child`, processes, "a child stands below its parent")
	assert.Regexp(t, `(?m)^\d+  T \(stopped\), .*log second`, processes)
	assert.Regexp(t, `(?m)^    fd 2: .*/alpha/stderr\.log$`, processes)
	assert.Regexp(t, `(?m)^    fd \d+: socket:\[\d+\] listening at .*/alpha/sock$`, processes)
}

func TestEvidenceThatCannotBeKept(t *testing.T) {
	t.Parallel()
	tb := &FakeTB{TestName: t.Name()}
	alpha, err := TryStartPod(tb, Config{Name: "alpha"})
	require.NoError(t, err)
	_, err = TryStartPod(tb, Config{Name: "beta", Command: FakePod("log hello; exit 7")})
	require.Error(t, err)
	box, err := sandboxOf(tb)
	require.NoError(t, err)
	box.evidence.Prefix = os.DevNull + "/"
	_, err = alpha.TryWaitLog("nowhere", time.Millisecond)
	tb.Errorf("%s", failsIn(tb, err))
	tb.End()
	assert.NotContains(t, tb.Text(), "stderr.log", "it is gone")
	assert.Contains(t, tb.Text(), "\n\tlog: lost with the test: mkdir "+os.DevNull+": not a directory\n\tlast lines:\n")
	assert.Contains(t, tb.Text(), "harness: pod beta\n\tlast lines:\n\t\thello\n")
	assert.Contains(t, tb.Text(), "harness: the evidence is lost: mkdir "+os.DevNull+": not a directory\n")
}

func TestLogIsReadToWhereItEndsNow(t *testing.T) {
	t.Parallel()
	pod := StartPod(t, Config{Command: FakePod("log first; bind; ready; serve")})
	reader := pod.log.Reader()
	stderr, err := os.OpenFile(pod.LogPath, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer stderr.Close()
	_, err = stderr.WriteString("second\n")
	require.NoError(t, err)
	text, err := io.ReadAll(reader)
	require.NoError(t, err)
	assert.Contains(t, string(text), "first\n")
	assert.NotContains(t, string(text), "second", "else a pod that never stops writing is read for ever")
	assert.Contains(t, pod.Log(), "second\n")
}

// pair starts a pod that ends by itself and one that lives.
func pair(t *testing.T, tb TB) (dead, alive *Pod) {
	t.Helper()
	dead, err := TryStartPod(tb, Config{Name: "dead"})
	require.NoError(t, err)
	alive, err = TryStartPod(tb, Config{Name: "alive"})
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(dead.PID, syscall.SIGTERM))
	select {
	case <-dead.Done():
	case <-time.After(20 * time.Second):
		require.Fail(t, "it did not end")
	}
	return dead, alive
}

func TestSnapshotOfAPodThatDiedShowsThoseThatLive(t *testing.T) {
	t.Parallel()
	NeedProcesses(t)
	tb := NewTB(t)
	_, alive := pair(t, tb)
	tb.End()
	require.True(t, tb.Failed())
	text, err := os.ReadFile(filepath.Join(tb.Artifacts, "processes.txt"))
	require.NoError(t, err)
	assert.Regexp(t, fmt.Sprintf(`(?m)^%d  .* --pod alive$`, alive.PID), string(text))
}

// outerTB stands for another T.
type outerTB struct {
	TB
	inner any
}

func (tb outerTB) Unwrap() any { return tb.inner }

type innerTB struct {
	verbose bool
	dir     string
	out     strings.Builder
}

func (tb *innerTB) Verbose() bool               { return tb.verbose }
func (tb *innerTB) ArtifactDir() string         { return tb.dir }
func (tb *innerTB) Output() io.Writer           { return &tb.out }
func (tb *innerTB) Deadline() (time.Time, bool) { return time.Now().Add(2 * time.Second), true }

// plainTB has only what TB asks for.
type plainTB struct{ *FakeTB }

func (plainTB) ArtifactDir() {}
func (plainTB) Verbose()     {}
func (plainTB) Deadline()    {}

func TestTBThatStandsForAnother(t *testing.T) {
	t.Parallel()
	inner := &innerTB{verbose: true, dir: t.TempDir()}
	tb := &outerTB{plainTB{&FakeTB{TestName: t.Name()}}, inner}
	_, err := TryStartPod(tb, Config{Name: "alpha", Command: FakePod("never-ready")})
	require.ErrorContains(t, err, "to end before the test's deadline")
	tb.Errorf("the test's own failure")
	tb.TB.(plainTB).End()
	assert.Contains(t, inner.out.String(), "alpha: loading\n")
	assert.FileExists(t, filepath.Join(inner.dir, "alpha.log"))
	self := &outerTB{TB: plainTB{&FakeTB{}}}
	self.inner = self
	_, ok := optional[interface{ Deadline() (time.Time, bool) }](self)
	assert.False(t, ok)
}

// Before the flags are parsed, testing.Verbose would panic.
var _ = verbose(plainTB{})

func TestStreamToATBWithoutOutput(t *testing.T) {
	t.Parallel()
	tb := &outerTB{plainTB{&FakeTB{TestName: t.Name()}}, verboseTB{}}
	_, err := TryStartPod(tb, Config{Name: "alpha", Command: FakePod("log one; exit 7")})
	require.Error(t, err)
	tb.TB.(plainTB).End()
	assert.Equal(t, "alpha: one\n", tb.TB.(plainTB).Text())
}

type verboseTB struct{}

func (verboseTB) Verbose() bool { return true }

func TestArtifactDirOfTestingOutlivesTheTestWithTheFlagOnly(t *testing.T) {
	t.Parallel()
	if kept := flag.Lookup("test.artifacts"); kept != nil && kept.Value.String() == "true" {
		t.Skip("-artifacts is given")
	}
	assert.Empty(t, artifactDir(t, true))
	assert.Empty(t, artifactDir(outerTB{t, t}, true))
	assert.Equal(t, "kept", artifactDir(&innerTB{dir: "kept"}, false))
}

func TestNamesOfPods(t *testing.T) {
	t.Parallel()
	for test, want := range map[string]string{
		"a \u00e9\x00/b\t":       "a----b--1",
		"--x":                    "x-1",
		".hidden":                "hidden-1",
		"/":                      "pod-1",
		"A_z.9":                  "A_z.9-1",
		strings.Repeat("y", 100): strings.Repeat("y", 32) + "-1",
	} {
		box := &oneTest{tb: &FakeTB{TestName: test}}
		assert.Equal(t, want, box.newName())
	}
}

func TestReadOnlyDirectoriesAreRemoved(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	tb := &FakeTB{TestName: t.Name()}
	box, err := sandboxOf(tb)
	require.NoError(t, err)
	deep := filepath.Join(box.Dir("tmp"), "a", "b")
	require.NoError(t, os.MkdirAll(deep, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(deep, "file"), nil, 0o400))
	require.NoError(t, os.Chmod(deep, 0o500))
	require.NoError(t, os.Chmod(filepath.Dir(deep), 0o000))
	tb.End()
	assert.False(t, tb.Failed(), tb.Text())
	assert.NoDirExists(t, box.Dir(""))
}

func TestStartAfterTheEndIsRefused(t *testing.T) {
	t.Parallel()
	tb := &FakeTB{TestName: t.Name()}
	box, err := sandboxOf(tb)
	require.NoError(t, err)
	box.end()
	_, err = TryStartPod(tb, Config{})
	assert.EqualError(t, err, "the test has ended, and nobody would stop the pod")
	tb.End()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = TryStartPod(&outerTB{tb, contextTB{over}}, Config{})
	assert.ErrorIs(t, err, errTestEnded)
}

type contextTB struct{ ctx context.Context }

func (tb contextTB) Context() context.Context { return tb.ctx }

// TestPlaceOfTheSandboxes is not parallel: it changes what all use.
func TestPlaceOfTheSandboxes(t *testing.T) {
	before := tempDir
	t.Cleanup(func() { tempDir = before })
	tempDir = "/short"
	assert.Equal(t, "/short", shortTempDir())
	tempDir = "/" + strings.Repeat("x", 50)
	assert.Equal(t, "/tmp", shortTempDir())
}

// countingTB streams to a counter.
type countingTB struct{ lines atomic.Int64 }

func (tb *countingTB) Verbose() bool     { return true }
func (tb *countingTB) Output() io.Writer { return tb }
func (tb *countingTB) Write(line []byte) (int, error) {
	tb.lines.Add(1)
	return len(line), nil
}

func TestStreamIsWholeWhenThePodWasStopped(t *testing.T) {
	t.Parallel()
	counter := &countingTB{}
	tb := &outerTB{plainTB{&FakeTB{TestName: t.Name()}}, counter}
	pod, err := TryStartPod(tb, Config{AllowLeaks: true})
	require.NoError(t, err)
	stderr, err := os.OpenFile(pod.LogPath, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer stderr.Close()
	const lines = 100_000
	_, err = io.WriteString(stderr, strings.Repeat("x\n", lines))
	require.NoError(t, err)
	require.NoError(t, pod.Stop())
	assert.EqualValues(t, lines+1, counter.lines.Load())
	tb.TB.(plainTB).End()
}

func TestEndOfTheTestWaitsForItsStarts(t *testing.T) {
	t.Parallel()
	r := newRoster()
	done, err := r.begin("alpha")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.end()
	}()
	select {
	case <-ended:
		assert.Fail(t, "it did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	assert.Error(t, r.ctx.Err(), "the start is cancelled")
	done()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		assert.Fail(t, "it did not end")
	}
}

func TestMergedLogCutsALongLine(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	_, err := TryStartPod(tb, Config{Name: "alpha", Command: FakePod(`flood 1MiB 0; raw "\n"; log next; exit 7`)})
	require.Error(t, err)
	tb.Errorf("the test's own failure")
	tb.End()
	merged, err := os.ReadFile(filepath.Join(tb.Artifacts, "merged.log"))
	require.NoError(t, err)
	assert.Regexp(t, `^.*… \[line cut\]\n.*  alpha  next\n$`, string(merged))
	assert.Less(t, len(merged), 70<<10)
}

func TestReportBeginsWithWhatTheTestFailedOf(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	pod, err := TryStartPod(tb, Config{Name: "alpha"})
	require.NoError(t, err)
	tb.Run(func() { pod.WaitLog("never <said>", time.Millisecond) })
	time.AfterFunc(time.Millisecond, func() { _ = pod.Signal(syscall.SIGKILL) })
	<-pod.Done()
	tb.Run(func() { pod.Talk(time.Second) })
	tb.End()
	page := readEvidence(t, tb.Artifacts, "report.html")
	verdict, rest, _ := strings.Cut(page, "</article>")
	assert.Regexp(t, `<h3>alpha <span class="dim">at \S+ s</span></h3>\n<pre>.*never &lt;said&gt;.*\n\tpod: it still runs.*\n\tlog: alpha.log\n\tlast lines:\n\t\tYOI-READY\talpha\t/`, verdict)
	assert.Contains(t, verdict, "What to do:</strong> It still ran: see below what its threads waited for (Config.DumpSignal has it tell more).")
	second, rest, _ := strings.Cut(rest, "</article>")
	assert.Regexp(t, `<pre>could not connect to pod alpha.*\n\tpod: it has ended \(signal: killed\)`, second)
	third, rest, _ := strings.Cut(rest, "</article>")
	assert.Contains(t, third, "<pre>pod alpha ended by itself during the test (signal: killed)", third)
	assert.NotContains(t, rest, "<article")
	at := regexp.MustCompile(`at &#43;(\S+) s`).FindStringSubmatch(verdict)[1]
	assert.Contains(t, rest, "<span>&#43;"+at+"</span><b>alpha</b><code>the test failed: no line of the log of pod alpha matched")
	assert.Contains(t, rest, `<line class="moment" x1=`)
}

// TestEvidenceHasALogThatWasReplaced renames the log and makes another, as a pod does that
// rotates it.
func TestEvidenceHasALogThatWasReplaced(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	_, err := TryStartPod(tb, Config{Name: "alpha.new"}) // whose own log is alpha.new.log
	require.NoError(t, err)
	pod, err := TryStartPod(tb, Config{Name: "alpha", Command: FakePod("log first; bind; ready; serve")})
	require.NoError(t, err)
	rotate := func(old, text string) {
		require.NoError(t, os.Rename(pod.LogPath, pod.LogPath+old))
		require.NoError(t, os.WriteFile(pod.LogPath, []byte(text+"\n"), 0o600))
	}
	rotate(".1", "second")
	box, err := sandboxOf(tb)
	require.NoError(t, err)
	box.evidence.Snapshot()
	assert.Equal(t, "alpha", box.evidence.ByLog(pod.LogPath).Name)
	<-time.After(2 * evidence.ApartNoted) // the new log is in the journal, too
	appendTo, err := os.OpenFile(pod.LogPath, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	defer appendTo.Close()
	_, err = appendTo.WriteString("after the snapshot\n")
	require.NoError(t, err)
	require.NoError(t, pod.Kill())
	rotate(".2", "third")
	tb.Fail()
	tb.End()
	assert.Contains(t, readEvidence(t, tb.Artifacts, "alpha.new.log"), "YOI-READY\talpha.new\t")
	assert.Regexp(t, `^first\nYOI-READY\talpha\t.*\n\[podharness: the log is another file from here on: alpha\.new\.log\.2\]\n$`, readEvidence(t, tb.Artifacts, "alpha.log"))
	assert.Equal(t, "second\nafter the snapshot\n", readEvidence(t, tb.Artifacts, "alpha.new.log.1"))
	assert.Equal(t, "third\n", readEvidence(t, tb.Artifacts, "alpha.new.log.2"))
	assert.Contains(t, readEvidence(t, tb.Artifacts, "merged.log"), "  alpha.new.log.1  after the snapshot\n")
	assert.Contains(t, tb.Text(), "harness: the log of pod alpha is another file now, as after a rotation: "+tb.Artifacts+"/alpha.new.log.2\n")
}
