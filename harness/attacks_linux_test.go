//go:build !portable

package harness

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/spawn/proc"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMountOfAPodStays runs itself in namespaces of its own, in which a pod may mount.
func TestMountOfAPodStays(t *testing.T) {
	if victim := os.Getenv(endEnv); victim != "" {
		require.NoError(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		tb := &FakeTB{TestName: "x", Artifacts: t.TempDir()}
		pod := StartPod(tb, Config{})
		mnt := filepath.Join(pod.box.Dir("home"), "mnt")
		require.NoError(t, os.Mkdir(mnt, 0o700))
		require.NoError(t, unix.Mount(victim, mnt, "", unix.MS_BIND, ""))
		tb.End()
		assert.True(t, tb.Failed())
		assert.Contains(t, tb.Text(), "harness: the sandbox was not removed: open "+mnt+": something is mounted there")
		assert.NoDirExists(t, pod.box.Dir("tmp"), "all else is")
		assert.FileExists(t, filepath.Join(mnt, "secret"), "nor was it unmounted")
		fmt.Println("tried")
		return
	}
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), endEnv+"="+outside(t), "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	try := exec.Command("true")
	try.SysProcAttr = cmd.SysProcAttr
	if err := try.Run(); err != nil {
		t.Skipf("no user namespace can be made: %v", err)
	}
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "tried\n")
}

// TestWatchdogKillsWhateverTheJournalSays has the pods of a killed test binary end, and what
// is outside stay as it is.
func TestWatchdogKillsWhateverTheJournalSays(t *testing.T) {
	if victim := os.Getenv(endEnv); victim != "" {
		pod := StartPod(t, Config{Name: "alpha"})
		own, err := pod.box.Own()
		require.NoError(t, err)
		in := func(name string) string { return filepath.Join(own.Name(), name) }
		forge := func(line string) {
			file, err := os.OpenFile(in("journal"), os.O_WRONLY|os.O_APPEND, 0)
			require.NoError(t, err)
			_, err = fmt.Fprintln(file, line)
			require.NoError(t, err)
		}
		switch what := os.Getenv("WHAT"); what {
		case "FIFO":
			require.NoError(t, os.Remove(in("0")))
			require.NoError(t, syscall.Mkfifo(in("0"), 0o600))
		case "journal is a FIFO":
			require.NoError(t, os.Remove(in("journal")))
			require.NoError(t, syscall.Mkfifo(in("journal"), 0o600))
		case "journal is a device":
			require.NoError(t, os.Remove(in("journal")))
			require.NoError(t, os.Symlink("/dev/zero", in("journal")))
		case "elsewhere":
			require.NoError(t, os.Remove(in("0")))
			require.NoError(t, os.Symlink(victim+"/secret", in("0")))
			forge(fmt.Sprintf(`{"Test":"X","Why":"w","Until":%q,"Dir":%q,"Lives":[{"N":0,"Name":"alpha","Pod":"alpha","Log":%q}]}`, time.Now().Format(time.RFC3339), victim, victim+"/secret"))
		default:
			forge(what)
		}
		fmt.Println("root", thisBinary.Root, pod.PID)
		await(t)
	}
	for name, what := range map[string]string{
		"null": `{"Lives":[null]}`, "negative": `{"Lives":[{"N":-1,"Name":"a"}]}`, "huge": `{"Lives":[{"N":2000000000,"Name":"a"}]}`,
		"FIFO": "FIFO", "journal is a FIFO": "journal is a FIFO", "journal is a device": "journal is a device", "elsewhere": "elsewhere",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			artifacts := t.TempDir()
			cmd, lines := startHelper(t, "TestWatchdogKillsWhateverTheJournalSays", outside(t), "PODHARNESS_ARTIFACTS="+artifacts, "WHAT="+what)
			var root string
			var pid int
			_, err := fmt.Sscanf(waitForLine(t, lines, "root "), "root %s %d", &root, &pid)
			require.NoError(t, err)
			require.NoError(t, cmd.Process.Kill())
			assert.Eventually(t, func() bool { return proc.Ended(pid) }, 20*time.Second, time.Millisecond)
			assert.Eventually(t, func() bool { _, err := os.Stat(root); return os.IsNotExist(err) }, 20*time.Second, time.Millisecond)
			_ = filepath.WalkDir(artifacts, func(path string, entry os.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() {
					text, err := os.ReadFile(path)
					assert.NoError(t, err)
					assert.False(t, bytes.Contains(text, []byte("TOPSECRET")), path)
				}
				return nil
			})
		})
	}
}

