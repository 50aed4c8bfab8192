package harness_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// says returns a request that has all clients of a fake pod sent an event.
func says(event string) string {
	return fmt.Sprintf(`{"method":"run","params":{"program":%q}}`, "event '"+event+"'")
}

func TestWaitLinePassesOverOthers(t *testing.T) {
	t.Parallel()
	talk := saying(t, t, `{"event":"alert","data":"one"}`+"\n"+hello+"\none\ntwo\none\nthree\n").Talk(patience)
	assert.Equal(t, "two", talk.WaitLine("^t", patience))
	assert.Equal(t, "one", talk.WaitLine("^one$", patience), "the one after it")
	_, err := talk.TryWaitLine("^two$", 100*time.Millisecond)
	assert.ErrorIs(t, err, harness.ErrTimedOut)
	assert.EqualError(t, err, "pod alpha sent no line that matches \"^two$\": none within 100ms\n\tit sent since:\n\t\tthree")
	assert.Equal(t, "three", talk.Receive(), "a wait in vain passes over nothing")
	_, err = talk.TryWaitLine("x", 50*time.Millisecond)
	assert.EqualError(t, err, `pod alpha sent no line that matches "x": nothing within 50ms`)
	assert.Equal(t, []string{`{"event":"alert","data":"one"}`, hello, "one", "two", "one", "three"}, talk.Lines())
}

func TestLinesThatComeBetweenCallsAreKept(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	talk, other := pod.Talk(patience), pod.Talk(patience)
	talk.Snapshot()
	other.Write(says(`{"event":"news","n":1}`))
	other.Write(says(`{"event":"news","n":2}`))
	other.WaitLine(`"n":2`, patience)
	require.NoError(t, pod.Stop())
	assert.Equal(t, `{"event":"news","n":1}`, talk.WaitLine("news", patience))
	assert.Equal(t, `{"event":"news","n":2}`, talk.Receive())
	_, err := talk.TryWaitLine("more", patience)
	assert.ErrorIs(t, err, harness.ErrEnded)
	assert.EqualError(t, err, fmt.Sprintf(`pod %s sent no line that matches "more": it has closed the connection`, pod.Name))
}

// isOnly checks that errors are of one kind and of no other.
func isOnly(t *testing.T, want error, errs map[string]error) {
	t.Helper()
	for call, err := range errs {
		for _, kind := range []error{harness.ErrTimedOut, harness.ErrNoMatch, harness.ErrEnded, harness.ErrClosed, harness.ErrBadPattern} {
			assert.Equal(t, kind == want, errors.Is(err, kind), "%s: %v is %v", call, err, kind)
		}
	}
}

func TestErrorsOfAConversationAreToldApart(t *testing.T) {
	t.Parallel()
	none := func(int) bool { return false }
	const moment = 20 * time.Millisecond
	mute := saying(t, harness.NewTB(t), "")
	silent := saying(t, harness.NewTB(t), hello+"\n")
	talk := silent.Talk(moment)
	isOnly(t, harness.ErrTimedOut, map[string]error{
		"Pod.TrySend":    second(silent.TrySend(ping, moment)),
		"Pod.TrySendFor": second(silent.TrySendFor(ping, "x", moment)),
		"TrySnapshot":    second(mute.Talk(moment).TrySnapshot()),
		"TrySend":        second(talk.TrySend(ping)),
		"TryReceive":     second(talk.TryReceive()),
		"TryWaitLine":    second(talk.TryWaitLine("x", moment)),
		"TryWaitJSON":    second(harness.TryWaitJSON(talk, none, moment)),
		"TryQuiet":       mute.Talk(moment).TryQuiet(moment), // no snapshot
	})
	isOnly(t, harness.ErrNoMatch, map[string]error{
		"TryWaitLine": second(talk.TryWaitLine("x", 0)),
		"TryWaitJSON": second(harness.TryWaitJSON(talk, none, 0)),
	})
	isOnly(t, harness.ErrBadPattern, map[string]error{
		"Pod.TrySendFor": second(silent.TrySendFor(ping, "(", patience)),
		"TryWaitLine":    second(talk.TryWaitLine("(", patience)),
	})
	_, err := silent.TrySendFor(ping, "(", patience)
	assert.EqualError(t, err, "bad pattern: error parsing regexp: missing closing ): `(`")
	_, err = talk.TryWaitLine("", moment)
	assert.EqualError(t, err, "pod alpha sent no line: nothing within 20ms")

	all := func(talk, fresh *harness.Talk) map[string]error {
		return map[string]error{
			"TrySnapshot": second(fresh.TrySnapshot()),
			"TrySend":     second(talk.TrySend(ping)),
			"TryWrite":    talk.TryWrite(ping),
			"TryReceive":  second(talk.TryReceive()),
			"TryWaitLine": second(talk.TryWaitLine("x|y", patience)),
			"TryWaitJSON": second(harness.TryWaitJSON(talk, none, patience)),
			"TryQuiet":    talk.TryQuiet(patience),
		}
	}
	fresh := mute.Talk(patience)
	fresh.Close()
	talk.Close()
	isOnly(t, harness.ErrClosed, all(talk, fresh))

	pod := harness.StartPod(t, harness.Config{})
	deaf := harness.StartPod(t, fake("bind; ready; hang"))
	fresh, talk = deaf.Talk(patience), pod.Talk(patience)
	talk.Snapshot()
	require.NoError(t, pod.Stop())
	require.NoError(t, deaf.Stop())
	isOnly(t, harness.ErrEnded, all(talk, fresh))
	isOnly(t, harness.ErrEnded, map[string]error{
		"Pod.TryTalk":    second(pod.TryTalk(patience)),
		"Pod.TrySend":    second(pod.TrySend(ping, patience)),
		"Pod.TrySendFor": second(pod.TrySendFor(ping, "x", patience)),
	})
}

