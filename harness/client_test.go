package harness_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/harness"
	"example.com/podharness/spawn"
	command "example.com/podharness/spawn/podspawn"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// clientArg is the first argument that makes the test binary podspawn, a client.
const clientArg = "client-of-harness"

func init() {
	reexec.Register(clientArg, func(args []string) int { return command.Main(args, os.Stdout, os.Stderr) })
}

// podspawn returns a client that starts the pod alpha.
func podspawn(program string) harness.ClientConfig {
	cfg := harness.ClientConfig{Program: os.Args[0], Args: []string{clientArg, "-timeout", "10s", "alpha"}}
	if program != "" {
		cfg.Pod = harness.FakePod(program)
	}
	return cfg
}

func TestClientStartsItsPodInTheSandbox(t *testing.T) {
	t.Parallel()
	var ended <-chan struct{}
	var log string
	t.Run("test", func(t *testing.T) {
		c := harness.StartClient(t, podspawn(""))
		assert.Equal(t, "exit status 0", c.Wait(patience).String())
		assert.Contains(t, c.Stdout(), "pod alpha is ready after ")
		assert.Empty(t, c.Stderr())
		pod := harness.Adopt(t, "alpha", patience)
		assert.Equal(t, filepath.Join(harness.RuntimeDir(t), "alpha", "sock"), pod.SocketPath)
		ended, log = pod.Done(), pod.LogPath
		var env map[string]string
		ask(t, pod, `{"method":"env"}`, &env)
		assert.Equal(t, harness.RuntimeDir(t), env["YOI_RUNTIME_DIR"])
		assert.Nil(t, pod.State())
	})
	waitFor(t, ended) // it does not outlive the test
	assert.NoFileExists(t, log)
}

func TestAdoptedPodIsAPod(t *testing.T) {
	t.Parallel()
	t.Run("Stop", func(t *testing.T) {
		t.Parallel()
		harness.StartClient(t, podspawn("bind; ready; log later; serve")).Wait(patience)
		pod := harness.Adopt(t, "alpha", patience)
		assert.Equal(t, "later", pod.WaitLog("^lat", patience))
		assert.Contains(t, pod.Log(), "YOI-READY\talpha\t")
		pod.Suspend()
		pod.Resume()
		pod.Dial()
		assert.Same(t, pod, harness.Adopt(t, "alpha", 0), "it is one pod")
		require.NoError(t, pod.Stop())
		how, ended := pod.Ended()
		assert.True(t, ended)
		assert.Equal(t, "its status is not known: only its parent is told that", how)
		assert.Nil(t, pod.State())
		assert.NoDirExists(t, filepath.Dir(pod.LogPath), "it was stopped gracefully")
	})
	t.Run("Kill", func(t *testing.T) {
		t.Parallel()
		harness.StartClient(t, podspawn("stubborn")).Wait(patience)
		pod := harness.Adopt(t, "alpha", patience)
		require.NoError(t, pod.Kill())
		waitFor(t, pod.Done())
		_, err := pod.TryWaitLog("never", patience)
		assert.ErrorContains(t, err, "it has ended (its status is not known")
	})
	t.Run("one that ends with its client at the end of the test", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		tb.Run(func() {
			cfg := podspawn("")
			cfg.Program, cfg.Args = "/bin/sh", []string{"-c", `mkdir "$YOI_RUNTIME_DIR/alpha"; $YOI_POD_RUNTIME_COMMAND --workspace / --pod alpha --profile default 2>"$YOI_RUNTIME_DIR/alpha/stderr.log"`}
			harness.StartClient(tb, cfg)
			harness.Adopt(tb, "alpha", patience)
		})
		text := tb.End()
		assert.False(t, tb.Failed(), text)
	})
	t.Run("some that end with their client, one after the other", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		tb.Run(func() {
			cfg := podspawn("")
			cfg.Program, cfg.Args = "/bin/sh", []string{"-c", `
for pod in a b c d; do
	mkdir "$YOI_RUNTIME_DIR/$pod"
	setsid "$YOI_POD_RUNTIME_COMMAND" --workspace / --pod $pod --profile default 2>"$YOI_RUNTIME_DIR/$pod/stderr.log" & pids="$pids $!"
done
trap 'for pid in $pids; do kill $pid; done & exit 0' INT
for pod in a b c d; do until [ -e "$YOI_RUNTIME_DIR/$pod/sock" ]; do sleep 0.01; done; done
echo ready; while :; do sleep 0.01; done`}
			harness.StartClient(tb, cfg).WaitOutput("ready", patience)
		})
		text := tb.End()
		assert.False(t, tb.Failed(), text)
	})
	t.Run("one for all who adopt it", func(t *testing.T) {
		t.Parallel()
		harness.StartClient(t, podspawn("")).Wait(patience)
		adopted := make(chan *harness.Pod, 8)
		for range cap(adopted) {
			go func() {
				pod, err := harness.TryAdopt(t, "alpha", patience)
				assert.NoError(t, err)
				adopted <- pod
			}()
		}
		first := waitFor(t, adopted)
		for range cap(adopted) - 1 {
			assert.Same(t, first, waitFor(t, adopted))
		}
		require.NoError(t, first.Stop())
	})
	t.Run("one that dies by itself", func(t *testing.T) {
		t.Parallel()
		tb := harness.NewTB(t)
		tb.Run(func() {
			harness.StartClient(tb, podspawn("")).Wait(patience)
			pod := harness.Adopt(tb, "alpha", patience)
			ask(t, pod, `{"method":"run","params":{"program":"log 'no memory'"}}`, nil)
			conn := pod.Dial()
			_, _ = io.WriteString(conn, `{"method":"run","params":{"program":"exit 3"}}`+"\n")
			waitFor(t, pod.Done())
		})
		text := tb.End()
		assert.True(t, tb.Failed())
		assert.Contains(t, text, "pod alpha ended by itself during the test (its status is not known")
		assert.NotContains(t, text, "lost", "only what the harness has started can be recorded")
		assert.Contains(t, text, "no memory")
	})
}

