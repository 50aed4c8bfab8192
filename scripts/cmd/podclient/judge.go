package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn/proc"
)

const (
	// prompt is how long after it could be known a client may end.
	prompt = 2 * time.Second
	// early is how much too soon a timeout may come: clocks are coarse.
	early = 100 * time.Millisecond
	// gone is how long a killed process may take to be gone.
	gone = 500 * time.Millisecond
	// livesOn is how long a pod is looked at: one that was just killed is there yet.
	livesOn = 100 * time.Millisecond
)

// A finding is what is wrong with the client.
type finding struct{ why, section, key string }

// found returns a finding against a section of the contract. The numbers of processes,
// durations, and the place of the sandbox do not make it another one.
func (s *sweepCase) found(section, format string, args ...any) *finding {
	key := format
	for _, arg := range args {
		switch arg.(type) {
		case int, time.Duration, processes:
		default:
			key += fmt.Sprint(" ", arg)
		}
	}
	return &finding{fmt.Sprintf(format+" (%s)", append(args, section)...), section, strings.ReplaceAll(key, s.root(), "")}
}

// judge returns the checks of all requirements that the case concerns.
func (s *sweepCase) judge() []conformance.Check {
	s.readOutput()
	dir := filepath.Join(s.runtime, s.pod)
	if s.dir != "" {
		dir = filepath.Join(s.root(), s.dir, s.pod)
	}
	want := s.want.For(s.pod, dir)
	events := s.readTrace()
	if len(events) > 0 {
		s.pid = events[0].pid
	}
	var checks []conformance.Check
	check := func(requirement, level string, f *finding) {
		c := conformance.Check{Case: s.name, Requirement: requirement, Level: level, Section: sections[requirement], Result: conformance.Pass, Seconds: time.Since(s.begun).Seconds()}
		if f != nil {
			c.Result, c.Why, c.Section, c.Key = s.notMet(level), f.why, f.section, requirement+" "+f.key
		}
		checks = append(checks, c)
	}
	arguments, verdict := s.arguments(), s.verdict(want)
	if s.given != nil {
		check("arguments", conformance.Must, arguments)
	}
	// A pod that was told something else proves nothing.
	if verdict == nil || arguments == nil {
		check("verdict", conformance.Must, verdict)
	}
	if verdict != nil && arguments == nil && s.tooSlow(want, events) {
		skipped := checks[len(checks)-1]
		skipped.Result, skipped.Why = conformance.Skip, fmt.Sprintf("the pod itself took longer than half of the timeout of %v; on a machine this busy that must be longer (-timeout)", s.timeout)
		return []conformance.Check{skipped}
	}
	if s.pid != 0 && verdict == nil {
		check("prompt", conformance.Must, s.prompt(want, events))
	}
	if want.Verdict == oracle.Ready && verdict == nil {
		check("independent", conformance.Must, s.independent(dir))
	}
	if !s.late && !s.client.State().Success() {
		check("clean", conformance.Must, s.clean())
	}
	if want.Verdict != oracle.Ready && verdict == nil {
		check("reason", conformance.Should, s.reason(want))
	}
	check("terminal", conformance.Should, s.terminal(want))
	return checks
}

// maxOutput is how much of each output is looked at: of its begin, and of its end.
const maxOutput = 256 << 10

// readOutput reads what the client has said.
func (s *sweepCase) readOutput() {
	for _, text := range []string{s.client.Stderr(), s.client.Stdout()} {
		if len(text) > 2*maxOutput {
			text = strings.ToValidUTF8(text[:maxOutput], "") + "\n" + strings.ToValidUTF8(text[len(text)-maxOutput:], "")
		}
		s.output += text
	}
}

// firstWords are enough of what the client has said to find it again.
func (s *sweepCase) firstWords() string {
	line, _, _ := strings.Cut(strings.TrimSpace(s.output), "\n")
	if line == "" {
		return "nothing"
	}
	return fmt.Sprintf("%.200q", line)
}

func (s *sweepCase) verdict(want oracle.Outcome) *finding {
	state := s.client.State()
	switch {
	case s.late:
		return s.found("4", "the client did not end within %v, and said %s; it must end when the start has, within its timeout of %v (-timeout) at the latest", s.longest, s.firstWords(), s.timeout)
	case s.refused == "" && s.given == nil:
		return s.found("1", "the client ended with %v before a pod had begun, and said %s; it must start what YOI_POD_RUNTIME_COMMAND names, and wait for it", state, s.firstWords())
	case want.Verdict == oracle.Ready && !state.Success():
		return s.found("2, 3", "the client ended with %v and said %s; the pod became ready, so it must end with status 0", state, s.firstWords())
	case want.Verdict != oracle.Ready && state.Success():
		return s.found("2, 3, 4", "the client ended with status 0 where the start is: %v; it must end with another status", want)
	case want.Verdict != oracle.Ready && strings.TrimSpace(s.output) == "":
		return s.found("4", "the client ended with %v without a word; it must say why the pod did not start: %v", state, want)
	case want.Verdict == oracle.TimedOut && s.took < s.timeout-early:
		return s.found("3, 4", "the client gave up after %v and said %s; it must wait for the whole timeout, %v (-timeout), since the pod may become ready until then", s.took.Round(time.Millisecond), s.firstWords(), s.timeout)
	}
	return nil
}

