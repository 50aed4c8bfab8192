package scripts

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// A Requirement is what one scenario checks, as its header says.
type Requirement struct {
	ID      string // the name of the scenario's file without .txtar
	Level   string // "must", "should" or "may"
	Text    string // what a pod must, should or may do, such as "stop on SIGINT"; "" = the header does not say
	Section string // of the contract, spawn/HANDSHAKE.md; "" = none
	Needs   string // the ID of the requirement that must be met first; "" = none
	Fix     string // what to do about a pod that does not meet it; "" = it is not known
}

// String returns the requirement as a sentence, or "" if there is none.
func (r Requirement) String() string {
	if r.Text == "" {
		return ""
	}
	s := "a pod " + r.Level + " " + r.Text
	if r.Section != "" {
		s += " (" + r.Section + ")"
	}
	return s
}

//go:embed scenarios/*.txtar
var scenarios embed.FS

// Scenarios returns the portable scenarios: what must hold for any pod.
func Scenarios() fs.FS {
	sub, err := fs.Sub(scenarios, "scenarios")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return sub
}

// order is that of the portable scenarios.
var order = []string{
	"starts", "arguments", "flags", "ready-line", "ready-write", "runtime-dir", "announces-last",
	"names", "name-dash", "name-long", "workspaces", "surroundings",
	"snapshot", "socket", "concurrent", "connections", "merged-lines", "split-lines", "unfinished-line",
	"bad-lines", "bad-lines-answered", "slow-reader", "long-line",
	"files", "private", "log-in-place", "descriptors", "listener",
	"stop-signal", "stop-at-once", "stop-connected", "stop-busy", "stop-request", "stop-lines", "stop-spelling",
	"clean-stop", "tidies-in-time", "no-children", "restart", "restart-after-stop", "session", "session-unknown",
	"beside", "independent", "terminate", "idle", "growth", "litter",
}

// Requirements returns the requirements of the portable scenarios. The scenario of a
// requirement is the file ID.txtar. All requirements need the first one, starts.
func Requirements() []Requirement {
	all := make([]Requirement, len(order))
	for i, id := range order {
		text, err := fs.ReadFile(Scenarios(), id+".txtar")
		if err == nil {
			all[i], err = parseHeader(id+".txtar", string(text))
		}
		if err != nil {
			panic(err) // the tests read them all
		}
	}
	return all
}

// ReadRequirement reads the header of a scenario: the comments at its beginning, such as
//
//	# must: stop on SIGINT with status 0
//	# section: 5
//	# needs: starts
//	# fix: handle SIGINT before the ready line is written
//
// The first comment has the level, must, should or may. The others are optional, and
// their order is fixed. A scenario without a header is a must without a text. An error
// names file and line.
func ReadRequirement(file string) (Requirement, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return Requirement{}, err
	}
	return parseHeader(file, string(text))
}

func parseHeader(file, text string) (Requirement, error) {
	r := Requirement{ID: strings.TrimSuffix(path.Base(file), ".txtar"), Level: "must"}
	fields := []*string{1: &r.Text, &r.Section, &r.Needs, &r.Fix}
	places := map[string]int{"must": 1, "should": 1, "may": 1, "section": 2, "needs": 3, "fix": 4}
	last := 0 // the place of the line above; 0 = there is no header so far
	for n, line := range strings.Split(text, "\n") {
		comment, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		key, value, _ := strings.Cut(comment, ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		place := places[key]
		wrong := ""
		switch {
		case place == 0 && last == 0:
			continue // an ordinary comment
		case place == 0:
			wrong = fmt.Sprintf("%q is no part of it: a blank line ends it", line)
		case last == 0 && (place > 1 || n > 0):
			wrong = "its first line, and the file's, must be must:, should: or may:"
		case place <= last:
			wrong = fmt.Sprintf("%s: stands in the wrong place: must, should or may, then section, needs and fix, each once", key)
		case value == "":
			wrong = fmt.Sprintf("%s: says nothing", key)
		}
		if wrong != "" {
			return r, fmt.Errorf("%s:%d: header of the scenario: %s", file, n+1, wrong)
		}
		if place == 1 {
			r.Level = key
		}
		*fields[place], last = value, place
	}
	return r, nil
}
