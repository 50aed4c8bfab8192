package fakepod_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for anything.
const patience = 10 * time.Second

// tempDir is a directory whose path leaves room for a socket's.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fp")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// running is a fake pod alpha that was started without the handshake.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string // the pod directory
	lines  *bufio.Reader
	exited chan struct{}
}

// launch starts a fake pod in a group of its own, with its stderr in a pipe.
func launch(t *testing.T, program string, more ...string) *running {
	t.Helper()
	return launchIn(t, tempDir(t), program, more...)
}

// launchIn is launch in a runtime directory.
func launchIn(t *testing.T, root, program string, more ...string) *running {
	t.Helper()
	return launchAs(t, root, "alpha", program, nil, append([]string{"--workspace", root}, more...)...)
}

// launchAs is launchIn for a pod of any name and workspace, with more in its environment.
func launchAs(t *testing.T, root, pod, program string, env []string, more ...string) *running {
	t.Helper()
	name, args := fakepod.Command(program)
	return launchCommand(t, root, pod, name, args, env, more...)
}

// launchCommand is launchAs for another command.
func launchCommand(t *testing.T, root, pod, name string, args, env []string, more ...string) *running {
	t.Helper()
	cmd := exec.Command(name, append(append(args, "--pod", pod), more...)...)
	cmd.Env = append([]string{"YOI_RUNTIME_DIR=" + root}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { stderr.Close() })
	require.NoError(t, stderr.SetReadDeadline(time.Now().Add(patience)))
	cmd.Stderr = w
	err = cmd.Start()
	w.Close()
	require.NoError(t, err)
	r := &running{t, cmd, filepath.Join(root, pod), bufio.NewReaderSize(stderr, 1<<16), make(chan struct{})}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-r.exited
		for end := time.Now().Add(patience); time.Now().Before(end); {
			killMarked(cmd.Env[0])
			_ = stderr.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			if _, err := io.Copy(io.Discard, stderr); err == nil {
				return // nobody holds it, so that nobody is left
			}
		}
		t.Error("a process of the pod is left")
	})
	go func() {
		_ = cmd.Wait()
		close(r.exited)
	}()
	return r
}

// killMarked kills the processes with an entry in their environment, since those
// that left the pod's group are not found otherwise: Linux tells which they are.
func killMarked(entry string) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		if env, _ := os.ReadFile(file); strings.Contains("\x00"+string(env), "\x00"+entry+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// line returns the next line of stderr, with its newline.
func (r *running) line() string {
	r.t.Helper()
	line, err := r.lines.ReadString('\n')
	require.NoError(r.t, err, "a line of stderr, after %q", line)
	return line
}

// bytes returns the next n bytes of stderr.
func (r *running) bytes(n int) string {
	r.t.Helper()
	text := make([]byte, n)
	_, err := io.ReadFull(r.lines, text)
	require.NoError(r.t, err, "%d bytes of stderr, so far %q", n, text)
	return string(text)
}

// rest returns what else it writes until nobody holds its stderr.
func (r *running) rest() string {
	r.t.Helper()
	all, err := io.ReadAll(r.lines)
	require.NoError(r.t, err, "the end of stderr, so far %q", all)
	return string(all)
}

// pid returns the process whose number is the next line of stderr.
func (r *running) pid() int {
	r.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(r.line()))
	require.NoError(r.t, err)
	return pid
}

// end returns how the process ended.
func (r *running) end() syscall.WaitStatus {
	r.t.Helper()
	select {
	case <-r.exited:
	case <-time.After(patience):
		require.Fail(r.t, "the pod has not ended", "after %v", patience)
	}
	return r.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// wait returns how the process ended, in words.
func (r *running) wait() string {
	r.t.Helper()
	r.end()
	return r.cmd.ProcessState.String()
}

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	require.NoError(r.t, syscall.Kill(-r.cmd.Process.Pid, sig))
}

func (r *running) ready() string {
	return "YOI-READY\talpha\t" + filepath.Join(r.dir, "sock") + "\n"
}

// client is a connection to a fake pod's socket.
type client struct {
	t     *testing.T
	conn  *net.UnixConn
	lines *bufio.Reader
}

// client connects to the socket and reads the snapshot.
func (r *running) client() *client {
	r.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(r.dir, "sock"), Net: "unix"})
	require.NoError(r.t, err)
	r.t.Cleanup(func() { conn.Close() })
	require.NoError(r.t, conn.SetDeadline(time.Now().Add(patience)))
	c := &client{r.t, conn, bufio.NewReader(conn)}
	require.Contains(r.t, c.answer(), `"event":"snapshot"`)
	return c
}

func (c *client) answer() string {
	c.t.Helper()
	answer, err := c.lines.ReadString('\n')
	require.NoError(c.t, err, "an answer, after %q", answer)
	return strings.TrimSuffix(answer, "\n")
}

func (c *client) ask(request string) string {
	c.t.Helper()
	_, err := io.WriteString(c.conn, request+"\n")
	require.NoError(c.t, err)
	return c.answer()
}

// run runs the fake pod to its end with any arguments.
func run(t *testing.T, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	name, prefix := fakepod.Command("exit 0")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, append(prefix[:1], args...)...)
	cmd.Env = env
	cmd.WaitDelay = time.Second
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	require.NoError(t, ctx.Err(), "%q has not ended", args)
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
