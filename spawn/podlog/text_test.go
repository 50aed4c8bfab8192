package podlog_test

import (
	"testing"

	"example.com/podharness/spawn/podlog"
	"github.com/stretchr/testify/assert"
)

func TestPrintableLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "a": "a", "\n\t": "\n\t", "a\n\tb\x1b[2J\n\n": "a\n\tb\\x1b[2J\n\n", "\r\n\u202e\a": `\r` + "\n" + `\u202e\a`, `\x1b`: `\x1b`,
	} {
		assert.Equal(t, want, podlog.PrintableLines(text))
	}
}
