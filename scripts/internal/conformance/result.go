package conformance

import (
	"fmt"
	"slices"
	"strings"
)

// Levels of a requirement, and results of a check.
const (
	Must   = "must"
	Should = "should"
	May    = "may"

	Pass   = "pass"
	Missed = "missed" // a may was not met
	Warn   = "warn"   // a should was not met
	Fail   = "fail"   // a must was not met; with -strict a should
	Error  = "error"  // it could not be judged, by the kit's own trouble or the machine's
	Skip   = "skip"   // it was not checked
)

// NotMet returns the result of a requirement of a level that was not met.
func (f *Flags) NotMet(level string) string {
	if f.Strict && level == Should {
		return Fail
	}
	return map[string]string{Must: Fail, Should: Warn, May: Missed}[level]
}

// A Check is one requirement in one case, and its result.
type Check struct {
	Case        string  `json:"case"`
	Requirement string  `json:"requirement"`
	Level       string  `json:"level"`
	Result      string  `json:"result"`
	Why         string  `json:"why"`           // what was found, and what the contract asks for; "" for a plain pass
	Fix         string  `json:"fix,omitempty"` // what to do about it
	Log         string  `json:"log,omitempty"` // what led there
	Seconds     float64 `json:"seconds"`
	Evidence    string  `json:"evidence,omitempty"` // the directory where it was kept

	// Section is the section of the contract that has the requirement; "" = none.
	Section string `json:"-"`
	// Key is equal for findings that are the same one; "" = this one is like no other.
	Key string `json:"-"`
}

// IsFinding reports whether the requirement was not met.
func (c Check) IsFinding() bool { return c.Result == Fail || c.Result == Warn || c.Result == Missed }

// worst returns the result of a case: that of its worst check.
func worst(checks []Check) string {
	for _, result := range []string{Fail, Error, Warn, Missed, Pass} {
		if slices.ContainsFunc(checks, func(c Check) bool { return c.Result == result }) {
			return result
		}
	}
	return Skip
}

// Summary is the last line of a report, and the object that ends its JSON.
type Summary struct {
	Cases    int            `json:"cases"`
	Passed   int            `json:"passed"`
	Warned   int            `json:"warned"`
	Failed   int            `json:"failed"`
	Missed   int            `json:"missed"`
	Errors   int            `json:"errors"`
	Skipped  int            `json:"skipped"`
	Findings map[string]int `json:"findings"` // how many by requirement, warnings included, but no may
	OK       bool           `json:"ok"`       // nothing failed, and all could be judged
	Seconds  float64        `json:"seconds"`
}

// String returns the summary as a person reads it.
func (s Summary) String() string {
	text := fmt.Sprintf("%d passed, %d failed, %d warned, %d skipped", s.Passed, s.Failed, s.Warned, s.Skipped)
	if s.Missed > 0 {
		text += fmt.Sprintf(", %d missed that a pod may leave out", s.Missed)
	}
	if s.Errors > 0 {
		text += fmt.Sprintf(", %d not judged", s.Errors)
	}
	text += fmt.Sprintf(" in %.1fs", s.Seconds)
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
