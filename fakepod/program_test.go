package fakepod

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		want []Step
	}{
		{"hang", []Step{{Verb: "hang"}}},
		{" bind ;; ready;\tserve ; ", []Step{{Verb: "bind"}, {Verb: "ready"}, {Verb: "serve"}}},
		{"ready;", []Step{{Verb: "ready"}}},
		{"ready", []Step{{Verb: "bind"}, {Verb: "ready"}, {Verb: "serve"}}}, // the mode
		{"early-exit", []Step{{"log", []string{"cannot open session store"}}, {"exit", []string{"7"}}}},
		{"log 'it''s; \"so\"'", []Step{{"log", []string{`it's; "so"`}}}},
		{`raw "a\tb\xff\n;'"`, []Step{{"raw", []string{"a\tb\xff\n;'"}}}},
		{"log ''", []Step{{"log", []string{""}}}},
		{"log {name}{{x}", []Step{{"log", []string{"{name}{{x}"}}}},
		{"child 'log \"a b\"; hang'", []Step{{"child", []string{`log "a b"; hang`}}}},
		{"ignore INT SIGTERM hup", []Step{{"ignore", []string{"INT", "SIGTERM", "hup"}}}},
		{"exit 0; exit 255; listen 0; listen 4096", []Step{{"exit", []string{"0"}}, {"exit", []string{"255"}}, {"listen", []string{"0"}}, {"listen", []string{"4096"}}}},
		{"sleep 0s; flood 0 1073741824", []Step{{"sleep", []string{"0s"}}, {"flood", []string{"0", "1073741824"}}}},
		{"flood 1GiB 0", []Step{{"flood", []string{"1GiB", "0"}}}},
	} {
		got, err := Parse(tc.in)
		require.NoError(t, err, tc.in)
		assert.Equal(t, tc.want, got, tc.in)
		again, err := Parse(format(got))
		require.NoError(t, err, format(got))
		assert.Equal(t, got, again, "%s, printed: %s", tc.in, format(got))
	}
}

func TestBadProgramIsRefusedWithThePosition(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                            "column 1: it has no step: want a mode (fakepod -list) or a verb (log, out, ",
		" ; ;":                        "column 1: it has no step",
		"bind; redy":                  `column 7: unknown verb "redy", want one of log, out, `,
		"early-exits":                 `column 1: unknown verb "early-exits"`,
		"log":                         "column 1: log: wrong number of arguments (0), want: log TEXT",
		"bind; serve now":             "column 7: serve: wrong number of arguments (1), want: serve",
		"sleep soon":                  `column 7: sleep: bad duration "soon", want such as 200ms or 1.5s`,
		"sleep -1s":                   `column 7: sleep: bad duration "-1s"`,
		"exit 256":                    `column 6: exit: bad number "256", want 0 to 255`,
		"listen x":                    `column 8: listen: bad number "x", want 0 to 4096`,
		"kill NONSENSE":               `column 6: kill: unknown signal "NONSENSE", want such as INT, TERM or KILL`,
		"ignore INT 9":                `column 12: ignore: unknown signal "9"`,
		"flood 1TiB":                  `column 7: flood: bad size "1TiB", want such as 4096, 64KiB, 16MiB or 1GiB`,
		"flood 9999999999GiB":         `column 7: flood: bad size`,
		"unlink all":                  `column 8: unlink: unknown "all", want sock, log or dir`,
		"log {nmae}":                  `column 5: log: unknown "{nmae}", want {name}, {socket}, {dir}, {pid}, or {{ for a brace`,
		"log {":                       `column 5: log: unknown "{"`,
		"log 'open":                   "column 5: no ' ends this text",
		`log "open`:                   `column 5: this text wants a " at its end, and Go's escapes in it`,
		`log "\q"`:                    `column 5: this text wants a " at its end, and Go's escapes in it`,
		"log a'b'":                    "column 6: want a space or ; before this",
		`log 'a'"b"`:                  "column 8: want a space or ; before this",
		"bind; child 'hang; redy'":    `column 13: child: bad program: column 7: unknown verb "redy"`,
		"child 'escape ''sleep x'''":  "column 7: child: bad program: column 8: escape: bad program: column 7: sleep: bad duration",
		"log hi; sleep soon; nothing": "column 15: sleep: bad duration",
	} {
		_, err := Parse(in)
		require.Error(t, err, in)
		assert.True(t, strings.HasPrefix(err.Error(), "bad program: "+want), "%q: %v", in, err)
	}
}

func TestEveryModeParses(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, m := range Modes() {
		steps, err := Parse(m.Program)
		require.NoError(t, err, m.Name)
		byName, err := Parse(m.Name)
		require.NoError(t, err, m.Name)
		assert.Equal(t, steps, byName)
		assert.False(t, seen[m.Name], "%s is there twice", m.Name)
		assert.NotEmpty(t, m.Doc)
		seen[m.Name] = true
	}
}

func TestModesAreACopy(t *testing.T) {
	t.Parallel()
	Modes()[0].Program = "changed"
	assert.NotEqual(t, "changed", Modes()[0].Program)
}

func FuzzParse(f *testing.F) {
	for _, m := range Modes() {
		f.Add(m.Program)
	}
	for _, s := range []string{"", ";", "log '''' \"\"", "log \"\\x00\\u00e9\"", "ready", "ready;", "log a'b'", "child 'child ''hang'''", "log \ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, program string) {
		steps, err := Parse(program)
		if err != nil {
			return
		}
		again, err := Parse(format(steps))
		if err != nil {
			t.Fatalf("%q, printed as %q: %v", program, format(steps), err)
		}
		if !assert.ObjectsAreEqual(steps, again) {
			t.Fatalf("%q, printed as %q: %q became %q", program, format(steps), steps, again)
		}
	})
}
