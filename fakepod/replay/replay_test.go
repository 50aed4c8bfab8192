package replay_test

import (
	"strings"
	"testing"
	"time"

	"example.com/podharness/fakepod/replay"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recorded returns the recording of a pod that has logged a text, in two parts, and
// lives. Package scripts plays recordings in its tests.
func recorded(t *testing.T, log string, first int64) string {
	t.Helper()
	start := time.Now()
	r := replay.Recording{
		Pod: "alpha", Timeout: time.Second, Dir: "/run/alpha",
		Timeline: spawn.Timeline{Start: start, Launched: time.Millisecond},
		Log:      strings.NewReader(log), Size: int64(len(log)),
		Growth: []replay.Growth{{At: start.Add(25 * time.Millisecond), Size: first}},
	}
	scenario, err := r.Scenario()
	require.NoError(t, err)
	return scenario
}

func TestBytesThatNobodyNoticedAreRecordedLast(t *testing.T) {
	t.Parallel()
	assert.Contains(t, recorded(t, "one\ntwo\n", 4), `-fake 'sleep 20ms; raw "one\n"; raw "two\n"; hang' 'alpha'`)
}

func TestSecondReadyLineOfARecordingFailsNoTest(t *testing.T) {
	t.Parallel()
	again := recorded(t, "YOI-READY\talpha\t/run/alpha/sock\nYOI-READY\tother\t/nowhere\n", 1)
	assert.Contains(t, again, "\npodstart -allow-ready-again -timeout 1s ")
	assert.NotContains(t, recorded(t, "YOI-READY\talpha\t/run/alpha/sock\n", 1), "-allow")
}

func TestAnswersAreRecordedFirst(t *testing.T) {
	t.Parallel()
	start := time.Now()
	r := replay.Recording{
		Pod: "alpha", Timeline: spawn.Timeline{Start: start, Launched: time.Millisecond}, Log: strings.NewReader(""),
		Answers: []replay.Answer{{Method: "it's", Line: `{"event":"a {name}; b"}`}, {Method: "huge", Line: `"` + strings.Repeat("x", 64<<10) + `"`}},
	}
	scenario, err := r.Scenario()
	require.NoError(t, err)
	assert.Contains(t, scenario, `-fake 'answer "it''s" "{\"event\":\"a {name}; b\"}"; hang' 'alpha'`)
	assert.NotContains(t, scenario, "huge")
}

func TestAPathIsRecordedAtOnceWherePodsHaveTheirs(t *testing.T) {
	t.Parallel()
	assert.Contains(t, recorded(t, "in /run/alpha/x {1}\n", 6), `raw "in "; raw "{dir}/x {{1}\n"; hang'`)
}

func TestRecordingOfALongLogKeepsItsReadyLine(t *testing.T) {
	t.Parallel()
	half := strings.Repeat(strings.Repeat("x", 99)+"\n", 1000)
	scenario := recorded(t, half+"YOI-READY\talpha\t/run/alpha/sock\n"+half, 1)
	assert.Contains(t, scenario, `YOI-READY\talpha\t`)
	assert.Contains(t, scenario, "bytes in the middle of its log are left out.\n")
	assert.Less(t, len(scenario), 100<<10)
}

func TestNothingIsRecordedOfAPodThatDidNotBegin(t *testing.T) {
	t.Parallel()
	_, err := (&replay.Recording{Pod: "alpha"}).Scenario()
	assert.EqualError(t, err, "nothing can be recorded: no process of the pod began")
}

func TestNoWordOfARecordingBeginsALine(t *testing.T) {
	t.Parallel()
	start := time.Now()
	r := replay.Recording{
		Pod: "alpha\nexec x", Dir: "/run\nexec x", Timeline: spawn.Timeline{Start: start, Launched: time.Millisecond}, Log: strings.NewReader(""),
		Failed: &spawn.Error{Status: "exit status 1\nexec x"}, Error: "died\nexec x",
	}
	scenario, err := r.Scenario()
	require.NoError(t, err)
	assert.NotContains(t, scenario, "\nexec x")
	r.Failed, r.End, r.Ended = nil, "exit status 1\nexec x", start
	scenario, err = r.Scenario()
	require.NoError(t, err)
	assert.NotContains(t, scenario, "\nexec x")
}

func TestAPathThatWasReadInHalvesIsRecordedAtOnce(t *testing.T) {
	t.Parallel()
	const log = "YOI-READY\talpha\t/run/alpha/sock\n/run/alpha"
	for first := range len(log) {
		scenario := recorded(t, log, int64(first))
		assert.Equal(t, 1, strings.Count(scenario, "{socket}"), first)
		assert.Equal(t, 1, strings.Count(scenario, "{dir}"), first)
		assert.NotContains(t, scenario, "/run", first)
	}
}

func TestAPathThatCannotBeConnectedToStays(t *testing.T) {
	t.Parallel()
	r := replay.Recording{
		Pod: "alpha", Dir: "/run/alpha", Timeline: spawn.Timeline{Start: time.Now(), Launched: time.Millisecond}, Failed: &spawn.Error{Verdict: "socket error"},
	}
	for _, path := range []string{"/run/alpha/pid/sock", "/etc/passwd/sock", "here"} {
		log := "YOI-READY\talpha\t" + path + "\n"
		r.Log, r.Size = strings.NewReader(log), int64(len(log))
		scenario, err := r.Scenario()
		require.NoError(t, err)
		assert.Contains(t, scenario, `raw "YOI-READY\talpha\t`+strings.ReplaceAll(path, "/run/alpha", "{dir}")+`\n"`)
	}
}
