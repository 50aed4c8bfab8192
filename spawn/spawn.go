// Package spawn starts pods. A pod is a long-running local agent process. It says on its
// stderr when and where it can be reached. From then on it is independent of the process
// that started it.
//
// [Start] launches the process in its own process group with its stderr in a
// log file, follows that file until the pod's ready line
//
//	YOI-READY<TAB>name<TAB>socket path<NEWLINE>
//
// and connects to the socket once. It closes that connection immediately, which a pod
// must tolerate. Every other outcome is an [*Error] with a verdict and the evidence.
// Start has then killed the process group and reaped the process:
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
// A pod that became ready lives on when this process ends. Pods of tests must not
// live on: package harness starts those.
//
// Start is woken by events of inotify, and by timers where there is no inotify. All starts
// of this process share one inotify instance, which stays open.
package spawn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// Start launches a pod and waits until it is ready. It may be called from many
// goroutines at once. The pod inherits the namespaces and capabilities of this process,
// even if the calling goroutine has locked its thread and changed its own.
//
// Every error is an [*Error]. Before Start returns an error, it has killed the pod's
// process group and reaped its process; the log stays. If ctx ends before the pod is
// ready, the error wraps the context's; after that, ctx has no effect on the pod.
func Start(ctx context.Context, cfg Config) (*Pod, error) {
	o := &Observer{}
	defer o.closeLog()
	return StartObserved(ctx, cfg, o)
}

// An Observer sees the steps of one start. Its functions may be nil. Except for Grown,
// they are called from the goroutine of [StartObserved].
type Observer struct {
	// Planned is called with the absolute path of the pod directory when the config is
	// known to be valid, before anything is touched. If it returns an error, the start
	// fails with that.
	Planned func(podDir string) error
	// Command is how messages show the command; "" = as it is.
	Command string
	// Fresh replaces an older log instead of truncating it, so that its readers keep it.
	Fresh bool
	// Launched is called with the number of the pod's process as soon as it runs.
	Launched func(pid int)
	// Grown is called by whoever reads the log, with the size of the log in bytes, when
	// that has changed.
	Grown func(size int64)
	// Line is called with every line that the start reads, including the ready line.
	// Later lines are for the Follow of Log.
	Line func(line string)
	// Exited is called when the process has ended before it was ready, before whatever it has
	// left in its group is killed.
	Exited func()
	// Failing is called with the verdict on a pod that was launched, before its process
	// group is killed.
	Failing func(verdict error)
	// Socket is called with the state of the announced path when it has changed: a word
	// of Error.Why, or "listened on".
	Socket func(what string)
	// Log is set by the start once the log was created, even if the start fails later.
	// The observer closes it.
	Log *podlog.Log
	// Struck is called with each call that a fault has struck, also after the start, from a
	// goroutine of its own.
	Struck func(fault.Strike)
	// Idle is called when the start begins to wait for more lines. During the call,
	// missing returns what the start waits for.
	Idle func(missing func() string)

	socket string // as Socket was told last
}

func (o *Observer) closeLog() {
	if o.Log != nil {
		o.Log.Close()
	}
}

func (o *Observer) found(what string) {
	if o.Socket != nil && what != o.socket {
		o.socket = what
		o.Socket(what)
	}
}

func (o *Observer) failing(verdict error) {
	if o.Failing != nil {
		o.Failing(verdict)
	}
}

// StartObserved is [Start] with an observer.
func StartObserved(ctx context.Context, cfg Config, o *Observer) (*Pod, error) {
	return (&start{observer: o}).run(ctx, cfg)
}

// start is one start.
type start struct {
	plan
	observer *Observer
	made     fs.FileInfo    // of the log, as it was made
	claim    *podlog.Claim  // nil until the pod directory was locked
	log      *podlog.Log    //  nil until it was made
	running  int            // the process of a pod that runs already; 0 = not known
	process  *process       // nil until it was launched
	faults   *fault.Session // nil = there are none
	tail     podlog.Tail
	timeline Timeline
	deadline time.Time
	pace     *podlog.Pace

	socket        string // absolute; "" before the ready line
	shownSocket   string // as messages have it
	socketErr     error  // why the last connection failed
	socketState   string // what there was then
	unmet         wait   // when the verdict was given on a pod that had to wait
	unwatchSocket func() // nil unless events of its directory wake this start
	more          bool   // there is more of the log to read
}

// shown returns the command as messages show it.
func (s *start) shown() string { return cmp.Or(s.observer.Command, s.Command.String()) }

func (s *start) run(ctx context.Context, cfg Config) (*Pod, error) {
	s.Config = cfg // for the messages, until there is a plan
	s.timeline.Start = time.Now()
	if err := ctx.Err(); err != nil {
		return nil, s.failed(fmt.Errorf("start of the pod was cancelled before anything was done: %w", err))
	}
	plan, err := cfg.plan(s.shown())
	if err != nil {
		return nil, s.failed(err)
	}
	s.plan = plan
	if s.observer.Planned != nil {
		if err := s.observer.Planned(s.podDir); err != nil {
			return nil, s.failed(err)
		}
	}
	defer func() {
		if s.claim != nil {
			s.claim.Release()
		}
	}()
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
	s.log.Skip = nil // whoever follows the log wants all
	return &Pod{Name: s.PodName, PID: s.process.pid, SocketPath: s.socket, LogPath: s.log.File().Name(), Timeline: s.timeline, Faults: s.faults, process: s.process}, nil
}

