package evidence

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/podharness/spawn/safefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sampleAt is one of a pod that leaks.
func sampleAt(second int) Sample {
	return Sample{At: time.Now().Truncate(time.Second).Add(time.Duration(second) * time.Second), RSS: int64(10+second) << 20, CPU: time.Duration(second) * 100 * time.Millisecond, Descriptors: 8, Threads: 5}
}

func TestChartOfALeakRises(t *testing.T) {
	t.Parallel()
	var s samples
	for i := range 11 {
		s.add(sampleAt(i), false)
	}
	charts := s.charts(120)
	require.Len(t, charts, 4)
	assert.Equal(t, chart{Label: "memory 10.0 MiB → 20.0 MiB", Points: "0.0,10.0 10.0,9.1 20.0,8.2 30.0,7.3 40.0,6.4 50.0,5.5 60.0,4.6 70.0,3.7 80.0,2.8 90.0,1.9 100.0,1.0"}, charts[0])
	more := samples{at: append(slices.Clone(s.at), sampleAt(30))}
	assert.True(t, more.charts(120)[0].Rises)
	more.at = append(more.at, sampleAt(0))
	assert.False(t, more.charts(120)[0].Rises, "it has come down again")
	assert.Equal(t, []chart{{Label: "descriptors 8"}, {Label: "threads 5"}, {Label: "CPU 10 %"}}, charts[1:], "what stays the same has no line")
	s.at[5].RSS = 99 << 20
	assert.Equal(t, "memory 10.0 MiB → 99.0 MiB → 20.0 MiB", s.charts(120)[0].Label)
	assert.Equal(t, 8, len(strings.Fields(s.charts(8)[0].Points)), "with the first and the last")
	assert.True(t, strings.HasPrefix(s.charts(8)[0].Points, "0.0,") && strings.Contains(s.charts(8)[0].Points, " 100.0,"))

	one := samples{at: s.at[:1]}
	assert.Equal(t, chart{Label: "memory 10.0 MiB"}, one.charts(120)[0])
	assert.Equal(t, chart{Label: "CPU time 0s"}, one.charts(120)[3])
	assert.Empty(t, (&samples{}).charts(120))
	same := samples{at: []Sample{{}, {Threads: 1}}}
	assert.Equal(t, chart{Label: "threads 0 → 1", Points: "0.0,19.0 0.0,1.0"}, same.charts(120)[2], "without a length")
}

func TestSamplesAreBounded(t *testing.T) {
	t.Parallel()
	var s samples
	for i := range 20_000 {
		s.add(sampleAt(i), false)
	}
	require.LessOrEqual(t, len(s.at), maxSamples)
	assert.Greater(t, len(s.at), maxSamples/4)
	assert.Equal(t, int64(10)<<20, s.at[0].RSS, "the first one stays")
	for i := range s.at[1:] {
		assert.InDelta(t, s.apart, s.at[i+1].At.Sub(s.at[i].At), float64(s.apart), "they are about as far apart")
	}
	before := len(s.at)
	assert.False(t, s.add(sampleAt(20_000), false))
	assert.True(t, s.add(sampleAt(20_000), true), "the last one counts")
	assert.Len(t, s.at, before+1)
}

func TestSamplesAreInTheJournal(t *testing.T) {
	t.Parallel()
	box := t.TempDir()
	e := New(Test{Box: box, Own: func() (*safefile.Dir, error) { return safefile.OpenDir(box) }, Place: func(bool) string { return "" }, Stream: func(string) func(string) { return nil }})
	a := e.Start(&Attempt{Pod: "alpha"}, Args{})
	a.Note("begins")
	for i := range 3 {
		a.Sampled(sampleAt(i), false)
		a.Note(fmt.Sprint("mark ", i))
	}
	a.Sampled(Sample{At: time.Now(), RSS: -1}, false) // as a pod would write it
	own, err := safefile.OpenDir(box)
	require.NoError(t, err)
	defer own.Close()
	r := readJournal(own, Test{Box: box}, lavish())
	require.NotNil(t, r)
	require.Len(t, r.Lives[0].samples.at, 3)
	assert.Equal(t, int64(12)<<20, r.Lives[0].samples.at[2].RSS)
	assert.True(t, r.Lives[0].samples.at[2].At.Equal(a.samples.at[2].At))
}

func TestReportDrawsWhatPodsUse(t *testing.T) {
	t.Parallel()
	r := recordOf(t, 2, "tame")
	for i := range 11 {
		r.Lives[0].samples.add(sampleAt(i), false)
	}
	page := reportOf(t, r)
	assert.Len(t, regexp.MustCompile(`<polyline points="[\d., ]+"`).FindAllString(page, -1), 1)
	assert.Contains(t, page, "<span>memory 10.0 MiB → 20.0 MiB</span></li>")
	assert.Contains(t, page, "<li>in the last 10s</li>")
}
