package scripts

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// probes are those of the verb podprobe.
var probes = []probe{
	{"snapshot", (*prober).snapshots},
	{"silent-clients", (*prober).silentClients},
	{"many-connections", (*prober).manyConnections},
	{"merged-lines", (*prober).mergedLines},
	{"split-lines", (*prober).splitLines},
	{"unfinished-line", (*prober).unfinishedLine},
	{"bad-lines", (*prober).badLines},
	{"bad-lines-answered", (*prober).badLinesAnswered},
	{"slow-reader", (*prober).slowReader},
	{"long-line", (*prober).longLine},
	{"pid", (*prober).pidFile},
	{"status", (*prober).statusFile},
	{"private", (*prober).private},
	{"log", (*prober).logInPlace},
	{"descriptors", (*prober).descriptors},
	{"listener", (*prober).listener},
	{"idle", (*prober).idleCost},
	{"growth", (*prober).growth},
	{"beside", (*prober).beside},
	{"tidies-in-time", (*prober).tidiesInTime},
	{"litter", (*prober).litter},
	{"long-name", (*prober).longName},
	{"workspaces", (*prober).workspaces},
	{"profile", (*prober).profile},
	{"one-ready-line", (*prober).oneReadyLine},
	{"busy", (*prober).busy},
	{"stop-merged", stops(false, ping+"\n"+`{"method":"shutdown"}`+"\n")},
	{"stop-split", stops(false, `{"me`, `thod":"shut`, `down"}`, "\n")},
	{"stop-left", stops(true, `{"method":"shutdown"}`+"\n")},
	{"stop-blanks", stops(false, ` { "method" : "shutdown" } `+"\n")},
	{"stop-params", stops(false, `{"method":"shutdown","params":{}}`+"\n")},
	{"stop-order", stops(false, `{"params":null,"id":7,"method":"shutdown"}`+"\n")},
	{"stop-escapes", stops(false, `{"\u006dethod":"shutdow\u006e"}`+"\n")},
}

// snapshots reads it on several connections.
func (x *prober) snapshots() error {
	for i := range 10 {
		c, err := x.greeted()
		if err != nil {
			return fmt.Errorf("on connection %d %w", i+1, err)
		}
		if i%2 == 0 {
			_ = c.Close()
		}
	}
	return nil
}

// room skips the script if the pod may not open so many files.
func (x *prober) room(need int) {
	if n := proc.OpenFiles(x.pod.PID); n > 0 && n < need {
		x.skipf("the pod may open only %d files here (ulimit -n)", n)
	}
}

func (x *prober) silentClients() error {
	const clients = 64
	x.room(clients + 32)
	for i := range clients {
		if _, err := x.connect(); err != nil {
			return fmt.Errorf("with %d silent clients %w", i, err)
		}
	}
	return x.serves("with %d silent clients", clients)
}

func (x *prober) manyConnections() error {
	for i := range 1000 {
		if err := x.visit(); err != nil {
			return fmt.Errorf("on connection %d, each of which left after its snapshot, %w", i+1, err)
		}
	}
	return nil
}

// expect reads so many answers to what was sent.
func (c *connection) expect(answers int, sent string) error {
	for i := range answers {
		if _, err := c.line(); err != nil {
			return fmt.Errorf("%s was sent, and %d of %d answers came: %w", sent, i, answers, err)
		}
	}
	return nil
}

// withAnswers runs a try if the pod answers at all: what else it makes of a line is not
// seen.
func (x *prober) withAnswers(try func(*connection) error) error {
	switch ok, err := x.answers(); {
	case err != nil:
		return err
	case !ok:
		x.skipf("the pod answers no %s", ping)
	}
	c, err := x.greeted()
	if err == nil {
		err = try(c)
	}
	return err
}

