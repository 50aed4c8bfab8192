package conformance

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal returns both ends of a pseudo terminal of so many columns.
func terminal(t *testing.T, columns uint16) (inside, outside *os.File) {
	t.Helper()
	outside, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminal: %v", err)
	}
	t.Cleanup(func() { outside.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(outside.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(outside.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	inside, err = os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { inside.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(inside.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}))
	return inside, outside
}

func TestResultsStandOutOnATerminal(t *testing.T) {
	for _, tc := range []struct{ name, value, fail, warn string }{
		{"TERM", "xterm", "\x1b[1;31mFAIL\x1b[0m  bad ", "\x1b[1;33mWARN\x1b[0m  odd "},
		{"NO_COLOR", "1", "FAIL  bad ", "WARN  odd "},
		{"TERM", "dumb", "FAIL  bad ", "WARN  odd "},
	} {
		t.Run(tc.name+"="+tc.value, func(t *testing.T) {
			t.Setenv("TERM", "xterm")
			t.Setenv("NO_COLOR", "")
			t.Setenv(tc.name, tc.value)
			inside, outside := terminal(t, 44)
			r, err := (&Flags{}).Report("podscript", 3, inside, inside)
			require.NoError(t, err)
			endCase(r, "bad", []Check{check("bad", "clean", Fail, "it left a process, and more than one")}, time.Second)
			endCase(r, "odd", []Check{check("odd", "reason", Warn, "FAIL is what it said")}, time.Second)
			endCase(r, "good", []Check{check("good", "clean", Pass, "")}, time.Second)
			_, err = r.Finish(nil)
			require.NoError(t, err)
			inside.Close()
			out, _ := io.ReadAll(outside) // it ends with an error, since the other end is closed
			text := strings.ReplaceAll(string(out), "\r\n", "\n")
			assert.Contains(t, text, tc.fail)
			assert.Contains(t, text, tc.warn)
			assert.Contains(t, text, "PASS  good")
			assert.Equal(t, tc.value == "dumb", strings.Contains(text, "      clean (must): it left a process, and more than one\n"))
			assert.Equal(t, tc.value != "dumb", strings.Contains(text, "      clean (must): it left a process, and\n      more than one\n"))
			assert.Equal(t, tc.value == "xterm", strings.Contains(text, "\x1b[1;3"))
		})
	}
}
