package evidence

import (
	"fmt"
	"testing"
	"time"

	"example.com/podharness/spawn/safefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUsesAreBounded(t *testing.T) {
	t.Parallel()
	var s uses
	begin := time.Unix(1_700_000_000, 0)
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }
	for i := range 3 * maxUses {
		test := fmt.Sprint(i)
		assert.True(t, s.add(Use{Test: test, From: at(i)}))
		assert.False(t, s.add(Use{Test: test, From: at(i)}), "it uses the pod already")
		if i == 2*maxUses {
			continue // it goes on
		}
		assert.True(t, s.add(Use{Test: test, From: at(i + 1), Until: at(i + 1), Failed: i%100 == 50}))
		assert.False(t, s.add(Use{Test: test, From: at(i + 2), Until: at(i + 2)}), "it is over")
	}
	require.Len(t, s.of, maxUses)
	assert.Equal(t, 2*maxUses, s.left)
	assert.Equal(t, Use{"0", at(0), at(1), false}, s.of[0], "the first one stays, and so does the last")
	assert.Equal(t, fmt.Sprint(3*maxUses-1), s.of[maxUses-1].Test)
	failed, lasts := 0, 0
	for _, u := range s.of {
		if u.Failed {
			failed++
		}
		if u.Until.IsZero() {
			lasts++
		}
	}
	assert.Equal(t, 15, failed, "those that have failed stay")
	assert.Equal(t, 1, lasts)
}

func TestUsesAreInTheJournal(t *testing.T) {
	t.Parallel()
	box := t.TempDir()
	e := New(Test{Box: box, Own: func() (*safefile.Dir, error) { return safefile.OpenDir(box) }, Place: func(bool) string { return "" }, Stream: func(string) func(string) { return nil }})
	a, b := e.Start(&Attempt{Pod: "alpha"}, Args{}), e.Start(&Attempt{Pod: "beta"}, Args{})
	a.Note("begins")
	b.Note("begins")
	a.Use("TestOne")
	a.Note("goes on")
	a.Use("TestTwo")
	e.EndUses("TestOne", true)
	own, err := safefile.OpenDir(box)
	require.NoError(t, err)
	defer own.Close()
	r := readJournal(own, Test{Box: box}, lavish())
	require.NotNil(t, r)
	assert.Empty(t, r.Lives[1].uses.of)
	used := r.Lives[0].uses.of
	require.Len(t, used, 2)
	assert.True(t, used[0].Failed && used[0].Test == "TestOne" && used[0].Until.After(used[0].From), used[0])
	assert.True(t, !used[1].Failed && used[1].Test == "TestTwo" && used[1].Until.IsZero(), used[1])
}

func TestReportNamesTheTestsOfASharedPod(t *testing.T) {
	t.Parallel()
	r := recordOf(t, 2, "tame")
	at := func(s int) time.Time { return r.start().Add(time.Duration(s) * time.Second) }
	r.Lives[0].uses.of = []Use{{"TestPasses", at(1), at(2), false}, {"TestFails<b>", at(2), at(3), true}, {"TestGoesOn", at(3), time.Time{}, false}}
	page := reportOf(t, r)
	assert.Contains(t, page, `<p>Tests that used these pods and failed: <strong class="bad">TestFails&lt;b&gt;</strong></p>`)
	assert.Contains(t, page, `<li>used by TestFails&lt;b&gt; from &#43;2s until &#43;3s, failed</li><li>used by TestPasses from &#43;1s until &#43;2s</li><li>used by TestGoesOn from &#43;3s on</li>`)
	assert.Contains(t, readEvidence(t, r.dir, "timelines.txt"), "used by TestPasses from +1s until +2s")
}
