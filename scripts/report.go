package scripts

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn"
	"github.com/jstemmer/go-junit-report/v2/junit"
)

// Levels of a requirement, and results of a check.
const (
	Must   = "must"
	Should = "should"

	Pass = "pass"
	Warn = "warn" // a should that was not met
	Fail = "fail"
	Skip = "skip"
)

// A Check is one requirement in one case, and what came of it. It is there for the
// commands of this module, as Report is.
type Check struct {
	Case        string  `json:"case"`
	Requirement string  `json:"requirement"`
	Level       string  `json:"level"`
	Result      string  `json:"result"`
	Why         string  `json:"why"` // what was found; what should have been, and where that is said; "" for a pass
	Seconds     float64 `json:"seconds"`
}

// A Report collects checks and tells of them: on a terminal case by case, as JSON
// and as JUnit's XML in the end. Its methods are safe for concurrent use.
type Report struct {
	Name    string    // of what is reported
	Out     io.Writer // gets a line for each case; below it its findings
	Verbose bool      // passed checks have lines, too
	Strict  bool      // a should counts as a must

	mu     sync.Mutex
	checks []Check
	told   map[string]string // the case that a finding was told of in full, by its words
}

// Case adds the checks of a case that has ended, and prints it. The words are
// printed as spawn.Printable has them.
func (r *Report) Case(name string, took time.Duration, checks []Check) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checks = append(r.checks, checks...)
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %-28s %6.3fs\n", strings.ToUpper(worst(checks)), name, took.Seconds())
	for _, c := range checks {
		switch {
		case c.Result != Pass:
			b.WriteString(r.words(c))
		case r.Verbose:
			fmt.Fprintf(&b, "      %s: passed\n", c.Requirement)
		}
	}
	_, err := io.WriteString(r.Out, b.String())
	return err
}

// words tells of a finding in full once: many cases may have one cause. That is
// what was found, whatever the numbers in it. Further lines are told always.
func (r *Report) words(c Check) string {
	found, _, _ := strings.Cut(c.Why, ";")
	key := c.Requirement + ": " + number.ReplaceAllString(found, "0")
	lines := strings.Split(c.Why, "\n")
	if r.told == nil {
		r.told = map[string]string{}
	}
	if first := r.told[key]; first != "" {
		lines[0] = "as in " + first
	} else {
		r.told[key] = c.Case
	}
	for i := range lines {
		lines[i] = spawn.Printable(lines[i])
	}
	return fmt.Sprintf("      %s (%s): %s\n", c.Requirement, c.Level, strings.Join(lines, "\n        "))
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
		test := junit.Testcase{Name: c.Case + "/" + c.Requirement, Classname: r.Name, Time: fmt.Sprintf("%.3f", c.Seconds)}
		why := spawn.Printable(strings.ReplaceAll(c.Why, "\n", " "))
		switch {
		case c.Result == Skip:
			test.Skipped = &junit.Result{Message: why}
		case c.Result == Fail || c.Result == Warn && r.Strict:
			test.Failure = &junit.Result{Message: why, Type: c.Level}
		case c.Result == Warn:
			test.SystemOut = &junit.Output{Data: why}
		}
		suite.AddTestcase(test)
	}
	all := junit.Testsuites{}
	all.AddSuite(suite)
	return all.WriteXML(w)
}
