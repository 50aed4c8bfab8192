package scripts

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// dir returns the directory of the pod.
func (x *prober) dir() string { return filepath.Dir(x.pod.LogPath) }

func (x *prober) pidFile() error {
	text, err := readSmall(filepath.Join(x.dir(), "pid"))
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(text)); got != strconv.Itoa(x.pod.PID) {
		return fmt.Errorf("the file pid holds %s; the number of its process is %d", shown(text), x.pod.PID)
	}
	return nil
}

func (x *prober) statusFile() error {
	text, err := readSmall(filepath.Join(x.dir(), "status.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &map[string]any{}); err != nil {
		return fmt.Errorf("the file status.json holds %s, which is no JSON object: %w", shown(text), err)
	}
	return nil
}

func (x *prober) private() error {
	dir, err := os.Lstat(x.dir())
	if err != nil {
		return err
	}
	socket, err := os.Lstat(x.pod.SocketPath)
	if err != nil {
		return err
	}
	if dir.Mode().Perm()&0o077 != 0 && socket.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others can reach its socket: the directory has the mode %#o, the socket %#o", dir.Mode().Perm(), socket.Mode().Perm())
	}
	return nil
}

// logInPlace looks for a while: it may be moved a moment after the ready line.
func (x *prober) logInPlace() (err error) {
	x.needProcesses()
	x.idle()
	x.settles(500*time.Millisecond, func() bool { err = x.logNow(); return err != nil })
	return err
}

// logNow compares what is at the log's path with what the pod's stderr is.
func (x *prober) logNow() error {
	stderr, err := os.Stat(fmt.Sprintf("/proc/%d/fd/2", x.pod.PID))
	if err != nil {
		x.skipf("stderr of the pod cannot be looked at: %v", err)
	}
	log, err := os.Lstat(x.pod.LogPath)
	switch {
	case err != nil:
		return fmt.Errorf("its log is not in its place: %w", err)
	case !os.SameFile(log, stderr):
		return fmt.Errorf("%s is another file than the one that is its stderr", podlog.LogName)
	}
	for _, fd := range proc.Descriptors(x.pod.PID) {
		if fd.Number > 2 && fd.Flags&syscall.O_APPEND == 0 {
			if info, err := os.Stat(fd.Path()); err == nil && os.SameFile(info, log) {
				return fmt.Errorf("it has opened its log a second time, as descriptor %d, and not for appending", fd.Number)
			}
		}
	}
	return nil
}

// listing returns what is below a directory, and of what a pod does not write by itself when
// another one starts, its content.
func listing(dir string) map[string]string {
	all := map[string]string{}
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		what := info.Mode().String()
		if info.Mode().IsRegular() && filepath.Base(path) != podlog.LogName {
			text, err := readSmall(path)
			what += fmt.Sprintf(" %q %v", text, err)
		}
		name, _ := filepath.Rel(dir, path)
		all[name] = what
		return nil
	})
	return all
}

// readSmall reads a file of a pod: a regular one, and not more than its beginning.
func readSmall(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, cmp.Or(err, fmt.Errorf("%s is no regular file", path))
	}
	text := make([]byte, 64<<10)
	n, err := file.Read(text)
	if n > 0 {
		err = nil
	}
	return text[:n], err
}

// changed tells what differs of two listings; "" = nothing.
func changed(before, after map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(before)) {
		switch now, ok := after[name]; {
		case !ok:
			return name + " is gone"
		case now != before[name]:
			return fmt.Sprintf("%s was %s, and is %s", name, before[name], now)
		}
	}
	return ""
}

