//go:build linux && !portable

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/scripts/internal/sweep"
	"example.com/podharness/spawn/fault"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asWrongClient, as its first argument, makes this binary a client that is right but for the
// fault that the second one names.
const asWrongClient = "wrong-client-of-podclient"

func init() {
	reexec.Register(asWrongClient, func(args []string) int {
		c := &wrongClient{fault: args[0], name: args[1]}
		return c.end(c.start())
	})
}

// wrongClient is a client of the shortest kind.
type wrongClient struct {
	fault, name string
	pod         *exec.Cmd // nil until it was started
}

func (c *wrongClient) is(faults ...string) bool { return slices.Contains(faults, c.fault) }

// end returns the status for what came of the start.
func (c *wrongClient) end(err error) int {
	if err == nil {
		fmt.Println("the pod is ready")
		if c.is("stays") {
			time.Sleep(time.Hour)
		}
		return 0
	}
	if c.pod != nil && !c.is("leaves-pod") {
		_ = syscall.Kill(-c.pod.Process.Pid, syscall.SIGKILL)
		_ = c.pod.Wait()
	}
	switch {
	case c.is("waits-for-ever"):
		time.Sleep(time.Hour)
	case c.is("says-nothing"):
		return 1
	case c.is("says-no-cause"):
		err = fmt.Errorf("that was nothing")
	}
	fmt.Fprintln(os.Stderr, err)
	if c.is("ends-with-0") {
		return 0
	}
	return 1
}

func (c *wrongClient) start() error {
	dir := filepath.Join(os.Getenv("YOI_RUNTIME_DIR"), c.name)
	if err := os.MkdirAll(dir, map[bool]os.FileMode{true: 0o755, false: 0o700}[c.is("open-directory")]); err != nil {
		return err
	}
	path, flags := filepath.Join(dir, "stderr.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC
	if c.is("half-made-log") {
		flags |= os.O_EXCL
	}
	log, err := os.OpenFile(path, flags, 0o600)
	for err != nil && c.is("retries-for-ever") {
		time.Sleep(10 * time.Millisecond)
		log, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return err
	}
	pod := exec.Command(os.Getenv("YOI_POD_RUNTIME_COMMAND"), "pod", "--workspace", os.Getenv("HOME"), "--pod", c.name)
	pod.Dir, pod.Stderr, pod.SysProcAttr = os.Getenv("HOME"), log, &syscall.SysProcAttr{Setpgid: true}
	if err := pod.Start(); err != nil {
		return err
	}
	c.pod = pod
	reader, err := os.Open(path)
	if err != nil {
		return err
	}
	lines := bufio.NewReader(reader)
	for end := time.Now().Add(4 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		line, err := lines.ReadString('\n')
		switch fields := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3); {
		case err == nil && len(fields) == 3 && fields[0] == "YOI-READY":
			conn, err := net.Dial("unix", fields[2])
			if err != nil {
				return err
			}
			return conn.Close()
		case err != nil && err != io.EOF:
			return err
		case time.Now().After(end):
			return fmt.Errorf("the pod is not ready")
		}
	}
}

// wrongClients has for each requirement wrong clients, and the runs that show what is wrong.
var wrongClients = map[string][]struct{ fault, trials string }{
	"client-fault-answered": {{"waits-for-ever", `^call 1 of mkdir .* with EACCES`}, {"retries-for-ever", `^call 1 of open .*/stderr.log and all later ones with EMFILE`}},
	"client-fault-honest":   {{"ends-with-0", `^call 1 of mkdir .* with EACCES`}, {"says-nothing", `^call 1 of open .*/stderr.log with ENOSPC`}},
	"client-fault-clean":    {{"leaves-pod", `^call 2 of open .*/stderr.log with EMFILE`}, {"half-made-log", `^call 1 of exec .* with ENOMEM`}},
	"client-fault-told":     {{"says-no-cause", `^call 1 of mkdir .* with EACCES`}},
	"client-crash-clean":    {{"half-made-log", `^call 1 of fork with SIGKILL`}},
}

func needFaults(t *testing.T) {
	t.Helper()
	if err := fault.Supported(); err != nil {
		t.Skip(err)
	}
}

// swept runs the trials of a client whose texts match, and returns the findings.
func swept(t *testing.T, trials string, client ...string) (findings []conformance.Check) {
	t.Helper()
	return sweptWith(t, nil, trials, client...)
}

