package spawn

import (
	"strings"

	"example.com/podharness/spawn/options"
)

// RuntimeDir returns the runtime directory of a pod with the environment env, whose
// entries are of the form "key=value" (see [os.Environ]). It is $YOI_RUNTIME_DIR, else
// $YOI_HOME/run, else $XDG_RUNTIME_DIR/yoi, else $HOME/.yoi/run. An empty variable
// counts as unset. If a variable occurs twice, the last one counts. The error is
// [ErrRuntimeDirUnavailable].
func RuntimeDir(env []string) (string, error) {
	values := map[string]string{}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
	}
	for _, place := range []struct{ variable, below string }{{"YOI_RUNTIME_DIR", ""}, {"YOI_HOME", "/run"}, {"XDG_RUNTIME_DIR", "/yoi"}, {"HOME", "/.yoi/run"}} {
		if base := values[place.variable]; base != "" {
			return options.Clean(base + place.below), nil
		}
	}
	return "", ErrRuntimeDirUnavailable
}