func TestLivesOfANameAreToldApart(t *testing.T) {
	t.Parallel()
	for round, program := range []string{"log one; bind; ready; serve", "log two; bind; ready; serve"} {
		own := harness.StartPod(t, harness.Config{Name: "alpha"})
		require.NoError(t, own.Stop())
		harness.StartClient(t, podspawn(program)).Wait(patience)
		pod := harness.Adopt(t, "alpha", patience)
		assert.NotEqual(t, own.PID, pod.PID)
		assert.True(t, strings.HasPrefix(pod.Log(), []string{"one", "two"}[round]), pod.Log())
		require.NoError(t, pod.Stop())
	}
}

func TestAdoptSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := harness.TryAdopt(t, "alpha", 10*time.Millisecond)
	assert.ErrorContains(t, err, fmt.Sprintf("no pod alpha to adopt within 10ms: nobody has made %s/alpha/stderr.log", harness.RuntimeDir(t)))
	tb := harness.NewTB(t)
	tb.Run(func() {
		harness.StartClient(tb, podspawn("log loading; hang")).TryWaitOutput("loading", patience)
	})
	_, err = harness.TryAdopt(tb, "alpha", 10*time.Millisecond)
	assert.ErrorContains(t, err, "no pod alpha to adopt within 10ms: it has written no ready line\n\tlog: ")
	assert.ErrorContains(t, err, "\n\t\tloading")
}

