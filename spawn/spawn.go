// Package spawn starts a pod: a long-running local agent process that says on
// its stderr when and where it can be reached, and from then on is independent
// of whoever started it.
//
// [Start] launches the process in its own process group with its stderr in a
// log file, follows that file until the pod's ready line
//
//	YOI-READY<TAB>name<TAB>socket path<NEWLINE>
//
// and connects to the socket once, to close the connection at once: a pod must
// bear that. Every other ending kills the group, reaps the process and has its
// own verdict, an [*Error] with the evidence:
//
//	pod, err := spawn.Start(ctx, spawn.Config{
//		Command:       spawn.Command{Program: "/usr/local/bin/agent", PrefixArgs: []string{"pod"}},
//		PodName:       "alpha",
//		WorkspaceRoot: "/srv/project",
//	})
//	switch {
//	case errors.Is(err, spawn.ErrExited):  // it died: err shows its last words
//	case errors.Is(err, spawn.ErrTimeout): // err says what was missing
//	}
//
// A pod that became ready lives on when this process ends. Package harness
// starts pods for tests, which must not.
//
// The parent is woken by events: by one inotify instance for the whole process
// (kept once it was needed), and by timers where that cannot be had.
package spawn

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// DefaultReadyTimeout is how long a pod may take to become ready if
// [Config.ReadyTimeout] is zero.
const DefaultReadyTimeout = 20 * time.Second

// logName is the log's name in the pod directory.
const logName = "stderr.log"

// A Config says which pod to start, and how.
type Config struct {
	// Command launches the pod. Its Program must not be empty; ResolveCommand
	// has the default one.
	Command Command
	// PodName is the pod's name and that of its directory below the runtime
	// directory: one path element, not empty. Nothing keeps a second pod of the
	// name from being started there: it takes the log and the socket over.
	PodName string
	// Profile selects a profile; "" = none. It is dropped when a session is
	// resumed.
	Profile string
	// TicketRole marks the process with a role; "" = none.
	TicketRole string
	// WorkspaceRoot is the pod's workspace. It must not be empty; a relative
	// path is taken from this process's working directory.
	WorkspaceRoot string
	// Dir is the pod's working directory; "" = WorkspaceRoot. It is not told to
	// the pod in any other way. A relative path is as for WorkspaceRoot.
	Dir string
	// ResumeFrom is the session to resume, the nil UUID included; nil = a new
	// pod.
	ResumeFrom *uuid.UUID
	// Env is the pod's environment; nil = os.Environ(). It also decides where
	// the runtime directory is: see RuntimeDir.
	Env []string
	// ReadyTimeout is how long the ready line and the socket may take together,
	// from the start of the process; 0 = DefaultReadyTimeout.
	ReadyTimeout time.Duration
	// Progress is called, from the goroutine of Start, with every line that the
	// pod logs before it is ready, but not with the ready line: in order, once
	// each, invalid UTF-8 shown as U+FFFD, a line longer than 64 KiB cut and
	// marked. nil = nobody wants to know.
	Progress func(line string)
}

// Args returns the handshake arguments: what the pod is told on its command
// line after the prefix arguments of the command,
//
//	--workspace DIR --pod NAME [--profile P] [--ticket-role R]
//	--workspace DIR --session UUID --pod NAME [--ticket-role R]
func (c Config) Args() []string {
	args := []string{"--workspace", c.WorkspaceRoot}
	if c.ResumeFrom != nil {
		args = append(args, "--session", c.ResumeFrom.String(), "--pod", c.PodName)
	} else {
		args = append(args, "--pod", c.PodName)
		if c.Profile != "" {
			args = append(args, "--profile", c.Profile)
		}
	}
	if c.TicketRole != "" {
		args = append(args, "--ticket-role", c.TicketRole)
	}
	return args
}

// LogPath tells where Start will put the pod's log. Its error is the one with
// which Start refuses the config before it touches anything.
func (c Config) LogPath() (string, error) {
	s := &start{cfg: c}
	if err := s.prepare(); err != nil {
		return "", s.failed(err)
	}
	return below(s.podDir, logName), nil
}

