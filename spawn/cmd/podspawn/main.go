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
	"syscall"
	"time"

	"example.com/podharness/spawn"
	"github.com/google/uuid"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

const usage = `usage: podspawn [flags] NAME

Starts the pod NAME and waits until it is ready. The pod lives on afterwards:
kill -INT its process to stop it.

`

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("podspawn", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	var cfg spawn.Config
	program := flags.String("pod", "", "the pod's `program` (default: $"+spawn.RuntimeCommandEnv+" with the prefix argument pod)")
	flags.Func("pod-arg", "a prefix `argument` for the program; repeatable", func(arg string) error {
		cfg.Command.PrefixArgs = append(cfg.Command.PrefixArgs, arg)
		return nil
	})
	flags.StringVar(&cfg.WorkspaceRoot, "workspace", ".", "the pod's workspace `directory`")
	flags.StringVar(&cfg.Dir, "dir", "", "the pod's working `directory` (default: the workspace)")
	flags.StringVar(&cfg.Profile, "profile", "", "the pod's `profile`")
	flags.StringVar(&cfg.TicketRole, "ticket-role", "", "the pod's ticket `role`")
	flags.Func("session", "the `UUID` of the session to resume", func(s string) error {
		id, err := uuid.Parse(s)
		cfg.ResumeFrom = &id
		return err
	})
	flags.DurationVar(&cfg.ReadyTimeout, "timeout", spawn.DefaultReadyTimeout, "the `duration` that the pod may take to become ready")
	asJSON := flags.Bool("json", false, "print the ready pod as one line of JSON")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() != 1 {
		fmt.Fprintf(stderr, "podspawn: want one pod name, got %q\n", flags.Args())
		flags.Usage()
		return 2
	}
	cfg.PodName = flags.Arg(0)
	switch {
	case *program != "":
		cfg.Command.Program = *program
	case os.Getenv(spawn.RuntimeCommandEnv) == "":
		fmt.Fprintf(stderr, "podspawn: which pod? Give -pod PROGRAM or set %s\n", spawn.RuntimeCommandEnv)
		return 2
	default:
		command, err := spawn.ResolveCommand()
		if err != nil {
			fmt.Fprintf(stderr, "podspawn: %v\n", err)
			return 1
		}
		cfg.Command.Program = command.Program
		cfg.Command.PrefixArgs = append(command.PrefixArgs, cfg.Command.PrefixArgs...)
	}
	cfg.Progress = func(line string) { fmt.Fprintf(stderr, "%s: %s\n", cfg.PodName, spawn.Printable(line)) }

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	pod, err := spawn.Start(ctx, cfg)
	if err != nil {
		fmt.Fprintf(stderr, "podspawn: %v\n", err)
		if errors.Is(err, spawn.ErrInvalidConfig) {
			return 2
		}
		return 1
	}
	if *asJSON {
		return report(stderr, json.NewEncoder(stdout).Encode(map[string]any{
			"name": pod.Name, "pid": pod.PID, "socket": pod.SocketPath, "log": pod.LogPath,
			"ready_ms": float64(pod.Timeline.Connected) / float64(time.Millisecond),
		}))
	}
	_, err = fmt.Fprintf(stdout, "pod %s is ready after %v\nprocess %d\nsocket  %s\nlog     %s\n",
		pod.Name, pod.Timeline.Connected.Round(time.Microsecond), pod.PID, pod.SocketPath, pod.LogPath)
	return report(stderr, err)
}

func report(stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "podspawn: %v\n", err)
		return 1
	}
	return 0
}
