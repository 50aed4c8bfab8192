package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
)

// testCase is one start that the client is put to.
type testCase struct {
	name, doc string
	program   string // of the fake pod
	want      oracle.Outcome

	pod     string         // its name; "" = alpha
	env     []string       // for the client, where {root} is the sandbox
	dir     string         // in the sandbox, in which the pod directory must be
	log     string         // that an earlier pod has left; "" = none has
	refused string         // what a message must hold of a start that begins no process; "" = one is begun
	touched string         // in the sandbox, must not have been made
	random  oracle.Program // nil = it is no random one
}

// cases returns the cases that are asked for.
func (s *settings) cases() (chosen []testCase, err error) {
	all := launchCases()
	for _, m := range fakepod.Modes() {
		all = append(all, testCase{name: m.Name, doc: m.Doc, program: m.Name})
	}
	if s.random > 0 {
		all = s.randomCases()
	}
	for _, c := range all {
		if !s.Chosen(c.name) {
			continue
		}
		if c.refused == "" {
			if c.want, err = oracle.Expect(c.program, s.timeout); err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
		} else {
			c.want = oracle.Outcome{Verdict: "refused"}
		}
		c.pod = cmp.Or(c.pod, "alpha")
		chosen = append(chosen, c)
	}
	if len(chosen) == 0 {
		return nil, s.NoneChosen()
	}
	return chosen, nil
}

// launchCases are about what the contract asks of a launch, beyond the modes.
func launchCases() []testCase {
	unset := func(names ...string) (env []string) {
		for _, name := range names {
			env = append(env, name+"=") // an empty variable counts as unset
		}
		return env
	}
	long := filepath.Join("run", strings.Repeat("d", 120))
	return []testCase{
		{name: "dir-yoi-home", doc: "the runtime directory is $YOI_HOME/run", program: "ready", env: append(unset("YOI_RUNTIME_DIR"), "YOI_HOME={root}/yoi"), dir: "yoi/run"},
		{name: "dir-xdg", doc: "the runtime directory is $XDG_RUNTIME_DIR/yoi", program: "ready", env: unset("YOI_RUNTIME_DIR", "YOI_HOME"), dir: "xdg/yoi"},
		{name: "dir-home", doc: "the runtime directory is $HOME/.yoi/run", program: "ready", env: unset("YOI_RUNTIME_DIR", "YOI_HOME", "XDG_RUNTIME_DIR"), dir: "home/.yoi/run"},
		{name: "dir-none", doc: "no variable names a runtime directory", program: "ready", env: unset("YOI_RUNTIME_DIR", "YOI_HOME", "XDG_RUNTIME_DIR", "HOME"), refused: "YOI_RUNTIME_DIR"},
		{name: "dir-long", doc: "the socket's path is too long for a socket address", program: "ready", env: []string{"YOI_RUNTIME_DIR={root}/" + long}, dir: long},
		{name: "no-program", doc: "the pod's program is missing", program: "ready", env: []string{"YOI_POD_RUNTIME_COMMAND=/no/such/pod"}, refused: "/no/such/pod"},
		{name: "bad-name", doc: "the pod's name would lead out of the runtime directory", program: "ready", pod: "../outside", refused: "outside", touched: "outside"},
		{name: "old-log", doc: "an earlier pod has left its log, with a ready line", program: "log loading; sleep 300ms; bind; ready; serve", log: "YOI-READY\tearlier\tsock\n"},
	}
}

// waits reports whether the case takes as long as the client's timeout.
func (c testCase) waits() bool { return c.want.Verdict == oracle.TimedOut }

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
