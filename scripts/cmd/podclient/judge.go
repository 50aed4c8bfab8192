package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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
		if f.result == "" && s.random == nil { // of a random one the program is shown
			c.Why += "\ncase " + s.name + ": " + s.doc
		}
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

// firstLine returns what a client has said first, of an exception in Python what comes last.
func firstLine(text string) string {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "Traceback (most recent call last):") {
		return text[strings.LastIndexByte(text, '\n')+1:]
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
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
