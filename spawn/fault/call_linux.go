//go:build !portable && (amd64 || arm64)

package fault

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// A call is a [Call].
type call struct {
	sysCall
	notification
	s        *Session
	at       time.Time // when it came
	fault    int       // that strikes it: its place among the faults
	meets    *compiled // that fault
	pid      int       // of its process, if it is delayed
	count    int       // its number for that; 0 = none strikes it
	paths    []string  // nil = not read yet
	answered bool      // guarded by s.mu
}

func (c *call) Name() string { return c.name }

func (c *call) Thread() int { return int(c.thread) }

func (c *call) PID() int {
	pid, _ := strconv.Atoi(proc.Status(c.Thread(), "Tgid"))
	return pid
}

func (c *call) Descriptor() int {
	if i := strings.IndexByte(c.arguments, 'F'); i >= 0 {
		return int(int32(c.args[i]))
	}
	return -1
}

func (c *call) Ended() <-chan struct{} { return c.s.ended }

func (c *call) Return(value int) bool {
	return c.answer(answer{value: int64(value), silent: true})
}

// waits reports whether the call still waits. What was read of its process before is true then.
func (c *call) waits() bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.s.listener), ioctlIDValid, uintptr(unsafe.Pointer(&c.id)))
	return errno == 0
}

// send answers the call, and reports whether it still waited.
func (c *call) send(value int64, errno syscall.Errno, flags uint32) bool {
	response := struct { // seccomp_notif_resp
		id    uint64
		value int64
		errno int32
		flags uint32
	}{c.id, value, -int32(errno), flags}
	_, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(c.s.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&response)))
	return failed == 0
}

// byItself has the kernel do the call.
const byItself = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE

// An answer is what comes of a call.
type answer struct {
	signal syscall.Signal // sent first; 0 = none
	short  int            // how many bytes of it are written here; 0 = none
	value  int64
	errno  syscall.Errno
	flags  uint32
	result string
	silent bool // no fault has struck it
}

// answer answers a call that is struck, and reports whether it still waited. Whoever reads
// the strikes after the process has gone on finds this one.
func (c *call) answer(a answer) (waited bool) {
	s := c.s
	var results []string
	if delay := c.meets.Delay; delay > 0 {
		results = append(results, "delayed "+delay.String())
	}
	strike := Strike{Fault: c.fault, Number: c.count, Call: c.name, Paths: c.Paths(), PID: cmp.Or(c.pid, c.PID()), Thread: c.Thread(), Time: c.at}
	if a.short > 0 {
		a.value, a.errno, a.result = c.writeShort(a.short)
	}
	ends := a.signal != 0 && endsProcess(strike.PID, a.signal)
	if a.flags == byItself {
		s.noteExec(c)
	}
	s.mu.Lock()
	if c.answered {
		s.mu.Unlock()
		return false
	}
	c.answered = true
	signalled := a.signal != 0 && c.signal(strike.PID, a.signal)
	if signalled {
		results = append(results, unix.SignalName(a.signal))
		if ends {
			a = answer{errno: unix.EINTR} // else the call might be done before the process ends
		}
	}
	if waited = c.send(a.value, a.errno, a.flags); waited {
		if s.pending[c.thread] == c {
			delete(s.pending, c.thread)
		}
		if a.result != "" {
			results = append(results, a.result)
		}
	}
	strike.Result = strings.Join(results, ", ")
	struck := (waited || signalled || s.pending[c.thread] == c && s.endedDuring(c.meets.Delay)) && !a.silent
	if struck && len(s.strikes) < mostStrikes {
		s.strikes = append(s.strikes, strike)
	}
	s.mu.Unlock()
	if struck && s.struck != nil {
		s.telling.Lock()
		defer s.telling.Unlock()
		s.struck(strike)
	}
	return waited
}

// endedDuring reports whether all processes have ended during the delay of a call, if there was one:
// that has struck it all the same.
func (s *Session) endedDuring(delay time.Duration) bool {
	select {
	case <-s.ended:
		return delay > 0
	default:
		return false
	}
}

