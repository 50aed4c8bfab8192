package scripts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
)

// orphanMarker is the first argument of a process that starts a pod and exits:
// whatever binary the scripts run in starts itself again with it.
const orphanMarker = "podharness-start-and-exit"

func init() {
	if len(os.Args) == 2 && os.Args[1] == orphanMarker {
		startAndExit()
	}
}

// orphan is a pod whose parent has exited.
type orphan struct {
	Name       string
	PID        int
	SocketPath string

	mu     sync.Mutex // held while a signal is sent
	grace  time.Duration
	sig    syscall.Signal
	killed bool // it did not stop by itself
}

// startAndExit is the parent of an orphan: it reads a spawn.Config as JSON from
// stdin, and prints the orphan as JSON, or the error.
func startAndExit() {
	// Not os.Exit: in a binary that measures coverage that writes to stderr.
	var cfg spawn.Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(2)
	}
	pod, err := spawn.Start(context.Background(), cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(orphan{Name: pod.Name, PID: pod.PID, SocketPath: pod.SocketPath}); err != nil {
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// startOrphan starts a pod from a process of its own, which has exited when
// this returns. The pod is killed at the end of the script.
func startOrphan(tb *scriptTB, cfg harness.Config) (*orphan, error) {
	sc, err := harness.SpawnConfig(tb, cfg)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	input, err := json.Marshal(struct {
		spawn.Config
		Progress *int `json:",omitempty"` // a func has no JSON
	}{Config: sc})
	if err != nil {
		return nil, err
	}
	parent := exec.Command(self, orphanMarker)
	parent.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	parent.Stdout, parent.Stderr = &stdout, &stderr
	if err := parent.Run(); err != nil {
		if stderr.Len() == 0 {
			return nil, fmt.Errorf("start a pod from a process that exits: %w", err)
		}
		return nil, errors.New(strings.TrimSpace(stderr.String()))
	}
	o := &orphan{grace: cfg.StopGrace, sig: syscall.SIGINT}
	if err := json.Unmarshal(stdout.Bytes(), o); err != nil {
		return nil, fmt.Errorf("start a pod from a process that exits: %q: %w", stdout.String(), err)
	}
	if o.grace == 0 {
		o.grace = harness.DefaultStopGrace
	}
	if sig, ok := cfg.StopSignal.(syscall.Signal); ok {
		o.sig = sig
	}
	tb.Cleanup(func() {
		if err := o.Kill(); err != nil {
			tb.Errorf("%v", err)
		}
	})
	return o, nil
}

func (o *orphan) child() *harness.Pod { return nil }
func (o *orphan) socket() string      { return o.SocketPath }
func (o *orphan) alive() bool         { return !endsWithin(o.PID, 0) }

// end says less than of a child: only a parent is told the status.
func (o *orphan) end() string {
	if o.alive() {
		return "it still runs"
	}
	if o.killed {
		return fmt.Sprintf("it did not stop within %v and was killed", o.grace)
	}
	return "it has ended"
}

func (o *orphan) Signal(sig os.Signal) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	// The number is the pod's own only while that runs.
	if !o.alive() {
		return fmt.Errorf("pod %s: %w", o.Name, os.ErrProcessDone)
	}
	return syscall.Kill(-o.PID, sig.(syscall.Signal))
}

func (o *orphan) Stop() error {
	if err := o.Signal(o.sig); err != nil {
		return err
	}
	if endsWithin(o.PID, o.grace) {
		return nil
	}
	o.killed = true
	return o.Kill()
}

func (o *orphan) Kill() error {
	if err := o.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if !endsWithin(o.PID, harness.DefaultStopGrace) {
		return fmt.Errorf("pod %s: process %d is still there %v after SIGKILL", o.Name, o.PID, harness.DefaultStopGrace)
	}
	return nil
}

func (o *orphan) wait(timeout time.Duration) (string, bool, error) {
	if !endsWithin(o.PID, timeout) {
		return "", false, fmt.Errorf("pod %s did not end within %v", o.Name, timeout)
	}
	return o.end(), true, nil
}
