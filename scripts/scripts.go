// Package scripts runs testscript scenarios that start pods by the real
// handshake: against the fake pod, or against any pod binary.
//
// A scenario is a .txtar file of testscript
// (https://pkg.go.dev/github.com/rogpeppe/go-internal/testscript) with these
// verbs beside the usual ones. NAME is a pod's name; every pod is torn down at
// the end of its script, as package harness does it.
//
//	[!] podstart [flags] NAME       start a pod and wait until it is ready; ! if
//	                                it must not
//	    -allow-leaks                it may leave processes behind
//	    -dir DIR                    the pod's DIR to work in (default: the
//	                                workspace)
//	    -env NAME=VALUE             its NAME=VALUE, or a NAME to pass on
//	    -extra-arg ARG              an ARG after the handshake's; repeatable
//	    -fake PROGRAM               the fake pod, with a PROGRAM or mode
//	    -grace DURATION             the DURATION of each step of podstop (5s)
//	    -hold WHAT                  WHAT is done while it writes its ready line:
//	                                look, or a signal
//	    -home-from DIR              a DIR that is copied into HOME
//	    -must-stop-gracefully       podstop must not end it by a signal
//	    -name-flag FLAG             the FLAG by which the pod is told its name
//	                                (--pod)
//	    -pod PROGRAM                the pod's PROGRAM
//	    -pod-arg ARG                a prefix ARG of it; repeatable
//	    -profile PROFILE            the pod's PROFILE
//	    -session UUID               the UUID of the session to resume
//	    -shutdown LINE              a LINE that podstop writes first
//	    -signal SIGNAL              the SIGNAL that podstop sends (INT)
//	    -ticket-role ROLE           the pod's ticket ROLE
//	    -timeout DURATION           the DURATION that becoming ready may take
//	                                (20s)
//	    -workspace DIR              the pod's workspace DIR
//	    -workspace-from DIR         a DIR that is copied into its workspace in the
//	                                sandbox
//	podcommand [-fake PROGRAM | -pod PROGRAM [-pod-arg ARG]...]
//	                                what clients start from here on; without flags
//	                                the pod under test
//	[!] podspawn [flags] NAME       run the client podspawn, a process of its own,
//	                                with its flags; ! if its status must not be 0
//	[!] podadopt [-timeout DURATION] NAME
//	                                wait until a client has started the pod, and
//	                                treat it as one of the script's; ! if none is
//	                                there before the timeout
//	[!] podstop NAME                stop it; ! if it had ended by itself, but see
//	                                below
//	podkill NAME                    kill its process group
//	podsignal [-process] NAME SIGNAL
//	                                send a signal to its process group, or to its
//	                                process alone
//	[!] podwait [-timeout DURATION] NAME
//	                                wait until it ends by itself, with status 0; !
//	                                with another one or by a signal
//	[!] podlog NAME [PATTERN]       match what it has logged so far; ! if nothing
//	                                does
//	[!] podwaitlog [-timeout DURATION] [-next] NAME PATTERN
//	                                wait until a line of its log matches, with
//	                                -next one after what the last podwaitlog or
//	                                podlog of it has seen; ! if none does before
//	                                the timeout, or its end
//	[!] podalive NAME               whether its process runs; ! if it has ended
//	[!] podsend [-timeout DURATION] [-open | -leave] NAME [LINE]
//	                                send a line to its socket and print the
//	                                answer: what comes after the snapshot, or
//	                                without LINE the snapshot; with -open only
//	                                connect, and stay silent to the end of the
//	                                script, with -leave only connect, and leave at
//	                                once; ! if there is none
//
// podstart prints the name, process and socket of a ready pod on stdout, and
// the whole error on stderr, so that a failure can be looked at:
//
//	! podstart -fake early-exit alpha
//	stderr 'pod exited before becoming ready \(exit status 7\)'
//
// podstop, podkill and podwait print how the pod ended ("exit status 0"),
// podlog without PATTERN and podwaitlog what was logged. Waits take 10 seconds
// unless told otherwise, and end before the deadline of the script's T (go test
// -timeout, podscript -timeout). A wrong use of a verb fails the script, with !
// too; so does one that the deadline has cut short.
//
// A pod that ends by itself, or leaves processes behind, fails the script at its
// end, as it does any test: that ! podstop has found it so changes nothing.
// podwait before that tells that its end is expected, podstart -allow-leaks that
// it may leave some.
//
// # Held pods
//
// What a pod has done by the time it announces itself is certain only while it
// writes its ready line. podstart -hold keeps it in that write, and the log says
// what was found, or sent: with look whether its socket is listened on; with a
// signal its process group is sent that, and the line is dropped, so that the pod
// does not become ready. The condition [hold] tells whether the system can do that
// (Linux); a script whose pod cannot be held is skipped.
//
//	podstart -hold look alpha
//	podlog alpha '^podharness: its socket is listened on$'
//	podkill alpha
//	! podstart -hold INT alpha
//	stderr 'pod exited before becoming ready \(exit status 0\)'
//
// # Clients
//
// A client is a program that starts pods itself: whatever the script runs by exec,
// and the command podspawn. Its pods live in the script's sandbox; they are
// captured as those of podstart are, and stopped at the end of the script.
// podadopt makes one of them the script's, so that the other verbs take it. Only
// the parent of a pod is told its status: podwait of an adopted one always ends as
// with another status than 0, and says that it is not known.
//
// # Requirements
//
// The portable scenarios, [Scenarios], are about one requirement each, of that name:
// podscript -list prints them, with their levels and the sections of the contract,
// spawn/HANDSHAKE.md. The first comments of a scenario may state its requirement: see
// [ReadRequirement].
//
// # Environment
//
// A script has the environment variable RUNTIME_DIR: the directory of the pod
// NAME is $RUNTIME_DIR/NAME. Its own environment is that of a client
// (harness.ClientEnv): what it starts by exec has HOME, TMPDIR and the runtime
// directory in the sandbox, and starts the pod under test by
// YOI_POD_RUNTIME_COMMAND, or what podcommand sets. The pods of podstart get one
// that is built for them, which the script's env does not reach, and podstart
// -env, podscript -env and [Options] do.
//
// Whatever a script starts is killed (on Linux) at the end of the script at the
// latest, however that ends.
//
// The condition [fakepod] tells whether the pod under test is the built-in fake
// pod, [session] whether there is a session to resume: $SESSION.
package scripts

import (
	"fmt"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
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
	// Pod has the defaults of podstart and podspawn, but for Name, Command and Env.
	Pod harness.Config
	// Session is the session that $SESSION names; nil = none.
	Session *uuid.UUID
	// Report is called at the end of a script that failed. The verb that failed the
	// script does not print its error then. nil = the verb prints it.
	Report func(Failure)
}

// Params returns the parameters with which testscript runs scripts that start
// pods. More commands, conditions or another set-up can be added to them; a
// Setup of your own must call the one that is there.
func Params(o Options) testscript.Params {
	return testscript.Params{
		Dir: o.Dir,
		Setup: func(env *testscript.Env) error {
			s := &script{options: o, tb: newScriptTB(env, o.Report), pods: map[string]*harness.Pod{}, seen: map[*harness.Pod]int64{}}
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
			case "hold":
				return canHold() == nil, nil
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
