package spawn_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/fakepod/oracle"
	"example.com/podharness/spawn"
	"pgregory.net/rapid"
)

// programsEnv says how many random programs are tried, at the least.
const programsEnv = "PODHARNESS_PROGRAMS"

// steps draws steps of a program that is more likely than not to come to a verdict
// after which there is nothing more to see.
func steps() *rapid.Generator[string] {
	text := rapid.SampledFrom([]string{
		"log loading", `log "  caf\xe9"`, "log 'pid {pid}'", "log YOI-READY", `raw "half a line"`, `raw "\n"`, `raw "CR LF\r\n"`, `raw "\x1b[2J"`,
		`raw "YOI-READY\t"`, `raw "{name}"`, `raw "\t{socket}\n"`, `raw "YOI-READY\t{name}\t{socket}\n"`, `raw "YOI-READY\t{name}\t{socket}\x00\n"`,
		"clock", "out 'on stdout'", "flood 1KiB", "flood 200KiB 0", "flood 300KiB 7", "truncate",
	})
	ready := rapid.SampledFrom([]string{
		"ready", "ready", "ready", "ready '{name}-other'", "ready '{name}' '{dir}/pid'", "ready '{name}' '{dir}/elsewhere'",
		"ready '{name}' '{dir}'", "ready '{name}' '{dir}/pid/sock'", `ready '' '{socket}'`, `ready '{name}' ''`,
	})
	socket := rapid.SampledFrom([]string{"bind", "bind", "bind", "socket", "listen", "listen 0", "listen 0; fill", "unlink sock", "unlink log", "unlink dir"})
	client := rapid.SampledFrom([]string{"serve", "stall 1ms", "event '{}'", `garbage "\xff"`, "close", "reset", "answer ping '{}'"})
	process := rapid.SampledFrom([]string{
		"child", "child 'ignore INT TERM; hang'", "escape 'sleep 1s'", "daemonize", "ignore INT TERM", "kill CONT", "kill URG",
	})
	wait := rapid.SampledFrom([]string{"sleep 1ms", "sleep 300ms"})
	return rapid.OneOf(text, text, ready, ready, socket, socket, process, client, wait)
}

func ends() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{
		"serve", "serve", "hang", "exit 0", "exit 7", "stop", "kill KILL", "kill TERM", "kill INT", "kill ABRT", "kill HUP", "kill STOP", "ignore TERM; kill TERM; hang",
	})
}

func program() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		drawn := rapid.SliceOfN(steps(), 0, 6).Draw(t, "steps")
		return strings.Join(append(drawn, ends().Draw(t, "end")), "; ") + ";"
	})
}

// TestRandomProgramsEndAsExpected compares the two spellings of the contract: what
// Start concludes, and what the fake pod's steps come to.
func TestRandomProgramsEndAsExpected(t *testing.T) {
	needsLinux(t, "Expect is about Linux")
	want := 150
	if s := os.Getenv(programsEnv); s != "" {
		var err error
		if want, err = strconv.Atoi(s); err != nil {
			t.Fatalf("%s: %v", programsEnv, err)
		}
	}
	var tried, unclear atomic.Int64
	verdicts := sync.Map{}
	for i := range 2 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			for int(tried.Load()) < want && !t.Failed() {
				rapid.Check(t, func(rt *rapid.T) {
					if int(tried.Load()) >= want && !rt.Failed() && !t.Failed() {
						return
					}
					programs := rapid.SliceOfN(program(), 32, 32).Draw(rt, "programs") // side by side
					wrong := make([]string, len(programs))
					var wg sync.WaitGroup
					for i, program := range programs {
						expected, err := oracle.Expect(program, randomTimeout)
						if err != nil {
							unclear.Add(1)
							continue
						}
						verdicts.Store(expected.Verdict, program)
						tried.Add(1)
						wg.Add(1)
						go func() {
							defer wg.Done()
							if wrong[i] = disagreement(t, program, 1); wrong[i] != "" {
								// On a busy machine what comes first may come late. With more
								// time for everything only a true disagreement stays.
								wrong[i] = disagreement(t, program, 8)
							}
						}()
					}
					wg.Wait()
					for i, program := range programs {
						if wrong[i] != "" {
							rt.Fatalf("podstart -fake '%s' alpha\n%s", strings.ReplaceAll(program, "'", "''"), wrong[i])
						}
					}
				})
			}
		})
	}
	t.Cleanup(func() {
		all := map[any]any{}
		verdicts.Range(func(verdict, program any) bool { all[verdict] = program; return true })
		t.Logf("%d programs, %d more without a single outcome; of each verdict one: %q", tried.Load(), unclear.Load(), all)
	})
}

