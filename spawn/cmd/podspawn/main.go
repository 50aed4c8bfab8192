// Podspawn starts one pod by the real handshake and tells how that ended. The
// pod lives on; a pod that did not become ready is gone.
//
//	podspawn -pod /usr/local/bin/agent -pod-arg pod alpha
//
// What the pod logs before it is ready goes to stderr. Once it is ready, its
// process, socket and log go to stdout. The exit status is 0 for a ready pod,
// 1 for any other verdict and 2 for wrong usage.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"example.com/podharness/spawn"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage: podspawn [flags] NAME

Starts the pod NAME and waits until it is ready. The pod lives on afterwards:
kill -INT its process to stop it. Without -pod its program is that of
$` + spawn.RuntimeCommandEnv + `, with the prefix argument pod.

`

func run(args []string, stdout, stderr io.Writer) int {
	fail := func(status int, err error) int {
		fmt.Fprintf(stderr, "podspawn: %v\n", err)
		return status
	}
	cfg, asJSON, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return fail(2, fmt.Errorf("%w (podspawn -help tells the usage)", err))
	}
	cfg.Progress = func(line string) { fmt.Fprintf(stderr, "%s: %s\n", cfg.PodName, spawn.Printable(line)) }
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pod, err := spawn.Start(ctx, cfg)
	switch {
	case errors.Is(err, spawn.ErrInvalidConfig):
		return fail(2, err)
	case err != nil:
		return fail(1, err)
	}
	if err := report(stdout, pod, asJSON); err != nil {
		return fail(1, err)
	}
	return 0
}

// parse returns the pod to start; usage goes to stderr if it is asked for.
func parse(args []string, stderr io.Writer) (cfg spawn.Config, asJSON bool, err error) {
	flags := flag.NewFlagSet("podspawn", flag.ContinueOnError)
	cfg.WorkspaceRoot = "."
	cfg.Flags(flags)
	flags.BoolVar(&asJSON, "json", false, "print the ready pod as one line of JSON")
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usage)
			flags.SetOutput(stderr)
			flags.PrintDefaults()
		}
		return cfg, false, err
	}
	if flags.NArg() != 1 {
		return cfg, false, fmt.Errorf("want one pod name, got %q", flags.Args())
	}
	cfg.PodName = flags.Arg(0)
	if cfg.Command.Program != "" {
		return cfg, asJSON, nil
	}
	if os.Getenv(spawn.RuntimeCommandEnv) == "" {
		return cfg, false, fmt.Errorf("which pod? Give -pod PROGRAM or set %s", spawn.RuntimeCommandEnv)
	}
	command, err := spawn.ResolveCommand()
	command.PrefixArgs = slices.Concat(command.PrefixArgs, cfg.Command.PrefixArgs)
	cfg.Command = command
	return cfg, asJSON, err
}

func report(stdout io.Writer, pod *spawn.Pod, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(stdout).Encode(map[string]any{
			"name": pod.Name, "pid": pod.PID, "socket": pod.SocketPath, "log": pod.LogPath,
			"ready_ms": float64(pod.Timeline.Connected) / float64(time.Millisecond),
		})
	}
	_, err := fmt.Fprintf(stdout, "pod %s is ready after %v\nprocess %d\nsocket  %s\nlog     %s\n",
		pod.Name, pod.Timeline.Connected.Round(time.Microsecond), pod.PID, pod.SocketPath, pod.LogPath)
	return err
}
