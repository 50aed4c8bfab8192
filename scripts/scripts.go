// Package scripts runs testscript scenarios that start pods by the real
// handshake: against the fake pod, or against any pod binary.
//
// A scenario is a .txtar file of testscript
// (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript) with these additional
// verbs. NAME is a pod's name. Every pod is torn down at the end of its script, as
// package harness does it.
//
//	[!] podstart [flags] NAME    start a pod and wait until it is ready; ! if the start must fail
//	    -allow-leaks             the pod may leave processes behind
//	    -allow-ready-again       the pod may write a second ready line
//	    -dir DIR                 the pod's DIR to work in (default: the workspace)
//	    -env NAME=VALUE          a NAME=VALUE of its environment, or a NAME to pass on
//	    -extra-arg ARG           an ARG after the handshake's; repeatable
//	    -fake PROGRAM            the fake pod, with a PROGRAM or mode
//	    -fault FAULT             a FAULT that system calls of the pod meet, such as
//	                             rename:path=**/status.json:error=ENOSPC:when=1; repeatable
//	    -grace DURATION          the DURATION of each step of podstop (5s)
//	    -hold WHAT               WHAT is done while the pod writes its ready line: look, or a signal
//	    -home-from DIR           a DIR that is copied into HOME
//	    -must-stop-gracefully    podstop must not end it by a signal
//	    -name-flag FLAG          the FLAG by which the pod is told its name (--pod)
//	    -pod PROGRAM             the pod's PROGRAM
//	    -pod-arg ARG             a prefix ARG of it; repeatable
//	    -profile PROFILE         the pod's PROFILE
//	    -session UUID            the UUID of the session to resume
//	    -show-args               evidence shows its arguments beyond the handshake's
//	    -shutdown LINE           a LINE that podstop writes first
//	    -signal SIGNAL           the SIGNAL that podstop sends (INT)
//	    -stop-status STATUS      a STATUS that podstop may end it with, beside 0, or any; repeatable
//	    -ticket-role ROLE        the pod's ticket ROLE
//	    -timeout DURATION        the DURATION that becoming ready may take (20s)
//	    -unset NAME              a variable NAME that is not in its environment; repeatable
//	    -workspace DIR           the pod's workspace DIR
//	    -workspace-from DIR      a DIR that is copied into its workspace in the sandbox
//	podcommand [-fake PROGRAM | -pod PROGRAM [-pod-arg ARG]...]
//	                             set what clients start from here on; without flags the pod under test
//	[!] podspawn [flags] NAME    run the client podspawn as a process, with the flags of podspawn; ! if
//	                             its status must not be 0
//	[!] podadopt [-timeout DURATION] NAME
//	                             wait until a client has started the pod, and let the other verbs use
//	                             it; ! if the timeout must pass first
//	[!] podstop NAME             stop the pod; ! if it must have ended by itself, but see below
//	podkill NAME                 kill the process group of the pod
//	podsignal [-process] NAME SIGNAL
//	                             send a signal to the process group of the pod, with -process to its
//	                             process alone
//	[!] podwait [-timeout DURATION] NAME
//	                             wait until the pod ends by itself with status 0; ! if it must end in
//	                             another way
//	[!] podlog NAME [PATTERN]    match the log so far, or print it; ! if nothing must match
//	[!] podwaitlog [-timeout DURATION] [-next] NAME PATTERN
//	                             wait until a line of the log matches, with -next a line after what the
//	                             last podwaitlog or podlog has read; ! if the timeout, or the end of the
//	                             pod, must come first
//	[!] podalive [-for DURATION] NAME
//	                             check that the process of the pod runs, and with -for that it goes on
//	                             so; ! if it must have ended
//	[!] podsend [-timeout DURATION] [-next] [-until PATTERN] [-open | -leave] NAME [LINE]
//	                             send a line and print the answer: the line that follows the snapshot;
//	                             with -until print all lines that follow, up to the first that matches;
//	                             without LINE print the snapshot, or with -until what follows it; with
//	                             -open connect and stay silent until the script ends; with -next go on
//	                             with the connection of the last -open or -next, or make one that stays
//	                             open, and print the line that follows what was printed of it, or with
//	                             -until all lines up to the first that matches; with -leave connect and
//	                             disconnect at once; ! if there must be no answer, or no match
//	[!] podquiet [-for DURATION] NAME
//	                             connect, and check that no line follows the snapshot for so long
//	                             (100ms); ! if one must
//	podplant NAME WHAT           leave in the directory of the pod what an earlier life of it may have
//	                             left: live-pid, pid-of-OTHER, garbage or empty
//	podprobe [-timeout DURATION] NAME PROBE
//	                             try a rule of the contract on the pod; the portable scenarios have all
//	                             probes
//
// podstart prints the name, process and socket of a ready pod on stdout. It prints the
// whole error on stderr, so that a script can check a failure:
//
//	! podstart -fake early-exit alpha
//	stderr 'pod exited before becoming ready \(exit status 7\)'
//
// podstop, podkill and podwait print how the pod ended ("exit status 0"); podlog
// without PATTERN and podwaitlog print lines of the log. Control characters are escaped
// in all that verbs print of a pod. The default timeout is 10 seconds. Each wait ends
// before the deadline of the script's T (go test -timeout, podscript -timeout). A wrong
// use of a verb fails the script, and so does a wait that the deadline has cut. A ! does
// not change that.
//
// A script fails at its end, as any test does, if a pod has ended by itself or has left
// processes behind. A passing ! podstop does not change that. podwait, before podstop,
// declares that the pod's end is expected. podstart -allow-leaks declares that the pod may
// leave processes.
//
// # Held pods
//
// What a pod has done when it announces itself is certain only while it writes its
// ready line. podstart -hold stops the pod in that write, and the log has the result.
// With look, it tests whether the pod listens on its socket. With a signal, it sends the
// signal to the pod's process group and drops the line, so that the pod does not become
// ready. The condition [hold] is true if the system can do that (Linux). A script whose
// pod cannot be held is skipped.
//
//	podstart -hold look alpha
//	podlog alpha '^podharness: its socket is listened on$'
//	podkill alpha
//	! podstart -hold INT alpha
//	stderr 'pod exited before becoming ready \(exit status 0\)'
//
// # Clients
//
// A client is a program that starts pods itself, such as the command podspawn. A script
// runs podspawn by the verb podspawn, and any other client by exec. For a pod with faults podspawn
// goes on until the pod has ended, and the verb ends when the start has. The client's pods live
// in the script's sandbox. Their logs are captured, and the pods are stopped at the end of
// the script. podadopt lets the other verbs use such a pod. Only the pod's parent learns
// its exit status: podwait says that the status is not known, and fails as it does for a
// status other than 0.
//
// # Requirements
//
// Each portable scenario (see [Scenarios]) checks one requirement, and has its name.
// podscript -list prints the requirements, with their levels and their sections of the
// contract, spawn/HANDSHAKE.md. The first comments of any scenario may state its
// requirement: see [ReadRequirement].
//
// # Environment
//
// The environment of a script is that of a client (harness.ClientEnv). A program that the
// script runs by exec has HOME, TMPDIR and the runtime directory in the sandbox. Its
// YOI_POD_RUNTIME_COMMAND starts the pod under test, or what podcommand sets. In addition,
// RUNTIME_DIR is the runtime directory: the directory of the pod NAME is
// $RUNTIME_DIR/NAME. The verb env does not change the environment of podstart's pods;
// podstart -env, podscript -env and [Options] do. When the script has ended, whatever it
// started is killed (on Linux).
//
// The condition [fakepod] is true if the pod under test is the built-in fake pod. The
// condition [session] is true if there is a session to resume: $SESSION. The condition
// [busy] is true if a request is known that takes the pod a while.
package scripts

