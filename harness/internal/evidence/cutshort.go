package evidence

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/safefile"
)

// Seen is what lived when the test binary had ended.
type Seen struct {
	At        time.Time
	Unknown   error             // why nothing else is known; nil = it is
	Processes map[string]string // descriptions, by the number of the sandbox
	Ended     map[int]bool      // the pods that had ended, by process
	Before    map[int]Stamp     // what the pods had written before they were asked to write what they do
	Asked     map[int]Mark      // that they were
}

// CutShort returns the records of the tests that the end of the test binary has cut short,
// as they were when it was seen what lives. own is the directory of what is the harness's
// own of all sandboxes below root; a directory for evidence is made where places, by the number
// of a sandbox, has none: its path begins with prefix. All processes have ended.
func CutShort(own *safefile.Dir, root, prefix string, places map[int]string, seen Seen) (all []*Record) {
	entries, _ := own.ReadDir(-1)
	may := &allowance{maxJournals, maxLives}
	for _, entry := range entries {
		sandbox, err := strconv.Atoi(entry.Name())
		// What a TB of its own keeps below root goes with the sandboxes.
		if err != nil || strings.HasPrefix(places[sandbox], root+"/") {
			continue
		}
		dir, err := own.Dir(entry.Name())
		if err != nil {
			continue
		}
		r := readJournal(dir, Test{Box: filepath.Join(root, entry.Name()), Prefix: prefix}, may)
		dir.Close()
		if r != nil {
			r.dir = places[sandbox]
			all = append(all, r)
		}
	}
	most, _ := MaxBytes()
	for _, r := range all {
		r.Most = most / int64(len(all))
		r.findNew(func(a *Attempt, log *os.File) {
			a.NewLog = fmt.Sprintf("%s.%d%s", a.Name, len(r.Lives), newLog)
			r.Lives = append(r.Lives, &Attempt{N: len(r.Lives), Name: a.NewLog, Timeline: spawn.Timeline{Start: a.Timeline.Start}, file: log, Withheld: a.Withheld})
		})
		for _, a := range r.Lives {
			if a.Withheld && a.file != nil {
				a.file.Close()
				a.file = nil
			}
		}
		if r.Until.IsZero() || r.dir == "" {
			processes := cmp.Or(seen.Processes[filepath.Base(r.Box)], "0 processes alive\n")
			if seen.Unknown != nil {
				processes = fmt.Sprintf("which processes lived is not known: %v\n", seen.Unknown)
			}
			r.freeze(WhyEnded, processes, seen.At)
		}
		for _, a := range r.Lives {
			a.complete(seen)
		}
	}
	return all
}

// Where returns where the evidence is, or why it is nowhere.
func (r *Record) Where() (string, error) {
	if r.dir != "" {
		return r.dir, nil
	}
	return "", cmp.Or(errors.Join(r.lost...), errors.New("no pod was started, or its test is over"))
}

// complete notes what the test binary did not come to.
func (a *Attempt) complete(seen Seen) {
	if before, ok := seen.Before[a.PID]; ok && a.Pod != "" {
		a.Stamps = append(a.Stamps, before)
		a.Goroutines = goroutinesIn(SectionOf(a.file), before.Size, nil)
	}
	if asked, ok := seen.Asked[a.PID]; ok && a.Pod != "" {
		a.add(asked)
	}
	if _, how := a.end(seen.At); how == "" && a.PID != 0 && seen.Ended[a.PID] {
		a.add(Mark{"it has ended, how is not known", seen.At, true})
	}
	if a.file == nil {
		return
	}
	if info, err := a.file.Stat(); err == nil { // when the last bytes came
		a.Stamps = append(a.Stamps, Stamp{At: info.ModTime(), Size: info.Size()})
	}
}