// A Pod is a pod that became ready. Its methods are safe for concurrent use.
// There is nothing to close: its process is reaped when it ends.
type Pod struct {
	// Name is the pod's name.
	Name string
	// PID is the number of the pod's process and of its process group.
	PID int
	// SocketPath is the absolute path of the socket that the pod announced.
	SocketPath string
	// LogPath is the absolute path of the log that is the pod's stderr. A pod
	// removes it when it stops gracefully.
	LogPath string
	// Timeline tells when the steps of the start were seen.
	Timeline Timeline

	process *process
}

// Done is closed after the pod's process has ended and was reaped.
func (p *Pod) Done() <-chan struct{} { return p.process.done }

// State tells how the pod's process ended; nil while it runs. It stays nil if
// the host reaped the process, by a wait for any child: Done tells the end then,
// too.
func (p *Pod) State() *os.ProcessState { return p.process.exitState() }

// Signal sends a signal, which must be a [syscall.Signal], to the pod's whole
// process group, also when the pod itself has ended and left children in it.
// It returns [os.ErrProcessDone] when nobody is left in the group.
func (p *Pod) Signal(sig os.Signal) error {
	number, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("pod %s: signal %v is not a syscall.Signal", p.Name, sig)
	}
	if err := p.process.signal(number); err != nil {
		return fmt.Errorf("pod %s: %w", p.Name, err)
	}
	return nil
}

// Start launches a pod and waits until it is ready. It may be called from many
// goroutines at once. The pod gets what this process has, such as namespaces and
// capabilities, and not what a locked thread of the caller has changed for itself.
//
// Every error is an [*Error]; after one, the pod's process group was killed and
// its process reaped, and the log is left for the reader. A context that ends
// first is an error that wraps the context's; a context that ends later does
// not concern the pod.
func Start(ctx context.Context, cfg Config) (*Pod, error) {
	s := &start{cfg: cfg}
	s.timeline.Start = time.Now()
	if err := ctx.Err(); err != nil {
		return nil, s.failed(fmt.Errorf("start of the pod was cancelled before anything was done: %w", err))
	}
	if err := s.prepare(); err != nil {
		return nil, s.failed(err)
	}
	if err := s.launch(ctx); err != nil {
		s.close()
		return nil, s.failed(err)
	}
	judged := false
	defer func() {
		if !judged { // Progress has panicked
			_ = s.process.kill()
		}
		s.close()
	}()
	err := s.handshake(ctx)
	judged = true
	if err != nil {
		s.timeline.mark(&s.timeline.Ended) // not when the process has: that may take a while
		if killErr := s.process.kill(); killErr != nil {
			err = fmt.Errorf("%w (and %w)", err, killErr)
		}
		return nil, s.failed(err)
	}
	return &Pod{
		Name:       cfg.PodName,
		PID:        s.process.pid,
		SocketPath: s.socket,
		LogPath:    s.logPath,
		Timeline:   s.timeline,
		process:    s.process,
	}, nil
}

// start is one call of Start on its way.
type start struct {
	cfg     Config
	program string // absolute
	env     []string
	podDir  string
	logPath string // "" until the log was made

	process  *process
	log      logReader
	tail     tail
	timeline Timeline
	deadline time.Time
	socket   string // absolute; "" before the ready line
	wake     chan struct{}
	unwatch  []func()
	// logWatched and socketWatched tell whether events of the log and of the
	// socket's directory wake this start.
	logWatched, socketWatched bool
}

func (s *start) failed(err error) error {
	e := &Error{
		Pod:        s.cfg.PodName,
		LogPath:    s.logPath,
		Tail:       s.tail.strings(),
		Unfinished: strings.ToValidUTF8(string(s.log.pending), "\uFFFD"),
		Timeline:   s.timeline,
		Err:        err,
	}
	e.Timeline.mark(&e.Timeline.Ended)
	if s.logPath != "" {
		e.LogTrouble = logTrouble(s.logPath)
	}
	if s.process != nil {
		e.PID, e.State = s.process.pid, s.process.exitState()
	}
	return e
}