import (
	"fmt"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/fault"
	"github.com/google/uuid"
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
	// Pod has the defaults of podstart and podspawn, except for Name, Command and Env.
	Pod harness.Config
	// Busy is a request that takes a pod a while, for the scenario that stops a busy one;
	// "" = none is known.
	Busy string
	// Session is the session that $SESSION names; nil = none.
	Session *uuid.UUID
	// Strict makes a should count as a must in Conform.
	Strict bool
	// Report is called at the end of a script that failed. The verb that failed the
	// script does not print its error then. nil = the verb prints it.
	Report func(Failure)
}

// Params returns the parameters with which testscript runs scripts that start
// pods. You may add commands and conditions to them, and replace Setup by a function that
// calls it.
func Params(o Options) testscript.Params {
	return testscript.Params{
		Dir: o.Dir,
		Setup: func(env *testscript.Env) error {
			s := &script{options: o, tb: newScriptTB(env, o.Report), pods: map[string]*harness.Pod{}, leaky: map[*harness.Pod]bool{}, seen: map[*harness.Pod]int64{}, talks: map[*harness.Pod]*talk{}}
			env.Values[scriptKey{}] = s
			env.Vars = append(env.Vars, "RUNTIME_DIR="+harness.RuntimeDir(s.tb))
			s.tb.Cleanup(s.noteLastLines) // when all pods have ended, and before their logs are closed
			env.Vars = append(env.Vars, harness.ClientEnv(s.tb, o.Command)...)
			if o.Session != nil {
				env.Vars = append(env.Vars, "SESSION="+o.Session.String())
			}
			return nil
		},
		Cmds: commands(),
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "fakepod":
				return o.Command.Program == "", nil
			case "session":
				return o.Session != nil, nil
			case "busy":
				return o.Busy != "", nil
			case "hold":
				return fault.Supported() == nil, nil
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
