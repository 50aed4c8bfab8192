//go:build linux && !portable

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/podharness/scripts/internal/conformance"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// realPod are the flags for a pod that takes a while, as real ones do: the fake one as a
// program of its own, which podclient knows nothing of.
func realPod(program string) []string {
	return []string{"-pod", os.Args[0], "-pod-arg", "podharness-fakepod", "-env", "FAKEPOD_PROGRAM=" + program}
}

const takesAWhile = "log loading; sleep 300ms; bind; ready; serve"

func TestClientAndRealPod(t *testing.T) {
	t.Parallel()
	all, out, status := checks(t, append(realPod(takesAWhile), "-strict", "-timeout", "3s"), "/bin/sh", "-c", "'"+os.Args[0]+"' "+asPodspawn+` -timeout 3s "$1"`, "sh", "{name}")
	assert.Equal(t, 0, status, out)
	cases := map[string]bool{}
	for _, c := range all {
		cases[c.Case] = true
		if c.Result == conformance.Skip {
			t.Logf("the machine is too busy: %+v", c)
			continue
		}
		assert.Equal(t, conformance.Pass, c.Result, "%+v", c)
	}
	assert.Len(t, cases, len(realCases()))
}

func TestWrongClientsWithARealPod(t *testing.T) {
	t.Parallel()
	program, source := clientPy(t)
	for name, c := range map[string]struct {
		old, new    string // in the right client
		cases       string
		requirement string
	}{
		"kills nothing":           {"            kill(process)  # whatever", "            pass  # whatever", "suspended", "clean"},
		"dies of SIGINT":          {"    args.sigchld = signal.signal(", "    signal.signal(signal.SIGINT, signal.SIG_DFL)\n    args.sigchld = signal.signal(", "interrupted", "clean"},
		"says nothing":            {"        if self.tail:\n", "        if False:\n", "refused", "reason"},
		"is content":              {"        return getattr(error, \"status\", 1)", "        return 0", "refused", "verdict"},
		"believes in the process": {"            if ended:\n", "            if time.monotonic() - deadline + timeout > 0.1: return 'ready'\n            if ended:\n", "suspended", "verdict"},
		"ends its pod":            {"        line = start(args, caught)", "        line = start(args, caught); os.system('kill -9 $(cat $YOI_RUNTIME_DIR/alpha/pid)')", "ready", "independent"},
		"starts it elsewhere":     {"program), cwd=workspace", "program), cwd='/'", "ready", "workspace"},
		"knows the pod's files":   {"    runtime = runtime_dir()\n", "    runtime = runtime_dir()\n    if os.path.exists(runtime + '/alpha/pid'): raise Failed('it is there')\n", "restart-after-kill", "verdict"},
		"takes another's place":   {"    runtime = runtime_dir()\n", "    runtime = runtime_dir()\n    os.system('kill -9 $(cat $YOI_RUNTIME_DIR/alpha/pid 2>/dev/null) 2>/dev/null')\n", "second-start", "independent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, 1, strings.Count(source, c.old), "%q must be in client.py once", c.old)
			path := filepath.Join(t.TempDir(), "client.py")
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(source, c.old, c.new, 1)), 0o600))
			client := []string{"/bin/sh", "-c", `cd "$TMPDIR" && exec "$@"`, "sh", program, path, "--timeout", "2", "{name}"}
			all, out, status := checks(t, append(realPod(takesAWhile), "-strict", "-run", "^"+c.cases+"$"), client...)
			for _, c := range all {
				if c.Result == conformance.Skip || c.Result == conformance.Error {
					t.Skipf("the machine is too busy:\n%s", out)
				}
			}
			assert.Equal(t, 1, status, out)
			assert.Equal(t, []string{c.requirement}, found(all), out)
		})
	}
}

func TestUsageOfARealPod(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"-pod-arg goes with -pod":         {"-pod-arg", "x", "true", "{name}"},
		"-random goes with fake pods":     {"-pod", "true", "-random", "1", "true", "{name}"},
		"/no/such/pod: not found":         {"-pod", "/no/such/pod", "true", "{name}"},
		"no case matches -run \"^deaf$\"": {"-pod", "true", "-run", "^deaf$", "true", "{name}"},
	} {
		_, stderr, status := podclient(t, args...)
		assert.Equal(t, 2, status, want)
		assert.Contains(t, stderr, want)
	}
	out, _, status := podclient(t, "-pod", "true", "-list")
	assert.Equal(t, 0, status)
	assert.Len(t, sortedNames(out), len(realCases()))
}
