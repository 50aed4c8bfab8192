//go:build !portable && (amd64 || arm64)

package fault

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// patience bounds each wait for a process.
const patience = 30 * time.Second

// A run is a process under faults, and what it has written to stdout and stderr.
type run struct {
	*Session
	pid    int
	status syscall.WaitStatus
	output string
}

func need(t testing.TB) {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skip(err)
	}
}

func parse(t testing.TB, texts ...string) (faults []Fault) {
	for _, text := range texts {
		f, err := Parse(text)
		require.NoError(t, err)
		faults = append(faults, f)
	}
	return faults
}

// start starts a program with a pipe as its stdout and stderr. end returns once it
// has ended, and whatever it has started.
func start(t testing.TB, faults []Fault, dir string, argv ...string) (r *run, end func()) {
	t.Helper()
	need(t)
	s, err := New(faults, nil)
	require.NoError(t, err)
	program, err := exec.LookPath(argv[0])
	require.NoError(t, err)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	pid, err := s.Start(program, argv, &syscall.ProcAttr{Dir: dir, Env: os.Environ(), Files: []uintptr{null.Fd(), write.Fd(), write.Fd()}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	write.Close()
	require.NoError(t, err)
	r = &run{Session: s, pid: pid}
	timer := time.AfterFunc(patience, func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })
	return r, func() {
		t.Helper()
		output, err := io.ReadAll(read)
		read.Close()
		require.NoError(t, err)
		_, err = syscall.Wait4(pid, &r.status, 0, nil)
		require.NoError(t, err)
		assert.True(t, timer.Stop(), "it was killed after %v", patience)
		r.output = string(output)
		select {
		case <-s.Done():
		case <-time.After(patience):
			t.Errorf("the session goes on although its processes have ended")
		}
		assert.NoError(t, s.Err())
	}
}

func runUnder(t testing.TB, faults []Fault, dir string, argv ...string) *run {
	t.Helper()
	r, end := start(t, faults, dir, argv...)
	end()
	return r
}

// results returns what has struck, without what is different each time.
func (r *run) results() (all []string) {
	for _, s := range r.Strikes() {
		path := ""
		if len(s.Paths) > 0 {
			path = " " + filepath.Base(s.Paths[0])
		}
		all = append(all, fmt.Sprintf("%s%s %d %s", s.Call, path, s.Number, s.Result))
	}
	return all
}

// python returns the interpreter itself.
func python(t testing.TB) string {
	out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		t.Skip("no python3")
	}
	return strings.TrimSpace(string(out))
}

// build returns a program made of C.
func build(t testing.TB, source string, flags ...string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no cc")
	}
	program := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command(cc, append([]string{"-x", "c", "-o", program, "-"}, flags...)...)
	cmd.Stdin = strings.NewReader(source)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

