package sweep

import (
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"example.com/podharness/spawn/fault"
	"golang.org/x/sys/unix"
)

// failures has the errors that the calls of a family can have in life.
var failures = map[string][]syscall.Errno{
	"open": {unix.EACCES, unix.ENOSPC, unix.EMFILE}, "read": {unix.EIO}, "write": {unix.ENOSPC, unix.EIO}, "copy": {unix.ENOSPC, unix.EIO},
	"truncate": {unix.ENOSPC, unix.EIO}, "sync": {unix.EIO}, "lock": {unix.ENOLCK}, "mkdir": {unix.EACCES, unix.ENOSPC}, "mknod": {unix.EACCES, unix.ENOSPC},
	"rename": {unix.EACCES, unix.ENOSPC}, "link": {unix.EACCES, unix.ENOSPC}, "unlink": {unix.EACCES}, "readdir": {unix.EIO}, "chmod": {unix.EPERM},
	"socket": {unix.EMFILE}, "bind": {unix.EADDRINUSE, unix.EACCES}, "listen": {unix.EADDRINUSE}, "accept": {unix.EMFILE, unix.ECONNABORTED},
	"connect": {unix.ECONNREFUSED}, "send": {unix.EPIPE}, "recv": {unix.ECONNRESET}, "pipe": {unix.EMFILE}, "fork": {unix.EAGAIN, unix.ENOMEM}, "thread": {unix.EAGAIN},
}

// onSocket has those of a family whose calls are on sockets, too.
var onSocket = map[string][]syscall.Errno{"read": {unix.ECONNRESET}, "write": {unix.EPIPE}}

// interruptible are the families whose calls a signal may interrupt.
var interruptible = []string{"open", "read", "write", "sync", "lock", "accept", "connect", "send", "recv", "wait", "poll"}

// onNothing are the families whose calls have no path.
var onNothing = []string{"fork", "thread", "socket", "pipe", "wait", "poll", "pidfd", "epoll", "inotify"}

// MostCalls is how many calls a session keeps.
const MostCalls = 10_000

// A Point is a system call that can fail.
type Point struct {
	Family string
	Path   string // as fault.Fault has it; "" = the call is on nothing
	When   int
	Phase  string // of the life of what is tested
	socket bool
	writes bool // what it writes can be cut
}

// A Trial is a point, and what happens there.
type Trial struct {
	Point
	Fault fault.Fault
	Case  string // one of Sweep.Cases; "" = there are none
}

// String tells what fails, as a person reads it.
func (t Trial) String() string {
	what := strings.Join(strings.Fields(fmt.Sprintf("call %d of %s %s", t.When, t.Family, t.Path)), " ")
	switch {
	case t.Case != "":
		return fmt.Sprintf("%s in the case %s", t.Fault, t.Case)
	case t.When == 0 || t.Fault.Delay != 0: // it was chosen by hand
		return t.Fault.String()
	case t.Fault.Signal != 0:
		return what + " with " + unix.SignalName(t.Fault.Signal)
	case t.Fault.Short != 0:
		return what + " cut short"
	case t.Fault.Onwards:
		return what + " and all later ones with " + unix.ErrnoName(t.Fault.Error)
	}
	return what + " with " + unix.ErrnoName(t.Fault.Error)
}

// part is the number by which a trial is in one of the parts of a sweep: whatever their seeds, and
// whichever points they have come to, they are the whole.
func (t Trial) part() int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, t.Fault.String())
	return int(h.Sum32() >> 1)
}

// kind is equal for trials that are much alike.
func (t Trial) kind() string {
	return fmt.Sprint(t.Family, t.Phase, t.socket, t.Fault.Error, t.Fault.Onwards, t.Fault.Signal, t.Fault.Short)
}

// Tells reports whether a text names the error of the trial, or what the calls that it struck
// were for, by their paths, or by one of the words. name is that of the pod, which any text
// may have.
func (t Trial) Tells(text, name string, strikes []fault.Strike, words ...string) bool {
	text = strings.ToLower(text)
	words = append(slices.Clone(words), strings.ToLower(t.Fault.Error.Error()), strings.ToLower(unix.ErrnoName(t.Fault.Error)))
	for _, strike := range strikes {
		for _, path := range strike.Paths {
			words = append(words, strings.ToLower(path))
			if base := filepath.Base(path); len(base) > 4 && base != name { // shorter ones are in any text
				words = append(words, strings.ToLower(base))
			}
		}
	}
	switch t.Family {
	case "fork", "thread": // some languages have a text of their own for that
		words = append(words, t.Family, "process")
	}
	number := regexp.MustCompile(fmt.Sprintf(`(errno|error|failed with)\W*%d\b`, int(t.Fault.Error)))
	return number.MatchString(text) || slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
}

