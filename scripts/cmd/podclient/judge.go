package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn/podlog"
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
	// soon is how long after it could be known a client should notice.
	soon = 500 * time.Millisecond
	// settled is how long a client may be busy with what the pod did last.
	settled = 500 * time.Millisecond
)

// A finding is what is wrong with the client.
type finding struct {
	why, section, key string
	result            string // "" = that of a requirement that was not met
}

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
	return &finding{why: fmt.Sprintf(format+" (%s)", append(args, section)...), section: section, key: strings.ReplaceAll(key, s.root(), "")}
}

// unseen is a requirement that could not be judged here.
func (s *sweepCase) unseen(format string, args ...any) *finding {
	return &finding{why: "not judged: " + fmt.Sprintf(format, args...), result: conformance.Skip}
}

// judge returns the checks of all requirements that the case concerns.
func (s *sweepCase) judge() []conformance.Check {
	s.readOutput()
	want := s.want.For(s.pod, s.podDir)
	s.readTrace()
	verdict, arguments := s.verdict(want), s.arguments()
	if verdict != nil || want.Verdict == refused {
		if why := s.trouble(want); why != "" {
			return []conformance.Check{s.kitTrouble(why)}
		}
	}
	if s.signalledLate(want) || verdict != nil && arguments == nil && (s.tooSlow(want) || s.lackedTime()) {
		checks := []conformance.Check{s.check("verdict", s.unseen("the pod, or the client, had too little time within the timeout of %v; on a machine this busy that must be longer (-timeout)", s.settings.timeout))}
		if slices.Contains(s.about, "memory") {
			checks = append(checks, s.check("memory", s.memory()))
		}
		return checks
	}
	var checks []conformance.Check
	check := func(id string, concerned bool, judge func() *finding) {
		if concerned {
			checks = append(checks, s.check(id, judge()))
		}
	}
	about := func(id string) bool { return verdict == nil && slices.Contains(s.about, id) }
	alive, failed := want.Verdict == oracle.Ready && verdict == nil, !s.late && !s.succeeded()
	known := func(f *finding) func() *finding { return func() *finding { return f } }
	check("arguments", s.seen.Args != nil, known(arguments))
	// A pod that was told something else proves nothing.
	check("verdict", verdict == nil || arguments == nil, known(verdict))
	late := false
	check("prompt", verdict == nil && (s.pid != 0 || want.Verdict == refused), func() *finding {
		f := s.prompt(want)
		late = f != nil && f.result == ""
		return f
	})
	check("independent", alive || s.second, s.independent)
	check("workspace", s.seen.Inherited != nil && arguments == nil, s.inWorkspace)
	check("inherits", about("inherits"), s.inherits)
	check("clean", failed && !s.second, s.clean)
	check("log", failed && s.pid != 0 && want.Verdict != oracle.Ready && !s.second && s.leavesLog(), func() *finding { return s.logKept(want) })
	check("silent", about("silent"), s.silent)
	check("memory", slices.Contains(s.about, "memory") && s.pid != 0, s.memory)
	check("reason", verdict == nil && (s.pid != 0 || want.Verdict == refused) && !slices.Contains([]oracle.Verdict{oracle.Ready, cancelled, either}, want.Verdict), func() *finding { return s.reason(want) })
	check("terminal", true, func() *finding { return s.terminal(want) })
	check("notices", about("notices") && !late, func() *finding { return s.notices(want) })
	check("idle", about("idle"), s.idle)
	check("rereads", about("rereads"), s.rereads)
	check("signals", about("signals"), s.signals)
	check("one-pod", about("one-pod"), s.onePod)
	return checks
}

// check is the result of a requirement: pass if there is no finding.
func (s *sweepCase) check(id string, f *finding) conformance.Check {
	r := find(id)
	if id == "verdict" && strings.HasPrefix(s.pod, "-") {
		r = find("dash-name")
	}
	c := conformance.Check{Case: s.name, Requirement: r.id, Level: r.level, Section: r.section, Result: conformance.Pass, Seconds: time.Since(s.begun).Seconds()}
	if f != nil {
		c.Result, c.Why, c.Section, c.Key = cmp.Or(f.result, s.settings.NotMet(r.level)), f.why, cmp.Or(f.section, r.section), r.id+" "+f.key
	}
	return c
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
	line := firstLine(s.output)
	if line == "" {
		return "nothing"
	}
	return fmt.Sprintf("%.200q", line)
}

// succeeded reports whether the client has said that the pod is ready.
func (s *sweepCase) succeeded() bool {
	if s.settings.ready != "" {
		return s.said
	}
	return !s.late && s.client.State().Success()
}

