package scripts

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	held   *os.File   // see hold
	mu     sync.Mutex // held while a signal is sent
	grace  time.Duration
	sig    os.Signal
	killed bool // it did not stop by itself
}

// startAndExit is the parent of an orphan: it reads a spawn.Config as JSON from
// stdin, and prints the orphan as JSON, or the error. It exits at the end of
// stdin: until then no other process can have the orphan's number.
func startAndExit() {
	var cfg spawn.Config
	err := json.NewDecoder(os.Stdin).Decode(&cfg)
	if err == nil {
		var pod *spawn.Pod
		if pod, err = spawn.Start(context.Background(), cfg); err == nil {
			err = handOver(pod)
		}
	}
	// Not os.Exit: in a binary that measures coverage that writes to stderr.
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	syscall.Exit(0)
}

// handOver returns when the orphan is held, or nobody wants it any more.
func handOver(pod *spawn.Pod) error {
	if err := json.NewEncoder(os.Stdout).Encode(orphan{Name: pod.Name, PID: pod.PID, SocketPath: pod.SocketPath}); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	select {
	case <-pod.Done(): // and its number was free
		return fmt.Errorf("pod %s ended as soon as it was ready", pod.Name)
	default:
		return nil
	}
}

// startOrphan starts a pod from a process of its own, which has exited when
// this returns. The pod is killed at the end of the script.
func startOrphan(tb *scriptTB, cfg harness.Config) (*orphan, error) {
	sc, err := harness.SpawnConfig(tb, cfg)
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
	o := &orphan{grace: cfg.StopGrace, sig: cmp.Or[os.Signal](cfg.StopSignal, syscall.SIGINT)}
	ctx, cancel := context.WithTimeout(context.Background(), sc.ReadyTimeout+harness.DefaultStopGrace)
	defer cancel()
	if err := o.start(ctx, harness.MarkEntry(tb), input); err != nil {
		return nil, err
	}
	tb.Cleanup(func() {
		if err := o.Kill(); err != nil {
			tb.Errorf("%v", err)
		}
		o.held.Close()
	})
	return o, nil
}

// start runs the orphan's parent, which is marked as the orphan is, so that the
// watchdog finds one that is about to fork.
func (o *orphan) start(ctx context.Context, mark string, input []byte) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	parent := exec.CommandContext(ctx, self, orphanMarker)
	parent.Env = append(os.Environ(), mark)
	var stderr bytes.Buffer
	parent.Stderr = &stderr
	stdin, stdinErr := parent.StdinPipe()
	stdout, stdoutErr := parent.StdoutPipe()
	if err = cmp.Or(stdinErr, stdoutErr); err == nil {
		err = parent.Start()
	}
	if err != nil {
		return err
	}
	_, err = stdin.Write(input)
	if err == nil {
		err = json.NewDecoder(stdout).Decode(o)
	}
	if err == nil {
		o.held, err = hold(o.PID)
	}
	stdin.Close()
	if waitErr := parent.Wait(); waitErr != nil {
		o.held.Close()
		if stderr.Len() > 0 {
			return errors.New(strings.TrimSpace(stderr.String()))
		}
		err = waitErr
	}
	if err != nil {
		return fmt.Errorf("start a pod from a process that exits: %w", err)
	}
	return nil
}

func (o *orphan) child() *harness.Pod { return nil }
func (o *orphan) socket() string      { return o.SocketPath }
func (o *orphan) alive() bool         { return !o.endsWithin(0) }

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
	if o.endsWithin(o.grace) {
		return nil
	}
	o.killed = true
	return o.Kill()
}

func (o *orphan) Kill() error {
	if err := o.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	if !o.endsWithin(harness.DefaultStopGrace) {
		return fmt.Errorf("pod %s: process %d is still there %v after SIGKILL", o.Name, o.PID, harness.DefaultStopGrace)
	}
	return nil
}

func (o *orphan) wait(timeout time.Duration) (string, bool, error) {
	if !o.endsWithin(timeout) {
		return "", false, fmt.Errorf("pod %s did not end within %v", o.Name, timeout)
	}
	return o.end(), true, nil
}
