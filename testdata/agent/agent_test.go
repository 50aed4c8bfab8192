// The suite of an agent as its authors would write it. It has no helpers: what a test needs
// beside the types of the agent's protocol, package harness has.
package agent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/google/uuid"
)

const soon = 5 * time.Second

// A job is an event about one.
type job struct {
	Event string
	Data  struct{ ID, Kind, State, Result, Error string }
}

// A status is a snapshot, or the answer to a request for one.
type status struct {
	Event string
	Data  struct {
		PID, Workers, Queued, Running, Done int
		Session, Motto                      string
		Notes                               map[string]string
	}
}

func TestMain(m *testing.M) { harness.Main(m) }

func TestSnapshot(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	var s status
	if err := json.Unmarshal([]byte(pod.Talk(soon).Snapshot()), &s); err != nil || s.Data.PID != pod.PID || s.Data.Session == "" {
		t.Fatalf("%+v, %v", s, err)
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	pod.SendFor(`{"method":"ping"}`, `"pong"`, soon)
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	for line, want := range map[string]string{
		`no JSON`:              "no object of JSON",
		`[]`:                   "no object of JSON",
		`{"method":"nothing"}`: "unknown method",
		`{"method":"submit","params":{"id":"bad","kind":"nothing"}}`: "job bad: no kind",
		`{"method":"submit","params":{"kind":"echo"}}`:               "an id is needed",
		`{"method":"submit","params":[]}`:                            "cannot unmarshal array",
		`{"method":"cancel","params":{"id":"nobody"}}`:               "no job",
		`{"method":"note"}`:                                          "a note needs a key",
	} {
		pod.SendFor(line, `^{"event":"error","data":".*`+want, soon)
	}
}

func TestJobIsDone(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"submit","params":{"id":"sum","kind":"sum","text":"agent"}}`)
	sum := harness.WaitJSON(talk, func(j job) bool { return j.Data.ID == "sum" && j.Data.State == "done" }, soon)
	if sum.Data.Result != "d4f0bc5a29de06b510f9aa428f1eedba926012b591fef7a518e776a7c9bd1824" {
		t.Error(sum)
	}
}

func TestJobFails(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"submit","params":{"id":"fails","kind":"sh","text":"echo no; exit 3"}}`)
	fails := harness.WaitJSON(talk, func(j job) bool { return j.Data.ID == "fails" && j.Data.State == "failed" }, soon)
	if fails.Data.Result != "no" || fails.Data.Error != "exit status 3" {
		t.Error(fails)
	}
}

func TestSecondJobOfAnIDIsRefused(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	pod.SendFor(`{"method":"submit","params":{"id":"twice","kind":"sleep","text":"1h"}}`, `"id":"twice".*"running"`, soon)
	pod.SendFor(`{"method":"submit","params":{"id":"twice","kind":"echo"}}`, `"error".*twice`, soon)
}

func TestAllClientsAreTold(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	one, other := pod.Talk(soon), pod.Talk(soon)
	one.Snapshot()
	other.Snapshot()
	one.Write(`{"method":"submit","params":{"id":"told","kind":"echo"}}`)
	for _, talk := range []*harness.Talk{one, other} {
		talk.WaitLine(`"id":"told".*"running"`, soon)
		talk.WaitLine(`"id":"told".*"done"`, soon)
	}
}

func TestMutedClientIsNotTold(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"mute"}`)
	talk.WaitLine(`"muted"`, soon)
	pod.SendFor(`{"method":"submit","params":{"id":"secret","kind":"echo"}}`, `"id":"secret".*"done"`, soon)
	talk.Quiet(100 * time.Millisecond)
}

func TestLongText(t *testing.T) {
	t.Parallel()
	pod := harness.Shared(t, "agent", harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	talk, text := pod.Talk(soon), strings.Repeat("x", 1<<20)
	talk.Write(`{"method":"submit","params":{"id":"long","kind":"echo","text":"` + text + `"}}`)
	long := harness.WaitJSON(talk, func(j job) bool { return j.Data.ID == "long" && j.Data.State == "done" }, soon)
	if long.Data.Result != text {
		t.Errorf("%d bytes came back", len(long.Data.Result))
	}
}

func TestTwoJobsRunAtOnce(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"submit","params":{"id":"a","kind":"sleep","text":"200ms"}}`)
	talk.Write(`{"method":"submit","params":{"id":"b","kind":"sleep","text":"200ms"}}`)
	for range 2 {
		talk.WaitLine(`"running"`, soon)
	}
	for range 2 {
		talk.WaitLine(`"done"`, soon)
	}
	talk.Write(`{"method":"status"}`)
	if s := harness.WaitJSON(talk, func(s status) bool { return s.Event == "status" }, soon); s.Data.Done != 2 {
		t.Error(s)
	}
}

