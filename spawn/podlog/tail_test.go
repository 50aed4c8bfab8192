package podlog

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func tailOf(text string) *Tail {
	t := &Tail{}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		t.Add([]byte(line), false)
	}
	return t
}

func TestTailKeepsTheLastLines(t *testing.T) {
	t.Parallel()
	var got Tail
	assert.Empty(t, got.Strings())
	var want []string
	for i := range 20 {
		line := fmt.Sprint("line ", i)
		want = append(want, line)
		got.Add([]byte(line), false)
		assert.Equal(t, want[max(0, len(want)-tailLines):], got.Strings())
	}
	assert.Empty(t, got.Reason())
}

func frames(n int, format string) string { return strings.Repeat(format+"\n", n) }

// TestReports has what the programs themselves have printed, with longer stacks.
func TestReports(t *testing.T) {
	t.Parallel()
	const open = "cannot open session store: schema 7"
	for _, tc := range []struct {
		name, text, reason string
		tail               []string // nil = it is not looked at
	}{
		{"Go panic", "loading\npanic: " + open + "\n\ngoroutine 1 [running]:\n" + frames(20, "main.open(0x1, {0x2, 0x3})\n\t/src/pod.go:4 +0x27") + "main.main()\n\t/src/pod.go:9 +0x18\ncreated by main.run in goroutine 1\n\t/src/pod.go:3 +0x1\nexit status 2",
			"panic: " + open, []string{"loading", "panic: " + open, "", "… 45 lines of a stack trace: main.open at src/pod.go:4", "exit status 2"}},
		{"Go panic with a signal, and another one", "panic: nil pointer dereference [recovered]\n\tpanic: again\n[signal SIGSEGV: segmentation violation code=0x1]\n\ngoroutine 1 [running]:\npanic({0x484920?, 0x522b30?})\n\t/go/src/runtime/panic.go:860 +0x13a",
			"panic: nil pointer dereference [recovered] [signal SIGSEGV: segmentation violation code=0x1] | panic: again", nil},
		{"Go panic in the standard library", "panic: oops\n\ngoroutine 7 [running]:\npanic({0x1?, 0x2?})\n\t/go/src/runtime/panic.go:860 +0x13a\nencoding/json.(*Decoder).Decode(...)\n\t/go/src/encoding/json/stream.go:1\nexample.org/a/db.(*Store).open(0x1)\n\t/home/db/store.go:10 +0x1\nmain.main()\n\t/home/main.go:3 +0x1",
			"panic: oops", []string{"panic: oops", "", "… 9 lines of a stack trace: example.org/a/db.(*Store).open at db/store.go:10"}},
		{"Go panic, built with -trimpath", "panic: oops\n\ngoroutine 7 [running]:\nsync.(*Mutex).Lock(...)\n\tsync/mutex.go:46\nexample.org/a/db.open(0x1)\n\texample.org/a/db/store.go:10 +0x1\ncreated by example.org/a.Run in goroutine 1\n\texample.org/a/run.go:2 +0x2",
			"panic: oops", []string{"panic: oops", "", "… 7 lines of a stack trace: example.org/a/db.open at db/store.go:10"}},
		{"Go deadlock", "fatal error: all goroutines are asleep - deadlock!\n\n" + strings.Repeat("goroutine 1 [select (no cases)]:\n"+frames(9, "main.main()\n\t/src/pod.go:2 +0x7")+"\n", 40),
			"fatal error: all goroutines are asleep - deadlock!", nil},
		{"Go SIGQUIT with registers", "SIGQUIT: quit\nPC=0x47 m=0 sigcode=0\n\ngoroutine 0 gp=0x5 m=0 mp=0x5 [idle]:\n" + frames(9, "runtime.futex(...)\n\t/go/src/runtime/sys.s:1 +0x2") + "\nrax    0xca\nrbx    0x0\neflags 0x286\ngs     0x0",
			"SIGQUIT: quit", []string{"SIGQUIT: quit", "PC=0x47 m=0 sigcode=0", "", "… 24 lines of a stack trace"}},
		{"Go data race", "==================\nWARNING: DATA RACE\nRead at 0x00c0 by goroutine 7:\n  main.main.func1()\n      /src/b.go:2 +0x33\n\nPrevious write at 0x00c0 by main goroutine:\n  main.main()\n      /src/b.go:2 +0xe4\n\nGoroutine 7 (running) created at:\n  main.main()\n      /src/b.go:2 +0xc4\n==================\n2",
			"WARNING: DATA RACE", []string{"==================", "WARNING: DATA RACE", "… 11 lines of a stack trace: main.main.func1 at src/b.go:2", "==================", "2"}},
		{"Node", "/src/pod.js:2\nfunction open(n) { throw new TypeError() }\n               ^\n\nTypeError [ERR_STORE]: " + open + "\n" + frames(10, "    at open (/src/pod.js:1:93)") + "\nNode.js v20.20.2",
			"TypeError [ERR_STORE]: " + open, []string{"/src/pod.js:2", "function open(n) { throw new TypeError() }", "               ^", "", "TypeError [ERR_STORE]: " + open, "… 11 lines of a stack trace", "Node.js v20.20.2"}},
		{"Node, an error of its own with a cause", "StoreFailure: cannot open\n    at open (/src/d.js:2:39)\n    ... 7 lines matching cause stack trace ...\n    at Module.load (node:internal:1266:32) {\n  code: 'E7',\n  [cause]: Error: inner why\n      at open (/src/d.js:2:93)\n}\n\nNode.js v20",
			"StoreFailure: cannot open", nil},
		{"Node, a message of several lines", "Error: " + open + "\nthe second line\n" + frames(20, "    at open (/src/d.js:2:39)"), "Error: " + open, nil},
		{"Node, a rejection", "      ^\n\nUnhandledPromiseRejection: This error originated … reason \"just text\".\n" + frames(9, "    at throwUnhandledRejectionsMode (node:internal:389:7)") + "  code: 'ERR'\n}",
			`UnhandledPromiseRejection: This error originated … reason "just text".`, nil},
		{"Node, an old rejection", "(node:77) UnhandledPromiseRejectionWarning: Error: " + open + "\n" + frames(9, "    at open (/src/d.js:2:39)"), "(node:77) UnhandledPromiseRejectionWarning: Error: " + open, nil},
		{"Deno", "error: Uncaught (in promise) Error: " + open + "\n" + frames(9, "    at file:///src/d.js:2:39"), "error: Uncaught (in promise) Error: " + open, nil},
		{"JVM", "Exception in thread \"main\" java.lang.IllegalStateException: cannot open\n" + frames(14, "\tat A.open(A.java:1)") + "Caused by: java.lang.NumberFormatException: first\n" + frames(3, "\tat A.open(A.java:1)") + "\t... 12 more\nCaused by: java.io.IOException: schema 7\n\tat A.open(A.java:1)\n\t... 15 more\n",
			`Exception in thread "main" java.lang.IllegalStateException: cannot open | Caused by: java.io.IOException: schema 7`,
			[]string{`Exception in thread "main" java.lang.IllegalStateException: cannot open`, "… 14 lines of a stack trace", "Caused by: java.lang.NumberFormatException: first", "… 4 lines of a stack trace", "Caused by: java.io.IOException: schema 7", "… 2 lines of a stack trace"}},
		{"JVM, a logger, no message", "12:00 ERROR startup failed\njava.lang.NullPointerException\n" + frames(14, "\tat A.open(A.java:1)"), "java.lang.NullPointerException", nil},
		{"Rust", "\nthread 'main' (8878) panicked at a.rs:1:31:\n" + open + "\nstack backtrace:\n   0: std::panicking::begin_panic::<&str>\n             at /rustc/59/library/std/src/panicking.rs:761:5\n" + frames(20, "   1: a::open") + "note: Some details are omitted",
			"thread 'main' (8878) panicked at a.rs:1:31: " + open, []string{"", "thread 'main' (8878) panicked at a.rs:1:31:", open, "… 23 lines of a stack trace", "note: Some details are omitted"}},
		{"older Rust", "thread 'main' panicked at '" + open + "', a.rs:1:31\nnote: run with RUST_BACKTRACE=1", "thread 'main' panicked at '" + open + "', a.rs:1:31", nil},
		{"Rust's main", "Error: cannot open\n\nCaused by:\n    0: schema 7\n    1: no such file", "Error: cannot open", []string{"Error: cannot open", "", "Caused by:", "    0: schema 7", "    1: no such file"}},
		{"Python", "Traceback (most recent call last):\n" + frames(9, "  File \"/src/a.py\", line 4, in open_\n    open_(n - 1)\n    ~~~~~^^^^^^^") + "  [Previous line repeated 9 more times]\nValueError: first\n\nThe above exception was the direct cause of the following exception:\n\nTraceback (most recent call last):\n  File \"/src/a.py\", line 8, in <module>\n    raise Odd(1)\nmod.Odd: " + open + "\nbye",
			"mod.Odd: " + open, []string{"ValueError: first", "", "The above exception was the direct cause of the following exception:", "", "Traceback (most recent call last):", "… 2 lines of a stack trace", "mod.Odd: " + open, "bye"}},
		{"Python that crashes", "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f5b (most recent call first):\n" + frames(9, "  File \"/src/b.py\", line 1 in <module>"), "Fatal Python error: Segmentation fault", nil},
		{"C++", "terminate called after throwing an instance of 'std::runtime_error'\n  what():  cannot open", "terminate called after throwing an instance of 'std::runtime_error' what():  cannot open", nil},
		{"AddressSanitizer", "=====\n==8947==ERROR: AddressSanitizer: heap-use-after-free on address 0x60\nREAD of size 4 at 0x60 thread T0\n" + frames(4, "    #0 0x564cdd44426c in main (/src/asan+0x1130)") + "\nSUMMARY: AddressSanitizer: heap\nShadow bytes:\n" + frames(5, "  0x0c04: 00 00 fa") + "=>0x0c04: fa[fd]\n" + frames(9, "  Heap left redzone:       fa") + "==8947==ABORTING",
			"==8947==ERROR: AddressSanitizer: heap-use-after-free on address 0x60", nil},
		{"UndefinedBehaviorSanitizer", "a.c:3:5: runtime error: signed integer overflow\n" + frames(9, "    #0 0x56 in main a.c:3"), "a.c:3:5: runtime error: signed integer overflow", nil},
		{".NET", "Unhandled exception. System.InvalidOperationException: cannot open\n" + frames(9, "   at Pod.Open(Int32 n) in /src/pod.cs:line 3"), "Unhandled exception. System.InvalidOperationException: cannot open", nil},
		{"Ruby", "a.rb:1:in 'open': cannot open (RuntimeError)\n" + frames(9, "\tfrom a.rb:1:in 'open'"), "", []string{"a.rb:1:in 'open': cannot open (RuntimeError)", "… 9 lines of a stack trace"}},
		{"in colour", "\x1b[31mError: cannot open\x1b[0m\n" + frames(9, "\x1b[90m    at open (/src/d.js:2:39)\x1b[39m"), "Error: cannot open", []string{"\x1b[31mError: cannot open\x1b[0m", "… 9 lines of a stack trace"}},
		{"hundreds of lines before the end", "panic: " + open + "\ngoroutine 1 [running]:\n" + frames(900, "12:00 INFO other: goes on"), "panic: " + open, nil},
		{"a named error without a stack", "Error: cannot open\n" + frames(900, "12:00 INFO other: goes on"), "Error: cannot open", nil},
		{"the last report counts", "panic: first\n" + frames(9, "12:00 INFO: on") + "Traceback (most recent call last):\n  File \"a\", line 1\nKeyError: 'last'\n" + frames(9, "12:00 INFO: on"), "KeyError: 'last'", nil},
		{"a report is not replaced by a line that names an error soon after it", "WARNING: DATA RACE\nError: later", "WARNING: DATA RACE", nil},
		{"but by one long after it", "WARNING: DATA RACE\n" + frames(9, "12:00 INFO: on") + "Error: later", "Error: later", nil},
		{"ordinary lines", "goroutines: 12\n  at noon\nno panic: all is well\n# 1\nSIGNAL\nErrors: 0\n12:00 ERROR x\nterminated", "", []string{"goroutines: 12", "  at noon", "no panic: all is well", "# 1", "SIGNAL", "Errors: 0", "12:00 ERROR x", "terminated"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := tailOf(tc.text)
			assert.Equal(t, tc.reason, got.Reason())
			if len(tc.tail) > 0 {
				assert.Equal(t, tc.tail, got.Strings())
			}
			path := filepath.Join(t.TempDir(), "log")
			require.NoError(t, os.WriteFile(path, []byte(tc.text), 0o600))
			file, err := os.Open(path)
			require.NoError(t, err)
			defer file.Close()
			read, err := ReadTail(io.NewSectionReader(file, 0, int64(len(tc.text))))
			require.NoError(t, err)
			assert.Equal(t, got.Reason(), read.Reason())
			assert.Equal(t, got.Strings(), read.Strings())
		})
	}
}

