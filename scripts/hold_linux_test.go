//go:build !portable

package scripts_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.com/podharness/fakepod/reexec"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A pod that can be held takes one of these words first: right, early (it announces
// its socket just before it listens) or late (it handles SIGINT just after that).
// No pod waits between the two.

const goPod = "pod-to-hold"

func init() {
	reexec.Register(goPod, func(args []string) int {
		beGoPod(args[0], args[len(args)-1])
		return 0
	})
}

func beGoPod(how, name string) {
	path := filepath.Join(os.Getenv("YOI_RUNTIME_DIR"), name, "sock")
	_ = os.Remove(path)
	interrupts := make(chan os.Signal, 1)
	announce := func() { fmt.Fprintf(os.Stderr, "YOI-READY\t%s\t%s\n", name, path) }
	if how != "late" {
		signal.Notify(interrupts, os.Interrupt)
	}
	if how == "early" {
		announce()
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		panic(err)
	}
	if how != "early" {
		announce()
	}
	signal.Notify(interrupts, os.Interrupt)
	<-interrupts
	listener.Close()
	os.Exit(0)
}

const pythonPod = `
import os, signal, socket, sys
how, name = sys.argv[1], sys.argv[-1]
path = os.path.join(os.environ["YOI_RUNTIME_DIR"], name, "sock")
if os.path.lexists(path):
    os.unlink(path)
announce = lambda: print("YOI-READY", name, path, sep="\t", file=sys.stderr, flush=True)
handle = lambda: signal.signal(signal.SIGINT, lambda *_: os._exit(0))
how == "late" or handle()
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
how == "early" and announce()
listener.listen()
how == "early" or announce()
handle()
while True:
    signal.pause()
`

