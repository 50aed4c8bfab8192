package harness_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	ping  = `{"method":"ping"}`
	hello = `{"event":"snapshot"}`
)

func TestSend(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	assert.Equal(t, `{"event":"echo","data":[1]}`, pod.Send(`{"method":"echo","params":[1]}`, patience))
	_, err := pod.TrySend("a\nb", patience)
	assert.EqualError(t, err, fmt.Sprintf(`a line for pod %s has a newline in it: "a\nb"`, pod.Name))
	pod.Suspend()
	start := time.Now()
	_, err = pod.TrySend(ping, 500*time.Millisecond)
	assert.EqualError(t, err, fmt.Sprintf("pod %s sent no snapshot line: nothing within 500ms", pod.Name))
	assert.Less(t, time.Since(start), patience)
	pod.Resume()
}

func TestTalk(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	talk := pod.Talk(patience)
	assert.Contains(t, talk.Snapshot(), `{"event":"snapshot"`)
	_, err := talk.TrySnapshot()
	assert.ErrorContains(t, err, "was read before")
	for i := range 10 {
		assert.Equal(t, fmt.Sprintf(`{"event":"echo","data":%d}`, i), talk.Send(fmt.Sprintf(`{"method":"echo","params":%d}`, i)))
	}
	pod.Send(`{"method":"run","params":{"program":"event '{\"event\":\"news\"}'"}}`, patience)
	assert.Equal(t, `{"event":"news"}`, talk.Receive())
	assert.Equal(t, `{"event":"pong"}`, talk.Send(ping))
	talk.Close()
	_, err = talk.TrySend(ping)
	assert.ErrorContains(t, err, "could not send to pod "+pod.Name+": ")

	talk = pod.Talk(patience)
	talk.Snapshot()
	require.NoError(t, pod.Stop())
	_, err = talk.TrySend(ping)
	assert.EqualError(t, err, "could not send to pod "+pod.Name+": it has closed the connection")
}

// saying returns a pod whose socket is the test's: it sends what it is told, then
// hears nothing.
func saying(t *testing.T, tb harness.TB, text string) *harness.Pod {
	return sayingAs(t, tb, harness.Config{Name: "alpha"}, text)
}

func sayingAs(t *testing.T, tb harness.TB, cfg harness.Config, text string) *harness.Pod {
	pod := harness.StartPod(tb, cfg)
	path := filepath.Join(harness.RuntimeDir(tb), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, text)
			t.Cleanup(func() { conn.Close() })
		}
	}()
	pod.SocketPath = path
	return pod
}

func TestTalkOfLongLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 16<<20)
	talk := saying(t, t, "{\"event\":\"alert\"}\n{\"data\":{\"event\":\"snapshot\"},\"event\" : \"\\u0061lert\"}\n"+hello+"\r\n"+long+"\n\n").Talk(patience)
	assert.Equal(t, hello, talk.Snapshot())
	assert.True(t, long == talk.Receive(), "a line of 16 MiB is whole")
	assert.Empty(t, talk.Receive())
}

func TestLinesHaveAnotherLimit(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		most int
		in   string
	}{{1 << 10, "1 KiB"}, {1000, "1000 bytes"}, {24 << 20, "24 MiB"}} {
		line := strings.Repeat("z", tc.most)
		talk := sayingAs(t, harness.NewTB(t), harness.Config{MaxLine: tc.most}, hello+"\n"+line+"\n"+line+"zz\n").Talk(patience)
		assert.True(t, line == talk.Receive())
		_, err := talk.TryReceive()
		assert.ErrorContains(t, err, " sent no line: its line is longer than "+tc.in+": \"zzz")
	}
	_, err := harness.TryStartPod(t, harness.Config{MaxLine: -1})
	assert.ErrorContains(t, err, "MaxLine -1 is negative")
}

func TestTalkKnowsASnapshotAsJSON(t *testing.T) {
	t.Parallel()
	for _, line := range []string{`{"event" : "snapshot" , "data" : {}}`, `{"data":{},"event":"\u0073napshot"}`, `{"event":"snapshot","data":"` + strings.Repeat("x", 2<<20) + `"}`} {
		pod := saying(t, harness.NewTB(t), line+"\n{\"event\":\"pong\"}\n")
		assert.True(t, line == pod.Talk(patience).Snapshot())
		assert.Equal(t, `{"event":"pong"}`, pod.Send(ping, patience))
	}
	for _, line := range []string{`{"event":"hello","data":{"event":"snapshot"}}`, `"event":"snapshot"`, "snapshot"} {
		pod := saying(t, harness.NewTB(t), line+"\n")
		for range 2 {
			_, err := pod.TrySend(ping, patience)
			assert.EqualError(t, err, fmt.Sprintf(`pod alpha sent no snapshot line, which is a JSON object with "event":"snapshot", but %q`, line))
		}
	}
}

