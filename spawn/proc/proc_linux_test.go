//go:build !portable

package proc

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn/safefile"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sleeper starts a process in a group: 0 = one of its own.
func sleeper(t *testing.T, group int) *exec.Cmd {
	t.Helper()
	return start(t, exec.Command("sleep", "1000"), &syscall.SysProcAttr{Setpgid: true, Pgid: group})
}

func start(t *testing.T, cmd *exec.Cmd, attr *syscall.SysProcAttr) *exec.Cmd {
	t.Helper()
	cmd.SysProcAttr = attr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// endsWithin waits for the end of a child of the test, which stays a zombie.
func endsWithin(cmd *exec.Cmd, d time.Duration) bool {
	h, err := Hold(Of(cmd.Process.Pid))
	if err != nil {
		return true
	}
	defer h.Close()
	return h.EndsWithin(d)
}

const (
	soon  = 10 * time.Second
	never = 100 * time.Millisecond
)

func TestLookup(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, 0)
	s, ok := Lookup(cmd.Process.Pid)
	require.True(t, ok)
	assert.Equal(t, os.Getpid(), s.Parent)
	assert.Equal(t, cmd.Process.Pid, s.Group)
	assert.NotZero(t, s.Start)
	assert.False(t, Stopped(cmd.Process.Pid))
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	assert.True(t, StopsWithin(cmd.Process.Pid, soon))
	assert.True(t, Stopped(cmd.Process.Pid))
	require.NoError(t, cmd.Process.Kill())
	require.True(t, endsWithin(cmd, soon))
	assert.True(t, Ended(cmd.Process.Pid), "although nobody has reaped it")
	assert.True(t, Ending(cmd.Process.Pid))
	assert.True(t, ChildEnded(cmd.Process.Pid))
	_ = cmd.Wait()
	assert.True(t, Ended(cmd.Process.Pid))
	assert.Zero(t, Of(cmd.Process.Pid))
}

func TestOnlyAChildIsIdentified(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, 0)
	assert.Equal(t, Of(cmd.Process.Pid), OfChild(cmd.Process.Pid))
	assert.Zero(t, OfChild(os.Getppid()))
}

func TestAge(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	cmd := sleeper(t, 0)
	const old = 100 * time.Millisecond
	require.Eventually(t, func() bool { return age(Of(cmd.Process.Pid).Start) >= old }, soon, time.Millisecond)
	assert.GreaterOrEqual(t, time.Since(begin), old-2*tick)
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	if forks() == 0 {
		t.Skip("/proc does not tell how many processes were made")
	}
	now, pod := forks(), sleeper(t, 0).Process.Pid
	run := func(forks, pid int) *Run { return &Run{forks: forks, Pod: ID{PID: pid}} }
	listed := func(r *Run) []int {
		pids, _ := r.numbers(lastPID())
		return pids
	}
	assert.Contains(t, listed(run(now, pod)), pod)
	if os.Getpid() != 1 {
		assert.NotContains(t, listed(run(now, pod)), 1)
	}
	for name, r := range map[string]*Run{
		"none":                 {},
		"too many":             run(now-1000, pod),
		"the numbers go round": run(now, pod+10000),
		"numbers of another":   run(now, pod-1000),
	} {
		assert.Contains(t, listed(r), os.Getpid(), "%s: then all are listed", name)
	}
}

func TestMembersOfAGroupMatch(t *testing.T) {
	t.Parallel()
	leader := sleeper(t, 0)
	member := sleeper(t, leader.Process.Pid)
	group := Match{Mark: "none", Group: leader.Process.Pid}
	assert.Empty(t, Find(group), "the number is that of a process: it was given away")
	require.NoError(t, leader.Process.Kill())
	_ = leader.Wait()
	found := Find(group)
	require.Len(t, found, 1)
	assert.Equal(t, member.Process.Pid, found[0].PID)
	assert.Equal(t, []string{"sleep", "1000"}, found[0].Args)
	require.NoError(t, member.Process.Kill())
	require.True(t, endsWithin(member, soon))
	assert.Empty(t, Find(group), "it has ended, and was not reaped")
}

