package sweep

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn/fault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPatternsOfPaths(t *testing.T) {
	t.Parallel()
	w := World{Root: "/tmp/x/1", Name: "alpha", Bases: [][2]string{{"{runtime}", "/tmp/x/1/run"}, {"{home}", "/tmp/x/1/home"}, {"{workspace}", "/tmp/x/1/workspace1"}}}
	for path, want := range map[string]string{
		"/tmp/x/1/run/alpha/sock":      "{runtime}/{name}/sock",
		"/tmp/x/1/run/alphabet":        "{runtime}/alphabet",
		"/tmp/x/1/run":                 "{runtime}",
		"/tmp/x/1/home/a*b":            `{home}/a\*b`,
		"/tmp/x/1/workspace1/t12345.x": "{workspace}/t*.x",
		"/tmp/x/1/home/6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11.tmp": "{home}/*.tmp",
		"/tmp/x/1/home/decade-3f2a9c01d4e5b6a7":                  "{home}/decade-*",
		"/tmp/x/1/tmp/a":                                         "**/tmp/a",
		"/tmp/x/11/run":                                          "",
		"/etc/passwd":                                            "",
		"socket:[4711]":                                          "",
	} {
		assert.Equal(t, want, w.pattern(path), path)
	}
	w.All = true
	assert.Equal(t, "/etc/passwd", w.pattern("/etc/passwd"))
}

func TestNamesThatAreMadeAtRandom(t *testing.T) {
	t.Parallel()
	s, w := &Sweep{Of: "pod"}, World{Root: "/box", Bases: [][2]string{{"{runtime}", "/box/run"}}, Name: "alpha"}
	write := slices.Index(families(nil), "write")
	observed := func(names ...string) (texts []string) {
		var calls []fault.Strike
		for _, name := range names {
			calls = append(calls, fault.Strike{Fault: write, Call: "write", Paths: []string{"/box/run/alpha/" + name}})
		}
		for _, p := range s.Points(w, calls, func(fault.Strike) string { return "start" }) {
			texts = append(texts, fmt.Sprint(strings.TrimPrefix(p.Path, "{runtime}/{name}/"), " ", p.When))
		}
		return texts
	}
	observed("tmpabcx", "tmp[xyz", "log", "d-qwe/pid", "once", "a.new")
	assert.Equal(t, []string{"tm* 1", "tm* 2", "log 1", "d-*/pid 1", "more/new 1", "*.new 1", "unlike 1"}, observed("tmpuvwy", "tmp[xyzzy", "log", "d-rst/pid", "more/new", "b.new", "unlike"))
}

// runsOf returns the part of the runs that a command line asks for.
func runsOf(t *testing.T, args ...string) (r conformance.Runs) {
	t.Helper()
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	r.AddFlags(flags, "case")
	require.NoError(t, flags.Parse(args))
	return r
}

func TestPlanTakesEachKindInTurn(t *testing.T) {
	t.Parallel()
	plan := func(seed uint64, args ...string) []Trial {
		s := &Sweep{Runs: runsOf(t, args...), Faults: Flags{Seed: seed}}
		var points []Point
		for n := range 5 {
			points = append(points, Point{Family: "mkdir", When: n + 1, Phase: "start"}, Point{Family: "sync", When: n + 1, Phase: "stop"})
		}
		return s.plan(points)
	}
	all := plan(1)
	require.Len(t, all, 5*(5+4))
	kinds := map[string]bool{}
	for _, t := range all[:9] {
		kinds[t.kind()] = true
	}
	assert.Len(t, kinds, 9, "the first of each kind come first")
	assert.Equal(t, all, plan(1))
	assert.NotEqual(t, all, plan(2))
	parts := [][]Trial{plan(1, "-shard", "1/3"), plan(2, "-shard", "2/3"), plan(3, "-shard", "3/3")}
	assert.ElementsMatch(t, all, slices.Concat(parts...), "each part has chosen a seed of its own")
	for _, part := range parts {
		assert.Greater(t, len(part), len(all)/6)
	}
}

// swept runs the sweep of sweepOf, of which try is what becomes of a run, and
// returns what is told, without when. With the report comes what interrupts it.
func swept(t *testing.T, try func(interrupt func(), r *Run) (bool, error)) (results *conformance.Results, stdout string, status int, err error) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	s := sweepOf(t, "-json", report)
	s.Try = func(r *Run) (bool, error) { return try(func() { s.halt() }, r) }
	var out bytes.Buffer
	status, err = s.Main("test", &out, io.Discard)
	results, readErr := conformance.ReadResults(report)
	require.NoError(t, readErr)
	return results, out.String(), status, err
}

