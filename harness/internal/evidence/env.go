package evidence

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"example.com/podharness/spawn/podlog"
)

// ShownEnv returns what a config adds to a pod's environment as evidence shows it: the values
// of the variables in show, and of the others the length, since they may be secrets.
func ShownEnv(env, show []string) (shown []string) {
	for _, entry := range env {
		name, value, ok := strings.Cut(entry, "=")
		if !ok {
			value = os.Getenv(name) // it was passed on
		}
		text := fmt.Sprintf("%s (%d bytes)", name, len(value))
		if slices.Contains(show, name) {
			text = name + "=" + value
		}
		shown = append(shown, podlog.Printable(text))
	}
	return shown
}