func (s *start) failed(err error) error {
	e := &Error{
		Verdict: verdictOf(err), Pod: s.PodName, SocketPath: s.socket, PID: s.running, Missing: s.unmet.missing, Why: s.unmet.why, Stopped: s.unmet.stopped, StopSignal: s.unmet.signal,
		Tail: s.tail.Strings(), Reason: s.tail.Reason(), Timeline: s.timeline, Err: err,
	}
	e.Timeline.mark(&e.Timeline.Ended)
	if s.timeline.ReadyLine == 0 {
		e.NearMiss = s.tail.NearMiss()
	}
	if s.log != nil {
		e.LogPath = s.log.File().Name()
		unfinished, _ := s.log.Unfinished()
		e.Unfinished = podlog.LineText(unfinished, false)
		e.LogTrouble = podlog.Trouble(s.log.File())
		if e.LogTrouble == "" && s.log.WasTruncated() && s.socket == "" {
			e.LogTrouble = "the log was truncated while it was read, and lines may be lost with it: a shell's `> /dev/stderr` does that, `>&2` does not"
		}
	}
	if s.process != nil && s.faults != nil {
		s.awaitFaults()
		e.Strikes = s.faults.Strikes()
		if err := s.faults.Err(); err != nil {
			e.Unseen = err.Error()
		}
	}
	if s.process != nil {
		e.PID, e.State = s.process.pid, s.process.exitState()
		if errors.Is(err, ErrExited) && e.State != nil {
			e.Status = e.State.String()
		}
	}
	return e
}

// awaitFaults waits until nobody meets the faults any more: whoever has been killed does not.
// What the pod has left elsewhere may.
func (s *start) awaitFaults() {
	timer := time.NewTimer(killGrace / 10)
	defer timer.Stop()
	select {
	case <-s.faults.Done():
	case <-timer.C:
	}
}

// forker returns what starts the process.
func (s *start) forker() (forker, error) {
	if len(s.Faults) == 0 {
		return forkExec, nil
	}
	var err error
	s.faults, err = fault.New(s.Faults, s.observer.Struck)
	if err != nil {
		return nil, launchError(s.shown(), err)
	}
	return s.faults.Start, nil
}

// killedGrace is for how long a socket may answer whose pod has ended, whoever holds it.
const killedGrace = 200 * time.Millisecond

// refuse makes the pod directory, locked until the start is over, and returns an error if
// there is another pod of the name.
func (s *start) refuse() (err error) {
	s.claim, err = podlog.NewClaim(s.podDir, !s.AllowSecond)
	switch {
	case errors.Is(err, podlog.ErrClaimed):
		return fmt.Errorf("%w: another start of it is under way, and holds the lock on %s; its process and socket are not known yet", ErrAlreadyRuns, podlog.PathText(s.podDir))
	case err != nil:
		return launchError(s.shown(), err)
	case s.AllowSecond:
		return nil
	}
	socket := s.podDir + "/sock"
	pid, err := proc.Listener(socket)
	// What the pod has left may just be ending, too.
	for begin := time.Now(); err == nil && proc.Ended(pid) && (time.Since(begin) < killedGrace || time.Since(begin) < killGrace && areKilled(proc.Holders(socket))); pid, err = proc.Listener(socket) {
		<-time.After(5 * time.Millisecond)
	}
	switch {
	case isOwnTrouble(err):
		return launchError(s.shown(), fmt.Errorf("whether a pod of the name runs is not known: %w", err))
	case err != nil && !errors.Is(err, syscall.EAGAIN) || err == nil && isKilled(pid): // stale, or none
		return nil
	}
	s.socket = socket
	who := "a process"
	switch {
	case err != nil:
		who += ", whose backlog is full,"
	case pid > 0 && proc.Ended(pid): // it began to listen
		who += fmt.Sprintf(", left by process %d,", pid)
	case pid > 0:
		s.running, who = pid, fmt.Sprintf("process %d", pid)
	}
	return fmt.Errorf("%w: %s listens on its socket %s", ErrAlreadyRuns, who, podlog.PathText(socket))
}

