package agent_test

import (
	"testing"
	"time"

	"example.com/podharness/harness"
)

// Pods that tests share are stopped, and looked at, after the last one.
func TestMain(m *testing.M) { harness.Main(m) }

// agent returns the one pod of the suite: started by whichever test is first.
func agent(t *testing.T) *harness.Pod {
	return harness.Shared(t, "agent", harness.Config{})
}

func TestReloads(t *testing.T) {
	t.Parallel()
	pod := agent(t)
	talk := pod.Talk(5 * time.Second) // one connection for many lines
	for range 3 {
		from := pod.LogEnd() // of the lines after this one
		talk.Send(`{"method":"run","params":{"program":"log reloaded"}}`)
		pod.WaitLogAfter(from, "^reloaded$", time.Second)
	}
}

func TestComesBack(t *testing.T) {
	pod := harness.StartPod(t, harness.Config{}) // one of its own
	if err := pod.Kill(); err != nil {
		t.Fatal(err)
	}
	pod = pod.Restart()
	t.Run("and answers", func(t *testing.T) {
		pod.With(t).Send(`{"method":"ping"}`, time.Second) // what fails here fails this subtest
	})
}