func TestErrorOfEachFamily(t *testing.T) {
	t.Parallel()
	interpreter := python(t)
	for _, tc := range []struct{ fault, code, want string }{
		{"open:path=**/state:error=ENOSPC", `open("state", "w")`, "OSError: [Errno 28] No space left on device: 'state'"},
		{"mkdir:path=**/d:error=EROFS", `os.mkdir("d")`, "OSError: [Errno 30]"},
		{"rename:path=**/status.json:error=ENOSPC:when=1", `open("tmp", "w"); os.rename("tmp", "status.json")`, "OSError: [Errno 28]"},
		{"unlink:path=**/tmp:error=EBUSY", `open("tmp", "w"); os.unlink("tmp")`, "OSError: [Errno 16]"},
		{"unlink:path=**/d:error=EBUSY", `os.mkdir("d"); os.rmdir("d")`, "OSError: [Errno 16]"},
		{"sync:path=**/tmp:error=EIO", `f = open("tmp", "w"); os.fsync(f)`, "OSError: [Errno 5]"},
		{"truncate:error=EIO", `f = open("tmp", "w"); f.truncate(5)`, "OSError: [Errno 5]"},
		{"stat:path=**/tmp:error=EACCES", `os.stat("tmp")`, "PermissionError"},
		{"link:path=**/b:error=EMLINK", `open("a", "w"); os.link("a", "b")`, "OSError: [Errno 31]"},
		{"chmod:path=**/a:error=EPERM", `open("a", "w"); os.chmod("a", 0)`, "PermissionError"},
		{"lock:path=**/a:error=ENOLCK", `import fcntl; fcntl.flock(open("a", "w"), fcntl.LOCK_EX)`, "OSError: [Errno 37]"},
		{"socket:error=EMFILE", `socket.socket(socket.AF_UNIX)`, "OSError: [Errno 24]"},
		{"bind:path=**/sock:error=EADDRINUSE", `socket.socket(socket.AF_UNIX).bind("sock")`, "OSError: [Errno 98]"},
		{"listen:path=**/sock:error=EADDRINUSE", `s = socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen()`, "OSError: [Errno 98]"},
		{"connect:path=**/sock:error=ENETDOWN", `socket.socket(socket.AF_UNIX).connect("sock")`, "OSError: [Errno 100]"},
		{"connect:path=127.0.0.1*:error=ENETDOWN", `socket.socket().connect(("127.0.0.1", 9))`, "path=127"},
		{"connect:path=*.0.0.1\\:9:error=ENETDOWN", `socket.socket().connect(("127.0.0.1", 9))`, "OSError: [Errno 100]"},
		{"accept:path=**/sock:error=EMFILE", `s = socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen(); s.accept()`, "OSError: [Errno 24]"},
		{"send:path=**/sock:error=EPIPE", `
s = socket.socket(socket.AF_UNIX); s.bind("sock"); s.listen()
c = socket.socket(socket.AF_UNIX); c.connect("sock"); c.send(b"1")
s.accept()[0].send(b"2")`, "BrokenPipeError"},
		{"fork:error=EAGAIN", `os.fork()`, "BlockingIOError: [Errno 11]"},
		{"thread:error=EAGAIN", `import threading; threading.Thread(target=print).start()`, "can't start new thread"},
		{"exec:path=**/true:error=ENOEXEC", `os.execv("/usr/bin/../bin/true", ["true"])`, "OSError: [Errno 8]"},
		{"read:path=**/a:error=EIO", `open("a", "w").write("x"); open("a").read()`, "OSError: [Errno 5]"},
		{"write:path=**/a:error=ENOSPC", `f = open("a", "wb", 0); f.write(b"x")`, "OSError: [Errno 28]"},
		{"close:path=**/a:error=EIO", `os.close(os.open("a", os.O_CREAT))`, "OSError: [Errno 5]"},
		{"pipe:error=EMFILE", `os.pipe()`, "OSError: [Errno 24]"},
	} {
		t.Run(tc.fault, func(t *testing.T) {
			t.Parallel()
			f, err := Parse(tc.fault)
			if err != nil {
				assert.ErrorContains(t, err, tc.want)
				return
			}
			r := runUnder(t, []Fault{f}, t.TempDir(), interpreter, "-c", "import os, socket\n"+tc.code)
			assert.Contains(t, r.output, tc.want)
			assert.Equal(t, 1, r.status.ExitStatus())
			if assert.NotEmpty(t, r.Strikes()) {
				s := r.Strikes()[0]
				assert.Equal(t, 1, s.Number)
				assert.Equal(t, r.pid, s.PID)
				assert.Equal(t, unix.ErrnoName(f.Error), s.Result)
			}
		})
	}
}

