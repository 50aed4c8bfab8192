package scripts

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestHeaderOfAScenario(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Requirement{
		"# must: stop\n\n# A phase: of it.\npodstart alpha":          {Level: "must", Text: "stop"},
		"# should: stop: now\n# fix:   do it  \n":                    {Level: "should", Text: "stop: now", Fix: "do it"},
		"# may: a\n# section: 1, 2\n# needs: starts\n# fix: b\nverb": {Level: "may", Text: "a", Section: "1, 2", Needs: "starts", Fix: "b"},
		"":                                       {Level: "must"},
		"podstart alpha\n# must: come too late":  {Level: "must"},
		"# What it is: a scenario.\n# And more.": {Level: "must"},
	} {
		got, err := parseHeader("dir/a.b.txtar", text)
		want.ID = "a.b"
		assert.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for text, want := range map[string]string{
		"# must: a\n# A phase.":               `a.txtar:2: header of the scenario: "# A phase." is no part of it: a blank line ends it`,
		"# fix: a":                            "a.txtar:1: header of the scenario: its first line, and the file's, must be must:, should: or may:",
		"# About it.\n# must: a":              "a.txtar:2: header of the scenario: its first line, and the file's, must be",
		"# must: a\n# fix: b\n# section: c":   "a.txtar:3: header of the scenario: section: stands in the wrong place",
		"# must: a\n# should: b":              "a.txtar:2: header of the scenario: should: stands in the wrong place",
		"# must: a\n# needs: b\n# needs: c":   "a.txtar:3: header of the scenario: needs: stands in the wrong place",
		"# must:":                             "a.txtar:1: header of the scenario: must: says nothing",
		"# must: a\n# section: 1\n# fix: \nx": "a.txtar:3: header of the scenario: fix: says nothing",
	} {
		_, err := parseHeader("a.txtar", text)
		assert.ErrorContains(t, err, want, text)
	}
	_, err := ReadRequirement("/nowhere/a.txtar")
	assert.ErrorContains(t, err, "/nowhere/a.txtar")
}

func TestRequirementAsASentence(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "a pod should stop (1, 2)", Requirement{Level: "should", Text: "stop", Section: "1, 2"}.String())
	assert.Equal(t, "a pod must stop", Requirement{Level: "must", Text: "stop"}.String())
	assert.Empty(t, Requirement{Level: "must", Section: "1"}.String())
}
