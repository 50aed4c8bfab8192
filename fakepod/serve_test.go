package fakepod_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// assertEnded is about the error of a connection that was read.
func assertEnded(t *testing.T, err error) {
	t.Helper()
	assert.Error(t, err, "the connection goes on")
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the connection has not ended")
}

func TestSnapshotComesFirst(t *testing.T) {
	t.Parallel()
	root := tempDir(t)
	for _, tc := range []struct {
		extra []string
		want  map[string]any
	}{
		{nil, nil},
		{[]string{"--profile", "p", "--ticket-role", "r"}, map[string]any{"profile": "p", "ticket_role": "r"}},
		{[]string{"--session", "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11"}, map[string]any{"session": "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11"}},
	} {
		r := launchIn(t, root, "ready", tc.extra...)
		assert.Equal(t, r.ready(), r.line())
		conn, err := net.Dial("unix", filepath.Join(r.dir, "sock"))
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		var snapshot struct {
			Event string
			Data  map[string]any
		}
		require.NoError(t, json.NewDecoder(conn).Decode(&snapshot))
		assert.Equal(t, "snapshot", snapshot.Event)
		here, err := os.Getwd()
		require.NoError(t, err)
		want := map[string]any{
			"name": "alpha", "pid": float64(r.cmd.Process.Pid), "workspace": root, "dir": here, "state": "ready",
			"started": snapshot.Data["started"],
		}
		for name, value := range tc.want {
			want[name] = value
		}
		assert.Equal(t, want, snapshot.Data)
		_, err = time.Parse(time.RFC3339Nano, snapshot.Data["started"].(string))
		require.NoError(t, err)

		var kept map[string]any
		text, err := os.ReadFile(filepath.Join(r.dir, "status.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &kept))
		assert.Equal(t, want, kept, "status.json is the same")
	}
}

func TestRunOverTheSocket(t *testing.T) {
	t.Parallel()
	r := launch(t, "bind; log bound; serve")
	assert.Equal(t, "bound\n", r.line())
	c, other := r.client(), r.client()
	assert.Contains(t, c.ask(`{"method":"status"}`), `"state":"starting"`)
	assert.Equal(t, `{"event":"done"}`, c.ask(`{"method":"run","params":{"program":"log one; ready"}}`))
	assert.Equal(t, "one\n", r.line())
	assert.Equal(t, r.ready(), r.line())
	assert.Contains(t, other.ask(`{"method":"status"}`), `"state":"ready"`)
	assert.Equal(t, `{"event":"error","data":{"message":"bind: there is a socket already"}}`, c.ask(`{"method":"run","params":{"program":"bind"}}`))
	assert.Contains(t, c.ask(`{"method":"run"}`), `"event":"error"`)

	_, err := io.WriteString(c.conn, `{"method":"run","params":{"program":"log 'last words'; exit 3"}}`+"\n")
	require.NoError(t, err)
	assert.Equal(t, "last words\n", r.rest())
	assert.Equal(t, "exit status 3", r.wait())
	_, err = c.lines.ReadString('\n')
	assertEnded(t, err)
	assert.FileExists(t, filepath.Join(r.dir, "sock"), "it left everything")
}

func TestRequests(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	c := r.client()
	assert.Equal(t, `{"event":"pong","data":null}`, c.ask(`{"method":"ping","params":null}`))
	assert.Equal(t, `{"event":"echo","data":[1,{"b":2}]}`, c.ask(`{"params": [1, {"b": 2}], "method": "echo"}`))
	assert.Equal(t, `{"event":"env","data":{"YOI_RUNTIME_DIR":"`+filepath.Dir(r.dir)+`"}}`, c.ask(`{"method":"env"}`))
	assert.Equal(t, `{"event":"error","data":{"message":"a request is a line {\"method\":\"…\",\"params\":…}: invalid character 'p' looking for beginning of value"}}`, c.ask("ping"))
	for _, bad := range []string{"{", "[]", `"ping"`, `{"method":3}`, "\xff", "{}", "null", " ", `{"method":"Ping"}`, `{"Method":"ping"}`, `{"method":"ping","x":"` + "\xff" + `"}`,
		`{"method":"ping"} x`, `{"method":"ping"}{"method":"ping"}`, strings.Repeat("[", 20_000), `{"method":"` + strings.Repeat("x", 1<<20) + `"}`} {
		answer := c.ask(bad)
		assert.True(t, strings.HasPrefix(answer, `{"event":"error","data":{"message":"`), "%.100q: %.100q", bad, answer)
		assert.Less(t, len(answer), 1000, "%.100q", bad)
	}
	for _, good := range []string{"\n\r\n\n" + `{"method":"ping"}`, ` { "method" :` + "\t" + `"ping" } `, `{"method":"ping"}` + "\r", `{"m":1,"params":{},"method":"p\u0069ng"}`} {
		assert.True(t, strings.HasPrefix(c.ask(good), `{"event":"pong"`), "%q: an empty line has no answer", good)
	}

	if fds := c.ask(`{"method":"fds"}`); runtime.GOOS == "linux" {
		var got struct{ Data map[string]string }
		require.NoError(t, json.Unmarshal([]byte(fds), &got))
		assert.Equal(t, "/dev/null", got.Data["0"])
		assert.Equal(t, "/dev/null", got.Data["1"])
		assert.True(t, strings.HasPrefix(got.Data["2"], "pipe:"), fds)
		for fd, what := range got.Data {
			assert.NotContains(t, what, "socket:", "%s is its own", fd)
		}
	}
}

func TestLongRequests(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	padded := func(size int) string {
		head, tail := `{"method":"ping","x":"`, `"}`
		return head + strings.Repeat("x", size-1-len(head)-len(tail)) + tail // and a newline
	}
	c := r.client()
	assert.Equal(t, `{"event":"pong"}`, c.ask(padded(2<<20)))
	_, _ = io.WriteString(c.conn, padded(2<<20+1)+"\n") // it may hang up before the end
	answer, err := c.lines.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, `{"event":"error","data":{"message":"a request line is longer than 2097152 bytes"}}`+"\n", answer)
	_, err = c.lines.ReadByte()
	assertEnded(t, err)
	assert.Equal(t, `{"event":"pong"}`, r.client().ask(`{"method":"ping"}`), "the pod goes on")
}

// write writes to the socket in pieces, and waits between them until the pod has read each.
func (c *client) write(pieces ...string) {
	c.t.Helper()
	for i, piece := range pieces {
		if i > 0 {
			<-time.After(5 * time.Millisecond)
		}
		_, err := io.WriteString(c.conn, piece)
		require.NoError(c.t, err)
	}
}

func TestLinesAreLinesHoweverTheirBytesArrive(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	c := r.client()
	c.write(`{"method":"ping"}` + "\n" + `{"method":"echo"}` + "\n")
	assert.Equal(t, `{"event":"pong"}`, c.answer())
	assert.Equal(t, `{"event":"echo"}`, c.answer())
	c.write("{", `"meth`, `od":"ping"}`, "\n")
	assert.Equal(t, `{"event":"pong"}`, c.answer())

	// A client that leaves at once gets no answer, and its lines count.
	conn, err := net.Dial("unix", filepath.Join(r.dir, "sock"))
	require.NoError(t, err)
	_, err = io.WriteString(conn, `{"method":"ping"}`+"\n"+`{"method":"run","params":{"program":"log one"}}`+"\n"+`{"method":"run","params":{"program":"log two"}}`+"\n"+`{"method":"shutdown"}`)
	require.NoError(t, err)
	conn.Close()
	assert.Equal(t, "one\n", r.line())
	assert.Equal(t, "two\n", r.line())
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`), "the line that was never finished is dropped")
	for _, unfinished := range []string{`{"method":"shutdown"}`, strings.Repeat("x", 1<<20)} {
		c := r.client()
		c.write(unfinished)
		require.NoError(t, c.conn.CloseWrite())
		_, err := c.lines.ReadByte()
		assert.ErrorIs(t, err, io.EOF, "%.40q", unfinished)
	}
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`))
}

