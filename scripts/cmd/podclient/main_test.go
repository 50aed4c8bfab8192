//go:build linux && !portable

package main

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/scripts/internal/conformance"
	command "example.com/podharness/spawn/podspawn"
	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the test binary is when it is started with one of these in its environment
// or, for clients, as its first argument.
const (
	asPodclient = "TEST_AS_PODCLIENT"
	asPodspawn  = "podspawn-of-podclient"
)

// patience bounds what takes a moment only.
const patience = 30 * time.Second

func init() {
	reexec.Register(asPodspawn, func(args []string) int { return command.Main(args, os.Stdout, os.Stderr) })
}

func TestMain(m *testing.M) {
	if os.Getenv(asPodclient) != "" {
		main()
	}
	os.Setenv("PODCLIENT_TEST", "passed on")
	os.Unsetenv("GITHUB_ACTIONS")
	os.Unsetenv("GITHUB_STEP_SUMMARY") // which is not about what is tested here
	flag.Parse()
	if !slices.ContainsFunc(os.Args, func(arg string) bool { return strings.Contains(arg, "test.parallel=") }) {
		_ = flag.Set("test.parallel", "4") // the tests wait most of the time
	}
	os.Exit(m.Run())
}

// podclient runs the command in this process.
func podclient(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- run(args, &out, &errs) }()
	select {
	case status = <-ended:
	case <-time.After(3 * patience):
		require.Fail(t, "podclient has not ended", args)
	}
	return out.String(), errs.String(), status
}

// checks runs podclient with a client and returns what it reports, by JSON.
func checks(t *testing.T, flags []string, client ...string) (all []conformance.Check, stdout string, status int) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	stdout, stderr, status := podclient(t, append(append([]string{"-json", report, "-timeout", "2s"}, flags...), client...)...)
	require.Empty(t, stderr)
	results, err := conformance.ReadResults(report)
	require.NoError(t, err)
	assert.Equal(t, status == 0, results.Summary.OK, stdout)
	for _, c := range results.Checks {
		assert.NotEmpty(t, c.Section, "%+v", c)
	}
	return results.Checks, stdout, status
}

// found returns the requirements that were not met, each once.
func found(all []conformance.Check) (requirements []string) {
	for _, c := range all {
		if (c.Result == conformance.Fail || c.Result == conformance.Warn) && !slices.Contains(requirements, c.Requirement) {
			requirements = append(requirements, c.Requirement)
		}
	}
	slices.Sort(requirements)
	return requirements
}

// shell returns a client that is a script for /bin/sh; $1 is the pod's name.
func shell(script string) []string { return []string{"/bin/sh", "-c", script, "sh", "{name}"} }

// starts is how a shell starts the pod.
const starts = `"$YOI_POD_RUNTIME_COMMAND" pod --workspace "$PWD" --pod "$1"`

func podspawn() []string { return []string{os.Args[0], asPodspawn, "-timeout", "2s", "{name}"} }

func TestPodspawnPassesTheWholeSweep(t *testing.T) {
	here := names(t, ".")
	var flags []string
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		flags = []string{"-skip", "^flood$"} // podspawn, which is this binary, is ten times as slow then
	}
	report := filepath.Join(t.TempDir(), "report.json")
	out := assertPasses(t, append(flags, "-json", report), os.Args[0], asPodspawn, "-timeout", "{timeout}s", "{name}")
	assert.Regexp(t, `\n[3-9]\d passed, 0 failed, 0 warned, \d skipped in \d+\.\ds\n$`, out, "one is skipped only where the machine is too busy for its pod")
	assert.Regexp(t, `(?m)^PASS  deaf +\d+\.\d{3}s$`, out)
	assert.Equal(t, here, names(t, "."), "it leaves nothing in the working directory")
	judged, err := conformance.ReadResults(report)
	require.NoError(t, err)
	for _, r := range requirements {
		assert.NotEmpty(t, results(judged.Checks, r.id), "%s\n%s", r.id, out)
	}
	for _, c := range judged.Checks {
		assert.Equal(t, find(c.Requirement).level, c.Level)
	}
}

// assertPasses puts a client to the cases that flags select. On a machine that is so busy
// that a right client cannot read a flood in 2 s, it gets 10 s.
func assertPasses(t *testing.T, flags []string, client ...string) (stdout string) {
	t.Helper()
	for _, seconds := range []string{"2", "10"} {
		evidence := filepath.Join(t.TempDir(), "evidence")
		args := slices.Concat(flags, []string{"-timeout", seconds + "s", "-strict", "-o", evidence})
		for _, word := range client {
			args = append(args, strings.ReplaceAll(word, "{timeout}", seconds))
		}
		begin := time.Now()
		out, stderr, status := podclient(t, args...)
		if status == 0 {
			assert.Empty(t, stderr)
			assert.NoDirExists(t, evidence)
			assert.Less(t, time.Since(begin), patience)
			return out
		}
		stdout = out + stderr
		t.Logf("with a timeout of %s s:\n%s", seconds, stdout)
	}
	assert.Fail(t, "a right client has findings")
	return stdout
}

