package scripts_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/scripts"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recorder is a T that records how a script ended.
type recorder struct {
	artifacts string

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

func (r *recorder) Run(_ string, f func(testscript.T)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
}

// runScript runs one script, which need not pass.
func runScript(t *testing.T, script string) (log string, failed bool) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "script.txtar"), []byte(script), 0o600))
	r := &recorder{artifacts: t.TempDir()}
	r.Run("", func(testscript.T) { testscript.RunT(r, scripts.Params(scripts.Options{Dir: dir})) })
	return r.log.String(), r.failed
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
	}{
		{"podstop", "podstart alpha\npodstop alpha\nstdout '^exit status 0$'\npodstop alpha"},
		{"podstop by another signal", "podstart -signal TERM alpha\npodstop alpha\nstdout '^signal: terminated$'"},
		{"podstop by a request", "podstart -fake stubborn -shutdown '{\"method\":\"shutdown\"}' alpha\npodstop alpha\nstdout '^exit status 0$'"},
		{"podkill", "podstart alpha\npodkill alpha\nstdout '^signal: killed$'\n! podalive alpha\nstderr '^pod alpha has ended: signal: killed$'"},
		{"podsignal", "podstart alpha\npodsignal alpha SIGSTOP\npodsignal alpha cont\npodalive alpha"},
		{"podwait", "podstart alpha\npodsend alpha '{\"method\":\"shutdown\"}'\npodwait alpha\nstdout '^exit status 0$'"},
		{"podwait for a failure", "podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"exit 3\"}}'\n! podwait alpha\nstdout '^exit status 3$'\nstderr '^pod alpha ended with exit status 3$'"},
		{"podlog", "podstart -fake 'log hello; bind; ready; serve' alpha\npodlog alpha ^hello$\n! podlog alpha goodbye\npodlog alpha\nstdout ^hello$"},
		{"podwaitlog", "podstart -fake 'bind; ready; sleep 10ms; log hello; serve' alpha\npodwaitlog alpha ^hel\nstdout ^hello$"},
		{"podsend", "podstart alpha\npodsend alpha\nstdout snapshot\npodsend alpha '{\"method\":\"echo\",\"params\":[1]}'\nstdout '^\\{\"event\":\"echo\",\"data\":\\[1\\]\\}$'\n! stdout snapshot"},
		{"podsend to a pod that is gone", "podstart alpha\npodkill alpha\n! podsend alpha\nstderr 'could not connect to pod alpha at /.*connection refused'"},
		{"podsend without an answer", "podstart -fake 'bind; ready; hang' alpha\n! podsend -timeout 50ms alpha\nstderr 'pod alpha sent no snapshot line: nothing within 50ms'"},
		{"handshake arguments", "podstart -profile p -ticket-role r -workspace $WORK -dir $WORK alpha\npodsend alpha\nstdout '\"workspace\":\"'$WORK'\".*\"dir\":\"'$WORK'\".*\"profile\":\"p\",\"ticket_role\":\"r\"'"},
		{"session", "podstart -session 00000000-0000-0000-0000-000000000000 alpha\npodsend alpha\nstdout '\"session\":\"00000000-0000-0000-0000-000000000000\"'"},
		{"environment", "podstart -env A=1 -env B=2 alpha\npodsend alpha '{\"method\":\"env\"}'\nstdout '\"A\":\"1\",\"B\":\"2\"'"},
		{"orphan", "podstart -orphan alpha\npodalive alpha\npodsignal alpha STOP\npodsignal alpha CONT\npodsend alpha\nstdout snapshot\npodstop alpha\nstdout '^it has ended$'\n! podalive alpha"},
		{"orphan that is waited for", "podstart -orphan alpha\npodkill alpha\npodwait alpha"},
		{"orphan that does not start", "! podstart -orphan -fake early-exit alpha\nstderr '^pod exited before becoming ready \\(exit status 7\\)'"},
		{"orphan that is left to the end", "podstart -orphan -fake stubborn alpha"},
		{"a misspelt mode", "! podstart -fake erly-exit alpha\nstderr '^invalid pod config: '\n! stderr 'pod exited'"},
		{"condition", "[fakepod] podstart alpha\n[!fakepod] nonsense"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			log, failed := runScript(t, tc.script)
			assert.False(t, failed, log)
		})
	}
}