func TestMarkedProcessesMatch(t *testing.T) {
	t.Parallel()
	mark := uuid.NewString()
	cmd := exec.Command("sleep", "1000")
	cmd.Env = append(os.Environ(), MarkEnv+"="+mark+"/1/2/")
	start(t, cmd, nil)
	var found []Process
	require.Eventually(t, func() bool { found = Find(Match{Mark: mark + "/1/"}); return len(found) == 1 }, soon, time.Millisecond)
	assert.Equal(t, cmd.Process.Pid, found[0].PID)
	assert.Equal(t, mark+"/1/2/", found[0].Mark)
	assert.Empty(t, Find(Match{Mark: mark + "/2/"}))
	assert.Empty(t, Find(Match{}))
}

func TestProcessWithALogAsStderrMatches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "stderr.log"))
	require.NoError(t, err)
	defer log.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.Stderr = log
	start(t, cmd, nil)
	found := Find(Match{Logs: dir})
	require.Len(t, found, 1)
	assert.Equal(t, cmd.Process.Pid, found[0].PID)
	assert.Empty(t, Find(Match{Logs: dir[:len(dir)-1]}), "its directory is another one")
	assert.Len(t, Find(Match{Logs: dir, LogsSince: found[0].Start}), 1)
	assert.Empty(t, Find(Match{Logs: dir, LogsSince: found[0].Start + 1}), "the log of an older process was moved there")
}

// TestOrphan runs itself as a brother of the processes that it looks at.
func TestOrphan(t *testing.T) {
	if pids := os.Getenv("PROC_TEST_PIDS"); pids != "" {
		var leader, member, sessionLeader int
		_, err := fmt.Sscan(pids, &leader, &member, &sessionLeader)
		require.NoError(t, err)
		m := Match{OrphanSince: Of(leader).Start}
		own := sleeper(t, 0).Process.Pid
		fmt.Println("orphans", m.isOrphan(leader), m.isOrphan(member), m.isOrphan(sessionLeader), m.isOrphan(own),
			Match{OrphanSince: m.OrphanSince + 1}.isOrphan(leader), Match{}.isOrphan(leader))
		return
	}
	t.Parallel()
	leader := sleeper(t, 0).Process.Pid
	member := sleeper(t, leader).Process.Pid
	daemon := start(t, exec.Command("sleep", "1000"), &syscall.SysProcAttr{Setsid: true}).Process.Pid
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), fmt.Sprint("PROC_TEST_PIDS=", leader, " ", member, " ", daemon))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "orphans true false false false false false\n",
		"not: a member of its group, the leader of a session, the child of another, an older one, any while no start is under way")
}

// handles returns a process in both ways in which one can be held.
func handles(t *testing.T, pid int) map[string]*Handle {
	t.Helper()
	h, err := Hold(Of(pid))
	require.NoError(t, err)
	t.Cleanup(h.Close)
	return map[string]*Handle{"pidfd": h, "number": newHandle(h.ID, -1)}
}

func TestHeldProcessIsHit(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pidfd", "number"} {
		leader := sleeper(t, 0)
		member := sleeper(t, leader.Process.Pid)
		h := handles(t, leader.Process.Pid)[kind]
		assert.False(t, h.Ended(), kind)
		assert.False(t, h.EndsWithin(10*time.Millisecond), kind)
		require.NoError(t, h.Signal(0))
		h.KillGroup()
		assert.True(t, h.EndsWithin(soon), kind)
		assert.True(t, endsWithin(member, soon), "%s: the whole group", kind)
		_ = leader.Wait()
		assert.True(t, h.Ended(), kind)
		assert.ErrorIs(t, h.Signal(unix.SIGKILL), os.ErrProcessDone, kind)
	}
}

func TestHeldMemberOfAGroupIsHitAlone(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"pidfd", "number"} {
		leader := sleeper(t, 0)
		member := sleeper(t, leader.Process.Pid)
		handles(t, member.Process.Pid)[kind].KillGroup()
		assert.True(t, endsWithin(member, soon), kind)
		assert.False(t, endsWithin(leader, never), kind)
	}
}

func TestLaterProcessIsNotHit(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, 0)
	id := Of(cmd.Process.Pid)
	id.Start-- // as an earlier one of the number
	_, err := Hold(id)
	assert.ErrorIs(t, err, os.ErrProcessDone)
	h := newHandle(id, -1)
	assert.ErrorIs(t, h.Signal(unix.SIGKILL), os.ErrProcessDone)
	h.KillGroup()
	assert.True(t, h.Ended())
	assert.False(t, endsWithin(cmd, never))
}