// how tells how the client ended.
func (s *sweepCase) how() string {
	if s.said {
		return "said that the pod is ready (-ready)"
	}
	if s.dashes {
		return fmt.Sprintf("ended, also with -- before the name, with %v", s.client.State())
	}
	return fmt.Sprintf("ended with %v", s.client.State())
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

func (s *sweepCase) verdict(want oracle.Outcome) *finding {
	state, ready := s.client.State(), "end with status 0"
	if s.settings.ready != "" {
		ready = "say so: -ready matches nowhere in its output"
	}
	switch {
	case s.late && s.starved():
		return s.unseen("the client did not end within %v, and had no core for much of that", s.longest)
	case s.late:
		return s.found("4", "the client did not end within %v, and said %s; it must end when the start has, within its timeout of %v (-timeout) at the latest", s.longest, s.firstWords(), s.settings.timeout)
	case want.Verdict == either:
	case want.Verdict != refused && s.seen.Args == nil:
		return s.found("1", "the client %s before a pod had begun, and said %s; it must start what YOI_POD_RUNTIME_COMMAND names, and wait for it", s.how(), s.firstWords())
	case want.Verdict == oracle.Ready && !s.succeeded():
		return s.found("2, 3", "the client %s and said %s; the pod became ready, so it must %s", s.how(), s.firstWords(), ready)
	case want.Verdict == cancelled && s.signalled.Load() == 0:
		return s.found("3, 4", "the client %s and said %s while the pod was still starting; it must wait for the pod", s.how(), s.firstWords())
	case want.Verdict == cancelled && (s.said || state.Success()):
		return s.found("4", "the client %s when %v had come in the middle of a start; it must end with another status than 0", s.how(), s.signal)
	case want.Verdict != oracle.Ready && (s.said || state.Success()):
		return s.found("2, 3, 4", "the client %s where the start is: %v; it must end with another status than 0", s.how(), want)
	case want.Verdict != oracle.Ready && want.Verdict != cancelled && strings.TrimSpace(s.output) == "":
		return s.found("4", "the client %s without a word; it must say why the pod did not start: %v", s.how(), want)
	case want.Verdict == oracle.TimedOut && s.took < s.settings.timeout-early:
		return s.found("3, 4", "the client gave up after %v and said %s; it must wait for the whole timeout, %v (-timeout), since the pod may become ready until then", s.took.Round(time.Millisecond), s.firstWords(), s.settings.timeout)
	}
	return nil
}

// prompt measures from the pod's own event, from its begin where only the timeout
// decides, or from the signal that ended the start.
func (s *sweepCase) prompt(want oracle.Outcome) *finding {
	limit := min(prompt, s.settings.timeout/2)
	var since int64
	var what string
	switch {
	case want.Verdict == refused, want.Verdict == either:
		since, what = s.clientBegun, "it began"
		limit += s.settings.timeout // it may start another one, in vain
		if want.Verdict == refused {
			limit = s.settings.timeout - early
		}
	case want.Verdict == cancelled:
		since, what = s.signalled.Load(), fmt.Sprintf("%v had come", s.signal)
	case want.Step < 0:
		since, what = s.seen.Steps[0].At+int64(s.settings.timeout), fmt.Sprintf("the timeout of %v was over", s.settings.timeout)
	default:
		since, what = s.seen.Steps[len(s.seen.Steps)-1].At, "it could be known: "+want.String()
		if e := s.decided(want); e != nil {
			since = e.At
		}
	}
	late := time.Duration(s.ended - since)
	switch rounded := late.Round(10 * time.Millisecond); {
	case late <= limit:
		return nil
	case s.wasBusy(since, limit):
		return s.unseen(lacked, rounded, what)
	default:
		return s.found("3, 4", "the client %s %v after %s; it must within %v", strings.Replace(s.how(), "ended with", "ended, with", 1), rounded, what, limit)
	}
}

// decided returns the step at which the outcome could be known; nil = it has not come to
// that.
func (s *sweepCase) decided(want oracle.Outcome) (at *fakepod.Began) {
	for i, b := range s.seen.Steps {
		if b.Step == want.Step || b.Step == want.Step+1 { // the step, or what follows it
			at = &s.seen.Steps[i]
		}
	}
	return at
}

// tooSlow reports whether the client has waited for its whole timeout, in which
// the pod has hardly come to what decides: that proves nothing against the client.
func (s *sweepCase) tooSlow(want oracle.Outcome) bool {
	if s.late || want.Step < 0 || s.refused != "" || s.took < s.settings.timeout-early || len(s.seen.Steps) == 0 {
		return false
	}
	e := s.decided(want)
	return e == nil || time.Duration(e.At-s.ended)+s.took > s.settings.timeout/2
}

// signalledLate reports whether the signal came so late that the client may have timed out,
// because the pod was slow.
func (s *sweepCase) signalledLate(want oracle.Outcome) bool {
	if want.Verdict != cancelled || s.late {
		return false
	}
	if at := s.signalled.Load(); at != 0 {
		return time.Duration(at-s.seen.Steps[0].At) > s.settings.timeout/2
	}
	return s.took >= s.settings.timeout-early
}

// clean looks for what is left of a pod whose start has failed, or of a refused name.
func (s *sweepCase) clean() *finding {
	if s.refused == badName {
		if made := s.touched(); len(made) > 0 {
			return s.found("1", "the client has made %s; such a name must be refused before anything is touched", strings.Join(made, ", "))
		}
		if s.seen.Args != nil {
			return s.found("1", "the client has started the pod, with: %s; it must refuse the name itself", strings.Join(s.seen.Args, " "))
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
	case oracle.SocketError:
		return says(words(filepath.Base(want.Socket))...)
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
		if last := s.seen.Steps[len(s.seen.Steps)-1].At; want.Socket != "" && last-s.clientBegun > int64(s.settings.timeout-2*early) {
			return s.unseen("the pod was late to announce its socket")
		}
		if want.Socket != "" {
			return says(words(filepath.Base(want.Socket))...)
		}
		return says("ready")
	case refused:
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
	said := strings.Join(append([]string{want.Line, want.Name, want.Unfinished, rulers}, want.Tail...), "\n")
	for _, sequence := range control.FindAllString(said, -1) {
		if strings.Contains(s.output, sequence) {
			return s.found("2", should, sequence)
		}
	}
	return nil
}

// control matches a control character with what gives it a meaning.
var control = regexp.MustCompile(`[\x00-\x08\x0b-\x1f\x7f-\x{9f}][^\x00-\x1f\x7f-\x{9f}]+`)

// touched returns what there is in the sandbox where only a pod that is started has something.
func (s *sweepCase) touched() (made []string) {
	for _, path := range []string{s.root(), s.runtime} {
		entries, _ := os.ReadDir(path)
		for _, entry := range entries {
			if path == s.runtime || entry.Name() == "stderr.log" || entry.Name() == "outside" {
				made = append(made, podlog.Printable(filepath.Join(path, entry.Name())))
			}
		}
	}
	return made
}

// independent looks at the pod that is ready, when its client has ended.
func (s *sweepCase) independent() *finding {
	if s.second {
		if proc.Ended(s.pid) {
			return s.found("1", "the client has ended the pod that answered before; it must leave that alone")
		}
		return nil
	}
	if s.pid == 0 {
		return s.found("1", "the client has left no pod: the one that it started has not begun; it must live on without its client")
	}
	serves := s.seen.Steps[len(s.seen.Steps)-1].Process // which the pod has left in its place, if it is a daemon
	for end := time.Now().Add(livesOn); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if proc.Ended(serves) {
			return s.found("1", "the client has left no pod that lives; it must live on without its client")
		}
	}
	if serves != s.pid {
		return nil // the rest is the daemon's own
	}
	if seen := s.seen.Inherited; seen != nil && seen.ParentDeathSignal != 0 {
		return s.found("1", "the pod gets %v when the process that has started it ends (PR_SET_PDEATHSIG); it must live on then", syscall.Signal(seen.ParentDeathSignal))
	}
	if group, err := syscall.Getpgid(s.pid); err == nil && group != s.pid {
		return s.found("1", "the pod (process %d) is in process group %d; it must lead one of its own", s.pid, group)
	}
	if len(members(s.pid)) == 0 {
		return nil // this system does not tell more
	}
	for fd, want := range []string{os.DevNull, os.DevNull, s.logPath()} {
		got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid, fd))
		got = strings.TrimSuffix(got, " (deleted)")
		if real, evalErr := filepath.EvalSymlinks(s.podDir); evalErr == nil && fd == 2 {
			want = filepath.Join(real, "stderr.log")
		}
		if err == nil && got != want {
			return s.found("1", "the pod's %s is %s; it must be %s", []string{"stdin", "stdout", "stderr"}[fd], got, want)
		}
	}
	fds := descriptors(s.pid)
	if flags, ok := fds[2]; ok && flags&syscall.O_APPEND == 0 {
		return s.found("1", "the pod's log is not open for appending (O_APPEND); it must be, or a log that is truncated gets a hole")
	}
	if stray := inherited(s.pid, fds); len(stray) > 0 {
		return s.found("1", "the pod has inherited %s; it must inherit no other descriptor than 0, 1 and 2, not even a stray one", strings.Join(stray, ", "))
	}
	return s.files()
}