func names(t *testing.T, dir string) (all []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

// clientDir is where the clients of other languages are.
const clientDir = "../../../testdata/clients"

// python returns the interpreter itself: what is found in PATH may be a slow script
// that looks for it.
var python = sync.OnceValues(func() (string, error) {
	path, err := exec.Command("python3", "-c", "import sys; assert sys.version_info >= (3, 8); print(sys.executable)").Output()
	return strings.TrimSpace(string(path)), err
})

func clientPy(t *testing.T) (program, source string) {
	t.Helper()
	program, err := python()
	if err != nil {
		t.Skipf("no Python: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(clientDir, "client.py"))
	require.NoError(t, err)
	return program, string(text)
}

// clientSource returns the path of a client of testdata/clients.
func clientSource(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(clientDir, name))
	require.NoError(t, err)
	return path
}

// rightClients are those of testdata/clients, by their languages.
var rightClients = map[string]func(t *testing.T) []string{
	"Python": func(t *testing.T) []string {
		program, _ := clientPy(t)
		return []string{program, clientSource(t, "client.py")}
	},
	"Node": func(t *testing.T) []string {
		if out, err := exec.Command("node", "-e", "process.exit(parseInt(process.versions.node) < 19 ? 1 : 0)").CombinedOutput(); err != nil {
			t.Skipf("no Node 19 or newer: %v %s", err, out)
		}
		return []string{"node", clientSource(t, "client.js")}
	},
	"Rust": func(t *testing.T) []string {
		if err := exec.Command("rustc", "--version").Run(); err != nil {
			t.Skipf("no rustc: %v", err)
		}
		program := filepath.Join(t.TempDir(), "client")
		out, err := exec.Command("rustc", "-o", program, clientSource(t, "client.rs")).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return []string{program}
	},
}

// TestClientsOfOtherLanguagesPass has right clients. With PODHARNESS_LONG=1 each is put to
// the whole sweep, else to a case of each ending.
func TestClientsOfOtherLanguagesPass(t *testing.T) {
	t.Parallel()
	cases := []string{"-run", "^(dir-long|bad-name|ready|slow-bind|never-binds|malformed-no-socket|early-exit|wrong-name|deaf|child|stops)$"}
	if os.Getenv("PODHARNESS_LONG") != "" {
		cases = nil
	}
	for language, command := range rightClients {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			assertPasses(t, cases, append(command(t), "--timeout", "{timeout}", "{name}")...)
		})
	}
}