// prepare checks the config and fills in its defaults; it touches nothing.
func (s *start) prepare() error {
	c := &s.cfg
	if err := c.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidConfig, err)
	}
	if c.ReadyTimeout == 0 {
		c.ReadyTimeout = DefaultReadyTimeout
	}
	if c.Dir == "" {
		c.Dir = c.WorkspaceRoot
	}
	for _, path := range []*string{&c.WorkspaceRoot, &c.Dir} {
		var err error
		if *path, err = absolute(*path); err != nil {
			return s.launchError(err)
		}
	}
	// As os/exec has it: the last of equal variables counts, and PWD is right
	// where the environment is inherited.
	s.env = (&exec.Cmd{Dir: c.Dir, Env: c.Env}).Environ()
	runtimeDir, err := RuntimeDir(s.env)
	if err != nil {
		return err
	}
	s.podDir = below(below(c.Dir, runtimeDir), c.PodName) // as the pod will take it

	if s.program, err = exec.LookPath(c.Command.Program); err == nil {
		s.program, err = absolute(s.program)
	}
	if err != nil {
		return s.launchError(err)
	}
	info, err := os.Stat(c.Dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "chdir", Path: c.Dir, Err: syscall.ENOTDIR}
	}
	if err != nil {
		return s.launchError(fmt.Errorf("working directory: %w", err))
	}
	return nil
}

func (s *start) launchError(err error) error {
	return fmt.Errorf("%w `%s`: %w", ErrLaunch, s.cfg.Command, err)
}

// check tells which field of the config cannot be right.
func (c Config) check() error {
	switch {
	case c.Command.Program == "":
		return errors.New("Command.Program is empty")
	case c.WorkspaceRoot == "":
		return errors.New("WorkspaceRoot is empty")
	case c.PodName == "" || c.PodName == "." || c.PodName == ".." || strings.ContainsAny(c.PodName, "/\x00\t\r\n"):
		return fmt.Errorf("PodName %q must be one path element: not empty, . or .., and without /, NUL, tab, CR or newline", c.PodName)
	case c.ReadyTimeout < 0:
		return fmt.Errorf("ReadyTimeout %v is negative", c.ReadyTimeout)
	}
	fields := []struct {
		name   string
		values []string
	}{
		{"Command.Program", []string{c.Command.Program}},
		{"Command.PrefixArgs", c.Command.PrefixArgs},
		{"Profile", []string{c.Profile}},
		{"TicketRole", []string{c.TicketRole}},
		{"WorkspaceRoot", []string{c.WorkspaceRoot}},
		{"Dir", []string{c.Dir}},
		{"Env", c.Env},
	}
	for _, field := range fields {
		for _, value := range field.values {
			if strings.ContainsRune(value, 0) {
				// The values of an environment may be secrets.
				if name, _, ok := strings.Cut(value, "="); ok && field.name == "Env" {
					value = name
				}
				return fmt.Errorf("%s %q holds a NUL byte", field.name, value)
			}
		}
	}
	return nil
}

// launch makes the log and starts the process.
func (s *start) launch(ctx context.Context) error {
	stderr, err := s.openLog()
	if err != nil {
		return s.launchError(err)
	}
	defer stderr.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return s.launchError(err)
	}
	defer null.Close()
	s.wake = make(chan struct{}, 1)
	s.logWatched = s.watch(s.logPath, logEvents)

	argv := slices.Concat([]string{s.cfg.Command.Program}, s.cfg.Command.PrefixArgs, s.cfg.Args())
	s.timeline.Start = time.Now()
	s.deadline = s.timeline.Start.Add(s.cfg.ReadyTimeout)
	pace := newPace(s.deadline)
	defer pace.stop()
	for {
		attr := &syscall.ProcAttr{Dir: s.cfg.Dir, Env: s.env, Files: []uintptr{null.Fd(), null.Fd(), stderr.Fd()}}
		s.process, err = startProcess(s.program, argv, attr)
		if err == nil {
			s.timeline.mark(&s.timeline.Launched)
			return nil
		}
		// A program that was just written cannot be executed while a child
		// that another goroutine forked meanwhile still holds it open. That
		// takes a moment; a program that somebody is writing takes longer.
		if !errors.Is(err, syscall.ETXTBSY) || time.Since(s.timeline.Start) > min(busyGrace, s.cfg.ReadyTimeout) {
			return s.launchError(explainExec(s.program, err))
		}
		select {
		case <-pace.next(false):
		case <-ctx.Done():
			return fmt.Errorf("start of the pod was cancelled while its program was being written: %w", ctx.Err())
		}
	}
}