// deafen has a client write until the pod does not read on, and read nothing.
func (c *client) deafen() {
	c.t.Helper()
	require.NoError(c.t, c.conn.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
	line := `{"method":"echo","params":"` + strings.Repeat("x", 4096) + `"}` + "\n"
	for range 10_000 {
		if _, err := io.WriteString(c.conn, line); err != nil {
			assert.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
			return
		}
	}
	require.Fail(c.t, "the pod keeps all answers to a client that reads none")
}

func TestClientThatDoesNotReadHoldsUpNobody(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	deaf, c, other := r.client(), r.client(), r.client()
	deaf.deafen()
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`))
	c.write(`{"method":"run","params":{"program":"event 1; event 2"}}` + "\n")
	assert.Equal(t, "1", other.answer())
	assert.Equal(t, `{"event":"pong"}`, r.client().pingAfter("1"), "it greets others, too")
	assert.Equal(t, "2", other.answer())
	assert.Equal(t, []string{"1", "2", `{"event":"done"}`}, []string{c.answer(), c.answer(), c.answer()})
	_, err := io.Copy(io.Discard, deaf.conn)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "one that holds up what is sent to all is dropped")
	assert.Equal(t, `{"event":"shutdown"}`, c.ask(`{"method":"shutdown"}`))
	assert.Equal(t, "exit status 0", r.wait())
}

// pingAfter asks when some lines have come.
func (c *client) pingAfter(lines ...string) (answer string) {
	c.t.Helper()
	for _, line := range lines {
		require.Equal(c.t, line, c.answer())
	}
	c.write(`{"method":"ping"}` + "\n")
	for answer = c.answer(); answer == "2"; {
		answer = c.answer()
	}
	return answer
}

func TestSlowReaderGetsAllItsAnswers(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	c := r.client()
	go func() { // it writes more than the system holds, and reads later
		for i := range 1000 {
			_, _ = fmt.Fprintf(c.conn, `{"method":"echo","params":["%d","%s"]}`+"\n", i, strings.Repeat("x", 2000))
		}
	}()
	other := r.client()
	for range 10 {
		assert.Equal(t, `{"event":"pong"}`, other.ask(`{"method":"ping"}`))
		<-time.After(10 * time.Millisecond)
	}
	for i := range 1000 {
		require.True(t, strings.HasPrefix(c.answer(), fmt.Sprintf(`{"event":"echo","data":["%d",`, i)), i)
	}
}

func TestStopWhileARequestRuns(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"signal", "shutdown"} {
		r := launch(t, "ready")
		r.line()
		busy, c := r.client(), r.client()
		busy.write(`{"method":"run","params":{"program":"log busy; sleep 1h"}}` + "\n")
		assert.Equal(t, "busy\n", r.line())
		assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`))
		if how == "signal" {
			r.signal(syscall.SIGINT)
		} else {
			c.write(`{"method":"shutdown"}` + "\n")
		}
		assert.Equal(t, "exit status 0", r.wait(), how)
		assert.NoDirExists(t, r.dir)
		assert.Empty(t, r.rest())
	}
}

