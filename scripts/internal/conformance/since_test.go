package conformance

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// jsonOf writes the JSON of a run with these checks.
func jsonOf(t *testing.T, command string, checks ...Check) (path string) {
	t.Helper()
	r := &Results{Tested: Tested{Name: "agent"}.here(command), Checks: checks}
	r.Summary = r.summarize(0)
	var out bytes.Buffer
	require.NoError(t, r.writeJSON(&out))
	return file(t, "run.json", out.String())
}

func took(c Check, seconds float64) Check {
	c.Seconds = seconds
	return c
}

func TestSinceTellsWhatIsNewMendedOrSlower(t *testing.T) {
	t.Parallel()
	before := jsonOf(t, "podclient",
		check("broke", "verdict", Pass, ""), check("same", "verdict", Fail, "why"), check("weak", "clean", Warn, "why"), check("right", "right", Fail, "why"),
		check("skipped", "clean", Skip, "why"), check("unjudged", "clean", Fail, "why"), took(check("slow", "clean", Pass, ""), 0.2), took(check("noise", "clean", Pass, ""), 0.01),
		took(check("twice", "clean", Pass, ""), 1), check("gone", "clean", Fail, "why"))
	f, err := parsed(t, "-since", before)
	require.NoError(t, err)
	now := []Check{
		check("broke", "verdict", Fail, "why"), check("same", "verdict", Fail, "why"), check("weak", "clean", Pass, ""), check("right", "right", Pass, ""),
		check("skipped", "clean", Missed, "why"), check("unjudged", "clean", Error, "why"), took(check("slow", "clean", Pass, ""), 0.41), took(check("noise", "clean", Pass, ""), 0.1),
		took(check("twice", "clean", Pass, ""), 1.9), check("added", "added", Warn, "why"), took(check("added2", "clean", Pass, ""), 5),
	}
	r, _ := reported(t, f, now...)
	_, err = r.Finish(nil)
	require.NoError(t, err)
	assert.Contains(t, r.Out.(*bytes.Buffer).String(), `
since `+before+`: 3 new: verdict/broke, clean/skipped, added
since `+before+`: 2 mended: clean/weak, right
since `+before+`: 1 slower: slow (0.410s, was 0.200s)
`)
	assert.Equal(t, []Change{{"slow", "", 0.41, 0.2}}, r.results.Summary.Since.Slower)
	r, _ = reported(t, f, check("same", "verdict", Fail, "why"))
	_, err = r.Finish(nil)
	require.NoError(t, err)
	assert.Contains(t, r.Out.(*bytes.Buffer).String(), "\nsince "+before+": nothing new, mended or slower\n")
}

func TestRerunChoosesWhatDidNotPass(t *testing.T) {
	t.Parallel()
	before := jsonOf(t, "podclient", check("good", "verdict", Pass, ""), check("good", "clean", Pass, ""), check("half", "verdict", Pass, ""), check("half", "clean", Warn, "w"), check("left", "left", Skip, "s"), check("bad", "bad", Fail, "f"))
	f, err := parsed(t, "-rerun", before, "-skip", "bad")
	require.NoError(t, err)
	assert.True(t, f.Part)
	for name, want := range map[string]bool{"good": false, "half": true, "left": true, "bad": false, "unknown": false} {
		assert.Equal(t, want, f.Chosen(name), name)
	}
	assert.EqualError(t, f.NoneChosen(), `no case matches -run "" and not -skip "bad" and did not pass in `+before+" (-rerun)")
}

func TestEarlierRunMustBeOneOfTheSameCommand(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"-since", "-rerun"} {
		path := jsonOf(t, "podscript")
		_, err := parsed(t, flag, path)
		assert.ErrorContains(t, err, path+`: it is a run of "podscript", and not of podclient`)
		_, err = parsed(t, flag, filepath.Join(t.TempDir(), "nosuch"))
		assert.ErrorContains(t, err, "nosuch: no such file")
		assert.ErrorAs(t, err, new(UsageError))
	}
}

// TestInterruptedRunHasAllCases: -rerun finds them there.
func TestInterruptedRunHasAllCases(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	r := reportTo(t, &bytes.Buffer{}, Flags{Parallel: 1})
	release := make(chan struct{})
	defer close(release)
	first := &Case{Name: "first", Run: func(func()) []Check {
		cancel(ErrInterrupted)
		<-release
		return nil
	}}
	cases := []*Case{first, {Name: "second", After: first}, {Name: "foreign", After: first, Foreign: true}}
	assert.ErrorIs(t, r.Run(ctx, cases), ErrInterrupted)
	require.Len(t, r.results.Checks, 2)
	assert.Equal(t, []string{"first", "interrupted while it ran", Error}, []string{r.results.Checks[0].Case, r.results.Checks[0].Why, r.results.Checks[0].Result})
	assert.Equal(t, []string{"second", "interrupted before it began", Error}, []string{r.results.Checks[1].Case, r.results.Checks[1].Why, r.results.Checks[1].Result})
}
