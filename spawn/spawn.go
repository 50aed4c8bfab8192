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
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/spawn/proc"
)

// Start launches a pod and waits until it is ready. It may be called from many
// goroutines at once. The pod gets what this process has, such as namespaces and
// capabilities, and not what a locked thread of the caller has changed for itself.
//
// Every error is an [*Error]; after one, the pod's process group was killed and
// its process reaped, and the log is left for the reader. A context that ends
// first is an error that wraps the context's; a context that ends later does
// not concern the pod.
func Start(ctx context.Context, cfg Config) (*Pod, error) {
	return startAlone(ctx, cfg, &Observer{})
}

// startAlone is Start for an observer that does not want the log.
func startAlone(ctx context.Context, cfg Config, o *Observer) (*Pod, error) {
	defer func() {
		if o.Log != nil {
			o.Log.Close()
		}
	}()
	return (&start{observer: o}).run(ctx, cfg)
}

// start is one start on its way.
type start struct {
	plan
	observer *Observer
	made     fs.FileInfo // of the log, as it was made
	log      *Log        // nil until it was made
	process  *process    // nil until it was launched
	tail     tail
	timeline Timeline
	deadline time.Time
	pace     *pace

	socket        string // absolute; "" before the ready line
	socketErr     error  // why the last connection failed
	unwatchSocket func() // nil unless events of its directory wake this start
	more          bool   // there is more of the log to read
}

func (s *start) run(ctx context.Context, cfg Config) (*Pod, error) {
	s.Config = cfg // for the messages, until there is a plan
	s.timeline.Start = time.Now()
	if err := ctx.Err(); err != nil {
		return nil, s.failed(fmt.Errorf("start of the pod was cancelled before anything was done: %w", err))
	}
	plan, err := cfg.plan()
	if err != nil {
		return nil, s.failed(err)
	}
	s.plan = plan
	if err := s.launch(ctx); err != nil {
		return nil, s.failed(err)
	}
	judged := false
	defer func() {
		if !judged { // the observer or Progress has panicked
			_ = s.process.kill()
		}
	}()
	err = s.await(ctx)
	if err != nil {
		s.timeline.mark(&s.timeline.Ended) // not when the process has: that may take a while
		s.observer.failing(err)
	}
	judged = true
	if err != nil {
		if killErr := s.process.kill(); killErr != nil {
			err = fmt.Errorf("%w (and %w)", err, killErr)
		}
		return nil, s.failed(err)
	}
	return &Pod{
		Name:       s.PodName,
		PID:        s.process.pid,
		SocketPath: s.socket,
		LogPath:    s.log.file.Name(),
		Timeline:   s.timeline,
		process:    s.process,
	}, nil
}

func (s *start) failed(err error) error {
	e := &Error{Pod: s.PodName, SocketPath: s.socket, Tail: s.tail.strings(), Timeline: s.timeline, Err: err}
	e.Timeline.mark(&e.Timeline.Ended)
	if s.log != nil {
		e.LogPath = s.log.file.Name()
		e.Unfinished = strings.ToValidUTF8(string(s.log.pending), "\uFFFD")
		e.LogTrouble = logTrouble(e.LogPath)
		if e.LogTrouble == "" && s.log.truncated && s.socket == "" {
			e.LogTrouble = "the log was truncated while it was read, and lines may be lost with it: a shell's `> /dev/stderr` does that, `>&2` does not"
		}
	}
	if s.process != nil {
		e.PID, e.State = s.process.pid, s.process.exitState()
	}
	return e
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

	argv := slices.Concat([]string{s.Command.Program}, s.Command.PrefixArgs, s.Args())
	files := []uintptr{null.Fd(), null.Fd(), stderr.Fd()}
	s.timeline.Start = time.Now()
	s.deadline = s.timeline.Start.Add(s.ReadyTimeout)
	pace := newPace(s.deadline)
	defer pace.stop()
	for {
		s.process, err = startProcess(s.program, argv, &syscall.ProcAttr{Dir: s.Dir, Env: s.environ, Files: files})
		if err == nil {
			s.timeline.mark(&s.timeline.Launched)
			return nil
		}
		// A program that was just written cannot be executed while a child
		// that another goroutine forked meanwhile still holds it open. That
		// takes a moment; a program that somebody is writing takes longer.
		busy := errors.Is(err, syscall.ETXTBSY)
		if busy && ctx.Err() != nil {
			return fmt.Errorf("start of the pod was cancelled while its program was being written: %w", ctx.Err())
		}
		if !busy || time.Since(s.timeline.Start) > min(busyGrace, s.ReadyTimeout) {
			return s.launchError(explainExec(s.program, err))
		}
		select {
		case <-pace.next(false):
		case <-ctx.Done():
		}
	}
}

// openLog makes the log that is the pod's stderr, and has it watched.
func (s *start) openLog() (stderr *os.File, err error) {
	stderr, reader, err := createLog(s.podDir, s.observer.fresh)
	if err != nil {
		return nil, err
	}
	s.log = watchLog(reader)
	s.log.grown = s.observer.Grown
	if s.Progress == nil && s.observer.Line == nil {
		s.log.skip = beforeTail
	}
	s.observer.Log = s.log
	if s.made, err = stderr.Stat(); err != nil {
		stderr.Close()
	}
	return stderr, err
}

