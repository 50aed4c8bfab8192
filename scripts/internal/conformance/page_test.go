package conformance

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cells returns the words of the table of a page, a line for each row.
func cells(page string) string {
	table := regexp.MustCompile(`(?s)<tbody>.*</tbody>`).FindString(page)
	table = strings.ReplaceAll(regexp.MustCompile(`\s*\n\s*`).ReplaceAllString(table, ""), "</tr>", "\n")
	return strings.TrimSpace(regexp.MustCompile(`(<[^>]*>)+`).ReplaceAllString(table, "|"))
}

func TestPageOfARun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.html")
	finding := keyed("k", "one", "one", "it said <script>alert(1)</script>\x1b\u202e")
	finding.Section, finding.Fix, finding.Log = "1, 2", "<b>mend</b>", "> look</pre>"
	r, _ := reported(t, Flags{html: path, Tested: Tested{Name: `<i>"agent"`}}, finding, check("two", "two", Pass, ""))
	_, err := r.Finish(nil)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	page := string(text)
	assert.Equal(t, "|one|must (1, 2)|FAIL|0.500s|\n|two|must|PASS|0.500s|\n|", cells(page))
	assert.Contains(t, page, "it said &lt;script&gt;alert(1)&lt;/script&gt;\\x1b\\u202e")
	assert.Contains(t, page, "<title>podscript: &lt;i&gt;&#34;agent&#34;</title>")
	assert.Contains(t, page, "Fix: &lt;b&gt;mend&lt;/b&gt;")
	assert.Contains(t, page, "&gt; look&lt;/pre&gt;")
	assert.Contains(t, page, `content="default-src 'none'; style-src 'unsafe-inline'"`)
	assert.NotRegexp(t, `<script|<link|<img|src=|url\(`, page)
	assert.Contains(t, page, `href="#f0-0"`)
	assert.Contains(t, page, `id="f0-0"`)
	assert.Equal(t, 1, strings.Count(page, `id="`))
}

func TestPageOfEarlierRuns(t *testing.T) {
	t.Parallel()
	a := jsonOf(t, "podclient", check("ready", "verdict", Pass, ""), check("deaf", "verdict", Pass, ""), check("ready", "clean", Pass, ""))
	b := jsonOf(t, "podclient", keyed("k", "ready", "verdict", "late"), keyed("k", "deaf", "verdict", "late"), check("stopped", "verdict", Error, "no room"), check("ready", "new", Skip, "why not"))
	path := filepath.Join(t.TempDir(), "page.html")
	_, err := parsed(t, "-html", path, a, b)
	require.ErrorIs(t, err, flag.ErrHelp, "nothing is run")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, `|verdict|must|PASS|2 of 2 cases passed|FAIL|0 of 3 cases passed|
|clean|must|PASS|0.500s|—|
|new|must|—|SKIP|why not|
|`, cells(string(text)))
	assert.Contains(t, string(text), "in ready, deaf")
	assert.Contains(t, string(text), "no room")
	assert.Equal(t, 2, strings.Count(string(text), `<article class="finding`))
	assert.Equal(t, 1, strings.Count(string(text), `id="`))
}

func TestPageOfWhatIsNoRunIsRefused(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "page.html")
	run, other := jsonOf(t, "podclient"), jsonOf(t, "podscript")
	for want, args := range map[string][]string{
		`/run.json: it is a run of "podscript", and not of podclient`:     {run, other},
		"nosuch.json: no such file":                                       {run, "/nowhere/nosuch.json"},
		"-strict goes with a run, and -html with files of JSON runs noth": {"-strict", run},
	} {
		_, err := parsed(t, append([]string{"-html", page}, args...)...)
		assert.ErrorAs(t, err, new(UsageError))
		assert.ErrorContains(t, err, want)
		assert.NoFileExists(t, page)
	}
	_, err := parsed(t, "-html", "/nowhere/page.html", run)
	assert.ErrorContains(t, err, "/nowhere/page.html: no such file")
	for _, args := range [][]string{{"-html", page, run, "client"}, {run}, {"-html", page}} {
		_, err := parsed(t, args...)
		assert.NoError(t, err, "that is a run")
	}
}

func TestReportsOfARunAreOfOneResult(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	f, err := parsed(t, "-json", in("json"), "-junit", in("xml"), "-html", in("html"), "-summary", in("md"), "-name", "what-is-tested")
	require.NoError(t, err)
	r, _ := reported(t, f, check("one", "clean", Fail, "a reason"))
	_, err = r.Finish(nil)
	require.NoError(t, err)
	for _, name := range []string{"json", "xml", "html", "md"} {
		text, err := os.ReadFile(in(name))
		require.NoError(t, err)
		assert.Contains(t, string(text), "a reason", name)
		assert.Contains(t, string(text), "what-is-tested", name)
	}
	assert.Contains(t, r.Out.(*bytes.Buffer).String(), "a reason")
}
