package lines

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// never is late in no test.
func never() time.Time { return time.Now().Add(time.Minute) }

// conn is a connection from which a text comes.
type conn struct{ io.Reader }

func (conn) Close() error                    { return nil }
func (conn) SetReadDeadline(time.Time) error { return nil }

func inbox(t *testing.T, text io.Reader) *Inbox {
	t.Helper()
	in := NewInbox(conn{text}, Most, func(string) {}, func(error) {})
	t.Cleanup(in.Close)
	return in
}

func TestLines(t *testing.T) {
	t.Parallel()
	long, longer := strings.Repeat("x", 40<<10), strings.Repeat("y", Most)
	in := inbox(t, strings.NewReader("one\ntwo\r\n\n"+long+"\n"+longer+"\r\nhalf"))
	next := 0
	for _, want := range []string{"one", "two", "", long, longer} {
		var line string
		var ok bool
		line, next, ok, _ = in.Next(next, never)
		require.True(t, ok)
		assert.True(t, line == want, "%.20q, want %.20q", line, want)
	}
	for range 2 {
		_, at, ok, err := in.Next(next, never)
		assert.False(t, ok)
		assert.Equal(t, 5, at)
		assert.ErrorIs(t, err, io.EOF)
	}
	assert.Equal(t, "half", in.Unfinished())
	assert.LessOrEqual(t, cap(in.pending), small, "the room of a long line is not kept")
	assert.Len(t, in.Lines(3), 2)
	assert.Empty(t, in.Lines(7))
}

func TestLineThatIsTooLong(t *testing.T) {
	t.Parallel()
	in := inbox(t, strings.NewReader(strings.Repeat("z", 4*Most)))
	for range 3 {
		_, _, ok, err := in.Next(0, never)
		assert.False(t, ok)
		assert.ErrorIs(t, err, ErrTooLong)
		assert.Equal(t, strings.Repeat("z", 4<<10), in.Unfinished())
		assert.Less(t, cap(in.pending), 2*Most)
	}
}

func TestNextIsLate(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	in := NewInbox(here, Most, func(string) {}, func(error) {})
	_, _, ok, err := in.Next(0, func() time.Time { return time.Now().Add(10 * time.Millisecond) })
	assert.False(t, ok)
	assert.NoError(t, err)
	_, err = there.Write([]byte("one\nha"))
	require.NoError(t, err)
	line, _, ok, _ := in.Next(0, never)
	assert.True(t, ok)
	assert.Equal(t, "one", line)
	in.Close()
	_, _, ok, err = in.Next(1, never)
	assert.False(t, ok)
	assert.Error(t, err)
	assert.Equal(t, []string{"one"}, in.Lines(0), "the lines stay")
}

// TestWhoReads has calls that read for themselves, that look, that wait for another one, and none.
func TestWhoReads(t *testing.T) {
	t.Parallel()
	from, to, err := os.Pipe()
	require.NoError(t, err)
	_, err = to.WriteString("one\ntw")
	require.NoError(t, err)
	in := NewInbox(from, Most, func(string) {}, func(error) {})
	defer in.Close()
	line, next, ok, _ := in.Next(0, nil)
	assert.True(t, ok, "a look is at what has come while nobody read, too")
	assert.Equal(t, "one", line)
	_, _, ok, err = in.Next(next, nil)
	assert.False(t, ok)
	assert.NoError(t, err)
	got := make(chan string, 2)
	for range 2 { // one of them reads
		go func() {
			line, _, _, _ := in.Next(next, never)
			got <- line
		}()
	}
	_, _, ok, err = in.Next(next, func() time.Time { return time.Now().Add(10 * time.Millisecond) })
	assert.False(t, ok, "it ends when it is late, whoever reads")
	assert.NoError(t, err)
	_, err = to.WriteString("o\nthree\n")
	require.NoError(t, err)
	assert.Equal(t, "two", <-got)
	assert.Equal(t, "two", <-got)
	_, err = to.WriteString("four\n")
	require.NoError(t, err)
	for deadline := never(); in.End() < 4 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	assert.Equal(t, []string{"one", "two", "three", "four"}, in.Lines(0), "it is read though nobody calls")
	to.Close()
	_, _, ok, err = in.Next(4, never)
	assert.False(t, ok)
	assert.ErrorIs(t, err, io.EOF)
}

// TestInboxIsBounded has a pod send without an end: what nobody has seen is never dropped.
func TestInboxIsBounded(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	in := NewInbox(here, Most, func(string) {}, func(error) {})
	const size = 1 << 20
	sent := make(chan int, 1000)
	go func() {
		defer close(sent)
		for i := range 3 * MostKept / size {
			if _, err := there.Write([]byte(strings.Repeat("x", size-1) + "\n")); err != nil {
				return
			}
			sent <- i
		}
		there.Close()
	}()
	kept := func() (n int) {
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.bytes
	}
	awaitFull(in)
	assert.LessOrEqual(t, kept(), MostKept+size+overhead)
	assert.LessOrEqual(t, len(sent), MostKept/size+1, "it is not read any more")
	n, next := 0, 0
	for {
		line, after, ok, err := in.Next(next, never)
		if !ok {
			assert.ErrorIs(t, err, io.EOF)
			break
		}
		assert.Len(t, line, size-1)
		assert.Equal(t, next+1, after, "none is lost")
		n, next = n+1, after
		assert.LessOrEqual(t, kept(), MostKept+size+overhead)
	}
	assert.Equal(t, 3*MostKept/size, n)
	assert.Less(t, len(in.Lines(0)), n, "those that were seen are dropped")
	line, next, ok, _ := in.Next(0, nil)
	assert.True(t, ok && next > 1 && len(line) == size-1, "the first that is kept")
	in.Close()
}

func TestInboxThatIsFullCanBeClosed(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	in := NewInbox(here, Most, func(string) {}, func(error) {})
	go func() {
		for err := error(nil); err == nil; {
			_, err = there.Write([]byte(strings.Repeat("x", 1<<20) + "\n"))
		}
	}()
	awaitFull(in)
	in.Close()
	_, _, ok, err := in.Next(in.End(), never)
	assert.False(t, ok)
	assert.ErrorIs(t, err, io.ErrClosedPipe)
}

func awaitFull(in *Inbox) {
	for full := false; !full; time.Sleep(time.Millisecond) {
		in.mu.Lock()
		full = in.room != nil
		in.mu.Unlock()
	}
}

func TestEvent(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`{"event":"snapshot","data":{}}`:                "snapshot",
		` { "event" : "snapshot" } `:                    "snapshot",
		`{"data":{"event":"hello"},"event":"alert"}`:    "alert",
		`{"\u0065vent":"\u0073napshot"}`:                "snapshot",
		`{"event":"hello","data":{"event":"snapshot"}}`: "hello",
		`{"EVENT":"snapshot"}`:                          "",
		`{"event":["snapshot"]}`:                        "",
		`{"event":null}`:                                "",
		`["event","snapshot"]`:                          "",
		`"event":"snapshot"`:                            "",
		`{"event":"snapshot"`:                           "",
		`{"event":"snapshot"} {}`:                       "",
		`null`:                                          "",
		``:                                              "",
		"{\"event\":\"snapshot\",\"data\":\"\xff not UTF-8\"}": "snapshot",
	} {
		assert.Equal(t, want, Event(line), line)
	}
}
