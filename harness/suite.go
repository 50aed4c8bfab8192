package harness

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/podharness/spawn/podlog"
)

// Main is Run, and exits with its status:
//
//	func TestMain(m *testing.M) { harness.Main(m) }
func Main(m *testing.M) { os.Exit(Run(m)) }

// Run runs the tests of a binary whose tests share pods, and returns its status, as m.Run does.
// It is for a TestMain that does more, such as to tear down what is its own:
//
//	func TestMain(m *testing.M) { os.Exit(run(m)) }
//
//	func run(m *testing.M) int {
//		database := startDatabase()
//		defer database.Stop()
//		return harness.Run(m)
//	}
//
// After the last test Run tears the pods of [Shared] down. What is wrong with them
// then, and what any pod of the binary has left behind ([Leaks]), is printed and
// fails the binary. One more line tells which tests had pods that had to be killed,
// were ended by their stop signal instead of handling it, or came close to their
// ready timeout; none if there were none. Run parses the flags if TestMain has not.
func Run(m *testing.M) int {
	if !flag.Parsed() {
		flag.Parse()
	}
	s := &suite{begun: time.Now(), pods: map[string]*shared{}}
	theSuite.Store(s)
	return s.end(m.Run())
}

// Shared returns the pod of a name that all tests of the binary share, for the test
// tb as [Pod.With] does. The first call starts it, others wait for that; a start that
// fails is not tried again. Every call must have the same cfg, whose Name may be "".
// TestMain must call [Main] or [Run], which tears the pod down after the last test.
//
// It fails the test if there is no such pod, or none any more: a pod that has ended
// by itself fails each test that uses it, and one that a test has stopped or killed
// must be restarted there ([Pod.Restart]).
func Shared(tb TB, name string, cfg Config) *Pod {
	tb.Helper()
	pod, err := sharedPod(tb, name, cfg)
	if err != nil {
		tb.Fatalf("harness: %v", printable(err))
		return nil
	}
	return pod
}

// theSuite is nil before Run.
var theSuite atomic.Pointer[suite]

// suite is the test binary as a TB: the test that the shared pods belong to.
type suite struct {
	begun time.Time

	mu       sync.Mutex // guards all below
	pods     map[string]*shared
	cleanups []func()
	failed   bool
	log      strings.Builder
}

// shared is a pod of a suite.
type shared struct {
	cfg   Config
	first string // the test that has asked for it first
	start sync.Once
	pod   *Pod
	err   error
}

func sharedPod(tb TB, name string, cfg Config) (*Pod, error) {
	tb.Helper()
	s := theSuite.Load()
	if s == nil {
		return nil, errors.New("harness.Shared needs TestMain to call harness.Main(m), or harness.Run(m)")
	}
	if name == "" || cfg.Name != "" && cfg.Name != name {
		return nil, fmt.Errorf("shared pod %q: its name must not be empty, and Config.Name (%q) empty or the same", name, cfg.Name)
	}
	cfg.Name = name
	shown := podlog.Printable(name)
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	pod := s.sharedPod(name, cfg, tb.Name())
	if diff := difference(pod.cfg, cfg); diff != "" {
		return nil, fmt.Errorf("shared pod %s is that of %s, with another %s", shown, podlog.Printable(pod.first), podlog.Printable(diff))
	}
	pod.start.Do(func() {
		if pod.pod, pod.err = start(s, cfg); pod.err != nil {
			pod.err = failsIn(s, pod.err)
		}
	})
	if err := pod.fault(tb); err != nil {
		if box, boxErr := sandboxOf(s); boxErr == nil {
			err = fmt.Errorf("%w\n\tall evidence of this failure, once %s has ended: %s", err, testName(s), box.keepEvidence(tb))
		}
		return nil, err
	}
	p := pod.pod.With(tb)
	if how, ended := p.Ended(); ended {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.broken != nil {
			return nil, fmt.Errorf("shared pod %s was stopped by a test (%s), and %w", shown, how, p.broken)
		}
		return nil, fmt.Errorf("shared pod %s was stopped by a test (%s), which should have restarted it", shown, how)
	}
	return p, nil
}

// fault tells a test that the pod was not started, or has ended by itself.
func (s *shared) fault(tb TB) error {
	if s.err != nil {
		return fmt.Errorf("shared pod %s: %w", podlog.Printable(s.cfg.Name), s.err)
	}
	return s.pod.latest().view(tb).tell()
}

func (s *suite) sharedPod(name string, cfg Config, test string) *shared {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pods[name] == nil {
		s.pods[name] = &shared{cfg: cfg, first: test}
	}
	return s.pods[name]
}

// difference names the first field in which configs differ, and shows it where it is
// short and no secret; "" = they are equal.
func difference(a, b Config) string {
	secret := []string{"Env", "WorkspaceFrom", "HomeFrom", "Shutdown"}
	if !a.ShowArgs || !b.ShowArgs {
		secret = append(secret, "Command", "ExtraArgs")
	}
	before, after := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range before.NumField() {
		name, was, is := before.Type().Field(i).Name, before.Field(i).Interface(), after.Field(i).Interface()
		switch {
		case reflect.DeepEqual(was, is):
		case name == "Redact" && before.Field(i).Pointer() == after.Field(i).Pointer(): // functions are never equal
		case slices.Contains(secret, name):
			return "Config." + name
		default:
			return fmt.Sprintf("Config.%s: %.200v there, %.200v here", name, fmt.Sprint(was), fmt.Sprint(is))
		}
	}
	return ""
}

