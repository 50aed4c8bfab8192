//go:build linux && !portable

package main

import (
	"bytes"
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/scripts/internal/conformance"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// results returns the results of a requirement, by case.
func results(all []conformance.Check, requirement string) map[string]string {
	by := map[string]string{}
	for _, c := range all {
		if c.Requirement == requirement {
			by[c.Case] = c.Result
		}
	}
	return by
}

func TestResultsDoNotDependOnWhoRunsPodclient(t *testing.T) {
	t.Parallel()
	for name, before := range map[string][]string{
		"descriptors":     {"/bin/sh", "-c", `exec 3</dev/null 9</dev/null; exec "$@"`, "sh"},
		"umask 0777":      {"/bin/sh", "-c", `umask 0777; exec "$@"`, "sh"},
		"umask 0177":      {"/bin/sh", "-c", `umask 0177; exec "$@"`, "sh"},
		"ignored signals": {"/bin/sh", "-c", `trap '' HUP INT QUIT TERM PIPE USR1 CHLD TSTP TTOU; exec "$@"`, "sh"},
		"limits":          {"/bin/sh", "-c", `ulimit -c 0; ulimit -n 2000; exec "$@"`, "sh"},
		"blocked signals": {"python3", "-c", "import os, signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32)); os.execvp(sys.argv[1], sys.argv[1:])"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(before[0]); err != nil {
				t.Skip(err)
			}
			args := append([]string{"-strict", "-run", "^(ready|inherits|umask|signals|stray-descriptor|early-exit|interrupt|name-dot)$"}, podspawn()...)
			cmd, _ := process(t, args...)
			cmd.Args = slices.Concat(before, []string{cmd.Path}, args)
			cmd.Path, _ = exec.LookPath(before[0])
			out, err := cmd.CombinedOutput()
			assert.NoError(t, err, "%s", out)
			assert.Contains(t, string(out), "\n8 passed, 0 failed")
		})
	}
}

// inMountNamespace runs podclient with TMPDIR on a file system of its own.
func inMountNamespace(t *testing.T, options string, args ...string) (out string, status int) {
	t.Helper()
	script := `d=$1; shift; mount -t tmpfs -o "$1" tmpfs "$d" || exit 77; shift; exec "$@"`
	cmd, temp := process(t, args...)
	cmd.Args = slices.Concat([]string{"unshare", "-m", "/bin/sh", "-c", script, "sh", temp, options, cmd.Path}, args)
	path, err := exec.LookPath("unshare")
	if err != nil || os.Getuid() != 0 {
		t.Skip("only root may mount, with unshare")
	}
	cmd.Path = path
	text, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() == 77 || strings.Contains(string(text), "unshare failed") {
		t.Skipf("nothing can be mounted here: %s", text)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

func TestKitsOwnTroubleIsNoFinding(t *testing.T) {
	t.Parallel()
	t.Run("TMPDIR is mounted noexec", func(t *testing.T) {
		t.Parallel()
		out, status := inMountNamespace(t, "noexec,mode=0700", append([]string{"-run", "^(ready|early-exit|command-path)$"}, podspawn()...)...)
		assert.Equal(t, 0, status, out)
		assert.Contains(t, out, "3 passed, 0 failed")
	})
	t.Run("the disk is full", func(t *testing.T) {
		t.Parallel()
		out, status := inMountNamespace(t, "size=8m,mode=0700", append([]string{"-run", "^flood$"}, podspawn()...)...)
		assert.Equal(t, 3, status, out)
		assert.Regexp(t, `ERROR +flood .*\n +verdict \(must\): the machine has too little for the pod: the disk of the log is full.*\n`, out)
		assert.Contains(t, out, "0 passed, 0 failed, 0 warned, 0 skipped, 1 not judged")
	})
}

func TestPodThatLacksSomethingIsNoFinding(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"fakepod: child: fork/exec /proc/self/exe: resource temporarily unavailable": "the machine has too little for the pod, which says: fakepod: child: fork/exec /proc/self/exe: resource temporarily unavailable",
		"resource temporarily unavailable":                                           "",
		"fakepod: bind: there is a socket already":                                   "",
	} {
		s := sweepCase{podDir: t.TempDir(), seen: fakepod.Trace{Args: []string{"pod"}}}
		require.NoError(t, os.WriteFile(s.logPath(), []byte("loading\n"+said+"\n"), 0o600))
		assert.Equal(t, want, s.trouble(oracle.Outcome{Verdict: oracle.Ready}))
	}
	lacking := shell("echo 'pthread_create failed: Resource temporarily unavailable' >&2; exit 2")
	_, out, status := checks(t, []string{"-run", "^(ready|name-dot)$"}, lacking...)
	assert.Equal(t, 3, status, out)
	assert.Contains(t, out, `verdict (must): the machine has too little for the client, which said "pthread_create failed: Resource temporarily unavailable"`)
	assert.Contains(t, out, "0 passed, 0 failed, 0 warned, 0 skipped, 2 not judged")
}

func TestClientThatStaysOpen(t *testing.T) {
	t.Parallel()
	spawns := "'" + os.Args[0] + "' " + asPodspawn + ` -timeout 2s "$1"`
	cases := "^(ready|slow-bind|early-exit|wrong-name|interrupt|never-binds|second-start)$"
	for name, c := range map[string]struct {
		script string
		want   []string // requirements that are not met
		says   string
		cases  string // "" = all
	}{
		"is right":                 {spawns + ` >/dev/null || exit 1; echo "$1 is open"; exec sleep 1000`, nil, "7 passed", ""},
		"handles SIGTERM":          {spawns + ` >/dev/null || exit 1; trap 'exit 3' TERM; echo "$1 is open"; sleep 1000 & wait`, nil, "7 passed", ""},
		"ignores SIGTERM":          {spawns + ` >/dev/null || exit 1; trap '' TERM HUP; echo "$1 is open"; sleep 1000`, nil, "7 passed", ""},
		"is open in any case":      {spawns + ` >/dev/null & sleep 1; echo "$1 is open"; sleep 1000`, []string{"verdict"}, "the client said that the pod is ready (-ready) where the start is: wrong name", "^wrong-name$"},
		"never says that it is":    {spawns + " >/dev/null", []string{"verdict"}, "; the pod became ready, so it must say so: -ready matches nowhere in its output", "^ready$"},
		"ends the pod with itself": {spawns + ` >/dev/null || exit 1; trap 'kill -9 $(cat "$YOI_RUNTIME_DIR/$1/pid"); exit' TERM HUP; echo "$1 is open"; sleep 1000 & wait`, []string{"independent"}, "must live on without its client", "^ready$"},
	} {
		for _, tty := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " on a terminal"}[tty], func(t *testing.T) {
				t.Parallel()
				flags := []string{"-ready", "alpha is op", "-run", cmp.Or(c.cases, cases), "-tty=" + map[bool]string{true: "true", false: "false"}[tty]}
				all, out, status := checks(t, flags, shell(c.script)...)
				assert.Equal(t, len(c.want) > 0, status == 1, out)
				assert.Subset(t, append(c.want, "clean", "prompt"), append(found(all), c.want...), out)
				assert.Subset(t, found(all), c.want, out)
				assert.Contains(t, out, c.says)
			})
		}
	}
}

