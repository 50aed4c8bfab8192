package harness

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	hostileName = "x\x1b[31m\ay\u202e" // of a pod, or a file
	shownName   = `x\x1b[31m\ay\u202e`
)

// assertPrintable asserts that a text could be shownName on a terminal, and that it has words.
func assertPrintable(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			assert.Fail(t, "it has a control character", "%q", text)
			break
		}
	}
	for _, word := range words {
		assert.Contains(t, text, word)
	}
	assert.NotContains(t, text, `\\x1b`, "it was escaped twice")
}

func TestHostileNameOfAPod(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	pod, err := TryStartPod(tb, Config{Name: hostileName, Command: FakePod(`log "one \x1b[2J"; child; bind; ready; serve`), StopGrace: 10 * time.Second})
	require.NoError(t, err)
	defer tb.End()
	require.Contains(t, pod.SocketPath, hostileName)
	_, err = TryStartPod(tb, Config{Name: hostileName})
	assertPrintable(t, err.Error(), "pod "+shownName+" still runs")
	_, err = pod.TryWaitLog("nowhere", time.Millisecond)
	assertPrintable(t, err.Error(), "log of pod "+shownName, "/"+shownName+"/stderr.log", `one \x1b[2J`)
	_, err = pod.TryWaitLog("(\x1b", time.Millisecond)
	assertPrintable(t, err.Error(), `bad pattern`)
	_, err = pod.TryWait(0)
	assertPrintable(t, err.Error(), "pod "+shownName+" did not end")
	talk, err := pod.TryTalk(10 * time.Second)
	require.NoError(t, err)
	_, err = talk.TrySnapshot()
	require.NoError(t, err)
	talk.timeout = 100 * time.Millisecond
	_, err = talk.TrySnapshot()
	assertPrintable(t, err.Error(), "pod "+shownName)
	_, err = talk.TryReceive()
	assertPrintable(t, err.Error(), "pod "+shownName+" sent no line")
	pod.Suspend()
	_, err = talk.TrySend("hello \x1b[2J\a")
	assertPrintable(t, err.Error(), "pod "+shownName+" gave no answer to hello \\x1b[2J\\a: ")
	pod.Resume()
	require.NoError(t, os.Rename(pod.SocketPath, pod.SocketPath+"2"))
	for _, try := range []func() error{
		func() error { _, err := pod.TrySend("ping", time.Second); return err },
		func() error { _, err := pod.TryTalk(time.Second); return err },
	} {
		assertPrintable(t, try().Error(), "could not connect to pod "+shownName+" at /", "/"+shownName+"/sock: ")
	}
	tb.Errorf("%s", failsIn(tb, errors.New("other \x1b")))
	tb.End()
	assertPrintable(t, tb.Text(), "pod "+shownName, `other \x1b`)
}

func TestHostileNameOfAnAdoptedPod(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	_, err := TryAdopt(tb, hostileName+"\nz", time.Millisecond)
	assertPrintable(t, err.Error(), "no pod "+shownName+`\nz to adopt`, "/"+shownName+`\nz/stderr.log`)
	dir := filepath.Join(RuntimeDir(tb), hostileName)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "stderr.log"), []byte("YOI-READY\t"+hostileName+"\t"+dir+"/so\x1bck\n"), 0o600))
	_, err = TryAdopt(tb, hostileName, 500*time.Millisecond)
	assertPrintable(t, err.Error(), "no pod "+shownName+" to adopt", "/"+shownName+`/so\x1bck`)
	tb.Fail()
	tb.End()
	assertPrintable(t, tb.Text())
}

func TestHostileNameOfAClient(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	program := filepath.Join(t.TempDir(), hostileName+"\nz")
	_, err := TryStartClient(tb, ClientConfig{Program: program})
	assertPrintable(t, err.Error(), "start client ", shownName+`\nz`)
	assert.NotContains(t, err.Error(), "\n")
	require.NoError(t, os.WriteFile(program+".tmp", []byte("#!/bin/sh\ntrap '' INT\nprintf 'hello \\033[2J'\nsleep 1000 & sleep 1000; sleep 1000"), 0o700))
	require.NoError(t, os.Rename(program+".tmp", program)) // nobody has it open for writing
	client, err := TryStartClient(tb, ClientConfig{Program: program, StopGrace: 50 * time.Millisecond})
	require.NoError(t, err)
	client.WaitOutput("hello", 10*time.Second)
	_, err = client.TryWaitOutput("nowhere", time.Millisecond)
	assertPrintable(t, err.Error(), "no output of client /", shownName+`\nz matched`, `hello \x1b[2J`)
	_, err = client.TryWait(time.Millisecond)
	assertPrintable(t, err.Error(), shownName+`\nz did not end`)
	require.NoError(t, client.Stop())
	tb.Fail()
	tb.End()
	assertPrintable(t, tb.Text(), shownName+`\nz did not stop`)
}

func TestHostileNameOfAFile(t *testing.T) {
	t.Parallel()
	tb := NewTB(t)
	pod, err := TryStartPod(tb, Config{Name: "alpha"})
	require.NoError(t, err)
	const file = hostileName + "\nz"
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(pod.LogPath), file), []byte("text"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(tb.Artifacts, "alpha.dir", file, "full"), 0o700), "it cannot be kept")
	tb.Fail()
	tb.End()
	assertPrintable(t, tb.Text(), "some of it is lost: ", "/alpha.dir/"+shownName+`\nz: `)
}

func TestHostileNameOfASharedPod(t *testing.T) {
	t.Parallel()
	s := &shared{cfg: Config{Name: hostileName}, first: hostileName, err: errors.New("it failed")}
	assertPrintable(t, s.fault(NewTB(t)).Error(), "shared pod "+shownName)
}
