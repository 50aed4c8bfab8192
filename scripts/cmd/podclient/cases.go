package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
)

// testCase is one start that the client is put to.
type testCase struct {
	name, doc string
	program   string         // of the fake pod
	want      oracle.Outcome // no Verdict = that of oracle.Expect
	about     []string       // requirements that are judged in such cases alone

	pod     string         // its name; "" = alpha
	env     []string       // for the client, where {root} is the sandbox
	dir     string         // in the sandbox, in which the pod directory must be
	log     string         // that an earlier pod has left; "" = none has
	refused string         // what a message must hold of a start that begins no process; "" = one is begun
	at      surroundings   // where {root} is the sandbox in Command
	tty     bool           // the client is on a terminal
	signal  syscall.Signal // sent to the client once the pod is at its last step; 0 = none is
	second  bool           // a pod of the name, which the client has started, is ready
	size    int64          // of the log that it leaves; 0 = any
	metered bool           // samples are taken of what the client uses
	dashes  bool           // -- stands before its name on the client's command line
	random  oracle.Program // nil = it is no random one
	real    *realCase      // nil = the pod is a fake one
}

// badName is what a message holds of a name that is refused.
const badName = "name"

// noRuntimeDir refuses a start for which there is no runtime directory, by what a client must name.
const noRuntimeDir = "YOI_RUNTIME_DIR"

// What is wanted where the oracle knows nothing of it.
const (
	refused   oracle.Verdict = "refused"
	cancelled oracle.Verdict = "cancelled"
	either    oracle.Verdict = "ready, or refused"
)

// cases returns the cases that are asked for, of this shard.
func (s *settings) cases() (mine []testCase, err error) {
	var chosen []testCase
	all := s.portable()
	switch {
	case s.pod.Program != "":
		all = realCases()
	case s.random > 0:
		all = s.randomCases()
	}
	for _, c := range all {
		if !s.Chosen(c.name) {
			continue
		}
		if c, err = s.complete(c); err != nil {
			return nil, err
		}
		chosen = append(chosen, c)
	}
	if len(chosen) == 0 {
		return nil, s.NoneChosen()
	}
	for i, c := range chosen {
		if s.Has(i) {
			mine = append(mine, c)
		}
	}
	return mine, nil
}

