package conformance

import (
	"cmp"
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
	signalled, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	slots := make(chan struct{}, r.Parallel)
	for _, c := range cases {
		c.done = make(chan struct{})
	}
	for _, c := range cases {
		go r.runCase(c, slots)
	}
	for _, c := range cases {
		select {
		case <-c.done:
		case <-signalled.Done():
			return r.giveUp(cmp.Or(context.Cause(ctx), ErrInterrupted))
		}
	}
	return context.Cause(ctx)
}

func (r *Report) runCase(c *Case, slots chan struct{}) {
	defer close(c.done)
	if c.After != nil {
		<-c.After.done
	}
	slots <- struct{}{}
	idle := sync.OnceFunc(func() { <-slots })
	defer idle()
	r.mu.Lock()
	over := r.over
	r.running = append(r.running, c.Name)
	r.mu.Unlock()
	if !over {
		begin := time.Now()
		checks := c.Run(idle)
		r.end(c.Name, checks, time.Since(begin))
	}
}

// end prints a case that has ended.
func (r *Report) end(name string, checks []Check, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = slices.DeleteFunc(r.running, func(n string) bool { return n == name })
	if r.over || checks == nil {
		return
	}
	for i := range checks {
		checks[i].Seconds = cmp.Or(checks[i].Seconds, took.Seconds())
	}
	r.ended++
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
