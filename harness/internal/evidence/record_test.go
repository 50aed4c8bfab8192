package evidence

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExcerptEndsAndBeginsWithALine(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	text := "first\nsecond\n" + strings.Repeat("-", 100) + "\nlast but one\nlast"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	for most, want := range map[int64]string{
		20:   "first\n[podharness: 121 bytes are left out here]\nlast",
		40:   "first\nsecond\n[podharness: 101 bytes are left out here]\nlast but one\nlast",
		4:    "fi[podharness: 127 bytes are left out here]\nst",
		1000: text,
	} {
		var out strings.Builder
		require.NoError(t, excerptOf(SectionOf(file), most).copy(&out, &Attempt{file: file}))
		assert.Equal(t, want, out.String(), most)
	}
}

func TestExcerptsUseTheirRoom(t *testing.T) {
	t.Parallel()
	var r Record
	for _, line := range []string{"short\n", strings.Repeat("long", 100) + "\n", "\n"} {
		path := filepath.Join(t.TempDir(), "log")
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat(line, 10_000)), 0o600))
		file, err := os.Open(path)
		require.NoError(t, err)
		defer file.Close()
		r.Lives = append(r.Lives, &Attempt{file: file})
	}
	const most, perLine = 300_000, 100
	for _, e := range r.excerpts(most, perLine) {
		assert.InEpsilon(t, most/3, e.cost(perLine), 0.02)
	}
}

func TestBoundOfTheEvidence(t *testing.T) {
	for text, want := range map[string]int64{"": 64 << 20, "1": 1 << 20, "1048576": 1 << 40, "0": -1, "-1": -1, "1.5": -1, "64M": -1, "1048577": -1} {
		t.Setenv("PODHARNESS_ARTIFACTS_MAX", text)
		most, err := MaxBytes()
		if want < 0 {
			assert.EqualError(t, err, fmt.Sprintf("PODHARNESS_ARTIFACTS_MAX=%q is not a number of MiB between 1 and 1048576", text))
		} else {
			assert.NoError(t, err)
			assert.Equal(t, want, most)
		}
	}
}

func TestTheNewestDirectoriesOfEarlierRunsAreKept(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	now := time.Now()
	ourPrefix, time1 := filepath.Base(Prefix(base, true)), "20201126T034512.123"
	require.Regexp(t, `^podharness-[0-9a-f]{8}-$`, ourPrefix)
	others := []string{"podharness", ourPrefix + "x", ourPrefix + time1, "un" + ourPrefix + "x-" + time1, ourPrefix + "x-" + time1 + ".txt", ourPrefix + "x-20209926T034512.123"}
	for i := range 2 * keptDirs { // of other packages, and those that a user has asked for
		others = append(others, fmt.Sprintf("podharness-%08x-x-%s-%d", i, time1, i+2), fmt.Sprintf("podharness-x-%s-%d", time1, i+2))
	}
	for _, name := range others {
		require.NoError(t, os.Mkdir(filepath.Join(base, name), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(base, ourPrefix+"x-20201126T034512.124"), nil, 0o600))
	mkdir := func(age time.Duration, end string) string {
		dir := Prefix(base, true) + "z-" + now.Add(-age).Format(dirTime) + end
		require.NoError(t, os.Mkdir(dir, 0o700))
		return dir
	}
	oldest := mkdir(1000*time.Hour, "")
	require.NoError(t, os.Mkdir(filepath.Join(oldest, "full"), 0o500))
	second := mkdir(999*time.Hour, "-2")
	var earlier, ours []string
	for i := range keptDirs {
		earlier = append(earlier, mkdir(time.Duration(10+i)*time.Hour, ""))
	}
	for i := range 3 * keptDirs {
		ours = append(ours, mkdir(time.Duration(i)*time.Second, ""))
	}
	(&Record{Test: &Test{Prefix: Prefix(base, true)}}).removeOld(now.Add(-time.Hour))
	assert.DirExists(t, oldest, "where the user wants it, all are kept")
	(&Record{Test: &Test{Prefix: Prefix(base, true), Few: true}}).removeOld(now.Add(-time.Hour))
	assert.NoDirExists(t, oldest)
	assert.NoDirExists(t, second)
	for _, dir := range slices.Concat(earlier, ours) {
		assert.DirExists(t, dir)
	}
	left, err := os.ReadDir(base)
	require.NoError(t, err)
	assert.Len(t, left, len(earlier)+len(ours)+len(others)+1, "what is not ours stays")
}

func TestDirectoriesOfOneRunAreKeptAndDiffer(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	const tests = 200
	records := make([]Record, tests)
	var group sync.WaitGroup
	begin := time.Now()
	for i := range records {
		records[i] = Record{Test: &Test{Name: "a/Test x", Prefix: Prefix(base, true), Few: true}}
		group.Add(1)
		go func() {
			defer group.Done()
			assert.NoError(t, records[i].makeDir())
		}()
	}
	group.Wait()
	assert.Less(t, time.Since(begin), 10*time.Second)
	made := map[string]bool{}
	for _, r := range records {
		assert.Regexp(t, `^`+base+`/podharness-[0-9a-f]{8}-a-Test-x-\d{8}T\d{6}\.\d{3}(-\d+)?$`, r.dir)
		assert.DirExists(t, r.dir)
		made[r.dir] = true
	}
	assert.Len(t, made, tests)
}

func TestMarksAreBounded(t *testing.T) {
	t.Parallel()
	var l Attempt
	for i := range 10 * maxMarks {
		l.add(Mark{What: fmt.Sprint(i)})
	}
	assert.Len(t, l.Marks, maxMarks)
	assert.Equal(t, "0", l.Marks[0].What)
	assert.Equal(t, fmt.Sprint(10*maxMarks-1), l.Marks[maxMarks-1].What)
}

func TestStampsAreBoundedAndInOrder(t *testing.T) {
	t.Parallel()
	for apart, fine := range map[time.Duration]time.Duration{
		time.Microsecond: 2 * time.Millisecond,
		time.Millisecond: 32 * time.Millisecond,
	} {
		var s stamps
		begin := time.Now()
		const lines = 10 * maxStamps
		for i := range lines {
			s.add(begin.Add(time.Duration(i)*apart), int64(i+1))
		}
		assert.LessOrEqual(t, len(s.at), maxStamps)
		for _, i := range []int64{1, lines / 100, lines / 10, lines / 3, lines / 2, lines} {
			assert.InDelta(t, float64(time.Duration(i)*apart), float64(growth(s.at, i).Sub(begin)), float64(fine), "line %d", i)
		}
		s.add(begin.Add(time.Hour), 5) // truncated
		assert.Equal(t, begin.Add(time.Hour), growth(s.at, 3))
	}
	assert.Zero(t, growth(nil, 1))
}

func TestNamesOfEvidenceFilesDiffer(t *testing.T) {
	t.Parallel()
	e := Collector{names: map[string]int{"merged": 1}}
	var names []string
	long := strings.Repeat("x", 253)
	for _, pod := range []string{"merged", "a.2", "a", "a", "a/b", "a_b", long, long} {
		names = append(names, e.newName(pod))
	}
	cut := long[:200]
	assert.Equal(t, []string{"merged.2", "a.2", "a", "a.3", "a_b", "a_b.2", cut, cut + ".2"}, names)
}

func readEvidence(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(text)
}
