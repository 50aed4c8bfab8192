package spawn

import (
	"strings"
)

// RuntimeDir returns the runtime directory that a pod with the environment env
// (of the form "key=value", as in [os.Environ]) uses: $YOI_RUNTIME_DIR, else
// $YOI_HOME/run, else $XDG_RUNTIME_DIR/yoi, else $HOME/.yoi/run. An empty
// variable counts as unset, and of one that is there twice the last counts.
// The error is [ErrRuntimeDirUnavailable].
func RuntimeDir(env []string) (string, error) {
	for _, place := range []struct{ variable, below string }{
		{"YOI_RUNTIME_DIR", ""},
		{"YOI_HOME", "run"},
		{"XDG_RUNTIME_DIR", "yoi"},
		{"HOME", ".yoi/run"},
	} {
		if base := lookupEnv(env, place.variable); base != "" {
			if place.below != "" {
				base += "/" + place.below
			}
			return clean(base), nil
		}
	}
	return "", ErrRuntimeDirUnavailable
}

func lookupEnv(env []string, key string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if name, value, ok := strings.Cut(env[i], "="); ok && name == key {
			return value
		}
	}
	return ""
}
