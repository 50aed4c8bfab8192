package scripts_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTestBinariesHaveNoJUnit: only the commands write it.
func TestTestBinariesHaveNoJUnit(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "example.com/podharness/scripts").Output()
	require.NoError(t, err)
	for _, dep := range strings.Fields(string(out)) {
		assert.NotContains(t, dep, "junit")
		assert.NotContains(t, dep, "scripts/internal/conformance")
	}
}
