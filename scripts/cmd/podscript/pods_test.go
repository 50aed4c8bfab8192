package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/podharness/scripts/internal/conformance"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// python returns the interpreter itself: what is found in PATH may be a slow script
// that looks for it.
var python = sync.OnceValues(func() (string, error) {
	path, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	return strings.TrimSpace(string(path)), err
})

// podSource returns a pod of testdata/pods.
func podSource(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../testdata/pods", name))
	require.NoError(t, err)
	return string(text)
}

// podFlags builds a pod if it must be built, and returns the flags that name it.
func podFlags(t *testing.T, name, source string) (flags []string) {
	t.Helper()
	dir := t.TempDir()
	file, program := filepath.Join(dir, name), filepath.Join(dir, "pod")
	require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
	var build, run []string
	switch filepath.Ext(name) {
	case ".py":
		path, err := python()
		if err != nil {
			t.Skipf("no Python: %v", err)
		}
		run = []string{path, file}
	case ".js":
		if out, err := exec.Command("node", "-e", "process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)").CombinedOutput(); err != nil {
			t.Skipf("no Node 18 or newer: %v %s", err, out)
		}
		run = []string{"node", file}
	case ".c":
		build, run = []string{"cc", "-o", program, file, "-pthread"}, []string{program}
	case ".rs":
		build, run = []string{"rustc", "-o", program, file}, []string{program}
	case ".go":
		build, run = []string{"go", "build", "-o", program, file}, []string{program}
	case ".java":
		if out, err := exec.Command("javac", "--release", "17", "-version").CombinedOutput(); err != nil {
			t.Skipf("no JDK 17 or newer: %v %s", err, out)
		}
		build, run = []string{"javac", "-d", dir, file}, []string{"env", "LC_ALL=C.UTF-8", "java", "-XX:TieredStopAtLevel=1", "-cp", dir, "Pod"}
	}
	if build != nil {
		if _, err := exec.LookPath(build[0]); err != nil {
			t.Skip(err)
		}
		out, err := exec.Command(build[0], build[1:]...).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	flags = []string{"-pod", run[0]}
	for _, arg := range append(run[1:], "pod") {
		flags = append(flags, "-pod-arg", arg)
	}
	return flags
}

// findings runs the portable scenarios against a pod and returns the requirements that
// it does not meet, each once.
func findings(t *testing.T, pod ...string) (requirements []string, stdout string, status int) {
	t.Helper()
	dir := t.TempDir()
	report := filepath.Join(dir, "report.json")
	flags := []string{"-strict", "-json", report, "-o", filepath.Join(dir, "evidence"), "-grace", "5s", "-busy", `{"method":"run"}`,
		"-session", "6f1c2f0e-7a75-4b43-9e0b-0d8f3f1f7b11", "-skip", "^session-unknown$"} // the pods store no sessions: none is unknown
	stdout, stderr, status := podscript(t, append(flags, pod...)...)
	assert.Empty(t, stderr)
	results, err := conformance.ReadResults(report)
	require.NoError(t, err)
	for _, c := range results.Checks {
		if (c.Result == conformance.Fail || c.Result == conformance.Warn) && !slices.Contains(requirements, c.Requirement) {
			requirements = append(requirements, c.Requirement)
		}
	}
	return requirements, stdout, status
}

// TestPodsOfOtherLanguagesPass has right pods. With PODHARNESS_LONG=1 each is put to all
// requirements, one pod after the other, else to some.
func TestPodsOfOtherLanguagesPass(t *testing.T) {
	long := os.Getenv("PODHARNESS_LONG") != ""
	some := []string{"-run", "^(starts|ready-line|snapshot|merged-lines|bad-lines|stop-signal|stop-lines|clean-stop|restart)$"}
	if !long {
		t.Parallel()
	}
	for _, name := range []string{"pod.py", "pod.js", "pod.c", "pod.rs", "pod.go", "Pod.java"} {
		t.Run(name, func(t *testing.T) {
			flags := podFlags(t, name, podSource(t, name))
			if !long {
				t.Parallel()
				flags = append(slices.Clone(some), flags...)
				if name == "Pod.java" { // each start takes half a second
					flags[1] = "^(starts|snapshot|bad-lines|stop-signal)$"
				}
			}
			found, stdout, status := findings(t, flags...)
			assert.Empty(t, found, stdout)
			assert.Zero(t, status, stdout)
		})
	}
}

// TestOddPodsPass has right pods that do something in a way of their own.
func TestOddPodsPass(t *testing.T) {
	t.Parallel()
	// Python runs a handler between two steps of its program: if the signal comes just
	// before the program waits, when it has waited.
	const handler = "caught = []; signal.signal(signal.SIGINT, lambda *_: caught.append(1)); signal.sigwait = lambda _: [time.sleep(0.05) for _ in iter(lambda: bool(caught), True)]"
	if !findsProcesses {
		t.Skip("how such pods are looked at is Linux's")
	}
	for name, odd := range map[string]struct{ old, new string }{
		"a relative socket":     {"    status = {", `    os.chdir(directory); path = "sock"; status = {`},
		"a duplicate of stderr": {`os.write(2, ready)`, `os.write(os.dup(2), ready)`},
		"stderr is opened anew": {`os.write(2, ready)`, `os.write(os.open("/dev/stderr", os.O_WRONLY | os.O_APPEND), ready)`},
		"a handler of signals":  {"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])", handler},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source := changed(t, podSource(t, "pod.py"), odd.old, odd.new, "")
			found, stdout, status := findings(t, append([]string{"-run", "^(starts|announces-last|snapshot|stop-signal|stop-at-once|independent)$"}, podFlags(t, "pod.py", source)...)...)
			assert.Empty(t, found, stdout)
			assert.Zero(t, status, stdout)
		})
	}
}

