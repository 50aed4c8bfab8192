package spawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/podharness/spawn/fault"
	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
	"golang.org/x/sys/unix"
)

// The verdicts other than ready. Every error of [Start] matches exactly one of these with
// [errors.Is], or matches the error of the context if that ended first, or says why the log
// could not be read.
var (
	// ErrInvalidConfig: a field of the Config is invalid. Nothing was touched.
	ErrInvalidConfig = errors.New("invalid pod config")
	// ErrRuntimeDirUnavailable: the pod's environment names no runtime directory.
	ErrRuntimeDirUnavailable = errors.New("could not resolve runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)")
	// ErrAlreadyRuns: a pod of the name answers on the socket in its directory, or another
	// start of it is under way. Nothing of that pod was touched. See Config.AllowSecond.
	ErrAlreadyRuns = errors.New("pod already runs")
	// ErrLaunch: no process could be started, or not in the right place.
	ErrLaunch = errors.New("failed to launch pod runtime command")
	// ErrExited: the process ended before it was ready, with any status.
	ErrExited = errors.New("pod exited before becoming ready")
	// ErrMalformedReady: the ready line lacks its name or its socket.
	ErrMalformedReady = errors.New("malformed ready line")
	// ErrNameMismatch: the ready line carries another pod's name.
	ErrNameMismatch = errors.New("pod became ready under another name")
	// ErrTimeout: the ready timeout passed first.
	ErrTimeout = errors.New("pod did not become ready")
	// ErrSocket: the announced socket can never be connected to, or is not this pod's.
	ErrSocket = errors.New("could not connect to pod socket")
)

// An Error says why a start did not end in a ready pod, and has the evidence. All errors
// of [Start] are of this type.
type Error struct {
	// Verdict is the verdict in the words of the contract and of podspawn -json:
	// invalid config, runtime directory unavailable, already runs, launch failed, exited
	// early, malformed ready line, wrong name, timed out, socket error or cancelled. It is
	// failed if the error is none of these.
	Verdict string `json:"verdict"`
	// Pod is the name that was asked for.
	Pod string `json:"name"`
	// LogPath is the pod's stderr.log; "" if the start failed before it was made.
	LogPath string `json:"log,omitempty"`
	// PID is the number that the pod's process had; 0 if none was started. If the verdict
	// is "already runs", it is that of the process that answers; 0 if that is not known.
	PID int `json:"pid,omitempty"`
	// SocketPath is the absolute path of the socket that the pod announced, or of that
	// of the pod that already runs; "" if there is none.
	SocketPath string `json:"socket,omitempty"`
	// Missing is what the start waited for when it timed out or was cancelled: "ready
	// line" or "socket". Why says why the last connection to the socket failed:
	// "missing" (there is no file), "not a socket", "refused" (nobody listens) or "deaf"
	// (its backlog is full).
	Missing string `json:"missing,omitempty"`
	Why     string `json:"why,omitempty"`
	// Stopped is true if the process was stopped at that time, as by SIGSTOP (Linux).
	// StopSignal is the name of the signal that did it, if that is known.
	Stopped    bool   `json:"stopped,omitempty"`
	StopSignal string `json:"stop_signal,omitempty"`
	// Status says how the process ended if the verdict is "exited early", in the words
	// of os.ProcessState; "" if the status was lost, and for other verdicts.
	Status string `json:"status,omitempty"`
	// Tail holds the last lines of the log, 8 at most, as the pod wrote them:
	// they may hold control characters, which Error escapes. Several lines of a stack
	// trace are one such as "… 23 lines of a stack trace", in Go with where in the program's own
	// code it begins: "… 23 lines of a stack trace: main.run at agent/main.go:12".
	Tail []string `json:"tail,omitempty"`
	// Reason is what begins the last report of a crash in the log, such as "panic: …" or
	// "TypeError: …", however long before the last lines that was. Without a report it is
	// the last line that names an error; "" if there is none. Of a traceback of Python it
	// is the last line. It has at most a few KiB, and may hold control characters.
	Reason string `json:"reason,omitempty"`
	// NearMiss is the first line that was probably meant to be a ready line and is none,
	// if there was no ready line: one that a logger has written, in UTF-16, or without tabs.
	NearMiss string `json:"near_miss,omitempty"`
	// Unfinished is what the pod wrote after its last newline.
	Unfinished string `json:"unfinished,omitempty"`
	// State says how the process ended; nil if no process was started, or if the status
	// was lost (see Pod.State). Unless the verdict is ErrExited, it usually shows the
	// SIGKILL of Start itself.
	State *os.ProcessState `json:"-"`
	// LogTrouble says why lines may be missing in the log, such as a full disk, or that
	// it was truncated or replaced; "" if there is no such reason.
	LogTrouble string `json:"log_trouble,omitempty"`
	// Strikes are the calls that Config.Faults have struck. Unseen says why a call could not
	// be looked at, and met no fault; "" if all could be.
	Strikes []fault.Strike `json:"strikes,omitempty"`
	Unseen  string         `json:"unseen,omitempty"`
	// Timeline tells how far the start came.
	Timeline Timeline `json:"timeline"`
	// Block has Error show several last lines as a block, below where the log is, and the
	// reason in its first line; false = all of them in its first line, with | between them.
	Block bool `json:"-"`
	// Err is the verdict with its details; it wraps one of the sentinels above
	// or a context's error, and the system's error where there was one.
	Err error `json:"-"`
}