// end tears the shared pods down, and returns the status of the binary.
func (s *suite) end(status int) int {
	for len(s.cleanups) > 0 {
		last := len(s.cleanups) - 1
		cleanup := s.cleanups[last]
		s.cleanups = s.cleanups[:last]
		cleanup()
	}
	for _, leak := range Leaks() {
		s.Errorf("harness: left behind: %v", leak)
	}
	if s.failed {
		status = cmp.Or(status, 1)
	}
	if status != 0 {
		fmt.Fprint(os.Stderr, s.log.String())
	}
	if line := allHitches(); line != "" {
		fmt.Fprintln(os.Stderr, "harness: pods that "+line)
	}
	return status
}

func (s *suite) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

func (s *suite) Errorf(format string, args ...any) {
	s.mu.Lock()
	s.failed = true
	s.mu.Unlock()
	s.Logf(format, args...)
}

func (s *suite) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Fatalf is for views of a pod, which have a test of their own.
func (s *suite) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (s *suite) Helper() {}

// Logf prints at once with -v, and else at the end, if something has failed.
func (s *suite) Logf(format string, args ...any) {
	if testing.Verbose() {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.log, format+"\n", args...)
}

func (s *suite) Name() string { return filepath.Base(os.Args[0]) }

// Deadline returns when the binary's -timeout is over.
func (s *suite) Deadline() (time.Time, bool) {
	timeout, _ := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration)
	return s.begun.Add(timeout), timeout > 0
}

// What pods did that fails no test, but shows where one may fail some day.
const (
	killed        = "had to be killed"
	endedBySignal = "were ended by their stop signal"
	readyLate     = "became ready after more than half of their ready timeout"
	crashed       = "logged a data race or a panic"
)

var (
	hitchMu sync.Mutex              // guards hitches
	hitches = map[string][]string{} // the tests of the pods to which each happened
)

func happened(hitch string, tb TB) {
	hitchMu.Lock()
	defer hitchMu.Unlock()
	hitches[hitch] = append(hitches[hitch], testName(tb))
}

// allHitches tells of them in one line; "" = there were none.
func allHitches() string {
	hitchMu.Lock()
	defer hitchMu.Unlock()
	var parts []string
	for _, hitch := range []string{killed, endedBySignal, readyLate, crashed} {
		if tests := hitches[hitch]; len(tests) > 0 {
			names := slices.Compact(slices.Sorted(slices.Values(tests)))
			const most = 5
			list := strings.Join(names[:min(len(names), most)], ", ")
			if len(names) > most {
				list += fmt.Sprintf(", and %d more tests", len(names)-most)
			}
			parts = append(parts, fmt.Sprintf("%s: %d (%s)", hitch, len(tests), list))
		}
	}
	return strings.Join(parts, "; ")
}

// use notes that a test uses a pod which it may not own.
func (b *oneTest) use(p *Pod) {
	tb, test := p.tb, testKey(p.tb)
	tb.Helper() // or the lines of leave would be those of this function
	if test == testKey(b.tb) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.users[test] == nil {
		tb.Cleanup(func() {
			tb.Helper()
			b.leave(tb)
		})
	}
	p.attempt.Use(tb.Name())
	if !slices.ContainsFunc(b.users[test], func(q *Pod) bool { return q.Name == p.Name }) {
		b.users[test] = append(b.users[test], p)
	}
}

// leave is called at the end of a test that has used pods and does not own them.
func (b *oneTest) leave(tb TB) {
	tb.Helper()
	b.mu.Lock()
	pods := b.users[testKey(tb)]
	delete(b.users, testKey(tb))
	b.mu.Unlock()
	for _, p := range pods {
		if err := p.latest().view(tb).tell(); err != nil {
			tb.Errorf("harness: %v", err)
		}
	}
	b.evidence.EndUses(tb.Name(), failed(tb))
	if failed(tb) {
		tb.Logf("harness: all evidence of this failure, once %s has ended: %s", testName(b.tb), b.keepEvidence(tb))
		if b.isSuites() && isSet(keepEnv) { // else the end of the test that owns them does
			b.showPods(tb)
		}
	}
}

// failed reports whether a test has failed that owns or uses pods.
func (b *oneTest) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.userFailed || failed(b.tb)
}

// keepEvidence keeps the evidence for a test that uses pods, and returns where.
func (b *oneTest) keepEvidence(tb TB) string {
	b.mu.Lock()
	b.userFailed = true
	b.mu.Unlock()
	b.evidence.Snapshot()
	dir, err := b.evidence.Dir()
	if dir == "" {
		return fmt.Sprintf("none (%v)", err)
	}
	attr(tb, dir)
	return podlog.Printable(dir)
}