func TestTailOfALongLogIsThatOfItsEnd(t *testing.T) {
	t.Parallel()
	text := "panic: long ago\n" + strings.Repeat("12:00 INFO: on\n", 2<<20) + "Error: lately\nunfinished"
	read, err := ReadTail(io.NewSectionReader(strings.NewReader(text), 0, int64(len(text))))
	require.NoError(t, err)
	assert.Equal(t, "Error: lately", read.Reason())
	assert.Equal(t, []string{"12:00 INFO: on", "Error: lately", "unfinished"}, read.Strings()[5:])
}

func FuzzTail(f *testing.F) {
	f.Add([]byte("panic: x\n\ngoroutine 1 [running]:\nmain.main()\n\t/a.go:1 +0x1\n[signal SIGSEGV: y]\n\tpanic: z\n"), 3)
	f.Add([]byte("Traceback (most recent call last):\n  File \"a\", line 1\n    x()\nE: x\n"+strings.Repeat("quiet\n", 20)+"Error: x\n    at y:1\n"), 50)
	f.Add([]byte("thread 'main' panicked at a.rs:1:31:\nmessage\nstack backtrace:\n   0: a\n"), 1000)
	f.Add([]byte("\x1b[31mCaused by: \x1b\x1b[\nYOI-READY\tx"+strings.Repeat("\n", 30)), 7)
	f.Fuzz(func(t *testing.T, data []byte, size int) {
		whole, skipping := &Tail{}, &Tail{}
		_ = (&Splitter{}).Split(data, func(line []byte, cut bool) error { whole.Add(bytes.Clone(line), cut); return nil })
		s := &Splitter{Skip: skipping.Skip}
		for size, rest := min(max(1, size), 1<<20), data; len(rest) > 0; {
			n := min(size, len(rest))
			_ = s.Split(bytes.Clone(rest[:n]), func(line []byte, cut bool) error { skipping.Add(line, cut); return nil })
			rest = rest[n:]
		}
		require.LessOrEqual(t, len(whole.Strings()), tailLines)
		require.LessOrEqual(t, len(whole.Reason()), 3*2*maxReason+3) // U+FFFD has three bytes
		if !bytes.Contains(data, []byte("terminate called")) && !bytes.Contains(data, []byte("nhandled")) && !bytes.Contains(data, []byte("Exception in")) && !bytes.Contains(data, []byte("fatal error has")) &&
			!bytes.Contains(data, []byte("Uncaught ")) && !bytes.Contains(data, []byte("' has")) && !bytes.Contains(data, []byte("' panicked")) {
			require.Equal(t, whole.Strings(), skipping.Strings())
			require.Equal(t, whole.Reason(), skipping.Reason())
		}
	})
}
