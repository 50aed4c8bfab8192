//go:build !portable && (amd64 || arm64)

package harness

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/proc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// underFaultsArg is the first argument of this test binary as a test that runs under faults.
const underFaultsArg = "harness-under-faults"

func init() {
	reexec.Register(underFaultsArg, func(args []string) int { return testUnderFaults(args[0], args[1], args[2]) })
}

// testUnderFaults is a test with one pod, which passes or fails by itself. It prints what it logs.
func testUnderFaults(outcome, podProgram, artifacts string) int {
	tb := &FakeTB{TestName: "TestUnderFaults", Artifacts: artifacts}
	tb.Run(func() {
		command := FakePod("ready")
		command.Program = podProgram
		pod := StartPod(tb, Config{Name: "alpha", Command: command, ReadyTimeout: 8 * time.Second, StopGrace: 2 * time.Second})
		if answer := pod.Send(`{"method":"ping"}`, 5*time.Second); !strings.Contains(answer, "pong") {
			tb.Errorf("the answer is %q", answer)
		}
		if outcome == "fails" {
			tb.Errorf("the test's own failure")
		} else if err := pod.Stop(); err != nil {
			tb.Errorf("stop: %v", err)
		}
	})
	text := tb.End()
	_, _ = os.Stdout.WriteString(text)
	return map[bool]int{true: 1}[tb.Failed()]
}

// troubles has the errors that a family's calls meet.
var troubles = map[string][]syscall.Errno{
	"open": {unix.EMFILE, unix.ENOSPC, unix.EACCES}, "read": {unix.EIO, unix.EINTR}, "write": {unix.ENOSPC, unix.EINTR}, "truncate": {unix.EIO},
	"lock": {unix.ENOLCK, unix.EINTR}, "fcntl": {unix.EMFILE}, "ioctl": {unix.EIO}, "mkdir": {unix.ENOSPC}, "rename": {unix.ENOSPC}, "unlink": {unix.EACCES}, "link": {unix.ENOSPC},
	"readlink": {unix.EACCES}, "stat": {unix.EACCES}, "access": {unix.EACCES}, "readdir": {unix.EIO}, "chmod": {unix.EPERM}, "chdir": {unix.EACCES}, "dup": {unix.EBADF},
	"pipe": {unix.EMFILE}, "socket": {unix.EMFILE}, "connect": {unix.ECONNREFUSED, unix.EACCES}, "send": {unix.EPIPE}, "recv": {unix.ECONNRESET}, "sockopt": {unix.ENOBUFS},
	"inotify": {unix.EMFILE, unix.ENOSPC}, "epoll_ctl": {unix.ENOMEM}, "fork": {unix.EAGAIN}, "exec": {unix.ENOMEM}, "wait": {unix.EINTR, unix.ECHILD},
	"kill": {unix.EPERM}, "pidfd": {unix.EMFILE}, "group": {unix.EPERM},
}

// A trouble is one run: a call that meets an error, or at which its process is killed.
type trouble struct {
	outcome string
	fault   fault.Fault
	strike  fault.Strike // as it was observed
	before  bool         // it was made before the test's process ended
}

func (t trouble) String() string { return t.outcome + " " + t.fault.String() }

// ran is what came of a run.
type ran struct {
	*fault.Session
	pid    int
	status syscall.WaitStatus
	ended  time.Time
	text   string
	files  []string // of the evidence
	left   []string
}

