package fakepod

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the package documentation from the tables of steps and methods")

// TestPackageDocIsMadeFromTheTables compares the first tables of two sections.
func TestPackageDocIsMadeFromTheTables(t *testing.T) {
	t.Parallel()
	const file = "pod.go"
	source, err := os.ReadFile(file)
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	got := string(source)
	for section, table := range map[string]string{"# Steps": table(verbs()), "# Socket": table(methods())} {
		block := regexp.MustCompile(`(?s)(// ` + section + `\n.*?\n//\n)(?://\t[^\n]*\n)+`)
		require.Regexp(t, block, got)
		comment := "//\t" + strings.ReplaceAll(strings.TrimSuffix(table, "\n"), "\n", "\n//\t") + "\n"
		got = block.ReplaceAllStringFunc(got, func(old string) string { return block.FindStringSubmatch(old)[1] + comment })
	}
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	assert.Equal(t, got, string(source), "the documentation is not as the tables are: go test ./fakepod -run %s -update", t.Name())
}

func TestEveryArgumentOfAVerbIsChecked(t *testing.T) {
	t.Parallel()
	for _, v := range verbs() {
		kinds, least, most := v.arguments()
		assert.LessOrEqual(t, least, most, v)
		for _, kind := range kinds {
			assert.NotPanics(t, func() { _ = check(kind, "") }, "%s of %s", kind, v)
		}
		assert.NotEmpty(t, v.doc, v)
		assert.Equal(t, v.name != "daemonize", v.act != nil, v)
	}
	assert.Panics(t, func() { _ = check("NONSENSE", "") })
}
