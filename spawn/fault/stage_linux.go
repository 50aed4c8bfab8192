//go:build !portable && (amd64 || arm64)

package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// stageName is the first word on the command line of a child that is this executable still.
// An order follows, then the program and its arguments.
const stageName = "podharness-fault"

// control is the descriptor by which the child tells what it has done: its words are two
// numbers, and the listener comes with those of the filter. Its end tells of the exec.
const control = 3

// An order is what the child needs to know.
type order struct {
	Calls []uint32
	// Pass is in the last argument register of what the child itself calls under the
	// filter, which lets these calls through. Nobody else has it there.
	Pass uint64
	// Blocked and Ignored are the sets of signals that Go would alter, as the started
	// program gets them.
	Blocked, Ignored uint64
	Killable         bool // calls that wait are not interrupted, where the kernel can do that
}

// newOrder must be called on the thread that forks.
func newOrder(numbers []uint32, pass uint64) order {
	set := func(field string) uint64 {
		text, _ := os.ReadFile("/proc/thread-self/status")
		_, value, _ := strings.Cut(string(text), "\n"+field+":\t")
		value, _, _ = strings.Cut(value, "\n")
		set, _ := strconv.ParseUint(value, 16, 64)
		return set
	}
	return order{Calls: numbers, Pass: pass, Blocked: set("SigBlk"), Ignored: set("SigIgn"), Killable: killable}
}

// killable is false in a test of kernels that cannot do it.
var killable = true

func init() {
	if len(os.Args) > 3 && os.Args[0] == stageName {
		beProgram()
	}
}

// beProgram becomes the program, under the filter. Once there is a filter, it does nothing
// but call the system, and has the pass in each call: nothing else of the runtime runs on
// this thread then, and whatever runs on others has no filter.
func beProgram() {
	for _, fd := range proc.Inheritable() {
		unix.CloseOnExec(fd)
	}
	var o order
	environ, err := os.ReadFile("/proc/self/environ") // os.Environ leaves some out
	if err == nil {
		err = json.Unmarshal([]byte(os.Args[1]), &o)
	}
	if err != nil {
		tell(0, unix.EINVAL)
		syscall.Exit(1)
	}
	program, _ := syscall.BytePtrFromString(os.Args[2]) // what came as arguments has no NUL
	argv, _ := syscall.SlicePtrFromStrings(os.Args[3:])
	envv, _ := syscall.SlicePtrFromStrings(slices.DeleteFunc(strings.Split(string(environ), "\x00"), func(entry string) bool { return entry == "" }))
	_ = syscall.Exec("", nil, nil) // fails, but first gives back the limit on open files that Go has raised
	for sig := range 64 {
		if o.Ignored&(1<<sig) != 0 {
			ignore := [4]uint64{1} // SIG_IGN, in a sigaction
			_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig+1), uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
		}
	}
	filter := filterFor(o)
	message := newMessage()
	all, word := ^uint64(0), [2]uint64{0, uint64(uintptr(unsafe.Pointer(&o.Pass)))}
	message.iov.Base = (*byte)(unsafe.Pointer(&word))
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)

	fd, flags, errno := take(filter, o.Killable)
	if errno == unix.EACCES {
		_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
		if errno == 0 {
			fd, flags, errno = take(filter, o.Killable)
			flags |= noNewPrivs
		}
	}
	word[0] = flags
	if errno != 0 {
		tell(0, errno)
		syscall.Exit(1)
	}
	*message.fd = int32(fd)
	pass := uintptr(o.Pass)
	if _, _, errno := syscall.RawSyscall6(unix.SYS_SENDMSG, control, uintptr(unsafe.Pointer(&message.Msghdr)), 0, 0, 0, pass); errno == 0 {
		_, _, _ = syscall.RawSyscall6(unix.SYS_READ, control, uintptr(unsafe.Pointer(&word)), 1, 0, 0, pass) // it is looked at as long as it is here
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&o.Blocked)), 0, 8, 0, pass)
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVE, uintptr(unsafe.Pointer(program)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), 0, 0, pass)
		word = [2]uint64{0, uint64(errno)}
		_, _, _ = syscall.RawSyscall6(unix.SYS_WRITE, control, uintptr(unsafe.Pointer(&word)), unsafe.Sizeof(word), 0, 0, pass)
	}
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, pass)
	}
}

// noNewPrivs is beside the flags of the filter in the first number of the child.
const noNewPrivs = 1 << 32

// take puts this thread under the filter.
func take(filter []unix.SockFilter, killable bool) (fd uintptr, flags uint64, errno syscall.Errno) {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	if killable {
		flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	fd, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if killable && errno == unix.EINVAL { // before Linux 5.19
		return take(filter, false)
	}
	return fd, flags, errno
}

// filterFor returns the filter that has the calls wait. It looks at the arguments of these
// alone: the kernel knows by the number that another call is let through.
func filterFor(o order) []unix.SockFilter {
	const number, arch, last = 0, 4, 16 + 5*8 // places in struct seccomp_data
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	equal := func(value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: yes, Jf: no}
	}
	end := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	filter := []unix.SockFilter{load(arch), equal(auditArch, 1, 0), end(unix.SECCOMP_RET_ALLOW), load(number)}
	for i, call := range o.Calls {
		over := uint32(2*(len(o.Calls)-i) - 1)
		filter = append(filter, equal(call, 0, 1), unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: over})
	}
	return append(filter, end(unix.SECCOMP_RET_ALLOW), // both architectures are little-endian
		load(last), equal(uint32(o.Pass), 0, 2), load(last+4), equal(uint32(o.Pass>>32), 1, 0),
		end(unix.SECCOMP_RET_USER_NOTIF), end(unix.SECCOMP_RET_ALLOW))
}

// tell writes an error to the starting process.
func tell(first uint64, errno syscall.Errno) {
	word := [2]uint64{first, uint64(errno)}
	_, _ = unix.Write(control, unsafe.Slice((*byte)(unsafe.Pointer(&word)), unsafe.Sizeof(word)))
}

// A message is one of two numbers with a descriptor.
type message struct {
	unix.Msghdr
	iov unix.Iovec
	fd  *int32
	oob []byte
}

func newMessage() *message {
	m := &message{oob: unix.UnixRights(0)}
	m.fd = (*int32)(unsafe.Pointer(&m.oob[unix.CmsgLen(0)]))
	m.iov.SetLen(16)
	m.Iov, m.Iovlen = &m.iov, 1
	m.Control = &m.oob[0]
	m.SetControllen(len(m.oob))
	return m
}

// hear reads one message of the child, which has ended, or executed the program, if there
// is none; fd is -1 if none came.
func hear(socket int) (word [2]uint64, fd int, err error) {
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		ready := []unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, int(stageGrace.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: it has not begun within %v", os.ErrDeadlineExceeded, stageGrace)
		}
		if err != nil {
			return word, -1, err
		}
		break
	}
	n, oobn, _, _, err := unix.Recvmsg(socket, unsafe.Slice((*byte)(unsafe.Pointer(&word)), unsafe.Sizeof(word)), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil && !errors.Is(err, unix.ECONNRESET) {
		return word, -1, err
	}
	if messages, err := unix.ParseSocketControlMessage(oob[:max(oobn, 0)]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			return word, fds[0], nil
		}
	}
	if n < len(word)*8 {
		word = [2]uint64{}
	}
	return word, -1, nil
}
