package scripts

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var updateDoc = flag.Bool("update-doc", false, "write the table in the package documentation anew")

// The table in the package documentation is made of the verbs:
//
//	go test -run TestPackageDoc ./scripts -update-doc
func TestPackageDocIsMadeOfWhatIsThere(t *testing.T) {
	source, err := os.ReadFile("scripts.go")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	at := regexp.MustCompile(`(?m)^//\t(\[!\] )?podstart .*\n(//\t.*\n)*`).FindIndex(source)
	require.NotNil(t, at, "a table that begins with podstart")
	want := slices.Concat(source[:at[0]], []byte(verbTable()), source[at[1]:])
	if *updateDoc {
		require.NoError(t, os.WriteFile("scripts.go", want, 0o600))
		return
	}
	assert.Equal(t, string(want), string(source), "go test -run TestPackageDoc ./scripts -update-doc writes the table anew")
}

func verbTable() string {
	var b strings.Builder
	for _, v := range verbs {
		usage, help := v.name+" "+v.usage, v.help
		if v.not != "" {
			usage, help = "[!] "+usage, help+"; ! "+v.not
		}
		row(&b, usage, help)
		if v.flags == nil || !strings.HasPrefix(v.usage, "[flags]") {
			continue
		}
		flags := flag.NewFlagSet(v.name, flag.ContinueOnError)
		v.flags(&call{script: &script{}}, flags)
		flags.VisitAll(func(f *flag.Flag) {
			arg, help := flag.UnquoteUsage(f)
			if f.DefValue != "" && f.DefValue != "false" {
				help += fmt.Sprintf(" (%s)", f.DefValue)
			}
			row(&b, strings.TrimSpace(fmt.Sprintf("  -%s %s", f.Name, arg)), help)
		})
	}
	return b.String()
}

// row writes two columns, the second one wrapped.
func row(b *strings.Builder, left, right string) {
	if left[0] == '-' {
		left = "    " + left
	}
	const middle, width = 28, 100
	blank := strings.Repeat(" ", middle)
	line := fmt.Sprintf("%-*s", middle, left)
	flush := func() {
		fmt.Fprintf(b, "//\t%s\n", line)
		line = blank
	}
	if len(left) > middle {
		flush()
	}
	for _, word := range strings.Fields(right) {
		if len(line)+1+len(word) > width {
			flush()
		}
		line += " " + word
	}
	flush()
}
