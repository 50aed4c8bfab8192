package podlog_test

import (
	"os"
	"testing"

	"example.com/podharness/spawn/podlog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPrintableLines(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "a": "a", "\n\t": "\n\t", "a\n\tb\x1b[2J\n\n": "a\n\tb\\x1b[2J\n\n", "\r\n\u202e\a": `\r` + "\n" + `\u202e\a`, `\x1b`: `\x1b`,
	} {
		assert.Equal(t, want, podlog.PrintableLines(text))
	}
}

func TestPathText(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/run/a b/sock": "/run/a b/sock", "/run/é": "/run/é", "": `""`, "/run/sock ": `"/run/sock "`, " sock": `" sock"`, "/a\tb": `"/a\tb"`, "/\xff": `"/\xff"`, "/\u202e": `"/\u202e"`,
	} {
		assert.Equal(t, want, podlog.PathText(path))
	}
}

func TestDevNullIsNoTerminal(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	assert.False(t, podlog.IsTerminal(null))
}
