package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFindings(t *testing.T) {
	t.Parallel()
	const ready = "YOI-READY\talpha\t/s\n"
	race := "==================\nWARNING: DATA RACE\nWrite at 0x00c0 by goroutine 7:\n  main.f()\n"
	far := strings.Repeat(strings.Repeat("x", 79)+"\n", 20<<20/80)
	for name, tc := range map[string]struct {
		log   string
		again string
		crash []string
	}{
		"nothing":                 {log: "loading\n" + ready + "YOI-READY in a line\n x YOI-READY\ta\tb\nserving\n"},
		"no log":                  {},
		"a second ready line":     {log: ready + "x\nYOI-READY\tbeta\t/t\r\n" + ready, again: "YOI-READY\tbeta\t/t"},
		"a malformed second one":  {log: ready + "YOI-READY\t\n", again: "YOI-READY\t"},
		"one without its newline": {log: ready + "YOI-READY\tbeta\t/t"},
		"a data race":             {log: ready + race, crash: []string{"WARNING: DATA RACE", "Write at 0x00c0 by goroutine 7:", "  main.f()"}},
		"a panic":                 {log: "panic: x\n\ngoroutine 1 [running]:\n", crash: []string{"panic: x", "goroutine 1 [running]:"}},
		"a fatal error":           {log: "fatal error: all goroutines are asleep - deadlock!\n", crash: []string{"fatal error: all goroutines are asleep - deadlock!"}},
		"words of one":            {log: "no panic: all is well\nthe WARNING: DATA RACE is explained at\n"},
		"far away, after a flood": {log: ready + far + far + ready + "panic: y", again: "YOI-READY\talpha\t/s", crash: []string{"panic: y"}},
		"a long line":             {log: strings.Repeat("z", 1<<20) + "YOI-READY\ta\tb\n" + ready},
		"the first of many":       {log: "panic: 1\n" + strings.Repeat("panic: 2\n", 100)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "log")
			require.NoError(t, os.WriteFile(path, []byte(tc.log), 0o600))
			file, err := os.Open(path)
			require.NoError(t, err)
			l := NewLog(nil)
			l.Capture(file)
			defer l.Close()
			begin := time.Now()
			f := l.Findings()
			t.Logf("%v for %d bytes", time.Since(begin), len(tc.log))
			assert.Equal(t, tc.again, f.ReadyAgain)
			if name == "the first of many" {
				require.Len(t, f.Crash, 12)
				assert.Equal(t, "panic: 1", f.Crash[0])
				return
			}
			assert.Equal(t, tc.crash, f.Crash)
		})
	}
}
