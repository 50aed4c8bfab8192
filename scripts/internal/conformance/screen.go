package conformance

import (
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"example.com/podharness/spawn/podlog"
	"golang.org/x/sys/unix"
)

// say prints lines, as where they go wants them.
func (r *Report) say(text string) error {
	if r.github {
		text = inert(text)
	}
	if width := columns(r.Out); width > 0 {
		text = wrapped(text, width)
		if os.Getenv("NO_COLOR") == "" {
			text = standingOut(text)
		}
	}
	_, err := io.WriteString(r.Out, text)
	return err
}

// columns returns how wide a terminal is; 0 = it is none, or one that does not tell.
func columns(w io.Writer) int {
	if !podlog.IsTerminal(w) {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(w.(*os.File).Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

var resultWord = regexp.MustCompile(`^(FAIL|ERROR|WARN) `)

// standingOut gives the result of a case a colour, if it is one to look at.
func standingOut(text string) string {
	return resultWord.ReplaceAllStringFunc(text, func(word string) string {
		colour := map[string]string{"FAIL ": "31", "ERROR ": "35", "WARN ": "33"}[word]
		return "\x1b[1;" + colour + "m" + strings.TrimSpace(word) + "\x1b[0m "
	})
}

// wrapped breaks long lines between words. What follows a break is indented as its line
// is, or as what stands below a case.
func wrapped(text string, width int) string {
	const narrow = 20 // columns: where there are fewer, a terminal breaks lines as well
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		if indent == "" {
			indent = below
		}
		if width-len(indent) < narrow {
			continue
		}
		lines[i] = ""
		for line = strings.TrimRight(line, " "); utf8.RuneCountInString(line) > width; {
			at := breakAt(line, width)
			if at < 0 {
				break
			}
			lines[i] += strings.TrimRight(line[:at], " ") + "\n"
			line = indent + strings.TrimLeft(line[at:], " ")
		}
		lines[i] += line
	}
	return strings.Join(lines, "\n")
}

// breakAt returns the place of the last blank in the first columns of a line, or else of
// the first one after them; -1 = there is none but its indentation.
func breakAt(line string, columns int) (at int) {
	at = -1
	column, words := 0, false
	for i, r := range line {
		if r == ' ' && words && (at < 0 || column <= columns) {
			at = i
		}
		words = words || r != ' '
		column++
	}
	return at
}