// trials returns the runs for a point, whose family may have more errors.
func (p Point) trials(more map[string][]syscall.Errno) (all []Trial) {
	add := func(change func(*fault.Fault)) {
		t := Trial{Point: p, Fault: fault.Fault{Calls: p.Family, Path: p.Path, When: p.When}}
		change(&t.Fault)
		all = append(all, t)
	}
	errs := failures[p.Family]
	if special := onSocket[p.Family]; p.socket && special != nil {
		errs = special
	}
	for _, err := range slices.Concat(errs, more[p.Family]) {
		add(func(f *fault.Fault) { f.Error = err })
		if err != unix.ECONNABORTED && err != unix.ENOENT { // that is about one connection, and this goes away
			add(func(f *fault.Fault) { f.Error, f.Onwards = err, true })
		}
	}
	if slices.Contains(interruptible, p.Family) {
		add(func(f *fault.Fault) { f.Error = unix.EINTR })
	}
	if p.writes {
		add(func(f *fault.Fault) { f.Short = 1 })
	}
	add(func(f *fault.Fault) { f.Signal = unix.SIGKILL })
	return all
}

// A World is where what concerns the program under test is.
type World struct {
	Root  string      // of the sandbox
	Bases [][2]string // words such as {runtime}, and the directories below Root that they stand for
	Name  string      // of the pod
	All   bool        // what is elsewhere concerns it, too
	// Program is what ProgramOf returns. What comes before the first call on that, or below
	// Root, is the interpreter's and its runtime's, which no author can mend.
	Program []string
	More    func(path string) (pattern string) // of what does so in any case, or ""; nil = nothing
}

// ProgramOf returns the files and directories that a command line names after its program, which
// may be an interpreter's; if there are none, the program if it is a script, which an interpreter
// opens; nil = none.
func ProgramOf(argv []string) (paths []string) {
	here, _ := os.Getwd()
	for _, word := range argv[min(1, len(argv)):] {
		path, err := filepath.Abs(word)
		if _, statErr := os.Stat(path); word != "" && err == nil && statErr == nil && !strings.HasPrefix(here+"/", path+"/") && path != "/" {
			paths = append(paths, path)
		}
	}
	if path := script(argv); paths == nil && path != "" {
		paths = []string{path}
	}
	return paths
}

// script returns where the program of a command line is, if it names its interpreter in its first
// line; "" = it does not.
func script(argv []string) string {
	path, err := exec.LookPath(strings.Join(argv[:min(1, len(argv))], ""))
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	begin := make([]byte, len("#!"))
	if _, err := io.ReadFull(f, begin); err != nil || string(begin) != "#!" {
		return ""
	}
	return path
}

