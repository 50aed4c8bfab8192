package podlog

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestParseReady(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		line, name, socket string
		refused            string
	}{
		{line: "YOI-READY\talpha\t/run/alpha/sock", name: "alpha", socket: "/run/alpha/sock"},
		{line: "YOI-READY\talpha\tsock", name: "alpha", socket: "sock"},
		{line: "YOI-READY\talpha\t/a\tb\t", name: "alpha", socket: "/a\tb\t"},
		{line: "YOI-READY\talpha beta\t /x ", name: "alpha beta", socket: " /x "},
		{line: "YOI-READY\t\xff\t/\xfe", name: "\xff", socket: "/\xfe"},
		{line: "YOI-READY\ta\t/" + strings.Repeat("x", unix.PathMax-2), name: "a", socket: "/" + strings.Repeat("x", unix.PathMax-2)},
		{line: "YOI-READY\t", refused: "it has no name"},
		{line: "YOI-READY\talpha", refused: "it has no socket path"},
		{line: "YOI-READY\talpha\t", refused: "it has no socket path"},
		{line: "YOI-READY\t\t/run/sock", refused: "it has no name"},
		{line: "YOI-READY\t\t", refused: "it has no name"},
		{line: "YOI-READY\talpha\t/run/sock\x00", refused: "its socket path holds a NUL byte"},
		{line: "YOI-READY\talpha\t/" + strings.Repeat("x", unix.PathMax-1), refused: fmt.Sprintf("its socket path has %d bytes, and no system call takes more than %d", unix.PathMax, unix.PathMax-1)},
	} {
		t.Run(tc.line[:min(len(tc.line), 40)], func(t *testing.T) {
			assert.True(t, IsReady([]byte(tc.line)))
			told, err := ParseReady([]byte(tc.line))
			if tc.refused != "" {
				assert.EqualError(t, err, tc.refused)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, Ready{tc.name, tc.socket}, told)
		})
	}
}

func TestOrdinaryLines(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"", "YOI-READY", "YOI-READY alpha /run/sock", " YOI-READY\talpha\t/run/sock", "yoi-ready\talpha\t/run/sock",
		"YOI-READYX\talpha\t/run/sock", "log: YOI-READY\talpha\t/run/sock",
	} {
		assert.False(t, IsReady([]byte(line)), "%q", line)
	}
}

func TestNearMisses(t *testing.T) {
	t.Parallel()
	wide := func(text string, big int) (b string) {
		for _, c := range []byte(text) {
			b += []string{string(c) + "\x00", "\x00" + string(c)}[big]
		}
		return b
	}
	const ready = "YOI-READY\talpha\t/run/sock"
	for line, want := range map[string]string{
		ready: "", "": "", "ready": "", "YOI READY": "",
		"YOI-READY alpha /run/sock":                 "no tab follows",
		"YOI-READY":                                 "no tab follows",
		"14:00 INFO " + ready:                       "something stands before it",
		" " + ready:                                 "something stands before it",
		"\ufeff" + ready:                            "a byte order mark",
		"\x1b[32m" + ready + "\x1b[0m":              "a colour",
		"\x1b[1mYOI\x1b[0m-READY\talpha\t/run/sock": "a colour",
		"[32m" + ready:                              "something",
		`{"level":"info","msg":"YOI-READY\talpha\t/run/sock"}`:       "its tabs were escaped",
		`level=INFO msg="YOI-READY\talpha\t/run/sock"`:               "its tabs were escaped",
		`{"m":"{\"msg\":\"YOI-READY\\\talpha\\\t/run/sock\"}"}`:      "its tabs were escaped",
		`YOI-READY\u0009alpha\u0009/run/sock`:                        "its tabs were escaped",
		wide(ready+"\r", 0):                                          "it is in UTF-16",
		"\xff\xfe" + wide(ready+"\r", 0):                             "it is in UTF-16",
		"\xfe\xff" + wide(ready+"\r", 1):                             "it is in UTF-16",
		`    console.error("YOI-READY\t" + name + "\t" + socket)`:    "",
		`    print(f"YOI-READY\t{name}\t{socket}", file=sys.stderr)`: "",
		`	fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, path)`: "",
		"    console.error(`YOI-READY\\t${name}\\t${socket}`)":       "",
	} {
		if want == "" {
			assert.Empty(t, NearMiss([]byte(line)), "%q", line)
		} else {
			assert.Contains(t, NearMiss([]byte(line)), want, "%q", line)
		}
	}
	tail := tailOf("YOI-READY one\n" + strings.Repeat("on\n", 100) + "YOI-READY two")
	assert.Equal(t, "YOI-READY one", tail.NearMiss())
}

func FuzzParseReady(f *testing.F) {
	for _, s := range []string{"", "a", "a\tb", "a\tb\tc", "\tb", "a\t", "a\t\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		told, err := ParseReady([]byte("YOI-READY\t" + rest))
		if err == nil && (told.Name == "" || told.Socket == "" || strings.Contains(told.Name, "\t") || rest != told.Name+"\t"+told.Socket) {
			t.Fatalf("%q: read as %q", rest, told)
		}
		if name, socket, _ := strings.Cut(rest, "\t"); err != nil && name != "" && socket != "" && len(socket) < unix.PathMax && !strings.Contains(socket, "\x00") {
			t.Fatalf("%q: refused: %v", rest, err)
		}
	})
}
