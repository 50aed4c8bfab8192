package scripts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// holdLook has podstart -hold look at the socket; else it names a signal.
const holdLook = "look"

// holder holds one pod in its writes to its log, until its ready line is done. What is seen
// while it writes that is certain: after the line was read, it would be a matter of luck.
type holder struct {
	what string // look, or a signal's name

	mu         sync.Mutex // held while a write is done
	log        *os.File   // nil until the first write
	unfinished []byte     // the beginning of a line that may become the ready line: not written yet
	writer     int        // the process that has written it
	inLine     bool       // what was written last has begun a line that is not the ready line
	signalled  bool
	held, done bool  // it was held in its ready line; that is behind it
	failed     error // why it could not be held
}

// faults returns the faults that has the pod's writes wait. A pod that ends leaves the beginning
// of a line.
func (h *holder) faults() []fault.Fault {
	return []fault.Fault{{Calls: "write", Path: "**/{name}/stderr.log", Look: h.take}, {Calls: "exit", Look: h.take}}
}

// result returns whether the pod was held, and why it could not be.
func (h *holder) result() (held bool, failed error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held, h.failed
}

// take does a write to the log in the pod's place, until the ready line is done.
func (h *holder) take(c fault.Call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.done:
	case c.Name() == "exit_group":
		if c.PID() == h.writer {
			_, _ = h.log.Write(h.unfinished)
			h.unfinished = nil
		}
	default:
		if err := h.hold(c); err != nil && c.PID() != 0 { // else it has ended
			h.done, h.failed = true, fmt.Errorf("the pod's write to its log could not be held: %w", err)
		}
	}
}

func (h *holder) hold(c fault.Call) (err error) {
	if h.log == nil { // it stays open for what comes at the pod's end
		if h.log, err = os.OpenFile(fmt.Sprintf("/proc/%d/fd/%d", c.Thread(), c.Descriptor()), os.O_WRONLY|os.O_APPEND, 0); err != nil {
			return err
		}
	}
	const most = 64 << 20 // of more, the caller writes the rest
	text, _, err := c.Data(most)
	if err != nil {
		return err
	}
	all := slices.Concat(h.unfinished, text)
	end := bytes.LastIndexByte(all, '\n') + 1
	lines, unfinished, inLine := all[:end], all[end:], h.inLine && end == 0
	if inLine || !bytes.HasPrefix(unfinished, readyMark) && !bytes.HasPrefix(readyMark, unfinished) {
		lines, unfinished, inLine = all, nil, true
	}
	ready, held := h.ready(lines)
	if held {
		line, after, _ := bytes.Cut(lines[ready:], []byte("\n"))
		lines, unfinished = slices.Concat(lines[:ready], h.act(c, string(line), ready >= len(h.unfinished)), after, unfinished), nil
		h.held = true
	}
	// In this order, since one that does not wait any more comes again.
	if c.Return(len(text)) {
		h.unfinished, h.writer, h.inLine, h.done = unfinished, c.PID(), inLine, held
		_, err = h.log.Write(lines)
	}
	return err
}

var readyMark = []byte("YOI-READY\t")

// ready returns where the ready line begins in what comes next.
func (h *holder) ready(lines []byte) (start int, is bool) {
	if !h.inLine && bytes.HasPrefix(lines, readyMark) {
		return 0, true
	}
	start = bytes.Index(lines, slices.Concat([]byte("\n"), readyMark)) + 1
	return start, start > 0
}

// act does what the pod is held for, and returns what is written in place of the
// ready line. whole tells that this one write has all of the line.
func (h *holder) act(c fault.Call, line string, whole bool) []byte {
	if h.what != holdLook {
		h.signal(c)
		return nil
	}
	told, _ := podlog.ParseReady([]byte(strings.TrimSuffix(line, "\r")))
	if told.Socket != "" && !filepath.IsAbs(told.Socket) {
		told.Socket = fmt.Sprintf("/proc/%d/cwd/%s", c.Thread(), told.Socket)
	}
	found := "is listened on"
	if _, err := proc.Listener(told.Socket); err != nil && !errors.Is(err, unix.EAGAIN) { // a full backlog
		found = fmt.Sprintf("is not listened on yet (%v)", err)
	}
	if !whole {
		found += "\npodharness: its ready line came in several writes"
	}
	return fmt.Appendf(nil, "podharness: its socket %s\n%s\n", found, line)
}

// signal sends the signal, once, as a stop of the pod does: to its group.
func (h *holder) signal(c fault.Call) {
	group, err := unix.Getpgid(c.Thread()) // it may have left that of the pod
	if h.signalled || err != nil {
		return
	}
	h.signalled = true
	sig, _ := parseSignal(h.what)
	fmt.Fprintf(h.log, "podharness: %s was sent while it wrote its ready line\n", unix.SignalName(sig))
	_ = unix.Kill(-group, sig)
	// Another thread may take it, and not before this one would go on. Nothing
	// tells of a handler that has run.
	select {
	case <-c.Ended():
	case <-time.After(100 * time.Millisecond):
	}
}
