//go:build !portable && (amd64 || arm64)

package fault

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"example.com/podharness/spawn/fault/internal/stage"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

const (
	// stageGrace is how long the child may take to come to its program.
	stageGrace = 20 * time.Second
	// mostStrikes is how many strikes a session keeps.
	mostStrikes = 10_000
)

// A Session has one process, and whatever that starts, meet faults. Its methods are safe for
// concurrent use.
type Session struct {
	// NoNewPrivs tells, once Start has returned, that the process cannot gain privileges
	// by executing a program such as sudo. Without the faults it could.
	NoNewPrivs bool
	// Except is the path of a program, set before the start; "" = none. Its calls, and those of
	// whatever it starts, meet no fault and are not counted. What a child calls until it has
	// executed the program, the execution included, meets faults. If the parents of a process
	// have ended, its group and session tell whether the program has started it.
	Except string

	names    map[uint32]sysCall
	struck   func(Strike)
	listener int
	killable bool          // calls that wait are not interrupted
	pid      int           // of the process
	except   fs.FileInfo   // of Except; nil = there is none
	ended    chan struct{} // closed when all processes of the session have
	done     chan struct{} // closed after that, when all is answered and closed
	acts     sync.WaitGroup

	mu      sync.Mutex // guards all below
	faults  []*compiled
	healed  int // so many of them strike no more
	counts  []int
	pending map[uint32]*call // by the thread: those that wait, and those that were interrupted
	strikes []Strike
	sockets map[string]string // the paths that sockets are bound to, by their links
	trouble error
	// excepted has when the processes of Except have started, by their numbers.
	excepted map[int]int64

	telling sync.Mutex // held while struck is called
}

// compiled is a fault as it is matched.
type compiled struct {
	Fault
	names map[uint32]string // for the number of a call, what names it
	path  *regexp.Regexp
}

// due reports whether the call with a number fails.
func (f *compiled) due(number int) bool {
	return f.When == 0 || number == f.When || f.Onwards && number > f.When
}

// New returns a session for one process. struck, which may be nil, is called after each
// strike; calls of it do not overlap. An error that matches [ErrUnsupported] tells that
// this system cannot do it; another one tells what is wrong with a fault.
func New(faults []Fault, struck func(Strike)) (*Session, error) {
	s := &Session{
		names: map[uint32]sysCall{}, struck: struck, ended: make(chan struct{}), done: make(chan struct{}),
		pending: map[uint32]*call{}, sockets: map[string]string{}, excepted: map[int]int64{},
	}
	short := false
	for _, f := range faults {
		c, err := compileFault(f)
		if err != nil {
			return nil, err
		}
		for _, name := range strings.Split(f.Calls, ",") {
			for _, call := range calls()[name] {
				s.names[call.number] = call
			}
		}
		s.add(c)
		short = short || f.Short > 0
	}
	return s, supported(short)
}

func compileFault(f Fault) (*compiled, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(f.Path, "{") {
		return nil, fmt.Errorf("fault %q: nothing has replaced the word in braces at the beginning of the path", f)
	}
	c := &compiled{Fault: f, names: map[uint32]string{}}
	c.path, _ = compile(f.Path)
	for _, name := range strings.Split(f.Calls, ",") {
		for _, call := range calls()[name] {
			c.names[call.number] += "," + name
		}
	}
	return c, nil
}

func (s *Session) add(c *compiled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.counts = append(s.faults, c), append(s.counts, 0)
}

// Fail has a fault strike from now on, beside the others. Its calls must be among those that
// the faults of the session name, since the kernel watches no other: a fault with Later names
// some and strikes none. They are counted from now on.
func (s *Session) Fail(f Fault) error {
	c, err := compileFault(f)
	if err != nil {
		return err
	}
	for number := range c.names {
		if _, ok := s.names[number]; !ok {
			return fmt.Errorf("fault %q: no fault of the start names its calls, which are not watched: start it with %q, too", f, Fault{Calls: f.Calls, Later: true})
		}
	}
	if err := supported(f.Short > 0); err != nil {
		return err
	}
	s.add(c)
	return nil
}

