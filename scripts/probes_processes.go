package scripts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

func (x *prober) needProcesses() {
	if !proc.Proves {
		x.skipf("this system does not show what processes have open")
	}
}

// settles waits until a condition holds.
func (x *prober) settles(d time.Duration, holds func() bool) bool {
	for end := time.Now().Add(d); ; <-time.After(20 * time.Millisecond) { // nothing tells of it
		if holds() {
			return true
		}
		if time.Now().After(end) || time.Now().After(x.end) {
			return false
		}
	}
}

const visits = 150

func (x *prober) visitOften() error {
	for range visits {
		if err := x.visit(); err != nil {
			return err
		}
	}
	return nil
}

func (x *prober) descriptors() error {
	x.needProcesses()
	if err := x.serves("at first"); err != nil {
		return err
	}
	before := len(proc.Descriptors(x.pod.PID))
	if before == 0 {
		x.skipf("the descriptors of the pod cannot be looked at")
	}
	if err := x.visitOften(); err != nil {
		return err
	}
	const spare = 16
	now := 0
	if !x.settles(2*time.Second, func() bool { now = len(proc.Descriptors(x.pod.PID)); return now <= before+spare }) {
		return fmt.Errorf("it had %d descriptors open, and has %d after %d connections that have ended", before, now, visits)
	}
	return nil
}

// listener looks for other processes that hold the pod's listening socket.
func (x *prober) listener() error {
	x.needProcesses()
	if err := x.serves("at first"); err != nil {
		return err
	}
	var others []string
	for _, pid := range proc.Holders(x.pod.SocketPath) {
		if pid != x.pod.PID {
			others = append(others, fmt.Sprintf("process %d (%s)", pid, podlog.Printable(proc.Status(pid, "Name"))))
		}
	}
	if len(others) > 0 {
		return fmt.Errorf("its listening socket is open in %s, too: clients connect there when the pod has ended", strings.Join(others, ", "))
	}
	return nil
}

func (x *prober) idleCost() error {
	x.needProcesses()
	x.idle()
	const window, busy, most = time.Second, 5, 1024
	var cpu time.Duration
	var logged int64
	for range 3 { // it may have something to do at first
		size, used := x.pod.LogEnd(), proc.CPUTime(x.pod.PID)
		select {
		case <-time.After(window):
		case <-x.pod.Done():
			return errors.New("it has ended: " + end(x.pod))
		}
		_ = x.pod.Log()
		cpu, logged = proc.CPUTime(x.pod.PID)-used, x.pod.LogEnd()-size
		if cpu*100 < window*busy && logged < most {
			return nil
		}
	}
	return fmt.Errorf("idle, it used %v of CPU time and logged %d bytes in %v", cpu, logged, window)
}

func (x *prober) growth() error {
	x.needProcesses()
	memory := func() int {
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(proc.Status(x.pod.PID, "VmRSS")), " kB"))
		return kib
	}
	if err := x.serves("at first"); err != nil {
		return err
	}
	before := memory()
	if before == 0 {
		x.skipf("the memory of the pod cannot be looked at")
	}
	if err := x.visitOften(); err != nil {
		return err
	}
	const most = 40 << 10
	if now := memory(); now > before+most {
		return fmt.Errorf("its memory has grown from %d to %d MiB in %d connections", before>>10, now>>10, visits)
	}
	return nil
}
