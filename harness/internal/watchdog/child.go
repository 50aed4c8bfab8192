package watchdog

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
	"golang.org/x/sys/unix"
)

// How long the watchdog takes at the most: to look at what lives, to kill what forks
// faster than it is found, and to write evidence; and how long it waits for what pods are
// asked to write, and for the end of what it has killed.
const (
	lookTime     = 2 * time.Second
	lastGrace    = 10 * time.Second
	evidenceTime = time.Minute
	dumpTime     = 500 * time.Millisecond
	endTime      = 5 * time.Second
)

// run is what the watchdog does. It waits for the end of the test binary, looks
// at what its pods have left, and ends that. Only then it reads what pods could have
// written, to write the evidence of the tests that were cut short, and removes their
// sandboxes.
func run(mark, root, base string) {
	proc.CloseInherited()
	debug.FreeOSMemory() // what the host's initialization used
	w := newWatched()
	// Whatever is older is nobody's pod, wherever its log is now.
	w.binary = proc.Of(os.Getppid()).Start
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		w.note(lines.Text())
	}
	seen, err := within(lookTime, func() evidence.Seen { return w.look(mark) })
	w.end(mark, root)
	if err != nil {
		seen = evidence.Seen{At: time.Now(), Unknown: err}
	}
	records, err := within(evidenceTime, func() []*evidence.Record {
		dir, err := safefile.OpenDir(root)
		if err != nil {
			return nil
		}
		defer dir.Close()
		own, err := dir.Dir(OwnDir)
		if err != nil {
			return nil
		}
		defer own.Close()
		return evidence.CutShort(own, root, base, w.places, seen)
	})
	told := sayWhere(records, err)
	deadline := time.Now().Add(evidenceTime)
	for _, r := range records {
		// What cannot be written is missing there.
		_, _ = within(time.Until(deadline), func() bool { r.Write(); return true })
	}
	told()
	for again := 3; safefile.RemoveAll(root) != nil && again > 0; again-- { // nobody is left to be told
	}
}

// within returns what f returns; an error if that takes longer, or if f panics. What it
// reads may be a pod's.
func within[T any](d time.Duration, f func() T) (T, error) {
	type outcome struct {
		result T
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o.err = fmt.Errorf("panic: %s", podlog.Printable(fmt.Sprint(p)))
			}
			done <- o
		}()
		o.result = f()
	}()
	select {
	case o := <-done:
		return o.result, o.err
	case <-time.After(d):
		var none T
		return none, fmt.Errorf("it took longer than %v", d)
	}
}

// sayWhere names the evidence on the test binary's stderr, and lets go of that, for
// the end of which go test waits: when the function that it returns is called, since
// whoever goes on then may collect the evidence, but no later than in a second.
func sayWhere(records []*evidence.Record, lost error) (written func()) {
	var lines []string
	for _, r := range records {
		where, err := r.Where()
		if err != nil || where == "" {
			where = fmt.Sprintf("lost: %v", err)
		}
		lines = append(lines, fmt.Sprintf("harness: evidence of %s (%s): %s\n", podlog.Printable(r.Name), podlog.Printable(r.Why), podlog.Printable(where)))
	}
	if lost != nil {
		lines = append(lines, fmt.Sprintf("harness: the evidence of the tests that were cut short is lost: %v\n", lost))
	}
	over, said := make(chan struct{}), make(chan struct{})
	late := time.After(time.Second)
	signal.Ignore(syscall.SIGPIPE) // nobody may read it any more
	go func() {
		defer close(said)
		if len(records) > 0 {
			select {
			case <-over:
			case <-late:
			}
		}
		for _, line := range lines {
			fmt.Fprint(os.Stderr, line)
		}
		os.Stderr.Close()
	}()
	return func() {
		close(over)
		select {
		case <-said:
		case <-time.After(time.Second): // nobody reads it, and it is full
		}
	}
}

// watched is what the watchdog knows: what the test binary, and nobody else, has told it.
type watched struct {
	pods   map[proc.ID]heldPod
	binary int64          // when the test binary has started; 0 = not known
	starts int            // whose process is not known yet
	since  int64          // the begin of the first of those; 0 = there is none
	places map[int]string // where the evidence of a sandbox is, or goes
	shown  map[string]evidence.Args
}