func TestManyConnections(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	fds := func() int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.cmd.Process.Pid))
		if err != nil {
			return 0
		}
		return len(entries)
	}
	c := r.client()
	before := fds()
	var silent []*client
	for range 64 {
		silent = append(silent, r.client())
	}
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`))
	for range 1000 {
		r.client().conn.Close()
	}
	for _, s := range silent {
		assert.Equal(t, `{"event":"pong"}`, s.ask(`{"method":"ping"}`))
		s.conn.Close()
	}
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`))
	require.Eventually(t, func() bool { return fds() <= before }, patience, 5*time.Millisecond, "it keeps descriptors of connections that have ended")
}

func TestStatusThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pid", "status.json"} {
		root := tempDir(t)
		require.NoError(t, os.MkdirAll(filepath.Join(root, "alpha", name, "in the way"), 0o700))
		r := launchIn(t, root, "log started; hang")
		assert.Equal(t, fmt.Sprintf("fakepod: rename %s.tmp %[1]s: file exists\n", filepath.Join(r.dir, name)), r.rest())
		assert.Equal(t, "exit status 1", r.wait())
	}
	r := launch(t, "bind; log bound; serve")
	r.line()
	status := filepath.Join(r.dir, "status.json")
	require.NoError(t, os.Remove(status))
	require.NoError(t, os.Mkdir(status, 0o700))
	assert.Equal(t, fmt.Sprintf(`{"event":"error","data":{"message":"ready: rename %s.tmp %[1]s: file exists"}}`, status),
		r.client().ask(`{"method":"run","params":{"program":"ready;"}}`))
	r.signal(syscall.SIGINT)
	assert.Empty(t, r.rest(), "it announced nothing")
}

func TestShutdownWithOtherConnections(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	idle, c := r.client(), r.client()
	assert.Equal(t, `{"event":"shutdown"}`, c.ask(`{"method":"shutdown","params":{"why":"test"}}`))
	_, err := idle.lines.ReadByte()
	assertEnded(t, err)
	assert.Equal(t, "exit status 0", r.wait())
	assert.Empty(t, r.rest())
	assert.NoDirExists(t, r.dir)
	assert.DirExists(t, filepath.Dir(r.dir))
}