func TestCallsAreCountedOverAllProcessesAndThreads(t *testing.T) {
	t.Parallel()
	const code = `
import os, threading
def make(i):
    try:
        os.mkdir(f"d{i}")
    except OSError as e:
        os.write(1, f"{i} {e.strerror}\n".encode())
make(1)
t = threading.Thread(target=make, args=(2,)); t.start(); t.join()
if os.fork() == 0:
    make(3)
    os._exit(0)
os.wait()
make(4)
`
	for when, want := range map[string]string{
		"": "1 Disk quota exceeded\n2 Disk quota exceeded\n3 Disk quota exceeded\n4 Disk quota exceeded\n", ":when=2": "2 Disk quota exceeded\n",
		":when=3": "3 Disk quota exceeded\n", ":when=3+": "3 Disk quota exceeded\n4 Disk quota exceeded\n", ":when=5": "",
	} {
		r := runUnder(t, parse(t, "mkdir:path=**/d[1-9]:error=EDQUOT"+when), t.TempDir(), python(t), "-c", code)
		assert.Equal(t, want, r.output, when)
		assert.Len(t, r.Strikes(), strings.Count(want, "\n"))
		for _, s := range r.Strikes() {
			switch s.Number {
			case 2:
				assert.Equal(t, r.pid, s.PID)
				assert.NotEqual(t, r.pid, s.Thread)
			case 3:
				assert.NotEqual(t, r.pid, s.PID)
			}
		}
	}
}

func TestSignalStrikesBeforeTheCallIsDone(t *testing.T) {
	t.Parallel()
	for range 5 {
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGABRT} {
			dir, name := t.TempDir(), unix.SignalName(sig)
			r := runUnder(t, parse(t, "rename:path=**/new:signal="+name), dir, "sh", "-c", "ulimit -c 0; echo > old; exec mv old new")
			assert.Equal(t, sig, r.status.Signal())
			assert.FileExists(t, filepath.Join(dir, "old"))
			assert.NoFileExists(t, filepath.Join(dir, "new"))
			require.Len(t, r.Strikes(), 1)
			assert.Equal(t, name, r.Strikes()[0].Result)
		}
	}
	for _, tc := range []struct{ fault, want string }{
		{"mkdir:signal=USR1", "caught\ndone\n"}, {"mkdir:signal=CHLD", "done\n"}, {"mkdir:signal=USR1:error=EIO", "caught\n[Errno 5] Input/output error: 'd'\n"},
	} {
		r := runUnder(t, parse(t, tc.fault), t.TempDir(), python(t), "-c", `
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: print("caught"))
try:
    os.mkdir("d")
    print("done")
except OSError as e:
    print(e)
`)
		assert.Equal(t, tc.want, r.output, tc.fault)
	}
}

func TestDelayHoldsUpOneThreadOnly(t *testing.T) {
	t.Parallel()
	r := runUnder(t, parse(t, "mkdir:path=**/slow:delay=400ms"), t.TempDir(), python(t), "-c", `
import os, threading, time
t = threading.Thread(target=os.mkdir, args=("slow",))
start = time.monotonic()
t.start()
os.mkdir("fast")
print("fast", os.path.exists("slow"))
t.join()
print("slow", time.monotonic() - start >= 0.4)
`)
	assert.Equal(t, "fast False\nslow True\n", r.output)
	assert.Equal(t, []string{"mkdir slow 1 delayed 400ms"}, r.results())
}

