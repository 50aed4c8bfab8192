package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
)

// A Sweep has a program meet faults. A command sets the exported fields, of which Errors and
// Choose may be nil.
type Sweep struct {
	*conformance.Flags
	conformance.Runs
	Faults       Flags
	Of           string // what is tested: pod, or client
	Requirements []Requirement
	Cases        []string                   // with -fault, those that -run names; nil = it names requirements
	Timeout      time.Duration              // for all runs; 0 = any
	Errors       map[string][]syscall.Errno // that calls of a family can have in life, beside those of any program
	// Observe runs the program once without faults, and returns the points that it has come
	// to. An error tells why it cannot be tested. It is called twice.
	Observe func() ([]Point, error)
	// Try runs a trial once, and says what it finds, up to Run.Settle. It reports whether the
	// fault has struck. An error tells why nothing could be judged.
	Try func(*Run) (struck bool, err error)
	// Repeat returns the command line that runs a trial again, for a requirement.
	Repeat func(id string, t Trial) string
	// Choose chooses trials; nil = all.
	Choose func(Trial) bool

	report   *conformance.Report
	progress io.Writer     // nil = no terminal
	skip     string        // why nothing could be run; "" = it could
	broken   string        // why the program cannot be judged: it is not healthy without faults; "" = it is
	patterns []string      // of the paths that the last observed run has come to
	stop     chan struct{} // closed when no further run is to begin
	halt     func()        // closes it

	mu      sync.Mutex // guards all below
	points  int
	planned int // runs
	begun   time.Time
	took    time.Duration // 0 = they are under way
	runs    int
	missed  int // runs in which the call did not come
	judged  map[string]int
	causes  map[string]*cause
	trouble []string // of the kit or the machine
}

func (s *Sweep) prepare() {
	s.judged, s.causes, s.stop = map[string]int{}, map[string]*cause{}, make(chan struct{})
	s.halt = sync.OnceFunc(func() { close(s.stop) })
}

// Main runs and reports the sweep for a command, and returns the exit status. When it is
// interrupted, it waits for the runs under way, and reports what it has found by then.
func (s *Sweep) Main(command string, stdout, stderr io.Writer) (status int, err error) {
	s.prepare()
	chosen := slices.DeleteFunc(slices.Clone(s.Requirements), func(r Requirement) bool { return s.Cases == nil && !s.Chosen(r.ID) })
	if len(chosen) == 0 {
		return 0, s.NoneChosen()
	}
	if s.List {
		for _, r := range chosen {
			fmt.Fprintf(stdout, "%-20s %-7s %-8s %s\n", r.ID, r.Level, r.Section, r.Text)
		}
		return 0, nil
	}
	if s.report, err = s.Report(command, len(chosen), stdout, stderr); err != nil {
		return 0, err
	}
	if podlog.IsTerminal(stderr) {
		s.progress = stderr
	}
	s.report.Interrupted = func() {
		s.halt()
		if s.progress != nil {
			fmt.Fprintf(s.progress, "\r\x1b[K%s: interrupted; the runs under way end first, and a second signal gives them up\n", command)
		}
	}
	ctx, abort := context.WithCancelCause(context.Background())
	defer abort(nil)
	run := sync.OnceFunc(func() {
		if err := s.run(); err != nil {
			abort(err)
		}
	})
	var cases []*conformance.Case
	for i, r := range chosen {
		cases = append(cases, &conformance.Case{Name: r.ID, Run: func(idle func()) []conformance.Check {
			idle()
			run()
			return s.checks(r, i == 0)
		}})
	}
	ended := s.report.Run(ctx, cases)
	if ended == nil || errors.Is(ended, conformance.ErrInterrupted) {
		s.tellRuns(stdout)
	}
	return s.report.Finish(ended)
}

// tellRuns tells how many runs there were, if there were any: some may be under way.
func (s *Sweep) tellRuns(stdout io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.planned == 0 {
		return
	}
	fmt.Fprintf(stdout, "%d points, %d of %d runs in %.1fs, -seed %d", s.points, s.runs, s.planned, cmp.Or(s.took, time.Since(s.begun)).Seconds(), s.Faults.Seed)
	if s.missed > 0 {
		fmt.Fprintf(stdout, "; in %d the call did not come", s.missed)
	}
	fmt.Fprintln(stdout)
}