// prompt measures from the pod's own event, or from its begin where only the
// timeout decides.
func (s *sweepCase) prompt(want oracle.Outcome, events []event) *finding {
	since, what := events[0].at+int64(s.timeout), fmt.Sprintf("the timeout of %v was over", s.timeout)
	if want.Step >= 0 {
		since, what = events[len(events)-1].at, "it could be known: "+want.String()
		if e := decided(want, events); e != nil {
			since = e.at
		}
	}
	if late := time.Duration(s.ended - since); late > prompt {
		return s.found("3, 4", "the client ended %v after %s; it must within %v", late.Round(10*time.Millisecond), what, prompt)
	}
	return nil
}

// decided returns the event at which the outcome could be known; nil = it has not
// come to that.
func decided(want oracle.Outcome, events []event) (at *event) {
	for i, e := range events {
		if e.step == want.Step || e.step == want.Step+1 { // the step, or what follows it
			at = &events[i]
		}
	}
	return at
}

// tooSlow reports whether the client has waited for its whole timeout, in which
// the pod has hardly come to what decides: that proves nothing against the client.
func (s *sweepCase) tooSlow(want oracle.Outcome, events []event) bool {
	if s.late || want.Step < 0 || s.refused != "" || s.took < s.timeout-early || len(events) == 0 {
		return false
	}
	e := decided(want, events)
	return e == nil || time.Duration(e.at-s.ended)+s.took > s.timeout/2
}

// clean looks for what is left of a pod whose start has failed.
func (s *sweepCase) clean() *finding {
	if path := filepath.Join(s.root(), s.touched); s.touched != "" {
		if _, err := os.Lstat(path); err == nil {
			return s.found("1", "the client has made %s; a name that is no path element must be refused before anything is touched", path)
		}
	}
	if s.pid == 0 {
		return nil
	}
	for end := time.Now().Add(gone); ; <-time.After(5 * time.Millisecond) {
		left := members(s.pid)
		switch over := time.Now().After(end); {
		case len(left) == 0 && proc.Ended(s.pid):
			return nil
		case over && len(left) == 0:
			return s.found("4", "the client has left the pod, process %d; after a failed start it must be killed, with its whole group", s.pid)
		case over:
			return s.found("4", "the client has left of the pod: %s; after a failed start the whole group must be killed", left)
		}
	}
}

// reason looks for what explains the failure in what the client has said.
func (s *sweepCase) reason(want oracle.Outcome) *finding {
	says := func(words ...string) *finding {
		for _, w := range words {
			// Wherever its lines are wrapped.
			if !strings.Contains(strings.ToLower(strings.Join(strings.Fields(s.output), " ")), strings.ToLower(strings.TrimSpace(w))) {
				return s.found("4", "the client said %s; it should say %q, which explains the failure", s.firstWords(), w)
			}
		}
		return nil
	}
	switch want.Verdict {
	case oracle.Exited:
		if len(want.Tail) > 0 {
			return says(words(want.Tail[len(want.Tail)-1])...)
		}
		return says(words(want.Unfinished)...)
	case oracle.WrongName:
		return says(want.Name)
	case oracle.Malformed:
		return says("YOI-READY")
	case oracle.TimedOut:
		if want.Socket != "" {
			return says(filepath.Base(want.Socket))
		}
		return says("ready")
	case "refused":
		return says(s.refused)
	}
	return nil
}

var word = regexp.MustCompile(`[A-Za-z][A-Za-z ]{2,39}`)

// words returns the parts of a line that no client has to escape.
func words(line string) []string {
	found := word.FindAllString(line, 3)
	// After an escape, letters may be part of that.
	if strings.Contains(line, "\x1b") && len(found) > 0 {
		found = found[len(found)-1:]
		found[0] = found[0][len(found[0])-3:]
	}
	return found
}

// terminal looks for what the pod wrote and would rule a terminal. Colours of its
// own are the client's business.
func (s *sweepCase) terminal(want oracle.Outcome) *finding {
	const should = "the client wrote the raw bytes %.20q; control characters of a pod, and what is no UTF-8, should be escaped"
	if valid := strings.ToValidUTF8(s.output, "\xff"); strings.Contains(valid, "\xff") {
		return s.found("2", should, valid[max(0, strings.Index(valid, "\xff")-4):])
	}
	said := strings.Join(append([]string{want.Line, want.Name, want.Unfinished}, want.Tail...), "\n")
	for _, sequence := range control.FindAllString(said, -1) {
		if strings.Contains(s.output, sequence) {
			return s.found("2", should, sequence)
		}
	}
	return nil
}

