// Package fault makes system calls of a process fail (Linux). A [Fault] says which calls,
// on what, which of them, and what happens. Its text is an expression such as strace's:
//
//	rename:path=**/status.json:error=ENOSPC:when=1
//
// A [Session] starts a process under faults. Its number, parent, group, status, descriptors,
// environment, limits and signal mask are as without them, and so is the error of a program
// that cannot be executed. What differs: a parent-death signal kills it if this process ends;
// no_new_privs is set if this process lacks CAP_SYS_ADMIN (see [Session.NoNewPrivs]); and it
// cannot have a seccomp listener of its own.
//
// # How it works
//
// The child is first this very executable. It takes a seccomp filter that has the named calls
// wait for an answer (seccomp_unotify(2)), hands the listener to this process, and executes the
// program. Calls that no fault names cost nothing. Any program that imports this package may
// become that child: initialization that runs before its own must not have side effects.
//
// A call of another architecture's table (32 bits, x32) and what io_uring does are not seen.
// The kernel answers ENOSYS to each named call once this process has ended. The started process
// is killed then, but not what it has left behind. While this process is stopped, each
// named call waits.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is matched by the error of a [Session] that cannot be on this system.
var ErrUnsupported = errors.New("this system cannot make system calls fail")

// A Fault says which calls fail, and how. Calls are counted over the process and whatever it
// starts, all threads together, in the order in which they come. Without any of Error, Signal,
// Delay, Short and Look, the calls are only noted.
type Fault struct {
	// Calls names system calls and families of them, separated by commas: see [Names].
	Calls string
	// Path is a pattern for what the call is on: an absolute path, also the one that a
	// descriptor is open on or a socket is bound to; for other descriptors the text of
	// their link in /proc/PID/fd. * matches all but slashes, ** also these, ? one byte
	// but a slash, [a-z] one of a class, and \ quotes. Of a call with two paths
	// either may match. "" = whatever it is on.
	Path string
	// When is the number of the call that fails, from 1; with Onwards all later ones do,
	// too. 0 = each.
	When    int
	Onwards bool
	// Delay is how long the call waits first.
	Delay time.Duration
	// Signal is sent to the caller's process before the call is done. One that ends it
	// leaves the call undone.
	Signal syscall.Signal
	// Error is the result; the call is not done, so that a close leaves its descriptor open,
	// which one that fails in life does not. 0 = the call is done.
	Error syscall.Errno
	// Short is how many bytes a write is cut to; 0 = it is not. The caller may write the
	// rest.
	Short int
	// Later has nothing strike: the calls are watched, so that [Session.Fail] can have faults
	// strike them while the process runs. It goes with the names of calls alone.
	Later bool
	// Look is called while the call waits, in a goroutine of its own. It may answer the
	// call; otherwise the call is done once Look has returned, which must be when Ended is
	// closed. There is no strike.
	Look func(Call)
}

// A Call is a system call that waits.
type Call interface {
	// Name returns the name of the system call.
	Name() string
	// Thread returns the number of the thread that calls, and PID that of its process; 0
	// if it has ended.
	Thread() int
	PID() int
	// Paths returns what the call is on, as Fault.Path has it.
	Paths() []string
	// Descriptor returns the first descriptor that the call is on; -1 if there is none.
	Descriptor() int
	// Data returns the bytes that the call would write, at most so many, and how many
	// there are. It returns an error if the call is no write that Short knows, or its
	// process has ended.
	Data(most int) (data []byte, size int, err error)
	// Return ends the call with a result. The call is not done. Return reports whether the
	// call still waited: its thread may have ended, or a signal may have interrupted it
	// (before Linux 5.19), and then it comes again.
	Return(value int) bool
	// Ended is closed when all processes of the session have ended.
	Ended() <-chan struct{}
}

// Parse reads the text of a fault: names of calls, and then parts such as key=value, separated
// by colons. The keys are path, when (N, or N+ for it and all later ones), error, signal, delay
// and short; the word later stands alone. A colon in a path is written as \:. The error names the part that is wrong.
func Parse(text string) (f Fault, err error) {
	parts := split(text)
	f.Calls = parts[0]
	var given []string
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		if slices.Contains(given, key) {
			err = fmt.Errorf("there are two %s=", key)
		} else if err = f.set(key, value); err != nil {
			err = fmt.Errorf("%q: %w", part, err)
		}
		if err != nil {
			return Fault{}, fmt.Errorf("fault %q: %w", text, err)
		}
		given = append(given, key)
	}
	return f, f.Check()
}

// split splits at colons that are not quoted.
func split(text string) (parts []string) {
	start := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case ':':
			parts, start = append(parts, text[start:i]), i+1
		}
	}
	return append(parts, text[start:])
}