// The C pod writes with writev, and knows more words: with blocked it reads its signals
// from a descriptor, with relative its socket's path counts from where it is, with
// elsewhere only a duplicate of its stderr leads to the log, with unseen it writes in a
// way that cannot be held.
const cPod = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
static struct sockaddr_un at = {AF_UNIX};
static char *name, *path = at.sun_path;
static int out = 2, unseen;
static void stop(int sig) { _exit(0); }
static void announce(void) {
	struct iovec line[] = {{"YOI-READY\t", 10}, {name, strlen(name)}, {"\t", 1}, {path, strlen(path)}, {"\n", 1}};
	if (!unseen) { writev(out, line, 5); return; }
	int ends[2], size;
	if (pipe(ends) || (size = writev(ends[1], line, 5)) < 0) exit(1);
	fcntl(out, F_SETFL, fcntl(out, F_GETFL) & ~O_APPEND); // else nothing is spliced into it
	lseek(out, 0, SEEK_END);
	splice(ends[0], 0, out, 0, size, 0);
}
int main(int argc, char **argv) {
	char *how = argv[1];
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	name = argv[argc - 1];
	snprintf(at.sun_path, sizeof at.sun_path, "%s/%s/sock", getenv("YOI_RUNTIME_DIR"), name);
	unlink(path);
	if (!strcmp(how, "blocked")) sigprocmask(SIG_BLOCK, &set, 0);
	else if (strcmp(how, "late")) signal(SIGINT, stop);
	if (unseen = !strcmp(how, "unseen")) write(2, "podharness: held\n", 17); // which proves nothing
	if (!strcmp(how, "elsewhere")) out = dup(2), dup2(open("/dev/null", O_WRONLY), 2), write(2, "YOI-READY\t\t\n", 12);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&at, sizeof at)) return 1;
	if (!strcmp(how, "relative")) path = chdir(getenv("YOI_RUNTIME_DIR")) ? 0 : path + strlen(getenv("YOI_RUNTIME_DIR")) + 1;
	if (!strcmp(how, "early")) announce();
	listen(fd, 8);
	if (strcmp(how, "early")) announce();
	signal(SIGINT, stop);
	struct signalfd_siginfo info;
	return read(signalfd(-1, &set, 0), &info, sizeof info) < 0;
}
`

// podsToHold returns the flags of podstart for each pod that there is a tool for.
func podsToHold(t *testing.T) map[string]string {
	self, err := os.Executable()
	require.NoError(t, err)
	pods := map[string]string{"go": "-pod " + self + " -pod-arg " + goPod + " -pod-arg "}
	if out, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output(); err == nil {
		source := filepath.Join(t.TempDir(), "pod.py")
		require.NoError(t, os.WriteFile(source, []byte(pythonPod), 0o600))
		pods["python"] = "-pod " + strings.TrimSpace(string(out)) + " -pod-arg " + source + " -pod-arg "
	}
	if cc, err := exec.LookPath("cc"); err == nil {
		program := filepath.Join(t.TempDir(), "pod")
		cmd := exec.Command(cc, "-x", "c", "-o", program, "-")
		cmd.Stdin = strings.NewReader(cPod)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		pods["c"] = "-pod " + program + " -pod-arg "
	}
	return pods
}

func needHold(t *testing.T) {
	t.Helper()
	if log, failed := runScript(t, "[!hold] nonsense"); failed {
		t.Skipf("this system cannot hold a pod: %s", log)
	}
}

// TestHold holds pods again and again: what is seen must not depend on luck.
func TestHold(t *testing.T) {
	t.Parallel()
	needHold(t)
	const times = 2
	const listens, not = "is listened on$", `is not listened on yet \(connect: `
	const stops, dies = `exit status 0`, `signal: interrupt`
	type held struct{ flags, look, end string }
	cases := map[string]held{
		"fake":              {"-fake ready", listens, stops},
		"fake early":        {"-fake 'ready; bind; serve'", not, stops},
		"fake early, bound": {"-fake 'socket; ready; listen; serve'", not, stops},
		"fake in halves":    {`-fake 'raw "YOI-READY\t{name}"; bind; raw "\t{socket}\n"; serve'`, listens, stops},
		"fake half early":   {`-fake 'raw "YOI-READY\t{name}"; raw "\t{socket}\n"; bind; serve'`, not, stops},
		"fake among lines":  {`-fake 'bind; raw "a\nb YOI-READY\t\nYOI-READY\t{name}\t{socket}\r\nc\nd"; serve'`, listens, stops},
		"fake with a child": {`-fake 'child "log hello; hang"; bind; ready; serve'`, listens, stops},
	}
	for name, flags := range podsToHold(t) {
		cases[name] = held{flags + "right", listens, stops}
		cases[name+" early"] = held{flags + "early", not, stops}
		cases[name+" late"] = held{flags + "late", listens, dies}
		if name == "c" {
			cases["c blocked"] = held{flags + "blocked", listens, stops}
			cases["c relative"] = held{flags + "relative", listens, stops}
			cases["c elsewhere"] = held{flags + "elsewhere", listens, stops}
		}
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			look := fmt.Sprintf("podstart -hold look %s alpha\npodlog alpha '^podharness: its socket %s'\npodlog alpha ^YOI-READY\npodkill alpha\n", tc.flags, tc.look)
			end := fmt.Sprintf("! podstart -hold INT %s alpha\nstderr 'pod exited before becoming ready \\(%s\\)'\n! stderr 'socket is'\n", tc.flags, tc.end)
			log, failed := runScript(t, strings.Repeat(look+end, times))
			assert.False(t, failed, log)
		})
	}
}

func TestPodThatCannotBeHeldIsNotJudged(t *testing.T) {
	t.Parallel()
	needHold(t)
	flags, ok := podsToHold(t)["c"]
	if !ok {
		t.Skip("no cc")
	}
	for _, what := range []string{"look", "INT"} {
		log, failed := runScript(t, fmt.Sprintf("podstart -hold %s %sunseen alpha\nnonsense", what, flags))
		assert.False(t, failed, log)
		assert.Contains(t, log, "the pod was not held in its write of the ready line: ")
	}
}

func TestPodThatDoesNotStartUnderHoldIsNotJudged(t *testing.T) {
	t.Parallel()
	needHold(t)
	for _, script := range []string{"podstart -hold look -fake early-exit alpha", "! podstart -hold INT -fake early-exit alpha\nstderr 'exit status 0'"} {
		f := failureOf(t, script, patience)
		require.NotNil(t, f, script)
		assert.True(t, f.Kit, script)
		assert.ErrorContains(t, f.Err, "the pod has not come to its ready line where its writes are held, which also disarms setuid programs: pod exited before", script)
	}
	assert.Nil(t, failureOf(t, "! podstart -hold look -fake early-exit alpha\nstderr 'exit status 7'", patience), "what the script expects")
}

// TestHeldPodFailsAsItDoesByItself compares the messages.
func TestHeldPodFailsAsItDoesByItself(t *testing.T) {
	t.Parallel()
	needHold(t)
	private := regexp.MustCompile(`process \d+|/\S*/alpha[./]|(; last lines: | \| |\n\t\t)?podharness: its socket[^|\n]*[^|\n ]`)
	for _, program := range []string{
		"early-exit", "early-exit-silent", "early-exit-zero", "kill SEGV", "kill ABRT", "kill TERM", "kill KILL", `raw "last words"; exit 3`, "daemon", "failed-child",
		"wrong-name", "malformed-no-fields", "malformed-no-socket", "stdout-ready", "dead-socket", "deaf", "exit-after-ready", "invalid-utf8-exit", `flood 300KiB 0; raw "\n"; exit 5`,
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			message := func(flags string) string {
				log, _ := runScript(t, fmt.Sprintf("podstart %s -timeout 1s -fake '%s' alpha", flags, program))
				_, log, _ = strings.Cut(log, "[stderr]\n")
				log, _, found := strings.Cut(log, "\nFAIL: ")
				require.True(t, found, log)
				return private.ReplaceAllString(log, "")
			}
			assert.Equal(t, message(""), message("-hold look"))
		})
	}
}

func TestHoldIsRefused(t *testing.T) {
	t.Parallel()
	needHold(t)
	for _, tc := range []struct{ script, log string }{
		{"podstart -hold nonsense alpha", `podstart: invalid value "nonsense" for flag -hold: unknown signal "nonsense"`},
		{"podstart -hold look -pod /nowhere alpha", `exec: "/nowhere": stat /nowhere: no such file or directory`},
		{"podstart -hold look -pod ./pod alpha\n-- pod --", `permission denied`},
		{"exec chmod +x pod\npodstart -hold look -pod ./pod alpha\n-- pod --", `failed to launch pod runtime command`},
	} {
		log, failed := runScript(t, tc.script)
		assert.True(t, failed, log)
		assert.Contains(t, log, tc.log)
	}
}
