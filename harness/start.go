package harness

import (
	"errors"
	"path/filepath"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// StartPod starts a pod and waits until it is ready. It fails the test, with
// the evidence, if that cannot be; like FailNow it must then be called from the
// test's goroutine. The pod is torn down when the test ends.
func StartPod(tb TB, cfg Config) *Pod {
	tb.Helper()
	pod, err := start(tb, cfg)
	if err != nil {
		fatalStart(tb, cfg, err)
		return nil
	}
	started(cfg)
	return pod
}

// TryStartPod is StartPod for tests that expect a failure: it returns the
// [*spawn.Error], and says nothing itself. Another error tells that no start was
// tried: there is no sandbox, the name is that of a pod that runs or is being
// started, or the test has ended. It may be called from any goroutine; a start
// that the end of the test overtakes is cancelled. (One that begins after the end
// is noticed where TB has Context, as *testing.T since Go 1.24.)
func TryStartPod(tb TB, cfg Config) (*Pod, error) {
	tb.Helper()
	return start(tb, cfg)
}

// RuntimeDir returns the runtime directory that the pods of a test share: the
// directory of the pod NAME is RuntimeDir(tb)/NAME. It fails the test if the
// sandbox cannot be made.
func RuntimeDir(tb TB) string {
	tb.Helper()
	box, err := sandboxOf(tb)
	if err != nil {
		fatal(tb, err)
		return ""
	}
	return box.Dir("run")
}

func start(tb TB, cfg Config) (*Pod, error) {
	tb.Helper()
	if err := mayStart(); err != nil {
		return nil, err
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	box, err := sandboxOf(tb)
	if err != nil {
		return nil, err
	}
	if cfg.Name == "" {
		cfg.Name = box.newName()
	}
	return box.start(cfg, func(pod *Pod) {
		tb.Helper()
		tb.Cleanup(pod.cleanup)
	})
}

// start starts a pod whose config is complete; keep is called with one that is ready.
func (b *oneTest) start(cfg Config, keep func(*Pod)) (*Pod, error) {
	b.tb.Helper()
	done, err := b.begin(cfg.Name)
	if err != nil {
		return nil, err
	}
	defer done()
	sc, err := b.spawnConfig(cfg)
	if err != nil {
		return nil, err
	}
	mark := b.newMark()
	args := evidence.Args{All: cfg.ShowArgs, NameFlag: cfg.NameFlag}
	b.binary.Show(mark, args)
	sc.Env = append(sc.Env, proc.MarkEnv+"="+mark)
	var note string
	sc.ReadyTimeout, note = beforeDeadline(b.tb, "ready timeout", cfg.ReadyTimeout)
	a := b.evidence.Start(cfg.life(sc.PodName), args)
	run := proc.BeginRun()
	var process proc.ID
	launched := false
	b.binary.Starting()
	started, err := b.observe(a, sc, proc.Match{Mark: mark, Run: run}, func(pid int) {
		launched = true
		process = b.binary.Launched(pid, a.Dump)
		run.Pod = proc.ID{PID: pid, Start: process.Start}
	})
	if !launched {
		b.binary.Launched(0, 0)
	}
	a.Captured.Follow()
	if err != nil {
		b.clearFailed(cfg.Name, proc.Match{Mark: mark, Run: run})
		b.tellStruckBy(err, cfg.Name, cfg.Faults)
		b.binary.LetGo(process)
		a.Captured.EndFollowing()
		if errors.Is(err, spawn.ErrTimeout) && note != "" {
			err = cut(err, note)
		}
		return nil, err
	}
	words := map[string]string{"workspace": sc.WorkspaceRoot, "home": b.Dir("home"), "name": sc.PodName, "runtime": filepath.Dir(filepath.Dir(started.LogPath))}
	pod := &Pod{started, b.tb, &common{cfg: cfg, box: b, log: a.Captured, attempt: a, mark: mark, process: process, run: run, words: words}}
	if pod.Timeline.Connected > cfg.ReadyTimeout/2 {
		happened(readyLate, b.tb)
		b.tb.Logf("harness: pod %s became ready only after %v, more than half of its ready timeout of %v", pod.name(), pod.Timeline.Connected.Round(time.Millisecond), cfg.ReadyTimeout)
	}
	b.add(pod)
	pod.tellReady()
	keep(pod)
	return pod, nil
}

// observe starts a pod, and has its attempt know what comes of it; launched is called with
// the pod's process.
func (b *oneTest) observe(a *evidence.Attempt, sc spawn.Config, m proc.Match, launched func(pid int)) (*spawn.Pod, error) {
	o := &spawn.Observer{Command: a.Args.Words(sc.Command), Fresh: true, Grown: a.Captured.Grown, Line: a.Captured.Stream()}
	o.Planned = b.CheckPodDir
	o.Launched = func(pid int) {
		launched(pid)
		a.Captured.Take(o.Log)
		a.Change(func() { a.PID, a.Timeline.Launched = pid, time.Since(a.Timeline.Start) })
	}
	o.Socket = a.NoteSocket
	o.Struck = func(strike fault.Strike) {
		a.Note("fault: " + podlog.Printable(strike.String()))
		if tb, asks := optional[interface{ Struck() }](b.tb); asks {
			tb.Struck()
		}
	}
	if _, asks := optional[leftTB](b.tb); asks {
		o.Exited = func() {
			m.Look()
			b.tellLeft(leaksOf(proc.Lasting(m, leakGrace), b.binary.Commands(m.Mark)))
		}
	}
	o.Failing = func(verdict error) { b.failing(a, m, verdict) }
	pod, err := spawn.StartObserved(b.ctx, sc, o)
	redactStart(a, err)
	a.Captured.Take(o.Log) // of one that was not launched, too
	a.Change(func() {
		var e *spawn.Error
		switch {
		case pod != nil:
			a.Timeline = pod.Timeline
		case errors.As(err, &e):
			failed := *e
			failed.Block = true
			if failed.LogPath != "" {
				failed.LogPath = a.FileName()
			}
			a.Error = failed.Error()
			failed = *e
			failed.Tail, failed.Unfinished = nil, "" // the log has them
			a.Timeline, a.StartFailed = e.Timeline, &failed
		}
	})
	return pod, err
}

// redactStart has the lines of the log in the error of a start be as they may be shown.
func redactStart(a *evidence.Attempt, err error) {
	var e *spawn.Error
	if a.Redact == nil || !errors.As(err, &e) {
		return
	}
	for i, line := range e.Tail {
		e.Tail[i] = a.Captured.Redact(line)
	}
	for _, line := range []*string{&e.Reason, &e.NearMiss, &e.Unfinished} {
		*line = a.Captured.Redact(*line)
	}
	if text := a.Captured.Redact(e.Err.Error()); text != e.Err.Error() { // it may quote a ready line
		e.Err = evidence.Reworded(text, e.Err)
	}
}
