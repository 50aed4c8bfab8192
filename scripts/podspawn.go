package scripts

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/options"
	"example.com/podharness/spawn/podspawn"
)

// podspawnArg, as its first argument, makes the binary in which scripts run the command podspawn.
const podspawnArg = "podharness-podspawn"

func (c *call) spawn() error {
	flags, err := c.underTest()
	if err != nil {
		return err
	}
	flags = slices.Concat(flags, c.args)
	podspawn := reexec.Command(podspawnArg, flags...)
	if slices.ContainsFunc(flags, faultFlag.MatchString) {
		podspawn = reexec.Command(attendedArg, flags...)
		if t, ok := c.tb.t.(interface{ Struck() }); ok {
			t.Struck() // perhaps: it is not seen from here
		}
	}
	err = c.ts.Exec(podspawn.Path, podspawn.Args[1:]...)
	// What a verb writes stands in their place: it would be judge's word alone.
	c.printOut(c.ts.ReadFile("stdout"))
	said := c.ts.ReadFile("stderr")
	c.printErr(said)
	if reason := lastMessage.FindAllString(said, -1); err != nil && !c.neg && reason != nil {
		return fmt.Errorf("%s\n\t%w", reason[len(reason)-1], err)
	}
	return err
}

// attendedArg, as its first argument, makes the binary one that runs podspawn for a pod with
// faults. That podspawn goes on until the pod has ended, and this process until the start has.
const attendedArg = "podharness-podspawn-attended"

// attend runs podspawn until the pod is ready, or else until podspawn has ended.
func attend(args []string) (status int, err error) {
	podspawn := reexec.Command(podspawnArg, args...)
	stdout, err := podspawn.StdoutPipe()
	if err != nil {
		return 1, err
	}
	stderr, err := os.CreateTemp("", "podspawn-") // it goes on to write there
	if err != nil {
		return 1, err
	}
	defer stderr.Close()
	podspawn.Stderr = stderr
	if err := errors.Join(os.Remove(stderr.Name()), podspawn.Start()); err != nil {
		return 1, err
	}
	// It prints its report at once, and that of a pod that is ready is the last of its output.
	const most = 64 << 10
	report := make([]byte, most)
	n, _ := stdout.Read(report)
	var told struct {
		Verdict string `json:"verdict"` // with -json
	}
	isJSON := json.Unmarshal(report[:n], &told) == nil
	failed := n == 0 || isJSON && told.Verdict != "ready"
	if failed {
		_ = podspawn.Wait()
		status = podspawn.ProcessState.ExitCode()
	}
	_, err = os.Stdout.Write(report[:n])
	said, readErr := io.ReadAll(io.NewSectionReader(stderr, 0, math.MaxInt64))
	_, writeErr := os.Stderr.Write(said)
	return status, errors.Join(err, readErr, writeErr)
}

// lastMessage matches the lines of an output that are not indented: the last one is the
// reason of a program that has failed.
var lastMessage = regexp.MustCompile(`(?m)^\S.*$`)

var (
	podFlag   = regexp.MustCompile("^--?pod(=|$)")
	faultFlag = regexp.MustCompile("^--?fault(=|$)")
)

// underTest returns the flags by which podspawn starts the pod under test as podstart
// does; none if it starts another one.
func (c *call) underTest() (flags []string, err error) {
	n := len(c.args)
	if c.otherCommand || n == 0 || strings.HasPrefix(c.args[n-1], "-") || slices.ContainsFunc(c.args, podFlag.MatchString) {
		return nil, nil
	}
	cfg := c.options.Pod
	sc := spawn.Config{PodName: c.args[n-1], WorkspaceRoot: cfg.Workspace, Env: slices.Concat(c.options.Env, cfg.Env), ReadyTimeout: cmp.Or(cfg.ReadyTimeout, spawn.DefaultReadyTimeout)}
	options.Of(cfg).To(&sc)
	if sc.Command, err = c.command(); err != nil {
		return nil, err
	}
	env := len(sc.Env) > 0
	if sc, err = c.tb.box.Prepare(sc, cfg.WorkspaceFrom, cfg.HomeFrom); err != nil {
		return nil, err
	}
	if env {
		sc.Command = spawn.Command{Program: "env", PrefixArgs: slices.Concat(sc.Env, []string{reexec.RunningHere(sc.Command.Program)}, sc.Command.PrefixArgs)}
	}
	all := flag.NewFlagSet("", flag.ContinueOnError)
	sc.Flags(all)
	all.VisitAll(func(f *flag.Flag) {
		if value := f.Value.String(); value != "" { // those that are repeatable tell none
			flags = append(flags, "-"+f.Name, value)
		}
	})
	var faults []string
	for _, f := range sc.Faults {
		if f.Look != nil {
			return nil, fatalError{error: fmt.Errorf("the fault %s has a Look, which podspawn, a process of its own, cannot call: start the pod with podstart", f), kit: true}
		}
		faults = append(faults, f.String())
	}
	for name, args := range map[string][]string{"-pod-arg": sc.Command.PrefixArgs, "-extra-arg": sc.ExtraArgs, "-fault": faults} {
		for _, arg := range args {
			flags = append(flags, name, arg)
		}
	}
	return flags, nil
}

func (c *call) adopt() error {
	p, err := harness.TryAdopt(c.tb, c.args[0], c.timeout)
	if err == nil {
		c.keep(p)
	}
	return err
}

func init() {
	reexec.Register(podspawnArg, func(args []string) int { return podspawn.Main(args, os.Stdout, os.Stderr) })
	reexec.Register(attendedArg, func(args []string) int {
		status, err := attend(args)
		if err != nil {
			fmt.Fprintln(os.Stderr, "podspawn:", err)
		}
		return status
	})
}
