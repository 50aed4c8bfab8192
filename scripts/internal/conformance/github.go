package conformance

import (
	"fmt"
	"regexp"
	"strings"

	"example.com/podharness/spawn/podlog"
)

// inert changes what GitHub's runner would take for a command to itself: the words of a
// pod or client must be none.
func inert(text string) string {
	return strings.ReplaceAll(commandLine.ReplaceAllString(text, `${1}:\x3a`), "##[", `##\x5b`)
}

var commandLine = regexp.MustCompile(`(?m)^([ \t]*)::`)

// annotations returns the workflow commands that have GitHub show what was not met or not
// judged beside the change.
func (r *Results) annotations() string {
	var b strings.Builder
	annotate := func(result, where, title, message string) {
		kind := map[string]string{Fail: "error", Error: "error", Warn: "warning"}[result]
		if kind == "" {
			kind = "notice"
		}
		fmt.Fprintf(&b, "::%s %stitle=%s::%s\n", kind, where, githubProperty.Replace(podlog.Printable(r.Tested.Name+": "+title)), githubData.Replace(podlog.PrintableLines(message)))
	}
	for _, g := range r.groups() {
		if g.Result == Missed {
			continue
		}
		message := []string{g.Why}
		for _, more := range [][2]string{{"in: ", g.Where(5)}, {"fix: ", g.Fix}, {"known: ", g.Known}} {
			if more[1] != "" {
				message = append(message, more[0]+more[1])
			}
		}
		annotate(g.Result, "", fmt.Sprintf("%s (%s)", g.Requirement, g.Level), strings.Join(message, "\n"))
	}
	for _, k := range r.Summary.Outdated {
		annotate(k.Result, fmt.Sprintf("file=%s,line=%d,", githubProperty.Replace(podlog.Printable(k.File)), k.Line), "known findings", k.String())
	}
	return b.String()
}

// How the values of a workflow command are escaped, and its message.
var (
	githubData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)