// verdictOf returns the verdict of an error in words.
func verdictOf(err error) string {
	for _, v := range []struct {
		err  error
		name string
	}{
		{ErrInvalidConfig, "invalid config"},
		{ErrRuntimeDirUnavailable, "runtime directory unavailable"},
		{ErrAlreadyRuns, "already runs"},
		{ErrLaunch, "launch failed"},
		{ErrExited, "exited early"},
		{ErrMalformedReady, "malformed ready line"},
		{ErrNameMismatch, "wrong name"},
		{ErrTimeout, "timed out"},
		{ErrSocket, "socket error"},
		{context.Canceled, "cancelled"},
		{context.DeadlineExceeded, "cancelled"},
	} {
		if errors.Is(err, v.err) {
			return v.name
		}
	}
	return "failed"
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Error returns the verdict, the last lines of the log, and where to look. Control
// characters are escaped, so that nothing of a pod's output reaches a terminal raw.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(podlog.Printable(fmt.Sprint(e.Err)))
	inBlock := e.Block && len(e.Tail) > 1
	lines := e.shown(!inBlock)
	if inBlock && e.Reason != "" {
		b.WriteString(": " + podlog.Printable(abbreviate(e.Reason)))
	}
	if len(e.Tail) > 0 && !inBlock {
		if errors.Is(e.Err, ErrExited) {
			b.WriteString(": ")
		} else {
			b.WriteString("; last lines: ")
		}
		b.WriteString(strings.Join(lines, " | "))
	}
	if e.Unfinished != "" {
		b.WriteString("; unfinished line: " + strconv.Quote(abbreviate(e.Unfinished)))
	} else if len(e.Tail) == 0 && errors.Is(e.Err, ErrExited) {
		b.WriteString(": it wrote nothing")
	}
	if e.Pod != "" {
		fmt.Fprintf(&b, "\n\tpod: %s", podlog.PathText(e.Pod))
		if e.PID != 0 {
			fmt.Fprintf(&b, " (process %d)", e.PID)
		}
	}
	if e.LogPath != "" && e.PID != 0 { // else it is empty
		b.WriteString("\n\tlog: " + podlog.PathText(e.LogPath))
	}
	if inBlock {
		b.WriteString("\n\tlast lines:")
		for _, line := range lines {
			if line != "" {
				b.WriteString("\n\t\t" + line)
			}
		}
	}
	if why := podlog.NearMiss([]byte(e.NearMiss)); why != "" {
		fmt.Fprintf(&b, "\n\tnote: a ready line begins with YOI-READY and a tab, and the pod wrote %.200q: %s", e.NearMiss, why)
	}
	if e.Missing == "ready line" && e.Timeline.FirstLine == 0 && e.Unfinished == "" {
		b.WriteString("\n\tnote: the ready line belongs on stderr: the pod's stdout is " + os.DevNull + ", which nobody reads")
	}
	if e.LogTrouble != "" {
		b.WriteString("\n\tnote: " + e.LogTrouble)
	}
	const mostStrikes = 3
	for _, strike := range e.Strikes[:min(len(e.Strikes), mostStrikes)] {
		b.WriteString("\n\tfault: " + podlog.Printable(strike.String()))
	}
	if more := len(e.Strikes) - mostStrikes; more > 0 {
		fmt.Fprintf(&b, "\n\tfault: %d more calls were struck", more)
	}
	if e.Unseen != "" {
		b.WriteString("\n\tnote: a call met no fault: " + podlog.Printable(e.Unseen))
	}
	return b.String()
}

