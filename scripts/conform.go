package scripts

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Conform checks a pod against all requirements, as podscript does: each is a subtest with
// its ID for a name, such as snapshot. A must that is not met fails its subtest, and with
// Options.Strict a should does, too. A may is told by the log alone. What could not be
// judged fails its subtest, and says so. A subtest is skipped if a requirement that it
// needs is not met. Options.Dir is ignored.
func Conform(t *testing.T, o Options) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, Scenarios()); err != nil {
		t.Fatalf("scripts: %v", err)
	}
	all := Requirements()
	var mu sync.Mutex // guards unmet
	unmet := map[string]bool{}
	for _, r := range all {
		t.Run(r.ID, func(t *testing.T) {
			if !slices.ContainsFunc(all, func(other Requirement) bool { return other.Needs == r.ID }) {
				t.Parallel() // those that others need have ended by then
			}
			mu.Lock()
			skip := unmet[r.Needs]
			unmet[r.ID] = true // unless all goes well
			mu.Unlock()
			if skip {
				t.Skipf("needs %s", r.Needs)
			}
			met := conforms(t, o, r, filepath.Join(dir, r.ID+".txtar"))
			mu.Lock()
			unmet[r.ID] = !met
			mu.Unlock()
		})
	}
}

// conforms runs the scenario of a requirement, and tells what it has found.
func conforms(t *testing.T, o Options, r Requirement, file string) bool {
	run := &scenarioT{T: t}
	var found Failure
	// Some requirements are about the status, or the ready line, and check it.
	o.Pod.StopStatus, o.Pod.AllowReadyAgain = []int{-1}, true
	o.Report = func(f Failure) { found = f }
	params := Params(o)
	params.Files = []string{file}
	run.do(func() { testscript.RunT(run, params) })
	why := "its log says why"
	if found.Err != nil {
		why = found.Err.Error()
	}
	log := strings.Join(run.log, "\n")
	if before, after, ok := strings.Cut(log, "WORK="); ok { // testscript's own environment
		_, after, _ = strings.Cut(after, "\n\n")
		log = before + after
	}
	text := fmt.Sprintf("%v\n%s\nfix: %s\n%s", why, r, r.Fix, log)
	switch {
	case run.skipped != "":
		t.Skip(run.skipped)
	case !run.failed:
		return true
	case found.Kit || found.Cut:
		t.Errorf("could not be judged: %s", text)
	case r.Level == "must" || r.Level == "should" && o.Strict:
		t.Error(text)
	default:
		t.Logf("warning: %s", text)
	}
	return false
}

// scenarioT is a subtest as testscript's T, which does not fail by itself.
type scenarioT struct {
	*testing.T

	mu      sync.Mutex // guards all below
	log     []string
	failed  bool
	skipped string // why
}

// do runs a function in a goroutine of its own, which the methods below may end.
func (t *scenarioT) do(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

// Run runs the scenario itself, the only one.
func (t *scenarioT) Run(_ string, f func(testscript.T)) { f(t) }

func (t *scenarioT) Parallel() {}

func (t *scenarioT) Verbose() bool { return testing.Verbose() }

func (t *scenarioT) Log(args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = append(t.log, strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (t *scenarioT) Errorf(format string, args ...any) {
	t.Log(fmt.Sprintf(format, args...))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = true
}

func (t *scenarioT) FailNow() {
	t.mu.Lock()
	t.failed = true
	t.mu.Unlock()
	runtime.Goexit()
}

func (t *scenarioT) Fatal(args ...any) {
	t.Log(args...)
	t.FailNow()
}

func (t *scenarioT) Skip(args ...any) {
	t.mu.Lock()
	t.skipped = fmt.Sprint(args...)
	t.mu.Unlock()
	runtime.Goexit()
}

func (t *scenarioT) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// Deadline leaves the test time to tell what it has found.
func (t *scenarioT) Deadline() (time.Time, bool) { return t.T.Deadline() }
