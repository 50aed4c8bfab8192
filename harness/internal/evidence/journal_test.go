package evidence

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/safefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// journalOf makes an own directory with a journal.
func journalOf(t testing.TB, lines ...string) (own *safefile.Dir, box string) {
	t.Helper()
	dir := t.TempDir()
	box = filepath.Join(dir, "box")
	for _, path := range []string{box + "/run/alpha", dir + "/own"} {
		require.NoError(t, os.MkdirAll(path, 0o700))
	}
	require.NoError(t, os.WriteFile(dir+"/own/journal", []byte(strings.Join(lines, "\n")), 0o600))
	own, err := safefile.OpenDir(dir + "/own")
	require.NoError(t, err)
	t.Cleanup(func() { own.Close() })
	return own, box
}

func TestJournalOfAPodIsNotBelieved(t *testing.T) {
	t.Parallel()
	victim := t.TempDir()
	require.NoError(t, os.WriteFile(victim+"/secret", []byte("TOPSECRET"), 0o600))
	for _, line := range []string{
		"", "null", "[]", `{"Lives":null}`, `{"Lives":[null]}`, `{"Lives":[{"N":-1,"Name":"a"}]}`, `{"Lives":[{"N":2000000000,"Name":"a"}]}`,
		`{"Lives":[{"N":0,"Name":"../a"}]}`, `{"Lives":[{"N":0,"Name":"a/b"}]}`, `{"Lives":[{"N":0,"Name":"a\u0000"}]}`,
		`{"Lives":[{"N":0,"Name":"a","Timeout":-1}]}`, `{"Lives":[{"N":0,"Name":"a","Timeline":{"Start":"9999-01-01T00:00:00Z"}}]}`,
		`{"Lives":[{"N":0,"Name":"a","Stamps":[{"Size":-1}]}]}`, `{"Lives":[{"N":0,"Name":"a","Marks":[{"At":"0001-01-01T00:00:01Z"}]}]}`,
		`{"Lives":[` + strings.Repeat("{},", maxEntry) + `{}]}`,
	} {
		own, box := journalOf(t, line, "")
		assert.Nil(t, readJournal(own, Test{Box: box}, lavish()), "%.100s", line)
	}

	own, box := journalOf(t, fmt.Sprintf(`{"Test":"X","Dir":%q,"Place":%[1]q,"Base":%[1]q,"Lives":[{"N":1,"Name":"b","Pod":"b","Timeline":%[4]s,"Log":%[2]q},{"N":0,"Name":"a","Pod":"a","Timeline":%[4]s,"Log":%[3]q}]}`,
		victim, victim+"/secret", box0(t), begun()), "")
	require.NoError(t, os.Symlink(victim+"/secret", own.Name()+"/0"))
	require.NoError(t, syscall.Mkfifo(own.Name()+"/1", 0o600))
	r := readJournal(own, Test{Box: box}, lavish())
	require.NotNil(t, r)
	assert.Equal(t, "X", r.Name)
	assert.Empty(t, r.dir+r.place+r.Prefix, "where evidence goes is told in another way")
	require.Len(t, r.Lives, 2)
	for _, l := range r.Lives {
		assert.Nil(t, l.file, "%s: a link, a FIFO, and a log elsewhere are not opened", l.Name)
		_, err := r.openDir(l)
		assert.Error(t, err)
	}
}

func TestLittleOfAJournalIsKept(t *testing.T) {
	t.Parallel()
	life := func(n int, more string) string {
		return fmt.Sprintf(`{"Lives":[{"N":%d,"Name":"a","Timeline":%s,%s}]}`, n, begun(), more)
	}
	many := "[" + strings.Repeat(`"",`, maxEntry/4) + `""]`
	own, box := journalOf(t, life(0, `"Env":`+many), life(1, `"StartFailed":{"tail":`+many+`}`), "")
	assert.Nil(t, readJournal(own, Test{Box: box}, lavish()), "many words take more than they have bytes")

	text := `"Error":"` + strings.Repeat("x", 1<<20) + `"`
	own, box = journalOf(t, life(0, text), life(0, text), life(1, text), life(2, text), "")
	may := &allowance{bytes: 10 << 20, lives: 2}
	r := readJournal(own, Test{Box: box}, may)
	require.NotNil(t, r)
	assert.Len(t, r.Lives, 2)
	assert.Less(t, may.bytes, int64(7<<20))
	assert.Nil(t, readJournal(own, Test{Box: box}, may), "it is for all journals")
	assert.Nil(t, readJournal(own, Test{Box: box}, &allowance{bytes: 1 << 20, lives: 10}))
}

// lavish is more than a test needs.
func lavish() *allowance { return &allowance{maxJournals, maxLives} }

func TestLogThatWasReplacedIsFoundByTheWatchdog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, base := filepath.Join(dir, "root"), filepath.Join(dir, "evidence")
	pod := filepath.Join(root, "1/run/alpha")
	own := filepath.Join(root, "own/1")
	for _, path := range []string{pod, own} {
		require.NoError(t, os.MkdirAll(path, 0o700))
	}
	for path, text := range map[string]string{
		own + "/0": "old\n", pod + "/stderr.log": "the reason why\n",
		own + "/journal": fmt.Sprintf(`{"Test":"X","Lives":[{"N":0,"Name":"alpha","Pod":"alpha","Timeline":%s,"Log":"%s/stderr.log"}]}`+"\n", begun(), pod),
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	at, err := safefile.OpenDir(root + "/own")
	require.NoError(t, err)
	defer at.Close()
	records := CutShort(at, root, Prefix(base, false), nil, Seen{At: time.Now()})
	require.Len(t, records, 1)
	records[0].Write()
	where, err := records[0].Where()
	require.NoError(t, err)
	assert.Equal(t, "old\n[podharness: the log is another file from here on: alpha.1.new.log]\n", readEvidence(t, where, "alpha.log"))
	assert.Equal(t, "the reason why\n", readEvidence(t, where, "alpha.1.new.log"))
	assert.Contains(t, readEvidence(t, where, "report.html"), "<code>the reason why</code>")
}

// begun is a timeline in JSON.
func begun() string { return fmt.Sprintf(`{"Start":%q}`, time.Now().Format(time.RFC3339)) }

// box0 names a log outside of any sandbox, by a path with .. in it.
func box0(t *testing.T) string { return filepath.Join(t.TempDir(), "box/../secret") }

func FuzzReadJournal(f *testing.F) {
	whole, err := json.Marshal(entry{Record: Record{Test: &Test{Name: "X"}}, Lives: []*Attempt{{N: 0, Name: "a", Pod: "a", PID: 7, Timeline: spawn.Timeline{Start: time.Now()}, Marks: []Mark{{What: "SIGINT", At: time.Now()}}, Stamps: []Stamp{{At: time.Now(), Size: 3}}}}})
	require.NoError(f, err)
	for _, text := range []string{string(whole) + "\n", "{}\n", `{"Lives":[null,{"N":3,"Name":"a"}],"All":true}` + "\n", "\n\n{"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		own, box := journalOf(t, text)
		r := readJournal(own, Test{Box: box}, lavish())
		if r == nil {
			return
		}
		base := t.TempDir()
		r.Prefix, r.Most = Prefix(base, false), 1<<20
		r.freeze(WhyEnded, "", time.Now())
		for _, l := range r.Lives {
			l.complete(Seen{At: time.Now()})
		}
		r.Write()
		entries, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, entries, 1)
	})
}
