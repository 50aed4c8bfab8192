//go:build !portable && (amd64 || arm64)

// Package stage is what a child is before it is a program under a filter: this very executable.
// It imports little, so that little of the executable is initialized before.
package stage

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// name is the first word on the child's command line. An order follows, then the program and
// its arguments.
const name = "podharness-fault"

// Control is the descriptor by which the child tells what it has done.
const Control = 3

// An Order is what the child needs to know.
type Order struct {
	// Pass is in the last argument register of what the child itself calls under the
	// filter, which lets these calls through. Nobody else has it there.
	Pass uint64
	// Blocked and Ignored are the sets of signals, which Go would alter, that the program
	// gets.
	Blocked, Ignored uint64
	// Killable has calls that wait not be interrupted, where the kernel can do that.
	Killable bool
	// Calls are the numbers of the calls that wait.
	Calls []uint32
}

// Args returns the child's command line.
func (o Order) Args(program string, argv []string) []string {
	words := []string{strconv.FormatUint(o.Pass, 16), strconv.FormatUint(o.Blocked, 16), strconv.FormatUint(o.Ignored, 16), "0"}
	if o.Killable {
		words[3] = "1"
	}
	for _, call := range o.Calls {
		words = append(words, strconv.FormatUint(uint64(call), 16))
	}
	return slices.Concat([]string{name, strings.Join(words, " "), program}, argv)
}

// parse reads an order.
func parse(text string) (o Order, err error) {
	for i, word := range strings.Fields(text) {
		value, parseErr := strconv.ParseUint(word, 16, 64)
		if parseErr != nil {
			err = parseErr
		}
		switch i {
		case 0:
			o.Pass = value
		case 1:
			o.Blocked = value
		case 2:
			o.Ignored = value
		case 3:
			o.Killable = value != 0
		default:
			o.Calls = append(o.Calls, uint32(value))
		}
	}
	return o, err
}

// A Report is what the child tells: of the filter, with the listener, or why it has none; and
// later why it could not execute the program, after which it has ended.
type Report struct{ Flags, Errno uint64 }

func init() {
	if len(os.Args) > 3 && os.Args[0] == name {
		beProgram()
	}
}

// beProgram becomes the program, under the filter. Once there is a filter, it does nothing
// but call the system, and has the pass in each call: nothing else of the runtime runs on
// this thread then, and whatever runs on others has no filter.
func beProgram() {
	closeOnExec()
	environ, err := os.ReadFile("/proc/self/environ") // os.Environ leaves some out
	o, orderErr := parse(os.Args[1])
	if err != nil || orderErr != nil {
		tell(unix.EINVAL)
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
	all, report := ^uint64(0), Report{}
	message.iov.Base = (*byte)(unsafe.Pointer(&report))
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)

	fd, flags, errno := take(filter, o.Killable)
	if errno == unix.EACCES {
		_, _, errno = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
		if errno == 0 {
			fd, flags, errno = take(filter, o.Killable)
			flags |= NoNewPrivs
		}
	}
	report.Flags = flags
	if errno != 0 {
		tell(errno)
		syscall.Exit(1)
	}
	*message.fd = int32(fd)
	pass := uintptr(o.Pass)
	if _, _, errno := syscall.RawSyscall6(unix.SYS_SENDMSG, Control, uintptr(unsafe.Pointer(&message.Msghdr)), 0, 0, 0, pass); errno == 0 {
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&o.Blocked)), 0, 8, 0, pass)
		_, _, errno = syscall.RawSyscall6(unix.SYS_EXECVE, uintptr(unsafe.Pointer(program)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), 0, 0, pass)
		report = Report{Errno: uint64(errno)}
		_, _, _ = syscall.RawSyscall6(unix.SYS_WRITE, Control, uintptr(unsafe.Pointer(&report)), unsafe.Sizeof(report), 0, 0, pass)
	}
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_EXIT_GROUP, 1, 0, 0, 0, 0, pass)
	}
}

// NoNewPrivs is set among the flags of a filter that could be had in no other way.
const NoNewPrivs = 1 << 32

// closeOnExec has the program inherit no descriptor but the first three.
func closeOnExec() {
	if unix.CloseRange(Control, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	files, _ := os.ReadDir("/proc/self/fd") // before Linux 5.11
	for _, file := range files {
		if fd, err := strconv.Atoi(file.Name()); err == nil && fd >= Control {
			unix.CloseOnExec(fd)
		}
	}
}

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
func filterFor(o Order) []unix.SockFilter {
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

// tell reports why there is no filter.
func tell(errno syscall.Errno) {
	report := Report{Errno: uint64(errno)}
	_, _ = unix.Write(Control, unsafe.Slice((*byte)(unsafe.Pointer(&report)), unsafe.Sizeof(report)))
}

// A message is a report with a descriptor.
type message struct {
	unix.Msghdr
	iov unix.Iovec
	fd  *int32
	oob []byte
}

func newMessage() *message {
	m := &message{oob: unix.UnixRights(0)}
	m.fd = (*int32)(unsafe.Pointer(&m.oob[unix.CmsgLen(0)]))
	m.iov.SetLen(int(unsafe.Sizeof(Report{})))
	m.Iov, m.Iovlen = &m.iov, 1
	m.Control = &m.oob[0]
	m.SetControllen(len(m.oob))
	return m
}

// ErrLate is that the child has told nothing in time.
var ErrLate = errors.New("it has told nothing in time")

// Hear reads a report. There is none if the child has ended, or executed the program. fd is
// -1 if no listener came.
func Hear(socket, milliseconds int) (r Report, fd int, err error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(socket), Events: unix.POLLIN}}, milliseconds)
		if err == nil && n == 0 {
			err = ErrLate
		}
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return r, -1, err
		}
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r)), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return r, -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return r, -1, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return r, -1, err
	}
	return r, fds[0], nil
}