func TestShortWriteIsTrue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := runUnder(t, parse(t, "write:path=**/a:short=3:when=1"), dir, python(t), "-c", `
import os
f = os.open("a", os.O_CREAT | os.O_WRONLY)
print(os.write(f, b"abcdef"), os.write(f, b"def"))
`)
	assert.Equal(t, "3 3\n", r.output)
	text, err := os.ReadFile(filepath.Join(dir, "a"))
	require.NoError(t, err)
	assert.Equal(t, "abcdef", string(text))
	assert.Equal(t, []string{"write a 1 3 of 6 bytes"}, r.results())
	r = runUnder(t, parse(t, "write:path=*pipe*:short=1"), dir, "sh", "-c", "printf hello; echo world >&2")
	assert.Equal(t, "helloworld\n", r.output, "the shell has written the rest")
	r = runUnder(t, parse(t, "pwritev,writev,pwrite64:short=4"), dir, python(t), "-c", `
import os
f = os.open("b", os.O_CREAT | os.O_RDWR)
print(os.writev(f, [b"ab", b"cdef"]), os.pwrite(f, b"xyzxyz", 2), os.pwritev(f, [b"1", b"2"], 9), os.read(f, 99), os.lseek(f, 0, 0), os.read(f, 99))
`)
	assert.Equal(t, "4 4 2 b'zx\\x00\\x00\\x0012' 0 b'abxyzx\\x00\\x00\\x0012'\n", r.output)
}

func TestLookHoldsTheCallAndMayAnswerIt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var seen []string
	faults := parse(t, "write:path=*pipe*")
	faults[0].Look = func(c Call) {
		data, size, err := c.Data(2)
		seen = append(seen, fmt.Sprint(c.Name(), " ", string(data), size, err, c.PID() == c.Thread(), c.Paths()[0][:5]))
		if string(data) == "no" {
			c.Return(size)
		}
	}
	r := runUnder(t, faults, dir, "sh", "-c", "echo no; echo yes; echo no")
	assert.Equal(t, "yes\n", r.output)
	assert.Equal(t, []string{"write no3 <nil> truepipe:", "write ye4 <nil> truepipe:", "write no3 <nil> truepipe:"}, seen)
}

func TestObservedCallsAreDone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := runUnder(t, parse(t, "open,mkdir:path="+Quote(dir)+"/**", "unlink"), dir, "sh", "-c", "mkdir a; echo > a/b; rm a/b")
	assert.Equal(t, []string{"mkdir a 1 ", "openat b 2 ", "unlinkat b 1 "}, r.results())
}

func TestProgramThatCannotBeExecuted(t *testing.T) {
	t.Parallel()
	need(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, []byte("text"), 0o600))
	nonsense := filepath.Join(dir, "nonsense")
	require.NoError(t, os.WriteFile(nonsense, []byte("text"), 0o700))
	loader := filepath.Join(dir, "loader")
	require.NoError(t, os.WriteFile(loader, []byte("#!/nowhere\n"), 0o700))
	for _, program := range []string{dir + "/nowhere", plain, nonsense, loader, dir} {
		attr := &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Env: os.Environ()}
		_, want := syscall.ForkExec(program, []string{program}, attr)
		s, err := New(parse(t, "exec,write,send,exit_group:error=EIO"[:len("exec,write,send")]+":error=EIO"), nil)
		require.NoError(t, err)
		_, err = s.Start(program, []string{program}, attr)
		assert.Equal(t, want, err, program)
		<-s.Done()
		assert.Empty(t, s.Strikes(), program)
	}
	attr := &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Dir: dir + "/nowhere"}
	s, err := New(parse(t, "open:error=EIO"), nil)
	require.NoError(t, err)
	_, err = s.Start("/bin/true", []string{"true"}, attr)
	assert.ErrorIs(t, err, syscall.ENOENT)
}