// TestAdoptTakesNoPodOfAnotherName has a client that does not look at the ready line.
func TestAdoptTakesNoPodOfAnotherName(t *testing.T) {
	t.Parallel()
	for program, want := range map[string]string{
		"bind; ready '{name}-other'; serve":                 `pod became ready under another name: got "alpha-other", want "alpha"`,
		`bind; raw "YOI-READY\t\t{socket}\n"; ready; serve`: "malformed ready line: it has no name",
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			client := harness.StartClient(t, harness.ClientConfig{
				Program: "/bin/sh", Pod: harness.FakePod(program),
				Args: []string{"-c", `mkdir "$YOI_RUNTIME_DIR/alpha"; exec $YOI_POD_RUNTIME_COMMAND --workspace / --pod alpha 2>"$YOI_RUNTIME_DIR/alpha/stderr.log"`},
			})
			require.Eventually(t, func() bool {
				_, err := harness.TryAdopt(t, "alpha", time.Millisecond)
				return err != nil && strings.Contains(err.Error(), ": "+want+"\n")
			}, patience, time.Millisecond)
			require.NoError(t, client.Stop())
		})
	}
}

func TestPodThatIsLeftIsStoppedGracefully(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	var dir string
	tb.Run(func() {
		harness.StartClient(tb, podspawn("ignore TERM; bind; ready; serve")).Wait(patience)
		dir = filepath.Join(harness.RuntimeDir(tb), "alpha")
	})
	assert.DirExists(t, dir)
	assert.Empty(t, tb.End())
	assert.False(t, tb.Failed())
}

func TestPodThatOutlivesAFailedStartIsALeakOfItsClient(t *testing.T) {
	t.Parallel()
	harness.NeedProcesses(t)
	tb := harness.NewTB(t)
	tb.Run(func() {
		// It gives up, and leaves the pod.
		script := `"$YOI_POD_RUNTIME_COMMAND" pod --workspace . --pod alpha < /dev/null > /dev/null 2>&1 & exit 1`
		c := harness.StartClient(tb, harness.ClientConfig{Program: "/bin/sh", Args: []string{"-c", script}, Pod: harness.FakePod("hang")})
		assert.Equal(t, "exit status 1", c.Wait(patience).String())
	})
	text := tb.End()
	assert.True(t, tb.Failed())
	assert.Contains(t, text, "harness: client /bin/sh failed (exit status 1) and left processes behind, which were killed:\n\t\tprocess ")
}

func TestEvidenceOfAClient(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	tb.Run(func() {
		harness.StartClient(tb, podspawn("early-exit")).Wait(patience)
		tb.Fatalf("it did not start")
	})
	text := tb.End()
	assert.Contains(t, text, "harness: pod alpha\n\twhole log: ")
	for file, want := range map[string]string{
		"alpha.log": "cannot open session store\n", "client-1.stderr": "pod exited before becoming ready (exit status 7)",
		"merged.log": "alpha  cannot open session store", "timelines.txt": "alpha",
	} {
		kept, err := os.ReadFile(filepath.Join(tb.Artifacts, file))
		require.NoError(t, err)
		assert.Contains(t, string(kept), want, file)
	}
}

func TestClientOnATerminal(t *testing.T) {
	t.Parallel()
	script := `test -t 0 && test -t 1 && test -t 2 && stty size; printf 'name? '; read name; echo "hello $name"; read more`
	c := harness.StartClient(t, harness.ClientConfig{Program: "/bin/sh", Args: []string{"-c", script}, TTY: true})
	assert.Equal(t, "name? ", c.WaitOutput("name\\? $", patience), "a prompt is no line")
	_, err := c.Write([]byte("alpha\n"))
	require.NoError(t, err)
	c.WaitOutput("^hello alpha", patience)
	assert.Contains(t, c.Stdout(), "24 80\r\n")
	assert.Empty(t, c.Stderr())
	require.NoError(t, c.Stop())
	assert.NotNil(t, c.State())
}

func TestLastWordsOnATerminalAreCaptured(t *testing.T) {
	t.Parallel()
	for range 20 {
		c := harness.StartClient(t, harness.ClientConfig{Program: "/bin/sh", Args: []string{"-c", "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; echo the end"}, TTY: true})
		c.Wait(patience)
		assert.True(t, strings.HasSuffix(c.Stdout(), "the end\r\n"))
	}
}

