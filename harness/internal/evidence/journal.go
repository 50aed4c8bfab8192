package evidence

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/podharness/spawn/safefile"
)

// journalFile is the file, in the own directory of a sandbox, that holds its record: a line
// of JSON for each change. Beside it is each log once more, by the number of its attempt, since
// a pod may remove its own. The watchdog reads that when the test binary has ended. (To tell
// it of each change would wake it, which takes longer than to write the change down.)
const journalFile = "journal"

// A journal keeps one record on disk. Where it cannot, there is no evidence should the
// test binary end too soon.
type journal struct {
	own  func() (*safefile.Dir, error) // the directory, made when it is first needed
	file *os.File                      // nil until the first entry
}

// entry is a line: the record, of its attempts those that have changed, and of their marks
// and stamps those that are new.
type entry struct {
	Record
	Lives   []*Attempt
	All     bool           // the marks and stamps are all that there are
	Samples []sampled      `json:",omitempty"`
	Uses    []journaledUse `json:",omitempty"`
}

func (j *journal) write(e entry) {
	if j.file == nil {
		if dir, err := j.own(); err == nil {
			j.file, _ = dir.Create(journalFile, 0o600)
		}
	}
	if line, err := json.Marshal(e); err == nil && j.file != nil {
		_, _ = j.file.Write(append(line, '\n'))
	}
}

// keepLog keeps the log of an attempt.
func (j *journal) keepLog(a *Attempt, log *os.File) {
	if dir, err := j.own(); err == nil {
		_ = dir.LinkFile(log, strconv.Itoa(a.N))
	}
}

// remove is called at the end of the test, before the own directory is removed in no
// particular order: without this file there is no journal.
func (j *journal) remove() {
	if j.file == nil {
		return
	}
	j.file.Close()
	if dir, err := j.own(); err == nil {
		_ = dir.RemoveAll(journalFile)
	}
}

// What is read of journals is bounded: a pod may have written in them. What is kept of them
// is about as large.
const (
	maxEntry    = 8 << 20   // bytes of a line
	maxJournals = 128 << 20 // bytes of the journals of all sandboxes
	maxLives    = 10_000    // of all sandboxes
	maxWords    = 1000      // of each list of words of an attempt
	maxName     = 64 << 10  // bytes of the name of a test, and of why it failed
	maxAge      = 10 * 365 * 24 * time.Hour
)

// journaled is an entry as it is read: each attempt may be anything.
type journaled struct {
	Record
	Lives   []json.RawMessage
	All     bool
	Samples []sampled
	Uses    []journaledUse
}

// An allowance is what may still be read of journals.
type allowance struct {
	bytes int64
	lives int
}

// readJournal returns what the journal in an own directory has of a test, with the logs open;
// nil = nothing. Of the pods' files only those below t.Box are opened.
func readJournal(own *safefile.Dir, t Test, may *allowance) *Record {
	file, err := own.Open(journalFile)
	if err != nil {
		return nil
	}
	defer file.Close()
	r, lives, now := &Record{Test: &t, read: true}, map[int]*Attempt{}, time.Now()
	limited := &io.LimitedReader{R: file, N: may.bytes}
	lines := bufio.NewReaderSize(limited, maxEntry)
	for err == nil {
		var line []byte
		if line, err = lines.ReadSlice('\n'); err == nil { // the last line may be torn
			r.take(lives, line, now, may)
		}
		for errors.Is(err, bufio.ErrBufferFull) { // too long: it is passed over
			_, err = lines.ReadSlice('\n')
		}
	}
	may.bytes = limited.N
	numbers := slices.Sorted(maps.Keys(lives))
	for i, n := range numbers {
		lives[n].N = i
		r.Lives = append(r.Lives, lives[n])
	}
	for i, a := range r.Lives {
		if a.file, err = own.Open(strconv.Itoa(numbers[i])); err != nil { // as on a file system without links
			a.file = r.openLog(a)
		}
	}
	if len(lives) == 0 {
		return nil
	}
	return r
}