type heldPod struct {
	*proc.Handle
	dump syscall.Signal // has it write what it does; 0 = nothing has
}

func newWatched() *watched {
	return &watched{pods: map[proc.ID]heldPod{}, places: map[int]string{}, shown: map[string]evidence.Args{}}
}

// note takes a line of the test binary.
func (w *watched) note(line string) {
	if line == "" {
		return
	}
	what, text := line[0], line[1:]
	if what == isPlaced {
		var sandbox int
		var dir string
		if n, _ := fmt.Sscanf(text, "%d %q", &sandbox, &dir); n == 2 {
			w.places[sandbox] = dir
		}
		return
	}
	if what == isShown {
		var s evidence.Args
		var mark string
		if n, _ := fmt.Sscanf(text, "%t %q %q", &s.All, &s.NameFlag, &mark); n == 3 {
			w.shown[mark] = s
		}
		return
	}
	var p proc.ID
	var dump int
	_, _ = fmt.Sscan(text, &p.PID, &p.Start, &dump)
	pod, known := w.pods[p]
	switch {
	case what == startBegins:
		if w.starts++; w.starts == 1 {
			w.since = p.Start
		}
	case what == isLaunched:
		if w.starts = max(0, w.starts-1); w.starts == 0 { // a new one has not seen all begin
			w.since = 0
		}
		if handle, err := proc.Hold(p); err == nil {
			w.pods[p] = heldPod{handle, syscall.Signal(dump)}
		}
	case what == isLetGo && known:
		pod.Close()
		delete(w.pods, p)
	}
}

// look describes what lives, and has pods write what they do.
func (w *watched) look(binary string) evidence.Seen {
	l := evidence.Seen{At: time.Now(), Processes: map[string]string{}, Ended: map[int]bool{}, Before: map[int]evidence.Stamp{}, Asked: map[int]evidence.Mark{}}
	sandboxes := map[string][]proc.Process{}
	for _, p := range proc.Find(proc.Match{Mark: binary}) {
		number, _, _ := strings.Cut(strings.TrimPrefix(p.Mark, binary+"/"), "/")
		sandboxes[number] = append(sandboxes[number], p)
	}
	for number, processes := range sandboxes {
		l.Processes[number] = evidence.Describe(processes, func(p proc.Process) string { return w.shown[p.Mark].Command(p.Args) })
	}
	var pids []int
	for id, pod := range w.pods {
		if stderr := proc.Stderr(id.PID); pod.dump != 0 && stderr != nil {
			l.Before[id.PID] = evidence.Stamp{At: stderr.ModTime(), Size: stderr.Size()}
		}
		if pod.dump != 0 && pod.Signal(pod.dump) == nil {
			l.Asked[id.PID] = evidence.Mark{What: unix.SignalName(pod.dump), At: time.Now()}
			pids = append(pids, id.PID)
		}
	}
	proc.AwaitQuiet(pids, dumpTime, func() (size int64) {
		for _, pid := range pids {
			if stderr := proc.Stderr(pid); stderr != nil {
				size += stderr.Size()
			}
		}
		return size
	})
	for id, pod := range w.pods {
		// The handle tells only once the last thread has ended, too, which takes a moment longer.
		l.Ended[id.PID] = pod.Ended() || proc.Ended(id.PID)
	}
	return l
}

// end kills what the pods have left.
func (w *watched) end(mark, root string) {
	logs, _ := filepath.EvalSymlinks(root) // as /proc has it
	m := proc.Match{Mark: mark, Logs: logs, LogsSince: w.binary, Sockets: root, OrphanSince: w.since, Run: &proc.Run{}}
	m.Look() // while parents live
	var handles []*proc.Handle
	for _, pod := range w.pods {
		pod.KillGroup()
		handles = append(handles, pod.Handle)
	}
	proc.Kill(m, time.Now().Add(lastGrace))
	proc.AwaitEnds(handles, endTime)
}