func sweptWith(t *testing.T, flags []string, trials string, client ...string) (findings []conformance.Check) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	s, err := parse(slices.Concat([]string{"-faults", "-strict", "-timeout", "4s", "-json", report}, flags, []string{"--"}, client), io.Discard, io.Discard)
	require.NoError(t, err)
	f, err := newClientFaults(&s)
	require.NoError(t, err)
	wanted, any := regexp.MustCompile(trials), false
	f.sweep.Choose = func(trial sweep.Trial) bool {
		any = any || wanted.MatchString(trial.String())
		return wanted.MatchString(trial.String())
	}
	var out bytes.Buffer
	_, err = f.sweep.Main("podclient", &out, io.Discard)
	require.NoError(t, err, out.String())
	require.True(t, any, "no trial matches %s: %s", trials, out.String())
	results, err := conformance.ReadResults(report)
	require.NoError(t, err)
	for _, c := range results.Checks {
		assert.NotEqual(t, conformance.Error, c.Result, c.Why)
	}
	return slices.DeleteFunc(results.Checks, func(c conformance.Check) bool { return !c.IsFinding() })
}

func TestEachFaultRequirementFindsItsWrongClients(t *testing.T) {
	t.Parallel()
	needFaults(t)
	var all []string
	for _, r := range faultRequirements {
		assert.NotEmpty(t, wrongClients[r.ID], "no wrong client for %s", r.ID)
		for _, tc := range wrongClients[r.ID] {
			all = append(all, tc.trials)
			t.Run(r.ID+"/"+tc.fault, func(t *testing.T) {
				t.Parallel()
				if os.Getenv("PODHARNESS_LONG") == "" && r.ID == "client-fault-answered" {
					t.Skip("it shows when a time is over: run with PODHARNESS_LONG=1")
				}
				findings := swept(t, tc.trials, os.Args[0], asWrongClient, tc.fault, "{name}")
				assert.True(t, slices.ContainsFunc(findings, func(c conformance.Check) bool { return c.Requirement == r.ID && c.Result == conformance.Fail }), "%+v", findings)
			})
		}
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		assert.Empty(t, swept(t, strings.Join(all, "|"), os.Args[0], asWrongClient, "none", "{name}"))
	})
}

// TestPodOfACrashIsComparedWithThatOfAStartWithoutFaults has one whose directory others can read.
func TestPodOfACrashIsComparedWithThatOfAStartWithoutFaults(t *testing.T) {
	t.Parallel()
	needFaults(t)
	assert.Empty(t, swept(t, `^call 1 of write .*stdout with SIGKILL`, os.Args[0], asWrongClient, "open-directory", "{name}"))
}

// TestClientThatStaysNeedNotSayWhatItCannot has the write of its word fail.
func TestClientThatStaysNeedNotSayWhatItCannot(t *testing.T) {
	t.Parallel()
	needFaults(t)
	assert.Empty(t, sweptWith(t, []string{"-ready", "the pod is ready", "-timeout", "1s"}, `^call 1 of write .*stdout with EIO`, os.Args[0], asWrongClient, "stays", "{name}"))
}

// TestShellAroundAClientThatWasKilledIsJudgedByWhatIsLeft has one that ends with a status of its
// own then, and says nothing.
func TestShellAroundAClientThatWasKilledIsJudgedByWhatIsLeft(t *testing.T) {
	t.Parallel()
	needFaults(t)
	script := filepath.Join(t.TempDir(), "client")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\n\""+os.Args[0]+"\" "+asWrongClient+" \"$@\"\nexit $?\n"), 0o700))
	assert.Empty(t, swept(t, `^call 1 of mkdir .* with SIGKILL`, script, "none", "{name}"))
	findings := swept(t, `^call 1 of exec .*command.* with SIGKILL`, script, "half-made-log", "{name}")
	require.NotEmpty(t, findings)
	assert.Equal(t, "client-crash-clean", findings[0].Requirement)
}

