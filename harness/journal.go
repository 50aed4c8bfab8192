package harness

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
)

// journalDir is where a sandbox has its journal: a file of JSON, a line for each change
// of the record, and each log once more, by the number of its life, since a pod may
// remove its own. The watchdog reads that when the test binary has ended. (To tell it of
// each change would wake it, which takes longer than to write the change down.)
const (
	journalDir  = "evidence"
	journalFile = "journal"
)

// A journal keeps one record on disk. Where it cannot, there is no evidence should the
// test binary end too soon.
type journal struct {
	dir  string
	file *os.File // nil until the first entry
}

// entry is a line: the record, of its lives those that have changed, and of their marks
// and stamps those that are new.
type entry struct {
	record
	All bool // those that were there are, too
}

func (j *journal) write(e entry) {
	if j.file == nil {
		_ = os.Mkdir(j.dir, 0o700)
		j.file, _ = os.OpenFile(filepath.Join(j.dir, journalFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	}
	if line, err := json.Marshal(e); err == nil {
		_, _ = j.file.Write(append(line, '\n'))
	}
}

// keepLog keeps the log of a life.
func (j *journal) keepLog(l *life) {
	_ = os.Mkdir(j.dir, 0o700)
	_ = os.Link(l.Log, filepath.Join(j.dir, strconv.Itoa(l.N)))
}

// remove is called at the end of the test, before the sandbox is removed in no
// particular order: without this file there is no journal.
func (j *journal) remove() {
	if j.file != nil {
		j.file.Close()
		_ = os.Remove(j.file.Name())
	}
}

// readJournal returns what a journal has, with the logs open; nil = nothing.
func readJournal(dir string) *record {
	text, _ := os.ReadFile(filepath.Join(dir, journalFile))
	var r record
	for _, line := range bytes.SplitAfter(text, []byte{'\n'}) {
		var e entry
		if json.Unmarshal(line, &e) != nil {
			continue // the last one may be torn
		}
		lives := r.Lives
		r, r.Lives = e.record, lives
		for _, l := range e.Lives {
			for len(r.Lives) <= l.N {
				r.Lives = append(r.Lives, &life{N: len(r.Lives)})
			}
			if old := r.Lives[l.N]; !e.All {
				l.Marks, l.Stamps = append(old.Marks, l.Marks...), append(old.Stamps, l.Stamps...)
			}
			r.Lives[l.N] = l
		}
	}
	for _, l := range r.Lives {
		var err error
		if l.file, err = os.Open(filepath.Join(dir, strconv.Itoa(l.N))); err != nil && r.hasLatest(l) {
			l.file, _ = os.Open(l.Log) // on a file system without links
		}
	}
	if len(r.Lives) == 0 {
		return nil
	}
	return &r
}
