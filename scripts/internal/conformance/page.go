package conformance

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"

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
