package fault

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Quote returns a pattern of [Fault.Path] that matches one path only.
func Quote(path string) string { return regexp.MustCompile(`[*?\[\\:]`).ReplaceAllString(path, `\$0`) }

// compile returns the matcher of a pattern; nil if there is none.
func compile(pattern string) (*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	if !strings.ContainsAny(pattern[:1], "/*?[{@\\") {
		return nil, fmt.Errorf("path=%s: what is compared is an absolute path: begin with / or **/", pattern)
	}
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for rest := pattern; rest != ""; {
		size := 1
		switch {
		case strings.HasPrefix(rest, "**/"):
			size = 3
			b.WriteString(`(?:.*/)?`)
		case strings.HasPrefix(rest, "**"):
			size = 2
			b.WriteString(`.*`)
		case rest[0] == '*':
			b.WriteString(`[^/]*`)
		case rest[0] == '?':
			b.WriteString(`[^/]`)
		case rest[0] == '[':
			end := strings.IndexByte(rest, ']')
			if end < 2 {
				return nil, fmt.Errorf("path=%s: a [ has no ] after it, or nothing between (\\[ is itself)", pattern)
			}
			size = end + 1
			b.WriteString("[" + strings.NewReplacer("[", `\[`, "&", `\&`, "~", `\~`).Replace(strings.Replace(rest[1:end], "!", "^", 1)) + "]")
		default:
			if rest[0] == '\\' && len(rest) > 1 {
				rest = rest[1:]
			}
			var r rune
			r, size = utf8.DecodeRuneInString(rest)
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
		rest = rest[size:]
	}
	re, err := regexp.Compile(b.String() + `\z`)
	if err != nil {
		return nil, fmt.Errorf("path=%s: %w", pattern, err)
	}
	return re, nil
}
