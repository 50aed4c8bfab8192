package podlog

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// Printable returns s with everything escaped that could move a terminal's cursor or
// hide text, such as control characters. Nothing that a pod wrote should reach a
// terminal in any other form. What is not UTF-8 becomes U+FFFD.
func Printable(s string) string { return escape(s, "") }

// PathText returns a path as a message shows it: quoted where a blank at its end, or
// whatever else it holds, would not show.
func PathText(path string) string {
	if path == "" || strings.TrimSpace(path) != path || Printable(path) != path {
		return strconv.Quote(path)
	}
	return path
}

// PrintableLines is Printable for a text of several lines: the newlines and tabs of s stay.
// What is quoted in it must have been escaped with Printable, where that may have some.
func PrintableLines(s string) string { return escape(s, "\n\t") }

func escape(s, stays string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	hidden := func(r rune) bool { return !unicode.IsPrint(r) && !strings.ContainsRune(stays, r) }
	if strings.IndexFunc(s, hidden) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// IsTerminal reports whether lines written to w can be overwritten there.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// ShellWord quotes a word that a shell would not take as it stands.
func ShellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("%+,-./:=@_", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(Printable(s), "'", `'\''`) + "'"
}