// control matches a control character with what gives it a meaning.
var control = regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f-\x{9f}][^\x00-\x1f\x7f-\x{9f}]+`)

// independent looks at the pod that is ready, when its client has ended.
func (s *sweepCase) independent(dir string) *finding {
	for end := time.Now().Add(livesOn); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if proc.Ended(s.pid) {
			return s.found("1", "the client has left no pod that lives; it must live on without its client")
		}
	}
	if group, err := syscall.Getpgid(s.pid); err == nil && group != s.pid {
		return s.found("1", "the pod (process %d) is in process group %d; it must lead one of its own", s.pid, group)
	}
	if len(members(s.pid)) == 0 {
		return nil // this system does not tell more
	}
	log := filepath.Join(dir, "stderr.log")
	for fd, want := range []string{os.DevNull, os.DevNull, log} {
		got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid, fd))
		got = strings.TrimSuffix(got, " (deleted)")
		if real, evalErr := filepath.EvalSymlinks(dir); evalErr == nil && fd == 2 {
			want = filepath.Join(real, "stderr.log")
		}
		if err == nil && got != want {
			return s.found("1", "the pod's %s is %s; it must be %s", []string{"stdin", "stdout", "stderr"}[fd], got, want)
		}
	}
	if stray := inherited(s.pid); len(stray) > 0 {
		return s.found("1", "the pod has inherited %s; it must inherit no other descriptor than 0, 1 and 2, not even a stray one", strings.Join(stray, ", "))
	}
	return s.files(dir, log)
}

// files looks at the directory and the log of the pod.
func (s *sweepCase) files(dir, log string) *finding {
	for path, want := range map[string]os.FileMode{dir: 0o700, log: 0o600} {
		info, err := os.Lstat(path)
		if err == nil && info.Mode().Perm() != want {
			return s.found("1", "%s has the mode %#o; it must be %#o", "the pod's "+map[bool]string{true: "directory", false: "stderr.log"}[path == dir], info.Mode().Perm(), want)
		}
	}
	// Through the pod's own descriptor: it may have removed the log.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/2", s.pid))
	if err == nil && !strings.Contains(string(text), "YOI-READY\t") {
		return s.found("1", "the pod's log does not hold its ready line; the log must be the pod's stderr itself")
	}
	return nil
}

// inherited returns the descriptors above 2 that a fake pod, which opens its own
// close-on-exec, was given.
func inherited(pid int) (stray []string) {
	dir := fmt.Sprintf("/proc/%d", pid)
	entries, _ := os.ReadDir(dir + "/fd")
	for _, entry := range entries {
		info, err := os.ReadFile(dir + "/fdinfo/" + entry.Name())
		_, flags, ok := strings.Cut(string(info), "flags:\t")
		bits, parseErr := strconv.ParseUint(strings.Fields(flags + " x")[0], 8, 64)
		if fd, _ := strconv.Atoi(entry.Name()); fd <= 2 || err != nil || !ok || parseErr != nil || bits&syscall.O_CLOEXEC != 0 {
			continue
		}
		target, _ := os.Readlink(dir + "/fd/" + entry.Name())
		stray = append(stray, fmt.Sprintf("descriptor %s (%s)", entry.Name(), target))
	}
	return stray
}

// arguments looks at what the pod was told on its command line.
func (s *sweepCase) arguments() *finding {
	given := s.given
	if given == nil {
		return nil // it was not started, or has not come to tell
	}
	shown := strings.Join(given, " ")
	if len(given) == 0 || given[0] != "pod" {
		return s.found("1", "the pod was given: %s; the prefix argument pod must come first, since YOI_POD_RUNTIME_COMMAND replaces the program only", shown)
	}
	workspace, name := value(given, "--workspace"), value(given, "--pod")
	switch info, err := os.Stat(workspace); {
	case name != s.pod:
		return s.found("1", "the pod was given: %s; it must be given --pod %s", shown, s.pod)
	case workspace == "" || filepath.IsAbs(workspace) && (err != nil || !info.IsDir()):
		return s.found("1", "the pod was given: %s; it must be given --workspace with a directory that is there", shown)
	}
	return nil
}

func value(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// processes are numbers, as a message names them.
type processes []int

func (p processes) String() string {
	words := make([]string, len(p))
	for i, pid := range p {
		words[i] = fmt.Sprint("process ", pid)
	}
	return strings.Join(words, ", ")
}

// members returns the processes of a group that have not ended; none where the system
// does not show them.
func members(group int) (found processes) {
	for _, pid := range proc.All() {
		if p, ok := proc.Lookup(pid); ok && p.Group == group && p.State != 'Z' {
			found = append(found, pid)
		}
	}
	return found
}
