package oracle

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestExpect(t *testing.T) {
	t.Parallel()
	exited := func(step int, status string, tail ...string) Outcome {
		return Outcome{Verdict: Exited, Step: step, Status: status, Tail: tail}
	}
	waiting := func(missing string, tail ...string) Outcome {
		return Outcome{Verdict: TimedOut, Step: -1, Missing: missing, Tail: tail}
	}
	atSocket := func(why, socket string) Outcome {
		return Outcome{Verdict: TimedOut, Step: -1, Missing: "socket", Why: why, Socket: socket}
	}
	ready := func(step int) Outcome { return Outcome{Verdict: Ready, Step: step, Socket: "{dir}/sock"} }
	for program, want := range map[string]Outcome{
		"ready":                                ready(1),
		"slow-bind":                            ready(2),
		"torn-ready":                           ready(3),
		"crlf":                                 ready(1),
		"duplicate-ready":                      ready(1),
		"truncate-log":                         ready(4),
		"bind; ready; unlink log; hang":        ready(1),
		"ready; bind; hang":                    ready(1),
		"bind; listen 0; fill; ready; serve":   ready(4),
		"bind; serve; ready; sleep 1s; exit 3": ready(2),
		"early-exit":                           exited(1, "exit status 7", "cannot open session store"),
		"early-exit-signal":                    exited(1, "signal: killed", "about to crash"),
		"exit-after-ready":                     exited(3, "exit status 3", "migrating", "migration failed"),
		"log a":                                exited(0, "exit status 0", "a"),
		"ignore TERM; kill TERM; kill STOP":    waiting("ready line"),
		"kill INT":                             exited(0, "exit status 0"),
		"log 1; log 2; log 3; log 4; log 5; log 6; log 7; log 8; log 9; exit 1": exited(9, "exit status 1", "2", "3", "4", "5", "6", "7", "8", "9"),
		"serve; exit 3":             exited(0, "exit status 1", "fakepod: serve: there is no socket yet: the step bind, or socket, comes before"),
		"bind; socket":              exited(1, "exit status 1", "fakepod: socket: there is a socket already"),
		"unlink sock":               exited(0, "exit status 1", "fakepod: unlink: remove {dir}/sock: no such file or directory"),
		"raw 'no newline'; exit 1":  {Verdict: Exited, Step: 1, Status: "exit status 1", Unfinished: "no newline"},
		"daemon":                    exited(0, "exit status 0"),
		"daemon-late-end":           ready(2),
		"log a; daemonize 1s; hang": exited(2, "exit status 0", "a"),
		"daemonize 1s; sleep 2s; bind; ready; serve":                    exited(1, "exit status 0"),
		"daemonize 1s; log b; sleep 10s; exit 4":                        exited(2, "exit status 0", "b"),
		"on TERM hang; ignore TERM; kill TERM; on INT 'exit 3'; exit 4": exited(4, "exit status 4"),
		"on INT 'exit 3'; kill TERM":                                    exited(1, "signal: terminated"),
		"flood 100 40; exit 1":                                          exited(1, "exit status 1", dots(39), dots(39), dots(19)),
		"malformed-no-socket":                                           {Verdict: Malformed, Step: 1, Line: "YOI-READY\t{name}"},
		"log hm; raw \"YOI-READY\\t\\n\"; exit 1":                       {Verdict: Malformed, Step: 1, Line: "YOI-READY\t", Tail: []string{"hm"}},
		"wrong-name":                   {Verdict: WrongName, Step: 1, Name: "{name}-other"},
		"never-ready":                  waiting("ready line", "loading"),
		"stopped":                      waiting("ready line", "loading"),
		"never-binds":                  atSocket("missing", "{dir}/sock"),
		"dead-socket":                  atSocket("refused", "{dir}/sock"),
		"deaf":                         atSocket("deaf", "{dir}/sock"),
		"file-socket":                  atSocket("not a socket", "{dir}/pid"),
		"ready '{name}' '{dir}'; hang": atSocket("not a socket", "{dir}"),
		`log x; raw "x YOI-READY\t{name}\t{socket}\n"; raw "YOI-READY {name} {socket}\n"; hang`: waiting("ready line", "x", "x YOI-READY\t{name}\t{dir}/sock", "YOI-READY {name} {dir}/sock"),
		`bind "{dir}/a\tb "; raw "YOI-READY\t{name}\t{dir}/a\tb \r\n"; serve`:                   {Verdict: Ready, Step: 1, Socket: "{dir}/a\tb "},
		`bind; raw "YOI-READY\t{name}\t{dir}/a\tb\n"; serve`:                                    atSocket("missing", "{dir}/a\tb"),
		`bind; raw "YOI-READY\t{name}\t{socket}\r\r\n"; serve`:                                  atSocket("missing", "{dir}/sock\r"),
		`bind "{socket}\r"; raw "YOI-READY\t{name}\t{socket}\r\r\n"; serve`:                     {Verdict: Ready, Step: 1, Socket: "{dir}/sock\r"},
		"bind here; ready '{name}' here; serve":                                                 {Verdict: Ready, Step: 1, Socket: "here"},
		"socket here; ready '{name}' here; hang":                                                atSocket("refused", "here"),
		"bind; cd '{dir}'; ready '{name}' sock; serve":                                          {Verdict: Ready, Step: 2, Socket: "sock"},
		"cd '{dir}'; bind s; ready '{name}' '{dir}/s'; serve":                                   {Verdict: Ready, Step: 2, Socket: "{dir}/s"},
		"cd '{dir}'; ready '{name}' pid/sock; hang":                                             {Verdict: SocketError, Step: 1, Socket: "pid/sock"},
		"bind s; ready '{name}' '{dir}/s/x'; hang":                                              atSocket("missing", "{dir}/s/x"),
		"bind '{dir}/s'; ready '{name}' '{dir}/s/x'; hang":                                      {Verdict: SocketError, Step: 1, Socket: "{dir}/s/x"},
		"bind '{dir}/s'; unlink sock":                                                           exited(1, "exit status 1", "fakepod: unlink: remove {dir}/sock: no such file or directory"),
		"unlink dir; bind here; ready '{name}' here; serve":                                     {Verdict: Ready, Step: 2, Socket: "here"},
		"cd '{dir}'; unlink dir; bind s":                                                        exited(2, "exit status 1", "fakepod: bind: bind s: no such file or directory"),
		"unlink dir; cd '{dir}'":                                                                exited(1, "exit status 1", "fakepod: cd: chdir {dir}: no such file or directory"),
		"socket here; serve":                                                                    exited(1, "exit status 1", "fakepod: serve: accept unix here: accept4: invalid argument"),
		"sleep 4s; ready; hang":                                                                 atSocket("missing", "{dir}/sock"),
		"ready '{name}' '{dir}/pid/sock'; hang":                                                 {Verdict: SocketError, Step: 0, Socket: "{dir}/pid/sock"},
	} {
		got, err := Expect(program, 5*time.Second)
		require.NoError(t, err, program)
		assert.Equal(t, want, got, program)
	}
}

