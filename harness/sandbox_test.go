package harness_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// seen is what a fake pod says of itself.
type seen struct {
	Workspace string
	Env       map[string]string
}

func look(t *testing.T, pod *harness.Pod) (s seen) {
	t.Helper()
	conn := pod.Dial()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	answers := json.NewDecoder(conn)
	var event struct{ Data json.RawMessage }
	require.NoError(t, answers.Decode(&event))
	require.NoError(t, json.Unmarshal(event.Data, &s))
	_, err := conn.Write([]byte("{\"method\":\"env\"}\n"))
	require.NoError(t, err)
	require.NoError(t, answers.Decode(&event))
	require.NoError(t, json.Unmarshal(event.Data, &s.Env))
	return s
}

func TestPodsHaveWorkspacesOfTheirOwn(t *testing.T) {
	t.Parallel()
	alpha, beta := harness.StartPod(t, harness.Config{Name: "alpha"}), harness.StartPod(t, harness.Config{Name: "beta"})
	first := look(t, alpha).Workspace
	assert.DirExists(t, first)
	assert.NotEqual(t, first, look(t, beta).Workspace)
	require.NoError(t, os.WriteFile(filepath.Join(first, "state"), nil, 0o600))
	require.NoError(t, alpha.Stop())
	again := harness.StartPod(t, harness.Config{Name: "alpha"})
	assert.Equal(t, first, look(t, again).Workspace)
	assert.FileExists(t, filepath.Join(first, "state"), "a pod that is started again finds what it left")
}

func TestFixturesAreInPlaceWhenAPodIsStarted(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"manifest.toml": {Data: []byte("a = 1"), Mode: 0o644},
		"bin/tool":      {Data: []byte("#!/bin/sh"), Mode: 0o755},
	}
	cfg := harness.Config{Name: "alpha", WorkspaceFrom: files, HomeFrom: files}
	pod := harness.StartPod(t, cfg)
	s := look(t, pod)
	for _, dir := range []string{s.Workspace, s.Env["HOME"]} {
		text, err := os.ReadFile(filepath.Join(dir, "manifest.toml"))
		require.NoError(t, err)
		assert.Equal(t, "a = 1", string(text))
		info, err := os.Stat(filepath.Join(dir, "bin/tool"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o755), info.Mode())
	}
	require.NoError(t, os.Remove(filepath.Join(s.Workspace, "manifest.toml")))
	require.NoError(t, os.WriteFile(filepath.Join(s.Env["HOME"], "manifest.toml"), []byte("mine"), 0o600))
	require.NoError(t, pod.Stop())
	harness.StartPod(t, cfg)
	assert.NoFileExists(t, filepath.Join(s.Workspace, "manifest.toml"), "a fixture is copied once")
	cfg.Name = "beta"
	harness.StartPod(t, cfg)
	text, err := os.ReadFile(filepath.Join(s.Env["HOME"], "manifest.toml"))
	require.NoError(t, err)
	assert.Equal(t, "mine", string(text), "what is there stays")
}

func TestBadFixtures(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]harness.Config{
		"WorkspaceFrom is for a workspace in the sandbox, and Workspace is /": {Workspace: "/", WorkspaceFrom: fstest.MapFS{}},
		"copy WorkspaceFrom: open /nowhere: no such file":                     {WorkspaceFrom: os.DirFS("/nowhere")},
		"NameFlag \"worker\" must begin with -":                               {NameFlag: "worker"},
	} {
		_, err := harness.TryStartPod(t, cfg)
		assert.ErrorContains(t, err, want)
	}
}

func TestPlaceholdersStandForThePodsOwn(t *testing.T) {
	t.Parallel()
	echo := spawn.Command{Program: "sh", PrefixArgs: []string{"-c", `for word; do echo "$word" >&2; done; exit 1`, "sh", "{workspace}/m", "{home}", "{runtime}/{name}", "{other}"}}
	_, err := harness.TryStartPod(t, harness.Config{Name: "alpha", Command: echo, ExtraArgs: []string{"--for={name}"}})
	var e *spawn.Error
	require.ErrorAs(t, err, &e)
	runtime := harness.RuntimeDir(t)
	workspace := e.Tail[len(e.Tail)-4]
	assert.Equal(t, []string{runtime + "/alpha", "{other}", "--workspace", workspace, "--pod", "alpha", "--for=alpha"}, e.Tail[len(e.Tail)-7:])

	pod := harness.StartPod(t, harness.Config{Name: "beta", Command: harness.FakePod("log '{{name}'; bind; ready; serve"), Env: []string{"A={workspace}", "B={home}"}})
	s := look(t, pod)
	assert.Equal(t, s.Workspace, s.Env["A"])
	assert.Equal(t, s.Env["HOME"], s.Env["B"])
	assert.Contains(t, pod.Log(), "{name}\n", "a program of the fake pod has placeholders of its own")
}
