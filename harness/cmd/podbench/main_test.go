package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// output is what go test prints of a benchmark that runs several times.
const output = `goos: linux
cpu: Some CPU @ 2.00GHz
BenchmarkEvidence/1-2     	       1	   9.0 KiB/pod	  80.0 cpu-µs/s/pod	  1.7 floor-ms	 2.0 start-ms	 1.1 stop-ms
BenchmarkEvidence/10-2    	       1	  -8.0 KiB/pod	  60.5 cpu-µs/s/pod	  1.8 floor-ms	 2.4 start-ms	 1.2 stop-ms
BenchmarkEvidence/10-2    	       1	   8.0 KiB/pod	  60.5 cpu-µs/s/pod	  1.8 floor-ms	 9.5 start-ms	 1.2 stop-ms
BenchmarkEvidence/10-2    	       1	   7.0 KiB/pod	  60.5 cpu-µs/s/pod	  1.8 floor-ms	 2.3 start-ms	 1.2 stop-ms
--- BENCH: BenchmarkOther
    other_test.go:7: Benchmarks 1 are fine
PASS
`

func read(t *testing.T, output string) *results {
	t.Helper()
	r := &results{values: map[[2]string][]float64{}}
	require.NoError(t, r.read(strings.NewReader(output)))
	return r
}

func TestMediansOfSeveralRuns(t *testing.T) {
	t.Parallel()
	r := read(t, output)
	assert.Equal(t, "Some CPU @ 2.00GHz", r.cpu)
	start, err := r.median("Evidence/10", "start-ms")
	require.NoError(t, err)
	assert.Equal(t, 2.4, start)
	_, err = r.median("SilentPod", "cpu-ms")
	assert.EqualError(t, err, "benchmark SilentPod has no cpu-ms (was it skipped?)")
	_, err = r.page(true)
	assert.ErrorContains(t, err, "SequentialStarts/ready-at-once has no spawn/floor")
}

func TestPageIsReplaced(t *testing.T) {
	t.Parallel()
	readme, err := replacePage([]byte("a\n<!-- podbench -->\nold\n<!-- /podbench -->\nz\n"), "new\n")
	require.NoError(t, err)
	assert.Equal(t, "a\n<!-- podbench -->\nnew\n<!-- /podbench -->\nz\n", string(readme))
	_, err = replacePage([]byte("a\nz\n"), "new\n")
	assert.EqualError(t, err, `README.md has lost "<!-- podbench -->\n" or "<!-- /podbench -->\n"`)
}
