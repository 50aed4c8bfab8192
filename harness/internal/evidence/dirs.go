package evidence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/spawn/proc"
	"example.com/podharness/spawn/safefile"
)

// keptDirs is how many directories of evidence of earlier runs are kept where nobody has
// asked for them.
const keptDirs = 20

// dirTime is how the name of a directory of evidence has the time.
const dirTime = "20060102T150405.000"

// makeDir chooses where the evidence goes, and opens that: a pod may put a link there later.
func (r *Record) makeDir() (err error) {
	if r.at != nil {
		return nil
	}
	if err := r.chooseDir(); err != nil {
		return err
	}
	r.at, err = safefile.OpenDir(r.dir)
	return err
}

func (r *Record) chooseDir() error {
	if r.dir != "" {
		return nil
	}
	if r.place != "" {
		r.dir = r.place
		return nil
	}
	if err := os.MkdirAll(r.Base, 0o777); err != nil {
		return err
	}
	name := SafeName(r.Name)
	name = "podharness-" + name[:min(len(name), longestName)] + "-" + time.Now().Format(dirTime)
	for n := 1; ; n++ {
		dir := filepath.Join(r.Base, name)
		if n > 1 { // another test of that name has failed in the same millisecond
			dir += fmt.Sprintf("-%d", n)
		}
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			r.dir = dir
			r.removeOld(runBegan())
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// binaryBegan is when this test binary did.
var binaryBegan = time.Now()

// runBegan returns when the run of tests began that this test binary is of. Other binaries
// of the same go test, and binaries that tests have started, write evidence beside it.
var runBegan = sync.OnceValue(func() time.Time {
	ancestors := proc.Ancestors()
	if len(ancestors) == 0 { // the system does not tell
		return binaryBegan.Add(-runMargin)
	}
	began := binaryBegan
	for _, p := range ancestors {
		if isOfTests(p.Args) {
			began = earlier(began, time.Now().Add(-p.Age-ageError))
		}
	}
	return began
})

// ageError is how much longer a process may have run than it is known to.
const ageError = 20 * time.Millisecond

// runMargin is how long before this test binary other ones of the run may have begun,
// where the system does not tell. It is the default timeout of a test binary.
const runMargin = 10 * time.Minute

// isOfTests reports whether a command line is that of go test or a test binary.
func isOfTests(args []string) bool {
	if len(args) == 0 {
		return false
	}
	program, args := filepath.Base(args[0]), args[1:]
	if len(args) > 2 && args[0] == "-C" {
		args = args[2:]
	}
	return program == "go" && len(args) > 0 && args[0] == "test" || strings.HasSuffix(program, ".test")
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

var dirName = regexp.MustCompile(`^podharness-.+-(\d{8}T\d{6}\.\d{3})(?:-\d+)?$`)

// removeOld removes all but the newest of what tests have left that failed before a time.
func (r *Record) removeOld(began time.Time) {
	if !r.Few {
		return
	}
	type old struct {
		name string
		made time.Time
	}
	entries, _ := os.ReadDir(r.Base)
	var own []old
	for _, entry := range entries {
		match := dirName.FindStringSubmatch(entry.Name())
		if match == nil {
			continue
		}
		made, timeErr := time.ParseInLocation(dirTime, match[1], time.Local)
		info, err := entry.Info()
		// The time of the name has milliseconds.
		if timeErr == nil && made.Before(began.Truncate(time.Millisecond)) &&
			err == nil && info.IsDir() && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() {
			own = append(own, old{entry.Name(), made})
		}
	}
	slices.SortFunc(own, func(a, b old) int { return a.made.Compare(b.made) })
	for _, dir := range own[:max(0, len(own)-keptDirs)] {
		_ = safefile.RemoveAll(filepath.Join(r.Base, dir.name))
	}
}

// SafeName returns a name with what is unsafe in a path or a shell replaced.
func SafeName(name string) string {
	safe := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, name)
	// A name must not look like a flag, or be hidden.
	return strings.TrimLeft(safe, "-.")
}