func TestManyClients(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	var talks [50]*harness.Talk
	for i := range talks {
		talks[i] = pod.Talk(soon)
		talks[i].Snapshot()
	}
	for i, talk := range talks {
		talk.Write(fmt.Sprintf(`{"method":"submit","params":{"id":"of-%d","kind":"echo"}}`, i))
	}
	for i, talk := range talks {
		talk.WaitLine(fmt.Sprintf(`"id":"of-%d".*"done"`, len(talks)-1-i), soon)
	}
}

func TestSilentClientHoldsUpNobody(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	pod.Dial() // and it reads nothing
	text := strings.Repeat("x", 100<<10)
	for i := range 20 {
		pod.SendFor(fmt.Sprintf(`{"method":"submit","params":{"id":"%d","kind":"echo","text":%q}}`, i, text), fmt.Sprintf(`"id":"%d".*"done"`, i), soon)
	}
}

func TestJobRunsInTheWorkspace(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{
		Command:       spawn.Command{Program: harness.Build(t, "./cmd/agent")},
		WorkspaceFrom: fstest.MapFS{"note": {Data: []byte("hello\n")}},
	})
	pod.SendFor(`{"method":"submit","params":{"id":"cat","kind":"sh","text":"cat note"}}`, `"id":"cat".*"state":"done","result":"hello"`, soon)
}

func TestOneWorkerRunsOneJobAtATime(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{
		Command:       spawn.Command{Program: harness.Build(t, "./cmd/agent")},
		WorkspaceFrom: fstest.MapFS{"agent.json": {Data: []byte(`{"workers":1}`)}},
	})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"submit","params":{"id":"a","kind":"sleep","text":"50ms"}}`)
	talk.Write(`{"method":"submit","params":{"id":"b","kind":"echo"}}`)
	talk.Write(`{"method":"status"}`)
	if s := harness.WaitJSON(talk, func(s status) bool { return s.Event == "status" }, soon); s.Data.Running != 1 || s.Data.Queued != 1 {
		t.Error(s)
	}
	for _, pattern := range []string{`"id":"a".*"done"`, `"id":"b".*"running"`, `"id":"b".*"done"`} {
		talk.WaitLine(pattern, soon)
	}
	talk.Quiet(100 * time.Millisecond)
}

func TestQueuedJobIsCancelled(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{
		Command:       spawn.Command{Program: harness.Build(t, "./cmd/agent")},
		WorkspaceFrom: fstest.MapFS{"agent.json": {Data: []byte(`{"workers":1}`)}},
	})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"submit","params":{"id":"runs","kind":"sleep","text":"1h"}}`)
	talk.Write(`{"method":"submit","params":{"id":"waits","kind":"echo"}}`)
	talk.Write(`{"method":"cancel","params":{"id":"waits"}}`)
	talk.WaitLine(`"id":"waits".*"cancelled"`, soon)
	pod.SendFor(`{"method":"ping"}`, `"pong"`, soon)
}

func TestRunningJobIsCancelled(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"submit","params":{"id":"runs","kind":"sh","text":"sleep 300; true"}}`)
	talk.WaitLine(`"id":"runs".*"running"`, soon)
	talk.Write(`{"method":"cancel","params":{"id":"runs"}}`)
	talk.WaitLine(`"id":"runs".*"cancelled"`, soon)
}

func TestReload(t *testing.T) {
	t.Parallel()
	workspace := t.TempDir()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}, Workspace: workspace})
	talk, from := pod.Talk(soon), pod.LogEnd()
	talk.Snapshot()
	if err := os.WriteFile(workspace+"/agent.json", []byte(`{"workers":3,"motto":"go on"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = pod.Signal(syscall.SIGHUP)
	pod.WaitLogAfter(from, "^agent: reloaded: 3 workers$", soon)
	talk.WaitLine(`"config".*"go on"`, soon)
}

