package scripts_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"example.com/podharness/spawn"
	"github.com/google/uuid"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recorder is a T that records how a script ended.
type recorder struct {
	artifacts string
	deadline  time.Time

	mu     sync.Mutex
	log    strings.Builder
	failed bool
}

func (r *recorder) Log(args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(&r.log, args...)
}

func (r *recorder) FailNow() {
	r.mu.Lock()
	r.failed = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Fatal(args ...any)   { r.Log(args...); r.FailNow() }
func (r *recorder) Skip(args ...any)    { r.Log(args...); runtime.Goexit() }
func (r *recorder) Parallel()           {}
func (r *recorder) Verbose() bool       { return false }
func (r *recorder) ArtifactDir() string { return r.artifacts }

func (r *recorder) Deadline() (time.Time, bool) { return r.deadline, true }

func (r *recorder) Run(_ string, f func(testscript.T)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
}

// patience is how long a script may take that should take no time.
const patience = 20 * time.Second

// runScript runs one script, which need not pass.
func runScript(t *testing.T, script string) (log string, failed bool) {
	t.Helper()
	return runScriptUntil(t, script, time.Now().Add(patience))
}

func runScriptUntil(t *testing.T, script string, deadline time.Time) (log string, failed bool) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script.txtar"), []byte(script), 0o600))
	r := &recorder{artifacts: t.TempDir(), deadline: deadline}
	params := scripts.Params(scripts.Options{Dir: dir, Env: []string{"A=0"}})
	params.Deadline = deadline
	done := make(chan struct{})
	go func() {
		defer close(done)
		testscript.RunT(r, params)
	}()
	select {
	case <-done:
	case <-time.After(patience + 5*time.Second):
		require.Fail(t, "the script has not ended", script)
	}
	return r.log.String(), r.Failed()
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
	}{
		{"podstop", "podstart alpha\npodstop alpha\nstdout '^exit status 0$'\npodstop alpha"},
		{"podstop by another signal", "podstart -signal TERM alpha\npodstop alpha\nstdout '^signal: terminated$'"},
		{"podstop by a request", "podstart -fake stubborn -shutdown '{\"method\":\"shutdown\"}' alpha\npodstop alpha\nstdout '^exit status 0$'"},
		{"podstop with a status that is allowed", "podstart -stop-status 3 -stop-status 4 -shutdown '{\"method\":\"run\",\"params\":{\"program\":\"exit 4\"}}' alpha\npodstop alpha\nstdout '^exit status 4$'\npodstart -stop-status any -shutdown '{\"method\":\"run\",\"params\":{\"program\":\"exit 4\"}}' alpha"},
		{"podkill", "podstart alpha\npodkill alpha\nstdout '^signal: killed$'\n! podalive alpha\nstderr '^pod alpha has ended: signal: killed$'"},
		{"podsignal", "podstart alpha\npodsignal alpha SIGSTOP\npodsignal alpha cont\npodalive alpha"},
		{"podwait", "podstart alpha\npodsend alpha '{\"method\":\"shutdown\"}'\npodwait alpha\nstdout '^exit status 0$'"},
		{"podwait for a failure", "podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"exit 3\"}}'\n! podwait alpha\nstdout '^exit status 3$'\nstderr '^pod alpha ended with exit status 3$'"},
		{"podlog", "podstart -fake 'log hello; bind; ready; serve' alpha\npodlog alpha ^hello$\n! podlog alpha goodbye\npodlog alpha\nstdout ^hello$"},
		{"podwaitlog", "podstart -fake 'bind; ready; sleep 10ms; log hello; serve' alpha\npodwaitlog alpha ^hel\nstdout ^hello$"},
		{"the next line", "podstart -fake 'log a1; log b1; bind; ready; log a2; serve' alpha\npodwaitlog -next alpha ^a\nstdout ^a1$\npodwaitlog -next alpha ^b\nstdout ^b1$\npodwaitlog -next alpha ^a\nstdout ^a2$\npodwaitlog alpha ^a\nstdout ^a1$\npodlog alpha\n! podwaitlog -timeout 10ms -next alpha ^a2\nstderr 'matched \"\\^a2\" within 10ms, after the first [0-9]+ bytes$'"},
		{"podsend", "podstart alpha\npodsend alpha\nstdout snapshot\npodsend alpha '{\"method\":\"echo\",\"params\":[1]}'\nstdout '^\\{\"event\":\"echo\",\"data\":\\[1\\]\\}$'\n! stdout snapshot"},
		{"podsend to a pod that is gone", "podstart alpha\npodkill alpha\n! podsend alpha\nstderr 'could not connect to pod alpha at /.*connection refused'"},
		{"podsend without an answer", "podstart -fake 'bind; ready; hang' alpha\n! podsend -timeout 50ms alpha\nstderr 'pod alpha sent no snapshot line: nothing within 50ms'"},
		{"handshake arguments", "podstart -profile p -ticket-role r -workspace $WORK -dir $WORK alpha\npodsend alpha\nstdout '\"workspace\":\"'$WORK'\".*\"dir\":\"'$WORK'\".*\"profile\":\"p\",\"ticket_role\":\"r\"'"},
		{"session", "podstart -session 00000000-0000-0000-0000-000000000000 alpha\npodsend alpha\nstdout '\"session\":\"00000000-0000-0000-0000-000000000000\"'"},
		{"environment", "env A=3\nenv C=3\npodstart alpha\npodsend alpha '{\"method\":\"env\"}'\nstdout '\"A\":\"0\"'\n! stdout '\"C\"'"},
		{"environment of a pod", "podstart -env A=1 -env B=2 alpha\npodsend alpha '{\"method\":\"env\"}'\nstdout '\"A\":\"1\",\"B\":\"2\"'"},
		{"a client's pod", "podspawn alpha\nstdout '^pod alpha is ready'\npodadopt alpha\nstdout '^alpha is ready: process'\npodalive alpha\npodsignal alpha STOP\npodsignal alpha CONT\npodsend alpha\nstdout snapshot\npodlog alpha ^YOI-READY\npodstop alpha\nstdout '^its status is not known'\n! podalive alpha"},
		{"a client's pod that is waited for", "podspawn alpha\npodadopt alpha\npodkill alpha\n! podwait alpha\nstdout 'not known'"},
		{"a client that fails", "podcommand -fake early-exit\n! podspawn alpha\nstderr 'pod exited before becoming ready .exit status 7.: cannot open session store'\n! podadopt -timeout 50ms alpha\nstderr 'no pod alpha to adopt within 50ms: it has written no ready line'\nstderr 'cannot open session store'\npodcommand\npodspawn alpha\npodadopt alpha"},
		{"a client's pod that is left to the end", "podcommand -fake stubborn\npodspawn alpha"},
		{"a pod that is started and adopted", "podstart alpha\npodadopt alpha\npodstop alpha\nstdout '^exit status 0$'"},
		{"a second pod of a name, after the first", "podspawn alpha\npodadopt alpha\npodstop alpha\npodstart alpha\npodalive alpha\npodstop alpha\npodspawn alpha\npodadopt alpha\npodalive alpha"},
		{"a misspelt mode", "! podstart -fake erly-exit alpha\nstderr '^invalid pod config: '\n! stderr 'pod exited'"},
		{"dialect", "podstart -name-flag --worker -fake 'log {name}; bind; ready; serve' alpha\npodlog alpha ^alpha$\n! podstart -extra-arg --nonsense beta\nstderr 'exit status 2.: fakepod: unknown flag \"--nonsense\"'"},
		{"fixtures", "podstart -workspace-from files -home-from files -env HERE={workspace} alpha\npodsend alpha '{\"method\":\"status\"}'\nstdout '\"workspace\":\"/'\npodsend alpha '{\"method\":\"env\"}'\nstdout '\"HERE\":\"/'\nexists $HOME/note\n-- files/note --\nhello\n"},
		{"podsignal to the process alone", "podstart -fake 'child ''ignore INT; hang''; bind; ready; serve' -allow-leaks alpha\npodsignal -process alpha INT\npodwait alpha"},
		{"a silent client beside another one", "podstart alpha\npodsend -open alpha\npodsend alpha\nstdout snapshot"},
		{"podsend until a line", "podstart alpha\npodsend -until 2 alpha '{\"method\":\"run\",\"params\":{\"program\":\"event 1; event 2; event 3\"}}'\nstdout '^1\\n2\\n$'"},
		{"podsend until a line that does not come", "podstart alpha\n! podsend -timeout 300ms -until nothing alpha '{\"method\":\"ping\"}'\nstdout pong\nstderr '^pod alpha sent no line that matches \"nothing\": none within 300ms\\n\\tit sent since:\\n\\t\\t.*pong'\n! podsend -timeout 200ms -until . alpha\nstderr 'nothing within 200ms'"},
		{"podsend that goes on", "podstart alpha\npodsend -next -until 2 alpha '{\"method\":\"run\",\"params\":{\"program\":\"event 1; event 2; event 3; event 4\"}}'\nstdout '^1\\n2\\n$'\npodsend -next alpha\nstdout '^3\\n$'\npodsend -next alpha\nstdout '^4\\n$'\n! podsend -next -timeout 200ms -until never alpha '{\"method\":\"ping\"}'\nstdout '^{\"event\":\"done\".*\\n.*pong'\nstderr 'no line that matches \"never\": none within 200ms'\npodsend -next -until pong alpha\nstdout '^{\"event\":\"done\".*\\n.*pong'\n! podsend -next -timeout 100ms alpha\nstderr 'pod alpha sent no line: nothing within 100ms'"},
		{"podsend that goes on with an open connection", "podstart alpha\npodsend -open alpha\npodsend -until done alpha '{\"method\":\"run\",\"params\":{\"program\":\"event 5\"}}'\npodsend -next alpha\nstdout '^5\\n$'\npodstop alpha\n! podsend -next alpha\nstderr 'it has closed the connection'\npodstart alpha\npodsend -next alpha '{\"method\":\"ping\"}'\nstdout pong"},
		{"podquiet", "podstart alpha\npodquiet -for 200ms alpha\npodquiet alpha"},
		{"podquiet with a noise", "podstart -fake 'bind; ready; serve; sleep 500ms; event 1; event 2; event 3; hang' alpha\n! podquiet -for 9s alpha\nstderr 'pod alpha was not quiet for 9s: it sent a line\\n\\tit sent since:\\n\\t\\t1'"},
		{"condition", "[fakepod] podstart alpha\n[!fakepod] nonsense\n[session] nonsense"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			log, failed := runScript(t, tc.script)
			assert.False(t, failed, log)
		})
	}
}

