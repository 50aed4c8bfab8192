package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"example.com/podharness/spawn/podlog"
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
	Known  = "known"  // a requirement was not met, and -known accepts that
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
	Section     string  `json:"section,omitempty"` // of the contract that has the requirement; "" = none
	Result      string  `json:"result"`
	Why         string  `json:"why"`             // what was found, and what the contract asks for; "" for a plain pass
	Fix         string  `json:"fix,omitempty"`   // what to do about it
	Known       string  `json:"known,omitempty"` // why the finding is accepted
	Log         string  `json:"log,omitempty"`   // what led there
	Seconds     float64 `json:"seconds"`
	Evidence    string  `json:"evidence,omitempty"` // the directory where it was kept
	Runs        int     `json:"runs,omitempty"`     // how often the case was run, if more than once
	Passed      int     `json:"passed,omitempty"`   // in how many of these it passed; absent = 0
	Key         string  `json:"key,omitempty"`      // equal for findings that are the same one; "" = this one is like no other
}

// IsFinding reports whether the requirement was not met.
func (c Check) IsFinding() bool {
	return slices.Contains([]string{Fail, Warn, Known, Missed}, c.Result)
}

// worstFirst are the results of what was checked.
var worstFirst = []string{Fail, Error, Warn, Known, Missed, Pass}

// worst returns the result of a case: that of its worst check.
func worst(checks []Check) string {
	for _, result := range worstFirst {
		if slices.ContainsFunc(checks, func(c Check) bool { return c.Result == result }) {
			return result
		}
	}
	return Skip
}

// Results are what a run has found. Every report is made of them.
type Results struct {
	File    string // that it was read from; "" = none
	Tested  Tested
	Checks  []Check
	Summary Summary
}

// Tested is what was tested, by what and where: the first line of the JSON.
type Tested struct {
	Name    string    `json:"name"`            // what reports call it
	Command string    `json:"command"`         // podscript or podclient
	Argv    []string  `json:"argv,omitempty"`  // of the pod or the client; none = the built-in fake pod
	Flags   []string  `json:"flags,omitempty"` // of the command, and its scenarios; not what only says what is written where, nor the values of -env
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	System  string    `json:"system"` // such as linux/amd64
	Kernel  string    `json:"kernel"`
	Time    time.Time `json:"time"` // the begin
}

// Words returns all but the name as a person reads it.
func (t Tested) Words() []string {
	said := []string{fmt.Sprintf("%s %s commit %s", t.Command, t.Version, t.Commit), strings.TrimSpace(t.System + " " + t.Kernel), t.Time.UTC().Format(time.DateTime + " UTC")}
	for _, more := range [][2]string{{"tested: ", shellWords(t.Argv)}, {"flags: ", shellWords(t.Flags)}} {
		if more[1] != "" {
			said = append(said, more[0]+more[1])
		}
	}
	return said
}

// shellWords returns arguments as a shell takes them.
func shellWords(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = podlog.ShellWord(arg)
	}
	return strings.Join(quoted, " ")
}

// writeJSON writes a line that tells what was tested, one for each check, and one for the
// summary.
func (r *Results) writeJSON(w io.Writer) error {
	lines := json.NewEncoder(w)
	if err := lines.Encode(map[string]Tested{"tested": r.Tested}); err != nil {
		return err
	}
	for _, c := range r.Checks {
		if err := lines.Encode(c); err != nil {
			return err
		}
	}
	return lines.Encode(r.Summary)
}

// readRun reads the JSON of a run of a command.
func readRun(path, command string) (*Results, error) {
	r, err := ReadResults(path)
	if err == nil && r.Tested.Command != command {
		err = fmt.Errorf("%s: it is a run of %q, and not of %s", path, r.Tested.Command, command)
	}
	return r, err
}

// ReadResults reads the JSON of a run. The error names the file, and the line that is
// wrong.
func ReadResults(path string) (*Results, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Results{File: path}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	for i, line := range lines {
		var first struct{ Tested *Tested }
		var c Check
		switch last := i == len(lines)-1; {
		case i == 0:
			if err = json.Unmarshal(line, &first); err == nil && first.Tested == nil {
				err = fmt.Errorf("it does not tell what was tested, as the first line that -json writes does")
			} else if err == nil {
				r.Tested = *first.Tested
			}
		case last:
			if err = json.Unmarshal(line, &r.Summary); err == nil && r.Summary.Findings == nil {
				err = fmt.Errorf("it is no summary, as the last line that -json writes is: the file was cut short")
			}
		default:
			if err = json.Unmarshal(line, &c); err == nil && c.Result != Skip && !slices.Contains(worstFirst, c.Result) {
				err = fmt.Errorf("the result of a check cannot be %q", c.Result)
			}
			r.Checks = append(r.Checks, c)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
	}
	if len(lines) < 2 {
		return nil, fmt.Errorf("%s:1: no summary follows: the file was cut short", path)
	}
	return r, nil
}

// Summary is the last line of a report, and the object that ends its JSON.
type Summary struct {
	Cases    int            `json:"cases"`
	Passed   int            `json:"passed"`
	Warned   int            `json:"warned"`
	Failed   int            `json:"failed"`
	Missed   int            `json:"missed"`
	Errors   int            `json:"errors"`
	Known    int            `json:"known"`
	Skipped  int            `json:"skipped"`
	Findings map[string]int `json:"findings"` // how many by requirement, warnings included, but no may, and none that is known
	OK       bool           `json:"ok"`       // nothing failed, and all could be judged
	Seconds  float64        `json:"seconds"`
	Outdated []KnownLine    `json:"outdated,omitempty"` // accepted findings that no longer show
	Since    *Changes       `json:"since,omitempty"`    // what -since asks for
}

// summarize counts the cases by their worst check.
func (r *Results) summarize(took time.Duration) Summary {
	s := Summary{Findings: map[string]int{}, Seconds: took.Seconds()}
	_, byCase := r.byCase()
	for _, c := range r.Checks {
		if c.Result == Fail || c.Result == Warn {
			s.Findings[c.Requirement]++
		}
	}
	s.Cases = len(byCase)
	for _, checks := range byCase {
		*map[string]*int{Pass: &s.Passed, Missed: &s.Missed, Warn: &s.Warned, Fail: &s.Failed, Known: &s.Known, Error: &s.Errors, Skip: &s.Skipped}[worst(checks)]++
	}
	s.OK = s.Failed+s.Errors == 0
	return s
}

// Notes returns what follows the summary, a line each.
func (s Summary) Notes() (notes []string) {
	for _, k := range s.Outdated {
		notes = append(notes, k.String())
	}
	if s.Since != nil {
		notes = append(notes, strings.Split(s.Since.String(), "\n")...)
	}
	return notes
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
	if s.Known > 0 {
		text += fmt.Sprintf(", %d known", s.Known)
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
