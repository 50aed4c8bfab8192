//go:build !portable && (amd64 || arm64)

package harness_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn/fault"
)

// These are the examples for people: ten lines each.

func TestExampleOfAFullDiskAtTheStart(t *testing.T) {
	t.Parallel()
	needFaults(t)
	full := fault.Fault{Calls: "write", Path: "{runtime}/{name}/status.json*", Error: syscall.ENOSPC}
	_, err := harness.TryStartPod(t, harness.Config{Faults: []fault.Fault{full}})
	if !strings.Contains(fmt.Sprint(err), "no space left on device") { // the pod says why it ends
		t.Errorf("a start on a full disk: %v", err)
	}
}

func TestExampleOfACrashInTheMiddleOfASave(t *testing.T) {
	t.Parallel()
	needFaults(t)
	pod := harness.StartPod(t, harness.Config{Faults: []fault.Fault{{Calls: "rename", Later: true}}})
	pod.Fail(fault.Fault{Calls: "rename", Path: "{runtime}/{name}/status.json", Signal: syscall.SIGKILL})
	_, _ = pod.TrySend(`{"method":"run","params":{"program":"ready {name}"}}`, time.Second) // has it save
	pod.Wait(time.Second)
	pod = pod.Restart() // without the fault
	pod.SendFor(`{"method":"ping"}`, `"pong"`, time.Second)
}