// sweepOf returns a sweep of four calls on a file and one on another.
func sweepOf(t *testing.T, args ...string) *Sweep {
	t.Helper()
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
	var flags conformance.Flags
	require.NoError(t, flags.Parse(flag.NewFlagSet("test", flag.ContinueOnError), "", append(args, "-parallel", "1"), io.Discard, io.Discard))
	return &Sweep{
		Flags: &flags, Runs: runsOf(t), Of: "pod", Timeout: time.Minute, Faults: Flags{On: true, Budget: time.Minute, Seed: 1}, Repeat: func(_ string, t Trial) string { return "x " + t.Fault.String() },
		Requirements: []Requirement{{ID: "first", Level: conformance.Must, Section: "5b", Text: "be first"}, {ID: "second", Level: conformance.Should, Section: "5b", Text: "be second"}},
		Observe: func() (points []Point, err error) {
			for n := range 5 {
				points = append(points, Point{Family: "mkdir", Path: map[bool]string{true: "/a", false: "/b"}[n < 4], When: n + 1})
			}
			return points, nil
		},
	}
}

func TestNamesOfCauses(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"":                             "write",
		"{runtime}/{name}/pid":         "write-pid",
		"{runtime}/{name}/pid-*.tm":    "write-pid.tm",
		"{runtime}/{name}":             "write-name",
		"{runtime}":                    "write-runtime",
		"{home}/a/pid":                 "write-home-a-pid",
		"**/client-*.stdout":           "write-client.stdout",
		"/etc/passwd":                  "write-etc-passwd",
		"{home}/\x1b\\[31m\nFAIL x: ü": "write-home-_31m_FAIL_x_ü",
		"{runtime}/{name}/" + strings.Repeat("x", 255): "write-" + strings.Repeat("x", 100),
	} {
		assert.Equal(t, want, (&cause{Trial: Trial{Point: Point{Family: "write", Path: path}}}).name())
	}
}

func TestFindingsWithOneCauseAreToldOnce(t *testing.T) {
	t.Parallel()
	results, stdout, status, err := swept(t, func(_ func(), r *Run) (bool, error) {
		r.Say("first", map[bool]string{true: "it is last"}[r.When == 3 || r.When == 4])
		r.Say("second", "")
		r.Settle([]string{"what led there"})
		return true, nil
	})
	require.NoError(t, err)
	assert.Equal(t, 1, status)
	require.Len(t, results.Checks, 2)
	assert.Equal(t, "mkdir-a", results.Checks[0].Case)
	assert.Regexp(t, `^it is last\na pod must be first \(5b\)\n2 points show this, first call [34] of mkdir /a.*; -known calls it first/mkdir-a\nrepeat: x mkdir:path=/a:.*$`, results.Checks[0].Why)
	assert.Equal(t, "what led there", results.Checks[0].Log)
	assert.Equal(t, conformance.Pass, results.Checks[1].Result)
	assert.Contains(t, stdout, "\n5 points, 25 of 25 runs in ")
}

// TestKnownFindingIsNotMissedInAPartOfTheRuns runs nothing, a part, and all.
func TestKnownFindingIsNotMissedInAPartOfTheRuns(t *testing.T) {
	t.Parallel()
	known := filepath.Join(t.TempDir(), "known.txt")
	require.NoError(t, os.WriteFile(known, []byte("first/mkdir-a: we know\nsecond: we know\n"), 0o600))
	for _, tc := range []struct {
		args   []string
		budget time.Duration
		told   bool
	}{
		{nil, time.Minute, true},
		{nil, time.Nanosecond, false},
		{[]string{"-shard", "1/2"}, time.Minute, false},
	} {
		s := sweepOf(t, "-known", known)
		s.Runs, s.Faults.Budget = runsOf(t, tc.args...), tc.budget
		s.Try = func(r *Run) (bool, error) { r.Say("first", ""); r.Say("second", ""); r.Settle(nil); return true, nil }
		var out bytes.Buffer
		_, err := s.Main("test", &out, io.Discard)
		require.NoError(t, err)
		assert.Equal(t, tc.told, strings.Contains(out.String(), "known.txt:"), out.String())
	}
}