// busyGrace is how long a program may be open for writing before the start
// fails.
const busyGrace = time.Second

// explainExec adds to the error of an exec what the system's words hide.
func explainExec(program string, err error) error {
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%w (something still has the program open for writing after %v)", err, busyGrace)
	case errors.Is(err, syscall.ENOENT):
		if _, statErr := os.Stat(program); statErr == nil {
			return fmt.Errorf("%w (the file is there: the interpreter or the loader that it names is not)", err)
		}
	case errors.Is(err, syscall.EBADF):
		// The child moves its descriptors to numbers beyond the limit.
		var limit syscall.Rlimit
		if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
			return fmt.Errorf("%w (no descriptor is left: the limit on open files is %d, ulimit -n)", err, limit.Cur)
		}
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w (a script needs a first line such as #!/bin/sh)", err)
	}
	return err
}

// openLog makes the pod directory and the log, opens the log for reading, and
// returns it open for writing. Links are refused: whoever can put one there
// would choose what gets overwritten.
func (s *start) openLog() (stderr *os.File, err error) {
	if err := os.MkdirAll(s.podDir, 0o700); err != nil {
		return nil, fmt.Errorf("create pod directory: %w", err)
	}
	info, err := os.Lstat(s.podDir)
	if err != nil {
		return nil, fmt.Errorf("create pod directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("pod directory %s is a %s, not a directory of its own: remove it", s.podDir, fileKind(info))
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return nil, fmt.Errorf("pod directory %s belongs to user %d, not to user %d who starts the pod", s.podDir, owner, os.Geteuid())
	}
	path := below(s.podDir, logName)
	info, err = os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("pod log %s is a %s, not a regular file: remove it", path, fileKind(info))
	}
	// Appending: what the pod writes after its log was truncated goes to the
	// new end of the file, not to the old one.
	stderr, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create pod log: %w", err)
	}
	if info != nil && info.Mode().Perm() != 0o600 {
		err = stderr.Chmod(0o600)
	}
	if err == nil {
		s.log.file, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	}
	if err != nil {
		stderr.Close()
		return nil, fmt.Errorf("create pod log: %w", err)
	}
	if s.cfg.Progress == nil {
		s.log.skip = beforeTail
	}
	s.logPath = path
	return stderr, nil
}

func fileKind(info fs.FileInfo) string {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return "symbolic link"
	case info.IsDir():
		return "directory"
	case info.Mode().IsRegular():
		return "regular file"
	}
	return "special file"
}

func (s *start) watch(path string, events uint32) bool {
	stop, ok := watchPath(path, events, s.wake)
	if ok {
		s.unwatch = append(s.unwatch, stop)
	}
	return ok
}

// close gives back what the start held. The process is not concerned.
func (s *start) close() {
	for _, stop := range s.unwatch {
		stop()
	}
	if s.log.file != nil {
		s.log.file.Close()
	}
}

