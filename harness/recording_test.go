package harness

import (
	"fmt"
	"testing"
)

// NeedProcesses skips a test, or the rest of it, where the system does not tell
// which processes live.
func NeedProcesses(t *testing.T) {
	t.Helper()
	if !findsProcesses {
		t.Skip("what pods leave is found on Linux only")
	}
}

// recordingTB is a test whose failure is not that of the real one.
type recordingTB struct {
	name      string
	artifacts string
	failed    bool
	log       string
	cleanups  []func()
}

func (tb *recordingTB) Helper()                           {}
func (tb *recordingTB) Name() string                      { return tb.name }
func (tb *recordingTB) Cleanup(f func())                  { tb.cleanups = append(tb.cleanups, f) }
func (tb *recordingTB) Failed() bool                      { return tb.failed }
func (tb *recordingTB) Logf(format string, args ...any)   { tb.log += fmt.Sprintf(format+"\n", args...) }
func (tb *recordingTB) Errorf(format string, args ...any) { tb.Logf(format, args...); tb.failed = true }
func (tb *recordingTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (tb *recordingTB) ArtifactDir() string               { return tb.artifacts }
func (tb *recordingTB) Verbose() bool                     { return false }

func (tb *recordingTB) end() {
	for i := len(tb.cleanups) - 1; i >= 0; i-- {
		tb.cleanups[i]()
	}
}
