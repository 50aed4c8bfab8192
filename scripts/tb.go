package scripts

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"github.com/rogpeppe/go-internal/testscript"
)

var _ harness.TB = (*scriptTB)(nil)

// scriptTB is a running script as the harness's TB. Its log goes to the test
// and not into the script's own log, which only the script's goroutine may
// write to.
type scriptTB struct {
	t      testscript.T
	name   string
	report func(Failure)  // nil = nobody asks
	box    *sandbox.Box   // of the harness
	unread []harness.Leak // of the pod that was stopped last
	unheld error          // why a pod that had to be held was not, and did not start; nil = there is none

	mu       sync.Mutex // guards all below
	printed  [2]string  // stdout and stderr of the last verb of this package, the begin of them
	failed   bool
	noted    bool // failure is known
	failure  Failure
	cleanups []func()
}

func newScriptTB(env *testscript.Env, report func(Failure)) *scriptTB {
	tb := &scriptTB{
		t: env.T(),
		// testscript calls the directory of a script script-NAME.
		name:   strings.TrimPrefix(filepath.Base(env.WorkDir), "script-"),
		report: report,
	}
	env.Defer(tb.finish)
	return tb
}

// note keeps the first failure: later ones may follow from it.
func (tb *scriptTB) note(f Failure) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if tb.unheld != nil { // whatever followed from it
		f = Failure{Verb: "podstart", Err: tb.unheld, Kit: true}
	}
	if !tb.noted {
		tb.noted, tb.failure = true, f
	}
}

// finish runs the cleanups, the last one first, and fails a script that only
// they found fault with.
func (tb *scriptTB) finish() {
	before := tb.Failed()
	if before {
		// Of a verb of testscript, if nothing else is known.
		tb.note(Failure{Stdout: tb.printed[0], Stderr: tb.printed[1]})
	}
	for {
		tb.mu.Lock()
		n := len(tb.cleanups)
		if n == 0 {
			tb.mu.Unlock()
			break
		}
		cleanup := tb.cleanups[n-1]
		tb.cleanups = tb.cleanups[:n-1]
		tb.mu.Unlock()
		cleanup()
	}
	if !tb.Failed() {
		return
	}
	if tb.report != nil {
		tb.report(tb.failure)
	}
	if !before {
		tb.t.FailNow()
	}
}

func (tb *scriptTB) Cleanup(f func()) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.cleanups = append(tb.cleanups, f)
}

func (tb *scriptTB) Errorf(format string, args ...any) {
	err := errorOf(format, args)
	tb.note(failureOf("", err))
	tb.mu.Lock()
	tb.failed = true
	tb.mu.Unlock()
	if t, ok := tb.t.(interface{ Errorf(string, ...any) }); ok {
		t.Errorf("%s", visible(fmt.Sprintf(format, args...)))
		return
	}
	tb.Logf(format, args...)
}

func (tb *scriptTB) Fatalf(format string, args ...any) {
	tb.Errorf(format, args...)
	tb.t.FailNow()
}

// Failed also reports that a verb of testscript has failed, where the T knows.
func (tb *scriptTB) Failed() bool {
	if t, ok := tb.t.(interface{ Failed() bool }); ok && t.Failed() {
		return true
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.failed
}

// Sandboxed is told the sandbox by package harness.
func (tb *scriptTB) Sandboxed(box *sandbox.Box) { tb.box = box }

// Unreadable is told by package harness what the pod that was stopped last may have left.
func (tb *scriptTB) Unreadable(leaks []harness.Leak) { tb.unread = leaks }

// Unwrap returns the T: package harness asks that for what a TB need not have.
func (tb *scriptTB) Unwrap() any { return tb.t }

func (tb *scriptTB) Helper() {}

func (tb *scriptTB) Logf(format string, args ...any) { tb.t.Log(visible(fmt.Sprintf(format, args...))) }

func (tb *scriptTB) Name() string { return tb.name }
