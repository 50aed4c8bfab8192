// Package conformance has what the commands podscript and podclient share: their
// common flags, cases that run side by side, and the results on a terminal, as JSON and
// as JUnit's XML. Package scripts does not import it, and so a test binary with
// scenarios has no code for JUnit.
package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn/podlog"
	"github.com/jstemmer/go-junit-report/v2/junit"
)

// A Report runs cases and reports their checks: on a terminal case by case, at the end
// as JSON and JUnit's XML.
type Report struct {
	Flags
	Name string    // of the command
	Out  io.Writer // gets a line for each case; below it its findings

	begun    time.Time
	files    []func(Summary) error // that write them
	progress io.Writer             // nil = no terminal
	total    int                   // cases that are reported

	mu      sync.Mutex // guards all below
	over    bool       // the run was given up
	running []string   // cases
	order   []*Case    // that are not printed yet
	ended   int        // cases
	checks  []Check
	told    map[string]string // the case that told a finding in full, by its key
}

func (r *Report) clearProgress() {
	if r.progress != nil {
		fmt.Fprint(r.progress, "\r\x1b[K")
	}
}

// print prints a case. Finish finds out whether Out takes it.
func (r *Report) print(name string, took time.Duration, checks []Check) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-6s%-28s %6.3fs", strings.ToUpper(strings.TrimSuffix(worst(checks), "ed")), podlog.PrintableLines(name), took.Seconds())
	if len(checks) == 1 && checks[0].Result == Skip && !r.Verbose { // they may be many
		fmt.Fprintf(&b, "  %s", podlog.PrintableLines(strings.ReplaceAll(checks[0].Why, "\n", "; ")))
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
	_, _ = io.WriteString(r.Out, b.String())
}

// words returns what is printed of a check. A finding is told in full once, since many
// cases may have one cause; the fix and all lines of Why but the first are always told.
func (r *Report) words(c Check) string {
	said := lines(c.Why)
	if first := r.told[c.Key]; first != "" && c.IsFinding() {
		said[0] = "as in " + first
	} else {
		said = append(said, lines(c.Log)...)
		if c.Key != "" && c.IsFinding() {
			r.told[c.Key] = c.Case
		}
	}
	said[0] = fmt.Sprintf("%s (%s): %s", c.Requirement, c.Level, said[0])
	return indented(append(said, fix(c)...))
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
		b.WriteString(indent + podlog.PrintableLines(line) + "\n")
		indent = "        "
	}
	return b.String()
}

// summary counts the cases so far by their worst check.
func (r *Report) summary(took time.Duration) Summary {
	s := Summary{Findings: map[string]int{}, Seconds: took.Seconds()}
	byCase := map[string][]Check{}
	for _, c := range r.checks {
		byCase[c.Case] = append(byCase[c.Case], c)
		if c.IsFinding() && c.Result != Missed {
			s.Findings[c.Requirement]++
		}
	}
	s.Cases = len(byCase)
	for _, checks := range byCase {
		*map[string]*int{Pass: &s.Passed, Missed: &s.Missed, Warn: &s.Warned, Fail: &s.Failed, Error: &s.Errors, Skip: &s.Skipped}[worst(checks)]++
	}
	s.OK = s.Failed+s.Errors == 0
	return s
}

// Finish prints the summary, writes the files, and returns the exit status. It takes the
// error of Run and returns that, too. It reports what was found before a run was given
// up, but nothing of one that could not begin.
func (r *Report) Finish(ended error) (status int, err error) {
	if errors.As(ended, new(UsageError)) {
		return 2, ended
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	summary := r.summary(time.Since(r.begun))
	summary.OK = summary.OK && ended == nil
	text := podlog.PrintableLines(summary.String())
	text += "\n"
	if len(summary.Findings) > 0 {
		if slices.ContainsFunc(r.checks, func(c Check) bool { return c.IsFinding() && c.Section != "" }) {
			text += "(N) is a section of the contract, spawn/HANDSHAKE.md\n"
		}
		if r.Evidence == "" {
			text += "evidence was not kept: -o DIR keeps it, by case\n"
		} else {
			text += "evidence of the findings, by case: " + r.Evidence + "\n"
		}
	}
	_, err = io.WriteString(r.Out, text)
	for _, write := range r.files {
		err = errors.Join(err, write(summary))
	}
	switch {
	case errors.Is(ended, ErrInterrupted):
		status = 130
	case summary.Failed > 0 || err != nil:
		status = 1
	case ended != nil || summary.Errors > 0:
		status = 3
	}
	return status, errors.Join(ended, err)
}

// writeJSON writes a line for each check, and one for the summary.
func (r *Report) writeJSON(w io.Writer, s Summary) error {
	lines := json.NewEncoder(w)
	for _, c := range r.checks {
		if err := lines.Encode(c); err != nil {
			return err
		}
	}
	return lines.Encode(s)
}

// writeJUnit writes a test case for each check. The words of a warning are in its output.
func (r *Report) writeJUnit(w io.Writer, s Summary) error {
	suite := junit.Testsuite{Name: r.Name, Time: fmt.Sprintf("%.3f", s.Seconds)}
	for _, c := range r.checks {
		name := c.Case
		if c.Requirement != c.Case {
			name += "/" + c.Requirement
		}
		test := junit.Testcase{Name: name, Classname: r.Name, Time: fmt.Sprintf("%.3f", c.Seconds)}
		why := podlog.PrintableLines(strings.ReplaceAll(c.Why, "\n", " "))
		switch {
		case c.Result == Skip:
			test.Skipped = &junit.Result{Message: why}
		case c.Result == Fail:
			test.Failure = &junit.Result{Message: why, Type: c.Level, Data: indented(append(lines(c.Log), fix(c)...))}
		case c.Result == Error:
			test.Error = &junit.Result{Message: why, Data: indented(append(lines(c.Log), fix(c)...))}
		case c.Why != "":
			test.SystemOut = &junit.Output{Data: why}
		}
		suite.AddTestcase(test)
	}
	all := junit.Testsuites{}
	all.AddSuite(suite)
	return all.WriteXML(w)
}