func TestFindingOfTimeIsToldIfASecondRunHasIt(t *testing.T) {
	t.Parallel()
	runs := map[string]int{}
	results, _, status, err := swept(t, func(_ func(), r *Run) (bool, error) {
		runs[r.String()]++
		late := r.Path == "/b" && runs[r.String()] == 1 || r.When == 2
		r.SayLate("first", map[bool]string{true: fmt.Sprint("late at ", r.When)}[late])
		r.Settle(nil)
		return true, nil
	})
	require.NoError(t, err)
	assert.Equal(t, 1, status)
	assert.Contains(t, results.Checks[0].Why, "late at 2\n")
	assert.Contains(t, results.Checks[0].Why, "\n1 point shows this")
	again := 0
	for _, n := range runs {
		again += n - 1
	}
	assert.Equal(t, 5+1, again, "all of the call on /b, and one of the second call on /a")
}

func TestInterruptedSweepTellsWhatItHasFound(t *testing.T) {
	t.Parallel()
	results, stdout, status, err := swept(t, func(interrupt func(), r *Run) (bool, error) {
		r.Say("first", "it is last")
		r.Say("second", "")
		r.Settle(nil)
		interrupt()
		return true, nil
	})
	require.NoError(t, err)
	assert.Equal(t, 1, status)
	require.Len(t, results.Checks, 3)
	assert.Equal(t, conformance.Fail, results.Checks[0].Result)
	assert.Equal(t, conformance.Error, results.Checks[1].Result)
	assert.Contains(t, results.Checks[1].Why, "interrupted: 24 of 25 runs were not begun")
	assert.Equal(t, conformance.Skip, results.Checks[2].Result)
	assert.Equal(t, "interrupted after 1 of 25 runs, which have found nothing", results.Checks[2].Why)
	assert.Contains(t, stdout, "\n5 points, 1 of 25 runs in ")
}

func TestWhatCannotBeJudgedIsNoFinding(t *testing.T) {
	t.Parallel()
	results, stdout, status, err := swept(t, func(_ func(), r *Run) (bool, error) {
		if r.When == 1 {
			return false, errors.New("no disk")
		}
		return false, nil
	})
	require.NoError(t, err)
	assert.Equal(t, 3, status)
	assert.Equal(t, []string{conformance.Error, conformance.Skip}, []string{results.Checks[0].Result, results.Checks[1].Result})
	assert.Regexp(t, `^5 times something could not be judged, first: call 1 of mkdir /a .*: no disk$`, results.Checks[0].Why)
	assert.Equal(t, "no run was about it", results.Checks[1].Why)
	assert.Contains(t, stdout, "; in 20 the call did not come\n")
}

func TestPointsOfAnInterpreterAreLeftOut(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "pod.py")
	require.NoError(t, os.WriteFile(program, nil, 0o700))
	s, w := &Sweep{Of: "pod"}, World{Root: "/box", Bases: [][2]string{{"{runtime}", "/box/run"}}, Name: "alpha", Program: ProgramOf([]string{"/bin/sh", program, ".", "pod", ""})}
	assert.Equal(t, []string{program}, w.Program)
	require.NoError(t, os.WriteFile(program, []byte("#!/usr/bin/env python3\n"), 0o700))
	assert.Equal(t, []string{program}, ProgramOf([]string{program, "pod"}), "a script, which its interpreter opens")
	assert.Equal(t, []string{filepath.Dir(program)}, ProgramOf([]string{program, filepath.Dir(program)}), "the interpreter is a script itself, such as pyenv's")
	assert.Empty(t, ProgramOf([]string{"/bin/sh", "pod"}))
	assert.Empty(t, ProgramOf(nil))
	at := func(family string) int { return slices.Index(families(nil), family) }
	calls := []fault.Strike{
		{Fault: at("thread"), Call: "clone3"}, {Fault: at("open"), Call: "openat", Paths: []string{"/lib/libc.so"}}, {Fault: at("open"), Call: "openat", Paths: []string{program}},
		{Fault: at("thread"), Call: "clone3"}, {Fault: at("rename"), Call: "rename", Paths: []string{"/box/run/alpha/pid.1234", "/box/run/alpha/pid"}},
	}
	phase := func(fault.Strike) string { return "start" }
	after := []Point{{Family: "thread", When: 2, Phase: "start"}, {Family: "rename", Path: "{runtime}/{name}/pid", When: 1, Phase: "start"}}
	assert.Equal(t, after, s.Points(w, calls, phase))
	w.Program = nil
	assert.Equal(t, slices.Concat([]Point{{Family: "thread", When: 1, Phase: "start"}}, after), s.Points(w, calls, phase), "a program of its own")
	w.All = true
	assert.Len(t, s.Points(w, calls, phase), 5)
}
