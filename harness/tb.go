package harness

import (
	"flag"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn/podlog"
)

// TB is what the harness needs of a test. *testing.T, *testing.B, *testing.F and Ginkgo's
// GinkgoT() implement it. The dynamic type of a TB must be comparable, as pointers are. All calls
// of one test must pass the same TB. (GinkgoT() returns a new value at each call: the harness takes
// all values of one spec for one test.)
//
// The harness also uses these methods if a TB has them: Deadline, Output, Attr, Context and
// ArtifactDir, as *testing.T has them, and Verbose() bool, which tells whether to stream the
// logs of pods. Without Verbose the flag -test.v decides, once flag.Parse was called. A TB
// that wraps another one has Unwrap() any, which returns the inner one: the harness looks
// there for methods that the outer one does not have.
type TB interface {
	Cleanup(func())
	Errorf(format string, args ...any)
	Failed() bool
	Fatalf(format string, args ...any)
	Helper()
	Logf(format string, args ...any)
	Name() string
}

// testKey tells a test from others. Of a TB there is one for each test, but Ginkgo
// makes one at each GinkgoT(), of a spec that runs alone in its process.
func testKey(tb TB) any {
	if _, ok := tb.(interface{ GinkgoRecover() }); ok {
		return "Ginkgo: " + tb.Name()
	}
	return tb
}

// failed reports whether a test whose cleanups run has failed. Those of one that
// panics run before testing has it as failed.
func failed(tb TB) bool {
	if tb.Failed() {
		return true
	}
	callers := make([]uintptr, 100)
	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
	for more := true; more; {
		var frame runtime.Frame
		if frame, more = frames.Next(); frame.Function == "runtime.gopanic" {
			return true
		}
	}
	return false
}

func verbose(tb TB) bool {
	if t, ok := optional[interface{ Verbose() bool }](tb); ok {
		return t.Verbose()
	}
	return testing.Testing() && flag.Parsed() && testing.Verbose() // which else panics
}

// attr notes where the evidence of a test is, for go test -json.
func attr(tb TB, dir string) {
	if t, ok := optional[interface{ Attr(key, value string) }](tb); ok {
		t.Attr("evidence", dir)
	}
}

// streamOf returns what writes lines of a name to the test as they come: nil unless it is
// verbose (go test -v).
func streamOf(tb TB, name string) func(line string) {
	if !verbose(tb) {
		return nil
	}
	write := func(line string) { tb.Logf("%s", line) }
	if t, ok := optional[interface{ Output() io.Writer }](tb); ok {
		out := t.Output()
		write = func(line string) { fmt.Fprintln(out, line) }
	}
	name = podlog.Printable(name)
	return func(line string) { write(name + ": " + podlog.Printable(line)) }
}

// testName is the name of a test in messages.
func testName(tb TB) string { return podlog.Printable(tb.Name()) }

// optional returns what has the method that TB does not ask for: tb, or what it stands for.
func optional[M any](tb any) (M, bool) { return sandbox.Optional[M](tb) }

// beforeDeadline cuts a timeout so that it ends before the test's own deadline.
func beforeDeadline(tb TB, what string, timeout time.Duration) (cut time.Duration, note string) {
	return sandbox.BeforeDeadline(tb, what, timeout)
}
