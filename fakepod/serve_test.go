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
	for _, bad := range []string{"", "{", "[]", `"ping"`, `{"method":3}`, "\xff", "{}", "null", `{"method":"Ping"}`} {
		assert.True(t, strings.HasPrefix(c.ask(bad), `{"event":"error","data":{"message":"`), "%q", bad)
	}
	assert.Equal(t, `{"event":"pong"}`, c.ask(`{"method":"ping"}`), "the connection goes on")

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
	assert.Equal(t, `{"event":"pong"}`, c.ask(padded(1<<20)))
	_, _ = io.WriteString(c.conn, padded(1<<20+1)+"\n") // it may hang up before the end
	answer, err := c.lines.ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, `{"event":"error","data":{"message":"a request line is longer than 1048576 bytes"}}`+"\n", answer)
	_, err = c.lines.ReadByte()
	assertEnded(t, err)
	assert.Equal(t, `{"event":"pong"}`, r.client().ask(`{"method":"ping"}`), "the pod goes on")
}

func TestLastRequestOfAClientThatHalfCloses(t *testing.T) {
	t.Parallel()
	r := launch(t, "ready")
	r.line()
	for request, want := range map[string]string{
		`{"method":"ping"}`:               `{"event":"pong"}`,
		strings.Repeat("x", 1<<20):        `{"event":"error","data":{"message":"a request line is longer than 1048576 bytes"}}`,
		strings.Repeat(" ", 1<<20-1):      `{"event":"error","data":{"message":"a request is a line {\"method\":\"…\",\"params\":…}: unexpected end of JSON input"}}`,
		strings.Repeat("x", 1<<20) + "\n": `{"event":"error","data":{"message":"a request line is longer than 1048576 bytes"}}`,
	} {
		c := r.client()
		_, err := io.WriteString(c.conn, request)
		require.NoError(t, err)
		require.NoError(t, c.conn.CloseWrite())
		assert.Equal(t, want, c.answer())
		_, err = c.lines.ReadByte()
		assertEnded(t, err)
	}
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
