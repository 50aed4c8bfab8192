//go:build !portable

package harness

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEvidenceShowsWhatAPodUsed(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	pod, err := TryStartPod(tb, Config{Name: "alpha"})
	require.NoError(t, err)
	box, err := sandboxOf(tb)
	require.NoError(t, err)
	own, err := box.Own()
	require.NoError(t, err)
	sampled := func() bool { // by the binary's own sampler
		journal, err := own.Open("journal")
		require.NoError(t, err)
		defer journal.Close()
		text, err := io.ReadAll(journal)
		require.NoError(t, err)
		return strings.Contains(string(text), `"Samples":[{"N":0,"At":"`)
	}
	require.Eventually(t, sampled, 20*time.Second, 10*time.Millisecond)
	for range 20 {
		conn, err := net.Dial("unix", pod.SocketPath) // it outlives the test
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	tb.Fail()
	tb.End()
	page := readEvidence(t, tb.Artifacts, "report.html")
	found := regexp.MustCompile(`</svg><span(?: class="bad")?>descriptors (\d+) → (\d+)</span></li>`).FindStringSubmatch(page)
	require.NotNil(t, found)
	var before, after int
	_, err = fmt.Sscan(found[1]+" "+found[2], &before, &after)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, after, before+19, "a connection of before may have been there")
	for _, figure := range []string{"memory", "threads", "CPU"} {
		assert.Regexp(t, `<li>(<svg class="chart" .*</svg>)?<span>`+figure+` \d`, page)
	}
}

func TestSamplerRunsWhilePodsLive(t *testing.T) {
	t.Parallel()
	pod, err := TryStartPod(t, Config{})
	require.NoError(t, err)
	s := sampler{pods: map[*common]bool{}}
	other := &common{run: pod.run, attempt: pod.attempt}
	s.begin(pod.common)
	first := s.timer
	require.NotNil(t, first)
	s.begin(other)
	assert.Same(t, first, s.timer, "one for all pods")
	s.end(pod.common)
	assert.NotNil(t, s.timer)
	s.look()
	assert.True(t, s.timer.Stop(), "another look follows")
	s.timer.Reset(sampling)
	s.end(other)
	assert.Nil(t, s.timer)
	assert.False(t, first.Stop(), "nothing runs")
	s.end(other)

	s.begin(other) // and the last pod ends during a look
	s.timer.Stop()
	delete(s.pods, other)
	s.look()
	assert.Nil(t, s.timer)
}