func TestWrongClientsAreFoundByTheRequirementThatIsTheirs(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]struct {
		old, new    string // in the right client
		cases       string // that matter, beside ready
		requirement string
		follow      []string // that may be found, too
	}{
		"takes an unterminated ready line": {
			"        self.unfinished = rest[", "        if rest.count(b'\\t') == 2: self.line(rest)\n        self.unfinished = rest[",
			"unterminated-ready", "verdict", nil},
		"takes a torn line for a whole one": {
			"        self.unfinished = rest[", "        if rest: self.line(rest)\n        self.unfinished = rest[", "torn-ready", "verdict", nil},
		"takes another pod for its own":     {"if name != os.fsencode(self.name):", "if False:", "wrong-name", "verdict", nil},
		"takes a full backlog for an error": {"errno.ECONNREFUSED, errno.EAGAIN)", "errno.ECONNREFUSED)", "deaf", "verdict", nil},
		"takes a socket that is not there yet for an error": {
			"NOT_YET = (errno.ENOENT, ", "NOT_YET = (", "slow-bind", "verdict", nil},
		"believes the ready line without connecting": {"if self.socket and self.connect() and", "if self.socket and", "never-binds", "verdict", nil},
		"reads the log by its path": {
			"os.pread(self.log.fileno(), BLOCK,", "os.pread(os.open(self.log.name, os.O_RDONLY), BLOCK,", "remove-log", "verdict", nil},
		"reads the log of an earlier pod": {"os.O_CREAT | os.O_TRUNC | ", "os.O_CREAT | ", "old-log", "verdict", nil},
		"does not notice a truncated log": {"if not block.startswith(self.before):", "if False:", "truncate-log", "verdict", nil},
		"fails at what is not UTF-8":      {"    def line(self, line):\n", "    def line(self, line):\n        line.decode()\n", "^invalid-utf8$", "verdict", nil},
		"keeps the carriage return":       {`if line.endswith(b"\r") and`, "if False and", "crlf", "verdict", nil},
		"cannot connect to a long path":   {"if len(address) > 107 and", "if False and", "dir-long", "verdict", nil},
		"takes the variables in a wrong order": {
			`"YOI_HOME": "run", "XDG_RUNTIME_DIR": "yoi",`, `"XDG_RUNTIME_DIR": "yoi", "YOI_HOME": "run",`, "dir-yoi-home", "independent", nil},
		"takes an empty variable for a directory": {"if os.environ.get(variable):", "if variable in os.environ:", "dir-xdg", "independent", nil},
		"does not wait for the whole timeout":     {"time.monotonic() + args.timeout", "time.monotonic() + args.timeout / 10", "never-ready", "verdict", nil},

		"is late to say that the pod is ready": {"        line = start(args, caught)", "        line = start(args, caught); time.sleep(2.5)", "", "prompt", nil},
		"waits on after the pod has died": {
			"            if ended:\n", "            if ended: time.sleep(2.5)\n            if ended:\n", "early-exit$", "prompt", nil},

		"kills the process alone":         {"os.killpg(process.pid, signal.SIGKILL)", "process.kill()", "failed-child", "clean", nil},
		"kills nothing":                   {"            kill(process)  # whatever", "            pass  # whatever", "never-ready", "clean", nil},
		"takes any name":                  {`if args.name in ("", ".", "..") or`, `if args.name == "" and`, "bad-name", "clean", nil},
		"leaves the pod in its own group": {"start_new_session=True", "start_new_session=False", "", "independent", nil},
		"gives the pod its own stdin":     {"stdin=subprocess.DEVNULL", "stdin=None", "", "independent", nil},
		"gives the pod its own stdout":    {"stdout=subprocess.DEVNULL", "stdout=None", "", "independent", nil},
		"passes on a stray descriptor":    {"close_fds=True", "close_fds=False", "stray-descriptor", "independent", nil},
		"lets others read the log":        {"os.fchmod(writer.fileno(), 0o600)", "os.fchmod(writer.fileno(), 0o644)", "", "independent", nil},
		"lets others into the directory":  {"os.umask(0o077)", "os.umask(0o022)", "", "independent", nil},
		"kills a pod that is ready":       {"        line = start(args, caught)", "        line = start(args, caught); os.system('kill -9 $(cat $YOI_RUNTIME_DIR/alpha/pid)')", "", "independent", nil},
		"leaves out the argument pod":     {`argv = [args.program, "pod", `, "argv = [args.program, ", "", "arguments", nil},
		"names another pod":               {`["--pod", args.name]`, `["--pod", args.name + "x"]`, "", "arguments", nil},
		"has another flag for the name":   {`["--pod", args.name]`, `["--name", args.name]`, "", "arguments", nil},
		"leaves out the workspace":        {`"pod", "--workspace", workspace]`, `"pod"]`, "", "arguments", nil},
		"does not tell the last words":    {"        if self.tail:\n", "        if False:\n", "early-exit$", "reason", nil},
		"does not tell the name it got":   {"got {quoted(name)}, ", "", "wrong-name", "reason", nil},
		"loses words that are not UTF-8":  {`text.decode(errors="replace")`, `text.decode()`, "invalid-utf8-exit", "reason", nil},

		"takes YOI-READY anywhere in a line": {"    def line(self, line):\n", "    def line(self, line):\n        line = line[max(0, line.find(READY)):]\n", "mid-line", "verdict", nil},
		"takes any newline of Unicode": {
			"        for line in lines:\n", "        for line in [part.encode() for line in lines for part in line.decode(errors='replace').splitlines()]:\n", "no-newline", "verdict", nil},
		"takes blanks for tabs":             {"    def line(self, line):\n", "    def line(self, line):\n        if len(line.split()) == 3: line = b'\\t'.join(line.split())\n", "blanks-for-tabs", "verdict", nil},
		"ends the path at a tab":            {`b"\0" in path or`, "b'\\t' in path or", "second-tab", "verdict", nil},
		"cuts blanks off":                   {`        name, _, path = line[len`, "        line = line.rstrip()\n        name, _, path = line[len", "blank-at-end", "verdict", []string{"reason"}},
		"cuts all CRs off":                  {`        name, _, path = line[len`, "        line = line.rstrip(b'\\r')\n        name, _, path = line[len", "two-crs", "verdict", nil},
		"takes a relative path for its own": {"directory = os.readlink(link)", "pass", "relative", "verdict", nil},
		"knows a scheme of paths":           {"os.fsdecode(path))", "os.fsdecode(path).removeprefix('unix:'))", "relative-scheme", "verdict", nil},
		"knows abstract sockets":            {"    address, descriptor = os.fsencode(path), None\n", "    address, descriptor = os.fsencode(path).replace(b'/@', b'/'), None\n", "relative-at", "verdict", nil},
		"has a shell start the pod":         {"        argv, executable=os.path.join(os.getcwd(), program), cwd=workspace,", `        ["/bin/sh", "-c", "exec " + args.program + ' "$@"', "sh"] + argv[1:], cwd=workspace,`, "command-path", "verdict", nil},
		"does not look into PATH":           {`args.program if "/" in args.program else shutil.which(args.program)`, "args.program", "command-name", "verdict", nil},
		"takes no blanks in names":          {"        # Absolute, since the pod", "        if ' ' in args.name: raise Failed('bad name')\n        # Absolute, since the pod", "name-blanks", "verdict", nil},
		"takes ASCII names":                 {"        # Absolute, since the pod", "        if not args.name.isascii(): raise Failed('bad name')\n        # Absolute, since the pod", "name-letters", "verdict", nil},
		"takes no dots in names":            {"        # Absolute, since the pod", "        if args.name[0] == '.': raise Failed('bad name')\n        # Absolute, since the pod", "name-dots", "verdict", nil},
		"takes no dash in names":            {"        # Absolute, since the pod", "        if args.name[0] == '-': raise Failed('bad name')\n        # Absolute, since the pod", "name-dash", "dash-name", nil},
		"takes an empty name":               {`("", ".", "..")`, `(".", "..")`, "name-empty", "clean", nil},
		"takes the name .":                  {`("", ".", "..")`, `("", "..")`, "name-dot$", "clean", nil},
		"takes the name ..":                 {`("", ".", "..")`, `("", ".")`, "name-dotdot", "clean", nil},
		"takes a slash in names":            {`[/\0\t\r\n]`, `[\0\t\r\n]`, "name-slash", "clean", nil},
		"takes a tab in names":              {`[/\0\t\r\n]`, `[/\0\r\n]`, "name-tab", "clean", nil},
		"takes a CR in names":               {`[/\0\t\r\n]`, `[/\0\t\n]`, "name-cr", "clean", nil},
		"takes a newline in names":          {`[/\0\t\r\n]`, `[/\0\t\r]`, "name-newline", "clean", nil},
		"makes directories by its umask":    {"    os.makedirs(pod_dir, exist_ok=True)\n", "    os.umask(umask); os.makedirs(pod_dir, 0o700, exist_ok=True)\n", "^umask", "independent", nil},
		"makes parents by its umask": {
			"    os.makedirs(pod_dir, exist_ok=True)\n", "    os.umask(umask); os.makedirs(os.path.dirname(pod_dir), exist_ok=True); os.umask(0o077); os.makedirs(pod_dir, exist_ok=True)\n", "dir-home", "independent", nil},
		"changes a variable":       {"env=environment()", "env={**environment(), b'LANG': b'tlh'}", "inherits", "inherits", nil},
		"does not append":          {"os.O_WRONLY | os.O_APPEND |", "os.O_WRONLY |", "", "independent", nil},
		"ends its pod with itself": {"preexec_fn=lambda: signal.signal(signal.SIGCHLD, args.sigchld)", "preexec_fn=lambda: __import__('ctypes').CDLL(None).prctl(1, 9)", "", "independent", nil},
		"starts the pod elsewhere": {"program), cwd=workspace", "program), cwd='/'", "", "workspace", nil},
		"changes the pod's umask":  {"    os.umask(umask)  #", "    pass  #", "inherits", "inherits", nil},
		"drops empty variables":    {"env=environment()", "env={k: v for k, v in environment().items() if v}", "inherits", "inherits", nil},
		"blocks signals":           {"    argv += [\"--session\"", "    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n    argv += [\"--session\"", "inherits", "inherits", nil},
		"ignores signals":          {"    argv += [\"--session\"", "    signal.signal(signal.SIGQUIT, signal.SIG_IGN)\n    argv += [\"--session\"", "inherits", "inherits", nil},
		"changes limits": {
			"    argv += [\"--session\"", "    import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (99, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n    argv += [\"--session\"",
			"inherits", "inherits", nil},
		"removes the log":               {"            kill(process)  # whatever", "            kill(process); os.unlink(log.name)  # whatever", "early-exit$", "log", nil},
		"empties the log":               {"            kill(process)  # whatever", "            kill(process); os.truncate(log.name, 0)  # whatever", "never-ready", "log", nil},
		"cuts the log":                  {"            kill(process)  # whatever", "            kill(process); os.truncate(log.name, 65000)  # whatever", "log-kept", "log", nil},
		"shows the log to others":       {"            kill(process)  # whatever", "            kill(process); os.chmod(log.name, 0o644)  # whatever", "early-exit$", "log", nil},
		"dies of SIGINT":                {"    args.sigchld = signal.signal(", "    signal.signal(signal.SIGINT, signal.SIG_DFL)\n    args.sigchld = signal.signal(", "interrupt$", "clean", nil},
		"dies of SIGTERM":               {"    for number in (signal.SIGINT, signal.SIGTERM,", "    for number in (signal.SIGINT,", "terminate-late", "clean", nil},
		"waits on when interrupted":     {"caught.append(number))", "None)", "terminate$", "prompt", nil},
		"is content to be interrupted":  {"            if caught:\n", "            if caught: kill(self.process); sys.exit(0)\n            if caught:\n", "interrupt-late", "verdict", nil},
		"begins to wait again":          {"            more = self.read()\n", "            more = self.read()\n            deadline += timeout if self.socket and not self.trouble else 0\n", "one-deadline", "prompt", nil},
		"waits out a socket error":      {"if error.errno not in NOT_YET:", "if False:", "socket-below-file", "prompt", nil},
		"talks to the pod":              {"            connection.connect(address)\n", "            connection.connect(address); connection.send(b'\\n')\n", "", "silent", nil},
		"connects twice":                {"if self.socket and self.connect() and", "if self.socket and self.connect() and self.connect() and", "", "silent", nil},
		"keeps all lines":               {"        self.unfinished = rest[", "        self.all = getattr(self, 'all', []); self.all += lines\n        self.unfinished = rest[", "memory", "memory", nil},
		"keeps an unfinished line":      {"        self.unfinished = rest[", "        self.all = getattr(self, 'all', []) + [bytes(fresh)] * (not lines)\n        self.unfinished = rest[", "memory", "memory", nil},
		"waits in a busy loop":          {"POLL = 0.01", "POLL = 0", "never-ready", "idle", []string{"notices"}},
		"reads the log again and again": {"        block = os.pread(", "        os.pread(self.log.fileno(), 1 << 30, 0)\n        block = os.pread(", "big-log", "rereads", []string{"idle"}},
		"rules its terminal":            {"c if c.isprintable() else", "c if c.isprintable() or sys.stderr.isatty() else", "terminal-exit", "terminal", nil},
		"rules its terminal meanwhile":  {"    def line(self, line):\n", "    def line(self, line):\n        if sys.stdout.isatty(): print(line.decode(errors='replace'))\n", "terminal-ready", "terminal", nil},

		"writes control characters as is": {"c if c.isprintable() else c.encode(\"unicode_escape\").decode() for", "c for", "control-characters", "terminal", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if os.Getenv("PODHARNESS_LONG") == "" && crc32.ChecksumIEEE([]byte(name))%5 > 0 {
				t.Skip("they are many: run with PODHARNESS_LONG=1")
			}
			program, source := clientPy(t)
			require.Equal(t, 1, strings.Count(source, fault.old), "%q must be in client.py once", fault.old)
			path := filepath.Join(t.TempDir(), "client.py")
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(source, fault.old, fault.new, 1)), 0o600))
			pattern := "^ready$"
			if fault.cases != "" {
				pattern += "|" + fault.cases
			}
			all, out, status := checks(t, []string{"-strict", "-run", pattern}, "/bin/sh", "-c", `cd "$TMPDIR" && exec "$@"`, "sh", program, path, "--timeout", "2", "{name}")
			if slices.ContainsFunc(all, func(c conformance.Check) bool { return c.Result == conformance.Skip }) {
				t.Skipf("the machine is too busy:\n%s", out)
			}
			assert.Equal(t, 1, status, out)
			assert.Contains(t, found(all), fault.requirement, out)
			assert.Subset(t, append(fault.follow, fault.requirement), found(all), out)
			for _, c := range all {
				if fault.cases != "" && c.Case == "ready" {
					assert.Equal(t, conformance.Pass, c.Result, "%+v", c)
				}
				if c.Result != conformance.Pass {
					assert.Regexp(t, `^the (client|pod).*; .* (must|should|may) .* \(\dc?(, \dc?)*\)\ncase \S+: .+$`, c.Why, "it says what was, what should have been, and where that is said")
				}
			}
		})
	}
}