// TestOptionsReachThePods of podstart, and those of podspawn.
func TestOptionsReachThePods(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := `
[!session] fail
! podstart alpha
stderr 'alpha --workspace /.* --worker alpha --profile p --ticket-role r --manifest /.*/m word hello$'
! podspawn alpha
stderr 'alpha --workspace /.* --worker alpha --profile p --ticket-role r --manifest /.*/m word hello$'
! podstart -session $SESSION beta
stderr '--session 6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11 --worker beta'
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script.txtar"), []byte(script), 0o600))
	session := uuid.MustParse("6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11")
	params := scripts.Params(scripts.Options{
		Dir:     dir,
		Command: spawn.Command{Program: "sh", PrefixArgs: []string{"-c", `echo "$@" $WORD $(cat m) >&2; exit 1`, "sh", "{name}"}},
		Env:     []string{"WORD=word"},
		Session: &session,
		Pod: harness.Config{
			NameFlag: "--worker", ExtraArgs: []string{"--manifest", "{workspace}/m"}, Profile: "p", TicketRole: "r",
			WorkspaceFrom: fstest.MapFS{"m": {Data: []byte("hello")}},
		},
	})
	r := &recorder{artifacts: t.TempDir(), deadline: time.Now().Add(patience)}
	testscript.RunT(r, params)
	assert.False(t, r.Failed(), r.log.String())
}

// talker sends alerts before its snapshot, and half an answer.
const talker = `
[!exec:python3] skip 'no python3'
podstart -pod python3 -pod-arg $WORK/pod.py alpha
podsend alpha
stdout '^\{"event": "snapshot"\}$'
! podsend -timeout 1s alpha hello
stderr 'pod alpha gave no answer to hello: nothing within 1s \(its line has no newline: "half of it"\)'
-- pod.py --
import os, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.path.join(os.environ["YOI_RUNTIME_DIR"], "alpha", "sock"))
listener.listen()
os.write(2, b"YOI-READY\talpha\t" + listener.getsockname().encode() + b"\n")
while True:
    conn, _ = listener.accept()
    try:
        conn.sendall(b'{"event": "alert", "data": 1}\n{"event":"alert"}\n{"event": "snapshot"}\n')
        if conn.recv(100):
            conn.sendall(b"half of it")
            conn.recv(100)
    except OSError:
        pass
