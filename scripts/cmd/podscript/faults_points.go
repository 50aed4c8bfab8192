package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"golang.org/x/sys/unix"
)

// faultPod is the pod's name in runs with faults.
const faultPod = "alpha"

// failures has the errors that the calls of a family can have in life.
var failures = map[string][]syscall.Errno{
	"open": {unix.EACCES, unix.ENOSPC, unix.EMFILE}, "read": {unix.EIO}, "write": {unix.ENOSPC, unix.EIO}, "copy": {unix.ENOSPC, unix.EIO},
	"truncate": {unix.ENOSPC, unix.EIO}, "sync": {unix.EIO}, "lock": {unix.ENOLCK}, "mkdir": {unix.EACCES, unix.ENOSPC}, "mknod": {unix.EACCES, unix.ENOSPC},
	"rename": {unix.EACCES, unix.ENOSPC}, "link": {unix.EACCES, unix.ENOSPC}, "unlink": {unix.EACCES}, "readdir": {unix.EIO}, "chmod": {unix.EPERM},
	"socket": {unix.EMFILE}, "bind": {unix.EADDRINUSE, unix.EACCES}, "listen": {unix.EADDRINUSE}, "accept": {unix.EMFILE, unix.ECONNABORTED},
	"connect": {unix.ECONNREFUSED}, "send": {unix.EPIPE}, "recv": {unix.ECONNRESET}, "pipe": {unix.EMFILE}, "fork": {unix.EAGAIN, unix.ENOMEM}, "thread": {unix.EAGAIN},
}

// onSocket has those of a family whose calls are on sockets, too.
var onSocket = map[string][]syscall.Errno{"read": {unix.ECONNRESET}, "write": {unix.EPIPE}}

// interruptible are the families whose calls a signal may interrupt.
var interruptible = []string{"open", "read", "write", "sync", "lock", "accept", "connect", "send", "recv"}

// onNothing are the families whose calls have no path.
var onNothing = []string{"fork", "thread", "socket", "pipe"}

// mostCalls is how many a session keeps.
const mostCalls = 10_000

// A point is a system call of a pod that can fail.
type point struct {
	family string
	path   string // as fault.Fault has it; "" = the call is on nothing
	when   int
	phase  string // start, serving or stop
	socket bool
	writes bool // what it writes can be cut
}

// A trial is one run: a point, and what happens there.
type trial struct {
	point
	fault fault.Fault
}

// String tells what fails, as a person reads it.
func (t trial) String() string {
	what := strings.Join(strings.Fields(fmt.Sprintf("call %d of %s %s", t.when, t.family, t.path)), " ")
	switch {
	case t.fault.Signal != 0:
		return what + " with SIGKILL"
	case t.fault.Short != 0:
		return what + " cut short"
	case t.fault.Onwards:
		return what + " and all later ones with " + unix.ErrnoName(t.fault.Error)
	}
	return what + " with " + unix.ErrnoName(t.fault.Error)
}

// kind is equal for trials that are much alike.
func (t trial) kind() string {
	return fmt.Sprint(t.family, t.phase, t.socket, t.fault.Error, t.fault.Onwards, t.fault.Signal, t.fault.Short)
}

// trials returns the runs for a point.
func (p point) trials() (all []trial) {
	add := func(change func(*fault.Fault)) {
		t := trial{p, fault.Fault{Calls: p.family, Path: p.path, When: p.when}}
		change(&t.fault)
		all = append(all, t)
	}
	errs := failures[p.family]
	if special := onSocket[p.family]; p.socket && special != nil {
		errs = special
	}
	for _, err := range errs {
		add(func(f *fault.Fault) { f.Error = err })
		if err != unix.ECONNABORTED { // each is about one connection
			add(func(f *fault.Fault) { f.Error, f.Onwards = err, true })
		}
	}
	if slices.Contains(interruptible, p.family) {
		add(func(f *fault.Fault) { f.Error = unix.EINTR })
	}
	if p.writes {
		add(func(f *fault.Fault) { f.Short = 1 })
	}
	add(func(f *fault.Fault) { f.Signal = unix.SIGKILL })
	return all
}

