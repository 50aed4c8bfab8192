package spawn

import (
	"bufio"
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
)

const podspawnUsage = `usage: podspawn [flags] NAME

Starts the pod NAME and waits until it is ready. The pod lives on afterwards:
kill -INT its process to stop it. Without -pod its program is that of
$` + RuntimeCommandEnv + `, with the prefix argument pod.

`

// Main is the command podspawn, with its arguments without the program's name: it
// starts one pod, and returns the exit status. It is there for that command, and
// for scripts, in which podspawn is a client.
func Main(args []string, stdout, stderr io.Writer) int {
	fail := func(status int, err error) int {
		fmt.Fprintf(stderr, "podspawn: %v\n", err)
		return status
	}
	cfg, asJSON, err := parseArgs(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return fail(2, fmt.Errorf("%w (podspawn -help tells the usage)", err))
	}
	// A write for each line of a flood would hold up the start.
	progress := bufio.NewWriterSize(stderr, 64<<10)
	cfg.Progress = func(line string) { fmt.Fprintf(progress, "%s: %s\n", cfg.PodName, Printable(line)) }
	// SIGPIPE: whoever read the progress has gone.
	signals := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // as by nohup
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	pod, err := startAlone(ctx, cfg, &Observer{idle: func() { _ = progress.Flush() }})
	_ = progress.Flush()
	switch {
	case errors.Is(err, ErrInvalidConfig):
		return fail(2, err)
	case err != nil:
		return fail(1, err)
	}
	if err := report(stdout, pod, asJSON); err != nil {
		return fail(1, err)
	}
	return 0
}

// parseArgs returns the pod to start; usage goes to stderr if it is asked for.
func parseArgs(args []string, stderr io.Writer) (cfg Config, asJSON bool, err error) {
	flags := flag.NewFlagSet("podspawn", flag.ContinueOnError)
	cfg.WorkspaceRoot = "."
	cfg.Flags(flags)
	flags.BoolVar(&asJSON, "json", false, "print the ready pod as one line of JSON")
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, podspawnUsage)
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
	if os.Getenv(RuntimeCommandEnv) == "" {
		return cfg, false, fmt.Errorf("which pod? Give -pod PROGRAM or set %s", RuntimeCommandEnv)
	}
	command, err := ResolveCommand()
	command.PrefixArgs = slices.Concat(command.PrefixArgs, cfg.Command.PrefixArgs)
	cfg.Command = command
	return cfg, asJSON, err
}

func report(stdout io.Writer, pod *Pod, asJSON bool) error {
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