func TestClientThatIsStubborn(t *testing.T) {
	t.Parallel()
	tb := harness.NewTB(t)
	tb.Run(func() {
		c := harness.StartClient(tb, harness.ClientConfig{Program: "/bin/sh", Args: []string{"-c", `trap "" INT; echo ready; while :; do read x; done`}, TTY: true, StopGrace: 50 * time.Millisecond})
		c.WaitOutput("ready", patience)
		assert.NoError(t, c.Stop())
		assert.Equal(t, "signal: killed", c.State().String())
		assert.NoError(t, c.Kill(), "it has ended")
	})
	assert.Contains(t, tb.End(), "harness: client /bin/sh did not stop within 50ms of SIGINT: killed\n")
}

// TestClientWhosePodHoldsItsOutput ends although its output stays open.
func TestClientWhosePodHoldsItsOutput(t *testing.T) {
	t.Parallel()
	c := harness.StartClient(t, harness.ClientConfig{Program: "/bin/sh", Args: []string{"-c", "sleep 100 & cat; echo done"}, Stdin: strings.NewReader("hello\n")})
	assert.True(t, c.Wait(patience).Success())
	assert.Equal(t, "hello\ndone\n", c.Stdout())
}

func TestClientsThatCannotBeStarted(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]harness.ClientConfig{
		"ClientConfig.Program is empty": {},
		"start client /no/such/client (3 bytes): fork/exec /no/such/client: no such file": {Program: "/no/such/client", Args: []string{"a b"}},
		"ClientConfig.Stdin and TTY exclude each other":                                   {Program: "cat", TTY: true, Stdin: strings.NewReader("")},
		"ClientConfig.StopGrace -1ns is negative":                                         {Program: "cat", StopGrace: -1},
		"bad program: column 1":                                                           {Program: "cat", Pod: harness.FakePod("redy")},
	} {
		_, err := harness.TryStartClient(t, cfg)
		assert.ErrorContains(t, err, want)
	}
	c := harness.StartClient(t, harness.ClientConfig{Program: "cat"})
	_, err := c.Write(nil)
	assert.EqualError(t, err, "the client has no terminal: set ClientConfig.TTY")
	c.Wait(patience)
	_, err = c.TryWaitOutput("never", patience)
	assert.ErrorContains(t, err, "no output of client cat matched \"never\"")
	assert.ErrorContains(t, err, "it has ended (exit status 0)")
}

// TestClientEnvServesALibraryInThisProcess starts a pod with spawn itself.
func TestClientEnvServesALibraryInThisProcess(t *testing.T) {
	for _, entry := range harness.ClientEnv(t, spawn.Command{}) {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	command, err := spawn.ResolveCommand()
	require.NoError(t, err)
	text, err := os.ReadFile(command.Program)
	require.NoError(t, err)
	assert.Contains(t, string(text), "#!/bin/sh\n# Starts the pod of this test", "a person can read what it does")
	pod, err := spawn.Start(context.Background(), spawn.Config{Command: command, PodName: "alpha", WorkspaceRoot: "."})
	require.NoError(t, err)
	assert.Equal(t, filepath.Join(harness.RuntimeDir(t), "alpha"), filepath.Dir(pod.LogPath))
	adopted := harness.Adopt(t, "alpha", patience)
	assert.Equal(t, pod.PID, adopted.PID)
	require.NoError(t, adopted.Stop())
	<-pod.Done()
	assert.True(t, pod.State().Success())
}

// TestArgumentsWithQuotesReachThePod goes through the program that stands in for it.
func TestArgumentsWithQuotesReachThePod(t *testing.T) {
	t.Parallel()
	c := harness.StartClient(t, podspawn(`log 'it''s $HOME "quoted"'; exit 7`))
	assert.Equal(t, "exit status 5", c.Wait(patience).String())
	assert.Contains(t, c.Stderr(), `it's $HOME "quoted"`)
}
