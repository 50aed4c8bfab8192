package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// ClientEnv returns the environment for a program that starts pods itself, a
// client: built like a pod's, in the sandbox of the test. YOI_POD_RUNTIME_COMMAND
// in it is an executable that starts pod with the arguments it is given; the zero
// Command is a healthy fake pod. It also serves tests that call a client library in
// their own process (t.Setenv).
//
// Whatever is started with it has the test's mark. The pods that make a directory
// in the sandbox's runtime directory are captured, and stopped gracefully at the
// end of the test; whatever else is left then is killed. It fails the test if the
// sandbox cannot be made.
func ClientEnv(tb TB, pod spawn.Command) []string {
	tb.Helper()
	box, err := sandboxOf(tb)
	var env []string
	if err == nil {
		env, err = box.clientEnv(nil, pod, box.newMark())
	}
	if err != nil {
		tb.Fatalf("harness: %s", podlog.PrintableLines(err.Error()))
		return nil
	}
	return env
}

func (b *sandbox) clientEnv(extra []string, pod spawn.Command, mark string) ([]string, error) {
	cfg, err := Config{Command: pod}.withDefaults()
	if err != nil {
		return nil, err
	}
	program, err := b.standIn(cfg.Command)
	if err != nil {
		return nil, fmt.Errorf("make a program that starts the pod: %w", err)
	}
	b.foreign.once.Do(func() { b.watchForeign() })
	return append(b.environ(append([]string{spawn.RuntimeCommandEnv + "=" + program}, extra...)), proc.MarkEnv+"="+mark), nil
}

// standIn returns an executable that starts a command with the arguments that it is
// given: the variable that names it is a path, never a command line.
func (b *sandbox) standIn(command spawn.Command) (string, error) {
	if strings.Contains(command.Program, "/") {
		var err error
		if command.Program, err = filepath.Abs(command.Program); err != nil {
			return "", err
		}
	}
	own, err := b.own()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(own.Name(), "command")
	if err != nil {
		return "", err
	}
	var words []string
	for _, word := range append([]string{command.Program}, command.PrefixArgs...) {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	script := "#!/bin/sh\n# Starts the pod of this test with the arguments that a client gives.\n"
	if slices.ContainsFunc(command.PrefixArgs, func(arg string) bool { return arg == "pod" || arg == "worker" }) {
		// The prefix argument of a client's command is there already.
		script += "[ \"$1\" = pod ] && shift\n"
	}
	script += "exec " + strings.Join(words, " ") + ` "$@"` + "\n"
	// Renamed, not written in place: nobody has it open for writing then.
	path := filepath.Join(dir, "pod")
	if err := os.WriteFile(path+".tmp", []byte(script), 0o700); err != nil {
		return "", err
	}
	return path, os.Rename(path+".tmp", path)
}
