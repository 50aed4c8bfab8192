package main

import (
	"fmt"
	"slices"
	"sync"

	"example.com/podharness/scripts/internal/conformance"
)

// caseTB is a case as the harness's TB. What the harness finds fault with beyond
// the checks is in its evidence.
type caseTB struct {
	name      string
	flags     *conformance.Flags
	scrap     string // a directory that is removed with the case
	artifacts string // the directory for the evidence; "" = that of the case

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

// keepIf has the evidence kept of a case with a finding.
func (tb *caseTB) keepIf(checks []conformance.Check) {
	tb.failed = slices.ContainsFunc(checks, func(c conformance.Check) bool { return c.IsFinding() && c.Result != conformance.Missed })
}

func (tb *caseTB) Cleanup(f func()) {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.cleanups = append(tb.cleanups, f)
}

func (tb *caseTB) finish() {
	for i := len(tb.cleanups) - 1; i >= 0; i-- {
		tb.cleanups[i]()
	}
}

func (tb *caseTB) Failed() bool {
	return tb.artifacts != "" || tb.failed && tb.flags.Evidence != ""
}

func (tb *caseTB) Helper() {}

func (tb *caseTB) Name() string { return tb.name }

func (tb *caseTB) Verbose() bool { return false }

func (tb *caseTB) Errorf(string, ...any) {}

func (tb *caseTB) Logf(string, ...any) {}

func (tb *caseTB) Fatalf(f string, a ...any) { panic("podclient: " + fmt.Sprintf(f, a...)) }

// ArtifactDir is where the evidence of the case goes. The harness takes some of a
// client that leaves processes, which may be right.
func (tb *caseTB) ArtifactDir() string {
	switch {
	case tb.artifacts != "":
		return tb.artifacts
	case !tb.Failed():
		return tb.scrap
	}
	return tb.flags.EvidenceDir(tb.name)
}
