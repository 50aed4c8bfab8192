package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A group is the checks of one requirement that have found the same, in one case or more.
type group struct {
	Check // the first
	Cases []string
}

// groups returns what was not met or not judged, the worst first.
func (r *Results) groups() (groups []*group) {
	for _, result := range worstFirst {
		byKey := map[string]*group{}
		for _, c := range r.Checks {
			same := cmp.Or(c.Key, c.Case)
			if c.Result == Error {
				same = c.Why
			}
			key := fmt.Sprintf("%q", []string{c.Requirement, same, c.Known})
			switch g := byKey[key]; {
			case c.Result != result || result == Pass:
			case g == nil:
				g = &group{c, []string{c.Case}}
				groups, byKey[key] = append(groups, g), g
			default:
				g.Cases = append(g.Cases, c.Case)
			}
		}
	}
	return groups
}

// Where returns the cases, but for more than most; "" = there is one, which is called as
// the requirement is.
func (g *group) Where(most int) string {
	if slices.Equal(g.Cases, []string{g.Requirement}) {
		return ""
	}
	more := ""
	if n := len(g.Cases) - most; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(g.Cases[:min(most, len(g.Cases))], ", ") + more
}

// A row is what some runs have found of one requirement.
type row struct {
	Check // of the first that has it
	Cells []cell
}

// A cell is all checks of a requirement in one run.
type cell []Check

// rows returns a row for each requirement, in the order of the runs.
func rows(runs []*Results) (all []*row) {
	byName := map[string]*row{}
	for i, run := range runs {
		for _, c := range run.Checks {
			if byName[c.Requirement] == nil {
				byName[c.Requirement] = &row{c, make([]cell, len(runs))}
				all = append(all, byName[c.Requirement])
			}
			to := &byName[c.Requirement].Cells[i]
			*to = append(*to, c)
		}
	}
	return all
}

// Result returns the worst result; "" = the run has none.
func (c cell) Result() string {
	if len(c) == 0 {
		return ""
	}
	return worst(c)
}

// Detail returns how many cases passed, or how many runs of the only case, and how long
// it took, or why it was skipped.
func (c cell) Detail() string {
	passed := 0
	for _, check := range c {
		if check.Result == Pass {
			passed++
		}
	}
	switch {
	case len(c) != 1:
		return fmt.Sprintf("%d of %d cases passed", passed, len(c))
	case c[0].Result == Skip:
		return c[0].Why
	case c[0].Runs > 0:
		return fmt.Sprintf("%d of %d runs passed, %.3fs", c[0].Passed, c[0].Runs, c[0].Seconds)
	}
	return fmt.Sprintf("%.3fs", c[0].Seconds)
}

// Rank returns the level of a requirement and, in parentheses, its section.
func (c Check) Rank() string {
	if c.Section == "" {
		return c.Level
	}
	return fmt.Sprintf("%s (%s)", c.Level, c.Section)
}

// shown returns a result as reports show it.
func shown(result string) string { return strings.ToUpper(strings.TrimSuffix(result, "ed")) }
