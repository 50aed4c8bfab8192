package evidence

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.com/podharness/spawn/safefile"
)

// journalFile is the file, in the own directory of a sandbox, that holds its record: a line
// of JSON for each change. Beside it is each log once more, by the number of its life, since
// a pod may remove its own. The watchdog reads that when the test binary has ended. (To tell
// it of each change would wake it, which takes longer than to write the change down.)
const journalFile = "journal"

// A journal keeps one record on disk. Where it cannot, there is no evidence should the
// test binary end too soon.
type journal struct {
	own  func() (*safefile.Dir, error) // the directory, made when it is first needed
	file *os.File                      // nil until the first entry
}

// entry is a line: the record, of its lives those that have changed, and of their marks
// and stamps those that are new.
type entry struct {
	Record
	Lives []*Life
	All   bool // those that were there are, too
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

// keepLog keeps the log of a life.
func (j *journal) keepLog(l *Life, log *os.File) {
	if dir, err := j.own(); err == nil {
		_ = dir.LinkFile(log, strconv.Itoa(l.N))
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

// What is read of a journal is bounded: a pod may have written in it.
const (
	maxEntry    = 8 << 20   // bytes of a line
	maxJournals = 512 << 20 // bytes of the journals of all sandboxes
	maxKept     = 128 << 20 // bytes of what is kept of them
	maxLives    = 10_000
	maxWords    = 1000                      // of each list of words of a life
	maxWhat     = 1000                      // bytes of a mark
	maxName     = 64 << 10                  // bytes of the name of a test
	maxAge      = 10 * 365 * 24 * time.Hour // of what it tells
)

// journaled is an entry as it is read: each life may be anything.
type journaled struct {
	Record
	Lives []json.RawMessage
	All   bool
}

// An allowance is what may still be read of journals.
type allowance struct{ read, kept int64 }

func newAllowance() *allowance { return &allowance{maxJournals, maxKept} }

// keep reports whether so many bytes more may be kept, and counts them then.
func (a *allowance) keep(bytes int64) bool {
	if bytes > a.kept {
		return false
	}
	a.kept -= bytes
	return true
}

// sizeOf is about what a life takes that was read from so many bytes.
func (l *Life) sizeOf(text int) int64 {
	return int64(1000 + text + 32*len(l.Stamps) + 100*len(l.Marks))
}

// readJournal returns what the journal in an own directory has, with the logs open; nil =
// nothing. Of the pods' files only those below box are opened.
func readJournal(own *safefile.Dir, box string, may *allowance) *Record {
	file, err := own.Open(journalFile)
	if err != nil {
		return nil
	}
	defer file.Close()
	now := time.Now()
	r := &Record{}
	limited := &io.LimitedReader{R: file, N: may.read}
	lines := bufio.NewReaderSize(limited, maxEntry)
	for {
		line, err := lines.ReadSlice('\n')
		if err == nil {
			r.take(line, now, may)
		}
		for errors.Is(err, bufio.ErrBufferFull) { // too long: it is passed over
			_, err = lines.ReadSlice('\n')
		}
		if err != nil {
			break // the last line may be torn
		}
	}
	may.read = limited.N
	r.box, r.read = box, true
	var lives []*Life
	for _, l := range r.Lives {
		if l.Name == "" {
			continue // a number was passed over
		}
		l.file, err = own.Open(strconv.Itoa(l.N))
		if err != nil { // as on a file system without links
			l.file = r.openLog(l)
		}
		lives = append(lives, l)
	}
	for i, l := range lives {
		l.N = i
	}
	if r.Lives = lives; len(lives) == 0 {
		return nil
	}
	return r
}

// take takes a line of a journal. What cannot be is left out.
func (r *Record) take(line []byte, now time.Time, may *allowance) {
	var e journaled
	if json.Unmarshal(line, &e) != nil {
		return
	}
	if len(e.Test) > maxName || len(e.Why) > maxWhat {
		return
	}
	r.Test, r.Why, r.Until = e.Test, e.Why, e.Until
	if !isRecent(e.Until, now) {
		r.Until = time.Time{}
	}
	for _, raw := range e.Lives[:min(len(e.Lives), maxLives)] {
		l := new(Life)
		if json.Unmarshal(raw, l) != nil || !l.isPlausible(now) {
			continue
		}
		for len(r.Lives) <= l.N && may.keep(new(Life).sizeOf(0)) {
			r.Lives = append(r.Lives, &Life{N: len(r.Lives)})
		}
		if len(r.Lives) <= l.N {
			continue
		}
		old := r.Lives[l.N]
		if !e.All {
			marks, grown := l.Marks, l.Stamps
			l.Marks, l.Stamps = old.Marks, old.Stamps
			for _, m := range marks {
				l.add(m)
			}
			l.Stamps = append(l.Stamps, grown...)
		}
		l.Stamps = l.Stamps[max(0, len(l.Stamps)-maxStamps):]
		l.Marks = l.Marks[max(0, len(l.Marks)-maxMarks):]
		if l.size = l.sizeOf(len(raw)); may.keep(l.size - old.size) {
			r.Lives[l.N] = l
		}
	}
}

// isRecent reports whether a time can be one of a test.
func isRecent(t, now time.Time) bool {
	return t.After(now.Add(-maxAge)) && t.Before(now.Add(time.Hour))
}

// isPlausible reports whether a life that was read can be one.
func (l *Life) isPlausible(now time.Time) bool {
	ok := 0 <= l.N && l.N < maxLives && l.Name == nameOf(l.Name) && len(l.Name) > 0 && l.PID >= 0 && isRecent(l.Timeline.Start, now)
	for _, d := range append(phases(l.Timeline), l.Timeout) {
		ok = ok && 0 <= d && d < maxAge
	}
	for _, m := range l.Marks {
		ok = ok && isRecent(m.At, now) && len(m.What) <= maxWhat
	}
	// A word of two bytes takes sixteen more.
	ok = ok && len(l.Env) <= maxWords && len(l.Socket) <= maxWords
	if f := l.StartFailed; f != nil {
		ok = ok && len(f.Tail) <= maxWords
	}
	for _, s := range l.Stamps {
		ok = ok && isRecent(s.At, now) && s.Size >= 0
	}
	for _, m := range l.Socket {
		ok = ok && isRecent(m.At, now)
	}
	return ok
}

// openDir opens the directory of a pod. Of one in the sandbox no part of the path may be a link
// that a pod has made.
func (r *Record) openDir(l *Life) (*safefile.Dir, error) {
	path, inBox := strings.CutPrefix(l.dir(), r.box+"/")
	if !inBox && !r.read { // the test has chosen another runtime directory
		return safefile.OpenDir(l.dir())
	}
	if !inBox {
		return nil, fmt.Errorf("%s is not in the sandbox %s", l.dir(), r.box)
	}
	base, err := safefile.OpenDir(filepath.Dir(r.box))
	if err != nil {
		return nil, err
	}
	defer base.Close()
	return base.Dir(filepath.Base(r.box) + "/" + path)
}

// openLog opens the log of a life in the directory of its pod; nil if that cannot be.
func (r *Record) openLog(l *Life) *os.File {
	if l.Log == "" || !r.hasLatest(l) {
		return nil
	}
	dir, err := r.openDir(l)
	if err != nil {
		return nil
	}
	defer dir.Close()
	file, err := dir.Open(filepath.Base(l.Log))
	if err != nil {
		return nil
	}
	return file
}