// comets are programs that fork and exit all the time, for half a minute: in one session, in
// a new one each time.
var comets = map[string]string{
	"session":  "import os, time\nend = time.time() + 30\nos.setsid()\nwhile time.time() < end:\n  if os.fork(): os._exit(0)\n",
	"sessions": "import os, time\nend = time.time() + 30\nwhile time.time() < end:\n  if os.fork(): os._exit(0)\n  os.setsid()\n",
}

func TestRestlessProcess(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3: its fork is slow enough to be looked at")
	}
	for kind, program := range comets {
		t.Run(kind, func(t *testing.T) { // not beside the other: each of them keeps a core busy
			mark := uuid.NewString()
			m := Match{Mark: mark}
			t.Cleanup(func() { Kill(m, time.Now().Add(soon)) })
			cmd := exec.Command(python, "-c", program)
			cmd.Env = append(os.Environ(), MarkEnv+"="+mark)
			require.NoError(t, cmd.Start())
			require.NoError(t, cmd.Wait())
			var found []Process
			require.Eventually(t, func() bool { found = Lasting(m, never); return len(found) > 0 }, soon, time.Millisecond)
			assert.Equal(t, mark, found[0].Mark)
			assert.Empty(t, Kill(m, time.Now().Add(2*soon)))
			assert.Empty(t, Find(m))
		})
	}
}

// podDir makes a pod directory, its log and an open socket.
func podDir(t *testing.T) (path string, dir *safefile.Dir) {
	t.Helper()
	path, err := os.MkdirTemp("", "p")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(path) })
	dir, err = safefile.OpenDir(path)
	require.NoError(t, err)
	t.Cleanup(func() { dir.Close() })
	require.NoError(t, os.WriteFile(path+"/stderr.log", nil, 0o600))
	return path, dir
}

// own returns who OwnerOf says is behind a directory; 0 = nobody.
func own(t *testing.T, dir *safefile.Dir, launch time.Time, mark string) (int, Owner) {
	t.Helper()
	o := OwnerOf(dir, dir.Name()+"/sock", launch, mark)
	if o.Handle == nil {
		require.Error(t, o.Unknown)
		return 0, o
	}
	defer o.Handle.Close()
	return o.Handle.PID, o
}

