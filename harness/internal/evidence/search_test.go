package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scanOf returns a scan of an output, and what appends to that.
func scanOf(t *testing.T, pattern string) (s *Scan, write func(text string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client-1.stdout")
	out, err := os.Create(path)
	require.NoError(t, err)
	t.Cleanup(func() { out.Close() })
	in, err := os.Open(path)
	require.NoError(t, err)
	log := NewLog(nil)
	log.Capture(in)
	t.Cleanup(log.Close)
	s, err = NewScan(log, pattern)
	require.NoError(t, err)
	return s, func(text string) {
		_, err := out.WriteString(text)
		require.NoError(t, err)
	}
}

func found(t *testing.T, s *Scan) string {
	t.Helper()
	match, err := s.Find()
	require.NoError(t, err)
	assert.LessOrEqual(t, cap(s.window), 4*(maxMatch+scanStep))
	return match
}

func TestMatchInWhatIsThere(t *testing.T) {
	t.Parallel()
	const border = scanStep // is where the first window ends
	xs := func(n int) string { return strings.Repeat("x", n) }
	for name, test := range map[string]struct{ pattern, text, want string }{
		"far back":                            {`needle`, "needle\n" + xs(10*maxMatch), "needle"},
		"between windows":                     {`needle \d+`, xs(border-3) + "needle 12345" + xs(5*maxMatch), "needle 12345"},
		"goes on behind a window":             {`y+`, xs(border-3) + strings.Repeat("y", 1000) + xs(5*maxMatch), strings.Repeat("y", 1000)},
		"almost as long as may be":            {`(?s)begin.*end`, xs(border-100) + "begin" + xs(maxMatch-8) + "end" + xs(5*maxMatch), "begin" + xs(maxMatch-8) + "end"},
		"a line ends where the window does":   {`x$`, xs(border) + "x\n" + xs(5*maxMatch), "x"},
		"no line ends there":                  {`y$`, xs(border-1) + "y" + xs(5*maxMatch), ""},
		"no line begins there":                {`^x`, "y" + xs(10*maxMatch), ""},
		"no line begins there, of two":        {`^x|z`, "y" + xs(10*maxMatch) + "z" + xs(10), "z"},
		"no output begins there":              {`\Ax`, "y" + xs(10*maxMatch), ""},
		"no word begins there":                {`\bx+!`, "y" + xs(3*maxMatch) + "! xx!", "xx!"},
		"a line begins behind it":             {`^needle`, xs(border-maxMatch-1) + "\nneedle" + xs(5*maxMatch), "needle"},
		"characters of several bytes":         {`^\x{20ac}|!`, "x" + strings.Repeat("€", 3*maxMatch) + "!", "!"},
		"what is no UTF-8":                    {`^\x{fffd}|!`, "x" + strings.Repeat("\x80", 5*maxMatch) + "!", "!"},
		"at the end, of an unfinished line":   {`^password: $`, xs(3*maxMatch) + "\npassword: ", "password: "},
		"none":                                {`needle`, xs(5 * maxMatch), ""},
		"the first one, although others come": {`a\d|b\d`, xs(border-1) + "b1" + xs(3*maxMatch) + "a1", "b1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, write := scanOf(t, test.pattern)
			write(test.text)
			if got := found(t, s); got != test.want { // not assert.Equal: it would show megabytes
				t.Errorf("%d bytes: %.100q", len(got), got)
			}
		})
	}
}

func TestMatchInWhatComes(t *testing.T) {
	t.Parallel()
	s, write := scanOf(t, `^needle \d+$`)
	assert.Empty(t, found(t, s))
	for range 20 {
		write(strings.Repeat("x", maxMatch/3) + "\nneed")
		assert.Empty(t, found(t, s))
		write("less ")
		assert.Empty(t, found(t, s))
	}
	write("\nneed")
	assert.Empty(t, found(t, s))
	assert.LessOrEqual(t, len(s.window), maxMatch+8, "the rest is forgotten")
	write("le 1")
	assert.Equal(t, "needle 1", found(t, s))

	s, write = scanOf(t, "needle")
	write(strings.Repeat("x", 2*maxMatch))
	assert.Empty(t, found(t, s))
	require.NoError(t, os.Truncate(s.log.Path(), 0))
	assert.Empty(t, found(t, s))
	require.NoError(t, os.WriteFile(s.log.Path(), []byte("needle"), 0o600))
	assert.Equal(t, "needle", found(t, s), "it was truncated meanwhile")
}
