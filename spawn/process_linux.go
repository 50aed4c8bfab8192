//go:build !portable

package spawn

import (
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// forkExec starts a process that inherits attr.Files and no other descriptor.
//
// Descriptors that this process got without close-on-exec, from whoever started
// it, would be passed on. Their flag is left alone, since other children may be
// meant to have them: where there are some, it is set in a copy of the descriptor table, that
// of a thread which ends then. Until it has, a moment after this returns, the copy
// holds open what is closed meanwhile, as a child does until its exec.
func forkExec(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if !proc.MayHoldInheritable() {
		return syscall.ForkExec(program, argv, attr)
	}
	// A timer with a function has the runtime open the descriptors of its poller,
	// if it has not yet: it must find them in the copy.
	time.AfterFunc(time.Hour, func() {}).Stop()
	onThreadToEnd(func() {
		if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_UNSHARE|unix.CLOSE_RANGE_CLOEXEC) != nil {
			// Before Linux 5.11.
			attr.Files = closingInheritable(attr.Files)
		}
		pid, err = syscall.ForkExec(program, argv, attr)
	})
	return pid, err
}

// onThreadToEnd runs f on a thread that ends then, and waits for f.
func onThreadToEnd(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A goroutine that ends locked ends its thread.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// The main thread alone does not end. While it is locked, this is run
		// elsewhere.
		onThreadToEnd(f)
		runtime.UnlockOSThread()
	}()
	<-done
}

// watchExit returns a function that returns once the process has ended and can
// be reaped, and leaves that to others. It waits on a pidfd through the runtime's
// poller: a blocking wait would hold a thread for every live pod. It returns nil
// where there is no pidfd (Linux before 5.10, no descriptor left).
func watchExit(pid int) func() {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	return func() {
		defer file.Close()
		if conn, err := file.SyscallConn(); err == nil {
			_ = conn.Read(func(fd uintptr) bool {
				ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
				n, err := unix.Poll(ready, 0)
				return n > 0 || err != nil && err != unix.EINTR
			})
		}
		// A tracer, such as a debugger, keeps one that has ended to itself until
		// it has looked.
		for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
	}
}

// stopSignal returns the signal that has stopped a child; 0 = that is not known.
func stopSignal(pid int) syscall.Signal {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOWAIT|unix.WNOHANG, nil); err != nil || info.Signo != int32(unix.SIGCHLD) {
		return 0
	}
	// si_status follows the number of the process and that of its user (sigaction(2)).
	fields := (*struct {
		signo, errno, code int32
		_                  [0]uintptr
		pid, uid, status   int32
	})(unsafe.Pointer(&info))
	return syscall.Signal(fields.status)
}

// isNoexec reports whether no program of the file system of a path can be executed.
func isNoexec(path string) bool {
	var disk unix.Statfs_t
	return unix.Statfs(path, &disk) == nil && disk.Flags&unix.ST_NOEXEC != 0
}

// isKilled reports whether a process was sent SIGKILL, and is only about to end.
func isKilled(pid int) bool {
	for _, field := range []string{"SigPnd", "ShdPnd"} {
		pending, err := strconv.ParseUint(proc.Status(pid, field), 16, 64)
		if err == nil && pending&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}
