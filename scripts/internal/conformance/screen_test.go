package conformance

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLongLinesWrapAtWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ text, want string }{
		{"short\n", "short\n"},
		{strings.Repeat("x", 40) + "\n", strings.Repeat("x", 40) + "\n"},
		{strings.Repeat("x", 41) + "\n", strings.Repeat("x", 41) + "\n"}, // a path can be copied
		{"      clean (must): it left a process, and more than one\n", "      clean (must): it left a process,\n      and more than one\n"},
		{"        " + strings.Repeat("x", 50) + " and then  some more words here\n", "        " + strings.Repeat("x", 50) + "\n        and then  some more words here\n"},
		{"SKIP  session    0.000s  no stored session is named\nPASS  x\n", "SKIP  session    0.000s  no stored\n      session is named\nPASS  x\n"},
		{"      ééééé ééééé ééééé ééééé ééééé ééééé\n", "      ééééé ééééé ééééé ééééé ééééé\n      ééééé\n"},
		{"      " + strings.Repeat("x", 30) + strings.Repeat(" ", 20) + "\n", "      " + strings.Repeat("x", 30) + "\n"},
		{strings.Repeat(" ", 30) + "words that have no room\n", strings.Repeat(" ", 30) + "words that have no room\n"},
	} {
		assert.Equal(t, tc.want, wrapped(tc.text, 40))
	}
}
