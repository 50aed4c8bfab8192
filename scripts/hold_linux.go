//go:build !portable

package scripts

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// canHold returns why this system cannot hold a pod; nil if it can.
func canHold() error {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fmt.Errorf("no seccomp user notification: %w", errno)
	}
	return nil
}

// hold runs a pod whose every write waits until this process allows it
// (seccomp_unotify(2)), and ends as the pod does. It returns only an error. What
// is seen while the pod is held in its write of the ready line is certain: after
// that line was read, it would be a matter of luck. The file held is made then.
func hold(what, held string, argv []string) error {
	for sig := syscall.Signal(1); sig < 32; sig++ {
		// Caught, since the pod would inherit that it is ignored.
		if !signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
	h := &holder{what: what, held: held, ended: make(chan struct{})}
	started := make(chan error)
	go func() { started <- h.start(argv) }()
	if err := <-started; err != nil {
		return err
	}
	state, err := h.pod.Wait()
	close(h.ended)
	h.mu.Lock()
	if err := cmp.Or(h.failed, err); err != nil {
		return err
	}
	_, _ = os.Stderr.Write(h.unfinished)
	return endAs(state.Sys().(syscall.WaitStatus))
}

// endAs ends this process as another one has ended.
func endAs(status syscall.WaitStatus) error {
	if status.Exited() {
		syscall.Exit(status.ExitStatus())
	}
	// Without a core file, and whatever Go would make of the signal.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	var byDefault [64]byte // a sigaction of zeros, wherever its fields are
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(status.Signal()), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
	return unix.Tgkill(unix.Getpid(), unix.Gettid(), status.Signal())
}

// holder holds one pod.
type holder struct {
	what     string // look, or a signal's name
	held     string // the file that is made when it is done
	listener int    // tells of the pod's writes
	pod      *os.Process
	ended    chan struct{} // closed when the pod has

	mu         sync.Mutex // held while a write is done
	unfinished []byte     // the beginning of a line, which may become the ready line: not written yet
	signalled  bool
	done       bool  // the ready line is behind it
	failed     error // why the pod could not be held
}

// start starts the pod under a filter. It ends its thread, and the filter with it.
func (h *holder) start(argv []string) (err error) {
	h.mu.Lock() // until the pod is known
	defer h.mu.Unlock()
	runtime.LockOSThread()
	const call = 0 // its place in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: call},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_WRITE, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_WRITEV, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	set := func() (fd uintptr, errno unix.Errno) {
		fd, _, errno = unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
		return fd, errno
	}
	fd, errno := set()
	if errno == unix.EACCES { // an ordinary user has to give up setuid programs for it
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl", err)
		}
		fd, errno = set()
	}
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	h.listener = int(fd)
	go h.serve() // a program that cannot be executed is told of by a write, too
	h.pod, err = os.StartProcess(reexec.Running(argv[0]), argv, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	return err
}

// A write is one that waits: struct seccomp_notif.
type write struct {
	id     uint64
	thread uint32
	_      uint32
	call   int32
	_      uint32
	_      uint64
	args   [6]uint64
}

func (h *holder) ioctl(request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(h.listener), request, uintptr(arg))
	return errno
}

// answer lets a write go: by itself, or as one that was done of so many bytes. It
// reports whether the write still waited: a signal may have ended it, or have it
// begin anew.
func (h *holder) answer(w write, flags uint32, size int) (waited bool) {
	response := struct { // seccomp_notif_resp
		id    uint64
		size  int64
		_     int32
		flags uint32
	}{id: w.id, size: int64(size), flags: flags}
	return h.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&response)) == 0
}

// serve answers every write, also those after the ready line: they wait, too.
func (h *holder) serve() {
	for {
		var w write
		if h.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&w)) == 0 {
			h.take(w)
		} // else it does not wait any more
	}
}

