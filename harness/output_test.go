package harness

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOutputIsReadOnce is not parallel: it measures the memory that all use.
func TestOutputIsReadOnce(t *testing.T) {
	const size = 64 << 20
	tb := NewTB(t) // not verbose: nothing is streamed
	defer tb.End()
	c := StartClient(tb, ClientConfig{Program: "/bin/sh", Args: []string{"-c", fmt.Sprintf(
		"echo first; yes 'a line of the output' | head -c %d; echo; echo last >&2; read x", size)}, Stdin: neverEnds(t)})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.WaitOutput("^last$", time.Minute)
	assert.Equal(t, "first", c.WaitOutput("^first$", time.Minute), "further back than a window")
	_, err := c.TryWaitOutput("nowhere", time.Second)
	require.Error(t, err)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(size), "all of it once is %d", size)
}

// neverEnds is a stdin.
func neverEnds(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}
