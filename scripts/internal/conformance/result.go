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

	Pass = "pass"
	Warn = "warn" // a should was not met
	Fail = "fail"
	Skip = "skip" // it was not checked, or a may was not met
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

// IsFinding reports whether a must or a should was not met.
func (c Check) IsFinding() bool { return c.Result == Fail || c.Result == Warn }

// worst returns the result of a case: that of its worst check.
func worst(checks []Check) string {
	for _, result := range []string{Fail, Warn, Pass} {
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
	Skipped  int            `json:"skipped"`
	Findings map[string]int `json:"findings"` // how many by requirement, warnings included
	OK       bool           `json:"ok"`       // nothing failed, with -strict nothing warned
	Seconds  float64        `json:"seconds"`
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