// A client that looks at times, which the timeout covers: the longer one leaves room between
// what is late and what is too late.
func TestClientThatPolls(t *testing.T) {
	t.Parallel()
	program, source := clientPy(t)
	path := filepath.Join(t.TempDir(), "client.py")
	require.NoError(t, os.WriteFile(path, []byte(strings.Replace(source, "POLL = 0.01 ", "POLL = 1.7 ", 1)), 0o600))
	all, out, status := checks(t, []string{"-timeout", "4s", "-strict", "-run", "^(ready|early-exit)$"}, program, path, "--timeout", "4", "{name}")
	if slices.ContainsFunc(all, func(c conformance.Check) bool { return c.Result == conformance.Skip }) {
		t.Skipf("the machine is too busy:\n%s", out)
	}
	assert.Equal(t, 1, status, out)
	assert.Equal(t, []string{"notices"}, found(all), out)
	assert.Regexp(t, `notices \(should\): the client ended \S+ after it could be known: (ready|exited .*); it should notice that within 500ms \(5c\)`, out)
}

func TestWrongClientsInShell(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script, cases string
		want          []string // requirements
		says          string
	}{
		"starts nothing and says so":         {"echo no; exit 1", "^(ready|early-exit)$", []string{"verdict"}, "before a pod had begun, and said \"no\"; it must start"},
		"starts nothing and is content":      {"exit 0", "^(ready|early-exit)$", []string{"verdict"}, "ended with exit status 0 before a pod had begun"},
		"does not wait":                      {starts + ` </dev/null >/dev/null 2>&1 & until [ -e "$YOI_RUNTIME_DIR/$1/pid" ]; do sleep 0.01; done`, "^wrong-name$", []string{"verdict"}, "status 0 where the start is: wrong name"},
		"fails without a word":               {starts + " 2>/dev/null; exit 1", "^early-exit$", []string{"log", "verdict"}, "exit status 1 without a word"},
		"is the pod":                         {"exec " + starts, "^ready$", []string{"verdict"}, "did not end within 7s"},
		"is content with a pod that refuses": {`"$YOI_POD_RUNTIME_COMMAND" pod --name "$1" 2>/dev/null; exit 0`, "^(ready|second-start)$", []string{"arguments", "independent"}, "has not begun"},
		"waits on for one that has refused":  {`"$YOI_POD_RUNTIME_COMMAND" pod --name "$1"; sleep 2; exit 1`, "^never-ready$", []string{"arguments"}, "the pod was given: pod --name alpha"},
		"gives it arguments that it refuses": {`exec "$YOI_POD_RUNTIME_COMMAND" pod --name "$1"`, "^ready$", []string{"arguments"}, "the pod was given: pod --name alpha; it must be given --pod alpha (1)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all, out, status := checks(t, []string{"-run", c.cases}, shell(c.script)...)
			assert.Equal(t, 1, status, out)
			assert.Equal(t, c.want, found(all), out)
			assert.Contains(t, out, c.says)
		})
	}
}