`

func TestPodsendSkipsAlertsAndShowsUnfinishedLines(t *testing.T) {
	t.Parallel()
	log, failed := runScript(t, talker)
	assert.False(t, failed, log)
}

func TestScriptsThatFail(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
		log          []string
	}{
		{"failed start", "podstart -fake early-exit alpha",
			[]string{"pod exited before becoming ready (exit status 7): cannot open session store", "script.txtar:1: podstart -fake early-exit alpha failed", "/alpha.log"}},
		{"start that should fail", "! podstart alpha", []string{"podstart alpha did not fail"}},
		{"unknown flag", "! podstart -nonsense alpha", []string{"podstart: flag provided but not defined: -nonsense", "usage: podstart [flags] NAME"}},
		{"no number for a flag", "podstart alpha\n! podwait -timeout x alpha", []string{`podwait: invalid value "x" for flag -timeout`, "usage: podwait [-timeout DURATION] NAME"}},
		{"too many arguments", "podstart alpha\n! podlog alpha a b", []string{`podlog: got 3 arguments ["alpha" "a" "b"]`, "usage: podlog NAME [PATTERN]"}},
		{"too few arguments", "podstart alpha\npodwaitlog alpha", []string{`podwaitlog: got 1 arguments ["alpha"]`}},
		{"unknown signal for podstop", "podstart -signal NONSENSE alpha", []string{`podstart: invalid value "NONSENSE" for flag -signal: unknown signal "NONSENSE"`}},
		{"bad session", "podstart -session x alpha", []string{`podstart: invalid value "x" for flag -session`}},
		{"bad last pattern", "podstart alpha\npodsend -until ( alpha", []string{"podsend: -until: error parsing regexp", "usage: podsend"}},
		{"until and open", "podstart alpha\npodsend -open -until x alpha", []string{"podsend: -open, -leave, and -next or -until exclude each other"}},
		{"next and leave", "podstart alpha\npodsend -next -leave alpha", []string{"podsend: -open, -leave, and -next or -until exclude each other"}},
		{"no name", "podstart", []string{"podstart: got 0 arguments []", "usage: podstart [flags] NAME"}},
		{"unknown pod", "! podstop alpha", []string{`podstop: no pod "alpha" was started in this script`, "usage: podstop NAME"}},
		{"unknown signal", "podstart alpha\npodsignal alpha NONSENSE", []string{`podsignal: unknown signal "NONSENSE"`, "usage: podsignal [-process] NAME SIGNAL"}},
		{"! without meaning", "podstart alpha\n! podkill alpha", []string{"podkill: ! has no meaning here"}},
		{"two workspaces", "podstart -workspace . -workspace-from . alpha", []string{"podstart: -workspace and -workspace-from exclude each other"}},
		{"a fixture that is not there", "podstart -workspace-from nowhere alpha", []string{"-workspace-from: open ", "nowhere"}},
		{"two commands", "podstart -fake ready -pod x alpha", []string{"podstart: -fake and -pod exclude each other"}},
		{"a client's pod that never comes", "podadopt -timeout 10ms alpha", []string{"no pod alpha to adopt within 10ms: nobody has made /"}},
		{"! of podcommand", "! podcommand", []string{"podcommand: ! has no meaning here"}},
		{"a client that should fail", "! podspawn alpha", []string{"podspawn alpha did not fail"}},
		{"bad pattern", "podstart alpha\npodlog alpha (", []string{"podlog: error parsing regexp"}},
		{"bad pattern to wait for", "podstart alpha\n! podwaitlog alpha (", []string{"podwaitlog: log of pod alpha: bad pattern: error parsing regexp", "usage: podwaitlog [-timeout DURATION] [-next] NAME PATTERN"}},
		{"empty name", "! podstart ''", []string{"podstart: the pod's name is empty"}},
		{"log without a match", "podstart -fake 'log hello; bind; ready; serve' alpha\npodlog alpha goodbye", []string{`no match for "goodbye" in the log of pod alpha`, "hello"}},
		{"log with a match", "podstart -fake 'log hello; bind; ready; serve' alpha\n! podlog alpha hello", []string{`"hello" matches in the log of pod alpha:`}},
		{"log line that never comes", "podstart alpha\npodwaitlog -timeout 10ms alpha nowhere", []string{`no line of the log of pod alpha matched "nowhere" within 10ms`, "it still runs"}},
		{"end that never comes", "podstart alpha\n! podwait -timeout 10ms alpha", []string{"pod alpha did not end within 10ms"}},
		{"pod that still runs", "podstart alpha\npodstart alpha", []string{`podstart: pod "alpha" still runs: stop it first`}},
		{"unknown condition", "[nonsense] podstart alpha", []string{`unknown condition "nonsense"`}},
		{"process left behind", "podstart -fake escape alpha\n! podstop alpha\nstderr 'pod alpha left processes behind'",
			[]string{"pod alpha left processes behind, which were killed:", "Config.AllowLeaks", "! podstop alpha passes, but what it found fails the script at its end"}},
		{"pod that ends with a status", "podstart -stop-status 3 -shutdown '{\"method\":\"run\",\"params\":{\"program\":\"exit 4\"}}' alpha\npodstop alpha", []string{"pod alpha was stopped by the shutdown request and ended with exit status 4, not 0", "podstart -stop-status"}},
		{"bad status", "podstart -stop-status x alpha", []string{`invalid value "x" for flag -stop-status`}},
		{"pod that had died by itself", "podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"exit 3\"}}'\n! podwaitlog alpha 'what never comes'\n! podstop alpha\nstderr 'pod alpha ended by itself .*exit status 3'",
			[]string{"! podstop alpha passes, but what it found fails the script at its end: expect a pod's own end with podwait"}},
		// Only the end of the script finds fault with this one.
		{"pod that dies by itself", "podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"log \\\"no memory\\\"; exit 3\"}}'\n! podwaitlog alpha 'what never comes'",
			[]string{"pod alpha ended by itself during the test (exit status 3)", "no memory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.name == "process left behind" {
				needProcesses(t)
			}
			log, failed := runScript(t, tc.script)
			assert.True(t, failed, log)
			for _, want := range tc.log {
				assert.Contains(t, log, want)
			}
		})
	}
}

// TestPodsCannotRuleATerminal prints what they say by each verb that does.
func TestPodsCannotRuleATerminal(t *testing.T) {
	t.Parallel()
	const pod = `podstart -fake 'bind; log "caf\xc3\xa9\t\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb \x1b[2J\a\x9b \xe2\x80\xae"; garbage "evil \x1b[2J\a\n"; ready; serve' alpha` + "\n"
	for _, script := range []string{
		"podlog alpha\nstdout '^café\t👩\u200d💻 '\nstdout '\\\\x1b\\[2J\\\\a� \\\\u202e$'\nnonsense",
		"podlog alpha nowhere",
		"! podlog alpha café",
		"podwaitlog alpha 'caf.*\\x1b'\nstdout '^café.*\\\\x1b\\[2J'\nnonsense",
		"podsend alpha '{\"method\":\"ping\"}'\nstdout '^evil \\\\x1b'\nnonsense",
		"! podsend alpha '{\"method\":\"ping\"}'",
		"podwaitlog -timeout 10ms alpha nowhere",
		"podstart -fake 'ready alpha \"{dir}/\x1b[2J\a\"; hang' -timeout 50ms beta",
	} {
		log, failed := runScript(t, pod+script)
		assert.True(t, failed, log)
		assert.Equal(t, strings.HasSuffix(script, "nonsense"), strings.Contains(log, "unknown command"), "up to there it passes:\n%s", log)
		log = strings.ReplaceAll(log, "podstart -fake 'ready alpha \"{dir}/\x1b[2J\a\"", "") // the script's own line
		for _, raw := range []string{"\x1b", "\a", "\x9b", "\u202e"} {
			assert.NotContains(t, log, raw, script)
		}
	}
}

// failureOf runs a script and returns what failed it; nil = nothing did.
func failureOf(t *testing.T, script string, timeout time.Duration) (failure *scripts.Failure) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script.txtar"), []byte(script), 0o600))
	r := &recorder{artifacts: t.TempDir(), deadline: time.Now().Add(timeout)}
	testscript.RunT(r, scripts.Params(scripts.Options{Dir: dir, Report: func(f scripts.Failure) { failure = &f }}))
	assert.Equal(t, r.Failed(), failure != nil)
	return failure
}

// TestFailureOfAScript: what failed it, as values.
func TestFailureOfAScript(t *testing.T) {
	t.Parallel()
	run := func(script string, timeout time.Duration) *scripts.Failure { return failureOf(t, script, timeout) }
	assert.Nil(t, run("podstart alpha", patience))

	f := run("podstart -fake 'log hello; bind; ready; serve; log bye; hang' alpha\npodwaitlog alpha bye\npodstart -fake never-ready -timeout 50ms beta\n", patience)
	assert.Equal(t, "podstart", f.Verb)
	assert.ErrorIs(t, f.Err, spawn.ErrTimeout)
	assert.False(t, f.Cut)
	assert.Equal(t, map[string]string{"alpha": "bye"}, f.LastLines)

	f = run("! podstart alpha", patience)
	assert.Equal(t, "podstart", f.Verb)
	assert.EqualError(t, f.Err, "podstart alpha did not fail")
	assert.Empty(t, f.LastLines, "a ready line says nothing")

	f = run("podstart alpha\n! podwaitlog -timeout 1h alpha nowhere", time.Second)
	assert.Equal(t, "podwaitlog", f.Verb)
	assert.True(t, f.Cut)

	f = run("podstart alpha\nexists nothing", patience)
	assert.Regexp(t, `^alpha is ready: process \d+, socket .*\n$`, f.Stdout)
	assert.Equal(t, &scripts.Failure{Stdout: f.Stdout, LastLines: map[string]string{}}, f)

	f = run("podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"exit 3\"}}'\n! podwaitlog alpha 'what never comes'", patience)
	assert.Empty(t, f.Verb, "only the end of the script has found it")
	assert.ErrorContains(t, f.Err, "pod alpha ended by itself during the test (exit status 3)")
	assert.False(t, f.Kit)
}

// TestTroubleOfTheKitIsNotThePods: what says nothing about a pod.
func TestTroubleOfTheKitIsNotThePods(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]string{
		"podstart -no-such-flag alpha":                 "flag provided but not defined",
		"podstart -workspace-from $WORK/nowhere alpha": "nowhere: no such file",
		"podstart alpha\n! podwaitlog alpha '('":       "missing closing )",
	} {
		f := failureOf(t, script, patience)
		require.NotNil(t, f, script)
		assert.True(t, f.Kit, script)
		assert.ErrorContains(t, f.Err, want, script)
	}
}

func TestVerbsOfAPodThatIsNotThere(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"podstop alpha", "podkill alpha", "podsignal alpha INT", "podwait alpha", "podlog alpha", "podwaitlog alpha x", "podalive alpha", "podsend alpha"} {
		name, _, _ := strings.Cut(verb, " ")
		for _, line := range []string{verb, "! " + verb} {
			log, failed := runScript(t, line)
			assert.True(t, failed, line)
			if strings.HasPrefix(line, "!") && strings.Contains(log, "! has no meaning here") {
				continue
			}
			assert.Contains(t, log, name+`: no pod "alpha" was started in this script`, line)
		}
	}
}

// TestDeadline runs verbs that would wait for an hour in scripts that have a
// second.
func TestDeadline(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
		log          []string
	}{
		{"podstart", "! podstart -timeout 1h -fake hang alpha", []string{"podstart: pod did not become ready within ", "the ready timeout of 1h0m0s was cut to "}},
		{"podwait", "podstart alpha\npodwait -timeout 1h alpha", []string{"podwait: pod alpha did not end within ", "cut to "}},
		{"podwaitlog", "podstart alpha\n! podwaitlog -timeout 1h alpha nowhere", []string{`podwaitlog: no line of the log of pod alpha matched "nowhere" within `, "cut to "}},
		{"podsend", "podstart -fake 'bind; ready; hang' alpha\n! podsend -timeout 1h alpha", []string{"podsend: pod alpha sent no snapshot line: nothing within ", "the timeout of 1h0m0s was cut to "}},
		{"podstop", "podstart -fake stubborn -grace 1h alpha\npodstop alpha\nstdout killed\nnonsense", []string{"pod alpha did not stop within ", "unknown command"}},
		{"end of the script", "podstart -fake stubborn -grace 1h alpha\nnonsense", []string{"pod alpha did not stop within "}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			log, failed := runScriptUntil(t, tc.script, start.Add(time.Second))
			assert.Less(t, time.Since(start), 20*time.Second)
			assert.True(t, failed, log)
			for _, want := range tc.log {
				assert.Contains(t, log, want)
			}
		})
	}
}

// TestTimeoutWithinTheDeadline has its own timeout, and says nothing of another.
func TestTimeoutWithinTheDeadline(t *testing.T) {
	t.Parallel()
	log, _ := runScript(t, "podstart alpha\n! podwaitlog -timeout 50ms alpha nowhere\npodwait -timeout 50ms alpha")
	assert.Contains(t, log, "pod alpha did not end within 50ms")
	assert.NotContains(t, log, "deadline")
}

// needProcesses skips a test where what pods and commands leave is not found.
func needProcesses(t *testing.T) {
	t.Helper()
	if !findsProcesses {
		t.Skip("what a test has left is found on Linux only")
	}
}

// commandLine returns the words of a process, with a NUL behind each.
func commandLine(pid int) string {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return string(line)
}

// TestExecIsEndedWithTheScript lets a script leave what ignores its end.
func TestExecIsEndedWithTheScript(t *testing.T) {
	t.Parallel()
	needProcesses(t)
	begun := filepath.Join(t.TempDir(), "begun")
	leaves := "exec sh -c '(trap \"\" INT QUIT; echo >" + begun + "; exec sleep 1009) >/dev/null 2>&1 </dev/null & until [ -e " + begun + " ]; do sleep 0.01; done'"
	for _, script := range []string{leaves, leaves + "\nnonsense"} {
		log, failed := runScript(t, script)
		assert.Equal(t, script != leaves, failed, log)
		for _, left := range harness.Leaks() {
			assert.NotContains(t, commandLine(left.PID), "sleep\x001009")
		}
	}
}

// TestClientIsMarked looks while a client waits for its pod: the watchdog must find
// it before it forks.
func TestClientIsMarked(t *testing.T) {
	t.Parallel()
	needProcesses(t)
	found := make(chan bool, 1)
	go func() {
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if slices.ContainsFunc(harness.Leaks(), func(l harness.Leak) bool { return strings.Contains(commandLine(l.PID), "\x00podharness-podspawn\x00") }) {
				found <- true
				return
			}
		}
		found <- false
	}()
	log, failed := runScript(t, "podcommand -fake hang\n! podspawn -timeout 1s alpha")
	assert.False(t, failed, log)
	assert.True(t, <-found)
}

// TestPodOfAClientDoesNotOutliveTheScript starts it by exec, as any client may be.
func TestPodOfAClientDoesNotOutliveTheScript(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program := filepath.Join(dir, "client")
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nexec '"+self+"' podharness-podspawn \"$@\"\n"), 0o700))
	log, failed := runScript(t, "exec "+program+" -json alpha\ncp stdout "+dir+"/pod\nexec cat $RUNTIME_DIR/alpha/pid")
	assert.False(t, failed, log)
	text, err := os.ReadFile(filepath.Join(dir, "pod"))
	require.NoError(t, err)
	var pod struct {
		PID int
		Log string
	}
	require.NoError(t, json.Unmarshal(text, &pod))
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pod.PID))
	assert.True(t, syscall.Kill(pod.PID, 0) == syscall.ESRCH || strings.Contains(string(stat), ") Z "), "it was stopped, reaped or not")
	assert.NoFileExists(t, pod.Log)
}

// closingPod is the first argument of a pod that sends its snapshot and hears
// nothing.
const closingPod = "closing-pod"

func init() { reexec.Register(closingPod, beClosingPod) }

func TestMain(m *testing.M) {
	flag.Parse()
	if !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.Contains(arg, "test.parallel=") }) {
		_ = flag.Set("test.parallel", "8") // the tests wait for pods most of the time
	}
	os.Exit(m.Run())
}

func beClosingPod(args []string) int {
	name := args[slices.Index(args, "--pod")+1]
	path := filepath.Join(os.Getenv("YOI_RUNTIME_DIR"), name, "sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, path)
	for {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		_ = conn.(*net.UnixConn).CloseRead()
		fmt.Fprintln(conn, `{"event":"snapshot"}`)
	}
}

func TestPodsendThatCannotWrite(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	log, failed := runScript(t, "podstart -signal KILL -pod "+self+" -pod-arg "+closingPod+" alpha\npodsend alpha\nstdout snapshot\n! podsend alpha {}\nstderr '^could not send to pod alpha: it has closed the connection$'")
	assert.False(t, failed, log)
}

func TestPortableScenarios(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(scripts.Scenarios(), "*.txtar")
	require.NoError(t, err)
	requirements := scripts.Requirements()
	assert.Len(t, requirements, len(names), "each has its place in the order")
	assert.Equal(t, "starts", requirements[0].ID)
	contract, err := os.ReadFile("../spawn/HANDSHAKE.md")
	require.NoError(t, err)
	sections := strings.Split(string(contract), "\n## ")
	ids := map[string]bool{}
	for _, r := range requirements {
		text, err := fs.ReadFile(scripts.Scenarios(), r.ID+".txtar")
		require.NoError(t, err)
		assert.NotContains(t, string(text), "-fake", "%s must hold for any pod", r.ID)
		assert.NotContains(t, string(text), "sleep", r.ID)
		assert.NotEmpty(t, r.Text, r.ID)
		assert.NotEmpty(t, r.Fix, r.ID)
		assert.True(t, r.ID == "starts" || ids[r.Needs], "%s needs %q, which must come before it", r.ID, r.Needs)
		ids[r.ID] = true
		for _, section := range strings.Split(r.Section, ", ") {
			i := slices.IndexFunc(sections, func(text string) bool { return strings.HasPrefix(text, section+". ") })
			require.GreaterOrEqual(t, i, 0, "%s is in section %s", r.ID, section)
			assert.Regexp(t, `\[pod:[^]]* `+r.ID+`[],]`, sections[i], "section %s", section)
		}
	}
}

// TestAnotherModule runs the scenarios of a module of its own, as a user's is.
func TestAnotherModule(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("no go command: %v", err)
	}
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "othermodule"))))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600))
	goCommand := func(args ...string) string {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, tool, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	goCommand("mod", "edit", "-replace", "example.com/podharness="+root)
	out := goCommand("test", "-v", "./...")
	assert.Contains(t, out, "--- PASS: TestScenarios/restart")
	assert.Contains(t, out, "--- PASS: TestAgentAnswers")
}

var _ harness.TB = (*testing.T)(nil)
