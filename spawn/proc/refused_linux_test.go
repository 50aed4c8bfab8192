//go:build !portable

package proc

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"example.com/podharness/spawn/podlog"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A refusal has a system call fail, as seccomp profiles do.
type refusal struct {
	call   uint32
	third  uint32 // the third argument that it must have; 0 = any
	reason syscall.Errno
}

// refuse has system calls of this process fail from now on.
func refuse(t *testing.T, refusals ...refusal) {
	t.Helper()
	const number, third = 0, 32 // in struct seccomp_data
	var filter []unix.SockFilter
	for _, r := range refusals {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number})
		if r.third == 0 {
			filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ, Jf: 1, K: r.call})
		} else {
			filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ, Jf: 3, K: r.call},
				unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: third}, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ, Jf: 1, K: r.third})
		}
		filter = append(filter, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(r.reason)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	require.NoError(t, unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	const allThreads = 1 // SECCOMP_FILTER_FLAG_TSYNC
	if _, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, allThreads, uintptr(unsafe.Pointer(&program))); err != 0 {
		t.Skipf("seccomp: %v", err)
	}
}

// useUp opens files until no descriptor is left.
func useUp(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}))
	for {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			return
		}
	}
}

// TestProcessesEndWhereNothingHoldsThem ends processes without what pidfds need.
func TestProcessesEndWhereNothingHoldsThem(t *testing.T) {
	open, signal := uint32(unix.SYS_PIDFD_OPEN), uint32(unix.SYS_PIDFD_SEND_SIGNAL)
	for name, begin := range map[string]func(t *testing.T){
		"pidfd_open EPERM":         func(t *testing.T) { refuse(t, refusal{open, 0, unix.EPERM}) },
		"pidfd_open ENOSYS":        func(t *testing.T) { refuse(t, refusal{open, 0, unix.ENOSYS}) },
		"pidfd_send_signal EPERM":  func(t *testing.T) { refuse(t, refusal{signal, 0, unix.EPERM}) },
		"pidfd_send_signal ENOSYS": func(t *testing.T) { refuse(t, refusal{signal, 0, unix.ENOSYS}) },
		"pidfd_send_signal EACCES": func(t *testing.T) { refuse(t, refusal{signal, 0, unix.EACCES}) },
		"both EPERM":               func(t *testing.T) { refuse(t, refusal{open, 0, unix.EPERM}, refusal{signal, 0, unix.EPERM}) },
		"no descriptor":            useUp,
	} {
		t.Run(name, func(t *testing.T) {
			if !alone(t) {
				return
			}
			mark := uuid.NewString()
			var children []*exec.Cmd
			for _, attr := range []*syscall.SysProcAttr{nil, {Setpgid: true}, {Setsid: true}} {
				cmd := exec.Command("sleep", "1000")
				cmd.Env = append(os.Environ(), MarkEnv+"="+mark)
				children = append(children, start(t, cmd, attr))
			}
			begin(t)
			require.Len(t, Find(Match{Mark: mark}), 3)

			h, err := Hold(Of(children[1].Process.Pid))
			require.NoError(t, err)
			assert.Len(t, Lasting(Match{Mark: mark}, never), 3, "they have not ended")
			var before, after unix.Rusage
			require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &before))
			assert.False(t, h.EndsWithin(3*never))
			require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &after))
			assert.Less(t, time.Duration(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano()), 2*never, "CPU time: it waits, and is not busy")
			assert.NoError(t, h.Signal(0))
			later := newHandle(ID{h.PID, h.Start + 1}, -1)
			assert.ErrorIs(t, later.Signal(unix.SIGKILL), os.ErrProcessDone, "the number is another process's")

			begun := time.Now()
			assert.Empty(t, Kill(Match{Mark: mark}, time.Now().Add(soon)))
			assert.Less(t, time.Since(begun), soon/2)
			for _, child := range children {
				assert.True(t, Ended(child.Process.Pid), "what was said to be killed is gone")
			}
			assert.True(t, h.Ended())
			assert.ErrorIs(t, h.Signal(unix.SIGKILL), nil, "a zombie")
			_ = children[1].Wait()
			assert.ErrorIs(t, h.Signal(unix.SIGKILL), os.ErrProcessDone)
			h.KillGroup()
		})
	}
}

func TestListenerIsKnownWhereItsPidfdIsRefused(t *testing.T) {
	for name, r := range map[string]refusal{
		"SO_PEERPIDFD": {unix.SYS_GETSOCKOPT, unix.SO_PEERPIDFD, unix.ENOPROTOOPT},
		"getsockopt":   {unix.SYS_GETSOCKOPT, 0, unix.EPERM},
	} {
		t.Run(name, func(t *testing.T) {
			if !alone(t) {
				return
			}
			path, dir := podDir(t)
			pid := as(t, "lasting listener", "", nil, "PROC_TEST_SOCKET="+path+"/sock")
			ended, dirOfEnded := podDir(t)
			server := as(t, "listener", "", nil, "PROC_TEST_SOCKET="+ended+"/sock")
			refuse(t, r)
			_, o := own(t, dir, time.Now().Add(-time.Hour), "")
			assert.NoError(t, o.Err)
			assert.True(t, o.Listens)
			known, err := Listener(path + "/sock")
			assert.NoError(t, err, "it listens, whoever that is")
			_, err = os.Stat(path + "/" + podlog.LogName)
			require.NoError(t, err)
			if r.third == 0 {
				assert.Zero(t, known)
				return
			}
			assert.Equal(t, pid, known)
			owner, _ := own(t, dir, time.Now().Add(-time.Hour), "")
			assert.Equal(t, pid, owner)
			owner, _ = own(t, dirOfEnded, time.Now().Add(-time.Hour), "")
			assert.Zero(t, owner, "process %d serves for another one, which has ended", server)
		})
	}
}