// A pod that is not ready in time because the machine is busy.
func TestASlowPodProvesNothing(t *testing.T) {
	t.Parallel()
	script := `sleep 2; echo it takes too long >&2; exit 1`
	all, out, status := checks(t, []string{"-run", "^ready$"}, shell(starts+" </dev/null >/dev/null 2>&1 & "+script)...)
	assert.Equal(t, 1, status, out)
	assert.Equal(t, []string{"clean", "verdict"}, found(all), "the pod was ready at once")
	slow := testCase{program: "flood 16MiB; bind; ready; serve", want: oracle.Outcome{Verdict: oracle.Ready, Step: 2}}
	s := sweepCase{testCase: slow, settings: settings{timeout: 2 * time.Second}, took: 2 * time.Second, ended: int64(2 * time.Second)}
	for want, steps := range map[bool][]fakepod.Began{
		true:  {{Step: 0, At: 1}},
		false: {{Step: 0, At: 1}, {Step: 3, At: int64(900 * time.Millisecond)}},
	} {
		s.seen.Steps = steps
		assert.Equal(t, want, s.tooSlow(slow.want))
	}
	s.seen.Steps = []fakepod.Began{{Step: 3, At: int64(1100 * time.Millisecond)}}
	assert.True(t, s.tooSlow(slow.want))
}

