package fakepod

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Step is one step of a checked program: its verb is known, and its arguments are of
// the right number and kind.
type Step struct {
	Verb string
	Args []string
}

// Arg returns the i-th argument, or missing if the step has fewer.
func (s Step) Arg(i int, missing string) string {
	if i < len(s.Args) {
		return s.Args[i]
	}
	return missing
}

// Duration is Arg as a DURATION.
func (s Step) Duration(i int, missing string) time.Duration {
	d, _ := time.ParseDuration(s.Arg(i, missing))
	return d
}

// Number is Arg as a STATUS, BACKLOG or LINE.
func (s Step) Number(i int, missing string) int {
	n, _ := strconv.Atoi(s.Arg(i, missing))
	return n
}

// word is a verb or an argument.
type word struct {
	text   string
	column int // in bytes from 1
}

// refuse returns the error for a program; column is that of the offending word.
func refuse(column int, format string, args ...any) error {
	return fmt.Errorf("bad program: column %d: "+format, append([]any{column}, args...)...)
}

// Check returns the error with which the fake pod refuses a program, or nil if the
// program is good.
func Check(program string) error {
	_, err := Parse(program)
	return err
}

// Parse reads a program of steps, or the name of a mode. Its error is the one of [Check].
func Parse(program string) ([]Step, error) {
	for _, m := range modes {
		if m.Name == strings.TrimSpace(program) {
			return Parse(m.Program + ";")
		}
	}
	lexed, err := lex(program)
	if err != nil {
		return nil, err
	}
	var steps []Step
	for _, words := range lexed {
		if len(words) == 0 {
			continue
		}
		s, err := parseStep(words[0], words[1:])
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	if len(steps) == 0 {
		return nil, refuse(1, "it has no step: want a mode (fakepod -list) or a verb (%s)", names(verbs()))
	}
	return steps, nil
}

func parseStep(first word, rest []word) (Step, error) {
	v, ok := findVerb(first.text)
	if !ok {
		return Step{}, refuse(first.column, "unknown verb %q, want one of %s; or, alone, a mode (fakepod -list)", first.text, names(verbs()))
	}
	s := Step{Verb: v.name}
	for _, w := range rest {
		s.Args = append(s.Args, w.text)
	}
	kinds, least, most := v.arguments()
	if n := len(rest); n < least || n > most {
		return Step{}, refuse(first.column, "%s: wrong number of arguments (%d), want: %s%s", v.name, n, v, v.hint(s.Args))
	}
	for i, w := range rest {
		if err := check(kinds[min(i, len(kinds)-1)], w.text); err != nil {
			return Step{}, refuse(w.column, "%s: %w", v.name, err)
		}
	}
	return s, nil
}

// arguments returns what a verb's arguments are, the last of which goes on, and
// how many it takes.
func (v verb) arguments() (kinds []string, least, most int) {
	kinds = strings.FieldsFunc(v.usage, func(r rune) bool { return strings.ContainsRune(" [].", r) })
	required, _, _ := strings.Cut(v.usage, "[")
	if strings.HasSuffix(v.usage, "...") {
		return kinds, len(kinds), math.MaxInt
	}
	return kinds, len(strings.Fields(required)), len(kinds)
}

// hint tells what was probably meant by more arguments than a verb takes.
func (v verb) hint(args []string) string {
	kinds, _, most := v.arguments()
	if len(args) <= most {
		return ""
	}
	if kind := kinds[max(0, most-1):]; most > 0 && (kind[0] == "TEXT" || kind[0] == "PROGRAM") {
		text := strings.ReplaceAll(strings.Join(args[most-1:], " "), "'", "''")
		return fmt.Sprintf(" (quote a %s with spaces: %s '%s')", strings.ToLower(kind[0]), strings.Join(append([]string{v.name}, args[:most-1]...), " "), text)
	}
	if _, ok := findVerb(args[most]); ok {
		return fmt.Sprintf(" (put a ; before the next step, %s)", args[most])
	}
	return ""
}

// format prints steps as a program that parses to the same steps.
func format(steps []Step) string {
	var b strings.Builder
	for i, s := range steps {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(s.Verb)
		for _, arg := range s.Args {
			if arg == "" || strings.ContainsFunc(arg, special) || strings.ContainsRune(arg, '\uFFFD') {
				arg = strconv.Quote(arg)
			}
			b.WriteString(" " + arg)
		}
	}
	if len(steps) == 1 && len(steps[0].Args) == 0 {
		b.WriteString(";") // else it may be a mode
	}
	return b.String()
}

// special reports whether r cannot stand in a bare word.
func special(r rune) bool { return r == ';' || r == '\'' || r == '"' || isSpace(r) }

func isSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }

// lex cuts a program into the words of its steps.
func lex(program string) ([][]word, error) {
	steps, apart := [][]word{nil}, true // words must be apart, so that a quote within one is seen
	for at := 0; at < len(program); {
		c := rune(program[at])
		switch {
		case c == ';':
			steps = append(steps, nil)
			fallthrough
		case isSpace(c):
			apart = true
			at++
		case !apart:
			return nil, refuse(at+1, "want a space or ; before this (quote a whole text, not a part of it)")
		default:
			text, n, err := lexWord(program[at:])
			if err != nil {
				return nil, refuse(at+1, "%w", err)
			}
			last := len(steps) - 1
			steps[last] = append(steps[last], word{text, at + 1})
			apart = false
			at += n
		}
	}
	return steps, nil
}

// lexWord reads the word that s begins with, n bytes long.
func lexWord(s string) (text string, n int, err error) {
	switch s[0] {
	case '\'':
		for n = 1; ; n++ {
			i := strings.IndexByte(s[n:], '\'')
			if i < 0 {
				return "", 0, errors.New(`no ' ends this text (write one with a ' as "it's")`)
			}
			if n += i + 1; !strings.HasPrefix(s[n:], "'") {
				return strings.ReplaceAll(s[1:n-1], "''", "'"), n, nil
			}
		}
	case '"':
		quoted, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", 0, errors.New(`this text wants a " at its end, and Go's escapes in it`)
		}
		text, err = strconv.Unquote(quoted)
		return text, len(quoted), err
	}
	if n = strings.IndexFunc(s, special); n < 0 {
		n = len(s)
	}
	return s[:n], n, nil
}

var placeholder = regexp.MustCompile(`\{\{|\{[^{}]*\}?`)

// check returns what is wrong with an argument; kind is what the usage calls it.
func check(kind, arg string) (err error) {
	switch kind {
	case "TEXT", "NAME", "PATH":
		for _, found := range placeholder.FindAllString(arg, -1) {
			if !slices.Contains([]string{"{{", "{name}", "{socket}", "{dir}", "{pid}"}, found) {
				return fmt.Errorf("unknown %q, want {name}, {socket}, {dir}, {pid}, or {{ for a brace", found)
			}
		}
	case "PROGRAM":
		_, err = Parse(arg)
	case "DURATION":
		if d, bad := time.ParseDuration(arg); bad != nil || d < 0 {
			err = fmt.Errorf("bad duration %q, want such as 200ms or 1.5s", arg)
		}
	case "SIZE":
		_, err = ParseSize(arg)
	case "STATUS", "BACKLOG", "LINE":
		most := map[string]int{"STATUS": 255, "BACKLOG": 4096, "LINE": 1 << 30}[kind]
		if n, bad := strconv.Atoi(arg); bad != nil || n < 0 || n > most {
			err = fmt.Errorf("bad number %q, want 0 to %d", arg, most)
		}
	case "SIGNAL":
		if ParseSignal(arg) == 0 {
			err = fmt.Errorf("unknown signal %q, want such as INT, TERM or KILL", arg)
		}
	case "WHAT":
		if !slices.Contains([]string{"sock", "log", "dir"}, arg) {
			err = fmt.Errorf("unknown %q, want sock, log or dir", arg)
		}
	case "METHOD", "BYTES":
	case "JSON":
		if !json.Valid([]byte(arg)) || strings.ContainsAny(arg, "\r\n") {
			err = fmt.Errorf("%q is not JSON on one line", arg)
		}
	default:
		panic("fakepod: no check of " + kind)
	}
	return err
}

// ParseSize reads the SIZE of a step, such as 64KiB.
func ParseSize(s string) (int64, error) {
	number := strings.TrimRight(s, "BGKMi")
	unit, ok := map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[s[len(number):]]
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || !ok || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("bad size %q, want such as 4096, 64KiB, 16MiB or 1GiB", s)
	}
	return n * unit, nil
}

// ParseSignal reads the SIGNAL of a step, a name with or without SIG. It returns 0 if no
// signal has that name.
func ParseSignal(s string) syscall.Signal {
	return unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG"))
}