// take does a write to the log in the pod's place, by whole lines until the ready line
// is done.
func (h *holder) take(w write) {
	const byItself, inItsPlace = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE, 0
	if !w.isToLog() {
		h.answer(w, byItself, 0)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done {
		h.answer(w, byItself, 0)
		return
	}
	text, err := w.text()
	if err != nil {
		if h.answer(w, byItself, 0) { // else its process may be gone
			h.failed = err
			_ = h.pod.Kill()
		}
		return
	}
	all := slices.Concat(h.unfinished, text)
	end := bytes.LastIndexByte(all, '\n') + 1
	lines, unfinished := all[:end], all[end:]
	start := bytes.Index(append([]byte("\n"), lines...), []byte("\nYOI-READY\t"))
	if start >= 0 && proc.Ending(h.pod.Pid) {
		return // what it has left must not become ready in its stead: this process is about to end
	}
	if start >= 0 {
		_ = os.WriteFile(h.held, nil, 0o600)
		line, after, _ := bytes.Cut(lines[start:], []byte("\n"))
		lines, unfinished = slices.Concat(lines[:start], h.act(w, string(line), start >= len(h.unfinished)), after, unfinished), nil
	}
	// In this order, since one that does not wait any more comes again.
	if h.answer(w, inItsPlace, len(text)) {
		h.unfinished, h.done = unfinished, start >= 0
		_, _ = os.Stderr.Write(lines)
	}
}

// isToLog reports whether it goes to the file that is stderr here, by whatever
// descriptor: the pod may have duplicated its own, or opened /dev/stderr.
func (w write) isToLog() bool {
	descriptor := int32(w.args[0])
	to, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", w.thread, descriptor))
	if err != nil {
		return descriptor == 2 && !errors.Is(err, fs.ErrNotExist) // else it is closed
	}
	log, err := os.Stderr.Stat()
	return err == nil && os.SameFile(to, log)
}

// text returns what is to be written, from the memory of its process.
func (w write) text() (text []byte, err error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", w.thread))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	at := func(address, size uint64) io.Reader {
		return io.NewSectionReader(memory, int64(address), int64(size))
	}
	vector := [][2]uint64{{w.args[1], w.args[2]}} // struct iovec
	if w.call == unix.SYS_WRITEV {
		const most = 1024 // IOV_MAX
		vector = make([][2]uint64, min(w.args[2], most))
		if err := binary.Read(at(w.args[1], most*16), binary.NativeEndian, vector); err != nil {
			return nil, err
		}
	}
	for _, part := range vector {
		read, err := io.ReadAll(at(part[0], part[1]))
		if err != nil {
			return nil, err
		}
		text = append(text, read...)
	}
	return text, nil
}

// act does what the pod is held for, and returns what is written in place of the
// ready line. whole tells that this one write has all of the line.
func (h *holder) act(w write, line string, whole bool) []byte {
	if h.what != holdLook {
		h.signal(w)
		return nil
	}
	// A relative path counts from there, here and for whoever looks at this process.
	_ = os.Chdir(fmt.Sprintf("/proc/%d/cwd", w.thread))
	told, _ := podlog.ParseReady([]byte(strings.TrimSuffix(line, "\r")))
	found := "is listened on"
	if _, err := proc.Listener(told.Socket); err != nil && !errors.Is(err, unix.EAGAIN) { // a full backlog
		found = fmt.Sprintf("is not listened on yet (%v)", err)
	}
	if !whole {
		found += "\npodharness: its ready line came in several writes"
	}
	return fmt.Appendf(nil, "podharness: its socket %s\n%s\n", found, line)
}

// signal sends the signal, once, as a stop of the pod does: to its group.
func (h *holder) signal(w write) {
	group, err := unix.Getpgid(int(w.thread)) // it may have left the one of this process
	if h.signalled || err != nil {
		return
	}
	h.signalled = true
	sig, _ := parseSignal(h.what)
	fmt.Fprintf(os.Stderr, "podharness: %s was sent while it wrote its ready line\n", unix.SignalName(sig))
	_ = unix.Kill(-group, sig)
	go h.serve() // its handler may write elsewhere
	// Another thread may take it, and not before this one would go on. Nothing
	// tells of a handler that has run.
	select {
	case <-h.ended:
	case <-time.After(100 * time.Millisecond):
	}
}
