package fakepod

import (
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

// step is one step of a program.
type step struct {
	verb string
	args []string
}

// programError is a program that was refused.
type programError struct {
	column int // of the offending word, in bytes from 1
	msg    string
}

func (e *programError) Error() string {
	return fmt.Sprintf("bad program: column %d: %s", e.column, e.msg)
}

// word is a verb, an argument or the ; after a step.
type word struct {
	text   string
	column int
	end    bool // it is a ;
}

// parse reads a program of steps, or the name of a mode.
func parse(program string) ([]step, error) {
	for _, m := range modes {
		if m.Name == strings.TrimSpace(program) {
			return parse(m.Program + ";")
		}
	}
	words, err := lex(program)
	if err != nil {
		return nil, err
	}
	var steps []step
	for len(words) > 0 {
		n := slices.IndexFunc(words, func(w word) bool { return w.end })
		if n > 0 {
			s, err := parseStep(words[:n])
			if err != nil {
				return nil, err
			}
			steps = append(steps, s)
		}
		words = words[n+1:]
	}
	if len(steps) == 0 {
		return nil, &programError{1, "it has no step: want a mode or a verb (" + verbNames() + ")"}
	}
	return steps, nil
}

func parseStep(words []word) (step, error) {
	first := words[0]
	v, ok := verbs[first.text]
	if !ok {
		return step{}, &programError{first.column, fmt.Sprintf("unknown verb %q, want one of %s; or, alone, a mode (fakepod -list)", first.text, verbNames())}
	}
	s := step{verb: first.text}
	for _, w := range words[1:] {
		s.args = append(s.args, w.text)
	}
	if n := len(s.args); n < v.min || n > v.max {
		return step{}, &programError{first.column, fmt.Sprintf("%s has %d arguments, want: %s", first.text, n, strings.TrimSpace(first.text+" "+v.usage))}
	}
	for i, w := range words[1:] {
		if err := v.check[min(i, len(v.check)-1)](w.text); err != nil {
			var nested *programError
			if errors.As(err, &nested) {
				return step{}, &programError{w.column, fmt.Sprintf("the program of %s: column %d: %s", first.text, nested.column, nested.msg)}
			}
			return step{}, &programError{w.column, fmt.Sprintf("%s: %v", first.text, err)}
		}
	}
	return s, nil
}

// format prints steps as a program that parses to the same steps.
func format(steps []step) string {
	var b strings.Builder
	for i, s := range steps {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(s.verb)
		for _, arg := range s.args {
			if arg == "" || strings.ContainsFunc(arg, special) || strings.ContainsRune(arg, '\uFFFD') {
				arg = strconv.Quote(arg)
			}
			b.WriteString(" " + arg)
		}
	}
	if len(steps) == 1 && len(steps[0].args) == 0 {
		b.WriteString(";") // else it may be a mode
	}
	return b.String()
}

// special tells what cannot stand in a bare word.
func special(r rune) bool { return r == ';' || r == '\'' || r == '"' || isSpace(r) }

func isSpace(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }

// lex cuts a program into words; the last one is a ; always.
func lex(program string) ([]word, error) {
	var words []word
	for at := 0; at < len(program); {
		c, rest := program[at], program[at:]
		switch {
		case isSpace(rune(c)):
			at++
		case c == ';':
			words = append(words, word{column: at + 1, end: true})
			at++
		case c == '\'':
			text, n, ok := singleQuoted(rest)
			if !ok {
				return nil, &programError{at + 1, "no ' ends this text"}
			}
			words = append(words, word{text: text, column: at + 1})
			at += n
		case c == '"':
			quoted, err := strconv.QuotedPrefix(rest)
			if err != nil {
				return nil, &programError{at + 1, `this text wants a " at its end, and Go's escapes in it`}
			}
			text, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, &programError{at + 1, "this text wants Go's escapes in it"}
			}
			words = append(words, word{text: text, column: at + 1})
			at += len(quoted)
		default:
			n := strings.IndexFunc(rest, special)
			if n < 0 {
				n = len(rest)
			}
			words = append(words, word{text: rest[:n], column: at + 1})
			at += n
		}
		// Words must be apart, so that a quote within one is seen.
		if last := len(words) - 1; last > 0 && !words[last].end && !words[last-1].end && !isSpace(rune(program[words[last].column-2])) {
			return nil, &programError{words[last].column, "want a space or ; before this"}
		}
	}
	return append(words, word{column: len(program) + 1, end: true}), nil
}

// singleQuoted reads the text in single quotes that s begins with, n bytes long.
func singleQuoted(s string) (text string, n int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '\'':
			b.WriteByte(s[i])
		case strings.HasPrefix(s[i:], "''"):
			b.WriteByte('\'')
			i++
		default:
			return b.String(), i + 1, true
		}
	}
	return "", 0, false
}

var placeholder = regexp.MustCompile(`\{\{|\{[^{}]*\}?`)

// expand replaces the placeholders of a text.
func expand(text string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(text, func(s string) string {
		if s == "{{" {
			return "{"
		}
		return values[s]
	})
}

// The checks of arguments: what is wrong with it, and what was expected.

func checkText(s string) error {
	for _, found := range placeholder.FindAllString(s, -1) {
		if !slices.Contains([]string{"{{", "{name}", "{socket}", "{dir}", "{pid}"}, found) {
			return fmt.Errorf("unknown %q, want {name}, {socket}, {dir}, {pid}, or {{ for a brace", found)
		}
	}
	return nil
}

func checkProgram(s string) error {
	_, err := parse(s)
	return err
}

func checkDuration(s string) error {
	if d, err := time.ParseDuration(s); err != nil || d < 0 {
		return fmt.Errorf("bad duration %q, want such as 200ms or 1.5s", s)
	}
	return nil
}

func checkNumber(most int) func(string) error {
	return func(s string) error {
		if n, err := strconv.Atoi(s); err != nil || n < 0 || n > most {
			return fmt.Errorf("bad number %q, want 0 to %d", s, most)
		}
		return nil
	}
}

func checkSize(s string) error {
	_, err := parseSize(s)
	return err
}

func parseSize(s string) (int64, error) {
	number, unit := s, int64(1)
	for suffix, bytes := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n, ok := strings.CutSuffix(s, suffix); ok {
			number, unit = n, bytes
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("bad size %q, want such as 4096, 64KiB, 16MiB or 1GiB", s)
	}
	return n * unit, nil
}

func checkSignal(s string) error {
	if parseSignal(s) == 0 {
		return fmt.Errorf("unknown signal %q, want such as INT, TERM or KILL", s)
	}
	return nil
}

// parseSignal reads a signal's name, with or without SIG; 0 = there is none.
func parseSignal(s string) syscall.Signal {
	return unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG"))
}

func checkOneOf(words ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("unknown %q, want %s", s, strings.Join(words, ", "))
		}
		return nil
	}
}
