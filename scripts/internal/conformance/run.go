package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Case is what -run and -skip choose.
type Case struct {
	Name  string
	After *Case // the case that must have ended before this one begins; nil = none
	// Run runs the case and returns its checks; nil = nothing is reported. It may call
	// idle once the case only waits: another case then takes its place.
	Run func(idle func()) []Check

	done chan struct{} // closed when the case has ended
}

// Run runs cases side by side, -parallel of them at once, and reports each as it ends.
// It returns when all have ended, when ctx is done, or when SIGINT or SIGTERM arrives.
// In the last two cases the error names the cases that still ran.
func (r *Report) Run(ctx context.Context, cases []*Case) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	for _, c := range cases {
		c.done = make(chan struct{})
	}
	slots := make(chan struct{}, r.Parallel)
	var all sync.WaitGroup
	for _, c := range cases {
		all.Add(1)
		go func() {
			defer all.Done()
			r.runCase(c, slots)
		}()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	err := ErrInterrupted
	select {
	case <-done:
		return context.Cause(ctx)
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-signals:
	}
	return r.giveUp(err)
}

func (r *Report) runCase(c *Case, slots chan struct{}) {
	defer close(c.done)
	if c.After != nil {
		<-c.After.done
	}
	slots <- struct{}{}
	idle := sync.OnceFunc(func() { <-slots })
	defer idle()
	if !r.begin(c.Name) {
		return
	}
	begin := time.Now()
	checks := c.Run(idle)
	r.end(c.Name, time.Since(begin), checks)
}

// begin notes that a case runs. It returns false if the run was given up.
func (r *Report) begin(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over {
		r.running = append(r.running, name)
	}
	return !r.over
}

// end notes that a case has ended, and prints it.
func (r *Report) end(name string, took time.Duration, checks []Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = slices.DeleteFunc(r.running, func(n string) bool { return n == name })
	if r.over || checks == nil {
		return
	}
	r.ended++
	for i := range checks {
		if checks[i].Seconds == 0 {
			checks[i].Seconds = took.Seconds()
		}
	}
	r.checks = append(r.checks, checks...)
	r.print(name, took, checks)
}

// giveUp ends the report while cases run.
func (r *Report) giveUp(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.clearProgress()
	if errors.As(err, new(UsageError)) {
		return err
	}
	for _, name := range r.running {
		r.checks = append(r.checks, Check{Case: name, Requirement: name, Level: Must, Result: Skip, Why: err.Error() + " while it ran"})
	}
	return fmt.Errorf("%w while these cases ran: %s", err, strings.Join(r.running, ", "))
}
