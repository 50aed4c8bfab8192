//go:build !portable

package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEvidenceOfManyPodsIsSmall is not parallel: its pods take memory.
func TestEvidenceOfManyPodsIsSmall(t *testing.T) {
	if testing.Short() || isBuiltWith("-race") {
		t.Skip("200 pods take a few seconds, and with -race gigabytes")
	}
	tb := NewTB(t)
	const pods = 200
	var all sync.WaitGroup
	atOnce := make(chan bool, 8)
	errs := make([]error, pods)
	for i := range pods {
		all.Add(1)
		atOnce <- true
		go func() {
			defer func() { <-atOnce; all.Done() }()
			cfg := Config{Name: fmt.Sprintf("agent-%03d", i), Command: FakePod(`log "opens its session store"; bind; ready; serve; flood 4KiB 80; hang`)}
			pod, err := TryStartPod(tb, cfg)
			if err == nil {
				_, err = pod.TrySend(`{"method":"echo","params":"hello"}`, 20*time.Second)
			}
			errs[i] = err
		}()
	}
	all.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	tb.Fail()
	begin := time.Now()
	tb.End()
	t.Logf("teardown and evidence of %d pods took %v", pods, time.Since(begin))
	var size int64
	require.NoError(t, filepath.WalkDir(tb.Artifacts, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		size += info.Size()
		return err
	}))
	page, err := os.Stat(filepath.Join(tb.Artifacts, "report.html"))
	require.NoError(t, err)
	t.Logf("%d bytes, of which report.html has %d", size, page.Size())
	assert.Less(t, size, int64(5_000_000))
	assert.Less(t, page.Size(), int64(1_000_000), "it opens at once")
	for _, name := range []string{"agent-000.log", "agent-199.log", "agent-199.talk.log", "agent-199.txtar"} {
		assert.FileExists(t, filepath.Join(tb.Artifacts, name))
	}
}