// A right client may be of any manners.
func TestMannersOfARightClient(t *testing.T) {
	t.Parallel()
	spawns := "'" + os.Args[0] + "' " + asPodspawn + ` -timeout 2s "$1"`
	for name, script := range map[string]string{
		"shows progress and colours":    `printf '\033[33mstarting\033[0m 10%%\r\033[K20%%\r\n'; ` + spawns,
		"says why on stdout":            spawns + " 2>&1",
		"has Windows line ends":         spawns + ` 2>err; status=$?; sed "s/\$/$(printf '\r')/" err; exit $status`,
		"wraps its lines":               spawns + ` 2>err; status=$?; fold -s -w 78 err; exit $status`,
		"writes a lot":                  `head -c 20000000 /dev/zero | tr '\0' x; ` + spawns,
		"leaves a child at its outputs": "sleep 1000 & " + spawns,
		"reads its stdin to the end":    "cat; " + spawns,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := []string{"-strict", "-run", "^(ready|early-exit|control-characters|wrong-name)$"}
			if strings.Contains(name, "child") { // which is one that a failed start leaves, but not in the pod's group
				flags[2] = "^ready$"
			}
			client := shell("cd \"$TMPDIR\"; " + script)
			begin := time.Now()
			out, stderr, status := podclient(t, append(append(flags, "-timeout", "2s"), client...)...)
			assert.Equal(t, 0, status, out+stderr)
			assert.Less(t, time.Since(begin), patience)
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	for want, args := range map[string][]string{
		"flag provided but not defined: -nonesuch": {"-nonesuch"},
		"which client?":                          {"-strict"},
		"no argument of the client holds {name}": {"--", "true", "name"},
		"podclient: " + missing + ": not found":  {missing, "{name}"},
		"no case matches -run \"^nonesuch$\"":    {"-run", "^nonesuch$", "true", "{name}"},
		"error parsing regexp":                   {"-run", "(", "true", "{name}"},
		"-timeout 10ms is too short":             {"-timeout", "10ms", "true", "{name}"},
		"-parallel 0 runs nothing":               {"-parallel", "0", "true", "{name}"},
		"-random -1 is negative":                 {"-random", "-1", "true", "{name}"},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			out, stderr, status := podclient(t, args...)
			assert.Equal(t, 2, status)
			assert.Empty(t, out)
			assert.Contains(t, stderr, "podclient: ")
			assert.Contains(t, stderr, want)
			assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
		})
	}
	out, stderr, status := podclient(t, "-help")
	assert.Equal(t, 0, status)
	assert.Empty(t, stderr)
	assert.Contains(t, out, "usage: podclient [flags] [--] CLIENT [ARG]...")
	assert.Contains(t, out, "-strict")
	assert.Contains(t, out, "Exit status: 0 if nothing failed")
}

