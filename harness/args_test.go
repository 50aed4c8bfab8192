package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/podharness/spawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const token = "hunter2-and-more"

// allOf returns what is in the files below a directory.
func allOf(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	}))
	return all.String()
}

// sleeps is a program whose pod, or client, has a child with a token in its arguments, and
// leaves it.
const sleeps = `sh -c 'sleep 1000; exit' --token ` + token + ` & `

func TestArgumentsAreShownByChoiceOnly(t *testing.T) {
	t.Parallel()
	name, args := FakePod("ready").Program, FakePod("ready").PrefixArgs
	for _, show := range []bool{false, true} {
		t.Run(fmt.Sprint(show), func(t *testing.T) {
			t.Parallel()
			tb := NewTB(t)
			prefix := append([]string{"-c", sleeps + `shift; exec "$@"`, "sh", "--token=" + token, name}, args...)
			pod, err := TryStartPod(tb, Config{Name: "alpha", ShowArgs: show, Command: spawn.Command{Program: "sh", PrefixArgs: prefix}})
			require.NoError(t, err)
			var ended *spawn.Error
			_, err = TryStartPod(tb, Config{Name: "hangs", ShowArgs: show, ReadyTimeout: 300 * time.Millisecond,
				Command: spawn.Command{Program: "sh", PrefixArgs: []string{"-c", "sleep 1000; exit", "sh", token}}})
			require.ErrorIs(t, err, spawn.ErrTimeout)
			_, err = TryStartPod(tb, Config{Name: "none", ShowArgs: show, Command: spawn.Command{Program: "/no/such/agent", PrefixArgs: []string{"--token", token}}})
			require.ErrorIs(t, err, spawn.ErrLaunch)
			require.True(t, errors.As(err, &ended))
			require.ErrorIs(t, err, fs.ErrNotExist)
			assert.Equal(t, show, strings.Contains(err.Error(), "`/no/such/agent --token "+token+"`"), err.Error())
			assert.Equal(t, !show, strings.Contains(err.Error(), "`/no/such/agent --token (16 bytes)`"), err.Error())

			client, err := TryStartClient(tb, ClientConfig{Program: "/bin/sh", Args: []string{"-c", sleeps + "read x; exit 1", "sh", token}, Stdin: neverEnds(t), ShowArgs: show})
			require.NoError(t, err)
			_, err = TryStartClient(tb, ClientConfig{Program: "/no/such/client", Args: []string{"--token", token}, ShowArgs: show})
			require.ErrorContains(t, err, "start client /no/such/client --token ")
			assert.Equal(t, show, strings.Contains(err.Error(), token), err.Error())
			tb.Errorf("the test's own failure")
			tb.End()
			require.NotNil(t, client.State())

			all := allOf(t, tb.Artifacts)
			assert.Equal(t, show, strings.Contains(all, token), "the evidence")
			// Messages have them where what pods leave is found.
			assert.Equal(t, show && findsProcesses, strings.Contains(tb.Text(), token), "the messages: %s", tb.Text())
			if !show && findsProcesses {
				processes := readEvidence(t, tb.Artifacts, "processes.txt")
				assert.Regexp(t, fmt.Sprintf(`(?m)^ *%d  .* old: .* --workspace /.* --pod alpha$`, pod.PID), processes)
				assert.Contains(t, processes, "old: sh (2 bytes) (16 bytes) --token (16 bytes)\n")
				assert.Contains(t, tb.Text(), "pod alpha left processes behind, which were killed:\n\t\tprocess ")
				assert.Regexp(t, `\n\t\tprocess \d+ \(sh \(2 bytes\) \(16 bytes\) --token \(16 bytes\), `, tb.Text())
			}
		})
	}
}

func TestConfigsThatDifferInArguments(t *testing.T) {
	t.Parallel()
	with, without := Config{ExtraArgs: []string{token}}, Config{}
	assert.Equal(t, "Config.ExtraArgs", difference(with, without))
	with.ShowArgs, without.ShowArgs = true, true
	assert.Equal(t, "Config.ExtraArgs: ["+token+"] there, [] here", difference(with, without))
}
