// Package sweep has the system calls of a program fail, another one in each run: what the
// commands podscript and podclient share of -faults. It plans the runs, has them done side by
// side within their time, and tells findings with one cause once. What a run is, and what is
// found in it, is the business of the commands.
package sweep

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"time"

	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn/fault"
)

// Flags are the flags of a sweep.
type Flags struct {
	On, All bool
	Budget  time.Duration
	Seed    uint64       // a command adds -seed
	Fault   *fault.Fault // the only one; nil = all there are
}

// AddFlags adds the flags but for -seed. of is what makes the calls: pod, or client. cases are
// what the command runs without them.
func (f *Flags) AddFlags(flags *flag.FlagSet, of, cases string) {
	flags.BoolVar(&f.On, "faults", false, fmt.Sprintf("in place of %s, have each system call of the %s fail, one in each run (Linux)", cases, of))
	flags.Func("fault", fmt.Sprintf("have system calls of the %s meet the `FAULT` in the %s that -run names, such as rename:path=**/status.json:error=ENOSPC:when=1 (Linux)", of, cases), func(text string) error {
		f.Fault = new(fault.Fault)
		err := f.Fault.UnmarshalText([]byte(text))
		if word := unknownWord(*f.Fault); err == nil && word != "" {
			err = fmt.Errorf("%s stands for nothing: the words are {runtime}, {home}, {workspace} and {name}", word)
		}
		return err
	})
	flags.BoolVar(&f.All, "all", false, fmt.Sprintf("with -faults: all calls, also those of its loader and runtime and on files outside of the %s's sandbox, however long that takes", of))
	flags.DurationVar(&f.Budget, "budget", time.Minute, "with -faults: the `DURATION` in which runs begin; each kind of fault gets its share")
}

// unknownWord returns a word in braces that stands for nothing; "" = there is none.
func unknownWord(f fault.Fault) string {
	known := map[string]string{"runtime": "", "home": "", "workspace": "", "name": ""}
	return regexp.MustCompile(`\{[a-z]*\}`).FindString(f.Expand(known).Path)
}

// Check returns a UsageError if flags do not go together. about are the names of those that
// a sweep does not know, but that the cases do which are run without one.
func (f *Flags) Check(flags *flag.FlagSet, sweeps bool, cases string, about ...string) (err error) {
	this := map[bool]string{true: "-faults", false: "-fault"}[f.On]
	flags.Visit(func(g *flag.Flag) {
		switch {
		case sweeps && slices.Contains(about, g.Name):
			err = conformance.Usagef("-%s does not go with %s: it is about %s", g.Name, this, cases)
		case !f.On && (g.Name == "all" || g.Name == "budget" || g.Name == "seed" && flags.Lookup("random") == nil):
			err = conformance.Usagef("-%s goes with -faults", g.Name)
		}
	})
	switch {
	case err != nil:
	case f.On && f.Fault != nil:
		err = conformance.Usagef("-fault is one fault, and -faults all of them: choose")
	case f.On && f.Budget <= 0:
		err = conformance.Usagef("-budget %v leaves no time", f.Budget)
	}
	return err
}