func (s *sweepCase) logPath() string { return filepath.Join(s.podDir, "stderr.log") }

// files looks at the directories and the log that the client has made.
func (s *sweepCase) files() *finding {
	type made struct {
		path, what string
		mode       os.FileMode
	}
	wants := []made{{s.podDir, "directory", 0o700}, {s.logPath(), "stderr.log", 0o600}}
	for dir := filepath.Dir(s.podDir); dir != s.root() && !slices.Contains(sandboxDirs, strings.TrimPrefix(dir, s.root()+"/")); dir = filepath.Dir(dir) {
		wants = append(wants, made{dir, "directory's parent " + dir, 0o700})
	}
	for _, want := range wants {
		if info, err := os.Lstat(want.path); err == nil && info.Mode().Perm() != want.mode {
			return s.found("1", "%s has the mode %#o; it must be %#o", "the pod's "+want.what, info.Mode().Perm(), want.mode)
		}
	}
	// Through the pod's own descriptor: it may have removed the log.
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/2", s.pid))
	if err == nil && !strings.Contains(string(text), "YOI-READY\t") {
		return s.found("1", "the pod's log does not hold its ready line; the log must be the pod's stderr itself")
	}
	return nil
}

// sandboxDirs are there before the client.
var sandboxDirs = []string{"run", "workspace", "home", "home/.yoi", "tmp", "xdg"}

