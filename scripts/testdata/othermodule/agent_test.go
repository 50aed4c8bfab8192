package agent_test

import (
	"bufio"
	"strings"
	"testing"

	"example.com/podharness/harness"
	"example.com/podharness/scripts"
)

func TestScenarios(t *testing.T) { scripts.Run(t, "testdata") }

func TestAgentAnswers(t *testing.T) {
	pod := harness.StartPod(t, harness.Config{})
	line, err := bufio.NewReader(pod.Dial()).ReadString('\n')
	if err != nil || !strings.Contains(line, `"snapshot"`) {
		t.Fatalf("got %q, %v", line, err)
	}
}
