package conformance

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// onGitHub reports checks as in GitHub Actions, and returns what was printed, and the
// summary.
func onGitHub(t *testing.T, f Flags, checks ...Check) (printed, markdown string) {
	t.Helper()
	f.summary = file(t, "summary.md", "before\n")
	var out bytes.Buffer
	r := reportTo(t, &out, f)
	r.github = true
	for _, c := range checks {
		endCase(r, c.Case, []Check{c}, time.Second)
	}
	_, err := r.Finish(nil)
	require.NoError(t, err)
	text, err := os.ReadFile(f.summary)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(text), "before\n"), "it is appended to")
	return out.String(), string(text[len("before\n"):])
}

func TestAnnotationsOnGitHub(t *testing.T) {
	t.Parallel()
	known := file(t, "known,1.txt", "reason: #7\ngone: x\n")
	f, err := parsed(t, "-known", known, "-name", "a:b")
	require.NoError(t, err)
	finding := keyed("left", "two", "clean", "100% left\na pod must not")
	finding.Fix = "end it"
	other := keyed("left", "three", "clean", "100% left\na pod must not")
	printed, _ := onGitHub(t, f, check("one", "reason", Warn, "w"), finding, other, check("four", "terminal", Warn, "it said \x1b"), check("five", "verdict", Error, "no room"), check("six", "litter", Missed, "m"), check("seven", "verdict", Pass, ""))
	_, printed, _ = strings.Cut(printed, "keeps it, by case\n")
	assert.Equal(t, `::error title=a%3Ab%3A clean (must)::100%25 left%0Aa pod must not%0Ain: two, three%0Afix: end it
::error title=a%3Ab%3A verdict (must)::no room%0Ain: five
::warning title=a%3Ab%3A terminal (should)::it said \x1b%0Ain: four
::notice title=a%3Ab%3A reason (should)::w%0Ain: one%0Aknown: #7
::warning file=`+strings.ReplaceAll(known, ",", "%2C")+`,line=2,title=a%3Ab%3A known findings::`+known+`:2: nothing that was checked is called gone: mend or remove the line
`, printed)
}

// TestWordsOfAPodAreNoCommandsToGitHub: its runner takes a line that begins so, after
// blanks, for a command, and ##[ wherever it stands.
func TestWordsOfAPodAreNoCommandsToGitHub(t *testing.T) {
	t.Parallel()
	finding := check("one", "one", Fail, "why")
	finding.Log = "::stop-commands::x\n\t ::error::y\nsaid :: and ##[add-mask]z"
	printed, _ := onGitHub(t, Flags{}, finding)
	for _, want := range []string{"        :\\x3astop-commands::x\n", "        \t :\\x3aerror::y\n", "said :: and ##\\x5badd-mask]z\n"} {
		assert.Contains(t, printed, want)
	}
	assert.NotContains(t, printed, "##[")
}

func TestSummaryInMarkdown(t *testing.T) {
	t.Parallel()
	f, err := parsed(t, "-known", file(t, "known", "clean: later | maybe\n"), "-since", jsonOf(t, "podclient"))
	require.NoError(t, err)
	f.Tested.Argv = []string{"./agent"}
	bad := keyed("k", "two", "verdict", "it said \"<b>|`*_[x](http://y)\"\n$HOME @me #12 \x1b"+strings.Repeat("é", mostLine))
	bad.Fix, bad.Section = "say | less", "2"
	same := keyed("k", "three", "verdict", "the same")
	skipped, flaky := check("four", "four", Skip, "no room"), check("five", "five", Pass, "")
	flaky.Runs, flaky.Passed = 3, 3
	_, text := onGitHub(t, f, check("one", "clean", Fail, "left"), check("zero", "reason", Warn, "w"), bad, same, skipped, flaky, check("six", "verdict", Pass, ""))
	want := `### podscript: agent

2 passed, 2 failed, 1 warned, 1 skipped, 1 known in 0.0s; findings: reason 1, verdict 2

- since ` + markdown(f.since.File) + `: 4 new: clean/one, reason/zero, verdict/two, verdict/three

| | requirement | what was found | what to do |
| --- | --- | --- | --- |
| **FAIL** | **verdict** must (2) | it said "&lt;b&gt;&#124;&#96;&#42;&#95;&#91;x&#93;(http&#58;//y)"<br><span>$</span>HOME @<!-- -->me #<!-- -->12 \x1b` + strings.Repeat("é", mostLine-18) + `…<br>in two, three | say &#124; less |
| **WARN** | **reason** should | w<br>in zero |  |
| **KNOWN** | **clean** must | left<br>in one | known: later &#124; maybe |

<details><summary>All requirements</summary>

| | requirement | |
| --- | --- | --- |
| KNOWN | clean must | 0.500s |
| WARN | reason should | 0.500s |
| FAIL | verdict must (2) | 1 of 3 cases passed |
| SKIP | four must | no room |
| PASS | five must | 3 of 3 runs passed, 0.500s |

podscript `
	want = strings.ReplaceAll(want, `\x1b`, "&#92;x1b")
	text = regexp.MustCompile(` in \d+\.\ds`).ReplaceAllString(text, " in 0.0s")
	assert.Equal(t, want, text[:min(len(want), len(text))])
	assert.Contains(t, text, "; tested: ./agent")
	assert.True(t, strings.HasSuffix(text, "\n\n</details>\n\n"), text)
}

// TestSummaryIsNeverTooLong: GitHub takes no more than 1 MiB.
func TestSummaryIsNeverTooLong(t *testing.T) {
	t.Parallel()
	var many []Check
	for i := range 2000 {
		name := strings.Repeat("x", i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/26)
		many = append(many, check(name, name, Fail, strings.Repeat(strings.Repeat("$", mostLine+1)+"\n", 9)))
	}
	_, text := onGitHub(t, Flags{}, many...)
	assert.Less(t, len(text), 1<<20)
	assert.Regexp(t, `\| \| \| and \d+ more \| \|\n`, text)
}

func TestSummaryThatCannotBeWrittenIsToldFirst(t *testing.T) {
	t.Parallel()
	f := Flags{summary: filepath.Join(t.TempDir(), "nowhere", "summary.md")}
	_, err := f.Report("podscript", 0, &bytes.Buffer{}, &bytes.Buffer{})
	assert.ErrorAs(t, err, new(UsageError))
	assert.ErrorContains(t, err, f.summary)
}
