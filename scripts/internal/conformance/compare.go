package conformance

import (
	_ "embed"
	"flag"
	"os"
	"strings"
)

// compare writes the page of -html, if it is of runs in files: then nothing is run.
func (f *Flags) compare(flags *flag.FlagSet) (done bool, err error) {
	for _, arg := range flags.Args() {
		if !strings.HasSuffix(arg, ".json") {
			return false, nil
		}
	}
	if f.html == "" || flags.NArg() == 0 {
		return false, nil
	}
	flags.Visit(func(other *flag.Flag) {
		if other.Name != "html" {
			err = Usagef("-%s goes with a run, and -html with files of JSON runs nothing", other.Name)
		}
	})
	var runs []*Results
	for _, path := range flags.Args() {
		if err != nil {
			return true, err
		}
		var run *Results
		if run, err = readRun(path, flags.Name()); err != nil {
			return true, UsageError{err}
		}
		runs = append(runs, run)
	}
	var text strings.Builder
	if err := writeHTML(&text, runs); err != nil {
		return true, err
	}
	if err := os.WriteFile(f.html, []byte(text.String()), 0o666); err != nil {
		return true, UsageError{err}
	}
	return true, nil
}