func (f *Fault) set(key, value string) (err error) {
	switch key {
	case "path":
		if f.Path = value; value == "" {
			err = errors.New("it is empty")
		}
	case "when":
		var number string
		number, f.Onwards = strings.CutSuffix(value, "+")
		if f.When, err = strconv.Atoi(number); err != nil || f.When < 1 {
			err = errors.New("want a number from 1, or such a number and +")
		}
	case "error":
		for no := syscall.Errno(1); f.Error == 0 && no < 4096; no++ {
			if unix.ErrnoName(no) == value && value != "" {
				f.Error = no
			}
		}
		if f.Error == 0 {
			err = errors.New("unknown error (want a name such as ENOSPC)")
		}
	case "signal":
		if f.Signal = unix.SignalNum("SIG" + strings.TrimPrefix(value, "SIG")); f.Signal == 0 {
			err = errors.New("unknown signal (want a name such as KILL)")
		}
	case "delay":
		if f.Delay, err = time.ParseDuration(value); err != nil || f.Delay <= 0 {
			err = errors.New("want a duration such as 200ms")
		}
	case "short":
		if f.Short, err = strconv.Atoi(value); err != nil || f.Short < 1 {
			err = errors.New("want a number of bytes from 1")
		}
	case "later":
		if f.Later = true; value != "" {
			err = errors.New("later has no value")
		}
	default:
		err = errors.New("unknown part (want path=, when=, error=, signal=, delay= or short=)")
	}
	return err
}

// Check returns an error that names what is wrong in a fault.
func (f Fault) Check() error {
	err := f.checkCalls()
	_, pathErr := compile(f.Path)
	switch {
	case err != nil:
	case pathErr != nil:
		err = pathErr
	case f.When < 0 || f.Delay < 0 || f.Short < 0 || f.Onwards && f.When == 0:
		err = errors.New("a number is negative, or Onwards is without When")
	case f.Error != 0 && unix.ErrnoName(f.Error) == "":
		err = fmt.Errorf("error: unknown error %d", int(f.Error))
	case f.Signal != 0 && unix.SignalName(f.Signal) == "":
		err = fmt.Errorf("signal: unknown signal %d", int(f.Signal))
	case f.Short > 0 && f.Error != 0:
		err = errors.New("error= and short= exclude each other")
	case f.Later && (f.String() != f.Calls+":later" || f.Look != nil):
		err = errors.New("later goes with the names of calls alone")
	case f.Look != nil && (f.Short > 0 || f.Error != 0 || f.Signal != 0):
		err = errors.New("error=, signal= and short= do not go with Look")
	}
	if err != nil {
		return fmt.Errorf("fault %q: %w", f.String(), err)
	}
	return nil
}

func (f Fault) checkCalls() error {
	for _, name := range strings.Split(f.Calls, ",") {
		switch {
		case !known(name):
			return fmt.Errorf("unknown system call %q (families: %s)", name, strings.Join(Names(), ", "))
		case f.Short > 0 && !shortens(name):
			return fmt.Errorf("short= is for write, pwrite64, writev, pwritev and sendto, not for %s", name)
		}
	}
	return nil
}

// String returns the text of a fault, without Look.
func (f Fault) String() string {
	parts := []string{f.Calls}
	add := func(is bool, key string, value any) {
		if is {
			parts = append(parts, fmt.Sprintf("%s=%v", key, value))
		}
	}
	add(f.Path != "", "path", strings.Join(split(f.Path), `\:`))
	add(f.Delay != 0, "delay", f.Delay)
	add(f.Signal != 0, "signal", strings.TrimPrefix(unix.SignalName(f.Signal), "SIG"))
	add(f.Error != 0, "error", unix.ErrnoName(f.Error))
	add(f.Short != 0, "short", f.Short)
	add(f.When != 0, "when", strconv.Itoa(f.When)+map[bool]string{true: "+"}[f.Onwards])
	if f.Later {
		parts = append(parts, "later")
	}
	return strings.Join(parts, ":")
}

// MarshalText returns the text of a fault.
func (f Fault) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText is [Parse].
func (f *Fault) UnmarshalText(text []byte) (err error) {
	*f, err = Parse(string(text))
	return err
}

// Expand replaces words in braces, such as {name}, in the path of a fault.
func (f Fault) Expand(words map[string]string) Fault {
	for word, value := range words {
		f.Path = strings.ReplaceAll(f.Path, "{"+word+"}", Quote(value))
	}
	return f
}

// A Strike is a call that a fault has struck.
type Strike struct {
	Fault  int       `json:"fault"`           // its place among the faults, from 0
	Number int       `json:"number"`          // of the call, among those that the fault counts, from 1
	Call   string    `json:"call"`            // the system call's name
	Paths  []string  `json:"paths,omitempty"` // what it is on, as Fault.Path has it; a renaming has two
	PID    int       `json:"pid"`             // the process
	Thread int       `json:"thread"`          // that calls, and its number is the process's if it is the first one
	Result string    `json:"result"`          // such as ENOSPC, SIGKILL, 1 byte of 512, delayed 200ms; "" = only noted
	Time   time.Time `json:"time"`
}

// String returns the strike in words.
func (s Strike) String() string {
	on := strings.Join(s.Paths, " -> ")
	if on != "" {
		on = " " + on
	}
	result := s.Result
	if result != "" {
		result = ": " + result
	}
	return fmt.Sprintf("call %d of %s%s by thread %d of process %d%s", s.Number, s.Call, on, s.Thread, s.PID, result)
}
