package harness

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A FakeTB is a test whose failure is not that of the real one: it records what it is told.
type FakeTB struct {
	TestName  string
	Artifacts string    // its artifact directory; "" = it has none
	Late      time.Time // its deadline; zero = it has none

	mu       sync.Mutex // guards all below
	failed   bool
	log      strings.Builder
	cleanups []func()
}

// NewTB returns a fake test that ends, at the latest, with the real one.
func NewTB(t testing.TB) *FakeTB {
	tb := &FakeTB{TestName: t.Name(), Artifacts: t.TempDir()}
	t.Cleanup(func() { tb.End() })
	return tb
}

// Run runs f as the fake test, to its end or to where it gives up, and returns what the test
// has logged.
func (tb *FakeTB) Run(f func()) string {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		panic("a fake test hangs: " + tb.Text())
	}
	return tb.Text()
}

// End runs the cleanups, and returns what the test has logged in all.
func (tb *FakeTB) End() string {
	for {
		tb.mu.Lock()
		n := len(tb.cleanups)
		if n == 0 {
			tb.mu.Unlock()
			return tb.Text()
		}
		f := tb.cleanups[n-1]
		tb.cleanups = tb.cleanups[:n-1]
		tb.mu.Unlock()
		tb.Run(f)
	}
}

// Text returns what the test has logged so far.
func (tb *FakeTB) Text() string {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.log.String()
}

// Fail fails the test without a word.
func (tb *FakeTB) Fail() {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.failed = true
}

func (tb *FakeTB) Cleanup(f func()) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.cleanups = append(tb.cleanups, f)
}

func (tb *FakeTB) Logf(format string, args ...any) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	fmt.Fprintf(&tb.log, format+"\n", args...)
}

func (tb *FakeTB) Errorf(format string, args ...any) {
	tb.Logf(format, args...)
	tb.Fail()
}

func (tb *FakeTB) Fatalf(format string, args ...any) {
	tb.Errorf(format, args...)
	runtime.Goexit()
}

func (tb *FakeTB) Failed() bool {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return tb.failed
}

func (tb *FakeTB) Helper()                     {}
func (tb *FakeTB) Name() string                { return tb.TestName }
func (tb *FakeTB) Verbose() bool               { return false }
func (tb *FakeTB) ArtifactDir() string         { return tb.Artifacts }
func (tb *FakeTB) Deadline() (time.Time, bool) { return tb.Late, !tb.Late.IsZero() }

// NeedProcesses skips a test, or the rest of it, where the system does not tell
// which processes live.
func NeedProcesses(t *testing.T) {
	t.Helper()
	if !findsProcesses {
		t.Skip("what pods leave is found on Linux only")
	}
}
