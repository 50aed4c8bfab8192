package fault

import (
	"encoding/json"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Fault{
		"rename:path=**/status.json:error=ENOSPC:when=1":      {Calls: "rename", Path: "**/status.json", Error: syscall.ENOSPC, When: 1},
		"open,write:signal=KILL:when=2+":                      {Calls: "open,write", Signal: syscall.SIGKILL, When: 2, Onwards: true},
		"write:delay=200ms":                                   {Calls: "write", Delay: 200 * time.Millisecond},
		"write:path={runtime}/{name}/**:short=1":              {Calls: "write", Path: "{runtime}/{name}/**", Short: 1},
		"mkdir":                                               {Calls: "mkdir"},
		"mkdir,open:later":                                    {Calls: "mkdir,open", Later: true},
		`connect:path=*.1\:80:delay=1s:signal=TERM:error=EIO`: {Calls: "connect", Path: `*.1\:80`, Delay: time.Second, Signal: syscall.SIGTERM, Error: syscall.EIO},
	} {
		f, err := Parse(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, f)
		assert.Equal(t, text, f.String())
		line, err := json.Marshal(f)
		require.NoError(t, err)
		var again Fault
		require.NoError(t, json.Unmarshal(line, &again))
		assert.Equal(t, f, again)
	}
	for text, want := range map[string]string{
		"open:eror=EIO":            `fault "open:eror=EIO": "eror=EIO": unknown part (want path=, when=, error=, signal=, delay= or short=)`,
		"open:error=28":            `"error=28": unknown error (want a name such as ENOSPC)`,
		"open:error=":              `"error=": unknown error`,
		"open:signal=NO":           `"signal=NO": unknown signal (want a name such as KILL)`,
		"open:when=0":              `"when=0": want a number from 1`,
		"open:when=2-":             `"when=2-": want a number from 1`,
		"open:delay=5":             `"delay=5": want a duration such as 200ms`,
		"write:short=no":           `"short=no": want a number of bytes from 1`,
		"open:path=":               `"path=": it is empty`,
		"open:path=a":              `path=a: what is compared is an absolute path: begin with / or **/`,
		"open:error=EIO:error=EIO": `there are two error=`,
		"open:":                    `"": unknown part`,
		"open:later=1":             `"later=1": later has no value`,
		"open:later:when=1":        `later goes with the names of calls alone`,
		"write:short=1:error=EIO":  `exclude each other`,
	} {
		_, err := Parse(text)
		assert.ErrorContains(t, err, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{"open:path=/a\\:b\\:error=EIO", "write:when=3+:short=2", "a,b::", "open:path=/[!a-z]?**/*\\", "open:path=*\xff:signal=SIGKILL"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(fault.String())
		require.NoError(t, err)
		assert.Equal(t, fault, again)
	})
}

func TestPathsThatMatch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, path string
		want          bool
	}{
		{"/a/b", "/a/b", true},
		{"/a/b", "/a/bc", false},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", false},
		{"/a/**", "/a/b/c", true},
		{"**/c", "/c", true},
		{"**/c", "/a/b/c", true},
		{"**/c", "/a/bc", false},
		{"/a/**/c", "/a/c", true},
		{"/a/**/c", "/a/b/b/c", true},
		{"**.json", "/a/b.json", true},
		{"/?[a-c][!x]", "/zbz", true},
		{"/?[a-c][!x]", "/zbx", false},
		{"/[[:alpha:]", "/:", true},
		{`/\*\?\[\\`, `/*?[\`, true},
		{"/a.b", "/axb", false},
		{"/a\nb*", "/a\nbc\nd", true},
		{"*:[[]*", "socket:[1]", true},
		{"@abstract", "@abstract", true},
		{Quote(`/a*?[x]\:ü`), `/a*?[x]\:ü`, true},
	} {
		re, err := compile(tc.pattern)
		require.NoError(t, err, tc.pattern)
		assert.Equal(t, tc.want, re.MatchString(tc.path), "%s %s", tc.pattern, tc.path)
	}
}