// take takes a line of a journal. What cannot be is left out.
func (r *Record) take(lives map[int]*Attempt, line []byte, now time.Time, may *allowance) {
	e := journaled{Record: Record{Test: &Test{}}}
	if json.Unmarshal(line, &e) != nil || len(e.Name) > maxName || len(e.Why) > maxName {
		return
	}
	r.Name, r.Why, r.Until = e.Name, e.Why, e.Until
	if !isRecent(e.Until, now) {
		r.Until = time.Time{}
	}
	for _, raw := range e.Lives {
		a := new(Attempt)
		if json.Unmarshal(raw, a) != nil || !a.isPlausible(now) {
			continue
		}
		old := lives[a.N]
		if old == nil {
			if may.lives--; may.lives < 0 {
				return
			}
			old = &Attempt{}
		}
		a.samples, a.uses = old.samples, old.uses
		if !e.All {
			marks, grown := a.Marks, a.Stamps
			a.Marks, a.Stamps = old.Marks, append(old.Stamps, grown...)
			for _, m := range marks {
				a.add(m)
			}
		}
		a.Stamps = a.Stamps[max(0, len(a.Stamps)-maxStamps):]
		a.Marks = a.Marks[max(0, len(a.Marks)-maxMarks):]
		lives[a.N] = a
	}
	for _, s := range e.Samples {
		if a := lives[s.N]; a != nil && s.isPlausible(now) {
			a.samples.add(s.Sample, true)
		}
	}
	for _, u := range e.Uses {
		if a := lives[u.N]; a != nil && u.isPlausible(now) {
			a.uses.add(u.Use)
		}
	}
}

// isRecent reports whether a time can be one of a test.
func isRecent(t, now time.Time) bool {
	return t.After(now.Add(-maxAge)) && t.Before(now.Add(time.Hour))
}

// isPlausible reports whether an attempt that was read can be one.
func (a *Attempt) isPlausible(now time.Time) bool {
	ok := 0 <= a.N && a.N < maxLives && a.Name == nameOf(a.Name) && len(a.Name) > 0 && a.PID >= 0
	// A word of two bytes takes sixteen more.
	ok = ok && len(a.Goroutines) <= maxGoroutines && !slices.ContainsFunc(a.Goroutines, func(g Goroutine) bool { return !g.isPlausible() })
	ok = ok && len(a.Env) <= maxWords && len(a.Socket) <= maxWords && len(a.Failures) <= maxFailures && (a.StartFailed == nil || len(a.StartFailed.Tail) <= maxWords)
	for _, d := range append(phases(a.Timeline), a.Timeout) {
		ok = ok && 0 <= d && d < maxAge
	}
	times := []time.Time{a.Timeline.Start}
	for _, m := range slices.Concat(a.Marks, a.Failures) {
		times = append(times, m.At)
	}
	for _, m := range a.Socket {
		times = append(times, m.At)
	}
	for _, s := range a.Stamps {
		times, ok = append(times, s.At), ok && s.Size >= 0
	}
	return ok && !slices.ContainsFunc(times, func(t time.Time) bool { return !isRecent(t, now) })
}

// openDir opens the directory of a pod. Of one in the sandbox no part of the path may be a link
// that a pod has made.
func (r *Record) openDir(a *Attempt) (*safefile.Dir, error) {
	path, inBox := strings.CutPrefix(a.dir(), r.Box+"/")
	if !inBox && !r.read { // the test has chosen another runtime directory
		return safefile.OpenDir(a.dir())
	}
	if !inBox {
		return nil, fmt.Errorf("%s is not in the sandbox %s", a.dir(), r.Box)
	}
	base, err := safefile.OpenDir(filepath.Dir(r.Box))
	if err != nil {
		return nil, err
	}
	defer base.Close()
	return base.Dir(filepath.Base(r.Box) + "/" + path)
}

// findNew calls add with each log that a pod has put in the place of its own, which it has
// renamed or removed. The file is to be closed.
func (r *Record) findNew(add func(a *Attempt, log *os.File)) {
	for _, a := range slices.Clone(r.Lives) {
		if a.Pod == "" || a.file == nil {
			continue
		}
		log := r.openLog(a)
		if log == nil {
			continue
		}
		info, err := log.Stat()
		isKnown := func(other *Attempt) bool {
			if other.file == nil {
				return false
			}
			known, err := other.file.Stat()
			return err == nil && os.SameFile(known, info)
		}
		// One with a name elsewhere may be a file from there.
		if err != nil || slices.ContainsFunc(r.Lives, isKnown) || !safefile.HasOneName(log) {
			log.Close()
			continue
		}
		add(a, log)
	}
}

// openLog opens the log of an attempt in the directory of its pod; nil if that cannot be.
func (r *Record) openLog(a *Attempt) *os.File {
	if a.Log == "" || !r.hasLatest(a) {
		return nil
	}
	dir, err := r.openDir(a)
	if err != nil {
		return nil
	}
	defer dir.Close()
	file, err := dir.Open(filepath.Base(a.Log))
	if err != nil {
		return nil
	}
	return file
}
