// Package scripts runs testscript scenarios that start pods by the real
// handshake: against the fake pod, or against any pod binary.
//
// A scenario is a .txtar file of testscript
// (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript) with these
// verbs beside the usual ones. NAME is a pod's name; every pod is torn down at
// the end of its script, as package harness does it.
//
//	[!] podstart [flags] NAME     start a pod and wait until it is ready
//	      -fake PROGRAM             the fake pod, with a program of steps or a mode
//	      -pod PROGRAM              another pod binary than the one under test
//	      -pod-arg ARG              one more prefix argument; repeatable
//	      -timeout DURATION         how long it may take to become ready (20s)
//	      -profile P, -ticket-role R, -session UUID, -workspace DIR, -dir DIR
//	      -env NAME=VALUE           add to its environment; repeatable
//	      -shutdown LINE            what podstop writes to the socket first
//	      -signal SIGNAL            what podstop sends then (INT)
//	      -grace DURATION           how long each step of podstop may take (5s)
//	      -allow-leaks              it may leave processes behind
//	      -orphan                   start it from a process that exits at once;
//	                                less is known of such a pod, see below
//	[!] podstop NAME              stop it; ! if it had ended by itself
//	podkill NAME                  kill its process group
//	podsignal NAME SIGNAL         send a signal to its process group
//	[!] podwait [-timeout D] NAME wait until it ends by itself, with status 0;
//	                              ! with another one or by a signal
//	[!] podlog NAME [PATTERN]     match what it has logged so far
//	[!] podwaitlog [-timeout D] NAME PATTERN
//	                              wait until a line of its log matches; ! if
//	                              none does before the timeout, or its end
//	[!] podalive NAME             whether its process runs
//	[!] podsend [-timeout D] NAME [LINE]
//	                              send a line to its socket and print the answer:
//	                              what comes after the snapshot, or without LINE
//	                              the snapshot
//
// podstart prints the name, process and socket of a ready pod on stdout, and
// the whole error on stderr, so that a failure can be looked at:
//
//	! podstart -fake early-exit alpha
//	stderr 'pod exited before becoming ready \(exit status 7\)'
//
// podstop, podkill and podwait print how the pod ended ("exit status 0"),
// podlog without PATTERN and podwaitlog what was logged. A wrong use of a verb
// fails the script, with ! too. Waits take 10 seconds unless told otherwise.
//
// An orphan is not a child of the script's: its status is not known, so that
// podwait only waits, its log is not captured or kept as evidence, and what it
// leaves behind is killed at the end of the script without a word.
//
// A script has the environment variable RUNTIME_DIR: the directory of the pod
// NAME is $RUNTIME_DIR/NAME. The condition [fakepod] tells whether the pod under
// test is the built-in fake pod.
package scripts

import (
	"embed"
	"fmt"
	"io/fs"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/rogpeppe/go-internal/testscript"
)

// Options say what scripts run against. The zero value is the fake pod.
type Options struct {
	// Dir holds the scripts, as testscript.Params.Dir.
	Dir string
	// Command launches the pod under test; an empty Program = a healthy fake
	// pod.
	Command spawn.Command
	// Env is added to the environment of every pod, as harness.Config.Env.
	Env []string
}

// Params returns the parameters with which testscript runs scripts that start
// pods. More commands, conditions or another set-up can be added to them; a
// Setup of your own must call the one that is there.
func Params(o Options) testscript.Params {
	return testscript.Params{
		Dir: o.Dir,
		Setup: func(env *testscript.Env) error {
			s := &script{options: o, tb: newScriptTB(env), pods: map[string]pod{}}
			env.Values[scriptKey{}] = s
			env.Setenv("RUNTIME_DIR", harness.RuntimeDir(s.tb))
			return nil
		},
		Cmds: commands(),
		Condition: func(cond string) (bool, error) {
			if cond == "fakepod" {
				return o.Command.Program == "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	}
}

// Run runs the scripts of a directory, each as a parallel subtest, against the
// fake pod. For another pod: testscript.Run(t, Params(Options{…})).
func Run(t *testing.T, dir string) {
	t.Helper()
	testscript.Run(t, Params(Options{Dir: dir}))
}

//go:embed scenarios/*.txtar
var scenarios embed.FS

// Scenarios returns the portable scenarios: what must hold for any pod.
func Scenarios() fs.FS {
	sub, err := fs.Sub(scenarios, "scenarios")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return sub
}