func TestBadConfigIsNotTaken(t *testing.T) {
	t.Parallel()
	workspace := t.TempDir()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}, Workspace: workspace})
	if err := os.WriteFile(workspace+"/agent.json", []byte(`{"workers":0}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = pod.Signal(syscall.SIGHUP)
	pod.WaitLog("could not reload: agent.json: 0 workers", soon)
	pod.SendFor(`{"method":"status"}`, `"status".*"workers":2`, soon)
	pod.NoLog(0, "reloaded|panic")
}

func TestStartWithABadConfig(t *testing.T) {
	t.Parallel()
	_, err := harness.TryStartPod(t, harness.Config{
		Command:       spawn.Command{Program: harness.Build(t, "./cmd/agent")},
		WorkspaceFrom: fstest.MapFS{"agent.json": {Data: []byte(`{`)}},
	})
	if !errors.Is(err, spawn.ErrExited) || !strings.Contains(err.Error(), "agent: agent.json: unexpected end of JSON") {
		t.Fatal(err)
	}
}

func TestUnknownFlagIsRefused(t *testing.T) {
	t.Parallel()
	_, err := harness.TryStartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}, ExtraArgs: []string{"--nonsense"}})
	if !errors.Is(err, spawn.ErrExited) || !strings.Contains(err.Error(), "exit status 2") {
		t.Fatal(err)
	}
}

func TestNotesOutliveARestart(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	pod.SendFor(`{"method":"note","params":{"key":"k","value":"v"}}`, `"noted"`, soon)
	pod.Restart().SendFor(`{"method":"status"}`, `"status".*"notes":{"k":"v"}`, soon)
}

func TestNotesOutliveAKill(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	pod.SendFor(`{"method":"note","params":{"key":"k","value":"v"}}`, `"noted"`, soon)
	if err := pod.Kill(); err != nil {
		t.Fatal(err)
	}
	pod.Restart().SendFor(`{"method":"status"}`, `"status".*"notes":{"k":"v"}`, soon)
}

func TestSessionIsResumed(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	talk := pod.Talk(soon)
	talk.Write(`{"method":"note","params":{"key":"k","value":"v"}}`)
	talk.Write(`{"method":"status"}`)
	session := uuid.MustParse(harness.WaitJSON(talk, func(s status) bool { return s.Event == "status" }, soon).Data.Session)
	_ = pod.Stop() // an error of it fails the test
	resumed := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}, ResumeFrom: &session})
	resumed.SendFor(`{"method":"status"}`, `"status".*"notes":{"k":"v"}`, soon)
}

func TestUnknownSessionIsRefused(t *testing.T) {
	t.Parallel()
	_, err := harness.TryStartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}, ResumeFrom: &uuid.Max})
	if !errors.Is(err, spawn.ErrExited) || !strings.Contains(err.Error(), "is not stored") {
		t.Fatal(err)
	}
}

func TestStopsWhileAJobRuns(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}, MustStopGracefully: true})
	pod.SendFor(`{"method":"submit","params":{"id":"runs","kind":"sh","text":"sleep 300; true"}}`, `"id":"runs".*"running"`, soon)
} // The end of a test stops its pod, and finds what that leaves behind.

func TestStopsBesideAClient(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}, MustStopGracefully: true})
	talk := pod.Talk(soon)
	talk.Snapshot()
	_ = pod.Stop() // an error of it fails the test
	if _, err := talk.TryReceive(); !errors.Is(err, harness.ErrEnded) {
		t.Error(err)
	}
}

func TestShutdownRequest(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	pod.Talk(soon).Write(`{"method":"shutdown"}`)
	if state := pod.Wait(soon); !state.Success() {
		t.Error(state)
	}
}

func TestHangIsATimeout(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	pod.Suspend()
	if _, err := pod.TrySendFor(`{"method":"ping"}`, `"pong"`, 50*time.Millisecond); !errors.Is(err, harness.ErrTimedOut) {
		t.Error(err)
	}
	pod.Resume()
	pod.SendFor(`{"method":"ping"}`, `"pong"`, soon)
}

func TestMemoryAndDescriptorsAreGivenBack(t *testing.T) {
	t.Parallel()
	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
	before, err := pod.Usage()
	if err != nil {
		t.Skip(err)
	}
	text := strings.Repeat("x", 64<<10)
	for i := range 100 {
		pod.SendFor(fmt.Sprintf(`{"method":"submit","params":{"id":"%d","kind":"sum","text":%q}}`, i, text), fmt.Sprintf(`"id":"%d".*"done"`, i), soon)
	}
	after, err := pod.Usage()
	if grown := (after.RSS - before.RSS) >> 20; err != nil || grown > 40 {
		t.Errorf("it has grown by %d MiB in 100 jobs: %+v, %v", grown, after, err)
	}
	if after.Descriptors > before.Descriptors+10 {
		t.Errorf("it had %d descriptors, and has %d", before.Descriptors, after.Descriptors)
	}
}