func dots(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '.'
	}
	return string(b)
}

func TestExpectSaysWhyThereIsNoSingleOutcome(t *testing.T) {
	t.Parallel()
	for program, why := range map[string]string{
		"no-such-mode":                                     `unknown verb "no-such-mode"`,
		"bind; ready; exit 3":                              "whoever looks at once after step 2 concludes: ready; whoever does not: exited (exit status 3)",
		"bind; ready; unlink sock; hang":                   "whoever looks at once after step 2 concludes: ready; whoever does not: timed out",
		"sleep 5s; bind; ready; serve":                     "comes close to the timeout of 5s",
		"sleep 4900ms; log x; hang":                        "comes close to the timeout of 5s",
		"ready; truncate; bind; serve":                     "how much of the log was read before it was truncated is chance",
		"ready '{name}' sock; hang":                        `it depends on what is at "sock"`,
		"ready '{name}' /run/x; hang":                      `it depends on what is at "/run/x"`,
		"child 'bind; ready; serve'; hang":                 "bind is done by a child at the same time",
		"daemonize; log x; hang":                           "may or may not read what the daemon writes",
		"daemonize; daemonize; log x; hang":                "may or may not read what the daemon writes",
		"daemonize 100ms; bind; ready; serve":              "whoever looks at once after step 3 concludes: ready; whoever does not: exited (exit status 0)",
		"daemonize 1s; sleep 900ms; bind; ready; serve":    "whoever looks at once after step 4 concludes: ready",
		"daemonize 1s; exit 3":                             "a daemon that ends before its parent",
		"daemonize 1s; daemonize; hang":                    "a daemon of a daemon",
		"daemonize 5s; bind; hang":                         "comes close to the timeout of 5s",
		"on TERM 'exit 3'; kill TERM; hang":                "what it does on SIGTERM is done beside the steps that follow",
		"bind here; ready '{name}' here; cd '{dir}'; hang": "from where a relative path counts depends on when the ready line is read",
		"bind /tmp/x; ready '{name}' /tmp/x; serve":        `it depends on what is at "/tmp/x"`,
		"bind '{dir}/pid'; ready; serve":                   `it depends on what is at "{dir}/pid"`,
		"ready '{name}' '{dir}/../x/sock'; hang":           `it depends on what is at "{dir}/../x/sock"`,
		"ready '{name}' '{dir}//pid'; hang":                `it depends on what is at "{dir}//pid"`,
		"ready '{name}' '{dir}/.'; hang":                   `it depends on what is at "{dir}/."`,
		"ready '{name}' '{dir}x'; hang":                    `it depends on what is at "{dir}x"`,
		"cd /; hang":                                       `it depends on what is at "/"`,
		"daemonize 1s; cd '{dir}'; hang":                   "from the directory of the process that was started",
		"kill TSTP; hang":                                  "whether SIGTSTP stops a process depends on its session",
		"log x; sleep 1s; truncate; log yy; hang":          "looks as if it had only grown",
	} {
		_, err := Expect(program, 5*time.Second)
		assert.ErrorContains(t, err, why, program)
	}
}

