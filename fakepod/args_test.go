package fakepod

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseHandshake(t *testing.T) {
	t.Parallel()
	const id = "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11"
	for _, tc := range []struct {
		args []string
		want handshake
		err  string
	}{
		{args: []string{"--workspace", "/w", "--pod", "a"}, want: handshake{"--workspace": "/w", "--pod": "a"}},
		{args: []string{"--workspace", "/w", "--worker", "a"}, want: handshake{"--workspace": "/w", "--pod": "a"}},
		{args: []string{"--workspace", "/w", "--worker", "a", "--pod", "a"}, err: "--pod is given twice"},
		{args: []string{"--pod", "a b", "--workspace", ""}, want: handshake{"--workspace": "", "--pod": "a b"}},
		{args: []string{"--workspace", "--pod", "--pod", "-x"}, want: handshake{"--workspace": "--pod", "--pod": "-x"}},
		{args: []string{"--workspace", "/w", "--pod", "...", "--profile", "p", "--ticket-role", "r"},
			want: handshake{"--workspace": "/w", "--pod": "...", "--profile": "p", "--ticket-role": "r"}},
		{args: []string{"--workspace", "/w", "--pod", "a", "--session", strings.ToUpper(id)},
			want: handshake{"--workspace": "/w", "--pod": "a", "--session": strings.ToUpper(id)}},

		{args: []string{"--workspace", "/w", "--pod", "a", "-program", "ready"}, err: "-program comes first, before the handshake's arguments"},
		{args: nil, err: "--workspace is missing"},
		{args: []string{"--pod", "a"}, err: "--workspace is missing"},
		{args: []string{"--workspace", "/w"}, err: "--pod is missing"},
		{args: []string{"--workspace"}, err: "--workspace needs a value"},
		{args: []string{"--workspace", "/w", "--pod", "a", "--session"}, err: "--session needs a value"},
		{args: []string{"--workspace", "/w", "--pod", "a", "--ticket-role"}, err: "--ticket-role needs a value"},
		{args: []string{"--workspace", "/w", "--nonsense"}, err: `unknown flag "--nonsense"`},
		{args: []string{"-workspace", "/w"}, err: `unknown flag "-workspace"`},
		{args: []string{"--workspace=/w"}, err: `unknown flag "--workspace=/w"`},
		{args: []string{"--"}, err: `unknown flag "--"`},
		{args: []string{"a"}, err: `unexpected argument "a"`},
		{args: []string{""}, err: `unexpected argument ""`},
		{args: []string{"--workspace", "/w", "--workspace", "/w"}, err: "--workspace is given twice"},
		{args: []string{"--workspace", "/w", "--pod", "a", "--pod"}, err: "--pod is given twice"},
		{args: []string{"--workspace", "/w", "--pod", ""}, err: `--pod "" is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", "."}, err: `--pod "." is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", ".."}, err: `--pod ".." is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", "/a"}, err: `--pod "/a" is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", "a\tb"}, err: `--pod "a\tb" is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", "a\n"}, err: `--pod "a\n" is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", "a\r"}, err: `--pod "a\r" is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", "a\x00"}, err: `--pod "a\x00" is not one path element`},
		{args: []string{"--workspace", "/w", "--pod", "a", "--session", ""}, err: `--session "" is not a UUID`},
		{args: []string{"--workspace", "/w", "--pod", "a", "--session", id[1:]}, err: `--session "` + id[1:] + `" is not a UUID`},
		{args: []string{"--workspace", "/w", "--pod", "a", "--session", id + "\n"}, err: `--session "` + id + `\n" is not a UUID`},
		{args: []string{"--workspace", "/w", "--pod", "a", "--session", "{" + id + "}"}, err: `--session "{` + id + `}" is not a UUID`},
		{args: []string{"--workspace", "/w", "--pod", "a", "--profile", "", "--session", id}, err: "--profile cannot be used with --session"},
	} {
		got, err := parseHandshake(tc.args)
		if tc.err != "" {
			assert.EqualError(t, err, tc.err, "%q", tc.args)
			continue
		}
		require.NoError(t, err, "%q", tc.args)
		assert.Equal(t, tc.want, got, "%q", tc.args)
		again, err := parseHandshake(got.args())
		require.NoError(t, err, "%q", got.args())
		assert.Equal(t, got, again, "what a child is told")
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for want, steps := range map[string][]Step{
		"ready;":                  {{Verb: "ready"}},
		"bind; ready":             {{Verb: "bind"}, {Verb: "ready"}},
		"log a":                   {{"log", []string{"a"}}},
		`log ""`:                  {{"log", []string{""}}},
		`log "a b"; log "x;"`:     {{"log", []string{"a b"}}, {"log", []string{"x;"}}},
		`log "it's"; log "\"\t"`:  {{"log", []string{"it's"}}, {"log", []string{"\"\t"}}},
		`raw "\xff"; raw "�"`:     {{"raw", []string{"\xff"}}, {"raw", []string{"\uFFFD"}}},
		`log \n; log é`:           {{"log", []string{`\n`}}, {"log", []string{"é"}}},
		`child "log \"a b\""`:     {{"child", []string{`log "a b"`}}},
		"ignore INT TERM; exit 0": {{"ignore", []string{"INT", "TERM"}}, {"exit", []string{"0"}}},
	} {
		assert.Equal(t, want, format(steps))
		again, err := Parse(want)
		require.NoError(t, err, want)
		assert.Equal(t, steps, again, want)
	}
}

func TestRefusalsAreExact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                              "column 1: it has no step: want a mode (fakepod -list) or a verb (" + names(verbs()) + ")",
		"bind; redy":                    `column 7: unknown verb "redy", want one of ` + names(verbs()) + "; or, alone, a mode (fakepod -list)",
		"é; bind":                       `column 1: unknown verb "é", want one of ` + names(verbs()) + "; or, alone, a mode (fakepod -list)",
		"log 'é'; sleep x":              `column 17: sleep: bad duration "x", want such as 200ms or 1.5s`,
		"\n\nexit -1":                   `column 8: exit: bad number "-1", want 0 to 255`,
		"listen 4097":                   `column 8: listen: bad number "4097", want 0 to 4096`,
		"flood 1 x":                     `column 9: flood: bad number "x", want 0 to 1073741824`,
		"flood -1":                      `column 7: flood: bad size "-1", want such as 4096, 64KiB, 16MiB or 1GiB`,
		"ready a b c":                   "column 1: ready: wrong number of arguments (3), want: ready [NAME [PATH]]",
		"ready a {x}":                   `column 9: ready: unknown "{x}", want {name}, {socket}, {dir}, {pid}, or {{ for a brace`,
		"ignore":                        "column 1: ignore: wrong number of arguments (0), want: ignore SIGNAL...",
		"child hang hang":               "column 1: child: wrong number of arguments (2), want: child [PROGRAM] (quote a program with spaces: child 'hang hang')",
		"child ''":                      "column 7: child: bad program: column 1: it has no step: want a mode (fakepod -list) or a verb (" + names(verbs()) + ")",
		"child 'child \"exit x\"'":      `column 7: child: bad program: column 7: child: bad program: column 6: exit: bad number "x", want 0 to 255`,
		`log "a"'b'`:                    "column 8: want a space or ; before this (quote a whole text, not a part of it)",
		"log 'a''":                      `column 5: no ' ends this text (write one with a ' as "it's")`,
		"log cannot open store; exit 7": "column 1: log: wrong number of arguments (3), want: log TEXT (quote a text with spaces: log 'cannot open store')",
		`raw "it's" so`:                 "column 1: raw: wrong number of arguments (2), want: raw TEXT (quote a text with spaces: raw 'it''s so')",
		"on INT exit 3":                 "column 1: on: wrong number of arguments (3), want: on SIGNAL PROGRAM (quote a program with spaces: on INT 'exit 3')",
		"on INT":                        "column 1: on: wrong number of arguments (1), want: on SIGNAL PROGRAM",
		"on INT 'exit x'":               `column 8: on: bad program: column 6: exit: bad number "x", want 0 to 255`,
		"out":                           "column 1: out: wrong number of arguments (0), want: out TEXT",
		"sleep 1s exit 3":               "column 1: sleep: wrong number of arguments (3), want: sleep DURATION (put a ; before the next step, exit)",
		"serve now":                     "column 1: serve: wrong number of arguments (1), want: serve",
		"exit 256":                      `column 6: exit: bad number "256", want 0 to 255`,
		"unlink":                        "column 1: unlink: wrong number of arguments (0), want: unlink WHAT",
		"flood 1 1073741825":            `column 9: flood: bad number "1073741825", want 0 to 1073741824`,
		"Ready":                         `column 1: unknown verb "Ready", want one of ` + names(verbs()) + "; or, alone, a mode (fakepod -list)",
	} {
		_, err := Parse(in)
		assert.EqualError(t, err, "bad program: "+want, "%q", in)
	}
}

func TestSizesAndExpansion(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"0": 0, "4096": 4096, "64KiB": 64 << 10, "16MiB": 16 << 20, "1GiB": 1 << 30} {
		got, err := ParseSize(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "KiB", "1kb", "1.5MiB", "0x10", "1 KiB", "99999999999999999999"} {
		_, err := ParseSize(in)
		assert.Error(t, err, in)
	}
	p := &pod{told: handshake{"--pod": "{dir}"}, dir: "/d"}
	assert.Equal(t, "{dir} /d {name} } /d/sock", p.expand("{name} {dir} {{name} } {socket}"), "what was put in is not expanded again")
}

func TestEveryArgumentOfAVerbIsChecked(t *testing.T) {
	t.Parallel()
	for _, v := range verbs() {
		kinds, least, most := v.arguments()
		assert.LessOrEqual(t, least, most, v)
		for _, kind := range kinds {
			assert.NotPanics(t, func() { _ = check(kind, "") }, "%s of %s", kind, v)
		}
		assert.NotEmpty(t, v.doc, v)
		assert.Equal(t, v.name != "daemonize", v.act != nil, v)
	}
	assert.Panics(t, func() { _ = check("NONSENSE", "") })
}
