package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/scripts"
	"github.com/stretchr/testify/assert"
)

// asWrongPod is the environment variable that makes this binary a pod that is right but
// for the fault that it names.
const asWrongPod = "TEST_AS_WRONG_POD"

// wrongPods has for each requirement faults that break it.
var wrongPods = map[string][]string{
	"starts":             {"no-ready"},
	"arguments":          {"any-flag"},
	"flags":              {"no-ticket-role", "no-profile"},
	"ready-line":         {"ready-at-5th", "ready-at-hup", "ready-twice"},
	"ready-write":        {"ready-in-pieces"},
	"runtime-dir":        {"only-runtime-dir"},
	"announces-last":     {"early"},
	"names":              {"ascii-name", "lower-name", "trimmed-name"},
	"name-dash":          {"dash-name"},
	"name-long":          {"wrong-path", "silent-long"},
	"workspaces":         {"blank-workspace", "newline-workspace"},
	"surroundings":       {"needs-home", "needs-workspace-dir", "needs-locale"},
	"snapshot":           {"bad-snapshot", "no-data", "snapshot-once"},
	"socket":             {"dies-of-a-leaver"},
	"concurrent":         {"eight-at-most"},
	"connections":        {"dies-at-400th"},
	"merged-lines":       {"first-line-only"},
	"split-lines":        {"read-is-line"},
	"unfinished-line":    {"obeys-unfinished"},
	"bad-lines":          {"dies-of-bad-json", "dies-of-empty", "dies-of-no-object", "closes-all"},
	"bad-lines-answered": {"silent-error"},
	"slow-reader":        {"one-lock"},
	"long-line":          {"lock-while-reading"},
	"files":              {"no-pid", "wrong-pid", "no-status"},
	"private":            {"open-to-all"},
	"log-in-place":       {"unlinks-log", "renames-log", "opens-log"},
	"descriptors":        {"leaks-descriptors"},
	"listener":           {"child-listens"},
	"stop-signal":        {"status-1"},
	"stop-at-once":       {"late-handler"},
	"stop-connected":     {"waits-for-clients"},
	"stop-busy":          {"finishes-first"},
	"stop-request":       {"no-shutdown"},
	"stop-lines":         {"first-line-only", "read-is-line"},
	"stop-spelling":      {"exact-shutdown", "needs-params"},
	"clean-stop":         {"keeps-directory"},
	"tidies-in-time":     {"tidies-late"},
	"no-children":        {"leaves-child"},
	"restart":            {"live-pid", "chokes-on-garbage", "keeps-socket"},
	"restart-after-stop": {"once-only"},
	"session":            {"no-session"},
	"session-unknown":    {"any-session"},
	"beside":             {"removes-sockets", "removes-dirs"},
	"independent":        {"watches-parent"},
	"terminate":          {"ignores-term"},
	"idle":               {"spins", "chatters"},
	"growth":             {"grows"},
	"litter":             {"litters"},
}

// storedSession is one that the wrong pod has stored.
const storedSession = "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11"

func wrongFlags(fault, requirement string) []string {
	return []string{"-pod", os.Args[0], "-env", asWrongPod + "=" + fault, "-strict", "-grace", "2s", "-ready-timeout", "3s",
		"-session", storedSession, "-busy", `{"method":"run"}`, "-run", "^(" + requirement + ")$"}
}

// TestEachRequirementFindsItsWrongPods has at least one for each, and none for a right pod.
func TestEachRequirementFindsItsWrongPods(t *testing.T) {
	t.Parallel()
	if !findsProcesses {
		t.Skip("some faults are seen on Linux only")
	}
	stdout, stderr, status := podscript(t, append(wrongFlags("none", "x"), "-run", ".")...)
	assert.Zero(t, status, "%s%s", stdout, stderr)
	for _, r := range scripts.Requirements() {
		assert.NotEmpty(t, wrongPods[r.ID], "no wrong pod for %s", r.ID)
	}
	slow := []string{"slow-reader", "long-line", "concurrent", "stop-busy", "stop-connected", "stop-spelling", "stop-lines", "stop-request", "merged-lines", "split-lines", "starts"}
	for requirement, faults := range wrongPods {
		for _, fault := range faults {
			t.Run(requirement+"/"+fault, func(t *testing.T) {
				t.Parallel()
				if os.Getenv("PODHARNESS_LONG") == "" && slices.Contains(slow, requirement) {
					t.Skip("it shows when a time is over: run with PODHARNESS_LONG=1")
				}
				oneIn(t, 3)
				all, _, stdout, _ := checks(t, wrongFlags(fault, requirement)...)
				found := all[requirement]
				assert.True(t, found.IsFinding(), stdout)
			})
		}
	}
}

