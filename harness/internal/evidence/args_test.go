package evidence

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"github.com/stretchr/testify/assert"
)

func TestWordsOfACommandLineThatAreShown(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		shown Args
		args  []string
		want  string
	}{
		{Args{}, nil, ""},
		{Args{}, []string{"/bin/agent", "pod", "--workspace", "/w s", "--pod", "alpha", "--profile", "p", "--ticket-role", "r", "--session", "s"},
			"/bin/agent pod --workspace /w s --pod alpha --profile p --ticket-role r --session s"},
		{Args{}, []string{"agent", "worker", "--token", "hunter2", "--token=hunter2", "--verbose", "-p", "secret", "-psecret", "plain", ""},
			"agent worker --token (7 bytes) --token=(7 bytes) --verbose (2 bytes) (6 bytes) (8 bytes) (5 bytes) (0 bytes)"},
		{Args{}, []string{"a", "--Token", "--to\nken", "---x", "--", "--x_y", "--t=a\nb", "--pod=alpha"}, "a (7 bytes) (8 bytes) (4 bytes) (2 bytes) (5 bytes) --t=(3 bytes) --pod=(5 bytes)"},
		{Args{}, []string{"a", "--worker", "alpha", "-n", "alpha"}, "a --worker (5 bytes) (2 bytes) (5 bytes)"},
		{Args{NameFlag: "--worker"}, []string{"a", "--worker", "alpha", "beta"}, "a --worker alpha (4 bytes)"},
		{Args{NameFlag: "-n"}, []string{"a", "-n", "alpha", "-n"}, "a -n alpha -n"},
		{Args{}, []string{"a", "--pod", "--pod", "secret"}, "a --pod --pod (6 bytes)"},
		{Args{All: true}, []string{"a", "--token", "hunter2", "-x"}, "a --token hunter2 -x"},
	} {
		assert.Equal(t, test.want, test.shown.Command(test.args), "%q", test.args)
	}
}

func TestErrorsArePrintable(t *testing.T) {
	t.Parallel()
	first, second := errors.New("a\x1b"), fmt.Errorf("%w: %w", spawn.ErrLaunch, os.ErrNotExist)
	assert.EqualError(t, PrintableError(first), `a\x1b`)
	assert.ErrorIs(t, PrintableError(first), first)
	assert.Equal(t, second, PrintableError(second))
	assert.NoError(t, PrintableError(nil))
	assert.Equal(t, "a\n\tb\\x1b\n\n", podlog.PrintableLines("a\n\tb\x1b\n\n"))
	assert.Equal(t, strings.Repeat("\n", 3), podlog.PrintableLines("\n\n\n"))
}