// TestProcessIsAsWithoutFaults compares what a process finds, where this one was started in an
// unusual way.
func TestProcessIsAsWithoutFaults(t *testing.T) {
	need(t)
	const inner = "PODHARNESS_TEST_INNER"
	if os.Getenv(inner) == "" {
		self, err := os.Executable()
		require.NoError(t, err)
		out, err := exec.Command(python(t), "-c", `
import os, resource, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGCHLD, signal.SIGTERM])
for sig in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTOU):
    signal.signal(sig, signal.SIG_IGN)
os.umask(0o31)
os.open("/dev/null", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (77, 99))
os.environ[sys.argv[1]] = "1"
os.execv(sys.argv[2], [sys.argv[2], "-test.run=^" + sys.argv[3] + "$"])
`, inner, self, t.Name()).CombinedOutput()
		assert.NoError(t, err, "%s", out)
		return
	}
	const code = `
import os, resource, signal, sys
for line in open("/proc/self/status"):
    if line.split(":")[0] in ("PPid", "TracerPid", "Umask", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "CapEff", "Threads"):
        print(line.strip())
print(os.getpid() == os.getpgrp(), sys.argv, os.getcwd(), open("/proc/self/environ", "rb").read())
print([resource.getrlimit(i) for i in range(16)], os.sched_getaffinity(0), os.nice(0))
print(sorted(os.readlink("/proc/self/fd/%d" % i) for i in range(3)), [i for i in range(3, 77) if os.path.exists("/proc/self/fd/%d" % i)])
`
	argv := []string{python(t), "-c", code, "a b", "", "ü\xff"}
	env := append(os.Environ(), "A=1", "A=2", "B\xff=ü", "nothing")
	output := func(start func(program string, argv []string, attr *syscall.ProcAttr) (int, error)) string {
		read, write, err := os.Pipe()
		require.NoError(t, err)
		defer read.Close()
		attr := &syscall.ProcAttr{Dir: "/", Env: env, Files: []uintptr{0, write.Fd(), 0}, Sys: &syscall.SysProcAttr{Setpgid: true}}
		pid, err := start(argv[0], argv, attr)
		write.Close()
		require.NoError(t, err)
		text, err := io.ReadAll(read)
		require.NoError(t, err)
		var status syscall.WaitStatus
		_, err = syscall.Wait4(pid, &status, 0, nil)
		require.NoError(t, err)
		assert.Zero(t, status)
		return regexp.MustCompile(`pipe:\[\d+\]`).ReplaceAllString(string(text), "pipe")
	}
	s, err := New(parse(t, "exec,mkdir"), nil)
	require.NoError(t, err)
	got := output(s.Start)
	for _, fd := range proc.Inheritable() {
		unix.CloseOnExec(fd)
	}
	want := output(syscall.ForkExec)
	if s.NoNewPrivs {
		want = strings.Replace(want, "NoNewPrivs:\t0", "NoNewPrivs:\t1", 1)
	}
	assert.Equal(t, want, got)
	assert.Contains(t, got, "Umask:\t0031")
	assert.Contains(t, got, "(77, 99)")
	assert.Contains(t, got, "800\nSigIgn:")
}

// What the process itself does on its way to its program, and what the runtime of this one may
// do at any moment, must not wait for an answer of this process.
func TestEachStartComesToItsProgram(t *testing.T) {
	need(t)
	faults := parse(t, "exec,write,send,thread,fork,read,close,memory,fcntl,recv,limit,poll,kill,sleep,dup,open")
	once := func(t *testing.T) {
		for range 20 {
			r := runUnder(t, faults, "", "sh", "-c", "sh -c 'echo hello'")
			assert.Equal(t, "hello\n", r.output)
		}
	}
	t.Run("GOMAXPROCS=1", func(t *testing.T) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		once(t)
	})
	t.Run("beside garbage collections", func(t *testing.T) {
		stop := make(chan struct{})
		var collector sync.WaitGroup
		collector.Add(1)
		go func() {
			defer collector.Done()
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
				}
			}
		}()
		once(t)
		close(stop)
		collector.Wait()
	})
	t.Run("side by side", func(t *testing.T) {
		for i := range 4 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				once(t)
			})
		}
	})
}

const inner = "PODHARNESS_TEST_FAULT"

// TestMain is also a pod made with Go, and a program that starts a pod and is killed.
func TestMain(m *testing.M) {
	switch os.Getenv(inner) {
	case "go pod":
		os.Exit(beGoPod())
	case "parent":
		beParent()
	}
	m.Run()
}

