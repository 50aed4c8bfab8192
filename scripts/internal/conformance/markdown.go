package conformance

import (
	"fmt"
	"io"
	"strings"

	"example.com/podharness/spawn/podlog"
)

// GitHub takes no summary of more than 1 MiB: findings after so many bytes are counted,
// and of each text so many lines are shown, and so many characters of each.
const (
	mostSummary = 256 << 10
	mostLines   = 6
	mostLine    = 400
)

// writeMarkdown writes a table of what was not met, with what to do, and below it, folded,
// one of all requirements.
func (r *Results) writeMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: %s\n\n%s\n", markdown(r.Tested.Command), markdown(r.Tested.Name), markdown(r.Summary.String()))
	for _, note := range r.Summary.Notes() {
		fmt.Fprintf(&b, "\n- %s", markdown(note))
	}
	b.WriteString("\n")
	groups := r.groups()
	if len(groups) > 0 {
		b.WriteString("\n| | requirement | what was found | what to do |\n| --- | --- | --- | --- |\n")
	}
	for i, g := range groups {
		if b.Len() > mostSummary {
			fmt.Fprintf(&b, "| | | and %d more | |\n", len(groups)-i)
			break
		}
		found, todo := markdown(g.Why), g.Fix
		if where := g.Where(5); where != "" {
			found += "<br>in " + markdown(where)
		}
		if g.Result == Known {
			todo = "known: " + g.Known
		}
		fmt.Fprintf(&b, "| **%s** | **%s** %s | %s | %s |\n", shown(g.Result), markdown(g.Requirement), markdown(g.Rank()), found, markdown(todo))
	}
	b.WriteString("\n<details><summary>All requirements</summary>\n\n| | requirement | |\n| --- | --- | --- |\n")
	for _, row := range rows([]*Results{r}) {
		c := row.Cells[0]
		if b.Len() > 2*mostSummary {
			b.WriteString("| | and more | |\n")
			break
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s |\n", shown(c.Result()), markdown(row.Requirement), markdown(row.Rank()), markdown(c.Detail()))
	}
	fmt.Fprintf(&b, "\n%s\n\n</details>\n\n", markdown(strings.Join(r.Tested.Words(), "; ")))
	_, err := io.WriteString(w, b.String())
	return err
}

// markdown returns a text, whoever wrote it, for a cell of a table: what Markdown or HTML
// would read is escaped, names of people and numbers of issues are no links, and $ begins
// no formula.
func markdown(text string) string {
	said := lines(podlog.PrintableLines(strings.TrimSpace(text)))
	said = said[:min(len(said), mostLines)]
	for i, line := range said {
		short := fmt.Sprintf("%.*s", mostLine, line)
		if said[i] = markdownEscapes.Replace(short); short != line {
			said[i] += "…"
		}
	}
	return strings.Join(said, "<br>")
}

var markdownEscapes = strings.NewReplacer(
	"\t", "  ", "&", "&amp;", "<", "&lt;", ">", "&gt;", "|", "&#124;", `\`, "&#92;", "`", "&#96;", "*", "&#42;", "_", "&#95;", "~", "&#126;",
	"[", "&#91;", "]", "&#93;", "!", "&#33;", "://", "&#58;//", "www.", "www&#46;", "@", "@<!-- -->", "#", "#<!-- -->", "$", "<span>$</span>",
)