// await looks until the pod is ready, and returns the verdict if that cannot be.
func (s *start) await(ctx context.Context) error {
	if s.observer.Launched != nil {
		s.observer.Launched(s.process.pid)
	}
	s.pace = newPace(s.deadline)
	defer s.pace.stop()
	defer func() {
		if s.unwatchSocket != nil {
			s.unwatchSocket()
		}
	}()
	for {
		ready, err := s.look(ctx)
		if ready || err != nil {
			return err
		}
		s.wait(ctx)
	}
}

// look is one look at everything there is to see: the pod is ready, or there is
// another verdict, or neither yet.
func (s *start) look(ctx context.Context) (ready bool, err error) {
	// What is over by now is judged by all that it has left in the log.
	ended, late, cancelled := s.process.isDone(), !time.Now().Before(s.deadline), ctx.Err()
	offset := s.log.offset
	if s.more, err = s.log.read(s.line); err != nil {
		return false, err
	}
	if s.log.offset != offset {
		s.pace.woken()
	}
	switch {
	case ended:
		return false, s.exited(ctx)
	case cancelled != nil:
		return false, fmt.Errorf("start of the pod was cancelled while waiting for %s: %w", s.missing(), cancelled)
	}
	if s.socket != "" {
		s.socketErr = connect(s.socket, s.process.pid, s.made)
		s.observer.found(s.socket, s.socketErr)
		switch {
		case s.socketErr == nil:
			s.timeline.mark(&s.timeline.Connected)
			return true, nil
		case !isNotYet(s.socketErr):
			return false, fmt.Errorf("%w %s: %w", ErrSocket, s.socket, s.socketErr)
		}
	}
	if late {
		return false, fmt.Errorf("%w within %v, waiting for %s", ErrTimeout, s.ReadyTimeout, s.missing())
	}
	return false, nil
}

// wait returns when it is time for another look.
func (s *start) wait(ctx context.Context) {
	if s.more {
		return
	}
	if s.observer.idle != nil {
		s.observer.idle(s.missing)
	}
	if s.socket != "" && s.unwatchSocket == nil {
		dir := s.socket[:strings.LastIndexByte(s.socket, '/')+1]
		if stop, ok := watchPath(dir, socketEvents, s.log.wake); ok {
			s.unwatchSocket = stop
			return // it may have appeared just before
		}
	}
	// Events tell of a socket that appears in its directory, but not of one that
	// is listened on or has room again, nor of what happens behind a link.
	select {
	case <-s.log.wake:
		s.pace.woken()
	case <-s.pace.next(s.log.watched && s.socket == ""):
	case <-s.process.done:
	case <-ctx.Done():
	}
}

// exited returns the verdict on a pod whose process has ended.
func (s *start) exited(ctx context.Context) error {
	// Whatever it left in its group must not go on writing.
	_ = s.process.signal(syscall.SIGKILL)
	late := func() bool { return ctx.Err() != nil || time.Now().After(s.deadline) }
	if err := s.log.drain(s.line, late); err != nil {
		return err
	}
	if state := s.process.exitState(); state != nil {
		return fmt.Errorf("%w (%s)", ErrExited, state)
	}
	return fmt.Errorf("%w (its status is lost: this program, or a library in it, waits for any child)", ErrExited)
}

// line takes one line of the log; its error is a verdict.
func (s *start) line(line []byte, cut bool) error {
	s.timeline.mark(&s.timeline.FirstLine)
	if s.observer.Line != nil {
		s.observer.Line(lineText(line, cut))
	}
	if s.socket == "" && isReadyLine(line) {
		s.timeline.mark(&s.timeline.ReadyLine)
		return s.ready(line, cut)
	}
	s.tail.add(line, cut)
	if s.Progress != nil {
		s.Progress(lineText(line, cut))
	}
	return nil
}

// ready takes the ready line.
func (s *start) ready(line []byte, cut bool) error {
	told, err := parseReady(line)
	if cut {
		err = errors.New("it is longer than 64 KiB")
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %q (%w)", ErrMalformedReady, abbreviate(lineText(line, cut)), err)
	case told.name != s.PodName:
		return fmt.Errorf("%w: got %q, want %q", ErrNameMismatch, told.name, s.PodName)
	}
	s.socket = told.socket
	if !filepath.IsAbs(told.socket) {
		s.socket = below(proc.WorkingDir(s.process.pid, s.Dir), told.socket)
	}
	return nil
}

const isStoppedNote = "; the process is stopped, as by SIGSTOP"

// missing says what has not happened yet, and why.
func (s *start) missing() string {
	missing := "the ready line"
	if s.socket != "" {
		missing = "its socket " + s.socket
		if s.socketErr != nil {
			missing += " (" + socketTrouble(s.socket, s.socketErr) + ")"
		}
	}
	if proc.Stopped(s.process.pid) {
		missing += isStoppedNote
	}
	return missing
}
