package evidence

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/safefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recordOf returns a record of so many attempts, in which all that pods and users can
// choose is this text, but for NUL and slashes in names. All but the last become ready.
func recordOf(t *testing.T, lives int, text string) *Record {
	t.Helper()
	start := time.Unix(1_700_000_000, 0)
	r := &Record{Test: &Test{Name: text, Most: 64 << 20}, Why: WhyFailed, Until: start.Add(10 * time.Second), dir: t.TempDir()}
	name := (&Collector{names: map[string]int{}}).newName(text)
	for i := range lives {
		l := &Attempt{N: i, Name: fmt.Sprint(i, name), Pod: name, PID: 1000 + i, Log: filepath.Join(t.TempDir(), "log")}
		require.NoError(t, os.WriteFile(l.Log, []byte(strings.Repeat(text+"\n", 39)+strings.Repeat(text, 64<<10/len(text))+"\n"), 0o600))
		var err error
		l.file, err = os.Open(l.Log)
		require.NoError(t, err)
		t.Cleanup(func() { l.file.Close() })
		begin := start.Add(time.Duration(i) * 5 * time.Millisecond)
		for k := range 40 {
			l.Stamps = append(l.Stamps, Stamp{At: begin.Add(time.Duration(4+k) * time.Millisecond), Size: int64((k + 1) * (len(text) + 1))})
		}
		l.Timeline = spawn.Timeline{Start: begin, Launched: time.Millisecond, FirstLine: 5 * time.Millisecond}
		if i < lives-1 {
			l.Timeline.ReadyLine, l.Timeline.Connected = 6*time.Millisecond, 7*time.Millisecond
			l.add(Mark{"connect", begin.Add(50 * time.Millisecond), false})
			l.add(Mark{"SIGINT", begin.Add(10 * time.Second), false})
			l.add(Mark{text, begin.Add(10*time.Second + time.Millisecond), true})
		} else {
			l.Timeline.Ended = 9 * time.Second
			l.Error = spawn.ErrTimeout.Error() + ": " + text + "\n\tlog: " + l.Log
			l.StartFailed = &spawn.Error{Verdict: "timed out", Missing: "ready line"}
		}
		r.Lives = append(r.Lives, l)
	}
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "processes.txt"), []byte(text), 0o600))
	return r
}

// hostile is what a pod might write.
var hostile = strings.Join([]string{
	`</script><script>alert(1)</script>`, `<!--`, `-->`, `]]>`, `</title></style></svg></pre></table>`,
	`"><img src=x onerror=alert(1)>`, `' onclick='alert(1)`, `javascript:alert(1)`, `{{.}}`, `&lt;b&gt;`, `%3Cb%3E`,
	"\u2028", "\u202e", "\x00", "\x1b[2J", "\xff", "\t", "\r",
}, " ")

func reportOf(t *testing.T, r *Record) string {
	t.Helper()
	r.Write()
	require.Empty(t, r.lost)
	return readEvidence(t, r.dir, "report.html")
}

var (
	tag     = regexp.MustCompile(`<[^>]*>`)
	chosen  = regexp.MustCompile(` href="\./[^"]*"`)
	changes = regexp.MustCompile(`nonce(=")?[^"']*`)
)

// tags returns what of a page is not text, but for the links to files.
func tags(page string) []string {
	found := tag.FindAllString(changes.ReplaceAllString(page, ""), -1)
	for i, text := range found {
		found[i] = chosen.ReplaceAllString(text, "")
	}
	return found
}

func TestReportHasNoMarkupOfPods(t *testing.T) {
	t.Parallel()
	tame, hostile := reportOf(t, recordOf(t, 3, "tame")), reportOf(t, recordOf(t, 3, hostile))
	assert.Equal(t, tags(tame), tags(hostile))
	assert.Greater(t, len(tags(tame)), 1000)
	assert.True(t, utf8.ValidString(hostile))
	assert.NotRegexp(t, "[\x00-\x08\x0b-\x1f\u2028\u202a-\u202e]", hostile)
	assert.Contains(t, hostile, `&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt; &lt;!--`)
	assert.Contains(t, hostile, `\u2028 \u202e \x00 \x1b[2J`)
}