func TestSendForIsNotMisledByTheEventsOfOthers(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	other := pod.Talk(patience)
	other.Snapshot()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = other.TryWrite(says(`{"event":"noise"}`))
				_, _ = other.TryReceive()
			}
		}
	}()
	for i := range 100 {
		want := fmt.Sprintf(`{"event":"echo","data":%d}`, i)
		assert.Equal(t, want, pod.SendFor(fmt.Sprintf(`{"method":"echo","params":%d}`, i), `"echo"`, patience))
	}
	close(stop)
	<-stopped
	pod = harness.StartPod(t, harness.Config{})
	_, err := pod.TrySendFor(ping, `"ping"`, 300*time.Millisecond)
	assert.ErrorIs(t, err, harness.ErrTimedOut)
	assert.EqualError(t, err, fmt.Sprintf("pod %s sent no answer to {\"method\":\"ping\"} that matches \"\\\"ping\\\"\": none within 300ms\n\tit sent since:\n\t\t{\"event\":\"pong\"}", pod.Name))
}

func TestWaitJSON(t *testing.T) {
	t.Parallel()
	type status struct {
		Event string
		Count int
	}
	talk := saying(t, t, hello+"\nno JSON\n[1]\n{\"event\":\"status\",\"count\":1}\n{\"event\":\"status\",\"count\":\"two\"}\n{\"event\":\"status\",\"count\":3}\nlast\n").Talk(patience)
	two := func(s status) bool { return s.Event == "status" && s.Count >= 2 }
	assert.Equal(t, status{"status", 3}, harness.WaitJSON(talk, two, patience))
	assert.Equal(t, "last", talk.Receive())
	_, err := harness.TryWaitJSON(talk, two, 50*time.Millisecond)
	assert.ErrorIs(t, err, harness.ErrTimedOut)
	assert.EqualError(t, err, `pod alpha sent no line that is the harness_test.status waited for: nothing within 50ms`)
}

func TestQuiet(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{})
	talk, other := pod.Talk(patience), pod.Talk(patience)
	talk.Quiet(50 * time.Millisecond) // the snapshot is no news
	other.Send(says(`{"event":"news"}`))
	err := talk.TryQuiet(patience)
	assert.EqualError(t, err, fmt.Sprintf("pod %s was not quiet for %v: it sent a line\n\tit sent since:\n\t\t{\"event\":\"news\"}", pod.Name, patience))
	talk.WaitLine("news", patience)
	require.NoError(t, talk.TryQuiet(0))

	half := saying(t, t, hello+"\nhalf").Talk(patience)
	assert.EqualError(t, half.TryQuiet(patience/100), fmt.Sprintf(`pod alpha was not quiet for %v: it sent a part of a line: "half"`, patience/100))
	require.NoError(t, pod.Stop())
	assert.ErrorIs(t, talk.TryQuiet(patience), harness.ErrEnded)
}

