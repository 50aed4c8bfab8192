package sandbox

import (
	"os"
	"path/filepath"
	"strings"
)

// passedOn are the variables that a pod gets as the test has them.
var passedOn = []string{"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "GOCOVERDIR"}

// Environ returns the environment of a pod. Of extra, NAME=VALUE sets a variable, and NAME
// passes on this process's own.
func (b *Box) Environ(extra []string) []string {
	env := []string{"LANG=C.UTF-8"}
	race := os.Getenv("GORACE")
	pass := func(name string) {
		value, ok := os.LookupEnv(name)
		if abs, err := filepath.Abs(value); name == "GOCOVERDIR" && value != "" && err == nil {
			value = abs // pods work elsewhere
		}
		if ok {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range passedOn {
		pass(name)
	}
	env = append(env,
		"HOME="+b.Dir("home"),
		"TMPDIR="+b.Dir("tmp"),
		"YOI_HOME="+b.Dir("home/.yoi"),
		"XDG_RUNTIME_DIR="+b.Dir("xdg"),
		"YOI_RUNTIME_DIR="+b.Dir("run"),
	)
	for _, entry := range extra {
		if strings.Contains(entry, "=") {
			env = append(env, entry)
		} else {
			pass(entry)
		}
		if value, ok := strings.CutPrefix(entry, "GORACE="); ok {
			race = value
		}
	}
	if !strings.Contains(race, "atexit_sleep_ms") { // a pod built with -race takes a second to exit
		race = strings.TrimSpace(race + " atexit_sleep_ms=0")
	}
	return append(env, "GORACE="+race)
}
