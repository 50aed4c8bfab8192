package conformance

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// parsed returns the flags of a command line of podclient.
func parsed(t *testing.T, args ...string) (f Flags, err error) {
	t.Helper()
	return f, f.Parse(flag.NewFlagSet("podclient", flag.ContinueOnError), "", args, io.Discard, io.Discard)
}

func file(t *testing.T, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestKnownFindingsAreNoFailures(t *testing.T) {
	t.Parallel()
	known := file(t, "known.txt", "# ours\n\nclean: #12: a helper lives on\r\n  verdict/deaf : it polls\n")
	f, err := parsed(t, "-known", known)
	require.NoError(t, err)
	long := check("stopped", "clean", Fail, "it left 12\nand more")
	long.Fix, long.Log = "do", "> look"
	r, out := reported(t, f, check("deaf", "verdict", Fail, "late"), check("ready", "verdict", Fail, "late"), check("hang", "clean", Pass, ""), long, check("x", "clean", Error, "no room"))
	assert.Equal(t, `KNOWN deaf                          1.000s
      verdict (must): late
        known: it polls
FAIL  ready                         1.000s
      verdict (must): late
PASS  hang                          1.000s
KNOWN stopped                       1.000s
      clean (must): it left 12
        known: #12: a helper lives on
ERROR x                             1.000s
      clean (must): no room
`, out)
	s := r.results.summarize(0)
	assert.Equal(t, "1 passed, 1 failed, 0 warned, 0 skipped, 1 not judged, 2 known in 0.0s; findings: verdict 1", s.String())
	var xml bytes.Buffer
	require.NoError(t, summarized(r, 0).writeJUnit(&xml))
	assert.Contains(t, xml.String(), `<skipped message="known: it polls: late">`)
	assert.Contains(t, xml.String(), `failures="1"`)
}

func TestKnownFindingThatNoLongerShows(t *testing.T) {
	t.Parallel()
	passes, fails := check("deaf", "verdict", Pass, ""), check("hang", "verdict", Fail, "late")
	skipped, same := check("deaf", "clean", Skip, "why"), check("restart", "restart", Pass, "")
	const met, unnamed = "known:1: NAME no longer shows: remove the line\n", "known:1: nothing that was checked is called NAME: mend or remove the line\n"
	for _, tc := range []struct {
		name, part, all string // what is said in a run of a part of the cases, and of all
	}{
		{"verdict/deaf", met, met},
		{"verdict/hang", "", ""},
		{"verdict", "", ""},
		{"restart", met, met},
		{"clean/deaf", "", ""},
		{"clean", "", ""},
		{"clean/hang", "", ""}, // which is checked in a case only where another is met
		{"clean/nowhere", "", unnamed},
		{"clan", "", unnamed},
	} {
		for _, part := range []bool{false, true} {
			want := map[bool]string{true: tc.part, false: tc.all}[part]
			path := file(t, "known", tc.name+": reason\n")
			for strict, level := range map[bool]string{false: Warn, true: Fail} {
				f, err := parsed(t, "-known", path)
				require.NoError(t, err)
				f.Strict, f.Part = strict, part
				r, _ := reported(t, f, passes, fails, skipped, same)
				if tc.name != "verdict/hang" && tc.name != "verdict" {
					r, _ = reported(t, f, passes, skipped, same, check("hang", "verdict", Pass, ""))
				}
				status, err := r.Finish(nil)
				require.NoError(t, err)
				said := regexp.MustCompile(`(?s).* in \d+\.\ds\n`).ReplaceAllString(r.Out.(*bytes.Buffer).String(), "")
				want := strings.ReplaceAll(want, "NAME", tc.name)
				assert.Equal(t, want, strings.ReplaceAll(said, path, "known"), "%+v %v", tc, part)
				assert.Equal(t, want != "" && strict, status == 1, "%+v %v", tc, part)
				assert.Equal(t, status == 0, r.results.Summary.OK)
				var xml bytes.Buffer
				require.NoError(t, r.results.writeJUnit(&xml))
				assert.Equal(t, want != "", strings.Contains(xml.String(), `name="known/`+tc.name+`"`))
				assert.Equal(t, status, strings.Count(xml.String(), "<failure"))
				if want != "" {
					assert.Equal(t, level, r.results.Summary.Outdated[0].Result)
				}
			}
		}
	}
}

func TestBadFileOfKnownFindings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"# ok\nclean\n":    `:2: "clean": want REQUIREMENT: REASON, or REQUIREMENT/CASE: REASON`,
		"clean: x\n: why":  `:2: ": why": want REQUIREMENT`,
		"/deaf: why\n":     `:1: "/deaf: why": want REQUIREMENT`,
		"clean/deaf: \t\n": `:1: "clean/deaf:" gives no reason`,
	} {
		path := file(t, "known.txt", text)
		_, err := parsed(t, "-known", path)
		assert.ErrorAs(t, err, new(UsageError))
		assert.ErrorContains(t, err, path+want)
	}
	_, err := parsed(t, "-known", "/nowhere/known")
	assert.ErrorContains(t, err, "open /nowhere/known: no such file")
}