// wrongPod is a pod that keeps the contract but for its fault.
type wrongPod struct {
	fault, name, dir, path string

	mu       sync.Mutex // held while it talks, with some faults
	clients  atomic.Int64
	seen     atomic.Int64
	running  atomic.Int64
	snapshot atomic.Int64
	all      sync.Map // connections
	leaked   [][]byte
	helper   *exec.Cmd // ends with the pod
	stop     chan int
}

func (p *wrongPod) is(faults ...string) bool { return slices.Contains(faults, p.fault) }

func (p *wrongPod) log(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (p *wrongPod) refuse(status int, format string, args ...any) {
	p.log(format, args...)
	os.Exit(status)
}

// runWrongPod never returns.
func runWrongPod(fault string, args []string) {
	p := &wrongPod{fault: fault, stop: make(chan int, 9)}
	given := map[string]string{}
	for i := 0; i < len(args); i += 2 {
		known := slices.Contains([]string{"--workspace", "--pod", "--session", "--ticket-role", "--profile"}, args[i])
		switch {
		case !known && p.is("any-flag"):
			i--
			continue
		case !known, args[i] == "--ticket-role" && p.is("no-ticket-role"), args[i] == "--profile" && p.is("no-profile"), args[i] == "--session" && p.is("no-session"):
			p.refuse(2, "unknown flag %s", args[i])
		case i+1 == len(args) || p.is("dash-name") && strings.HasPrefix(args[i+1], "-"):
			p.refuse(2, "%s wants a value", args[i])
		}
		given[args[i]] = args[i+1]
	}
	p.name = given["--pod"]
	workspace, session := given["--workspace"], given["--session"]
	here, _ := os.Getwd()
	switch {
	case session != "" && given["--profile"] != "":
		p.refuse(2, "--profile and --session exclude each other")
	case session != "" && session != storedSession && !p.is("any-session"):
		p.refuse(1, "no session %s", session)
	case p.is("ascii-name") && strings.ContainsFunc(p.name, func(r rune) bool { return r > 127 }), p.is("lower-name") && p.name != strings.ToLower(p.name),
		p.is("blank-workspace") && strings.Contains(workspace, " "), p.is("newline-workspace") && strings.Contains(workspace, "\n"),
		p.is("needs-home") && os.Getenv("HOME") == "", p.is("needs-workspace-dir") && here != workspace, p.is("needs-locale") && os.Getenv("LC_ALL") == "C":
		p.refuse(1, "not so")
	case p.is("trimmed-name"):
		p.name = strings.TrimSpace(p.name)
	}
	for _, v := range [][2]string{{"YOI_RUNTIME_DIR", ""}, {"YOI_HOME", "run"}, {"XDG_RUNTIME_DIR", "yoi"}, {"HOME", ".yoi/run"}} {
		if value := os.Getenv(v[0]); value != "" && (v[0] == "YOI_RUNTIME_DIR" || !p.is("only-runtime-dir")) {
			p.dir = filepath.Join(value, v[1], p.name)
			break
		}
	}
	if p.dir == "" {
		p.refuse(1, "no runtime directory")
	}
	p.path = filepath.Join(p.dir, "sock")
	p.prepare()
	listener := p.listen()
	signals := make(chan os.Signal, 9)
	if !p.is("late-handler") {
		signal.Notify(signals, os.Interrupt)
	}
	if p.is("ready-at-hup") {
		signal.Notify(signals, syscall.SIGHUP)
	}
	if p.is("ignores-term") {
		signal.Ignore(syscall.SIGTERM)
	}
	p.announce(listener)
	signal.Notify(signals, os.Interrupt)
	go func() {
		for {
			conn, err := listener.Accept()
			switch {
			case err == nil:
				go p.serve(conn)
			case p.is("stops-accepting"), errors.Is(err, net.ErrClosed):
				return
			case !p.is("spins-on-emfile"):
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	p.live()
	for {
		select {
		case status := <-p.stop:
			p.end(listener, status)
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				p.log("YOI-READY\t%s\t%s", p.name, p.path)
			case p.is("finishes-first") && p.running.Load() > 0:
			case p.is("waits-for-clients") && p.clients.Load() > 0:
			case p.is("status-1"):
				p.end(listener, 1)
			default:
				p.end(listener, 0)
			}
		}
	}
}

// failed is called with the error of a start that fails.
func (p *wrongPod) failed(err error) {
	switch {
	case p.is("waits-after-error"):
		time.Sleep(time.Hour)
	case p.is("slow-error"):
		time.Sleep(faultReadyTimeout + 2*time.Second)
	case p.is("ends-with-0"):
		p.refuse(0, "%v", err)
	case p.is("ends-silently"):
		os.Exit(1)
	}
	p.refuse(1, "%v", err)
}

func (p *wrongPod) prepare() {
	run := filepath.Dir(p.dir)
	entries, _ := os.ReadDir(run)
	for _, entry := range entries {
		if other := filepath.Join(run, entry.Name()); other == p.dir {
		} else if p.is("removes-sockets") {
			_ = os.Remove(filepath.Join(other, "sock"))
		} else if p.is("removes-dirs") {
			if conn, err := net.Dial("unix", filepath.Join(other, "sock")); err != nil {
				_ = os.RemoveAll(other)
			} else {
				_ = conn.Close()
			}
		}
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		p.failed(err)
	}
	if p.is("leaves-lock") {
		if _, err := os.OpenFile(filepath.Join(p.dir, "lock"), os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			p.failed(err)
		}
	}
	if status, err := os.ReadFile(filepath.Join(p.dir, "status.json")); p.is("writes-in-place") && err == nil && !json.Valid(status) {
		p.refuse(1, "status.json is broken")
	}
	if p.is("leaves-helper", "helper-and-hangs") {
		p.helper = exec.Command("sleep", "30")
		p.helper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := p.helper.Start(); err != nil {
			p.failed(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(p.dir, "pid"))
	pid := 0
	_, scanErr := fmt.Sscan(string(text), &pid)
	if p.is("live-pid") && err == nil && scanErr == nil && syscall.Kill(pid, 0) == nil || p.is("chokes-on-garbage") && err == nil && scanErr != nil {
		p.refuse(1, "it runs already, or there is garbage")
	}
	stopped := p.dir + ".stopped"
	if _, err := os.Stat(stopped); err == nil && p.is("once-only") {
		p.refuse(1, "it was stopped")
	}
	if p.is("litters") {
		_, _ = os.MkdirTemp("", "agent")
	}
}

func (p *wrongPod) listen() net.Listener {
	if !p.is("keeps-socket") {
		_ = os.Remove(p.path)
	}
	path := p.path
	if p.is("wrong-path", "silent-long") && len(path) > 107 {
		if p.is("silent-long") {
			os.Exit(1)
		}
		path = path[:107]
	}
	if p.is("early") {
		p.log("YOI-READY\t%s\t%s", p.name, p.path)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		p.failed(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if p.is("open-to-all") {
		_, _ = os.Chmod(p.path, 0o777), os.Chmod(p.dir, 0o755)
	}
	if p.is("child-listens") {
		file, _ := listener.(*net.UnixListener).File()
		child := exec.Command("sleep", "30")
		child.ExtraFiles = []*os.File{file}
		_ = child.Start()
		go func() { status := <-p.stop; _ = child.Process.Kill(); _ = child.Wait(); p.stop <- status }()
	}
	if p.is("leaves-child") {
		_ = exec.Command("sleep", "30").Start()
	}
	write := func(name, text string) {
		path := filepath.Join(p.dir, name)
		temporary, flags := path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC
		if p.is("writes-in-place") {
			temporary = path
		} else if p.is("temporary-must-be-new") {
			flags |= os.O_EXCL
		}
		file, err := os.OpenFile(temporary, flags, 0o600)
		if err == nil {
			_, err = file.WriteString(text)
			err = errors.Join(err, file.Close())
		}
		if err == nil && temporary != path {
			err = os.Rename(temporary, path)
		}
		if err != nil {
			p.failed(err)
		}
	}
	if p.is("wrong-pid") {
		write("pid", "1\n")
	} else if !p.is("no-pid") {
		write("pid", fmt.Sprintln(os.Getpid()))
	}
	if !p.is("no-status") {
		write("status.json", `{"name":"it"}`)
	}
	return listener
}

func (p *wrongPod) announce(net.Listener) {
	switch {
	case p.is("no-ready", "early"):
	case p.is("ready-in-pieces"):
		for _, part := range []string{"YOI-READY", "\t" + p.name, "\t" + p.path, "\n"} {
			fmt.Fprint(os.Stderr, part)
		}
	default:
		if _, err := fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", p.name, p.path); err != nil {
			p.failed(err)
		}
	}
	if p.is("ready-twice") {
		p.log("YOI-READY\t%s\t%s", p.name, p.path)
	}
	log := filepath.Join(p.dir, "stderr.log")
	switch {
	case p.is("unlinks-log"):
		_ = os.Remove(log)
	case p.is("renames-log"):
		_ = os.Rename(log, log+".1")
		_ = os.WriteFile(log, nil, 0o600)
	case p.is("opens-log"):
		file, _ := os.OpenFile(log, os.O_WRONLY, 0)
		p.all.Store("log", file)
	}
}

// live does what a pod does beside its clients.
func (p *wrongPod) live() {
	parent := os.Getppid()
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			switch {
			case p.is("watches-parent") && os.Getppid() != parent:
				p.stop <- 0
			case p.is("spins"):
				for end := time.Now().Add(10 * time.Millisecond); time.Now().Before(end); {
				}
			case p.is("chatters"):
				p.log("still alive, %s", strings.Repeat("and well ", 10))
			}
		}
	}()
}

func (p *wrongPod) end(listener net.Listener, status int) {
	if p.is("tidies-late") {
		_ = listener.Close()
		time.Sleep(time.Second)
	}
	if p.is("once-only") {
		_ = os.WriteFile(p.dir+".stopped", nil, 0o600)
	}
	for !p.is("keeps-directory") && os.RemoveAll(p.dir) != nil && p.is("never-ends-stop", "helper-and-hangs") {
		time.Sleep(10 * time.Millisecond)
	}
	if p.helper != nil {
		_ = p.helper.Process.Kill()
		_ = p.helper.Wait()
	}
	os.Exit(status)
}

func (p *wrongPod) serve(conn net.Conn) {
	n := p.seen.Add(1)
	p.clients.Add(1)
	defer p.clients.Add(-1)
	if !p.is("leaks-descriptors") {
		defer conn.Close()
	}
	p.all.Store(conn, true)
	defer p.all.Delete(conn)
	if p.is("leaks-descriptors") {
		p.all.Store(n, conn)
	}
	for p.is("eight-at-most") && p.clients.Load() > 8 {
		time.Sleep(10 * time.Millisecond)
	}
	switch {
	case p.is("dies-at-400th") && n == 400:
		p.refuse(3, "one too many")
	case p.is("ready-at-5th") && n == 5:
		p.log("YOI-READY\t%s\t%s", p.name, p.path)
	case p.is("grows"):
		p.leaked = append(p.leaked, bytes.Repeat([]byte("x"), 1<<20))
	}
	say := func(line string) {
		if p.is("one-lock") {
			p.mu.Lock()
			defer p.mu.Unlock()
		} else {
			_ = conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		}
		if _, err := fmt.Fprintln(conn, line); err != nil && p.is("dies-of-a-leaver") {
			p.refuse(3, "%v", err)
		}
	}
	snapshot := `{"event":"snapshot","data":{}}`
	switch {
	case p.is("bad-snapshot"):
		snapshot = `{"event":"snapshot","data":{},}`
	case p.is("no-data"):
		snapshot = `{"event":"snapshot","name":{"data":1}}`
	case p.is("snapshot-once") && p.snapshot.Add(1) > 3:
		snapshot = `{"event":"hello","data":{"event":"snapshot"}}`
	}
	if p.is("dies-of-a-leaver") {
		time.Sleep(200 * time.Millisecond)
	}
	if p.is("lock-while-reading") {
		p.wait()
	}
	say(snapshot)
	if p.is("read-is-line", "first-line-only") {
		for buffer := make([]byte, 64<<10); ; {
			n, err := conn.Read(buffer)
			if err != nil {
				return
			}
			line, _, _ := bytes.Cut(buffer[:n], []byte("\n"))
			if p.is("first-line-only") || bytes.HasSuffix(buffer[:n], []byte("\n")) {
				p.request(string(line), say)
			}
		}
	}
	in := bufio.NewReader(conn)
	for {
		if p.is("lock-while-reading") {
			_, _ = in.Peek(1)
			p.mu.Lock()
		}
		line, err := in.ReadString('\n')
		if p.is("lock-while-reading") {
			p.mu.Unlock()
		}
		if err == nil || p.is("obeys-unfinished") && line != "" {
			p.request(strings.TrimSuffix(line, "\n"), say)
		}
		if err != nil {
			return
		}
	}
}

// wait waits until nobody has the lock.
func (p *wrongPod) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
}

func (p *wrongPod) request(line string, say func(string)) {
	var request map[string]any
	err := json.Unmarshal([]byte(line), &request)
	switch {
	case line == "" && p.is("dies-of-empty"), line != "" && line[0] == '[' && p.is("dies-of-no-object"), err != nil && p.is("dies-of-bad-json"):
		p.refuse(3, "what is this?")
	case err != nil && p.is("closes-all"):
		p.all.Range(func(conn, _ any) bool { _ = conn.(net.Conn).Close(); return true })
	case strings.TrimSpace(line) == "":
	case err != nil && p.is("silent-error"):
	case err != nil:
		say(`{"event":"error","data":{"message":"no request"}}`)
	case request["method"] == "shutdown":
		_, params := request["params"]
		if !p.is("no-shutdown") && (!p.is("exact-shutdown") || line == `{"method":"shutdown"}`) && (!p.is("needs-params") || params || line == `{"method":"shutdown"}`) {
			p.stop <- 0
		}
	case request["method"] == "ping":
		say(`{"event":"pong","data":{}}`)
	case request["method"] == "run":
		p.running.Add(1)
		time.Sleep(3 * time.Second)
		p.running.Add(-1)
		say(`{"event":"done","data":{}}`)
	default:
		say(`{"event":"error","data":{"message":"unknown method"}}`)
	}
}