// TestStoppedWatchdogIsReplaced stops it, and tells it more than its pipe holds.
func TestStoppedWatchdogIsReplaced(t *testing.T) {
	if word := os.Getenv(endEnv); word != "" {
		StartPod(t, Config{})
		stopped, _ := thisBinary.Process()
		require.NoError(t, unix.Kill(stopped, unix.SIGSTOP))
		begin := time.Now()
		for i := 0; i < 20000; i++ {
			thisBinary.Starting()
			thisBinary.Launched(0, 0)
		}
		assert.Less(t, time.Since(begin), 3*time.Second, "it is given up after the first wait")
		require.Eventually(t, func() bool {
			pid, _ := thisBinary.Process()
			return pid != stopped
		}, 10*time.Second, time.Millisecond)
		StartPod(t, hiding(t, "hidden", word))
		fmt.Println("root", thisBinary.Root)
		await(t)
	}
	t.Parallel()
	word := uuid.NewString()
	cmd, lines := startHelper(t, t.Name(), word)
	root := strings.TrimPrefix(waitForLine(t, lines, "root "), "root ")
	require.Len(t, withWord(word), 1)
	require.NoError(t, cmd.Process.Kill())
	assertSoonGone(t, word, root)
}

// TestRestlessProcessIsALeak has a pod leave a script that starts itself again and ends,
// in another session each time.
func TestRestlessProcessIsALeak(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("there is no setsid")
	}
	comet := filepath.Join(t.TempDir(), "comet")
	require.NoError(t, os.WriteFile(comet, []byte("#!/bin/sh\n[ -e \"$0\" ] && setsid \"$0\" &\n"), 0o700)) // it ends with the directory
	tb := NewTB(t)
	pod := StartPod(tb, Config{Name: "alpha"})
	cmd := exec.Command(comet)
	cmd.Env = append(os.Environ(), proc.MarkEnv+"="+pod.mark)
	require.NoError(t, cmd.Run())
	tb.End()
	assert.True(t, tb.Failed())
	assert.Contains(t, tb.Text(), "pod alpha left processes behind, which were killed:")
	assert.Empty(t, proc.Find(proc.Match{Mark: pod.mark}))
}

// TestAdoptTakesNoStranger has a listener that is older than the pod, and a file pid with
// the number of a process that has nothing to do with it.
func TestAdoptTakesNoStranger(t *testing.T) {
	t.Parallel()
	stranger := startSleeper(t, 0)
	dir := filepath.Join(RuntimeDir(t), "alpha")
	require.NoError(t, os.Mkdir(dir, 0o700))
	listener, err := net.Listen("unix", dir+"/sock")
	require.NoError(t, err)
	defer listener.Close()
	require.NoError(t, os.WriteFile(dir+"/pid", fmt.Append(nil, stranger.Process.Pid), 0o600))
	require.NoError(t, os.WriteFile(dir+"/stderr.log", []byte("YOI-READY\talpha\t"+dir+"/sock\n"), 0o600))
	_, err = TryAdopt(t, "alpha", time.Second)
	assert.ErrorContains(t, err, fmt.Sprintf("whoever listens on its socket is not known to be the pod, and process %d, which its file pid names, is not known to be the pod", stranger.Process.Pid))

	require.NoError(t, os.Remove(dir+"/pid"))
	require.NoError(t, syscall.Mkfifo(dir+"/pid", 0o600))
	_, err = TryAdopt(t, "alpha", time.Second)
	assert.ErrorContains(t, err, "its file pid cannot be read: is no regular file")
}