func TestAdviceGoesByWhatIsKnown(t *testing.T) {
	t.Parallel()
	assert.Contains(t, reportOf(t, recordOf(t, 1, "waiting for its socket")), "</strong> It ran but did not say that it is ready", "not by what a pod writes")
	now := time.Now()
	mark := func(after time.Duration, what string, last bool) Mark { return Mark{what, now.Add(after), last} }
	for name, test := range map[string]struct {
		Attempt
		want string
	}{
		"a client":                       {Attempt{}, ""},
		"a pod that runs":                {Attempt{Pod: "a"}, "It still ran: see below what its threads waited for (Config.DumpSignal"},
		"one that was asked":             {Attempt{Pod: "a", Dump: syscall.SIGQUIT}, "and in its log what it wrote when it was asked."},
		"one that was stopped later":     {Attempt{Pod: "a", Marks: []Mark{mark(1, "SIGINT", false), mark(2, "exit status 0", true)}}, "It still ran"},
		"one that was stopped before":    {Attempt{Pod: "a", Marks: []Mark{mark(-2, "SIGINT", false), mark(-1, "exit status 0", true)}}, ""},
		"one that ended":                 {Attempt{Pod: "a", Marks: []Mark{mark(1, "exit status 2", true)}}, ""},
		"one that was killed":            {Attempt{Pod: "a", Marks: []Mark{mark(-2, Connected, false), mark(-1, "signal: killed", true)}}, "Nobody here has sent SIGKILL"},
		"one that the test has killed":   {Attempt{Pod: "a", Marks: []Mark{mark(-2, "SIGKILL", false), mark(-1, "signal: killed", true)}}, ""},
		"a start":                        {Attempt{Pod: "a", StartFailed: &spawn.Error{Verdict: "timed out", Missing: "socket"}}, "have it bind and listen first"},
		"a start of one that ended":      {Attempt{Pod: "a", StartFailed: &spawn.Error{Verdict: "exited early", Status: "exit status 2"}}, ""},
		"a start of one that was killed": {Attempt{Pod: "a", StartFailed: &spawn.Error{Verdict: "exited early", Status: "signal: killed"}}, "when memory is short (dmesg)"},
	} {
		got := failure{Attempt: &test.Attempt, When: now}.advice()
		assert.Contains(t, got, test.want, name)
		assert.Equal(t, test.want == "", got == "", name)
	}
}

func TestFirstFailureIsTheVerdict(t *testing.T) {
	t.Parallel()
	r := recordOf(t, 3, "tame")
	at := func(d time.Duration) time.Time { return r.start().Add(d) }
	assert.Equal(t, []string{r.Lives[2].Error}, messages(r), "a start that has failed while the test went on")
	r.Lives[1].Failures = []Mark{{What: "second", At: at(2 * time.Second)}}
	r.Lives[0].Failures = []Mark{{What: "first\nof all", At: at(time.Second)}, {What: "third", At: at(3 * time.Second)}}
	assert.Equal(t, []string{"first\nof all", "second", "third", r.Lives[2].Error}, messages(r))
	page := reportOf(t, r)
	p, err := r.page(2048)
	require.NoError(t, err)
	assert.Equal(t, time.Second, p.Moment)
	assert.Contains(t, page, `<span>&#43;1.000000</span><b>0tame</b><code>the test failed: first</code>`)
	assert.NotContains(t, page, "The message of the test is in the output of go test")
	r.Lives = r.Lives[:2]
	r.Lives[0].Failures, r.Lives[1].Failures = nil, nil
	p, err = r.page(2048)
	require.NoError(t, err)
	assert.Equal(t, 10*time.Second, p.Moment, "that of the snapshot")
	assert.Contains(t, reportOf(t, r), "The message of the test is in the output of go test")
}

func messages(r *Record) (all []string) {
	for _, f := range r.failures() {
		all = append(all, f.Message)
	}
	return all
}