func TestAClientThatCannotBeStartedIsStatus2AtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "client")
	require.NoError(t, os.WriteFile(path, []byte("#!/no/such/interpreter\n"), 0o700))
	out, stderr, status := podclient(t, path, "{name}")
	assert.Equal(t, 2, status)
	assert.Empty(t, out)
	assert.Contains(t, stderr, "podclient: start client "+path)
}

func TestListRunAndSkip(t *testing.T) {
	t.Parallel()
	out, _, status := podclient(t, "-list")
	assert.Equal(t, 0, status)
	assert.Regexp(t, `(?m)^wrong-name +announces itself under another name: wrong name: "\{name\}-other"$`, out)
	assert.Contains(t, out, "dir-xdg")
	out, _, status = podclient(t, "-list", "-run", "^malformed", "-skip", "socket$")
	assert.Equal(t, 0, status)
	assert.Equal(t, []string{"malformed-empty-name", "malformed-no-fields"}, sortedNames(out))
	out, _, status = podclient(t, append([]string{"-run", "^malformed", "-skip", "socket$", "-v"}, podspawn()...)...)
	assert.Equal(t, 0, status)
	assert.Contains(t, out, "\n2 passed, 0 failed")
	assert.Contains(t, out, "      reason: passed\n")
}

func sortedNames(list string) (names []string) {
	list, _, _ = strings.Cut(list, "\n\n")
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		names = append(names, strings.Fields(line)[0])
	}
	slices.Sort(names)
	return names
}

func TestStrictMakesAShouldAMust(t *testing.T) {
	t.Parallel()
	client := shell("'" + os.Args[0] + "' " + asPodspawn + ` -timeout 2s "$1" >/dev/null 2>&1; echo it failed; exit 1`)
	all, out, status := checks(t, []string{"-run", "^early-exit$"}, client...)
	assert.Equal(t, 0, status)
	assert.Equal(t, []string{"reason"}, found(all))
	assert.Regexp(t, `(?m)^WARN  early-exit `, out)
	assert.Contains(t, out, `reason (should): the client said "it failed"; it should say "cannot open session store", which explains the failure (4)`)
	assert.Contains(t, out, "0 passed, 0 failed, 1 warned, 0 skipped")
	_, _, status = checks(t, []string{"-strict", "-run", "^early-exit$"}, client...)
	assert.Equal(t, 1, status)
}

// TestTheSameFindingInSeveralCases has a client that leaves the pod, and says where that is.
func TestTheSameFindingInSeveralCases(t *testing.T) {
	t.Parallel()
	client := shell(starts + ` </dev/null >/dev/null 2>"$TMPDIR/log" & until grep -qs loading "$TMPDIR/log"; do sleep 0.01; done; echo "it failed: $YOI_RUNTIME_DIR"; exit 1`)
	all, out, _ := checks(t, []string{"-run", "^(delayed-ready|old-log)$"}, client...)
	assert.Equal(t, []string{"clean", "verdict"}, found(all), out)
	for requirement, says := range map[string]string{"clean": "the client has left ", "verdict": "the client ended with exit status 1 and said "} {
		assert.Regexp(t, requirement+` \(must\): as in (delayed-ready|old-log)\n`, out)
		assert.Equal(t, 1, strings.Count(out, says), out)
		for _, c := range all {
			if c.Requirement == requirement {
				assert.Contains(t, c.Why, says, "JSON has all of it")
			}
		}
	}
	assert.Contains(t, out, "(N) is a section of the contract")
}

func TestEnvIsTheClients(t *testing.T) {
	t.Parallel()
	client := shell(`echo "$GREETING $PODCLIENT_TEST"; exit 1`)
	_, out, _ := checks(t, []string{"-run", "^ready$", "-env", "GREETING=hello", "-env", "PODCLIENT_TEST"}, client...)
	assert.Contains(t, out, `said "hello passed on";`)
}