// sweptWhole runs a sweep whose pod is that of a case, of all points in the long tests, and
// checks that it finds nothing.
func sweptWhole(t *testing.T, name string, client ...string) {
	t.Helper()
	needFaults(t)
	budget := "3s"
	if os.Getenv("PODHARNESS_LONG") != "" {
		budget = "20m"
	}
	s, err := parse(append([]string{"-faults", "-strict", "-timeout", "3s", "-budget", budget, "--"}, client...), io.Discard, io.Discard)
	require.NoError(t, err)
	f, err := newClientFaults(&s)
	require.NoError(t, err)
	for _, c := range s.portable() {
		if c.name == name {
			f.cases[""], err = s.complete(c)
			require.NoError(t, err)
		}
	}
	var stdout, stderr bytes.Buffer
	status, err := f.sweep.Main("podclient", &stdout, &stderr)
	assert.NoError(t, err)
	assert.Zero(t, status)
	assert.Empty(t, stderr.String())
	assert.Regexp(t, `\n\d+ points, \d+ of \d+ runs in [0-9.]+s, -seed \d+`, stdout.String())
	t.Log(stdout.String())
}

func TestPodspawnPassesWithFaults(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ready", "slow-bind", "old-log"} {
		t.Run(name, func(t *testing.T) {
			if name != "ready" && os.Getenv("PODHARNESS_LONG") == "" {
				t.Skip("run with PODHARNESS_LONG=1")
			}
			t.Parallel()
			sweptWhole(t, name, os.Args[0], asPodspawn, "-timeout", "3s", "{name}")
		})
	}
	t.Run("as an ordinary user", func(t *testing.T) {
		if os.Geteuid() != 0 || os.Getenv("PODHARNESS_LONG") == "" {
			t.Skip("run as root, which can become another user, with PODHARNESS_LONG=1")
		}
		const nobody = 65534
		dir, err := os.MkdirTemp("/tmp", "pc")
		require.NoError(t, err)
		defer os.RemoveAll(dir)
		require.NoError(t, os.Chown(dir, nobody, nobody))
		binary, err := os.ReadFile(os.Args[0])
		require.NoError(t, err)
		self := filepath.Join(dir, "test")
		require.NoError(t, os.WriteFile(self, binary, 0o755))
		require.NoError(t, os.Chmod(self, 0o755)) // whatever the umask is
		cmd := exec.Command(self, "-test.run=^TestPodspawnPassesWithFaults$/^ready$", "-test.v")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s", out)
		assert.Contains(t, string(out), "--- PASS: TestPodspawnPassesWithFaults/ready")
	})
}

func TestClientsOfOtherLanguagesPassWithFaults(t *testing.T) {
	t.Parallel()
	if os.Getenv("PODHARNESS_LONG") == "" {
		t.Skip("run with PODHARNESS_LONG=1")
	}
	for language, command := range rightClients {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			sweptWhole(t, "ready", append(command(t), "--timeout", "3", "{name}")...)
		})
	}
}

func TestFindingOfAClientIsToldOnceAndCanBeRepeated(t *testing.T) {
	t.Parallel()
	needFaults(t)
	findings := swept(t, `^call 1 of mkdir .*/\{name\} with (EACCES|ENOSPC)$`, os.Args[0], asWrongClient, "says-no-cause", "{name}")
	require.Len(t, findings, 1)
	c := findings[0]
	assert.Equal(t, "client-fault-told", c.Requirement)
	assert.Equal(t, "mkdir-name", c.Case)
	m := regexp.MustCompile(`(?s)^it ended with exit status 1, and said "that was nothing", which names neither .*\n1 point shows this, first call 1 of mkdir \{runtime\}/\{name\} with \w+; -known calls it client-fault-told/mkdir-name\nrepeat: podclient -fault '(mkdir:path=\{runtime\}/\{name\}:error=\w+:when=1)' -run '\^ready\$' -timeout 4s -- .*$`).FindStringSubmatch(c.Why)
	require.NotNil(t, m, c.Why)
	all, out, status := checks(t, []string{"-strict", "-fault", m[1], "-run", "^ready$"}, os.Args[0], asWrongClient, "says-no-cause", "{name}")
	assert.Equal(t, 1, status, out)
	assert.Equal(t, []string{"client-fault-told"}, found(all), out)
}