// beside starts and stops a pod beside the one under test, and beside one that has ended.
func (x *prober) beside() error {
	run := filepath.Dir(x.dir())
	ended := filepath.Join(run, "ended")
	if err := plant(ended, map[string]string{"pid": "2147483646\n", "status.json": "{}\n", podlog.LogName: "its last words\n", "notes": "hello\n"}); err != nil {
		return fatalError{error: err, kit: true}
	}
	socket, err := net.Listen("unix", filepath.Join(ended, "sock"))
	if err != nil {
		return fatalError{error: err, kit: true}
	}
	socket.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = socket.Close() // and leaves its socket file
	before := listing(run)
	pod, err := x.start("other", asItIs)
	if err != nil {
		return fmt.Errorf("a pod beside it: %w", err)
	}
	if what := changed(before, listing(run)); what != "" {
		return fmt.Errorf("the start of another pod changed what is not its own: %s", what)
	}
	if err := pod.Stop(); err != nil {
		return fmt.Errorf("a pod beside it: %w", err)
	}
	if what := changed(before, listing(run)); what != "" {
		return fmt.Errorf("the stop of another pod changed what is not its own: %s", what)
	}
	return x.serves("beside another pod, which has come and gone")
}

// plant makes files in a directory, which need not exist.
func plant(dir string, files map[string]string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, text := range files {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// tidiesInTime plants what a new pod of the name would make, once the old one must have
// tidied up.
func (x *prober) tidiesInTime() error {
	x.idle()
	if err := syscall.Kill(x.pod.PID, syscall.SIGINT); err != nil {
		return err
	}
	if !x.settles(time.Until(x.end), func() bool {
		conn, err := net.Dial("unix", x.pod.SocketPath)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil && !errors.Is(err, syscall.EAGAIN)
	}) {
		return fmt.Errorf("its socket is still connected to %v after SIGINT", x.timeout)
	}
	const late = 200 * time.Millisecond
	if _, err := x.pod.TryWait(late); err == nil {
		return nil
	}
	if err := plant(x.dir(), map[string]string{"pid": "1\n", "sock": "of the new pod\n", podlog.LogName: "of the new pod\n", "status.json": "{}\n"}); err != nil {
		return fatalError{error: err, kit: true}
	}
	before := listing(x.dir())
	if _, err := x.pod.TryWait(time.Until(x.end)); err != nil {
		return fmt.Errorf("it did not end within %v of SIGINT", x.timeout)
	}
	if what := changed(before, listing(x.dir())); what != "" {
		return fmt.Errorf("more than %v after its socket was closed it touched what a new pod of its name may have made: %s", late, what)
	}
	return nil
}

// litter looks at what a pod has left when it was stopped.
func (x *prober) litter() error {
	root := filepath.Dir(filepath.Dir(x.dir()))
	before := listing(root)
	pod, err := x.start("tidy", asItIs)
	if err != nil {
		return err
	}
	c, err := x.connectTo(pod)
	if err == nil {
		err = c.snapshot()
	}
	if err != nil {
		return err
	}
	_ = c.Close()
	if err := pod.Stop(); err != nil {
		return err
	}
	var left []string
	for name := range listing(root) {
		if before[name] == "" && !strings.HasPrefix(name, "workspace") || before[name] == "" && strings.Count(name, "/") > 0 {
			left = append(left, name)
		}
	}
	slices.Sort(left)
	if len(left) > 0 {
		return fmt.Errorf("it has left %s", podlog.Printable(strings.Join(left, ", ")))
	}
	return nil
}

// plant leaves what an earlier life of a pod may have left.
func (c *call) plant() error {
	files := map[string]string{}
	switch what := c.args[1]; {
	case what == "live-pid":
		files["pid"] = fmt.Sprintln(os.Getpid())
	case strings.HasPrefix(what, "pid-of-"):
		other := c.pods[strings.TrimPrefix(what, "pid-of-")]
		if other == nil {
			return c.usagef("no pod %q was started in this script", what)
		}
		files["pid"] = fmt.Sprintln(other.PID)
	case what == "garbage":
		files = map[string]string{"pid": "\x00garbage\xff", "status.json": "{\"name\":", "sock": "no socket"}
	case what == "empty":
		files = map[string]string{"pid": "", "status.json": ""}
	default:
		return c.usagef("nothing is called %q", what)
	}
	if err := plant(filepath.Join(harness.RuntimeDir(c.tb), c.args[0]), files); err != nil {
		return fatalError{error: err, kit: true}
	}
	return nil
}