// runUnderFaults runs the test under faults. All of it ends in a bounded time.
func runUnderFaults(t *testing.T, pod, outcome string, faults []fault.Fault) (r ran) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pf")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	artifacts, temp := filepath.Join(dir, "artifacts"), filepath.Join(dir, "tmp")
	require.NoError(t, os.Mkdir(artifacts, 0o700))
	require.NoError(t, os.Mkdir(temp, 0o700))
	output, err := os.Create(filepath.Join(dir, "output"))
	require.NoError(t, err)
	defer output.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	r.Session, err = fault.New(faults, nil)
	require.NoError(t, err)
	r.Except = pod
	env := append(slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "PODHARNESS_") || strings.HasPrefix(entry, "TMPDIR=") // the first of two counts
	}), "TMPDIR="+temp, "GORACE=atexit_sleep_ms=0")
	r.pid, err = r.Start("/proc/self/exe", []string{os.Args[0], underFaultsArg, outcome, pod, artifacts},
		&syscall.ProcAttr{Dir: dir, Env: env, Files: []uintptr{null.Fd(), output.Fd(), output.Fd()}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	require.NoError(t, err)
	const most = 30 * time.Second
	late := time.AfterFunc(most, func() { _ = unix.Kill(r.pid, unix.SIGKILL) })
	for err = unix.EINTR; err == unix.EINTR; {
		_, err = unix.Wait4(r.pid, (*unix.WaitStatus)(&r.status), 0, nil)
	}
	require.NoError(t, err)
	r.ended = time.Now()
	if !late.Stop() {
		r.left = append(r.left, fmt.Sprintf("the test did not end within %v", most))
	}
	select {
	case <-r.Done():
	case <-time.After(40 * time.Second): // twice the watchdog's bounds
		for _, pid := range proc.All() {
			env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if bytes.Contains(env, []byte(dir)) {
				r.left = append(r.left, fmt.Sprintf("process %d %q", pid, proc.CommandLine(pid)))
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		<-r.Done()
	}
	roots, err := filepath.Glob(filepath.Join(temp, "*"))
	require.NoError(t, err)
	if tr := faults[0]; tr.Signal != 0 { // before there is a watchdog, nobody removes the root of the sandboxes
		roots, err = filepath.Glob(filepath.Join(temp, "*/1"))
		require.NoError(t, err)
	}
	for _, root := range roots {
		r.left = append(r.left, strings.TrimPrefix(root, temp))
	}
	_ = filepath.WalkDir(artifacts, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			r.files = append(r.files, entry.Name())
		}
		return nil
	})
	text, err := os.ReadFile(output.Name())
	require.NoError(t, err)
	r.text = string(text)
	return r
}

// podCopy returns the path of this binary again, which is another program.
func podCopy(t *testing.T) string {
	self, err := os.Open("/proc/self/exe")
	require.NoError(t, err)
	defer self.Close()
	path := filepath.Join(t.TempDir(), "pod")
	pod, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	require.NoError(t, err)
	_, err = io.Copy(pod, self)
	require.NoError(t, err)
	require.NoError(t, pod.Close())
	for range 100 { // what another test forks may have it open for writing
		if err := exec.Command(path, "-test.list=^$").Run(); err == nil {
			break
		}
	}
	return path
}

// notOurs matches what the loader and the runtime of Go are on, and what a fake test prints.
var notOurs = regexp.MustCompile(`^/(sys|usr/lib|lib|etc/ld)|^anon_inode:\[event|/output$`)

var number = regexp.MustCompile(`[0-9]{3,}`)

// patternOf returns a pattern for a path in another run.
func patternOf(path string) string {
	if !filepath.IsAbs(path) {
		return "*" + number.ReplaceAllString(fault.Quote(path), "*")
	}
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if parts[i] = number.ReplaceAllString(fault.Quote(part), "*"); strings.HasPrefix(part, "pf") {
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

// observe returns the runs for the calls of a healthy one. Of calls that are alike it has the
// first, the one in the middle and the last.
func observe(t *testing.T, pod, outcome string) (all []trouble, healthy ran) {
	var faults []fault.Fault
	families := slices.Sorted(maps.Keys(troubles))
	for _, family := range families {
		faults = append(faults, fault.Fault{Calls: family})
	}
	healthy = runUnderFaults(t, pod, outcome, faults)
	require.Equal(t, map[string]int{"passes": 0, "fails": 1}[outcome], healthy.status.ExitStatus(), healthy.text)
	require.NoError(t, healthy.Err())
	require.Empty(t, healthy.left)
	strikes := healthy.Strikes()
	require.Less(t, len(strikes), 10_000)
	alike := map[[2]string][]fault.Strike{}
	for _, s := range strikes {
		key := [2]string{families[s.Fault]}
		if len(s.Paths) > 0 {
			last := s.Paths[len(s.Paths)-1]
			if key[1] = patternOf(last); notOurs.MatchString(last) {
				continue
			}
		}
		alike[key] = append(alike[key], s)
	}
	for key, strikes := range alike {
		for _, i := range slices.Compact([]int{0, len(strikes) / 2, len(strikes) - 1}) {
			point := trouble{outcome: outcome, strike: strikes[i], before: strikes[i].Time.Before(healthy.ended)}
			f := fault.Fault{Calls: key[0], Path: key[1], When: i + 1}
			for _, errno := range troubles[key[0]] {
				if errno == unix.EIO && strings.HasPrefix(key[1], "*pipe") {
					continue // os/exec waits then for the end of what it has started, and pipes have no such error
				}
				point.fault = f
				point.fault.Error = errno
				all = append(all, point)
			}
			point.fault = f
			point.fault.Signal = unix.SIGKILL
			all = append(all, point)
		}
	}
	slices.SortFunc(all, func(a, b trouble) int { return strings.Compare(a.String(), b.String()) })
	return all, healthy
}

// blames matches what would be said of a pod that does wrong.
var blames = regexp.MustCompile("did not become ready|exited before|malformed ready line|under another name|ended by itself|left processes behind")

// wrong returns what a run has shown to be wrong.
func (tr trouble) wrong(r, healthy ran) (wrong []string) {
	crashed := strings.Contains(r.text, "fatal error: ") || strings.Contains(r.text, "runtime: ") // the runtime itself, perhaps before there was a watchdog
	gone := tr.fault.Signal != 0 && !tr.before                                                    // nobody is there who removes what a killed watchdog does not
	for _, left := range r.left {
		if !crashed && !gone || !strings.HasPrefix(left, "/") {
			wrong = append(wrong, "left: "+left)
		}
	}
	if crashed || r.status.Signaled() && tr.fault.Signal != 0 {
		return wrong
	}
	if tr.fault.Error != 0 && blames.MatchString(r.text) {
		wrong = append(wrong, "it blames the pod")
	}
	says := tr.fault.Error != 0 && strings.Contains(r.text, tr.fault.Error.Error())
	switch status := r.status.ExitStatus(); {
	case strings.Contains(r.text, "panic:") || strings.Contains(r.text, "goroutine "):
		wrong = append(wrong, "panic")
	case status == healthy.status.ExitStatus() && tr.outcome == "passes":
	case status == 1 && tr.outcome == "passes" && !says && tr.fault.Error != 0:
		wrong = append(wrong, "it fails without a word of what failed")
	case status != 0 && status != 1:
		wrong = append(wrong, fmt.Sprintf("status %d", status))
	}
	if tr.outcome == "fails" && len(r.files) < len(healthy.files) && !says && strings.Contains(r.text, "own failure") {
		wrong = append(wrong, fmt.Sprintf("evidence is missing without a word: %q of %q", r.files, healthy.files))
	}
	return wrong
}

// TestUnderFaults has each system call of a test with a pod, and of its watchdog, fail once, or
// be the one at which its process is killed. It tries some. With PODHARNESS_LONG=1 it tries all,
// and with PODHARNESS_TROUBLE those whose name has that in it, of which it tells what comes.
func TestUnderFaults(t *testing.T) {
	needFaults(t)
	pod, only := podCopy(t), os.Getenv("PODHARNESS_TROUBLE")
	for _, outcome := range []string{"passes", "fails"} {
		all, healthy := observe(t, pod, outcome)
		step := max(1, len(all)/24)
		if os.Getenv("PODHARNESS_LONG") != "" {
			step = 1
		}
		for i, tr := range all {
			if only != "" && !strings.Contains(tr.String(), only) || only == "" && i%step != step/2 {
				continue
			}
			t.Run(tr.String(), func(t *testing.T) {
				t.Parallel()
				r := runUnderFaults(t, pod, tr.outcome, []fault.Fault{tr.fault})
				wrong := tr.wrong(r, healthy)
				if len(r.Strikes()) == 0 {
					t.Log("the call did not come")
				}
				if len(wrong) > 0 || only != "" {
					assert.Empty(t, wrong)
					t.Logf("observed as %s\n%v\nstatus %v\n%s", tr.strike, r.Strikes(), r.status, r.text)
				}
			})
		}
	}
}