// beGoPod has many goroutines open files while they are preempted.
func beGoPod() (failed int) {
	runtime.GOMAXPROCS(4)
	go func() {
		for {
			runtime.GC()
		}
	}()
	var all sync.WaitGroup
	var errs atomic.Int32
	for i := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for j := range 25 {
				if err := os.Mkdir(fmt.Sprint(i, "-", j), 0o700); err != nil {
					errs.Add(1)
				}
			}
		}()
	}
	all.Wait()
	return int(errs.Load())
}

func TestInterruptedCallsCountOnce(t *testing.T) {
	need(t)
	self, err := os.Executable()
	require.NoError(t, err)
	for _, can := range []bool{true, false} {
		t.Run(fmt.Sprint("killable ", can), func(t *testing.T) {
			defer func(was bool) { killable = was }(killable)
			killable = can
			t.Setenv(inner, "go pod")
			r := runUnder(t, parse(t, "mkdir:error=EIO:when=150+"), t.TempDir(), self)
			assert.Equal(t, 51, r.status.ExitStatus())
			assert.Len(t, r.Strikes(), 51)
			program := build(t, `
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
static void tick(int sig) {}
int main() {
	struct itimerval each = {{0, 3000}, {0, 3000}}, none = {{0, 0}, {0, 0}};
	struct sigaction a = {.sa_handler = tick, .sa_flags = SA_RESTART};
	sigaction(SIGALRM, &a, 0);
	setitimer(ITIMER_REAL, &each, 0);
	int first = mkdir("a", 0700), second = mkdir("b", 0700), number = errno;
	setitimer(ITIMER_REAL, &none, 0);
	printf("%d %d %s\n", first, second, strerror(number));
}`)
			r = runUnder(t, parse(t, "mkdir:delay=100ms:error=EIO:when=2"), t.TempDir(), program)
			assert.Equal(t, "0 -1 Input/output error\n", r.output)
			assert.Equal(t, []string{"mkdir b 2 delayed 100ms, EIO"}, r.results())
		})
	}
}

// beParent starts a process that serves until it is killed, and says its number.
func beParent() {
	_ = os.Unsetenv(inner)
	s, err := New([]Fault{{Calls: "open"}}, nil)
	if err != nil {
		panic(err)
	}
	pid, err := s.Start("/bin/sh", []string{"sh", "-c", "while :; do sleep 1; done"}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		panic(err)
	}
	for range 20 { // its threads come and go
		runtime.GC()
		go func() { runtime.LockOSThread() }()
	}
	fmt.Println(pid)
	select {}
}

func TestProcessIsKilledWithWhoeverAnswersForIt(t *testing.T) {
	t.Parallel()
	need(t)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), inner+"=parent")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var pid int
	_, err = fmt.Fscan(out, &pid)
	require.NoError(t, err)
	defer func() { _ = syscall.Kill(-pid, syscall.SIGKILL) }()
	assert.False(t, proc.Ended(pid))
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	assert.Eventually(t, func() bool { return proc.Ended(pid) }, patience, time.Millisecond)
}

func TestSessionGoesOnForWhatAProcessHasLeft(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	r, end := start(t, parse(t, "mkdir:path=**/late:error=EIO"), dir, "sh", "-c", "(read line < fifo; mkdir late; :) & exit 3")
	var info unix.Siginfo
	require.NoError(t, unix.Waitid(unix.P_PID, r.pid, &info, unix.WEXITED|unix.WNOWAIT, nil))
	select {
	case <-r.Done():
		t.Error("the session has ended")
	default:
	}
	require.NoError(t, os.WriteFile(fifo, []byte("\n"), 0o600))
	end()
	assert.Equal(t, 3, r.status.ExitStatus())
	assert.Equal(t, []string{"mkdir late 1 EIO"}, r.results())
	assert.Contains(t, r.output, "Input/output error")
}

