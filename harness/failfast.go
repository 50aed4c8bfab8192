package harness

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
)

// failFastEnv ends the test binary when the start of a pod fails as the one before it did.
const failFastEnv = "PODHARNESS_FAILFAST"

// A failedStart is a start of a pod that its test needs.
type failedStart struct {
	cfg     Config // without the name
	verdict [4]string
	test    string
}

var (
	failFastMu sync.Mutex   // guards both; it is taken alone
	lastFailed *failedStart // the last start that has failed its test, and the first one of those like it; nil = there is none
	noMore     error        // why no pod is started any more; nil = pods are
)

// started notes that a pod which its test needs has started.
func started(cfg Config) {
	failFastMu.Lock()
	defer failFastMu.Unlock()
	if lastFailed != nil && difference(lastFailed.cfg, withoutName(cfg)) == "" {
		lastFailed = nil
	}
}

func withoutName(cfg Config) Config {
	cfg, _ = cfg.withDefaults()
	cfg.Name = ""
	return cfg
}

// fatalStart fails a test whose pod did not start. Of a start that fails as the one before it
// did, with the same config, it tells that alone: see fatal.
func fatalStart(tb TB, cfg Config, err error) {
	tb.Helper()
	var e *spawn.Error
	if !errors.As(err, &e) || !isTest(tb) {
		fatal(tb, err)
		return
	}
	now := &failedStart{withoutName(cfg), [4]string{e.Verdict, e.Missing, e.Status, reasonOf(e)}, testName(tb)}
	failFastMu.Lock()
	before := lastFailed
	isLike := before != nil && before.verdict == now.verdict && difference(before.cfg, now.cfg) == ""
	if !isLike {
		lastFailed = now
	}
	failFastMu.Unlock()
	if !isLike {
		fatal(tb, err)
		return
	}
	_ = failsIn(tb, err) // its evidence has all of it
	if isSet(failFastEnv) {
		startNoMore(fmt.Errorf("%s is set, and the pod of %s did not start, as that of %s: %w", failFastEnv, now.test, before.test, shortly(e)))
	}
	tb.Fatalf("harness: %v, as that of %s with the same config: see there", shortly(e), before.test)
}

// reasonOf returns what a pod that did not start has said of the reason, without its name and
// numbers, which are others in each start.
func reasonOf(e *spawn.Error) string {
	reason := e.Reason
	if len(e.Tail) > 0 && reason == "" {
		reason = e.Tail[len(e.Tail)-1]
	}
	return regexp.MustCompile("[0-9]+").ReplaceAllString(strings.ReplaceAll(reason, e.Pod, ""), "")
}

// isTest reports whether a TB is that of a test which really fails. One of another type may be
// what a test expects to fail.
func isTest(tb TB) bool {
	_, isGinkgos := tb.(interface{ GinkgoRecover() })
	_, isTestings := optional[testing.TB](tb)
	return isGinkgos || isTestings
}

// shortly returns the verdict of a start in one line.
func shortly(e *spawn.Error) error { return errors.New(podlog.Printable(e.Err.Error())) }

// startNoMore has the test binary end: no pod is started any more, and testing begins no other
// test. Those that run go on to their end, so that all is torn down.
func startNoMore(why error) {
	failFastMu.Lock()
	defer failFastMu.Unlock()
	if noMore != nil {
		return
	}
	noMore = fmt.Errorf("no pod is started any more: %w", why)
	ends := ""
	// A test beside this one may read the flag, which the race detector would report.
	if fast := flag.Lookup("test.failfast"); fast != nil && !isBuiltWith("-race") && fast.Value.Set("true") == nil {
		ends = "no other test begins, and "
	}
	fmt.Fprintf(os.Stderr, "harness: %s%v\n", ends, noMore)
}

// mayStart returns why no pod is started any more; nil = pods are.
func mayStart() error {
	failFastMu.Lock()
	defer failFastMu.Unlock()
	return noMore
}
