package spawn

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/podharness/spawn/podlog"
	"github.com/stretchr/testify/require"
)

// watcher returns what Start makes of a pod's lines, with or without somebody
// who wants to see each of them.
func watcher(progress func(string)) *start {
	s := &start{
		plan:     plan{Config: Config{PodName: "alpha", Dir: "/", Progress: progress}},
		observer: &Observer{}, log: &podlog.Log{}, process: &process{pid: -1},
	}
	s.timeline.Start = time.Now()
	if progress == nil {
		s.log.Skip = s.tail.Skip
	}
	return s
}

// FuzzLinesThatNobodyWantsChangeNothing compares what Start knows at the end.
func FuzzLinesThatNobodyWantsChangeNothing(f *testing.F) {
	many := strings.Repeat("one\ntwo\n\nlog YOI-READY\talpha\ts\n", 10)
	f.Add([]byte(many), 1000, 7)
	f.Add([]byte(many+"YOI-READY\talpha\ta/b\nYOI-READY\tbeta\tc\n"+many), 1000, 1000)
	f.Add([]byte(many+"YOI-READY\tbeta\ta/b\n"+many), 200, 1000)
	f.Add([]byte("YOI-READY\talpha\t\r\n"+many), 1, 3)
	f.Add([]byte(strings.Repeat("\n", 20)+"YOI-READY\talpha\ts\n"+strings.Repeat("\n", 20)+"YOI"), 10, 100)
	f.Fuzz(func(t *testing.T, data []byte, first, rest int) {
		feed := func(s *start) (err error) {
			for size, data := max(1, first), data; len(data) > 0 && err == nil; size = max(1, rest) {
				size = min(size, len(data))
				err = s.log.Split(data[:size], s.line)
				data = data[size:]
			}
			return err
		}
		all, some := watcher(func(string) {}), watcher(nil)
		require.Equal(t, feed(all), feed(some))
		require.Equal(t, all.tail.Strings(), some.tail.Strings())
		require.Equal(t, all.tail.Reason(), some.tail.Reason())
		allEnd, _ := all.log.Unfinished()
		someEnd, _ := some.log.Unfinished()
		require.Equal(t, string(allEnd), string(someEnd))
		require.Equal(t, all.socket, some.socket)
		require.Equal(t, all.timeline.FirstLine > 0, some.timeline.FirstLine > 0)
	})
}

// BenchmarkFollow has Start's eyes follow a log of 1 GiB that is there, and cat
// read it.
func BenchmarkFollow(b *testing.B) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 1 << 26
	}
	path := filepath.Join(b.TempDir(), "log")
	cat := func(to string) *exec.Cmd {
		return exec.Command("sh", "-c", `cat "$0" > "$1"`, path, to)
	}
	file, err := os.Create(path)
	require.NoError(b, err)
	lines := []byte(strings.Repeat(strings.Repeat("x", 79)+"\n", 1<<20/80))
	for written := int64(0); written < size; written += int64(len(lines)) {
		_, err := file.Write(lines)
		require.NoError(b, err)
	}
	require.NoError(b, file.Close())
	require.NoError(b, cat(os.DevNull).Run())
	b.SetBytes(size)
	var ours, cats time.Duration
	for range b.N {
		begin := time.Now()
		require.NoError(b, cat(os.DevNull).Run())
		cats += time.Since(begin)

		file, err := os.Open(path)
		require.NoError(b, err)
		s := watcher(nil)
		s.log = podlog.Watch(file, nil)
		s.log.Skip = s.tail.Skip
		begin = time.Now()
		for more := true; more; {
			more, err = s.log.Read(s.line)
			require.NoError(b, err)
		}
		ours += time.Since(begin)
		s.log.Close()
		require.Len(b, s.tail.Strings(), 8)
	}
	b.ReportMetric(float64(ours)/float64(cats), "follow/cat")
}
