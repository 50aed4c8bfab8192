//go:build !portable

package proc

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// testAs is the environment variable that makes this binary another program.
const testAs = "PROC_TEST_AS"

func init() {
	if os.Getenv(testAs) == "" {
		return
	}
	again := func(as string, files ...*os.File) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), testAs+"="+as)
		cmd.Stdout, cmd.ExtraFiles = os.Stdout, files
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
	}
	hide := func() {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
			panic(err)
		}
		fmt.Println(os.Getpid())
	}
	switch as := os.Getenv(testAs); as {
	case "hidden":
		hide()
	case "hidden daemon":
		again("hidden")
		os.Exit(0)
	case "parent of hidden":
		again("hidden")
	case "leader": // of a session
		cmd := exec.Command(os.Args[0])
		cmd.Env, cmd.Stdout = append(os.Environ(), testAs+"=hidden"), os.Stdout
		_ = cmd.Start()
		os.Exit(0)
	case "listener", "lasting listener": // the former ends when it listens
		listener, err := net.Listen("unix", os.Getenv("PROC_TEST_SOCKET"))
		if err != nil {
			panic(err)
		}
		if as == "lasting listener" {
			hide()
			break
		}
		listener.(*net.UnixListener).SetUnlinkOnClose(false)
		file, _ := listener.(*net.UnixListener).File()
		again("server", file)
		os.Exit(0)
	case "server": // as an agent that holds keys
		listener, err := net.FileListener(os.NewFile(3, ""))
		if err != nil {
			panic(err)
		}
		hide()
		for {
			conn, err := listener.Accept()
			if err != nil {
				panic(err)
			}
			_, _ = io.ReadFull(conn, make([]byte, 5))
			_, _ = conn.Write(make([]byte, 9))
			conn.Close()
		}
	}
	<-time.After(time.Minute)
	os.Exit(1)
}

// alone runs the test again in a process of its own, which may not look into what is not
// dumpable, and reports whether this is that process.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv("PROC_TEST_ALONE") != "" {
		return true
	}
	name := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command(os.Args[0], "-test.run="+name, "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), "PROC_TEST_ALONE=1")
	var out []byte
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // it ends with the thread
		for _, capability := range []uintptr{unix.CAP_SYS_PTRACE, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
			_ = unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		}
		out, err = cmd.CombinedOutput()
	}()
	<-done
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "%s", out)
	return false
}

// as starts this binary as another program, with a mark, and returns the number that it or
// what it starts prints.
func as(t *testing.T, what, mark string, attr *syscall.SysProcAttr, env ...string) (pid int) {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), testAs+"="+what, MarkEnv+"="+mark), env...)
	cmd.Stdout, cmd.SysProcAttr = w, attr
	require.NoError(t, cmd.Start())
	w.Close()
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_ = cmd.Wait()
	}()
	_, err = fmt.Fscan(r, &pid)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_ = cmd.Process.Kill()
		<-waited
	})
	if pid != cmd.Process.Pid && !strings.HasPrefix(what, "parent") {
		<-waited
	}
	return pid
}

func isSubreaper(t *testing.T) bool {
	t.Helper()
	var is int32
	require.NoError(t, unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&is)), 0, 0, 0))
	return is != 0
}

func hasGone(pid int) func() bool { return func() bool { return unix.Kill(pid, 0) == unix.ESRCH } }

func TestThisProcessInheritsWhilePodsRun(t *testing.T) {
	if !alone(t) {
		return
	}
	require.True(t, tellsOrphans())
	first, second := BeginRun(), BeginRun()
	assert.True(t, isSubreaper(t))
	first.End()
	first.End()
	assert.True(t, isSubreaper(t), "the other one has not ended")
	second.End()
	assert.False(t, isSubreaper(t))
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	BeginRun().End()
	assert.True(t, isSubreaper(t), "it was one before")
}

// TestOrphansAreReapedAndChildrenAreNot has many of both end at once.
func TestOrphansAreReapedAndChildrenAreNot(t *testing.T) {
	if !alone(t) {
		return
	}
	t.Cleanup(BeginRun().End)
	var all sync.WaitGroup
	defer all.Wait()
	begin := func(f func()) {
		all.Add(1)
		go func() {
			defer all.Done()
			f()
		}()
	}
	for i := range 40 {
		attr := []*syscall.SysProcAttr{nil, {Setpgid: true}, {Setsid: true}}[i%3]
		begin(func() {
			cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf("exit %d", i+1))
			cmd.SysProcAttr = attr
			if !assert.NoError(t, cmd.Start()) {
				return
			}
			if i%2 == 0 { // nobody waits for it while it ends, and others do
				assert.Eventually(t, func() bool { return Ended(cmd.Process.Pid) }, soon, time.Millisecond)
			}
			var exit *exec.ExitError
			assert.ErrorAs(t, cmd.Wait(), &exit)
			assert.Equal(t, i+1, exit.ExitCode())
		})
		begin(func() { // as package spawn starts pods, without a pidfd
			pid, err := Fork(func() (int, error) {
				return syscall.ForkExec("/bin/sh", []string{"sh", "-c", "exit 9"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setpgid: true}})
			})
			if !assert.NoError(t, err) {
				return
			}
			assert.Eventually(t, func() bool { return Ended(pid) }, soon, time.Millisecond)
			var status syscall.WaitStatus
			_, err = syscall.Wait4(pid, &status, 0, nil)
			assert.NoError(t, err)
			assert.Equal(t, 9, status.ExitStatus())
			Reaped(pid)
		})
		begin(func() {
			script := []string{"setsid sleep 0.05 & echo $!", "setsid sh -c 'sleep 0.05 & echo $!'", "set -m; sleep 0.05 & echo $!"}[i%3]
			cmd := exec.Command("/bin/bash", "-c", script)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			r, w, err := os.Pipe()
			if !assert.NoError(t, err) {
				return
			}
			defer r.Close()
			cmd.Stdout = w
			assert.NoError(t, cmd.Run())
			w.Close()
			var pid int
			_, err = fmt.Fscan(r, &pid)
			assert.NoError(t, err)
			assert.Eventually(t, hasGone(pid), soon, time.Millisecond, "%s: somebody may wait until it is gone", script)
		})
	}
}

