package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"example.com/podharness/fakepod"
	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/harness"
	"example.com/podharness/scripts/internal/conformance"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/safefile"
)

// kitTrouble is the check of a case that could not be judged.
func (s *sweepCase) kitTrouble(why string) conformance.Check {
	c := s.check("verdict", nil)
	c.Result, c.Why = conformance.Error, why
	return c
}

// lack matches what a system says that has too little of something.
var lack = regexp.MustCompile(`no space left on device|too many open files|resource temporarily unavailable|cannot allocate memory|disk quota exceeded|read-only file system`)

// trouble returns why the case says nothing about the client; "" = it does.
func (s *sweepCase) trouble(want oracle.Outcome) string {
	if log, err := os.Open(s.logPath()); err == nil {
		defer log.Close()
		if why := podlog.Trouble(log); why != "" {
			return "the machine has too little for the pod: " + why
		}
	}
	text, _ := os.ReadFile(s.logPath())
	for _, line := range strings.Split(string(text[max(0, len(text)-maxOutput):]), "\n") {
		if strings.HasPrefix(line, "fakepod: ") && lack.MatchString(strings.ToLower(line)) {
			return "the machine has too little for the pod, which says: " + podlog.Printable(line)
		}
	}
	if s.seen.Args == nil && lack.MatchString(strings.ToLower(s.output)) {
		return "the machine has too little for the client, which said " + s.firstWords()
	}
	if s.seen.Args == nil && want.Verdict != refused && !s.late {
		if err := selfTest(); err != nil {
			return err.Error()
		}
	}
	return ""
}

// selfTest starts the program that clients are told to start, without a client.
func selfTest() error {
	tb := &caseTB{name: "self-test", flags: &conformance.Flags{}}
	defer tb.finish()
	dir, err := harness.TempDir()
	if err != nil {
		return err
	}
	tb.Cleanup(func() { safefile.RemoveAll(dir) })
	tb.scrap = dir
	self, args := fakepod.Command("ready")
	client, err := harness.TryStartClient(tb, harness.ClientConfig{
		Program: "/bin/sh", Args: []string{"-c", `exec "$` + spawn.RuntimeCommandEnv + `"`}, Pod: spawn.Command{Program: self, PrefixArgs: []string{args[0], "-help"}},
	})
	if err != nil {
		return err
	}
	state, err := client.TryWait(time.Minute)
	switch {
	case err != nil:
		return err
	case !state.Success():
		return fmt.Errorf("no pod can be started here, by podclient either: %v: %s", state, firstLine(client.Stderr()))
	}
	return nil
}
