package conformance

import (
	"cmp"
	"fmt"
	"os"
	"strings"
)

// A KnownLine is a finding that is accepted: one line of a file of -known.
type KnownLine struct {
	File        string `json:"file"`
	Line        int    `json:"line"`
	Requirement string `json:"requirement"`
	Case        string `json:"case,omitempty"` // "" = any
	Reason      string `json:"reason"`
	Result      string `json:"result,omitempty"` // of one that no longer shows: warn, or fail with -strict
	Met         bool   `json:"met"`              // it was checked, and met; of one that no longer shows, false = nothing that was checked is called so
}

// readKnown reads a file with a line for each finding that is accepted, as -help has it.
// The error names the file and the line.
func readKnown(path string) (all []KnownLine, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		name, reason, ok := strings.Cut(line, ":")
		k := KnownLine{File: path, Line: i + 1, Reason: strings.TrimSpace(reason)}
		k.Requirement, k.Case, _ = strings.Cut(strings.TrimSpace(name), "/")
		if k.Case == "*" {
			k.Case = ""
		}
		switch {
		case !ok || k.Requirement == "":
			return nil, fmt.Errorf("%s:%d: %q: want REQUIREMENT: REASON, or REQUIREMENT/CASE: REASON", path, i+1, line)
		case k.Reason == "":
			return nil, fmt.Errorf("%s:%d: %q gives no reason: want REQUIREMENT: REASON, or REQUIREMENT/CASE: REASON", path, i+1, line)
		}
		all = append(all, k)
	}
	return all, nil
}

func (k KnownLine) accepts(c Check) bool {
	return k.Requirement == c.Requirement && (k.Case == "" || k.Case == c.Case)
}

// name returns what stands before the colon.
func (k KnownLine) name() string { return strings.TrimSuffix(k.Requirement+"/"+k.Case, "/") }

// String says what to do about a finding that no longer shows.
func (k KnownLine) String() string {
	if k.Met {
		return fmt.Sprintf("%s:%d: %s no longer shows: remove the line", k.File, k.Line, k.name())
	}
	return fmt.Sprintf("%s:%d: nothing that was checked is called %s: mend or remove the line", k.File, k.Line, k.name())
}

// Accepted returns the reason for which a finding is accepted; "" = it is not.
func (f *Flags) Accepted(c Check) string {
	for _, k := range f.known {
		if c.IsFinding() && k.accepts(c) {
			return k.Reason
		}
	}
	return ""
}

// outdated returns the accepted findings that no longer show. One that could not be
// judged is none of them, nor is one that a run of a part of the cases may have left out.
func (f *Flags) outdated(checks []Check, all bool) (outdated []KnownLine) {
	if f.Sampled {
		return nil
	}
	for _, k := range f.known {
		requirement, inCase, unmet := false, false, false
		for _, c := range checks {
			requirement = requirement || c.Requirement == k.Requirement
			inCase = inCase || c.Case == k.Case
			k.Met = k.Met || k.accepts(c) && (all || c.Case == cmp.Or(k.Case, c.Requirement))
			unmet = unmet || k.accepts(c) && c.Result != Pass
		}
		if !unmet && (k.Met || all && !(requirement && (inCase || k.Case == ""))) {
			k.Result = f.NotMet(Should)
			outdated = append(outdated, k)
		}
	}
	return outdated
}