func TestTalkShowsUnfinishedLines(t *testing.T) {
	t.Parallel()
	pod := saying(t, t, hello+"\nhalf of it")
	talk := pod.Talk(300 * time.Millisecond)
	for range 2 {
		_, err := talk.TryReceive()
		assert.EqualError(t, err, `pod alpha sent no line: nothing within 300ms (its line has no newline: "half of it")`)
	}
	_, err := talk.TrySend(ping)
	assert.EqualError(t, err, `pod alpha gave no answer to {"method":"ping"}: nothing within 300ms (its line has no newline: "half of it")`)

	talk = saying(t, harness.NewTB(t), hello+"\n"+strings.Repeat("y", 17<<20)).Talk(patience)
	for range 2 {
		_, err := talk.TryReceive()
		assert.EqualError(t, err, `pod alpha sent no line: its line is longer than 16 MiB: "`+strings.Repeat("y", 200)+`"`)
	}
}

func TestTalkThatFailsTheTest(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]func(*harness.Pod){
		"pod alpha sent no line: nothing within 500ms":                      func(p *harness.Pod) { p.Talk(500 * time.Millisecond).Receive() },
		"pod alpha gave no answer to x: nothing within 500ms":               func(p *harness.Pod) { p.Talk(500 * time.Millisecond).Send("x") },
		"the snapshot of pod alpha was read before":                         func(p *harness.Pod) { talk := p.Talk(patience); talk.Snapshot(); talk.Snapshot() },
		"pod alpha gave no answer to x: nothing within 600ms":               func(p *harness.Pod) { p.Send("x", 600*time.Millisecond) },
		"could not connect to pod alpha at /nowhere: connect: no such file": func(p *harness.Pod) { p.SocketPath = "/nowhere"; p.Talk(patience) },
	} {
		tb := harness.NewTB(t)
		pod := saying(t, tb, hello+"\n")
		log := tb.Run(func() { f(pod) })
		assert.True(t, tb.Failed())
		assert.Contains(t, log, "harness: "+want)
		assert.Contains(t, log, "\n\tpod: it still runs (process ")
	}
}

func TestTalkEndsBeforeTheDeadlineOfTheTest(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := saying(t, tb, hello+"\n")
	talk := pod.Talk(time.Hour)
	talk.Snapshot()
	tb.Late = time.Now().Add(2 * time.Second)
	_, err := talk.TryReceive()
	assert.ErrorContains(t, err, "pod alpha sent no line: nothing within 1")
	assert.ErrorContains(t, err, "note: the timeout of 1h0m0s was cut to 1")
	assert.True(t, time.Now().Before(tb.Late))
}

// echo is a pod's socket that answers each line with itself.
func echo(b *testing.B) *harness.Pod {
	pod := harness.StartPod(b, harness.Config{})
	path := filepath.Join(harness.RuntimeDir(b), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(b, err)
	b.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, hello+"\n")
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	pod.SocketPath = path
	return pod
}

// BenchmarkTalk sends lines and receives as many, beside a bare connection.
func BenchmarkTalk(b *testing.B) {
	lines := 10_000
	if testing.Short() {
		lines = 100
	}
	request := `{"method":"echo","params":[1,2,3]}`
	pod := echo(b)
	bare := func() {
		conn, err := net.Dial("unix", pod.SocketPath)
		require.NoError(b, err)
		defer conn.Close()
		in := bufio.NewReader(conn)
		_, err = in.ReadString('\n')
		require.NoError(b, err)
		out := []byte(request + "\n")
		for range lines {
			if _, err = conn.Write(out); err == nil {
				_, err = in.ReadString('\n')
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	talk := func() {
		t := pod.With(b).Talk(patience)
		defer t.Close()
		for range lines {
			t.Send(request)
		}
	}
	var took [2]time.Duration
	for range b.N {
		for i, f := range []func(){bare, talk} {
			begin := time.Now()
			f()
			took[i] += time.Since(begin)
		}
	}
	const ms = float64(time.Millisecond)
	b.ReportMetric(float64(took[0])/ms/float64(b.N), "bare-ms")
	b.ReportMetric(float64(took[1])/ms/float64(b.N), "talk-ms")
	b.ReportMetric(float64(took[1])/float64(took[0]), "talk/bare")
}

func TestSendWaitsWhileTheBacklogIsFull(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, fake("socket; listen 1; ready; sleep 100ms; fill; log full; sleep 300ms; serve"))
	pod.WaitLog("^full$", patience)
	assert.Equal(t, `{"event":"pong"}`, pod.Send(ping, patience))

	deaf := harness.StartPod(t, fake("socket; listen 1; ready; sleep 100ms; fill; log full; hang"))
	deaf.WaitLog("^full$", patience)
	_, err := deaf.TrySend(ping, 200*time.Millisecond)
	assert.ErrorContains(t, err, "could not connect to pod "+deaf.Name)
	assert.ErrorContains(t, err, "/sock: its backlog is full, and it accepted nothing within 200ms")
	require.NoError(t, deaf.Kill())
}