func TestOwnerByItsStderr(t *testing.T) {
	t.Parallel()
	path, dir := podDir(t)
	log, err := os.OpenFile(path+"/stderr.log", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer log.Close()
	pod := exec.Command("sleep", "1000")
	pod.Stderr = log
	start(t, pod, nil)
	require.NoError(t, os.WriteFile(path+"/pid", fmt.Appendln(nil, pod.Process.Pid), 0o600))
	pid, o := own(t, dir, time.Time{}, "")
	assert.Equal(t, pod.Process.Pid, pid)
	assert.False(t, o.Listens)
	assert.ErrorIs(t, o.Err, unix.ENOENT)
	pid, o = own(t, dir, time.Now().Add(time.Second), "")
	assert.Zero(t, pid, "it is older than the launch")
	assert.ErrorContains(t, o.Unknown, "or it is older than the pod")

	stranger := sleeper(t, 0)
	require.NoError(t, os.WriteFile(path+"/pid", fmt.Appendln(nil, stranger.Process.Pid), 0o600))
	pid, o = own(t, dir, time.Time{}, "")
	assert.Zero(t, pid)
	assert.ErrorContains(t, o.Unknown, fmt.Sprintf("process %d, which its file pid names, is not known to be the pod", stranger.Process.Pid))
	assert.Equal(t, stranger.Process.Pid, o.Named)
}

func TestLogOfAnotherPodProvesNothing(t *testing.T) {
	t.Parallel()
	path, _ := podDir(t)
	log, err := os.OpenFile(path+"/stderr.log", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer log.Close()
	pod := exec.Command("sleep", "1000")
	pod.Stderr = log
	start(t, pod, nil)
	other, dir := podDir(t)
	require.NoError(t, os.WriteFile(other+"/pid", fmt.Append(nil, pod.Process.Pid), 0o600))
	require.NoError(t, os.Remove(other+"/stderr.log"))
	require.NoError(t, os.Link(path+"/stderr.log", other+"/stderr.log"))
	pid, _ := own(t, dir, time.Now().Add(-time.Hour), "")
	assert.Zero(t, pid, "it has the log open by another name")

	require.NoError(t, os.WriteFile(path+"/pid", fmt.Append(nil, pod.Process.Pid), 0o600))
	dir, err = safefile.OpenDir(path)
	require.NoError(t, err)
	defer dir.Close()
	pid, _ = own(t, dir, time.Now().Add(-time.Hour), "")
	assert.Equal(t, pod.Process.Pid, pid, "its own directory has its own name")
}

func TestOwnerByItsMark(t *testing.T) {
	t.Parallel()
	path, dir := podDir(t)
	mark := uuid.NewString()
	pod := exec.Command("sleep", "1000")
	pod.Env = append(os.Environ(), MarkEnv+"="+mark+"/1/")
	start(t, pod, nil)
	require.NoError(t, os.WriteFile(path+"/pid", fmt.Append(nil, pod.Process.Pid), 0o600))
	require.Eventually(t, func() bool { return hasMark(pod.Process.Pid, mark) }, soon, time.Millisecond, "its program has begun")
	pid, _ := own(t, dir, time.Time{}, mark)
	assert.Equal(t, pod.Process.Pid, pid)
	pid, _ = own(t, dir, time.Time{}, "another")
	assert.Zero(t, pid)
	pid, _ = own(t, dir, time.Time{}, "")
	assert.Zero(t, pid)
}

// TestOwnerByItsSocket runs itself as a process that listens.
func TestOwnerByItsSocket(t *testing.T) {
	if path := os.Getenv("PROC_TEST_SOCKET"); path != "" {
		_, err := net.Listen("unix", path)
		fmt.Println("listens", err)
		<-time.After(time.Minute)
		return
	}
	t.Parallel()
	path, dir := podDir(t)
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "PROC_TEST_SOCKET="+path+"/sock")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	start(t, cmd, nil)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "listens <nil>\n", line)
	pid, o := own(t, dir, time.Now().Add(-time.Hour), "")
	assert.True(t, o.Listens)
	assert.NoError(t, o.Err)
	assert.Equal(t, cmd.Process.Pid, pid)

	self, selfDir := podDir(t)
	listener, err := net.Listen("unix", self+"/sock")
	require.NoError(t, err)
	defer listener.Close()
	pid, _ = own(t, selfDir, time.Now().Add(-time.Hour), "")
	assert.Zero(t, pid, "this process is nobody's pod")

	other, dir := podDir(t)
	for name, at := range map[string]func() error{
		"link":      func() error { return os.Symlink(path+"/sock", other+"/sock") },
		"hard link": func() error { return os.Link(path+"/sock", other+"/sock") },
	} {
		require.NoError(t, at(), name)
		pid, o := own(t, dir, time.Now().Add(-time.Hour), "")
		assert.Zero(t, pid, name)
		assert.False(t, o.Listens, name)
		require.NoError(t, os.Remove(other+"/sock"))
	}
	o = OwnerOf(dir, other+"/../"+filepath.Base(path)+"/sock", time.Time{}, "")
	assert.Nil(t, o.Handle, "it is not in the directory")
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, 0)
	var text strings.Builder
	Describe(&text, []Process{{ID: Of(cmd.Process.Pid), Args: []string{"a", "\x1b"}}}, func(p Process) string { return strings.Join(p.Args, "+") })
	assert.Regexp(t, fmt.Sprintf(`^1 processes alive\n%d  [SRD] .*, group %d, session \d+, 0s old: a\+\\x1b\n    fd 0: /dev/null\n`, cmd.Process.Pid, cmd.Process.Pid), text.String())
	assert.Contains(t, text.String(), "\n    thread ")
	assert.True(t, bytes.HasSuffix([]byte(text.String()), []byte("\n")))
}

func TestAncestors(t *testing.T) {
	t.Parallel()
	above := Ancestors()
	require.NotEmpty(t, above)
	assert.Equal(t, Of(os.Getppid()), above[0].ID)
	assert.Equal(t, CommandLine(os.Getppid()), above[0].Args)
	for i, p := range above[1:] {
		assert.GreaterOrEqual(t, p.Age, above[i].Age-20*time.Millisecond, "who descends from it is younger")
	}
}
