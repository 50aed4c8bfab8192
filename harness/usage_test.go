package harness_test

import (
	"testing"
	"time"

	"example.com/podharness/harness"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	harness.NeedProcesses(t)
	pod := harness.StartPod(t, harness.Config{Name: "alpha", Command: harness.FakePod("child; child; bind; ready; serve"), AllowLeaks: true})
	before, err := pod.Usage()
	require.NoError(t, err)
	assert.Equal(t, 2, before.Children)
	assert.Greater(t, before.RSS, int64(1<<20))
	assert.GreaterOrEqual(t, before.PeakRSS, before.RSS)
	assert.Greater(t, before.Threads, 1)
	assert.Greater(t, before.Descriptors, 3)
	for range 20 {
		pod.Talk(patience).Snapshot()
	}
	after, err := pod.Usage()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, after.Descriptors, before.Descriptors+19, "the connection of the start may have been one of those before")
	assert.GreaterOrEqual(t, after.CPU, before.CPU)
	assert.Less(t, after.CPU, time.Minute)
	require.NoError(t, pod.Stop())
	_, err = pod.Usage()
	assert.ErrorIs(t, err, harness.ErrEnded)
	assert.ErrorContains(t, err, "what pod alpha uses is not known\n\tpod: it has ended (exit status 0)")
}
