// Package conformance has what the commands podscript and podclient share: their
// common flags, cases that run side by side, and the results on a terminal, as JSON and
// as JUnit's XML. Package scripts does not import it, and so a test binary with
// scenarios has no code for JUnit.
package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/spawn"
	"github.com/jstemmer/go-junit-report/v2/junit"
)

// Levels of a requirement, and results of a check.
const (
	Must   = "must"
	Should = "should"
	May    = "may"

	Pass = "pass"
	Warn = "warn" // a should that was not met
	Fail = "fail"
	Skip = "skip" // it was not looked at, or a may was not met
)

// Missed returns the result of a requirement of a level that was not met.
func Missed(level string) string {
	return map[string]string{Must: Fail, Should: Warn, May: Skip}[level]
}

// A Check is one requirement in one case, and its result.
type Check struct {
	Case        string  `json:"case"`
	Requirement string  `json:"requirement"`
	Level       string  `json:"level"`
	Result      string  `json:"result"`
	Why         string  `json:"why"`           // what was found; what should have been, and where that is said; "" for a pass but for how many runs did
	Fix         string  `json:"fix,omitempty"` // what to do about it
	Log         string  `json:"log,omitempty"` // what led there
	Seconds     float64 `json:"seconds"`
	Evidence    string  `json:"evidence,omitempty"` // the directory where it was kept
}

// A Report collects checks and tells of them: on a terminal case by case, as JSON
// and as JUnit's XML in the end. Its methods are safe for concurrent use.
type Report struct {
	Name    string    // of what is reported
	Out     io.Writer // gets a line for each case; below it its findings
	Verbose bool      // passed checks have lines, too
	Strict  bool      // a should counts as a must

	begun    time.Time
	files    []reportFile
	evidence string    // where it is kept, by case; "" = nowhere
	progress io.Writer // nil = no terminal
	total    int       // cases that are to come

	mu     sync.Mutex
	over   bool     // it was given up
	now    []string // the cases that run
	ended  int      // cases
	checks []Check
	told   map[string]string // the case that a finding was told of in full, by its words
}

type reportFile struct {
	*os.File
	write func(io.Writer, Summary) error
}

// Run calls run with each number below n, side by side, and returns when all calls
// have, or when ctx is done or SIGINT or SIGTERM comes: with an error that says so,
// and names the cases that have not ended.
func (r *Report) Run(ctx context.Context, n int, run func(i int)) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		go func() {
			defer all.Done()
			run(i)
		}()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	err := ErrInterrupted
	select {
	case <-done:
		return context.Cause(ctx)
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-signals:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.clearProgress()
	if errors.As(err, new(UsageError)) {
		return err
	}
	for _, name := range r.now {
		r.checks = append(r.checks, Check{Case: name, Requirement: name, Level: Must, Result: Skip, Why: err.Error() + " while it ran"})
	}
	return fmt.Errorf("%w while these cases ran: %s", err, strings.Join(r.now, ", "))
}

// Begin tells that a case begins, and reports whether it may: not when Run was
// given up.
func (r *Report) Begin(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.now = append(r.now, name)
	}
	return !r.over
}

// Drop tells that a case has ended of which nothing is to be told.
func (r *Report) Drop(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(name)
}

func (r *Report) end(name string) {
	r.now = slices.DeleteFunc(r.now, func(n string) bool { return n == name })
}

func (r *Report) clearProgress() {
	if r.progress != nil {
		fmt.Fprint(r.progress, "\r\x1b[K")
	}
}

// Case adds the checks of a case that has ended, and prints it. The words are
// printed as spawn.Printable has them.
func (r *Report) Case(name string, took time.Duration, checks []Check) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return nil
	}
	r.ended++
	r.end(name)
	r.checks = append(r.checks, checks...)
	r.clearProgress()
	err := r.print(name, took, checks)
	if r.progress != nil && r.ended < r.total {
		fmt.Fprintf(r.progress, "%d of %d cases", r.ended, r.total)
	}
	return err
}

