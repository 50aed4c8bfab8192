package conformance

import (
	"fmt"
	"io"
	"strings"

	"example.com/podharness/spawn/podlog"
	"github.com/jstemmer/go-junit-report/v2/junit"
)

// writeJUnit writes a test case for each check. The words of a warning are in its output.
func (r *Results) writeJUnit(w io.Writer) error {
	t := &r.Tested
	suite := junit.Testsuite{Name: podlog.Printable(t.Name), Time: fmt.Sprintf("%.3f", r.Summary.Seconds)}
	suite.SetTimestamp(t.Time)
	for _, property := range [][2]string{{"command", t.Command}, {"argv", shellWords(t.Argv)}, {"flags", shellWords(t.Flags)}, {"version", t.Version}, {"commit", t.Commit}, {"system", t.System}, {"kernel", t.Kernel}} {
		suite.AddProperty(property[0], podlog.Printable(property[1]))
	}
	for _, c := range r.Checks {
		name := c.Case
		if c.Requirement != c.Case {
			name += "/" + c.Requirement
		}
		test := junit.Testcase{Name: podlog.Printable(name), Classname: suite.Name, Time: fmt.Sprintf("%.3f", c.Seconds)}
		why := podlog.PrintableLines(strings.ReplaceAll(c.Why, "\n", " "))
		switch {
		case c.Result == Skip:
			test.Skipped = &junit.Result{Message: why}
		case c.Result == Known:
			test.Skipped = &junit.Result{Message: "known: " + podlog.PrintableLines(c.Known) + ": " + why}
		case c.Result == Fail:
			test.Failure = &junit.Result{Message: why, Type: c.Level, Data: indented(append(lines(c.Log), fix(c)...))}
		case c.Result == Error:
			test.Error = &junit.Result{Message: why, Data: indented(append(lines(c.Log), fix(c)...))}
		case c.Why != "":
			test.SystemOut = &junit.Output{Data: why}
		}
		suite.AddTestcase(test)
	}
	for _, k := range r.Summary.Outdated {
		test := junit.Testcase{Name: "known/" + podlog.Printable(k.name()), Classname: suite.Name}
		if says := podlog.PrintableLines(k.String()); k.Result == Fail {
			test.Failure = &junit.Result{Message: says, Type: Should}
		} else {
			test.SystemOut = &junit.Output{Data: says}
		}
		suite.AddTestcase(test)
	}
	all := junit.Testsuites{}
	all.AddSuite(suite)
	return all.WriteXML(w)
}