func TestClientOnATerminalInAllCases(t *testing.T) {
	t.Parallel()
	client := shell("test -t 0 && test -t 1 && test -t 2 && { " + "'" + os.Args[0] + "' " + asPodspawn + ` -timeout 2s "$1"; exit; }; echo no terminal; exit 1`)
	cases := []string{"-strict", "-run", "^(ready|inherits|early-exit|control-characters|never-binds|name-dot|interrupt|terminal-ready|second-start)$"}
	_, out, status := checks(t, append(cases, "-tty"), client...)
	assert.Equal(t, 0, status, out)
	all, out, status := checks(t, cases, client...)
	assert.Equal(t, 1, status, out)
	assert.Equal(t, conformance.Pass, results(all, "verdict")["terminal-ready"], out)
	assert.Equal(t, conformance.Fail, results(all, "verdict")["ready"], out)
}

func TestSecondStart(t *testing.T) {
	t.Parallel()
	spawns := "'" + os.Args[0] + "' " + asPodspawn + ` -timeout 2s "$1"`
	for name, c := range map[string]struct {
		client              []string
		onePod, independent string
	}{
		"is refused":     {podspawn(), conformance.Pass, conformance.Pass},
		"kills the pod":  {shell(`kill -9 $(cat "$YOI_RUNTIME_DIR/$1/pid" 2>/dev/null) 2>/dev/null; ` + spawns), conformance.Missed, conformance.Fail},
		"is told as one": {shell(spawns + "; exit 0"), conformance.Missed, conformance.Pass},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, out, status := checks(t, []string{"-strict", "-run", "^second-start$"}, c.client...)
			assert.Equal(t, map[string]string{"second-start": c.onePod}, results(all, "one-pod"), out)
			assert.Equal(t, map[string]string{"second-start": c.independent}, results(all, "independent"), out)
			assert.Equal(t, c.independent == conformance.Fail, status == 1, out)
		})
	}
}

func TestSignalsThatAClientWasStartedWith(t *testing.T) {
	t.Parallel()
	all, out, status := checks(t, []string{"-strict", "-run", "^signals$"}, podspawn()...)
	assert.Equal(t, 0, status, out)
	assert.Equal(t, map[string]string{"signals": conformance.Pass}, results(all, "signals"), out)
	program, source := clientPy(t)
	path := filepath.Join(t.TempDir(), "client.py")
	const unless = "if signal.getsignal(number) != signal.SIG_IGN:"
	require.Contains(t, source, unless)
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(source, unless, "if True:", 1)), 0o600))
	all, out, status = checks(t, []string{"-strict", "-run", "^signals$"}, program, path, "--timeout", "2", "{name}")
	assert.Equal(t, 0, status, out)
	assert.Equal(t, map[string]string{"signals": conformance.Missed}, results(all, "signals"), out)
	assert.Contains(t, out, "signals (may): the pod was started without SIGHUP ignored; it may be as the client was started (1)")
}