// isProgram reports whether a call on a path is not its interpreter's or runtime's alone.
func (w World) isProgram(path string) bool {
	return strings.HasPrefix(path, w.Root+"/") || slices.ContainsFunc(w.Program, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

// families returns those of a sweep, sorted.
func families(more map[string][]syscall.Errno) []string {
	all := maps.Clone(failures)
	maps.Copy(all, more)
	return slices.Sorted(maps.Keys(all))
}

// Noted returns the faults by which all calls are only noted that concern the program.
func (s *Sweep) Noted(w World) (noted []fault.Fault) {
	for _, family := range families(s.Errors) {
		f := fault.Fault{Calls: family, Path: fault.Quote(w.Root) + "/**"}
		if w.All || w.More != nil || w.Program != nil && family == "open" || slices.Contains(onNothing, family) {
			f.Path = ""
		}
		noted = append(noted, f)
	}
	return noted
}

// Points returns the points that calls, noted by the faults of Noted, have come to. phase
// returns the phase of a call; "" = it does not concern the program.
func (s *Sweep) Points(w World, calls []fault.Strike, phase func(fault.Strike) string) (points []Point) {
	if len(calls) >= MostCalls {
		s.Cannot(fmt.Sprintf("the %s makes more than %d calls: the later ones did not fail", s.Of, MostCalls))
	}
	all := families(s.Errors)
	counts, sockets, runs := map[[2]string]int{}, map[string]bool{}, w.All || w.Program == nil
	others := s.patterns
	s.patterns = w.patterns(calls)
	names := steady(s.patterns, others)
	for _, c := range calls {
		family := all[c.Fault]
		p := Point{Family: family, Phase: phase(c), writes: family == "write"}
		concerns := len(c.Paths) == 0
		if concerns {
			counts[[2]string{family, ""}]++
		}
		var seen []string
		for _, path := range c.Paths { // the last one of a renaming is the name that counts
			pattern := w.pattern(path)
			if steady, ok := names[pattern]; ok {
				pattern = steady
			}
			if pattern == "" || slices.Contains(seen, pattern) {
				continue
			}
			seen = append(seen, pattern)
			counts[[2]string{family, pattern}]++
			sockets[pattern] = sockets[pattern] || family == "bind"
			p.Path, p.socket, concerns = pattern, sockets[pattern], true
		}
		runs = runs || slices.ContainsFunc(c.Paths, w.isProgram)
		if p.When = counts[[2]string{family, p.Path}]; concerns && runs && p.Phase != "" {
			points = append(points, p)
		}
	}
	return points
}

// patterns returns those of all paths of calls, each once.
func (w World) patterns(calls []fault.Strike) (all []string) {
	seen := map[string]bool{"": true}
	for _, c := range calls {
		for _, path := range c.Paths {
			if pattern := w.pattern(path); !seen[pattern] {
				seen[pattern], all = true, append(all, pattern)
			}
		}
	}
	return all
}

// steady returns what matches in any run in place of patterns that another run has not come to:
// they have a name that is made at random, such as that of a temporary file.
func steady(patterns, others []string) map[string]string {
	without := func(all, not []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(p string) bool { return slices.Contains(not, p) })
	}
	found, left := map[string]string{}, without(others, patterns)
	for _, p := range without(patterns, others) {
		for i, other := range left {
			if merged := merge(p, other); merged != "" {
				found[p], left = merged, slices.Delete(left, i, i+1)
				break
			}
		}
	}
	return found
}

var isWord = regexp.MustCompile(`\w`)

// merge returns what matches two paths that differ in a part of one name; "" = they differ in more.
func merge(a, b string) string {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	differs := -1
	for i := range as {
		switch {
		case len(as) != len(bs) || as[i] != bs[i] && differs >= 0:
			return ""
		case as[i] != bs[i]:
			differs = i
		}
	}
	if differs < 0 {
		return ""
	}
	x, y := as[differs], bs[differs]
	short := min(len(x), len(y))
	prefix, suffix := 0, 0
	for prefix < short && x[prefix] == y[prefix] && x[prefix] != '\\' {
		prefix++
	}
	for suffix < short-prefix && x[len(x)-1-suffix] == y[len(y)-1-suffix] && !strings.Contains(x, `\`) {
		suffix++
	}
	// The last one may be of what is random, and the same by chance.
	if prefix > 0 && isWord.MatchString(x[prefix-1:prefix]) {
		prefix--
	}
	if suffix > 0 && isWord.MatchString(x[len(x)-suffix:len(x)-suffix+1]) {
		suffix--
	}
	if prefix+suffix < 2 {
		return "" // it would match much else
	}
	as[differs] = x[:prefix] + "*" + x[len(x)-suffix:]
	return strings.Join(as, "/")
}

// number is a part of a name that may be another one in the next run: a UUID, or a number.
var number = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}|[0-9]{3,}`)

// pattern returns what matches a path in another sandbox; "" = it does not concern the program.
func (w World) pattern(path string) string {
	if !filepath.IsAbs(path) {
		return "" // a pipe, or a socket without a name
	}
	if w.More != nil {
		if pattern := w.More(path); pattern != "" {
			return pattern
		}
	}
	for _, base := range append(slices.Clone(w.Bases), [2]string{"**", w.Root}) {
		rest, ok := strings.CutPrefix(path+"/", base[1]+"/")
		if !ok {
			continue
		}
		parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
		for i, part := range parts {
			if parts[i] = number.ReplaceAllString(fault.Quote(part), "*"); part == w.Name {
				parts[i] = "{name}"
			}
		}
		return strings.TrimSuffix(base[0]+"/"+strings.Join(parts, "/"), "/")
	}
	if w.All {
		return fault.Quote(path)
	}
	return ""
}