// signal sends a signal to the process that calls, and reports whether it could.
func (c *call) signal(pid int, sig syscall.Signal) bool {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(process)
	return c.waits() && unix.PidfdSendSignal(process, sig, nil, 0) == nil
}

// endsProcess reports whether a signal ends a process.
func endsProcess(pid int, sig syscall.Signal) bool {
	switch sig {
	case unix.SIGKILL:
		return true
	case unix.SIGCHLD, unix.SIGURG, unix.SIGWINCH, unix.SIGCONT, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
		return false
	}
	return !proc.Takes(pid, sig)
}

// isNamed reports whether one of the names, each after a comma, stands for the call with the
// flags that it has.
func (c *call) isNamed(names string) bool {
	flags := c.args[0]
	switch c.number {
	case unix.SYS_CLONE3:
		if err := c.read(c.args[0], unsafe.Slice((*byte)(unsafe.Pointer(&flags)), 8)); err != nil {
			c.s.failed(c, err)
			return false
		}
	case unix.SYS_CLONE:
	default:
		return true
	}
	for _, name := range strings.Split(names, ",") {
		if name == c.name || name == "thread" && flags&unix.CLONE_THREAD != 0 || name == "fork" && flags&unix.CLONE_THREAD == 0 {
			return true
		}
	}
	return false
}

func (c *call) Paths() []string {
	if c.paths == nil {
		c.paths = []string{}
		for i, kind := range []byte(c.arguments) {
			var path string
			var err error
			switch kind {
			case 'P':
				base := "cwd"
				if i > 0 && c.arguments[i-1] == 'D' && int32(c.args[i-1]) != unix.AT_FDCWD {
					base = fmt.Sprint("fd/", int32(c.args[i-1]))
				}
				path, err = c.pathAt(c.args[i], base)
			case 'F':
				path, err = c.descriptor(fmt.Sprint("fd/", int32(c.args[i])))
			case 'A':
				path, err = c.address(c.args[i], c.args[i+1])
			}
			if err != nil {
				c.s.failed(c, err)
			} else if path != "" {
				c.paths = append(c.paths, path)
			}
		}
	}
	return c.paths
}

// link reads a link in the place that /proc has for the thread.
func (c *call) link(name string) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", c.thread, name))
	return strings.TrimSuffix(path, " (deleted)"), err
}

// pathAt returns the absolute path for one in the memory of the process.
func (c *call) pathAt(address uint64, base string) (string, error) {
	if address == 0 {
		return c.link(base) // as utimensat has it
	}
	var text []byte
	for len(text) < unix.PathMax {
		// What is on the next page may be unreadable.
		part := make([]byte, min(256, 4096-(address+uint64(len(text)))%4096))
		if err := c.read(address+uint64(len(text)), part); err != nil {
			return "", err
		}
		before, _, end := bytes.Cut(part, []byte{0})
		if text = append(text, before...); end {
			break
		}
	}
	return c.absolute(string(text), base)
}

func (c *call) absolute(path, base string) (string, error) {
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	dir, err := c.link(base)
	if err != nil || path == "" {
		return dir, err
	}
	return filepath.Join(dir, path), nil
}

// descriptor returns what a descriptor is open on.
func (c *call) descriptor(name string) (string, error) {
	link, err := c.link(name)
	if err != nil || !strings.HasPrefix(link, "socket:[") {
		return link, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if bound := c.s.sockets[link]; bound != "" {
		return bound, nil
	}
	// Num RefCount Protocol Flags Type St Inode Path
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", c.thread))
	_, rest, _ := bytes.Cut(table, []byte(" "+link[len("socket:["):len(link)-1]+" "))
	bound, _, _ := strings.Cut(string(rest), "\n")
	if bound == "" {
		return link, err
	}
	if bound[0] != '@' {
		bound, err = c.absolute(bound, "cwd")
	}
	if len(c.s.sockets) < mostStrikes {
		c.s.sockets[link] = bound
	}
	return bound, err
}

// address returns what a socket's address in the memory of the process says.
func (c *call) address(at, size uint64) (string, error) {
	text := make([]byte, min(size, unix.SizeofSockaddrAny))
	if err := c.read(at, text); err != nil || len(text) < 2 {
		return "", err
	}
	family, rest := binary.NativeEndian.Uint16(text), text[2:]
	switch {
	case family == unix.AF_UNIX && len(rest) > 0 && rest[0] == 0:
		return "@" + string(rest[1:]), nil
	case family == unix.AF_UNIX && len(rest) > 0:
		path, _, _ := bytes.Cut(rest, []byte{0})
		return c.absolute(string(path), "cwd")
	case family == unix.AF_INET && len(rest) >= 6:
		ip, _ := netip.AddrFromSlice(rest[2:6])
		return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest)).String(), nil
	case family == unix.AF_INET6 && len(rest) >= 22:
		ip, _ := netip.AddrFromSlice(rest[6:22])
		return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(rest)).String(), nil
	}
	return "", nil
}