// observe runs the pod once, and returns the points that it has come to.
func (f *faultSweep) observe() ([]point, error) {
	tb := &faultTB{name: "healthy", sweep: f}
	defer tb.finish()
	cfg := f.config()
	w := world{runtime: harness.RuntimeDir(tb), all: f.faults.all}
	if tb.fatal != nil {
		return nil, tb.fatal
	}
	w.root, w.home = filepath.Dir(w.runtime), tb.box.Dir("home")
	families := slices.Sorted(maps.Keys(failures))
	for _, family := range families {
		observed := fault.Fault{Calls: family, Path: fault.Quote(w.root) + "/**"}
		if w.all || slices.Contains(onNothing, family) {
			observed.Path = ""
		}
		cfg.Faults = append(cfg.Faults, observed)
	}
	pod, err := harness.TryStartPod(tb, cfg)
	if err != nil {
		var start *spawn.Error
		if errors.As(err, &start) {
			start.Strikes = nil // they were only noted
		}
		return nil, err
	}
	if err = tb.visit(pod, false, visitTimeout); err == nil {
		f.answers = tb.visit(pod, true, visitTimeout) == nil
	}
	if _, ended := pod.Ended(); err != nil || ended {
		return nil, errors.Join(errors.New("it serves no client"), err)
	}
	tb.closeAll()
	stop := time.Now()
	err = pod.Stop()
	switch {
	case err != nil:
		return nil, err
	case len(tb.leaks()) > 0:
		return nil, fmt.Errorf("it leaves %s", tb.leaks()[0])
	case killed(pod.State()):
		return nil, fmt.Errorf("it does not end within %v of SIGINT", cfg.StopGrace)
	case pod.Faults.Err() != nil:
		return nil, pod.Faults.Err()
	}
	ready := pod.Timeline.Start.Add(pod.Timeline.ReadyLine)
	if w.workspace, _, err = tb.box.Furnish(faultPod, nil, nil); err != nil {
		return nil, err
	}
	calls := pod.Faults.Strikes()
	if len(calls) >= mostCalls {
		f.cannot(fmt.Sprintf("the pod makes more than %d calls: the later ones did not fail", mostCalls))
	}
	return w.points(families, calls, ready, stop), nil
}

// A world is where what concerns a pod is.
type world struct {
	root, runtime, home, workspace string
	all                            bool // what is elsewhere concerns it, too
}

func (w world) points(families []string, calls []fault.Strike, ready, stop time.Time) (points []point) {
	counts, sockets := map[[2]string]int{}, map[string]bool{}
	for _, c := range calls {
		family := families[c.Fault]
		p := point{family: family, phase: "serving", writes: family == "write"}
		switch {
		case !c.Time.After(ready):
			p.phase = "start"
		case c.Time.After(stop):
			p.phase = "stop"
		}
		concerns := len(c.Paths) == 0
		if concerns {
			counts[[2]string{family, ""}]++
		}
		var seen []string
		for _, path := range c.Paths { // the last one of a renaming is the name that counts
			pattern := w.pattern(path)
			if pattern == "" || slices.Contains(seen, pattern) {
				continue
			}
			seen = append(seen, pattern)
			counts[[2]string{family, pattern}]++
			sockets[pattern] = sockets[pattern] || family == "bind"
			p.path, p.socket, concerns = pattern, sockets[pattern], true
		}
		if p.when = counts[[2]string{family, p.path}]; concerns {
			points = append(points, p)
		}
	}
	return points
}

// number is a part of a name that may be another one in the next run.
var number = regexp.MustCompile(`[0-9]{3,}`)

// pattern returns what matches a path in another sandbox; "" = it does not concern the pod.
func (w world) pattern(path string) string {
	if !filepath.IsAbs(path) {
		return "" // a pipe, or a socket without a name
	}
	for _, base := range [][2]string{{"{runtime}", w.runtime}, {"{home}", w.home}, {"{workspace}", w.workspace}, {"**", w.root}} {
		rest, ok := strings.CutPrefix(path+"/", base[1]+"/")
		if !ok {
			continue
		}
		parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
		for i, part := range parts {
			if parts[i] = number.ReplaceAllString(fault.Quote(part), "*"); part == faultPod {
				parts[i] = "{name}"
			}
		}
		return strings.TrimSuffix(base[0]+"/"+strings.Join(parts, "/"), "/")
	}
	if w.all {
		return fault.Quote(path)
	}
	return ""
}