// Heal has no fault strike from now on, until the next [Session.Fail]. A call that waits
// already meets its fault.
func (s *Session) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healed = len(s.faults)
}

// supported returns why this system cannot do it; nil if it can.
func supported(short bool) error {
	action := uint32(unix.SECCOMP_RET_USER_NOTIF)
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action))); errno != 0 {
		return fmt.Errorf("%w: no seccomp user notification: %w", ErrUnsupported, errno)
	}
	// Calls can be let through since Linux 5.5, and this is there since 5.6.
	switch _, err := unix.PidfdGetfd(-1, 0, 0); {
	case err == unix.ENOSYS:
		return fmt.Errorf("%w: it needs Linux 5.6 or later", ErrUnsupported)
	case short && err != unix.EBADF:
		return fmt.Errorf("%w: no write can be cut short: pidfd_getfd: %w", ErrUnsupported, err)
	}
	return nil
}

// Supported returns why this system cannot make system calls fail, as an error that matches
// [ErrUnsupported]; nil if it can.
func Supported() error { return supported(false) }

// Start is [syscall.ForkExec] with the faults. The process inherits the first three of
// attr.Files and no other descriptor. A session starts one process.
func (s *Session) Start(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	reap := func() {
		for {
			if _, err := unix.Wait4(s.pid, nil, 0, nil); err != unix.EINTR {
				return
			}
		}
	}
	err = s.start(program, argv, reap, func(path string, args []string, control *os.File) (int, error) {
		with := *attr
		sys := syscall.SysProcAttr{}
		if attr.Sys != nil {
			sys = *attr.Sys
		}
		sys.Pdeathsig = syscall.SIGKILL
		with.Sys, with.Files = &sys, append(slices.Clip(attr.Files[:3]), control.Fd())
		return syscall.ForkExec(path, args, &with)
	})
	return s.pid, err
}

// StartCommand has start, which calls cmd.Start, start a command with the faults. The process
// inherits no descriptor but the first three. A session starts one process.
func (s *Session) StartCommand(cmd *exec.Cmd, start func() error) error {
	program, argv := cmd.Path, cmd.Args
	err := s.start(program, argv, func() { _ = cmd.Wait() }, func(path string, args []string, control *os.File) (int, error) {
		sys := syscall.SysProcAttr{}
		if cmd.SysProcAttr != nil {
			sys = *cmd.SysProcAttr
		}
		sys.Pdeathsig = syscall.SIGKILL
		cmd.Path, cmd.Args, cmd.ExtraFiles, cmd.SysProcAttr = path, args, []*os.File{control}, &sys
		if err := start(); err != nil {
			return 0, err
		}
		return cmd.Process.Pid, nil
	})
	cmd.Path, cmd.Args, cmd.ExtraFiles = program, argv, nil
	if errno, ok := err.(syscall.Errno); ok {
		err = &fs.PathError{Op: "fork/exec", Path: program, Err: errno} // as os/exec has it
	}
	return err
}

// A forker starts a process that has control among its descriptors, after the first three.
type forker = func(path string, args []string, control *os.File) (pid int, err error)

// start has fork start the process, and serves until all have ended. reap waits for a process
// that was killed.
func (s *Session) start(program string, argv []string, reap func(), fork forker) (err error) {
	started := make(chan struct{})
	go func() {
		// The death of this thread would kill the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err = s.begin(program, argv, reap, fork)
		failed := err != nil
		close(started)
		if !failed {
			s.serve()
		}
		close(s.ended)
		s.acts.Wait()
		if !failed {
			unix.Close(s.listener)
		}
		close(s.done)
	}()
	<-started
	return err
}