// launch makes the log and starts the process.
func (s *start) launch(ctx context.Context) error {
	if _, err := s.forker(); err != nil {
		return err // before anything is touched
	}
	stderr, err := s.openLog()
	if err != nil {
		return err
	}
	defer stderr.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return launchError(s.shown(), err)
	}
	defer null.Close()

	argv := slices.Concat([]string{s.Command.Program}, s.Command.PrefixArgs, s.Args())
	files := []uintptr{null.Fd(), null.Fd(), stderr.Fd()}
	s.timeline.Start = time.Now()
	s.deadline = s.timeline.Start.Add(s.ReadyTimeout)
	pace := podlog.NewPace(s.deadline)
	defer pace.Stop()
	for {
		fork, err := s.forker()
		if err != nil {
			return err
		}
		s.process, err = startProcess(fork, s.program, argv, &syscall.ProcAttr{Dir: s.Dir, Env: s.environ, Files: files})
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
			return launchError(s.shown(), explainExec(s.program, err))
		}
		select {
		case <-pace.Next(false):
		case <-ctx.Done():
		}
	}
}

// openLog makes the log that is the pod's stderr, and has it watched.
func (s *start) openLog() (stderr *os.File, err error) {
	var reader *os.File
	for again := 10; ; again-- {
		if err := s.refuse(); err != nil {
			return nil, err
		}
		stderr, reader, err = podlog.Create(s.podDir, s.observer.Fresh)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || again == 0 {
			return nil, launchError(s.shown(), err)
		}
		s.claim.Release() // a pod that has stopped has just removed its directory
	}
	s.log = podlog.Watch(reader, s.observer.Grown)
	if s.Progress == nil && s.observer.Line == nil {
		s.log.Skip = s.tail.Skip
	}
	s.observer.Log = s.log
	if s.made, err = stderr.Stat(); err != nil {
		stderr.Close()
		err = launchError(s.shown(), err)
	}
	return stderr, err
}

// await looks until the pod is ready, and returns the verdict if that cannot be.
func (s *start) await(ctx context.Context) error {
	s.pace = podlog.NewPace(s.deadline)
	defer s.pace.Stop()
	if s.observer.Launched != nil {
		s.observer.Launched(s.process.pid)
	}
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
	s.deadline = s.deadline.Add(s.pace.Extend())
	// What is over by now is judged by all that it has left in the log.
	ended, late, cancelled := s.process.isDone(), !time.Now().Before(s.deadline), ctx.Err()
	offset := s.log.Offset()
	if s.more, err = s.log.Read(s.line); err == nil && late && s.more {
		err = s.log.Drain(s.line, func() bool { return time.Since(s.deadline) > lastLook })
	}
	if err != nil {
		return false, err
	}
	if s.log.Offset() != offset {
		s.pace.Woken()
	}
	switch {
	case ended:
		return false, s.exited(ctx)
	case cancelled != nil:
		s.unmet = s.waitsFor()
		return false, fmt.Errorf("start of the pod was cancelled while waiting for %s: %w", s.unmet.text, cancelled)
	}
	if s.socket != "" {
		s.socketErr = connect(s.socket, s.process.pid, s.made)
		s.socketState = stateOf(s.socket, s.socketErr)
		s.observer.found(s.socketState)
		switch {
		case s.socketErr == nil:
			s.timeline.mark(&s.timeline.Connected)
			return true, nil
		case !isNotYet(s.socketErr):
			return false, fmt.Errorf("%w %s: %w", ErrSocket, s.shownSocket, explainDescriptors(s.socketErr))
		}
	}
	if late {
		s.unmet = s.waitsFor()
		return false, fmt.Errorf("%w within %v, waiting for %s", ErrTimeout, s.ReadyTimeout, s.unmet.text)
	}
	return false, nil
}

// lastLook is for how long the log is still read after the deadline.
const lastLook = time.Second

// wait returns when it is time for another look.
func (s *start) wait(ctx context.Context) {
	if s.more {
		return
	}
	if s.observer.Idle != nil {
		s.observer.Idle(func() string { return s.waitsFor().text })
	}
	if s.socket != "" && s.unwatchSocket == nil {
		dir := s.socket[:strings.LastIndexByte(s.socket, '/')+1]
		if stop, ok := s.log.WatchDir(dir); ok {
			s.unwatchSocket = stop
			return // it may have appeared just before
		}
	}
	// Events tell of a socket that appears in its directory, but not of one that
	// is listened on or has room again, nor of what happens behind a link.
	wake, watched := s.log.Wake()
	select {
	case <-wake:
		s.pace.Woken()
	case <-s.pace.Next(watched && s.socket == ""):
	case <-s.process.done:
	case <-ctx.Done():
	}
}

// exited returns the verdict on a pod whose process has ended.
func (s *start) exited(ctx context.Context) error {
	if s.observer.Exited != nil {
		s.observer.Exited()
	}
	// Whatever it left in its group must not go on writing.
	_ = s.process.signal(syscall.SIGKILL)
	late := func() bool { return ctx.Err() != nil || time.Now().After(s.deadline) }
	if err := s.log.Drain(s.line, late); err != nil {
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
		s.observer.Line(podlog.LineText(line, cut))
	}
	if s.socket == "" && podlog.IsReady(line) {
		s.timeline.mark(&s.timeline.ReadyLine)
		return s.ready(line, cut)
	}
	s.tail.Add(line, cut)
	if s.Progress != nil {
		s.Progress(podlog.LineText(line, cut))
	}
	return nil
}
