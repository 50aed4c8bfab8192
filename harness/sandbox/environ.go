package sandbox

import (
	"os"
	"strings"
)

// passedOn are the variables that a pod gets as the test has them.
var passedOn = []string{"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "GOCOVERDIR"}

// Environ returns the environment of a pod. Of extra, NAME=VALUE sets a variable, and NAME
// passes on this process's own.
func (b *Box) Environ(extra []string) []string {
	env := []string{"LANG=C.UTF-8"}
	pass := func(name string) {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range passedOn {
		pass(name)
	}
	env = append(env,
		"HOME="+b.Dir("home"),
		"TMPDIR="+b.Dir("tmp"),
		"YOI_HOME="+b.Dir("yoi"),
		"XDG_RUNTIME_DIR="+b.Dir("xdg"),
		"YOI_RUNTIME_DIR="+b.Dir("run"),
	)
	for _, entry := range extra {
		if strings.Contains(entry, "=") {
			env = append(env, entry)
		} else {
			pass(entry)
		}
	}
	return env
}