// TestPodscriptNamesTheFault has pods with one wrong line each, which are put to their own
// requirement and to those that others need. Those whose faults show when a time is over
// are run with PODHARNESS_LONG=1.
func TestPodscriptNamesTheFault(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		pod         string
		old, new    string // in one line of it
		behind      string // the line moves behind the one with this
		requirement string
		slow        bool // it shows when a time is over
	}{
		"Python: buffers its ready line": {
			pod: "pod.py", old: "os.write(2, ready)", new: `globals().setdefault("buffer", open(2, "wb")).write(ready)`, requirement: "starts", slow: true},
		"Python: announces early": {
			pod: "pod.py", old: "listener.listen(128)", behind: "on_failure.pop_all()", requirement: "announces-last"},
		"Python: handles SIGINT late": {
			pod: "pod.py", old: "        if os.write(2, ready) < len(ready):", new: `        mask = signal.pthread_sigmask
        mask(signal.SIG_UNBLOCK, [signal.SIGINT]); os.write(2, ready); time.sleep(0.05); mask(signal.SIG_BLOCK, [signal.SIGINT])
        if False:`, requirement: "stop-at-once"},
		"Python: ignores SIGINT": {
			pod: "pod.py", old: "sigwait([signal.SIGINT])", new: "sigwait([signal.SIGUSR1])", requirement: "stop-signal", slow: true},
		"Python: waits for its clients at SIGINT": {
			pod: "pod.py", old: "    os._exit(0)", new: "    import _thread\n    while _thread._count() > 1: time.sleep(0.01)\n    os._exit(0)", requirement: "stop-connected", slow: true},
		"Python: waits for its client at a shutdown": {
			pod: "pod.py", old: "os.kill(os.getpid(),", new: "list(lines); os.kill(os.getpid(),", requirement: "stop-request", slow: true},
		"Python: leaves a child": {
			pod: "pod.py", old: "exist_ok=True)", new: `exist_ok=True); os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")`, requirement: "no-children"},
		"Python: ignores the environment": {
			pod: "pod.py", old: "if os.environ.get(variable):", new: `if variable == "HOME":`, requirement: "runtime-dir"},
		"Python: takes an empty variable for a directory": {
			pod: "pod.py", old: "if os.environ.get(variable):", new: "if variable in os.environ:", requirement: "runtime-dir"},
		"Python: ends no line on its socket": {
			pod: "pod.py", old: `.encode() + b"\n"`, new: ".encode()", requirement: "snapshot", slow: true},
		"Python: sends no snapshot": {
			pod: "pod.py", old: `send("snapshot", status)`, new: "pass", requirement: "snapshot", slow: true},
		"Python: takes unknown flags": {
			pod: "pod.py", old: "if flag not in FLAGS or value is None:", new: "if False:", requirement: "arguments"},
		"Python: takes a profile with a session": {
			pod: "pod.py", old: `if "--session" in args and`, new: "if False and", requirement: "arguments"},
		"Python: resumes no session": {
			pod: "pod.py", old: `"--pod", "--session"`, new: `"--pod", "--resume"`, requirement: "session"},
		"Python: cannot start again after a stop": {
			pod: "pod.py", old: "os.makedirs(directory,", new: "os.path.exists(directory + '/pid') or os.mkdir(directory + '.stopped'); os.makedirs(directory,", requirement: "restart-after-stop"},

		"C: keeps a stale socket": {
			pod: "pod.c", old: "unlink(address.sun_path);", requirement: "restart"},
		"C: announces early": {
			pod: "pod.c", old: "check(!listen(listener, SOMAXCONN),", behind: "write(2, ready, length)", requirement: "announces-last"},
		"C: handles SIGINT late": {
			pod: "pod.c", old: "check(write(2, ready, length) == length, \"ready line\");",
			new: "sigprocmask(SIG_UNBLOCK, &sigint, NULL); write(2, ready, length); nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); sigprocmask(SIG_BLOCK, &sigint, NULL);", requirement: "stop-at-once"},
		"C: leaves a child": {
			pod: "pod.c", old: "    make_directory();", new: "make_directory(); if (!fork()) for (;;) pause();", requirement: "no-children"},
		"C: forgets a variable": {
			pod: "pod.c", old: `{"YOI_HOME", "/run"},`, new: `{"", ""},`, requirement: "runtime-dir"},
		"C: serves one client at a time": {
			pod: "pod.c", old: "if (!error) error = pthread_create(&thread, NULL, serve, (void *)(intptr_t)client);",
			new: "if (!error) { serve((void *)(intptr_t)client); continue; }", requirement: "snapshot", slow: true},

		"Rust: buffers its ready line": {
			pod: "pod.rs", old: "io::stderr().write_all(&ready)", new: "std::mem::ManuallyDrop::new(io::BufWriter::new(io::stderr())).write_all(&ready)", requirement: "starts", slow: true},
		"Rust: leaves its directory": {
			pod: "pod.rs", old: "match remove(&directory)", new: `match fs::remove_file(directory.join("sock"))`, requirement: "clean-stop"},
		"Rust: does not hear a shutdown": {
			pod: "pod.rs", old: `Some("shutdown")`, new: `Some("stop")`, requirement: "stop-request", slow: true},

		"Go: handles SIGINT late": {
			pod: "pod.go", old: "signal.Notify(stop, os.Interrupt)", behind: "check(start(name, dir, stop))", requirement: "stop-at-once"},
		"Go: serves one client at a time": {
			pod: "pod.go", old: "go serve(client, stop)", new: "serve(client, stop)", requirement: "snapshot", slow: true},
		"Go: stops with a wrong status": {
			pod: "pod.go", old: "check(removeDir(dir))", new: "check(removeDir(dir)); os.Exit(1)", requirement: "stop-signal"},
		"Go: has two ready lines": {
			pod: "pod.go", old: `log.Printf("%s listening on %q", name, dir+"/sock")`, new: `fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, dir+"/sock")`, requirement: "ready-line"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if fault.slow && os.Getenv("PODHARNESS_LONG") == "" {
				t.Skip("run with PODHARNESS_LONG=1")
			}
			oneIn(t, 3)
			source := changed(t, podSource(t, fault.pod), fault.old, fault.new, fault.behind)
			flags := podFlags(t, fault.pod, source)
			if slices.Contains([]string{"starts", "stop-signal"}, fault.requirement) { // these are waited for
				flags = append([]string{"-ready-timeout", "6s", "-grace", "2s"}, flags...)
			}
			flags = append([]string{"-run", "^(starts|snapshot|stop-signal|" + fault.requirement + ")$"}, flags...)
			found, stdout, status := findings(t, flags...)
			t.Logf("found %v", found)
			assert.Equal(t, 1, status, stdout)
			assert.Contains(t, found, fault.requirement, stdout)
			assert.Subset(t, []string{fault.requirement, "stop-signal"}, found, "by chance a pod that handles SIGINT late does not stop on it either: %s", stdout)
		})
	}
}

// changed replaces what stands in one line, or moves that line behind another one.
func changed(t *testing.T, source, old, new, behind string) string {
	t.Helper()
	lines := strings.SplitAfter(source, "\n")
	only := func(text string) int {
		t.Helper()
		require.Equal(t, 1, strings.Count(source, text), "%q must be in the pod once", text)
		return slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, text) })
	}
	at := only(old)
	if behind == "" {
		lines[at] = strings.Replace(lines[at], old, new, 1)
	} else {
		lines = slices.Insert(lines, only(behind)+1, lines[at])
		lines = slices.Delete(lines, at, at+1)
	}
	return strings.Join(lines, "")
}