// read reads the memory of the process.
func (c *call) read(address uint64, into []byte) error {
	_, err := readMemory(c.thread, address, into)
	return err
}

func readMemory(thread uint32, address uint64, into []byte) (n int, err error) {
	for n < len(into) && err == nil {
		here := []unix.Iovec{{Base: &into[n], Len: uint64(len(into) - n)}}
		there := []unix.RemoteIovec{{Base: uintptr(address) + uintptr(n), Len: len(into) - n}}
		var more int
		if more, err = unix.ProcessVMReadv(int(thread), here, there, 0); more <= 0 {
			return n, cmp.Or(err, error(unix.EFAULT))
		}
		n += more
	}
	return n, err
}

// mostWritten is how much the kernel writes at once.
const mostWritten = 0x7ffff000

func (c *call) Data(most int) (data []byte, size int, err error) {
	i := strings.IndexAny(c.arguments, "BV")
	if i < 0 {
		return nil, 0, fmt.Errorf("%s does not write: %w", c.name, errors.ErrUnsupported)
	}
	parts := [][2]uint64{{c.args[i], c.args[i+1]}} // struct iovec
	if c.arguments[i] == 'V' {
		const mostParts = 1024 // IOV_MAX
		parts = make([][2]uint64, min(c.args[i+1], mostParts))
		if err := c.read(c.args[i], unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(parts))), 16*len(parts))); err != nil {
			return nil, 0, err
		}
	}
	for _, part := range parts {
		length := min(part[1], mostWritten-uint64(size))
		size += int(length)
		data = slices.Grow(data, min(int(length), most-len(data)))
		more := data[len(data) : len(data)+min(int(length), most-len(data))]
		if err := c.read(part[0], more); err != nil {
			return nil, 0, err
		}
		data = data[:len(data)+len(more)]
	}
	return data, size, nil
}

// writeShort writes the first bytes in the place of the process.
func (c *call) writeShort(most int) (n int64, errno syscall.Errno, result string) {
	n, all, err := c.write(most)
	if err != nil && !errors.As(err, &errno) {
		errno = unix.EIO
	}
	if errno != 0 {
		return 0, errno, unix.ErrnoName(errno)
	}
	return n, 0, fmt.Sprintf("%d of %d bytes", n, all)
}

func (c *call) write(most int) (n int64, all int, err error) {
	data, all, err := c.Data(most)
	if err != nil {
		return 0, 0, err
	}
	process, err := unix.PidfdOpen(c.PID(), 0)
	if err != nil {
		return 0, all, err
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, int(int32(c.args[0])), 0)
	if err != nil {
		return 0, all, err
	}
	defer unix.Close(fd)
	// What fits into a pipe at once is written at once.
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	for room := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}; flags&unix.O_NONBLOCK == 0 && room[0].Revents == 0 && c.waits(); {
		_, _ = unix.Poll(room, 50)
	}
	if !c.waits() {
		return 0, all, unix.ESRCH
	}
	var written int
	if i := strings.IndexByte(c.arguments, 'O'); i >= 0 && int64(c.args[i]) >= 0 {
		written, err = unix.Pwrite(fd, data, int64(c.args[i]))
	} else if written, err = unix.SendmsgN(fd, data, nil, nil, unix.MSG_NOSIGNAL); err == unix.ENOTSOCK {
		written, err = unix.Write(fd, data)
	}
	return int64(written), all, err
}