func TestEvidenceOfAClientsFaultIsKept(t *testing.T) {
	t.Parallel()
	needFaults(t)
	dir := filepath.Join(t.TempDir(), "evidence")
	all, out, status := checks(t, []string{"-fault", "open:path=**/stderr.log:error=EMFILE:when=2", "-run", "^ready$", "-o", dir}, os.Args[0], asWrongClient, "leaves-pod", "{name}")
	assert.Equal(t, 1, status, out)
	assert.Equal(t, []string{"client-fault-clean"}, found(all), out)
	for _, c := range all {
		if c.IsFinding() {
			assert.FileExists(t, filepath.Join(c.Evidence, "report.html"), out)
			assert.FileExists(t, filepath.Join(c.Evidence, "alpha.log"), out)
			scenario, err := os.ReadFile(filepath.Join(c.Evidence, "alpha.txtar"))
			require.NoError(t, err)
			assert.Contains(t, string(scenario), "\npodstart -timeout 2s -fake 'bind; serve; raw \"YOI-READY\\talpha\\t{socket}\\n\"; hang' 'alpha'\n")
		}
	}
}

func TestFaultsOfClientsAreKnownSharedOutAndReported(t *testing.T) {
	t.Parallel()
	needFaults(t)
	in := func(name string) string { return filepath.Join(t.TempDir(), name) }
	known, junit := in("known"), in("junit.xml")
	require.NoError(t, os.WriteFile(known, []byte("client-fault-told/mkdir-name: it is a test\n"), 0o600))
	args := []string{"-strict", "-fault", "mkdir:path={runtime}/{name}:error=EACCES", "-run", "^ready$", "-known", known, "-junit", junit, "-timeout", "4s", "--", os.Args[0], asWrongClient, "says-no-cause", "{name}"}
	stdout, stderr, status := podclient(t, args...)
	assert.Zero(t, status, stdout+stderr)
	assert.Contains(t, stdout, "known: it is a test")
	text, err := os.ReadFile(junit)
	require.NoError(t, err)
	assert.Contains(t, string(text), `<skipped message="known: it is a test: `)
	runs := regexp.MustCompile(` of (\d+) runs in `)
	var all []int
	for _, shard := range []string{"1/1", "1/2", "2/2"} {
		stdout, _, _ := podclient(t, "-faults", "-shard", shard, "-budget", "1ms", "-timeout", "4s", "--", os.Args[0], asWrongClient, "none", "{name}")
		m := runs.FindStringSubmatch(stdout)
		require.NotNil(t, m, stdout)
		n, _ := strconv.Atoi(m[1])
		all = append(all, n)
	}
	assert.InDelta(t, all[0]/2, all[1], float64(all[0])/3, "%v: how often it reads differs from run to run", all)
	assert.InDelta(t, all[0]/2, all[2], float64(all[0])/3, "%v", all)
}

func TestUsageOfClientFaults(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"-budget goes with -faults":                            {"-budget", "5s", "true", "{name}"},
		"-random does not go with -faults: it is about cases":  {"-faults", "-random", "3", "true", "{name}"},
		"-pod does not go with -fault: it is about cases":      {"-fault", "open:error=EIO", "-pod", "true", "true", "{name}"},
		"-fault is one fault, and -faults all of them: choose": {"-faults", "-fault", "open:error=EIO", "true", "{name}"},
		"-fault goes with cases of one start":                  {"-fault", "open:error=EIO", "-run", "^bad-name$", "true", "{name}"},
		`no case matches -run "nothing"`:                       {"-faults", "-run", "nothing", "true", "{name}"},
	} {
		_, stderr, status := podclient(t, args...)
		assert.Equal(t, 2, status, stderr)
		assert.Contains(t, stderr, want)
	}
	out, _, status := podclient(t, "-faults", "-list")
	assert.Equal(t, 0, status)
	assert.Equal(t, len(faultRequirements), strings.Count(out, "\n"))
	assert.Contains(t, out, "client-crash-clean   must    5c ")
}

func TestClientThatIsNotHealthyIsNotJudged(t *testing.T) {
	t.Parallel()
	needFaults(t)
	all, out, status := checks(t, []string{"-faults"}, "/bin/false", "{name}")
	assert.Equal(t, 3, status, out)
	assert.Equal(t, conformance.Error, all[0].Result)
	assert.Contains(t, all[0].Why, "the client is not healthy without faults: it ended with exit status 1, and said nothing")
	assert.Equal(t, "needs a client that is healthy without faults", all[1].Why)
}
