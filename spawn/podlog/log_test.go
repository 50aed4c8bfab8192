package podlog

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// collect splits data that comes in pieces of the given sizes, the last of
// which is used again and again.
func collect(data []byte, sizes ...int) (lines []string, unfinished string) {
	var s Splitter
	for i := 0; len(data) > 0; i++ {
		n := max(1, sizes[min(i, len(sizes)-1)])
		n = min(n, len(data))
		piece := bytes.Clone(data[:n])
		_ = s.Split(piece, func(line []byte, cut bool) error {
			lines = append(lines, LineText(line, cut))
			return nil
		})
		for j := range piece { // nothing may keep a piece
			piece[j] = '!'
		}
		data = data[n:]
	}
	return lines, string(s.pending)
}

func TestLineSplitter(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	for _, tc := range []struct {
		name, in   string
		lines      []string
		unfinished string
	}{
		{name: "nothing"},
		{name: "one line", in: "a\n", lines: []string{"a"}},
		{name: "empty lines", in: "\n\r\n\n", lines: []string{"", "", ""}},
		{name: "half a line", in: "a\nb", lines: []string{"a"}, unfinished: "b"},
		{name: "one CR is dropped", in: "a\r\r\nb\rc\n", lines: []string{"a\r", "b\rc"}},
		{name: "invalid UTF-8", in: "a\xffb\n\xc3\n", lines: []string{"a\uFFFDb", "\uFFFD"}},
		{name: "NUL", in: "a\x00b\n", lines: []string{"a\x00b"}},
		{name: "as long as may be", in: long + "\n" + long + "\r\n", lines: []string{long, long}},
		{name: "too long", in: long + "y\nz\n", lines: []string{long + cutMark, "z"}},
		{name: "much too long", in: strings.Repeat(long, 3) + "\r\nz\n", lines: []string{long + cutMark, "z"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, size := range []int{1, 2, 7, 4096, len(tc.in) + 1} {
				lines, unfinished := collect([]byte(tc.in), size)
				assert.Equal(t, tc.lines, lines, "in pieces of %d", size)
				assert.Equal(t, tc.unfinished, unfinished)
			}
		})
	}
}

func TestLineSplitterKeepsLittleOfAnEndlessLine(t *testing.T) {
	t.Parallel()
	var s Splitter
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range 100 {
		require.NoError(t, s.Split(piece, func([]byte, bool) error { return errors.New("a line") }))
	}
	assert.LessOrEqual(t, cap(s.pending), 2*maxLine)
}

func FuzzLineSplitterAnySplitGivesTheSameLines(f *testing.F) {
	f.Add([]byte("YOI-READY\ta\tb\nx\r\ny"), 1, 3)
	f.Add([]byte("\r\n\r\r\n\xff\xfe\n"), 2, 1)
	f.Add(bytes.Repeat([]byte("x"), maxLine+2), maxLine, 1)
	f.Add(append(bytes.Repeat([]byte("x"), maxLine), "\r\ny\n"...), maxLine+1, 1)
	f.Fuzz(func(t *testing.T, data []byte, first, rest int) {
		whole, wholeEnd := collect(data, len(data))
		pieces, piecesEnd := collect(data, first, rest)
		require.Equal(t, whole, pieces)
		require.Equal(t, wholeEnd, piecesEnd)
		require.Equal(t, bytes.Count(data, []byte("\n")), len(whole))
	})
}

// FuzzLogReaderFollowsAGrowingFile writes data in two parts and reads in between.
func FuzzLogReaderFollowsAGrowingFile(f *testing.F) {
	f.Add([]byte("one\ntwo\nthr"), 6)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		at = min(max(at, 0), len(data))
		path := filepath.Join(t.TempDir(), "log")
		w, err := os.Create(path)
		require.NoError(t, err)
		defer w.Close()
		file, err := os.Open(path)
		require.NoError(t, err)
		defer file.Close()
		r := &Log{file: file}
		var lines []string
		read := func() {
			for more := true; more; {
				var err error
				more, err = r.Read(func(line []byte, cut bool) error {
					lines = append(lines, LineText(line, cut))
					return nil
				})
				require.NoError(t, err)
			}
		}
		for _, part := range [][]byte{data[:at], data[at:]} {
			_, err := w.Write(part)
			require.NoError(t, err)
			read()
		}
		want, unfinished := collect(data, max(1, len(data)))
		require.Equal(t, want, lines)
		require.Equal(t, unfinished, string(r.pending))
	})
}

