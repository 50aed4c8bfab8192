package conformance

import (
	"fmt"
	"strings"
)

// Changes are what is otherwise than in an earlier run. What only one of them has checked
// is told if it is a finding now.
type Changes struct {
	File   string   `json:"file"`   // that has the earlier run
	New    []Change `json:"new"`    // findings that it had not
	Mended []Change `json:"mended"` // findings that it had, and that are met now
	Slower []Change `json:"slower"` // cases with the same result that take longer
}

// Change is what has changed of a check, or how long a case takes.
type Change struct {
	Case        string  `json:"case"`
	Requirement string  `json:"requirement,omitempty"`
	Seconds     float64 `json:"seconds"` // now
	Before      float64 `json:"before"`  // the seconds then; 0 = it was not checked
}

// A case is slower if it takes more than slowerTimes as long, and slowerBy longer, in
// seconds. What is below that is noise.
const (
	slowerTimes = 2
	slowerBy    = 0.1
)

// since returns what has changed since an earlier run.
func (r *Results) since(before *Results) *Changes {
	changes := &Changes{File: before.File, New: []Change{}, Mended: []Change{}, Slower: []Change{}}
	then := map[[2]string]Check{}
	for _, c := range before.Checks {
		then[[2]string{c.Case, c.Requirement}] = c
	}
	for _, c := range r.Checks {
		old := then[[2]string{c.Case, c.Requirement}]
		switch change := (Change{c.Case, c.Requirement, c.Seconds, old.Seconds}); {
		case c.IsFinding() && !old.IsFinding():
			changes.New = append(changes.New, change)
		case c.Result == Pass && old.IsFinding():
			changes.Mended = append(changes.Mended, change)
		}
	}
	names, nowBy := r.byCase()
	_, thenBy := before.byCase()
	for _, name := range names {
		change := Change{Case: name, Seconds: longest(nowBy[name]), Before: longest(thenBy[name])}
		slower := change.Seconds > slowerTimes*change.Before && change.Seconds > change.Before+slowerBy
		if result := worst(nowBy[name]); slower && result == worst(thenBy[name]) && result != Skip && result != Error {
			changes.Slower = append(changes.Slower, change)
		}
	}
	return changes
}

// byCase returns the checks of each case, and the cases in their order.
func (r *Results) byCase() (names []string, checks map[string][]Check) {
	checks = map[string][]Check{}
	for _, c := range r.Checks {
		if checks[c.Case] == nil {
			names = append(names, c.Case)
		}
		checks[c.Case] = append(checks[c.Case], c)
	}
	return names, checks
}

func longest(checks []Check) (seconds float64) {
	for _, c := range checks {
		seconds = max(seconds, c.Seconds)
	}
	return seconds
}

// String returns the changes as a person reads them, a line for each kind.
func (c *Changes) String() string {
	var said []string
	for _, kind := range []struct {
		name    string
		changes []Change
	}{{"new", c.New}, {"mended", c.Mended}, {"slower", c.Slower}} {
		var names []string
		for _, change := range kind.changes {
			switch {
			case change.Requirement == "":
				names = append(names, fmt.Sprintf("%s (%.3fs, was %.3fs)", change.Case, change.Seconds, change.Before))
			case change.Requirement == change.Case:
				names = append(names, change.Case)
			default:
				names = append(names, change.Requirement+"/"+change.Case)
			}
		}
		if len(names) > 0 {
			said = append(said, fmt.Sprintf("since %s: %d %s: %s", c.File, len(names), kind.name, strings.Join(names, ", ")))
		}
	}
	if len(said) == 0 {
		return fmt.Sprintf("since %s: nothing new, mended or slower", c.File)
	}
	return strings.Join(said, "\n")
}
