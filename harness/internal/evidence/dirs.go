package evidence

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/spawn/safefile"
)

// keptDirs is how many directories of evidence of earlier runs are kept where nobody has
// asked for them.
const keptDirs = 20

// dirTime is how the name of a directory of evidence has the time.
const dirTime = "20060102T150405.000"

var (
	binaryBegan = time.Now()
	startDir, _ = os.Getwd() // a test may change it
)

// Prefix returns how the paths of directories for evidence begin that are made in dir. Where
// only a few are kept, it tells those of this package's test binary from those of others: it
// is the same in each run, and another one for another package or checkout.
func Prefix(dir string, few bool) string {
	name := "podharness-"
	if few {
		program := filepath.Base(os.Args[0])
		if info, ok := debug.ReadBuildInfo(); ok {
			program = info.Path
		}
		sum := sha256.Sum256([]byte(startDir + "\x00" + program))
		name += hex.EncodeToString(sum[:4]) + "-"
	}
	return filepath.Join(dir, name)
}

// makeDir chooses where the evidence goes, and opens that: a pod may put a link there later.
func (r *Record) makeDir() (err error) {
	if r.at != nil {
		return nil
	}
	if r.dir == "" {
		if r.dir, err = r.chooseDir(); err != nil {
			return err
		}
	}
	r.at, err = safefile.OpenDir(r.dir)
	return err
}

func (r *Record) chooseDir() (string, error) {
	if r.place != "" {
		return r.place, nil
	}
	if err := os.MkdirAll(filepath.Dir(r.Prefix), 0o777); err != nil {
		return "", err
	}
	name := SafeName(r.Name)
	name = r.Prefix + name[:min(len(name), longestName)] + "-" + time.Now().Format(dirTime)
	for n, dir := 2, name; ; n++ {
		err := safefile.Mkdir(dir, 0o700)
		if err == nil {
			r.removeOld(binaryBegan)
		}
		if !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
		dir = fmt.Sprintf("%s-%d", name, n) // another test of that name has failed in the same millisecond
	}
}

// removeOld removes all but the newest of what earlier runs have left, whose tests failed
// before a time.
func (r *Record) removeOld(began time.Time) {
	if !r.Few {
		return
	}
	base, prefix := filepath.Split(r.Prefix)
	dirName := regexp.MustCompile("^" + regexp.QuoteMeta(prefix) + `.+-(\d{8}T\d{6}\.\d{3})(?:-\d+)?$`)
	began = began.Truncate(time.Millisecond) // as the time of a name is
	entries, _ := os.ReadDir(base)
	type old struct{ made, name string }
	var own []old
	for _, entry := range entries {
		match := dirName.FindStringSubmatch(entry.Name())
		if match == nil {
			continue
		}
		made, timeErr := time.ParseInLocation(dirTime, match[1], time.Local)
		info, err := entry.Info()
		if timeErr == nil && made.Before(began) && err == nil && info.IsDir() && int(info.Sys().(*syscall.Stat_t).Uid) == os.Geteuid() {
			own = append(own, old{match[1], entry.Name()})
		}
	}
	slices.SortFunc(own, func(a, b old) int { return cmp.Compare(a.made, b.made) })
	for _, dir := range own[:max(0, len(own)-keptDirs)] {
		_ = safefile.RemoveAll(base + dir.name)
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
