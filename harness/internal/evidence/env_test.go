package evidence

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestValuesAreShownByChoiceOnly(t *testing.T) {
	t.Setenv("PASSED_ON", "value")
	assert.Equal(t, []string{
		"DB_PASS (7 bytes)", "PIN (4 bytes)", "PASSED_ON (5 bytes)", "EMPTY (0 bytes)", `COLOR=blue\x1b[2J`, "NOT_THERE (0 bytes)", "TWO=a=b",
	}, ShownEnv(
		[]string{"DB_PASS=hunter2", "PIN=1234", "PASSED_ON", "EMPTY=", "COLOR=blue\x1b[2J", "NOT_THERE", "TWO=a=b"},
		[]string{"COLOR", "TWO"},
	))
}
