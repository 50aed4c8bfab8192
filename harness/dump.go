package harness

import (
	"debug/buildinfo"
	"errors"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// failing writes down what of a start lives that is about to be killed: it hangs.
func (b *oneTest) failing(a *evidence.Attempt, m proc.Match, verdict error) {
	m.Look()
	if errors.Is(verdict, spawn.ErrExited) {
		return
	}
	text := evidence.Describe(proc.Find(m), b.binary.Commands(m.Mark))
	a.Change(func() { a.Hung = text })
	if a.Dump != 0 && errors.Is(verdict, spawn.ErrTimeout) {
		dump(b.tb, []*evidence.Attempt{a})
	}
}

// dumpGrace is how long pods may take to write what they do.
const dumpGrace = 2 * time.Second

// dump sends Config.DumpSignal to pods that run, and waits for what they write then.
func dump(tb TB, pods []*evidence.Attempt) {
	if len(pods) == 0 {
		return
	}
	var pids []int
	var logs []*os.File
	var asked []*evidence.Attempt
	for _, a := range pods {
		a.Captured.KeepTail()
		if syscall.Kill(a.PID, a.Dump) == nil {
			a.Note(unix.SignalName(a.Dump))
			pids, logs, asked = append(pids, a.PID), append(logs, a.Captured.File()), append(asked, a)
		}
	}
	grace, _ := beforeDeadline(tb, "", dumpGrace)
	proc.AwaitQuiet(pids, grace, func() (size int64) {
		for _, log := range logs {
			size += evidence.SectionOf(log).Size()
		}
		return size
	})
	for _, a := range asked {
		a.HasWritten()
	}
}

// dump has the pods of a test that has failed write what they do, once, of those that hang: they
// are about to be stopped.
func (r *roster) dump(tb TB) {
	tb.Helper()
	var pods []*Pod
	r.dumpOnce.Do(func() {
		r.mu.Lock()
		pods = slices.DeleteFunc(slices.Clone(r.pods), func(p *Pod) bool { return !p.hangs.Load() })
		r.mu.Unlock()
		dumpPods(tb, pods)
	})
	for _, p := range pods {
		if goroutines := p.attempt.TellGoroutines(); goroutines != "" {
			tb.Logf("harness: pod %s ran when the test had failed%s", p.name(), goroutines)
		}
	}
}

// dumpPods has pods that run write what they do, if they can and were not asked before.
func dumpPods(tb TB, pods []*Pod) {
	var asked []*evidence.Attempt
	for _, p := range pods {
		_, ended := p.Ended()
		p.mu.Lock()
		if !ended && !p.asked && p.attempt.Dump != 0 {
			p.asked = true
			asked = append(asked, p.attempt)
		}
		p.mu.Unlock()
	}
	dump(tb, asked)
	for _, p := range pods {
		_, ended := p.Ended()
		p.mu.Lock()
		p.killed = p.killed || p.asked && ended
		p.mu.Unlock()
	}
}

// goPrograms tells of programs whether they are in Go: each is read once. It has true and false
// by programFile.
var goPrograms sync.Map

// programFile tells the file of a program from what is there later.
type programFile struct {
	path     string
	size     int64
	modified time.Time
}

// isGo reports whether a program says that it was built by Go.
func isGo(program string) bool {
	path, err := exec.LookPath(program)
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	key := programFile{path, info.Size(), info.ModTime()}
	if known, ok := goPrograms.Load(key); ok {
		return known.(bool)
	}
	_, err = buildinfo.ReadFile(path)
	goPrograms.Store(key, err == nil)
	return err == nil
}