// TestHiddenProcesses has processes that cannot be looked into.
func TestHiddenProcesses(t *testing.T) {
	if !alone(t) {
		return
	}
	for name, find := range map[string]func(t *testing.T, mark string, run *Run) (pid int, found []Process){
		"descends from a pod that runs": func(t *testing.T, mark string, run *Run) (int, []Process) {
			pid := as(t, "parent of hidden", mark, nil)
			return pid, Find(Match{Mark: mark, Run: run})
		},
		"descended from one that has ended": func(t *testing.T, mark string, run *Run) (int, []Process) {
			pid := as(t, "parent of hidden", mark, nil)
			parent, _ := Lookup(pid)
			run.Pod = Of(parent.Parent)
			m := Match{Mark: mark, Run: run}
			m.Look()
			require.NoError(t, syscall.Kill(parent.Parent, syscall.SIGKILL))
			require.Eventually(t, hasGone(parent.Parent), soon, time.Millisecond)
			return pid, Find(m)
		},
		"is in a session of the pod's": func(t *testing.T, mark string, run *Run) (int, []Process) {
			pid := as(t, "leader", mark, &syscall.SysProcAttr{Setsid: true})
			leader, _ := Lookup(pid)
			run.Pod = ID{PID: leader.Session, Start: leader.Start}
			run.know(Process{ID: run.Pod})
			return pid, Find(Match{Mark: mark, Run: run})
		},
		"listens below the directory": func(t *testing.T, mark string, run *Run) (int, []Process) {
			dir := t.TempDir()
			pid := as(t, "listener", mark, nil, "PROC_TEST_SOCKET="+filepath.Join(dir, "sock"))
			early := Find(Match{Mark: mark, Run: run, Sockets: dir, SocketsBefore: Of(pid).Start})
			assert.Empty(t, early, "it may be a later pod's")
			assert.Empty(t, Find(Match{Mark: mark, Run: run, Sockets: dir + "/other"}))
			run.asked = nil
			return pid, Find(Match{Mark: mark, Run: run, Sockets: dir})
		},
	} {
		t.Run(name, func(t *testing.T) {
			run, mark := BeginRun(), uuid.NewString()
			defer run.End()
			pid, found := find(t, mark, run)
			_, err := environ(pid)
			require.ErrorIs(t, err, os.ErrPermission, "else it does not hide")
			var pids []int
			for _, p := range found {
				pids = append(pids, p.PID)
			}
			require.Contains(t, pids, pid)
			assert.Empty(t, run.Unproven())
			assert.Empty(t, Kill(Match{Mark: mark, Run: run}, time.Now().Add(soon)))
			assert.Eventually(t, hasGone(pid), soon, time.Millisecond)
		})
	}
}

func TestWhatCannotBeProvenIsTold(t *testing.T) {
	if !alone(t) {
		return
	}
	before := BeginRun()
	older := as(t, "hidden daemon", "", nil)
	before.End()
	require.Eventually(t, func() bool { return Ticks() > Of(older).Start }, soon, time.Millisecond)
	run, mark := BeginRun(), uuid.NewString()
	defer run.End()
	pid := as(t, "hidden daemon", mark, nil)
	child := as(t, "hidden", mark, nil)
	group := as(t, "hidden", mark, &syscall.SysProcAttr{Setsid: true})
	assert.Empty(t, Find(Match{Mark: mark, Run: run, Sockets: t.TempDir()}))
	unproven := run.Unproven()
	require.Len(t, unproven, 1, "neither %d, which is older, nor this process's own children %d and %d", older, child, group)
	assert.Equal(t, pid, unproven[0].PID)
	assert.Equal(t, []string{os.Args[0]}, unproven[0].Args)
	assert.Empty(t, Kill(Match{Mark: mark, Run: run}, time.Now().Add(soon)))
	assert.False(t, Ended(pid), "it is not killed")
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	assert.Eventually(t, hasGone(pid), soon, time.Millisecond)
	assert.Empty(t, Find(Match{Mark: mark, Run: run}))
	assert.Empty(t, run.Unproven())
}