func TestFailuresOfAnAttemptAreBounded(t *testing.T) {
	t.Parallel()
	box := t.TempDir()
	e := New(Test{Box: box, Own: func() (*safefile.Dir, error) { return safefile.OpenDir(box) }, Place: func(bool) string { return "" }, Stream: func(string) func(string) { return nil }})
	a := e.Output("out")
	for i := range 3 * maxFailures {
		a.Fail(fmt.Sprint(i))
	}
	require.Len(t, a.Failures, maxFailures)
	assert.Equal(t, "0", a.Failures[0].What, "the first one counts")
	own, err := safefile.OpenDir(box)
	require.NoError(t, err)
	defer own.Close()
	r := readJournal(own, Test{Box: box}, lavish())
	require.NotNil(t, r)
	assert.Len(t, r.Lives[0].Failures, maxFailures, "the watchdog knows them")
}

// TestReportInABrowser unchecks a pod, so that its lines are not shown. It is not parallel,
// since a browser needs all processors and other tests go by the clock.
func TestReportInABrowser(t *testing.T) {
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "chromium-headless-shell", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
		}
	}
	if browser == "" {
		t.Skip("there is no Chromium")
	}
	page := strings.Replace(reportOf(t, recordOf(t, 3, hostile)), "</script>", "boxes[1].click()\n</script>", 1)
	path := filepath.Join(t.TempDir(), "report.html")
	require.NoError(t, os.WriteFile(path, []byte(page), 0o600))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--dump-dom", "file://"+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.Output()
	require.NoError(t, err)
	dom := string(out)

	element := regexp.MustCompile(`<[a-zA-Z]\w*`)
	tame := reportOf(t, recordOf(t, 3, "tame"))
	assert.Equal(t, element.FindAllString(tame, -1), element.FindAllString(dom, -1))
	assert.NotRegexp(t, `<[^>]* on\w+=`, dom)
	lines := regexp.MustCompile(`<li[^>]* data-life="(\d)"[^>]*>`).FindAllStringSubmatch(dom, -1)
	assert.Len(t, lines, 3*40+7+7+3, "with the events")
	for _, line := range lines {
		assert.Equal(t, line[1] == "1", strings.Contains(line[0], "hidden"), line[0])
	}
}

func TestReportIsBounded(t *testing.T) {
	t.Parallel()
	r := recordOf(t, 60, hostile)
	r.Most = 1 << 20
	for range 2 * maxMarks {
		r.Lives[0].add(Mark{"SIGHUP", r.Until, false})
	}
	for i, a := range r.Lives[:5] {
		for k := range 2 * maxSamples {
			a.samples.add(sampleAt(k*k), true)
		}
		for k := range maxUses {
			a.uses.add(Use{Test: fmt.Sprint(k, strings.Repeat(hostile, 10)), From: r.start(), Failed: k%2 == 0})
		}
		for range maxGoroutines {
			frame := Frame{strings.Repeat("f", longestWord), strings.Repeat("x", longestWord), i}
			a.Goroutines = append(a.Goroutines, Goroutine{Wait: strings.Repeat("w", longestWord), Frames: []Frame{frame, frame, frame}})
		}
	}
	page := reportOf(t, r)
	assert.Less(t, len(page), 1<<20/16)
	assert.Regexp(t, `\(\d+ more are in timelines.txt\)`, page)
	assert.Regexp(t, `<p>\d+ more, from between those, are in `, page)
	assert.Contains(t, page, "bytes are left out here]")
	assert.Contains(t, page, "data-life=\"0\"")
	assert.Contains(t, page, "data-life=\"59\"")
}

func TestAxisHasRoundLabels(t *testing.T) {
	t.Parallel()
	const ms, s = time.Millisecond, time.Second
	for name, test := range map[string]struct{ times, labels []time.Duration }{
		"nothing":    {[]time.Duration{0}, []time.Duration{0}},
		"one moment": {[]time.Duration{5, 5, 5}, []time.Duration{5}},
		"short":      {[]time.Duration{60 * ms, 0, 10 * ms}, []time.Duration{0, 10 * ms, 20 * ms, 30 * ms, 40 * ms, 50 * ms}},
		"long":       {[]time.Duration{0, 10*s + 4*ms}, []time.Duration{0, 2 * s, 4 * s, 6 * s, 8 * s}},
		"later":      {[]time.Duration{3 * s, 13 * s}, []time.Duration{4 * s, 6 * s, 8 * s, 10 * s, 12 * s}},
	} {
		p := &page{}
		p.scale(test.times)
		assert.Equal(t, test.labels, p.Labels, name)
		assert.Zero(t, p.place(slices.Min(test.times)))
	}
}