func (x *prober) mergedLines() error {
	return x.withAnswers(func(c *connection) error {
		for _, lines := range []int{2, 3, 20} {
			all := strings.Repeat(ping+"\n", lines)
			if err := c.send(all); err != nil {
				return err
			}
			if err := c.expect(lines, "in one write "+shown([]byte(all))); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *prober) splitLines() error {
	return x.withAnswers(func(c *connection) error {
		const accented = `{"method":"ping","params":{"text":"é"}}` + "\n"
		cut := strings.Index(accented, "é") + 1 // within the letter
		for _, parts := range [][]string{
			{`{"me`, `thod":`, `"ping"}`, "\n"},
			{`{"method":"ping"}`, "\n" + `{"method":`, `"ping"}` + "\n"},
			{accented[:cut], accented[cut:]},
		} {
			if err := c.send(parts...); err != nil {
				return err
			}
			if err := c.expect(strings.Count(strings.Join(parts, ""), "\n"), fmt.Sprintf("in %d writes %q", len(parts), parts)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (x *prober) unfinishedLine() error {
	const line = `{"method":"shutdown"}` // without its newline
	x.idle()
	for _, text := range []string{line, `{"meth`} {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(text); err != nil {
			return err
		}
		_ = c.Close()
		if how := x.fate(x.pod); how != "" {
			return fmt.Errorf("a client sent %s without a newline, and left%s", shown([]byte(text)), how)
		}
		if err := x.serves("after a client that sent %s without a newline, and left", shown([]byte(text))); err != nil {
			return err
		}
	}
	return nil
}

// notRequests are lines that are no request of a known method. An empty one is the first.
var notRequests = []string{
	"", "not JSON", "{", `{"method":"ping"`, `"ping"`, "[1,2]", "17", "null", "true", "{}", `{"method":17}`, `{"method":null}`,
	`{"method":"no-such-method"}`, `{"method":"no-such-method","params":[1]}`, "\xff\xfe", `{"method":"\xff"}`, `{"method":"p` + "\x00" + `"}`,
	"\x00", "\t", " ", "\r", "GET / HTTP/1.1\r",
}

// deepLines are no requests either, and deeper than most parsers go.
var deepLines = []string{strings.Repeat("[", 3000), strings.Repeat(`{"a":`, 3000), strings.Repeat("[", 100000)}

func (x *prober) badLines() error {
	witness, err := x.greeted()
	if err != nil {
		return err
	}
	for _, line := range slices.Concat(notRequests, deepLines) {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(line + "\n"); err != nil {
			return err
		}
		if err := x.serves("after the line %s", shown([]byte(line))); err != nil {
			return err
		}
		_ = c.Close()
		if _, err := witness.lineWithin(time.Millisecond); err != nil && !errors.Is(err, errNoLine) {
			return fmt.Errorf("after the line %s of another client: %w", shown([]byte(line)), err)
		}
	}
	return nil
}

func (x *prober) badLinesAnswered() error {
	for _, line := range notRequests {
		if strings.TrimSpace(line) == "" {
			continue
		}
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(line + "\n"); err != nil {
			return err
		}
		answer, err := c.lineWithin(2 * time.Second)
		if err != nil {
			return fmt.Errorf("the line %s was not answered: %w", shown([]byte(line)), err)
		}
		if m, err := parseMessage(answer); err != nil {
			return fmt.Errorf("the line %s was answered by %s: %w", shown([]byte(line)), shown(answer), err)
		} else if !strings.Contains(strings.ToLower(m.Event), "error") {
			return fmt.Errorf("the line %s was answered by %s, which is no error", shown([]byte(line)), shown(answer))
		}
		_ = c.Close()
	}
	return nil
}

// slowReader has a client write until nobody takes more of it, and read nothing.
func (x *prober) slowReader() error {
	other, err := x.greeted()
	if err != nil {
		return err
	}
	c, err := x.connect()
	if err != nil {
		return err
	}
	lines := []byte(strings.Repeat(ping+"\n", 1000))
	sent := 0
	for range 20 {
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := c.Write(lines)
		sent += n
		if err != nil {
			break
		}
	}
	const after = "while a client that has sent %d bytes of requests reads nothing"
	if err := x.serves(after, sent); err != nil {
		return err
	}
	if ok, err := x.answers(); err != nil {
		return fmt.Errorf(after+": %w", sent, err)
	} else if ok {
		if err := other.send(ping + "\n"); err != nil {
			return err
		}
		if err := other.expect(1, fmt.Sprintf(after+", "+ping, sent)); err != nil {
			return err
		}
	}
	_ = c.Close()
	return x.serves("after a client has left that had sent %d bytes of requests and read nothing", sent)
}

func (x *prober) longLine() error {
	c, err := x.greeted()
	if err != nil {
		return err
	}
	line := `{"method":"ping","params":{"text":"` + strings.Repeat("x", 1<<20) + "\"}}\n"
	for _, half := range []string{line[:len(line)/2], line[len(line)/2:]} {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, half) // the pod may have had enough of it
		if err := x.serves("in the middle of a line of 1 MiB, or at its end"); err != nil {
			return err
		}
	}
	_ = c.Close()
	return x.serves("after a line of 1 MiB")
}

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

func (x *prober) needProcesses() {
	if !proc.Proves {
		x.skipf("this system does not show what processes have open")
	}
}

// settles waits until a condition holds.
func (x *prober) settles(d time.Duration, holds func() bool) bool {
	for end := time.Now().Add(d); ; <-time.After(20 * time.Millisecond) { // nothing tells of it
		if holds() {
			return true
		}
		if time.Now().After(end) || time.Now().After(x.end) {
			return false
		}
	}
}

const visits = 150

func (x *prober) visitOften() error {
	for range visits {
		if err := x.visit(); err != nil {
			return err
		}
	}
	return nil
}

func (x *prober) descriptors() error {
	x.needProcesses()
	if err := x.serves("at first"); err != nil {
		return err
	}
	before := len(proc.Descriptors(x.pod.PID))
	if before == 0 {
		x.skipf("the descriptors of the pod cannot be looked at")
	}
	if err := x.visitOften(); err != nil {
		return err
	}
	const spare = 16
	now := 0
	if !x.settles(2*time.Second, func() bool { now = len(proc.Descriptors(x.pod.PID)); return now <= before+spare }) {
		return fmt.Errorf("it had %d descriptors open, and has %d after %d connections that have ended", before, now, visits)
	}
	return nil
}

// listener looks for other processes that hold the pod's listening socket.
func (x *prober) listener() error {
	x.needProcesses()
	if err := x.serves("at first"); err != nil {
		return err
	}
	var others []string
	for _, pid := range proc.Holders(x.pod.SocketPath) {
		if pid != x.pod.PID {
			others = append(others, fmt.Sprintf("process %d (%s)", pid, podlog.Printable(proc.Status(pid, "Name"))))
		}
	}
	if len(others) > 0 {
		return fmt.Errorf("its listening socket is open in %s, too: clients connect there when the pod has ended", strings.Join(others, ", "))
	}
	return nil
}

func (x *prober) idleCost() error {
	x.needProcesses()
	x.idle()
	const window, busy, most = time.Second, 5, 1024
	var cpu time.Duration
	var logged int64
	for range 3 { // it may have something to do at first
		size, used := x.pod.LogEnd(), proc.CPUTime(x.pod.PID)
		select {
		case <-time.After(window):
		case <-x.pod.Done():
			return errors.New("it has ended: " + end(x.pod))
		}
		_ = x.pod.Log()
		cpu, logged = proc.CPUTime(x.pod.PID)-used, x.pod.LogEnd()-size
		if cpu*100 < window*busy && logged < most {
			return nil
		}
	}
	return fmt.Errorf("idle, it used %v of CPU time and logged %d bytes in %v", cpu, logged, window)
}

func (x *prober) growth() error {
	x.needProcesses()
	memory := func() int {
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(proc.Status(x.pod.PID, "VmRSS")), " kB"))
		return kib
	}
	if err := x.serves("at first"); err != nil {
		return err
	}
	before := memory()
	if before == 0 {
		x.skipf("the memory of the pod cannot be looked at")
	}
	if err := x.visitOften(); err != nil {
		return err
	}
	const most = 40 << 10
	if now := memory(); now > before+most {
		return fmt.Errorf("its memory has grown from %d to %d MiB in %d connections", before>>10, now>>10, visits)
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

// longName tries the longest name with which the socket's path fits, and one that is longer.
func (x *prober) longName() error {
	if !proc.Proves {
		x.skipf("this system connects to no path that is longer than a socket address")
	}
	fits := len(syscall.RawSockaddrUnix{}.Path) - 1 - len("/sock") - len(filepath.Dir(x.dir())+"/")
	if fits < 1 {
		x.skipf("the runtime directory %s is too long to try this", filepath.Dir(x.dir()))
	}
	for name, mayRefuse := range map[string]bool{strings.Repeat("n", fits): false, strings.Repeat("n", fits+1): true, strings.Repeat("n", 200): true} {
		pod, err := x.start(name, asItIs)
		var start *spawn.Error
		switch {
		case err == nil:
			c, err := x.connectTo(pod)
			if err == nil {
				err = c.snapshot()
			}
			if err != nil {
				return fmt.Errorf("with a name of %d bytes: %w", len(name), err)
			}
		case !errors.As(err, &start) || !mayRefuse:
			return fmt.Errorf("with a name of %d bytes, with which the path of its socket has %d: %w", len(name), len(filepath.Dir(x.dir()))+len(name)+len("//sock")-1, err)
		case !errors.Is(err, spawn.ErrExited) || start.Status == "exit status 0" || len(start.Tail) == 0 && start.Unfinished == "":
			return fmt.Errorf("with a name of %d bytes, which is too long for its socket, it must end with a status other than 0 and a word of why: %w", len(name), err)
		}
	}
	return nil
}

// workspaces have names that are odd, and right.
func (x *prober) workspaces() error {
	for i, name := range []string{"two  blanks", " at its ends ", "new\nline", "-dash", "Capitals", "caf\u00e9", "cafe\u0301", `quote'"$HOME`} {
		dir := filepath.Join(x.ts.MkAbs("."), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fatalError{error: err, kit: true}
		}
		pod, err := x.start(fmt.Sprint("w", i), func(cfg *harness.Config) {
			if cfg.WorkspaceFrom != nil {
				if err := os.CopyFS(dir, cfg.WorkspaceFrom); err != nil {
					x.skipf("the workspace cannot be copied: %v", err)
				}
			}
			cfg.Workspace, cfg.WorkspaceFrom = dir, nil
		})
		if err != nil {
			return fmt.Errorf("with the workspace %q: %w", name, err)
		}
		_ = pod.Kill()
	}
	return nil
}

// profile tells a profile that the pod does not have from a flag that it does not know.
func (x *prober) profile() error {
	said := map[string]string{}
	for i, flag := range []string{"--profile", "--no-such-flag"} {
		pod, err := x.start(fmt.Sprint("p", i), func(cfg *harness.Config) {
			cfg.Profile, cfg.ExtraArgs = "", append(slices.Clone(cfg.ExtraArgs), flag, "default")
		})
		if err == nil {
			_ = pod.Kill()
			return nil // it takes both, which another requirement is about, or knows the first
		}
		var start *spawn.Error
		if !errors.As(err, &start) {
			return err
		}
		said[flag] = strings.ReplaceAll(start.Status+strings.Join(start.Tail, "\n")+start.Unfinished, strings.TrimLeft(flag, "-"), "FLAG")
	}
	if said["--profile"] == said["--no-such-flag"] {
		return fmt.Errorf("it says the same of --profile as of a flag that it does not know: %s", shown([]byte(said["--profile"])))
	}
	return nil
}

// oneReadyLine visits the pod, has it reload, and counts its ready lines.
func (x *prober) oneReadyLine() error {
	for range 12 {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		_ = c.send(ping + "\n")
		_, _ = c.lineWithin(100 * time.Millisecond)
		_ = c.Close()
	}
	if err := syscall.Kill(x.pod.PID, syscall.SIGHUP); err == nil {
		if _, err := x.pod.TryWait(200 * time.Millisecond); err != nil {
			_ = x.pod.Kill() // it may end of the signal, and later than that
		}
	}
	log := []byte("\n" + x.pod.Log())
	if n := bytes.Count(log, []byte("\nYOI-READY\t")); n > 1 {
		second := log[bytes.LastIndex(log, []byte("\nYOI-READY\t"))+1:]
		second, _, _ = bytes.Cut(second, []byte("\n"))
		return fmt.Errorf("it wrote %d ready lines; the last one is %s", n, shown(second))
	}
	return nil
}

// busy sends the request that takes a while.
func (x *prober) busy() error {
	c, err := x.greeted()
	if err != nil {
		return err
	}
	x.conns = nil // it stays
	x.tb.Cleanup(func() { _ = c.Close() })
	if err := c.send(x.options.Busy + "\n"); err != nil {
		return err
	}
	if line, err := c.lineWithin(200 * time.Millisecond); err == nil {
		x.skipf("-busy %s was answered at once: %s", x.options.Busy, shown(line))
	}
	return nil
}

// stops returns a probe that stops the pod by a text in parts.
func stops(leaves bool, parts ...string) func(*prober) error {
	return func(x *prober) error {
		c, err := x.greeted()
		if err != nil {
			return err
		}
		if err := c.send(parts...); err != nil {
			return err
		}
		sent := fmt.Sprintf("in one write %q", parts[0])
		if len(parts) > 1 {
			sent = fmt.Sprintf("in %d writes %q", len(parts), parts)
		}
		if leaves {
			_ = c.Conn.(*net.UnixConn).CloseWrite()
			sent += ", by a client that sends nothing more"
		}
		grace := cmp.Or(x.options.Pod.StopGrace, sandbox.StopGrace)
		switch state, err := x.pod.TryWait(min(grace, time.Until(x.end))); {
		case err != nil:
			return fmt.Errorf("%s was sent, and the pod did not stop within %v", sent, grace)
		case state != nil && !state.Success():
			return fmt.Errorf("%s was sent, and the pod ended with %v", sent, state)
		}
		return nil
	}
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