// shown returns the last lines as Error shows them, withReason with that before them.
func (e *Error) shown(withReason bool) (shown []string) {
	lines := e.Tail
	if withReason && len(lines) > 0 && e.Reason != "" && !slices.ContainsFunc(e.Tail, e.isReason) {
		lines = append([]string{e.Reason, "…"}, lines...)
	}
	for _, line := range lines {
		shown = append(shown, podlog.Printable(abbreviate(line)))
	}
	return shown
}

// isReason reports whether the reason begins with a line.
func (e *Error) isReason(line string) bool {
	return line == e.Reason || len(line) > 8 && strings.HasPrefix(e.Reason, line) || strings.Contains(line, e.Reason)
}

// Timeline records when the steps of a start were seen by the parent. The zero
// value of a duration means that the step did not happen.
type Timeline struct {
	// Start is the moment just before the process was started; the durations
	// count from it, by the monotonic clock.
	Start time.Time
	// Launched: the program was executed.
	Launched time.Duration
	// FirstLine: the first whole line of the log was read.
	FirstLine time.Duration
	// ReadyLine: the ready line was read.
	ReadyLine time.Duration
	// Connected: the socket was connected to, and the pod thereby ready.
	Connected time.Duration
	// Ended: the verdict, if it was another one than ready.
	Ended time.Duration
}

// mark records the time since the start in a step that has not happened yet.
func (t *Timeline) mark(step *time.Duration) {
	if *step == 0 {
		*step = max(1, time.Since(t.Start))
	}
}

// messageLine is how many bytes of one log line a message shows.
const messageLine = 1000

func abbreviate(line string) string {
	if len(line) <= messageLine {
		return line
	}
	return fmt.Sprintf("%s… (%d bytes more)", strings.ToValidUTF8(line[:messageLine], ""), len(line)-messageLine)
}

// A wait is what a start waits for, in the words of an Error.
type wait struct {
	missing, why string
	stopped      bool
	signal       string // that stopped it; "" = not known
	text         string // all of it, for a person
}

// waitsFor says what has not happened yet, and why.
func (s *start) waitsFor() wait {
	w := wait{missing: "ready line", text: "the ready line", stopped: proc.Stopped(s.process.pid)}
	if s.socket != "" {
		w.missing, w.text = "socket", "its socket "+s.shownSocket
		if s.socketErr != nil {
			w.why = s.socketState
			because := inSentences[w.why]
			if errors.Is(s.socketErr, errEnded) {
				because = errEnded.Error()
			}
			w.text += " (" + because + ")"
		}
	}
	if w.stopped {
		w.signal = unix.SignalName(stopSignal(s.process.pid))
		w.text += "; the process is stopped"
		switch w.signal {
		case "":
			w.text += ", as by SIGSTOP"
		case "SIGTTIN", "SIGTTOU":
			w.text += " by " + w.signal + ": it uses the terminal, which belongs to another process group"
		default:
			w.text += " by " + w.signal
		}
	}
	return w
}

// inSentences has what these words mean.
var inSentences = map[string]string{
	missing: "it does not exist", notSocket: "it is not a socket",
	refused: "the connection was refused, nobody listens on it", deaf: "its backlog is full, nobody accepts connections",
}
