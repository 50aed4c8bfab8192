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
	// Foreign is a case that another shard reports: it only runs for one that needs it.
	Foreign bool
	// Run runs the case and returns its checks; nil = nothing is reported. It may call
	// idle once the case only waits: another case then takes its place.
	Run func(idle func()) []Check

	done   chan struct{} // closed when the case has ended
	ended  bool          // the rest is known; Report.mu guards it
	took   time.Duration
	checks []Check
}

// Run runs cases side by side, -parallel of them at once, and reports each as it ends.
// It returns when all have ended, when ctx is done, or when SIGINT or SIGTERM arrives: see
// Report.Interrupted. The error names the cases that still ran.
func (r *Report) Run(ctx context.Context, cases []*Case) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	slots := make(chan struct{}, r.Parallel)
	r.order = cases
	for _, c := range cases {
		if err := r.forget(c.Name); err != nil {
			return err
		}
		c.done = make(chan struct{})
	}
	for _, c := range cases {
		go r.runCase(c, slots)
	}
	interrupted := false
	for _, c := range cases {
		for ended := false; !ended; {
			select {
			case <-c.done:
				ended = true
			case <-ctx.Done():
				return r.giveUp(context.Cause(ctx))
			case <-signals:
				if interrupted || r.Interrupted == nil {
					return r.giveUp(ErrInterrupted)
				}
				interrupted = true
				r.Interrupted()
			}
		}
	}
	if interrupted {
		return ErrInterrupted
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
		r.end(c, checks, time.Since(begin))
	}
}

// end notes a case that has ended, and prints those that no case before them keeps back.
func (r *Report) end(c *Case, checks []Check, took time.Duration) {
	for i, c := range checks {
		checks[i].Seconds = cmp.Or(c.Seconds, took.Seconds())
		if checks[i].Known = r.Accepted(c); checks[i].Known != "" {
			checks[i].Result = Known
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = slices.DeleteFunc(r.running, func(n string) bool { return n == c.Name })
	if r.over {
		return
	}
	c.ended, c.took, c.checks = true, took, checks
	if checks != nil {
		r.ended++
	}
	r.clearProgress()
	r.printEnded(false)
	if r.progress != nil && r.ended < r.total {
		fmt.Fprintf(r.progress, "%d of %d cases", r.ended, r.total)
	}
}

// printEnded prints the cases that have ended, in the order of the list: up to the first
// that still runs, or all.
func (r *Report) printEnded(all bool) {
	for len(r.order) > 0 && (all || r.order[0].ended) {
		c := r.order[0]
		r.order = r.order[1:]
		r.results.Checks = append(r.results.Checks, c.checks...)
		if c.checks != nil {
			r.print(c.Name, c.took, c.checks)
		}
	}
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
	left := r.order
	r.printEnded(true)
	for _, c := range left {
		when := " before it began"
		if slices.Contains(r.running, c.Name) {
			when = " while it ran"
		}
		if !c.ended && !c.Foreign {
			r.results.Checks = append(r.results.Checks, Check{Case: c.Name, Requirement: c.Name, Level: Must, Result: Error, Why: err.Error() + when})
		}
	}
	return fmt.Errorf("%w while these cases ran: %s", err, strings.Join(r.running, ", "))
}
