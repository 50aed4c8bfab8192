package sweep

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"example.com/podharness/scripts/internal/conformance"
)

// A Requirement is one that must hold when a system call fails.
type Requirement struct {
	ID, Level, Section string
	Text               string // it must, should or may …
	Fix                string
}

// A Run is one run of a trial. Its methods are called by the goroutine of Sweep.Try.
type Run struct {
	Trial
	sweep  *Sweep
	said   []said
	before []string // requirements of which an earlier run has found what may come of a busy machine
	unsure []string // those that this run is the first to find so
}

// said is what a run has found of a requirement.
type said struct {
	id, found string
	late      bool
}

// Again reports whether an earlier run has found what may come of a busy machine, or of too little
// time.
func (r *Run) Again() bool { return r.before != nil }

// Say notes what a run has found of a requirement; "" = it is met.
func (r *Run) Say(id, found string) { r.said = append(r.said, said{id: id, found: found}) }

// SayLate is Say of what may come of a busy machine. It is told if a second run finds it, too.
func (r *Run) SayLate(id, found string) { r.said = append(r.said, said{id, found, true}) }

// Settle ends a judgement, of which log tells what led there. It returns the directory that the
// evidence is to be kept in; "" = this run is not the first to show something.
func (r *Run) Settle(log []string) (evidence string) {
	s := r.sweep
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, said := range r.said {
		if said.found != "" && said.late && s.causes[r.causeOf(said.id)] == nil && !slices.Contains(r.before, said.id) {
			r.unsure = append(r.unsure, said.id)
			continue
		}
		if c := s.note(r, said); c != nil {
			c.log = strings.Join(log, "\n")
			if s.Evidence != "" && evidence == "" {
				evidence = s.EvidenceDir(c.ID, c.name())
			}
			c.evidence = evidence
		}
	}
	return evidence
}

// A cause is findings with one requirement, family of calls and path: they have one cause.
type cause struct {
	Requirement
	Trial    // the first one that showed it
	found    string
	log      string
	evidence string
	shownBy  map[Point]bool
}

func (t Trial) causeOf(id string) string {
	return strings.Join([]string{id, t.Case, t.Family, t.Path}, "\n")
}

// usualPlaces are those that a cause's name leaves out, and oddBytes what no name of a directory
// or in a list should have.
var (
	usualPlaces = regexp.MustCompile(`^(\{runtime\}/\{name\}/|\{runtime\}/|\*\*/|/)`)
	oddBytes    = regexp.MustCompile(`[^\pL\pN_.@+=-]+`)
)

// name is the cause's in reports, such as rename-status.json, or rename-home-status.json.
func (c *cause) name() string {
	if c.Path == "" {
		return c.Family
	}
	path := usualPlaces.ReplaceAllString(c.Path, "")
	path = strings.NewReplacer(`\`, "", "{", "", "}", "", "-*", "", "*", "", "/", "-").Replace(path)
	const longest = 100
	path = oddBytes.ReplaceAllString(path, "_")
	return c.Family + "-" + strings.ToValidUTF8(path[:min(len(path), longest)], "")
}

// note notes what was found, and returns its cause if it is the first finding of that.
func (s *Sweep) note(r *Run, said said) (fresh *cause) {
	s.judged[said.id]++
	if said.found == "" {
		return nil
	}
	key := r.causeOf(said.id)
	c := s.causes[key]
	if c == nil {
		i := slices.IndexFunc(s.Requirements, func(r Requirement) bool { return r.ID == said.id })
		fresh = &cause{Requirement: s.Requirements[i], Trial: r.Trial, found: said.found, shownBy: map[Point]bool{}}
		c, s.causes[key] = fresh, fresh
	}
	c.shownBy[r.Point] = true
	return fresh
}

// StruckNothing is why nothing is said of the one fault there is.
const StruckNothing = "the fault has struck nothing: the call did not come"

// checks returns what was found of a requirement. The first one has the kit's trouble, too.
func (s *Sweep) checks(r Requirement, first bool) (checks []conformance.Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	check := conformance.Check{Case: r.ID, Requirement: r.ID, Level: r.Level, Section: r.Section, Result: conformance.Skip}
	switch {
	case s.skip != "":
		check.Why = s.skip
		return []conformance.Check{check}
	case s.broken != "":
		check.Why = fmt.Sprintf("needs a %s that is healthy without faults", s.Of)
		if first {
			check.Result, check.Why = conformance.Error, fmt.Sprintf("the %s is not healthy without faults: %s", s.Of, s.broken)
		}
		return []conformance.Check{check}
	}
	for _, c := range s.causes {
		if c.ID == r.ID {
			checks = append(checks, s.finding(c, check))
		}
	}
	slices.SortFunc(checks, func(a, b conformance.Check) int { return cmp.Compare(a.Case, b.Case) })
	if len(s.trouble) > 0 && first {
		bad := check
		bad.Result, bad.Why = conformance.Error, s.trouble[0]
		if n := len(s.trouble); n > 1 {
			bad.Why = fmt.Sprintf("%d times something could not be judged, first: %s", n, s.trouble[0])
		}
		return append(checks, bad)
	}
	switch {
	case len(checks) > 0:
		return checks
	case s.judged[r.ID] == 0 && s.Faults.Fault != nil && s.missed > 0:
		check.Why = StruckNothing
	case s.judged[r.ID] == 0:
		check.Why = "no run was about it"
	case s.isStopped():
		check.Why = fmt.Sprintf("interrupted after %d of %d runs, which have found nothing", s.runs, s.planned)
	default:
		check.Result = conformance.Pass
	}
	return []conformance.Check{check}
}

// finding returns the check of a cause.
func (s *Sweep) finding(c *cause, check conformance.Check) conformance.Check {
	check.Case, check.Result, check.Log, check.Fix, check.Evidence = c.name(), s.NotMet(c.Level), c.log, c.Fix, c.evidence
	many := "1 point shows this"
	if n := len(c.shownBy); n > 1 {
		many = fmt.Sprintf("%d points show this", n)
	}
	check.Why = strings.Join([]string{c.found, fmt.Sprintf("a %s %s %s (%s)", s.Of, c.Level, c.Text, c.Section),
		many + ", first " + c.Trial.String() + "; -known calls it " + c.ID + "/" + c.name(), "repeat: " + s.Repeat(c.ID, c.Trial)}, "\n")
	return check
}