func TestScriptsThatFail(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, script string
		log          []string
	}{
		{"failed start", "podstart -fake early-exit alpha",
			[]string{"pod exited before becoming ready (exit status 7): cannot open session store", "script.txtar:1: podstart -fake early-exit alpha failed", "whole log: "}},
		{"start that should fail", "! podstart alpha", []string{"podstart alpha did not fail"}},
		{"unknown flag", "! podstart -nonsense alpha", []string{"podstart: flag provided but not defined: -nonsense", "usage: podstart [flags] NAME"}},
		{"no name", "podstart", []string{"podstart: got 0 arguments []", "usage: podstart [flags] NAME"}},
		{"unknown pod", "! podstop alpha", []string{`podstop: no pod "alpha" was started in this script`, "usage: podstop NAME"}},
		{"unknown signal", "podstart alpha\npodsignal alpha NONSENSE", []string{`podsignal: unknown signal "NONSENSE"`, "usage: podsignal NAME SIGNAL"}},
		{"! without meaning", "podstart alpha\n! podkill alpha", []string{"podkill: ! has no meaning here"}},
		{"two commands", "podstart -fake ready -pod x alpha", []string{"podstart: -fake and -pod exclude each other"}},
		{"bad pattern", "podstart alpha\npodlog alpha (", []string{"podlog: error parsing regexp"}},
		{"bad pattern to wait for", "podstart alpha\n! podwaitlog alpha (", []string{"podwaitlog: error parsing regexp"}},
		{"empty name", "! podstart ''", []string{"podstart: the pod's name is empty"}},
		{"request to an orphan", "podstart -orphan -shutdown stop alpha", []string{"podstart: -orphan and -shutdown exclude each other"}},
		{"log without a match", "podstart -fake 'log hello; bind; ready; serve' alpha\npodlog alpha goodbye", []string{`no match for "goodbye" in the log of pod alpha:`, "hello"}},
		{"log with a match", "podstart -fake 'log hello; bind; ready; serve' alpha\n! podlog alpha hello", []string{`"hello" matches in the log of pod alpha:`}},
		{"log line that never comes", "podstart alpha\npodwaitlog -timeout 10ms alpha nowhere", []string{`no line of the log of pod alpha matched "nowhere" within 10ms`, "it still runs"}},
		{"end that never comes", "podstart alpha\n! podwait -timeout 10ms alpha", []string{"pod alpha did not end within 10ms"}},
		{"pod that still runs", "podstart alpha\npodstart alpha", []string{`podstart: pod "alpha" still runs: stop it first`}},
		{"log of an orphan", "podstart -orphan alpha\npodlog alpha", []string{"the log of an orphan is not captured: look at $RUNTIME_DIR/alpha/stderr.log"}},
		{"unknown condition", "[nonsense] podstart alpha", []string{`unknown condition "nonsense"`}},
		{"process left behind", "[!linux] podstop\npodstart -fake escape alpha\n! podstop alpha\nstderr 'pod alpha left processes behind'",
			[]string{"pod alpha left processes behind, which were killed:", "Config.AllowLeaks"}},
		// Only the end of the script finds fault with this one.
		{"pod that dies by itself", "podstart alpha\n! podsend alpha '{\"method\":\"run\",\"params\":{\"program\":\"log \\\"no memory\\\"; exit 3\"}}'\n! podwaitlog alpha 'what never comes'",
			[]string{"pod alpha ended by itself during the test (exit status 3)", "no memory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			log, failed := runScript(t, tc.script)
			assert.True(t, failed, log)
			for _, want := range tc.log {
				assert.Contains(t, log, want)
			}
		})
	}
}

func TestPackageDocNamesEveryVerbAndFlag(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("scripts.go")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	source, err := os.ReadFile("verbs.go")
	require.NoError(t, err)
	for _, line := range strings.Split(string(source), "\n") {
		if verb, ok := strings.CutPrefix(strings.TrimSpace(line), `{"pod`); ok {
			assert.Contains(t, string(doc), "pod"+verb[:strings.IndexByte(verb, '"')]+" ")
		}
		if _, flag, ok := strings.Cut(line, `flags.`); ok && strings.Contains(flag, `("`) || strings.Contains(flag, `, "`) {
			fields := strings.Split(flag, `"`)
			assert.Contains(t, string(doc), "-"+fields[1]+" ", "flag of %s", line)
		}
	}
}

func TestScenariosAreEmbedded(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(scripts.Scenarios(), "*.txtar")
	require.NoError(t, err)
	assert.Contains(t, names, "survives-its-parent.txtar")
	for _, name := range names {
		text, err := fs.ReadFile(scripts.Scenarios(), name)
		require.NoError(t, err)
		assert.NotContains(t, string(text), "-fake", "%s must hold for any pod", name)
		assert.NotContains(t, string(text), "sleep", name)
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
		cmd := exec.Command(tool, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
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
