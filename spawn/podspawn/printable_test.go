package podspawn_test

import (
	"strings"
	"testing"

	"example.com/podharness/spawn/podspawn"
	"github.com/stretchr/testify/assert"
)

func TestWhatPodspawnQuotesIsPrintable(t *testing.T) {
	for _, args := range [][]string{
		{"-x\x1b[2J"},
		{"-grace", "x\x1b[2J", "alpha"},
		{"-pod", "/bin/true", "-record", "/nowhere/\x1b[2J", "alpha"},
		{"-follow", "\x1b[2J"},
		{"-pod", "/nowhere/\x1b[2J", "alpha"},
	} {
		t.Setenv("YOI_RUNTIME_DIR", t.TempDir())
		var stdout, stderr strings.Builder
		assert.NotZero(t, podspawn.Main(args, &stdout, &stderr))
		assert.Contains(t, stderr.String(), `\x1b[2J`)
		assert.NotContains(t, stderr.String(), "\x1b")
		assert.NotContains(t, stderr.String(), `\\x1b`)
	}
}