// descriptors returns the descriptors of a process, with the flags of open.
func descriptors(pid int) map[int]uint64 {
	all := map[int]uint64{}
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	for _, entry := range entries {
		info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, entry.Name()))
		_, flags, ok := strings.Cut(string(info), "flags:\t")
		bits, parseErr := strconv.ParseUint(strings.Fields(flags + " x")[0], 8, 64)
		if fd, fdErr := strconv.Atoi(entry.Name()); err == nil && ok && parseErr == nil && fdErr == nil {
			all[fd] = bits
		}
	}
	return all
}

// inherited returns the descriptors above 2 that a fake pod, which opens its own
// close-on-exec, was given.
func inherited(pid int, fds map[int]uint64) (stray []string) {
	for _, fd := range slices.Sorted(maps.Keys(fds)) {
		if fd > 2 && fds[fd]&syscall.O_CLOEXEC == 0 {
			target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
			stray = append(stray, fmt.Sprintf("descriptor %d (%s)", fd, target))
		}
	}
	return stray
}

// leavesLog reports whether the pod itself leaves its log alone.
func (s *sweepCase) leavesLog() bool {
	steps, _ := fakepod.Parse(s.program)
	return !slices.ContainsFunc(steps, func(s fakepod.Step) bool {
		return slices.Contains([]string{"unlink", "truncate", "stop", "kill", "on"}, s.Verb) && s.Arg(0, "") != "KILL" && s.Arg(0, "") != "STOP"
	})
}

// logKept looks at the log of a start that has failed.
func (s *sweepCase) logKept(want oracle.Outcome) *finding {
	info, err := os.Lstat(s.logPath())
	switch {
	case err != nil:
		return s.found("4", "the pod's log is gone: %v; it must stay after a failed start", err)
	case !info.Mode().IsRegular() || info.Mode().Perm() != 0o600:
		return s.found("1, 4", "the pod's log is left with the mode %v; it must stay as it was, a file with the mode 0600", info.Mode())
	case s.size > 0 && info.Size() != s.size:
		return s.found("4", "the pod's log has %d bytes; it must stay whole after a failed start, with the %d that the pod has written", info.Size(), s.size)
	}
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		return s.unseen("%v", err)
	}
	left := strings.ReplaceAll(strings.ToValidUTF8(string(text), "\uFFFD"), "\r\n", "\n")
	for _, line := range append(slices.Clone(want.Tail), want.Line, want.Unfinished) {
		if !strings.Contains(left, strings.ToValidUTF8(line, "\uFFFD")) {
			return s.found("4", "the pod's log lacks %.100q, which the pod has written; it must stay whole after a failed start", line)
		}
	}
	return nil
}

// onePod looks at what became of a start while a pod of the name answered.
func (s *sweepCase) onePod() *finding {
	if s.succeeded() {
		return s.found("1", "the client has started a second pod of the name; it may refuse that while one answers")
	}
	return nil
}

// arguments looks at what the pod was told on its command line.
func (s *sweepCase) arguments() *finding {
	given := s.seen.Args
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
	case strings.HasPrefix(workspace, "--") || workspace == "" || filepath.IsAbs(workspace) && (err != nil || !info.IsDir()):
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