// run observes the program, and then has it meet each fault. The error is of the caller of the
// command.
func (s *Sweep) run() error {
	begin := time.Now()
	if err := fault.Supported(); err != nil {
		s.skip = err.Error()
		return nil
	}
	points, err := s.Observe()
	if err == nil && s.Faults.Fault == nil {
		points, err = s.Observe() // which of the files have the same names again
	}
	switch {
	case errors.As(err, new(conformance.UsageError)):
		return err
	case errors.Is(err, fault.ErrUnsupported):
		s.skip = err.Error()
		return nil
	case err != nil:
		s.broken = err.Error()
		return nil
	}
	trials := s.plan(points)
	if f := s.Faults.Fault; f != nil {
		trials = nil
		for _, c := range append(s.Cases, "")[:max(1, len(s.Cases))] {
			trials = append(trials, Trial{Point{Family: f.Calls, Path: f.Path, When: f.When}, *f, c})
		}
	}
	s.mu.Lock()
	s.points, s.planned, s.begun = len(points), len(trials), begin
	s.mu.Unlock()
	s.runAll(trials, begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took, s.report.Sampled = time.Since(begin), s.runs < s.planned || s.IsPart() || s.Faults.Fault != nil
	return nil
}

// plan returns the runs for points: of each kind in turn one, so that whatever time there is
// is shared by all kinds.
func (s *Sweep) plan(points []Point) (trials []Trial) {
	random := rand.New(rand.NewPCG(s.Faults.Seed, 0))
	var kinds []string
	byKind := map[string][]Trial{}
	for _, p := range points {
		for _, t := range p.trials(s.Errors) {
			kind := t.kind()
			if byKind[kind] == nil {
				kinds = append(kinds, kind)
			}
			byKind[kind] = append(byKind[kind], t)
		}
	}
	random.Shuffle(len(kinds), func(i, k int) { kinds[i], kinds[k] = kinds[k], kinds[i] })
	for _, kind := range kinds {
		all := byKind[kind]
		random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	}
	for left := true; left; {
		left = false
		for _, kind := range kinds {
			if all := byKind[kind]; len(all) > 0 {
				if s.Has(all[0].part()) && (s.Choose == nil || s.Choose(all[0])) {
					trials = append(trials, all[0])
				}
				byKind[kind], left = all[1:], true
			}
		}
	}
	return trials
}

// runAll runs trials side by side, -parallel of them at once, and more of those that only wait.
func (s *Sweep) runAll(trials []Trial, begin time.Time) {
	end := begin.Add(cmp.Or(s.Timeout, math.MaxInt64))
	if late := begin.Add(s.Faults.Budget); s.Faults.On && !s.Faults.All && late.Before(end) {
		end = late
	}
	compute, all := make(chan struct{}, s.Parallel), make(chan struct{}, 4*s.Parallel)
	var running sync.WaitGroup
	for i, t := range trials {
		all <- struct{}{}
		compute <- struct{}{}
		if s.isStopped() {
			s.Cannot(fmt.Sprintf("interrupted: %d of %d runs were not begun", len(trials)-i, len(trials)))
			break
		}
		if time.Now().After(end) {
			if s.Faults.All {
				s.Cannot(fmt.Sprintf("%d of %d runs were not begun: the time was over (%v)", len(trials)-i, len(trials), s.Timeout))
			}
			break
		}
		running.Add(1)
		go func() {
			defer running.Done()
			idle := sync.OnceFunc(func() { <-compute })
			timer := time.AfterFunc(time.Second, idle)
			s.try(t)
			timer.Stop()
			idle()
			<-all
			s.tell(len(trials))
		}()
	}
	running.Wait()
	if s.progress != nil {
		fmt.Fprint(s.progress, "\r\x1b[K")
	}
}

func (s *Sweep) isStopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *Sweep) tell(all int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs++; s.progress != nil {
		fmt.Fprintf(s.progress, "\r\x1b[K%d of %d runs", s.runs, all)
	}
}

// try runs a trial, and once more if it has found what may come of a busy machine.
func (s *Sweep) try(t Trial) {
	r := &Run{Trial: t, sweep: s}
	struck, err := s.Try(r)
	if err == nil && len(r.unsure) > 0 && !s.isStopped() {
		_, err = s.Try(&Run{Trial: t, sweep: s, before: r.unsure})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.trouble = append(s.trouble, t.String()+": "+err.Error())
	case !struck:
		s.missed++
	}
}

// Cannot notes why something could not be judged.
func (s *Sweep) Cannot(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = append(s.trouble, why)
}