// TestEachRequirementIsJudged has a right client, so that none is left out by accident.
func TestContractNamesEachRequirement(t *testing.T) {
	t.Parallel()
	contract, err := os.ReadFile("../../../spawn/HANDSHAKE.md")
	if err != nil {
		t.Skipf("the source is not here: %v", err)
	}
	sections := strings.Split(string(contract), "\n## ")
	all := slices.Clone(requirements)
	for _, r := range faultRequirements {
		all = append(all, requirement{r.ID, r.Level, r.Section, r.Text})
	}
	for _, r := range all {
		for _, section := range strings.Split(r.section, ", ") {
			i := slices.IndexFunc(sections, func(text string) bool { return strings.HasPrefix(text, section+". ") })
			require.GreaterOrEqual(t, i, 0, "%s is in section %s", r.id, section)
			assert.Regexp(t, `\[client:[^]]* `+r.id+`[],]`, sections[i], "section %s", section)
		}
	}
	for _, tag := range regexp.MustCompile(`\[client: ([^]]*)\]`).FindAllStringSubmatch(string(contract), -1) {
		for _, id := range strings.Split(tag[1], ", ") {
			assert.True(t, slices.ContainsFunc(all, func(r requirement) bool { return r.id == id }), id)
		}
	}
}

func TestLauncherSaysWhyAClientCannotBeStarted(t *testing.T) {
	t.Parallel()
	failed := filepath.Join(t.TempDir(), "failed")
	program, args := surroundings{Umask: 0o022, Failed: failed}.launch([]string{"/no/such/client", "x"})
	var stderr bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stderr = &stderr
	assert.EqualError(t, cmd.Run(), "exit status 127")
	text, err := os.ReadFile(failed)
	require.NoError(t, err)
	assert.Contains(t, string(text), "/no/such/client")
	assert.Empty(t, stderr.String())
}

func TestCount(t *testing.T) {
	t.Parallel()
	all, out, status := checks(t, []string{"-count", "3", "-run", "^(ready|early-exit)$"}, podspawn()...)
	assert.Equal(t, 0, status, out)
	for _, c := range all {
		assert.Equal(t, []int{3, 3}, []int{c.Runs, c.Passed}, "%+v", c)
	}
	assert.Contains(t, out, "verdict (must): 3 of 3 passed\n")

	every := `touch "$TALLY/$$"; [ "$(ls "$TALLY" | wc -l)" = 2 ] && { echo no; exit 1; }; ` + "'" + os.Args[0] + "' " + asPodspawn + ` -timeout 2s "$1"`
	all, out, status = checks(t, []string{"-count", "3", "-env", "TALLY=" + t.TempDir(), "-run", "^ready$"}, shell(every)...)
	assert.Equal(t, 1, status, out)
	assert.Equal(t, []string{"verdict"}, found(all))
	assert.Contains(t, out, `verdict (must): 2 of 3 passed: the client ended with exit status 1 before a pod had begun, and said "no";`)
	_, out, _ = checks(t, []string{"-count", "3", "-failfast", "-env", "TALLY=" + t.TempDir(), "-run", "^ready$"}, shell(every)...)
	assert.Contains(t, out, "verdict (must): 1 of 2 passed: ")
}

func TestFailFast(t *testing.T) {
	t.Parallel()
	all, out, status := checks(t, []string{"-failfast", "-parallel", "1"}, shell("echo no; exit 1")...)
	assert.Equal(t, 1, status, out)
	assert.Contains(t, found(all), "verdict")
	assert.Greater(t, strings.Count(out, "  not run after a failure (-failfast)\n"), len(all)/2, "those that had begun are judged: %s", out)
}

func TestShardsAreTheWhole(t *testing.T) {
	t.Parallel()
	whole, _, status := podclient(t, "-list")
	assert.Equal(t, 0, status)
	var parts []string
	for _, part := range []string{"1/3", "2/3", "3/3"} {
		out, _, status := podclient(t, "-list", "-shard", part)
		assert.Equal(t, 0, status)
		parts = append(parts, sortedNames(out)...)
	}
	slices.Sort(parts)
	assert.Equal(t, sortedNames(whole), parts)
	_, stderr, status := podclient(t, "-list", "-shard", "4/3")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "want I/N, such as 1/4 to 4/4")
	_, stderr, status = podclient(t, "-list", "-count", "0")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "-count 0 runs nothing")
}
