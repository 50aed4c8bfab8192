package scripts

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"example.com/podharness/harness"
	"github.com/rogpeppe/go-internal/testscript"
)

var _ harness.TB = (*scriptTB)(nil)

// scriptTB is a running script as the harness's TB. Its log goes to the test
// and not into the script's own log, which only the script's goroutine may
// write to.
type scriptTB struct {
	t    testscript.T
	name string

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

func newScriptTB(env *testscript.Env) *scriptTB {
	tb := &scriptTB{
		t: env.T(),
		// testscript calls the directory of a script script-NAME.
		name: strings.TrimPrefix(filepath.Base(env.WorkDir), "script-"),
	}
	env.Defer(tb.finish)
	return tb
}

// finish runs the cleanups, the last one first, and fails a script that only
// they found fault with.
func (tb *scriptTB) finish() {
	before := tb.Failed()
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
	if !before && tb.Failed() {
		tb.t.FailNow()
	}
}

func (tb *scriptTB) Cleanup(f func()) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.cleanups = append(tb.cleanups, f)
}

func (tb *scriptTB) Errorf(format string, args ...any) {
	tb.mu.Lock()
	tb.failed = true
	tb.mu.Unlock()
	if t, ok := tb.t.(interface{ Errorf(string, ...any) }); ok {
		t.Errorf(format, args...)
		return
	}
	tb.Logf(format, args...)
}

func (tb *scriptTB) Fatalf(format string, args ...any) {
	tb.Errorf(format, args...)
	tb.t.FailNow()
}

// Failed also tells of a script that failed by itself, where the T knows.
func (tb *scriptTB) Failed() bool {
	if t, ok := tb.t.(interface{ Failed() bool }); ok && t.Failed() {
		return true
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.failed
}

// Unwrap returns the T: package harness asks that for what a TB need not have.
func (tb *scriptTB) Unwrap() any { return tb.t }

func (tb *scriptTB) Helper() {}

func (tb *scriptTB) Logf(format string, args ...any) { tb.t.Log(fmt.Sprintf(format, args...)) }

func (tb *scriptTB) Name() string { return tb.name }