const randomTimeout = 1200 * time.Millisecond

// disagreement starts a pod that acts a program out, at a pace, and says in what
// its start ends otherwise than expected; "" in nothing.
func disagreement(t *testing.T, program string, pace int) string {
	timeout := time.Duration(pace) * randomTimeout
	program = strings.ReplaceAll(program, "sleep 300ms", fmt.Sprintf("sleep %dms", 300*pace))
	expected, err := oracle.Expect(program, timeout)
	if err != nil {
		return err.Error()
	}
	dir, err := os.MkdirTemp("", "spawn")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(dir)
	defer killBelow(dir) // what is in a session of its own
	cfg := fakeIn(dir, program)
	cfg.ReadyTimeout = timeout
	if expected.Verdict != oracle.TimedOut {
		cfg.ReadyTimeout = patience // it does not come to that
	}
	pod, err := spawn.Start(context.Background(), cfg)
	if pod != nil {
		defer func() {
			_ = pod.Signal(syscall.SIGKILL)
			waitDone(t, pod)
		}()
	}
	expected = expected.For("alpha", filepath.Join(dir, "run", "alpha"))
	if wrong := compare(expected, err); wrong != "" {
		return fmt.Sprintf("expected: %v\nconcluded: %v\nin short: %s", expected, err, wrong)
	}
	return ""
}

func compare(expected oracle.Outcome, err error) string {
	if (expected.Verdict == oracle.Ready) != (err == nil) {
		return "whether it becomes ready"
	}
	if err == nil {
		return ""
	}
	var e *spawn.Error
	verdict := map[oracle.Verdict]string{
		oracle.Exited: "exited early", oracle.Malformed: "malformed ready line", oracle.WrongName: "wrong name",
		oracle.TimedOut: "timed out", oracle.SocketError: "socket error",
	}[expected.Verdict]
	switch {
	case !errors.As(err, &e) || e.Verdict != verdict:
		return "the verdict"
	case e.Status != expected.Status:
		return "the status: " + e.Status
	case e.Missing != expected.Missing || e.Why != expected.Why:
		return fmt.Sprintf("what is missing: %s (%s)", e.Missing, e.Why)
	case expected.Name != "" && !strings.Contains(e.Error(), strconv.Quote(expected.Name)):
		return "the name in the message"
	case expected.Socket != "" && e.SocketPath != expected.Socket:
		return "the socket: " + e.SocketPath
	}
	if len(e.Tail) != len(expected.Tail) {
		return fmt.Sprintf("the tail: %.60q, not %.60q", e.Tail, expected.Tail)
	}
	for i, want := range append(expected.Tail, expected.Unfinished) {
		line, end := append(e.Tail, e.Unfinished)[i], "$"
		if len(want) > 32<<10 { // where it is cut depends on how long the names are
			want, end = want[:1000], ""
		}
		pattern := regexp.MustCompile(`\\\{(pid|clock)\\\}`).ReplaceAllString(regexp.QuoteMeta(want), `[0-9]+`)
		if !regexp.MustCompile("(?s)^" + pattern + end).MatchString(line) {
			return fmt.Sprintf("line %d of the tail: %.60q, not %.60q", i, line, want)
		}
	}
	return ""
}

// killBelow kills the processes whose workspace a directory is.
func killBelow(dir string) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, _ := os.ReadFile(path)
		if strings.Contains(string(line), "\x00--workspace\x00"+dir+"\x00") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}