// complete fills in what is as in most cases.
func (s *settings) complete(c testCase) (testCase, error) {
	if c.refused != "" {
		c.want.Verdict = refused
	}
	if c.want.Verdict == "" {
		var err error
		if c.want, err = oracle.Expect(c.program, s.timeout); err != nil {
			return c, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if c.name != "name-empty" {
		c.pod = cmp.Or(c.pod, "alpha")
	}
	c.at.Umask, c.tty = cmp.Or(c.at.Umask, 0o022), c.tty || s.tty
	for _, id := range []string{"notices", "idle", "rereads", "memory"} {
		c.metered = c.metered || slices.Contains(c.about, id)
	}
	return c, nil
}

// portable returns all cases but random ones.
func (s *settings) portable() []testCase {
	all := slices.Concat(launchCases(), nameCases(), surroundingsCases(), lineCases(), s.waitingCases())
	about := map[string][]string{
		"ready": {"notices", "silent"}, "slow-bind": {"notices", "silent"}, "early-exit": {"notices"}, "exit-after-ready": {"notices"},
		"never-ready": {"idle"}, "never-binds": {"idle"},
	}
	for _, m := range fakepod.Modes() {
		all = append(all, testCase{name: m.Name, doc: m.Doc, program: m.Name, about: about[m.Name]})
	}
	return all
}

// launchCases are about where a pod's directory is, and which program it is.
func launchCases() []testCase {
	unset := func(names ...string) (env []string) {
		for _, name := range names {
			env = append(env, name+"=") // an empty variable counts as unset
		}
		return env
	}
	long, odd := filepath.Join("run", strings.Repeat("d", 120)), "r é\t$x'\""
	return []testCase{
		{name: "dir-yoi-home", doc: "the runtime directory is $YOI_HOME/run", program: "ready", env: append(unset("YOI_RUNTIME_DIR"), "YOI_HOME={root}/yoi"), dir: "yoi/run"},
		{name: "dir-xdg", doc: "the runtime directory is $XDG_RUNTIME_DIR/yoi", program: "ready", env: unset("YOI_RUNTIME_DIR", "YOI_HOME"), dir: "xdg/yoi"},
		{name: "dir-home", doc: "the runtime directory is $HOME/.yoi/run", program: "ready", env: unset("YOI_RUNTIME_DIR", "YOI_HOME", "XDG_RUNTIME_DIR"), dir: "home/.yoi/run"},
		{name: "dir-none", doc: "no variable names a runtime directory", program: "ready", env: unset("YOI_RUNTIME_DIR", "YOI_HOME", "XDG_RUNTIME_DIR", "HOME"), refused: noRuntimeDir},
		{name: "dir-long", doc: "the socket's path is too long for a socket address", program: "ready", env: []string{"YOI_RUNTIME_DIR={root}/" + long}, dir: long},
		{name: "dir-odd", doc: "the socket's path has a tab, a blank and quotes", program: "ready", env: []string{"YOI_RUNTIME_DIR={root}/" + odd}, dir: odd},
		{name: "no-program", doc: "the pod's program is missing", program: "ready", env: []string{"YOI_POD_RUNTIME_COMMAND=/no/such/pod"}, refused: "/no/such/pod"},
		{name: "command-path", doc: "the path of the pod's program has blanks, quotes and $", program: "ready", at: surroundings{Command: "{root}/it's a \"pod\" $HOME; x/po d"}},
		{name: "command-name", doc: "the pod's program has no slash, and is in PATH", program: "ready", at: surroundings{Command: "the pod's $HOME"}},
		{name: "old-log", doc: "an earlier pod has left its log, with a ready line", program: "log loading; sleep 300ms; bind; ready; serve", log: "YOI-READY\tearlier\tsock\n"},
		{name: "second-start", doc: "a pod of the name answers", program: "ready", second: true, want: oracle.Outcome{Verdict: either, Step: -1}, about: []string{"one-pod"}},
	}
}

// nameCases are about names: those that are no path element, and all others.
func nameCases() (cases []testCase) {
	for _, bad := range [][3]string{
		{"bad-name", "../outside", "would lead out of the runtime directory"}, {"name-empty", "", "is empty"}, {"name-dot", ".", "is ."}, {"name-dotdot", "..", "is .."},
		{"name-slash", "a/b", "has a slash"}, {"name-tab", "a\tb", "has a tab"}, {"name-cr", "a\rb", "has a carriage return"}, {"name-newline", "a\nb", "has a newline"},
	} {
		cases = append(cases, testCase{name: bad[0], doc: "the pod's name " + bad[2], program: "ready", pod: bad[1], refused: badName})
	}
	for _, good := range [][3]string{
		{"name-blanks", " Alpha  Beta ", "has capitals, and blanks, also at its ends"}, {"name-letters", "É-e\u0301%s\\'\"$HOME;*~", "has letters and signs that some programs change"},
		{"name-dots", "...alpha", "begins with dots"}, {"name-dash", "-alpha", "begins with -"},
	} {
		cases = append(cases, testCase{name: good[0], doc: "the pod's name " + good[2], program: "ready", pod: good[1]})
	}
	return cases
}

// rulers rule a terminal that they reach.
const rulers = "\x1b]0;owned\x07\x1b[31mred"

// surroundingsCases are about what the pod has of what the client has.
func surroundingsCases() []testCase {
	said := fmt.Sprintf("raw %q; ", rulers+"\n")
	return []testCase{
		{name: "inherits", doc: "the client has variables, a umask and limits", program: "ready", about: []string{"inherits"}, env: []string{"PODCLIENT_EMPTY=", "PODCLIENT_ODD= a=b\n'\"$é "},
			at: surroundings{Umask: 0o027, Files: 1021, Core: 12345 << 10}},
		{name: "umask", doc: "the umask of the client takes rights from their owner", program: "ready", about: []string{"inherits"}, at: surroundings{Umask: 0o177}},
		{name: "signals", doc: "the client is started with SIGUSR1 blocked and SIGHUP ignored", program: "ready", about: []string{"signals"},
			at: surroundings{Blocked: []syscall.Signal{syscall.SIGUSR1}, Ignored: []syscall.Signal{syscall.SIGHUP}}},
		{name: "stray-descriptor", doc: "the client has inherited descriptors", program: "ready", at: surroundings{Stray: true}},
		{name: "terminal-exit", doc: "the client is on a terminal, which the pod's last words would rule", program: said + "exit 7", tty: true},
		{name: "terminal-ready", doc: "the client is on a terminal, which the pod's words would rule", program: said + "bind; ready; serve", tty: true},
	}
}

// lineCases are about what is a ready line, and what is in it.
func lineCases() []testCase {
	const wrong = `YOI-READY\t{name}\t{dir}/pid/sock\n"; ` // it would be a socket error
	return []testCase{
		{name: "mid-line", doc: "YOI-READY in the middle of a line, after a word, a blank or a CR", program: `raw "to come: ` + wrong + `raw " ` + wrong + `raw "50%\r` + wrong + `bind; ready; serve`},
		{name: "no-newline", doc: "YOI-READY after what some programs take for a newline", program: `raw "\f` + wrong + `raw "\v` + wrong + `raw "\u0085` + wrong + `raw "\u2028` + wrong + `bind; ready; serve`},
		{name: "blanks-for-tabs", doc: "YOI-READY with blanks in place of tabs, and without any", program: `raw "YOI-READY {name} {dir}/pid/sock\nYOI-READY\nYOI-READY: {name}\t{dir}/pid/sock\nyoi-ready\t{name}\t{dir}/pid/sock\n"; bind; ready; serve`},
		{name: "second-tab", doc: "the socket's path has a tab in its name", program: `bind "{socket}\tx"; ready '{name}' "{socket}\tx"; serve`},
		{name: "blank-at-end", doc: "the socket's path ends with a blank", program: `bind '{socket} '; ready '{name}' '{socket} '; serve`},
		{name: "two-crs", doc: "the socket's path ends with a CR, before that of the line", program: `bind "{socket}\r"; raw "YOI-READY\t{name}\t{socket}\r\r\n"; serve`},
		{name: "relative", doc: "the socket's path is relative to the directory to which the pod has changed", program: `cd '{dir}'; bind; ready '{name}' sock; serve`},
		{name: "relative-scheme", doc: "the same with a path that begins with unix:", program: `cd '{dir}'; bind '{dir}/unix:x'; ready '{name}' unix:x; serve`},
		{name: "relative-at", doc: "the same with a path that begins with @", program: `cd '{dir}'; bind '{dir}/@x'; ready '{name}' @x; serve`},
	}
}

// flood is the size of each of the two floods of the case memory, and bigLog that of the
// log which is to be read once.
const (
	flood  = 80 << 20
	bigLog = 8 << 20
)

// waitingCases are about what the client does meanwhile, and how that is ended.
func (s *settings) waitingCases() []testCase {
	late := min(s.timeout*8/10, s.timeout-600*time.Millisecond)
	stubborn := "ignore INT TERM; child 'ignore INT TERM; hang'; log loading; "
	interrupted := oracle.Outcome{Verdict: cancelled, Step: -1}
	return []testCase{
		{name: "one-deadline", doc: "announces late a socket that it never binds", program: fmt.Sprintf("log loading; sleep %v; ready; hang", late)},
		{name: "big-log", doc: "is never ready, and its log is large", program: fmt.Sprintf("log loading; sleep 100ms; flood %d 4000; hang", bigLog), about: []string{"idle", "rereads"}},
		// A JVM collects no garbage before its heap is full, which may be large.
		{name: "memory", env: []string{"JAVA_TOOL_OPTIONS=-Xmx48m"}, doc: "writes a flood of lines, and as much in one line", about: []string{"memory"}, want: oracle.Outcome{Verdict: oracle.Ready, Step: 7},
			program: fmt.Sprintf(`log loading; sleep 200ms; flood %d 4000; flood %[1]d 0; raw "\n"; sleep 200ms; bind; ready; serve`, flood)},
		{name: "log-kept", doc: "dies with a log of many lines", program: `flood 64KiB 100; raw "\x1b[1m\xff\r\n\nlast"; exit 7`, size: 64<<10 + 12},
		{name: "interrupt", doc: "SIGINT comes to the client before the ready line", program: stubborn + "hang", signal: syscall.SIGINT, want: interrupted},
		{name: "terminate", doc: "SIGTERM comes to the client before the ready line", program: stubborn + "hang", signal: syscall.SIGTERM, want: interrupted},
		{name: "interrupt-late", doc: "SIGINT comes to the client after the ready line", program: stubborn + "ready; hang", signal: syscall.SIGINT, want: interrupted},
		{name: "terminate-late", doc: "SIGTERM comes to the client after the ready line", program: stubborn + "ready; hang", signal: syscall.SIGTERM, want: interrupted},
	}
}

// waits reports whether the case takes as long as the client's timeout.
func (c testCase) waits() bool { return c.want.Verdict == oracle.TimedOut }

// rests reports whether the pod does nothing for a while.
func (c testCase) rests() bool { return strings.Contains(c.program, "sleep") }

// randomCases returns programs, each with a single outcome.
func (s *settings) randomCases() (cases []testCase) {
	for i, p := range oracle.Random(s.seed, s.random, s.timeout) {
		cases = append(cases, testCase{name: fmt.Sprint("random-", i+1), doc: p.String(), program: p.String(), random: p})
	}
	return cases
}

// smaller returns a random case without one of its steps each, as far as such have
// a single outcome.
func (s *settings) smaller(c testCase) (all []testCase) {
	for _, p := range c.random.Smaller(s.timeout) {
		d := c
		d.random, d.program = p, p.String()
		d.want, _ = oracle.Expect(d.program, s.timeout)
		all = append(all, d)
	}
	return all
}
