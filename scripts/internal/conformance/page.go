package conformance

import (
	_ "embed"
	"flag"
	"fmt"
	"html/template"
	"io"
	"os"
	"strings"

	"example.com/podharness/spawn/podlog"
)

// A page shows runs side by side.
type page struct {
	Runs []*Results
	Rows []*row
}

//go:embed page.html.tmpl
var pageText string

// writeHTML writes a page that shows runs of one command side by side. The template shows
// all that a pod or client may have written by way of show.
func writeHTML(w io.Writer, runs []*Results) error {
	t, err := template.New("page").Funcs(template.FuncMap{"show": podlog.PrintableLines, "shown": shown}).Parse(pageText)
	if err != nil {
		return err
	}
	return t.Execute(w, page{runs, rows(runs)})
}

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

func (p page) Several() bool { return len(p.Runs) > 1 }

// Width returns the least that the table needs, in rem.
func (p page) Width() int { return 11 + 7*len(p.Runs) }

func (p page) Title() string {
	if p.Several() {
		return fmt.Sprintf("%s: %d runs", p.Runs[0].Tested.Command, len(p.Runs))
	}
	return fmt.Sprintf("%s: %s", p.Runs[0].Tested.Command, podlog.Printable(p.Runs[0].Tested.Name))
}

// Found returns what a run has found of the requirement of a row.
func (p page) Found(row, run int) (found []*group) {
	for _, g := range p.Runs[run].groups() {
		if g.Requirement == p.Rows[row].Requirement {
			found = append(found, g)
		}
	}
	return found
}

func (p page) AnyFound() bool {
	for _, run := range p.Runs {
		if len(run.groups()) > 0 {
			return true
		}
	}
	return false
}

// Class returns the worst result of a run.
func (r *Results) Class() string { return worst(r.Checks) }