func (s *Session) begin(program string, argv []string, reap func(), fork forker) (err error) {
	if s.Except != "" {
		if s.except, err = os.Stat(s.Except); err != nil {
			return err
		}
		for _, call := range calls()["exec"] {
			s.names[call.number] = call
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	control := os.NewFile(uintptr(pair[1]), "control")
	defer control.Close()
	numbers := make([]uint32, 0, len(s.names))
	for number := range s.names {
		numbers = append(numbers, number)
	}
	o := stage.Order{Pass: rand.Uint64(), Blocked: signals("SigBlk"), Ignored: signals("SigIgn"), Killable: killable, Calls: numbers}
	pid, err := fork("/proc/self/exe", o.Args(program, argv), control)
	control.Close()
	if err != nil {
		return err
	}
	s.pid = pid
	if err = s.hear(pair[0], pid); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		reap()
		s.pid = 0
	}
	return err
}

// killable is false in a test of kernels that cannot do it.
var killable = true

// signals returns a set of signals of this thread.
func signals(field string) uint64 {
	text, _ := os.ReadFile("/proc/thread-self/status")
	_, value, _ := strings.Cut(string(text), "\n"+field+":\t")
	value, _, _ = strings.Cut(value, "\n")
	set, _ := strconv.ParseUint(value, 16, 64)
	return set
}

// hear takes the listener from the child, and returns when it has executed the program.
func (s *Session) hear(socket, pid int) error {
	report, fd, err := stage.Hear(socket, int(stageGrace.Milliseconds()))
	switch {
	case err != nil:
		return fmt.Errorf("%w: the child that takes the filter: %w", ErrUnsupported, err)
	case fd < 0 && report.Errno == 0:
		return fmt.Errorf("%w: the child that takes the filter has ended before it did", ErrUnsupported)
	case fd < 0:
		return fmt.Errorf("%w: seccomp: %w", ErrUnsupported, syscall.Errno(report.Errno))
	}
	s.listener = fd
	s.NoNewPrivs, s.killable = report.Flags&stage.NoNewPrivs != 0, report.Flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0
	syncWakeUp := uint64(unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, uintptr(syncWakeUp)) // since Linux 6.6
	if report, _, err = stage.Hear(socket, int(stageGrace.Milliseconds())); err == nil && report.Errno != 0 {
		err = syscall.Errno(report.Errno) // of the exec
	}
	if err == nil {
		_, readErr := readMemory(uint32(pid), 0, make([]byte, 1))
		if readErr == unix.EPERM || readErr == unix.ENOSYS { // nothing is at that address, but who may read is asked first
			err = fmt.Errorf("%w: the memory of its process cannot be read: %w", ErrUnsupported, readErr)
		}
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// Done is closed when all processes that met the faults have ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Strikes returns the calls that were struck so far, at most the first 10,000.
func (s *Session) Strikes() []Strike {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.strikes)
}

// Err returns why a call could not be looked at, and was done without a fault; nil if all
// could be.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// ioctlSetFlags is SECCOMP_IOCTL_NOTIF_SET_FLAGS, and ioctlIDValid SECCOMP_IOCTL_NOTIF_ID_VALID.
const (
	ioctlSetFlags = 0x40082104
	ioctlIDValid  = 0x40082102
)

// A notification is struct seccomp_notif.
type notification struct {
	id     uint64
	thread uint32
	_      uint32
	callData
}

// callData is struct seccomp_data.
type callData struct {
	call        uint32 // the system call's number
	_           uint32
	instruction uint64
	args        [6]uint64
}

// serve answers calls until all processes have ended.
func (s *Session) serve() {
	for {
		ready := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		switch _, err := unix.Poll(ready, -1); {
		case err == unix.EINTR:
		case ready[0].Revents&unix.POLLIN != 0:
			var n notification
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno == 0 {
				s.take(&call{s: s, notification: n, at: time.Now()})
			} // else it does not wait any more
		default:
			return
		}
	}
}

// take has a call meet its fault, if it has one.
func (s *Session) take(c *call) {
	c.sysCall = s.names[c.call]
	s.mu.Lock()
	again := s.pending[c.thread]
	delete(s.pending, c.thread)
	s.mu.Unlock()
	if again != nil && again.callData == c.callData {
		c.fault, c.meets, c.count, c.at = again.fault, again.meets, again.count, again.at // it was interrupted, and comes again
	} else if !s.match(c) {
		return
	}
	if c.count == 0 {
		s.noteExec(c)
		if c.send(0, 0, byItself) {
			return
		}
	}
	s.mu.Lock()
	if len(s.pending) >= mostStrikes { // of threads that have ended
		clear(s.pending)
	}
	s.pending[c.thread] = c
	s.mu.Unlock()
	if c.count == 0 {
		return
	}
	if f := c.meets; f.Delay == 0 && f.Short == 0 && f.Look == nil {
		s.act(c)
		return
	}
	s.acts.Add(1)
	go func() {
		defer s.acts.Done()
		s.act(c)
	}()
}

// match counts a call, and finds the fault that strikes it. It reports whether the call still
// waits.
func (s *Session) match(c *call) bool {
	if s.excepts(c) {
		return true
	}
	s.mu.Lock()
	faults, healed := s.faults, s.healed
	s.mu.Unlock()
	var matching []int
	for i, f := range faults {
		if i < healed || f.Later {
			continue
		}
		if names := f.names[c.number]; names != "" && c.isNamed(names) && (f.path == nil || slices.ContainsFunc(c.Paths(), func(path string) bool {
			return f.path.MatchString(strings.ToValidUTF8(path, "\uFFFD"))
		})) {
			matching = append(matching, i)
		}
	}
	if len(matching) == 0 {
		return true
	}
	if !c.waits() { // what was read may have been another's
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range matching {
		s.counts[i]++
		if c.count == 0 && faults[i].due(s.counts[i]) {
			c.fault, c.meets, c.count = i, faults[i], s.counts[i]
		}
	}
	return true
}

// noteExec notes that a call which is about to be done makes its process one of Except.
func (s *Session) noteExec(c *call) {
	if s.except == nil || c.number != unix.SYS_EXECVE && c.number != unix.SYS_EXECVEAT || s.excepts(c) {
		return
	}
	for _, path := range c.Paths() {
		if info, err := os.Stat(path); err == nil && os.SameFile(info, s.except) {
			id := proc.Of(c.PID())
			s.mu.Lock()
			s.excepted[id.PID] = id.Start
			s.mu.Unlock()
		}
	}
}

// excepts reports whether a call is one of Except, or of what that has started.
func (s *Session) excepts(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.excepted) == 0 {
		return false
	}
	pid := c.Thread()
	if _, ok := s.excepted[pid]; !ok {
		pid = c.PID()
	}
	id := proc.ID{PID: pid}
	const most = 64 // they may change meanwhile
	for range most {
		stat, ok := proc.Lookup(pid)
		if !ok {
			break
		}
		if pid == id.PID {
			id.Start = stat.Start
		}
		_, group := s.excepted[stat.Group]
		_, session := s.excepted[stat.Session]
		if start, ok := s.excepted[pid]; ok && start == stat.Start || group || session {
			if len(s.excepted) < mostStrikes {
				s.excepted[id.PID] = id.Start // its parents may end
			}
			return true
		}
		if pid == s.pid {
			break
		}
		pid = stat.Parent
	}
	return false
}

// act strikes.
func (s *Session) act(c *call) {
	f := c.meets
	if f.Delay > 0 {
		c.pid = c.PID() // and the paths: its process may end meanwhile
		c.Paths()
		timer := time.NewTimer(f.Delay - time.Since(c.at))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ended:
		}
	}
	switch {
	case f.Look != nil:
		f.Look(c)
		c.answer(answer{flags: byItself, silent: true})
	case f.Error != 0:
		c.answer(answer{signal: f.Signal, errno: f.Error, result: unix.ErrnoName(f.Error)})
	case f.Short > 0:
		c.answer(answer{signal: f.Signal, short: f.Short})
	default:
		c.answer(answer{signal: f.Signal, flags: byItself})
	}
}

// failed keeps the first reason why a call could not be looked at. That its process has
// ended, or has given an address that is not its own, is none.
func (s *Session) failed(c *call, err error) {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EFAULT) || errors.Is(err, unix.ENOENT) || !c.waits() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil {
		s.trouble = fmt.Errorf("%s by thread %d could not be looked at: %w", c.name, c.thread, err)
	}
}