func TestJUnit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "report.xml")
	_, _, status := podclient(t, append([]string{"-junit", path, "-timeout", "2s", "-run", "^(ready|early-exit)$"}, shell("echo '<no>'; exit 1")...)...)
	assert.Equal(t, 1, status)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var suites struct {
		Suites []struct {
			Name     string `xml:"name,attr"`
			Tests    int    `xml:"tests,attr"`
			Failures int    `xml:"failures,attr"`
			Cases    []struct {
				Name    string `xml:"name,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	require.NoError(t, xml.Unmarshal(text, &suites))
	require.Len(t, suites.Suites, 1)
	suite := suites.Suites[0]
	assert.Equal(t, "sh", suite.Name)
	assert.Equal(t, len(suite.Cases), suite.Tests)
	assert.Equal(t, 2, suite.Failures)
	for _, c := range suite.Cases {
		if strings.HasSuffix(c.Name, "/verdict") {
			require.NotNil(t, c.Failure)
			assert.Contains(t, c.Failure.Message, `said "<no>"`)
		}
	}
}

func TestEvidenceOfAFindingIsKeptAndNamed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "evidence")
	client := shell(starts + " >/dev/null 2>&1; exit 1")
	_, out, _ := checks(t, []string{"-o", dir, "-run", "^(early-exit|early-exit-silent)$", "-strict"}, client...)
	assert.Contains(t, out, "\nevidence of the findings, by case: "+dir+"\n")
	assert.Equal(t, []string{"early-exit", "early-exit-silent"}, names(t, dir))
	assert.Greater(t, len(names(t, filepath.Join(dir, "early-exit"))), 2, "files of a case with a finding")
	_, out, _ = checks(t, []string{"-run", "^early-exit$", "-strict"}, shell("exit 1")...)
	assert.Contains(t, out, "\nevidence was not kept: -o DIR keeps it, by case\n")
}

func TestRandomPrograms(t *testing.T) {
	t.Parallel()
	list := func(seed string) string {
		out, _, status := podclient(t, "-list", "-random", "30", "-seed", seed, "-timeout", "2s")
		assert.Equal(t, 0, status)
		return out
	}
	assert.Equal(t, list("7"), list("7"))
	assert.NotEqual(t, list("7"), list("8"))

	out, _, status := podclient(t, append([]string{"-random", "10", "-seed", "7", "-timeout", "2s", "-strict"}, podspawn()...)...)
	assert.Equal(t, 0, status, out)
	assert.Contains(t, out, "random programs: -seed 7\n")

	// Takes each pod that lives for a pod that is ready.
	wrong := shell(starts + ` </dev/null >/dev/null 2>"$TMPDIR/log" & sleep 0.1; kill -0 $! && exit 0; cat "$TMPDIR/log"; echo exited; exit 1`)
	all, out, status := checks(t, []string{"-random", "12", "-seed", "7", "-run", `random-\d$`}, wrong...)
	assert.Equal(t, 1, status, out)
	assert.Contains(t, found(all), "verdict")
	assert.Regexp(t, `(?m)^ +verdict \(must\): .*\n        program: [^;]+;$`, out, "the shortest program that shows it")
}

// process is podclient as a process of its own.
func process(t *testing.T, args ...string) (cmd *exec.Cmd, temp string) {
	t.Helper()
	temp, err := os.MkdirTemp("/tmp", "pc") // not longer than the harness takes
	require.NoError(t, err)
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asPodclient+"=1", "TMPDIR="+temp, "TERM=xterm")
	cmd.WaitDelay = patience
	t.Cleanup(func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
		for _, pid := range processesWith(temp) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = os.RemoveAll(temp)
	})
	return cmd, temp
}

// processesWith returns the processes with a text in their environment; none
// where that is not shown.
func processesWith(text string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range files {
		env, _ := os.ReadFile(file)
		if bytes.Contains(env, []byte(text)) {
			pid, _ := strconv.Atoi(strings.Split(file, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	begun := filepath.Join(t.TempDir(), "begun")
	client := shell(fmt.Sprintf("trap '' INT; sleep 1000 & %s </dev/null >/dev/null 2>&1 & sleep 0.2; echo >'%s'; sleep 1000", starts, begun))
	cmd, temp := process(t, append([]string{"-run", "^(ready|escape)$"}, client...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { _, err := os.Stat(begun); return err == nil }, patience, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	assert.EqualError(t, cmd.Wait(), "exit status 130")
	assert.Regexp(t, `^podclient: interrupted while these cases ran: [a-z, ]*(ready|escape)\n$`, stderr.String())
	assert.Regexp(t, `^0 passed, 0 failed, 0 warned, 0 skipped, 2 not judged in \S+s\n$`, stdout.String())
	assert.Eventually(t, func() bool {
		files, err := os.ReadDir(temp)
		return err == nil && len(files) == 0 && len(processesWith(temp)) == 0
	}, patience, 5*time.Millisecond, "nothing is left")
}

func TestProgressIsForTerminals(t *testing.T) {
	t.Parallel()
	args := append([]string{"-run", "^(ready|early-exit|wrong-name)$"}, podspawn()...)
	cmd, _ := process(t, args...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	terminal, tty, err := pty.Open()
	require.NoError(t, err)
	defer terminal.Close()
	cmd.Stderr = tty
	require.NoError(t, cmd.Start())
	tty.Close()
	shown := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(terminal) // ends with an error when nobody has the terminal open
		shown <- string(text)
	}()
	require.NoError(t, cmd.Wait(), stdout.String())
	select {
	case text := <-shown:
		assert.Contains(t, text, "\r\x1b[K1 of 3 cases\r\x1b[K2 of 3 cases\r\x1b[K")
		assert.NotContains(t, text, "3 of 3")
	case <-time.After(patience):
		assert.Fail(t, "the terminal is still open")
	}
	assert.NotContains(t, stdout.String(), "\r")

	cmd, _ = process(t, args...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err)
	assert.NotContains(t, string(out), "\r")
	assert.NotContains(t, string(out), " of 3 cases")
}
