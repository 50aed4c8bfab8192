package harness

import (
	"fmt"

	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// ClientEnv returns the environment for a client, a program that starts pods itself. It is
// built as a pod's is, in the sandbox of the test. YOI_POD_RUNTIME_COMMAND names an
// executable that starts pod with the arguments it is given; the zero Command is a healthy
// fake pod. A test that calls a client library in its own process can set the variables with
// t.Setenv.
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

func (b *oneTest) clientEnv(extra []string, pod spawn.Command, mark string) ([]string, error) {
	cfg, err := Config{Command: pod}.withDefaults()
	if err != nil {
		return nil, err
	}
	program, err := b.StandIn(cfg.Command)
	if err != nil {
		return nil, fmt.Errorf("make a program that starts the pod: %w", err)
	}
	b.foreign.once.Do(func() { b.watchForeign() })
	return append(b.Environ(append([]string{spawn.RuntimeCommandEnv + "=" + program}, extra...)), proc.MarkEnv+"="+mark), nil
}