func TestEveryVerbIsKnown(t *testing.T) {
	t.Parallel()
	for _, verb := range fakepod.Verbs() {
		args := []string{"1", "1"} // a number is a text, a size, a status
		switch verb {
		case "sleep", "daemonize":
			args = []string{"1ms"}
		case "child", "escape":
			args = []string{"hang"}
		}
		assert.NotPanics(t, func() {
			(&expectation{reacts: map[syscall.Signal]string{}}).take(fakepod.Step{Verb: verb, Args: args})
		}, verb)
	}
}

func TestListIsThePrograms(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSuffix(List(), "\n"), "\n")
	require.Len(t, lines, len(fakepod.Modes()))
	for i, m := range fakepod.Modes() {
		name, rest, _ := strings.Cut(lines[i], " ")
		assert.Equal(t, m.Name, name)
		program, doc, _ := strings.Cut(strings.TrimLeft(rest, " "), "  # ")
		assert.Equal(t, m.Program, strings.TrimRight(program, " "))
		doc, outcome, _ := strings.Cut(doc, ": ")
		assert.Equal(t, m.Doc, doc)
		want, err := Expect(m.Name, 20*time.Second)
		assert.NoError(t, err)
		assert.Equal(t, want.String(), outcome)
	}
}

func TestEveryModeHasAnOutcome(t *testing.T) {
	t.Parallel()
	for _, m := range fakepod.Modes() {
		_, err := Expect(m.Name, 3*time.Second)
		assert.NoError(t, err, m.Name)
	}
}

func TestOutcomeForAPod(t *testing.T) {
	t.Parallel()
	o, err := Expect("log 'in {dir} as {pid}'; ready '{name}-other'; hang", 5*time.Second)
	require.NoError(t, err)
	o = o.For("alpha", "/run/alpha")
	assert.Equal(t, Outcome{Verdict: WrongName, Step: 1, Name: "alpha-other", Tail: []string{"in /run/alpha as {pid}"}}, o)
	assert.Equal(t, `wrong name: "alpha-other"`, o.String())
}

func TestRandomProgramsAreThoseOfTheirSeed(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	programs := Random(7, 20, timeout)
	require.Len(t, programs, 20)
	assert.Equal(t, programs, Random(7, 20, timeout))
	assert.NotEqual(t, programs, Random(8, 20, timeout))
	for _, p := range programs {
		_, err := Expect(p.String(), timeout)
		assert.NoError(t, err, p)
		for _, smaller := range p.Smaller(timeout) {
			assert.Len(t, smaller, len(p)-1)
			_, err := Expect(smaller.String(), timeout)
			assert.NoError(t, err, smaller)
		}
	}
}