func TestFollow(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) (w, r *os.File) {
		path := filepath.Join(t.TempDir(), "log")
		w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		require.NoError(t, err)
		t.Cleanup(func() { w.Close() })
		r, err = os.Open(path)
		require.NoError(t, err)
		t.Cleanup(func() { r.Close() })
		return w, r
	}
	write := func(t *testing.T, w *os.File, s string) {
		_, err := w.WriteString(s)
		require.NoError(t, err)
	}
	// follow hands each line to the returned channel; an error closes it.
	follow := func(t *testing.T, ctx context.Context, r *os.File) (lines chan string, result chan error) {
		lines, result = make(chan string, 100), make(chan error, 1)
		go func() {
			err := Follow(ctx, r, func(line string) bool { lines <- line; return line != "last" })
			close(lines)
			result <- err
		}()
		return lines, result
	}
	next := func(t *testing.T, lines chan string) string {
		t.Helper()
		select {
		case line := <-lines:
			return line
		case <-time.After(10 * time.Second):
			require.FailNow(t, "no line within 10s")
			return ""
		}
	}

	t.Run("from the start, until it is told to stop", func(t *testing.T) {
		t.Parallel()
		w, r := open(t)
		write(t, w, "one\ntwo\nthr")
		lines, result := follow(t, context.Background(), r)
		assert.Equal(t, "one", next(t, lines))
		assert.Equal(t, "two", next(t, lines))
		write(t, w, "ee\n")
		assert.Equal(t, "three", next(t, lines))
		write(t, w, "last\nnever\n")
		assert.Equal(t, "last", next(t, lines))
		assert.NoError(t, <-result)
		assert.Empty(t, lines)
	})
	t.Run("removed log", func(t *testing.T) {
		t.Parallel()
		w, r := open(t)
		lines, result := follow(t, context.Background(), r)
		write(t, w, "one\n")
		assert.Equal(t, "one", next(t, lines))
		require.NoError(t, os.Remove(r.Name()))
		write(t, w, "last\n")
		assert.Equal(t, "last", next(t, lines))
		assert.NoError(t, <-result)
	})
	t.Run("truncated log", func(t *testing.T) {
		t.Parallel()
		w, r := open(t)
		lines, result := follow(t, context.Background(), r)
		write(t, w, "a rather long line\nunfinished")
		assert.Equal(t, "a rather long line", next(t, lines))
		require.NoError(t, w.Truncate(0))
		write(t, w, "new\nlast\n")
		assert.Equal(t, "new", next(t, lines))
		assert.Equal(t, "last", next(t, lines))
		assert.NoError(t, <-result)
	})
	t.Run("a last look when the context ends", func(t *testing.T) {
		t.Parallel()
		w, r := open(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		write(t, w, "there already\n")
		lines, result := follow(t, ctx, r)
		assert.ErrorIs(t, <-result, context.Canceled)
		assert.Equal(t, "there already", <-lines)
	})
}

// TestRewrittenLogIsReadFromItsStart rewrites a log between two looks, so that it
// is as long as before, or longer.
func TestRewrittenLogIsReadFromItsStart(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, before, after string
		lines               []string
	}{
		{"longer", "loading\n", "YOI-READY\talpha\ts\n", []string{"loading", "YOI-READY\talpha\ts"}},
		{"as long", "loading\n", "ready 1\n", []string{"loading", "ready 1"}},
		{"after half a line", "loading\nhalf", "YOI-READY\talpha\ts\n", []string{"loading", "YOI-READY\talpha\ts"}},
		{"to nothing", "loading\n", "", []string{"loading"}},
		{"after a long one", strings.Repeat("x\n", 200), strings.Repeat("y\n", 300), slices.Concat(slices.Repeat([]string{"x"}, 200), slices.Repeat([]string{"y"}, 300))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "log")
			require.NoError(t, os.WriteFile(path, []byte(tc.before), 0o600))
			file, err := os.Open(path)
			require.NoError(t, err)
			defer file.Close()
			r := &Log{file: file}
			var lines []string
			read := func() {
				require.NoError(t, r.Drain(func(line []byte, cut bool) error {
					lines = append(lines, LineText(line, cut))
					return nil
				}, nil))
			}
			read()
			assert.False(t, r.truncated)
			require.NoError(t, os.WriteFile(path, []byte(tc.after), 0o600)) // it truncates
			read()
			assert.True(t, r.truncated)
			assert.Equal(t, tc.lines, lines)
		})
	}
}

func TestNewerLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write("old\n")
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	assert.Nil(t, Newer(file), "it is there")
	require.NoError(t, os.Rename(path, path+".1"))
	assert.Nil(t, Newer(file), "nothing is there")
	require.NoError(t, os.Symlink(path+".1", path))
	assert.Nil(t, Newer(file), "a link is there")
	require.NoError(t, os.Remove(path))
	write("new\n")
	newer := Newer(file)
	require.NotNil(t, newer)
	defer newer.Close()
	text, err := os.ReadFile(newer.Name())
	require.NoError(t, err)
	assert.Equal(t, "new\n", string(text))
}

func TestSizeIsToldWhenItHasChanged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, []byte("hello\n"), 0o600))
	var sizes []int64
	l, err := Open(path, func(size int64) { sizes = append(sizes, size) })
	require.NoError(t, err)
	defer l.Close()
	for _, size := range []int64{6, 6, 6, 2, 9} {
		require.NoError(t, os.Truncate(path, size))
		require.NoError(t, l.look())
	}
	assert.Equal(t, []int64{6, 2, 9}, sizes)
}

func TestPace(t *testing.T) {
	t.Parallel()
	next := func(p *Pace, watched bool) time.Duration {
		begin := time.Now()
		defer p.Stop()
		select {
		case <-p.Next(watched):
		case <-time.After(10 * time.Second):
		}
		return time.Since(begin)
	}
	p := NewPace(time.Now().Add(10 * time.Millisecond))
	assert.Less(t, next(p, true), firstSlowLook, "no look is later than the deadline")
	p = NewPace(time.Time{})
	assert.GreaterOrEqual(t, next(p, true), firstSlowLook, "without a deadline it waits")
	p = NewPace(time.Now().Add(time.Hour))
	for range 20 {
		next(p, false)
	}
	assert.Equal(t, lastLook, p.quick)
	assert.Equal(t, firstSlowLook, p.slow)
	assert.GreaterOrEqual(t, next(p, false), lastLook)
	p.slow = lastSlowLook
	p.Woken()
	assert.Equal(t, NewPace(time.Time{}).quick, p.quick)
	assert.Equal(t, firstSlowLook, p.slow)
}

func TestPaceOfAStoppedProcess(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	p := NewPace(begin.Add(time.Hour))
	defer p.Stop()
	assert.Zero(t, p.Extend())
	p.passed = begin.Add(-time.Minute) // it was stopped a minute ago
	assert.InDelta(t, time.Minute, p.Extend(), float64(10*time.Second))
	assert.WithinDuration(t, begin.Add(time.Hour+time.Minute), p.deadline, 10*time.Second)
	assert.Zero(t, p.Extend(), "each stop counts once")
	p.Next(true)
	assert.Equal(t, firstSlowLook, p.planned)
	p.passed = time.Now().Add(-firstSlowLook)
	assert.Zero(t, p.Extend(), "a wait is no stop")
	p.slow = lastSlowLook
	p.Next(true)
	assert.Equal(t, firstSlowLook, p.planned, "a long one would hide a stop")
}

// TestRestOfAHugeLogIsNotRead has a log be larger than can be read in a minute.
func TestRestOfAHugeLogIsNotRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skipf("the file system has no such files: %v", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	require.NoError(t, err)
	_, err = file.WriteString("\nlast words\n")
	require.NoError(t, errors.Join(err, file.Close()))
	log, err := Open(path, nil)
	require.NoError(t, err)
	defer log.Close()
	log.Rest = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	begin, last := time.Now(), ""
	assert.ErrorIs(t, log.Follow(ctx, func(line string) bool { last = line; return true }), context.Canceled)
	assert.Less(t, time.Since(begin), 20*time.Second)
	assert.Equal(t, "last words", last)
}

func TestFollowKeepsADeadline(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("a line\n"), 1<<20), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	for name, all := range map[string]bool{"cancelled": true, "late": false} {
		ctx, cancel := context.WithCancel(context.Background())
		if !all {
			ctx, cancel = context.WithTimeout(context.Background(), 0)
		}
		cancel()
		lines := 0
		assert.ErrorIs(t, Follow(ctx, file, func(string) bool { lines++; return true }), ctx.Err())
		assert.Equal(t, all, lines == 1<<20, "%s: %d lines", name, lines)
		assert.Positive(t, lines, "there is a last look")
	}
}
