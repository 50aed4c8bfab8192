package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// keepEnv has the pods of a test that fails live on, for a person to look at.
const keepEnv = "PODHARNESS_KEEP"

// isSet reports whether a variable asks for something.
func isSet(name string) bool {
	value := os.Getenv(name)
	return value != "" && value != "0"
}

// keep is called when a test fails, before its pods are stopped. It reports whether they live on
// until the test binary ends, as they do where there is no terminal. On one it waits until the
// person there has pressed Enter.
func (b *oneTest) keep(tb TB) bool {
	tb.Helper()
	if b.isSuites() || !isSet(keepEnv) {
		return false
	}
	first := false
	b.keepOnce.Do(func() { first = true })
	if first {
		b.adoptForeign()
		b.kept = !b.showPods(tb) && len(b.living()) > 0
	}
	return b.kept
}

// isSuites reports whether the pods are those of Shared, which outlive the tests that use them.
func (b *oneTest) isSuites() bool {
	_, ok := b.tb.(*suite)
	return ok
}

// showPods tells how to reach the pods that live, and waits for the person at the terminal; false
// = there is no terminal, or no pod.
func (b *oneTest) showPods(tb TB) bool {
	tb.Helper()
	pods := b.living()
	if len(pods) == 0 {
		return false
	}
	var text strings.Builder
	fmt.Fprintf(&text, "harness: %s: %s has failed, and its pods live on:", keepEnv, testName(tb))
	if why := b.evidence.FirstFailure(); why != "" {
		fmt.Fprintf(&text, "\n\twhy:    %s", podlog.Printable(why))
	}
	for _, p := range pods {
		debugger := "gdb -p"
		if isGo(fmt.Sprintf("/proc/%d/exe", p.PID)) || !proc.Proves && isGo(p.cfg.Command.Program) {
			debugger = "dlv attach"
		}
		fmt.Fprintf(&text, "\n\tpod %s, process %d\n\t\tattach: %s %d\n\t\treach:  socat - UNIX-CONNECT:%s\n\t\tlog:    %s\n\t\tend:    kill -INT %d", p.name(), p.PID, debugger, p.PID, podlog.PathText(p.SocketPath), podlog.PathText(p.LogPath), p.PID)
	}
	fmt.Fprintf(&text, "\n\tlist:   YOI_RUNTIME_DIR=%s podspawn -list", podlog.PathText(b.Dir("run")))
	const longest = 7 * 24 * time.Hour
	wait, _ := beforeDeadline(tb, "", longest)
	until := ""
	if wait < longest {
		until = fmt.Sprintf(", or at %s (go test -timeout)", time.Now().Add(wait).Format(time.TimeOnly))
	}
	asked := awaitEnter(podlog.PrintableLines(text.String())+"\n\tThey are ended when you press Enter"+until+": ", wait)
	if !asked {
		text.WriteString("\n\tThis test binary has no terminal, on which it could wait for Enter: they are ended when the binary ends.")
	}
	tb.Logf("%s", podlog.PrintableLines(text.String()))
	return asked
}

// terminalMu is held while a person is asked.
var terminalMu sync.Mutex

// awaitEnter shows a text on the terminal of this process, and waits for at most d until somebody
// has pressed Enter there. It reports whether there is a terminal. (The stdin of tests is not one.)
func awaitEnter(text string, d time.Duration) bool {
	end := time.Now().Add(d)
	terminalMu.Lock()
	defer terminalMu.Unlock()
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		return false // in the background, where a read would stop this process
	}
	buf := make([]byte, 4<<10)
	for n := 1; n > 0; { // what was typed before is no answer
		n, _ = unix.Read(fd, buf)
	}
	for rest := []byte(text); len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil && !errors.Is(err, unix.EINTR) && (!errors.Is(err, unix.EAGAIN) || !polls(fd, unix.POLLOUT, end)) {
			return false
		}
		rest = rest[max(0, n):]
	}
	for polls(fd, unix.POLLIN, end) {
		n, err := unix.Read(fd, buf)
		if n > 0 && bytes.ContainsAny(buf[:n], "\r\n") || n == 0 || err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break // or it was hung up
		}
	}
	return true
}

// polls waits until a descriptor is ready for something, and reports whether that came in time.
func polls(fd int, events int16, end time.Time) bool {
	for time.Now().Before(end) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, int(min(time.Until(end), time.Minute)/time.Millisecond)+1)
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
	return false
}

// isKept reports whether a mark is that of a pod that lives on.
func (b *binary) isKept(mark string) bool {
	thisBinaryMu.Lock()
	defer thisBinaryMu.Unlock()
	for _, kept := range b.kept {
		if strings.HasPrefix(mark, kept) {
			return true
		}
	}
	return false
}

func (b *binary) keeps(mark string) {
	thisBinaryMu.Lock()
	defer thisBinaryMu.Unlock()
	b.kept = append(b.kept, mark)
}