func (r *Report) print(name string, took time.Duration, checks []Check) error {
	if r.told == nil {
		r.told = map[string]string{}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-28s %6.3fs", strings.ToUpper(worst(checks)), name, took.Seconds())
	if len(checks) == 1 && checks[0].Result == Skip && !r.Verbose { // they may be many
		fmt.Fprintf(&b, "  %s", spawn.Printable(strings.ReplaceAll(checks[0].Why, "\n", "; ")))
		checks = nil
	}
	b.WriteString("\n")
	for _, c := range checks {
		switch {
		case c.Why != "":
			b.WriteString(r.words(c))
		case r.Verbose:
			b.WriteString(indented(append([]string{c.Requirement + ": passed"}, lines(c.Log)...)))
		}
	}
	_, err := io.WriteString(r.Out, b.String())
	return err
}

// words tells of a finding in full once: many cases may have one cause. That is
// what was found, whatever the numbers in it. What to do is told always, and so are
// further lines of Why.
func (r *Report) words(c Check) string {
	found := c.Why[:max(0, strings.IndexAny(c.Why+";", ";\n"))]
	key := number.ReplaceAllString(found, "0")
	said := lines(c.Why)
	if first := r.told[key]; first != "" && (c.Result == Fail || c.Result == Warn) {
		said[0] = "as in " + first
	} else {
		r.told[key] = c.Case
		said = append(said, lines(c.Log)...)
	}
	said = append(said, fix(c)...)
	said[0] = fmt.Sprintf("%s (%s): %s", c.Requirement, c.Level, said[0])
	return indented(said)
}

func fix(c Check) []string {
	if c.Fix == "" {
		return nil
	}
	return []string{"fix: " + c.Fix}
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// indented returns what stands below the line of a case.
func indented(lines []string) string {
	var b strings.Builder
	indent := "      "
	for _, line := range lines {
		b.WriteString(indent + spawn.Printable(line) + "\n")
		indent = "        "
	}
	return b.String()
}

var number = regexp.MustCompile(`\d+`)

// worst returns the result of a case: that of its worst check.
func worst(checks []Check) string {
	order := []string{Fail, Warn, Pass, Skip}
	worst := Skip
	for _, c := range checks {
		if slices.Index(order, c.Result) < slices.Index(order, worst) {
			worst = c.Result
		}
	}
	return worst
}

// Summary is the last line of a report, and the object that ends its JSON.
type Summary struct {
	Cases    int            `json:"cases"`
	Passed   int            `json:"passed"`
	Warned   int            `json:"warned"`
	Failed   int            `json:"failed"`
	Skipped  int            `json:"skipped"`
	Findings map[string]int `json:"findings"` // how many by requirement, warnings included
	OK       bool           `json:"ok"`       // nothing failed, with Strict nothing warned
	Seconds  float64        `json:"seconds"`
}

// Summary counts the cases so far by their worst check.
func (r *Report) Summary(took time.Duration) Summary {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Summary{Findings: map[string]int{}, Seconds: took.Seconds()}
	byCase := map[string][]Check{}
	for _, c := range r.checks {
		byCase[c.Case] = append(byCase[c.Case], c)
		if c.Result == Fail || c.Result == Warn {
			s.Findings[c.Requirement]++
		}
	}
	s.Cases = len(byCase)
	for _, checks := range byCase {
		*map[string]*int{Pass: &s.Passed, Warn: &s.Warned, Fail: &s.Failed, Skip: &s.Skipped}[worst(checks)]++
	}
	s.OK = s.Failed == 0 && (!r.Strict || s.Warned == 0)
	return s
}

// String returns the summary as a person reads it.
func (s Summary) String() string {
	text := fmt.Sprintf("%d passed, %d failed, %d warned, %d skipped in %.1fs", s.Passed, s.Failed, s.Warned, s.Skipped, s.Seconds)
	var findings []string
	for requirement, n := range s.Findings {
		findings = append(findings, fmt.Sprintf("%s %d", requirement, n))
	}
	slices.Sort(findings)
	if len(findings) > 0 {
		text += "; findings: " + strings.Join(findings, ", ")
	}
	return text
}

// Finish prints the summary and writes the files, and reports whether the summary
// is OK. It takes the error of Run, and returns that, too: what was found before a run
// was given up is told, unless it could not begin.
func (r *Report) Finish(ended error) (ok bool, err error) {
	if errors.As(ended, new(UsageError)) {
		return false, ended
	}
	summary := r.Summary(time.Since(r.begun))
	summary.OK = summary.OK && ended == nil
	text := summary.String()
	if r.Strict && summary.Warned > 0 {
		text += "; with -strict a warning is a failure"
	}
	text += "\n"
	if len(summary.Findings) > 0 {
		if slices.ContainsFunc(r.checks, func(c Check) bool { return section.MatchString(c.Why) }) {
			text += "(N) is a section of the contract, spawn/HANDSHAKE.md\n"
		}
		if r.evidence == "" {
			text += "evidence was not kept: -o DIR keeps it, by case\n"
		} else {
			text += "evidence of the findings, by case: " + r.evidence + "\n"
		}
	}
	_, err = io.WriteString(r.Out, text)
	for _, file := range r.files {
		err = errors.Join(err, file.write(file, summary), file.Close())
	}
	return summary.OK, errors.Join(ended, err)
}

// section matches what ends with a section of the contract.
var section = regexp.MustCompile(`\(\d(, \d)*\)$`)

// WriteJSON writes a line for each check, and one for the summary.
func (r *Report) WriteJSON(w io.Writer, s Summary) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := json.NewEncoder(w)
	for _, c := range r.checks {
		if err := lines.Encode(c); err != nil {
			return err
		}
	}
	return lines.Encode(s)
}

// WriteJUnit writes a test case for each check. A should fails there with Strict
// only; else its words are in its output.
func (r *Report) WriteJUnit(w io.Writer, s Summary) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	suite := junit.Testsuite{Name: r.Name, Time: fmt.Sprintf("%.3f", s.Seconds)}
	for _, c := range r.checks {
		name := c.Case
		if c.Requirement != c.Case {
			name += "/" + c.Requirement
		}
		test := junit.Testcase{Name: name, Classname: r.Name, Time: fmt.Sprintf("%.3f", c.Seconds)}
		why := spawn.Printable(strings.ReplaceAll(c.Why, "\n", " "))
		switch {
		case c.Result == Skip:
			test.Skipped = &junit.Result{Message: why}
		case c.Result == Fail || c.Result == Warn && r.Strict:
			test.Failure = &junit.Result{Message: why, Type: c.Level, Data: indented(append(lines(c.Log), fix(c)...))}
		case c.Result == Warn:
			test.SystemOut = &junit.Output{Data: why}
		}
		suite.AddTestcase(test)
	}
	all := junit.Testsuites{}
	all.AddSuite(suite)
	return all.WriteXML(w)
}
