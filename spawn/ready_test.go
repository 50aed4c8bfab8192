package spawn

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParseReady(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		line, name, socket string
		isReady, ok        bool
	}{
		{line: "YOI-READY\talpha\t/run/alpha/sock", name: "alpha", socket: "/run/alpha/sock", isReady: true, ok: true},
		{line: "YOI-READY\talpha\tsock", name: "alpha", socket: "sock", isReady: true, ok: true},
		{line: "YOI-READY\talpha\t/a\tb\t", name: "alpha", socket: "/a\tb\t", isReady: true, ok: true},
		{line: "YOI-READY\talpha beta\t /x ", name: "alpha beta", socket: " /x ", isReady: true, ok: true},
		{line: "YOI-READY\t\xff\t/\xfe", name: "\xff", socket: "/\xfe", isReady: true, ok: true},
		{line: "YOI-READY\t", isReady: true},
		{line: "YOI-READY\talpha", name: "alpha", isReady: true},
		{line: "YOI-READY\talpha\t", name: "alpha", isReady: true},
		{line: "YOI-READY\t\t/run/sock", socket: "/run/sock", isReady: true},
		{line: "YOI-READY\t\t", isReady: true},
		{line: "YOI-READY"},
		{line: "YOI-READY alpha /run/sock"},
		{line: " YOI-READY\talpha\t/run/sock"},
		{line: "yoi-ready\talpha\t/run/sock"},
		{line: "YOI-READYX\talpha\t/run/sock"},
		{line: "log: YOI-READY\talpha\t/run/sock"},
		{line: ""},
	} {
		t.Run(tc.line, func(t *testing.T) {
			name, socket, isReady, ok := parseReady([]byte(tc.line))
			assert.Equal(t, tc.isReady, isReady, "isReady")
			assert.Equal(t, tc.ok, ok, "ok")
			assert.Equal(t, tc.name, name)
			assert.Equal(t, tc.socket, socket)
		})
	}
}

func FuzzParseReady(f *testing.F) {
	for _, s := range []string{"", "YOI-READY", "YOI-READY\t", "YOI-READY\ta\tb", "YOI-READY\ta\tb\tc", "x\ty"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		name, socket, isReady, ok := parseReady([]byte(line))
		if isReady != strings.HasPrefix(line, "YOI-READY\t") {
			t.Fatalf("%q: isReady is %v", line, isReady)
		}
		if ok && (strings.Contains(name, "\t") || line != "YOI-READY\t"+name+"\t"+socket) {
			t.Fatalf("%q: read as name %q and socket %q", line, name, socket)
		}
		if !ok && name != "" && socket != "" {
			t.Fatalf("%q: refused with name %q and socket %q", line, name, socket)
		}
	})
}
