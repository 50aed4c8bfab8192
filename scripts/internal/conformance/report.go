// Package conformance has what the commands podscript and podclient share: their
// common flags, cases that run side by side, and the results on a terminal and in files:
// JSON, JUnit's XML, Markdown, HTML. Package scripts does not import it, and so a test
// binary with scenarios has no code for JUnit.
package conformance

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn/podlog"
)

// A Report runs cases and reports their checks: on a terminal case by case, at the end
// in files.
type Report struct {
	Flags
	Out io.Writer // gets a line for each case; below it its findings
	// Interrupted is called when SIGINT or SIGTERM arrives. All cases then end soon by
	// themselves, and are reported; a second signal gives them up. nil = the first does.
	Interrupted func()

	files    []func(*Results) error // that write them
	progress io.Writer              // nil = no terminal
	total    int                    // cases that are reported
	github   bool                   // GitHub Actions reads what is printed

	mu      sync.Mutex // guards all below
	over    bool       // the run was given up
	running []string   // cases
	order   []*Case    // that are not printed yet
	ended   int        // cases
	results Results
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
	fmt.Fprintf(&b, "%-6s%-28s %6.3fs", shown(worst(checks)), podlog.PrintableLines(name), took.Seconds())
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
	_ = r.say(b.String())
}

// words returns what is printed of a check. A finding is told in full once, since many
// cases may have one cause; the fix and all lines of Why but the first are always told.
// One that is known is told in brief.
func (r *Report) words(c Check) string {
	said := lines(c.Why)
	if c.Result == Known && !r.Verbose {
		return indented([]string{fmt.Sprintf("%s (%s): %s", c.Requirement, c.Level, said[0]), "known: " + c.Known})
	}
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

// below is the indentation of what stands below the line of a case.
const below = "      "

// indented returns what stands below the line of a case.
func indented(lines []string) string {
	var b strings.Builder
	indent := below
	for _, line := range lines {
		b.WriteString(indent + podlog.PrintableLines(line) + "\n")
		indent = below + "  "
	}
	return b.String()
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
	r.results.Summary = r.results.summarize(time.Since(r.results.Tested.Time))
	summary := &r.results.Summary
	summary.Outdated = r.outdated(r.results.Checks, ended == nil && !r.Part)
	strict := slices.ContainsFunc(summary.Outdated, func(k KnownLine) bool { return k.Result == Fail })
	summary.OK = summary.OK && ended == nil && !strict
	if r.since != nil {
		summary.Since = r.results.since(r.since)
	}
	text := ""
	for _, line := range append([]string{summary.String()}, summary.Notes()...) {
		text += podlog.PrintableLines(line) + "\n"
	}
	if len(summary.Findings) > 0 {
		if slices.ContainsFunc(r.results.Checks, func(c Check) bool { return c.IsFinding() && c.Section != "" }) {
			text += "(N) is a section of the contract, spawn/HANDSHAKE.md\n"
		}
		if r.Evidence == "" {
			text += "evidence was not kept: -o DIR keeps it, by case\n"
		} else {
			text += "evidence of the findings, by case: " + r.Evidence + "\n"
		}
	}
	err = r.say(text)
	if r.github {
		_, _ = io.WriteString(r.Out, r.results.annotations())
	}
	for _, write := range r.files {
		err = errors.Join(err, write(&r.results))
	}
	switch {
	case errors.Is(ended, ErrInterrupted):
		status = 130
	case summary.Failed > 0 || strict || err != nil:
		status = 1
	case ended != nil || summary.Errors > 0:
		status = 3
	}
	return status, errors.Join(ended, err)
}