// TestExceptedProgramMeetsNoFault: neither does what it starts, also after it has ended.
func TestExceptedProgramMeetsNoFault(t *testing.T) {
	t.Parallel()
	need(t)
	dir := t.TempDir()
	pod := filepath.Join(dir, "pod")
	require.NoError(t, os.WriteFile(pod, []byte("#!/bin/sh\nmkdir $1; sh -c 'mkdir $0.child' $1; [ ! $2 ] || (read line < fifo; mkdir $1.$2) &\n"), 0o700))
	require.NoError(t, os.Symlink("pod", filepath.Join(dir, "link")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	const client = "mkdir a; ./pod b; setsid ./link c left; mkdir d; echo > fifo; sh -c 'mkdir e; exec ./pod f'; setsid sh -c 'mkdir g'"
	s, err := New(parse(t, "mkdir:error=EIO", "exec:path=**/pod", "exec:path=**/link"), nil)
	require.NoError(t, err)
	s.Except = pod
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	require.NoError(t, err)
	defer null.Close()
	cmd := exec.Command("sh", "-c", client)
	cmd.Dir, cmd.Stderr, cmd.SysProcAttr = dir, null, &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, s.StartCommand(cmd, cmd.Start))
	defer time.AfterFunc(patience, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }).Stop()
	_ = cmd.Wait()
	<-s.Done()
	require.NoError(t, s.Err())
	assert.Equal(t, []string{"mkdir a 1 EIO", "execve pod 1 ", "execve link 1 ", "mkdir d 2 EIO", "mkdir e 3 EIO", "execve pod 2 ", "mkdir g 4 EIO"}, (&run{Session: s}).results())
	for _, made := range []string{"b", "b.child", "c", "c.child", "c.left", "f", "f.child"} {
		assert.DirExists(t, filepath.Join(dir, made))
	}
	_, err = os.Stat(filepath.Join(dir, "a"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestFaultsWhileTheProcessRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, done := filepath.Join(dir, "fifo"), filepath.Join(dir, "done")
	require.NoError(t, errors.Join(unix.Mkfifo(fifo, 0o600), unix.Mkfifo(done, 0o600)))
	names, err := os.OpenFile(fifo, os.O_RDWR, 0)
	require.NoError(t, err)
	defer names.Close()
	r, end := start(t, parse(t, "mkdir:later", "unlink"), dir, "sh", "-c", "while read name; do mkdir $name; echo > done; done < fifo")
	try := func(name string) bool {
		_, err := names.WriteString(name + "\n")
		require.NoError(t, err)
		_, err = os.ReadFile(done)
		require.NoError(t, err)
		_, err = os.Stat(filepath.Join(dir, name))
		return err == nil
	}
	assert.True(t, try("a"))
	for i := range 2 {
		require.NoError(t, r.Fail(parse(t, "mkdir:path=**/b?:error=EIO:when=2+")[0]))
		assert.True(t, try(fmt.Sprint("b", 3*i)), "calls are counted anew")
		assert.False(t, try(fmt.Sprint("b", 3*i+1)))
		r.Heal()
		assert.True(t, try(fmt.Sprint("b", 3*i+2)))
	}
	assert.ErrorContains(t, r.Fail(parse(t, "rename:error=EIO")[0]), `no fault of the start names its calls, which are not watched: start it with "rename:later", too`)
	assert.ErrorContains(t, r.Fail(Fault{Calls: "mkdri"}), "unknown system call")
	require.NoError(t, syscall.Kill(r.pid, syscall.SIGKILL))
	end()
	assert.Equal(t, []string{"mkdir b1 2 EIO", "mkdir b4 2 EIO"}, r.results())
	assert.Equal(t, 3, r.Strikes()[1].Fault)
}

func TestCommandThatCannotBeExecuted(t *testing.T) {
	t.Parallel()
	need(t)
	for _, program := range []string{"/nowhere", "/", "nowhere-in-path"} {
		s, err := New(parse(t, "open"), nil)
		require.NoError(t, err)
		cmd := exec.Command(program)
		cmd.Stdin = strings.NewReader("text")
		assert.Equal(t, exec.Command(program).Run(), s.StartCommand(cmd, cmd.Start))
		<-s.Done()
	}
}

func TestStrikesAreTold(t *testing.T) {
	t.Parallel()
	need(t)
	var told []Strike
	s, err := New(parse(t, "mkdir:error=EIO"), func(strike Strike) { told = append(told, strike) })
	require.NoError(t, err)
	_, err = s.Start("/bin/mkdir", []string{"mkdir", "a", "b"}, &syscall.ProcAttr{Dir: t.TempDir(), Files: []uintptr{0, 1, 1}})
	require.NoError(t, err)
	<-s.Done()
	assert.Equal(t, s.Strikes(), told)
	require.Len(t, told, 2)
	assert.Regexp(t, `^call 2 of mkdir /.*/b by thread \d+ of process \d+: EIO$`, told[1].String())
}

func TestFaultsThatCannotBe(t *testing.T) {
	t.Parallel()
	for want, fault := range map[string]Fault{
		`unknown system call "opne" (families: accept, access, `: {Calls: "opne"},
		`unknown system call ""`:                                 {},
		"nothing has replaced the word in braces":                {Calls: "open", Path: "{runtime}/**"},
		"begin with / or **/":                                    {Calls: "open", Path: "status.json"},
		"short= is for write":                                    {Calls: "write,open", Short: 1},
		"error= and short= exclude each other":                   {Calls: "write", Short: 1, Error: syscall.EIO},
		"unknown error 4000":                                     {Calls: "write", Error: 4000},
		"unknown signal 99":                                      {Calls: "write", Signal: 99},
		"a [ has no ]":                                           {Calls: "write", Path: "/[a"},
	} {
		_, err := New([]Fault{fault}, nil)
		assert.ErrorContains(t, err, want)
		assert.NotErrorIs(t, err, ErrUnsupported)
	}
}

// BenchmarkStart starts a process as a pod is started: without faults, under a filter for calls
// that it does not make, and with each of its opens looked at. All are of one run.
func BenchmarkStart(b *testing.B) {
	interpreter := python(b)
	for _, tc := range []struct {
		name   string
		faults []string
	}{{"without faults", nil}, {"idle filter", []string{"rename"}}, {"each open", []string{"open:path=/nowhere:error=EIO"}}} {
		faults := parse(b, tc.faults...)
		for name, argv := range map[string][]string{"true": {"/bin/true"}, "python": {interpreter, "-c", ""}} {
			b.Run(name+"/"+tc.name, func(b *testing.B) {
				need(b)
				for b.Loop() {
					fork := syscall.ForkExec
					if tc.faults != nil {
						s, err := New(faults, nil)
						require.NoError(b, err)
						fork = s.Start
					}
					pid, err := fork(argv[0], argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
					require.NoError(b, err)
					_, err = syscall.Wait4(pid, nil, 0, nil)
					require.NoError(b, err)
				}
			})
		}
	}
}

// BenchmarkOpen opens files, which is the most that a process can have looked at.
func BenchmarkOpen(b *testing.B) {
	program := build(b, `
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) { for (int n = atoi(argv[1]); n > 0; n--) close(open("/dev/null", O_RDONLY)); }`)
	for _, text := range []string{"", "rename", "open", "open:path=/nowhere:error=EIO"} {
		b.Run("fault "+text, func(b *testing.B) {
			need(b)
			fork := syscall.ForkExec
			if text != "" {
				s, err := New(parse(b, text), nil)
				require.NoError(b, err)
				fork = s.Start
			}
			pid, err := fork(program, []string{program, fmt.Sprint(b.N)}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
			require.NoError(b, err)
			_, err = syscall.Wait4(pid, nil, 0, nil)
			require.NoError(b, err)
		})
	}
}