// handshake waits until the pod is ready, and returns the verdict if that
// cannot be.
func (s *start) handshake(ctx context.Context) error {
	pace := newPace(s.deadline)
	defer pace.stop()
	var socketErr error // why the last connection failed
	for {
		ended := isClosed(s.process.done)
		late := !time.Now().Before(s.deadline)
		cancelled := ctx.Err()

		offset := s.log.offset
		more, err := s.log.read(s.line)
		if err != nil {
			return err
		}
		if s.log.offset != offset {
			pace.woken()
		}
		if ended {
			// Whatever it left in its group must not go on writing.
			_ = s.process.signal(syscall.SIGKILL)
			if err := s.log.drain(s.line); err != nil {
				return err
			}
			return fmt.Errorf("%w (%s)", ErrExited, howItEnded(s.process.exitState()))
		}
		if cancelled != nil {
			return fmt.Errorf("start of the pod was cancelled while waiting for %s: %w", s.waitingFor(socketErr), cancelled)
		}
		if s.socket != "" {
			var notYet bool
			notYet, socketErr = connect(s.socket, s.process.pid)
			switch {
			case socketErr == nil:
				s.timeline.mark(&s.timeline.Connected)
				return nil
			case !notYet:
				return fmt.Errorf("%w %s: %w", ErrSocket, s.socket, socketErr)
			}
		}
		switch {
		case late:
			return fmt.Errorf("%w within %v, waiting for %s", ErrTimeout, s.cfg.ReadyTimeout, s.waitingFor(socketErr))
		case more:
			continue
		}

		watched := s.logWatched
		if s.socket != "" {
			// Events tell of a socket that appears, but not of one that is
			// listened on, or that has room again.
			if !s.socketWatched {
				s.socketWatched = s.watch(s.socket[:strings.LastIndexByte(s.socket, '/')+1], socketEvents)
				if s.socketWatched {
					continue // it may have appeared just before
				}
			}
			watched = watched && s.socketWatched && errors.Is(socketErr, fs.ErrNotExist)
		}
		select {
		case <-s.wake:
			pace.woken()
		case <-pace.next(watched):
		case <-s.process.done:
		case <-ctx.Done():
		}
	}
}

// line takes one line of the log; its error is a verdict.
func (s *start) line(line []byte, cut bool) error {
	s.timeline.mark(&s.timeline.FirstLine)
	if s.socket == "" {
		if name, socket, isReady, ok := parseReady(line); isReady {
			s.timeline.mark(&s.timeline.ReadyLine)
			switch {
			case !ok || cut:
				return fmt.Errorf("%w: %q", ErrMalformedReady, abbreviate(lineText(line, cut)))
			case name != s.cfg.PodName:
				return fmt.Errorf("%w: got %q, want %q", ErrNameMismatch, name, s.cfg.PodName)
			}
			if !filepath.IsAbs(socket) {
				socket = below(s.cfg.Dir, socket)
			}
			s.socket = socket
			return nil
		}
	}
	s.tail.add(line, cut)
	if s.cfg.Progress != nil {
		s.cfg.Progress(lineText(line, cut))
	}
	return nil
}

// waitingFor says what has not happened yet, and why.
func (s *start) waitingFor(socketErr error) string {
	missing := "the ready line"
	if s.socket != "" {
		missing = "its socket " + s.socket
		if socketErr != nil {
			missing += " (" + socketTrouble(s.socket, socketErr) + ")"
		}
	}
	if isStopped(s.process.pid) {
		missing += "; the process is stopped, as by SIGSTOP"
	}
	return missing
}

// howItEnded says in words what State tells of a pod that has ended.
func howItEnded(state *os.ProcessState) string {
	if state == nil {
		return "its status is lost: this program, or a library in it, waits for any child"
	}
	return state.String()
}

// absolute returns path as it is from this process's working directory.
func absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return clean(path), nil
	}
	dir, err := os.Getwd()
	return below(dir, path), err
}

// below returns path as it is from dir.
func below(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = dir + "/" + path
	}
	return clean(path)
}

// clean is filepath.Clean but for a path with .. in it: where that leads behind
// a symbolic link, only the system knows.
func clean(path string) string {
	if slices.Contains(strings.Split(path, "/"), "..") {
		return path
	}
	return filepath.Clean(path)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