func TestQuietThatIsCutIsNotKnown(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	talk := saying(t, tb, hello+"\n").Talk(patience)
	talk.Snapshot()
	tb.Late = time.Now().Add(time.Second)
	assert.ErrorContains(t, talk.TryQuiet(time.Hour), "whether pod alpha is quiet for 1h0m0s is not known: ")
}

func TestConversationThatFailsTheTest(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("line\n", 20) + "last\x1b\n"
	for want, f := range map[string]func(*harness.Talk){
		"pod alpha sent no line that matches \"x\": none within 10ms\n\tit sent 21 lines since, the last ones:\n\t\tline\n": func(talk *harness.Talk) { talk.WaitLine("x", 10*time.Millisecond) },
		"pod alpha was not quiet for 10ms: it sent a line":                                                                  func(talk *harness.Talk) { talk.Quiet(10 * time.Millisecond) },
		"a line for pod alpha has a newline in it":                                                                          func(talk *harness.Talk) { talk.Write("a\nb") },
		"waited for: none within 10ms":                                                                                      func(talk *harness.Talk) { harness.WaitJSON(talk, func(int) bool { return false }, 10*time.Millisecond) },
	} {
		tb := harness.NewTB(t)
		talk := saying(t, tb, hello+"\n"+many).Talk(patience)
		for deadline := time.Now().Add(patience); len(talk.Lines()) < 22 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		log := tb.Run(func() { f(talk) })
		assert.True(t, tb.Failed())
		assert.Contains(t, log, want)
		assert.Contains(t, log, "\n\tpod: it still runs (process ")
		assert.NotContains(t, log, "\x1b")
	}
}

func second[T any](_ T, err error) error { return err }

func TestNoLog(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, fake("log 'panic: one'; bind; ready; serve; hang"))
	from := pod.LogEnd()
	pod.NoLog(from, "panic")
	require.NoError(t, pod.TryNoLog(0, "two"))
	err := pod.TryNoLog(0, "panic")
	assert.ErrorContains(t, err, `a line of the log of pod TestNoLog-1 matches "panic": panic: one`+"\n\tpod: it still runs")
	assert.NotErrorIs(t, err, harness.ErrNoMatch)
	assert.ErrorIs(t, pod.TryNoLog(0, "("), harness.ErrBadPattern)

	tb := harness.NewTB(t)
	pod = harness.StartPod(tb, fake("bind; ready; serve; hang"))
	assert.Contains(t, tb.Run(func() { pod.NoLog(0, "(") }), "bad pattern: ")
	assert.True(t, tb.Failed())
	require.NoError(t, os.Rename(pod.LogPath, pod.LogPath+".1"))
	require.NoError(t, os.WriteFile(pod.LogPath, []byte("panic: two\n"), 0o600))
	assert.ErrorContains(t, pod.TryNoLog(0, "panic"), "is not known", "the newer log is not read")
}

func TestErrorsOfALogAreToldApart(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	pod := harness.StartPod(tb, harness.Config{})
	assert.Contains(t, pod.WaitLog("nothing|^YOI-READY", patience), "YOI-READY", "one of several")
	all := func(pattern string, timeout time.Duration) map[string]error {
		_, _, after := pod.TryWaitLogAfter(pod.LogEnd(), pattern, timeout)
		return map[string]error{"TryWaitLog": second(pod.TryWaitLog(pattern, timeout)), "TryWaitLogAfter": after}
	}
	isOnly(t, harness.ErrNoMatch, all("x{9}", 0))
	isOnly(t, harness.ErrTimedOut, all("x{9}", time.Millisecond))
	isOnly(t, harness.ErrBadPattern, all("(", patience))
	isOnly(t, harness.ErrBadPattern, map[string]error{"TryNoLog": pod.TryNoLog(0, "(")})
	isOnly(t, nil, map[string]error{"TryNoLog": pod.TryNoLog(0, "READY")})
	require.NoError(t, pod.Stop())
	isOnly(t, harness.ErrEnded, all("x{9}", patience))
	tb.End()
	isOnly(t, harness.ErrClosed, all("x{9}", patience))
	isOnly(t, harness.ErrClosed, map[string]error{"TryNoLog": pod.TryNoLog(0, "x")})
}
