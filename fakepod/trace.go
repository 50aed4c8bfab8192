package fakepod

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Trace is what a fake pod has noted of itself and of its clients.
type Trace struct {
	// Args are its arguments, without those of [Traced]; nil = it was not started.
	Args []string
	// Inherited is what it was started with; nil = it has not come to note that.
	Inherited *Inherited
	// Steps are those that have begun, in order.
	Steps []Began
	// Connections are those that the step serve has accepted, in order.
	Connections []Connection
}

// Began is a step that has begun: its index in the program, when in ns of
// CLOCK_MONOTONIC, and the process, which is another one in a daemon.
type Began struct {
	Step    int
	At      int64
	Process int
}

// Inherited is what a fake pod was started with. Signals are by name. What was not seen
// is nil or 0. A shell that notes the signals, Umask and Limits before Go changes them is in
// between: it hides that SIGCHLD was ignored, and may add PWD, OLDPWD, SHLVL and _ to Env.
type Inherited struct {
	Process           int                  `json:"process"`
	Dir               string               `json:"dir"` // working directory
	Env               []string             `json:"env"`
	Descriptors       map[string]string    `json:"descriptors,omitempty"` // Linux
	ParentDeathSignal int                  `json:"parent_death_signal,omitempty"`
	Umask             string               `json:"umask,omitempty"` // such as 0022
	Blocked           []string             `json:"blocked"`
	Ignored           []string             `json:"ignored"`
	Limits            map[string][2]string `json:"limits,omitempty"` // soft and hard, by the name in /proc/PID/limits, such as "open files"
}

// Connection is a client's connection. Times are in ns of CLOCK_MONOTONIC.
type Connection struct {
	Number   int   `json:"connection"` // from 1
	Accepted int64 `json:"accepted"`
	Bytes    int64 `json:"bytes"`           // that the client has sent
	Spoke    int64 `json:"spoke,omitempty"` // when the first came; 0 = none has
	Ended    int64 `json:"ended,omitempty"` // 0 = it is open
}

// seen is what a shell notes before it becomes the fake pod: Go's runtime handles signals
// that were ignored, and raises limits, before the first line of Go runs.
const seen = `self=$1 marker=$2; shift 2; podharness_seen=
for file in status limits; do
while IFS= read -r line; do case $line in SigBlk*|SigIgn*|Umask*|Max*) podharness_seen="$podharness_seen$line
";; esac; done 2>/dev/null <"/proc/self/$file"
done 2>/dev/null
exec "$self" "$marker" -seen "$podharness_seen" "$@"`

// Traced is [Command] for a fake pod that notes what [ReadTrace] reads, in a file.
func Traced(program, file string) (name string, args []string) {
	name, args = Command(program)
	args = append([]string{args[0], "-trace", file}, args[1:]...)
	if runtime.GOOS != "linux" {
		return name, args
	}
	return "/bin/sh", append([]string{"-c", seen, "sh", name}, args...)
}

// ReadTrace reads a trace. It passes over what is no trace.
func ReadTrace(file string) (t Trace, err error) {
	text, err := os.ReadFile(file)
	for _, line := range bytes.SplitAfter(text, []byte("\n")) {
		var began Began
		var noted struct {
			*Inherited
			Connection
		}
		switch n, _ := fmt.Sscanf(string(line), "%d %d %d\n", &began.Step, &began.At, &began.Process); {
		case n == 3:
			t.Steps = append(t.Steps, began)
		case t.Args == nil && bytes.HasPrefix(line, []byte("[")):
			_ = json.Unmarshal(line, &t.Args)
		case json.Unmarshal(line, &noted) != nil:
		case noted.Inherited != nil:
			t.Inherited = noted.Inherited
		case noted.Number == len(t.Connections)+1:
			t.Connections = append(t.Connections, noted.Connection)
		case noted.Number > 0 && noted.Number <= len(t.Connections):
			t.Connections[noted.Number-1] = noted.Connection
		}
	}
	return t, err
}

// trace is where a fake pod notes; the zero trace is nowhere.
type trace struct {
	file *os.File // of nil, each write is an error that nobody looks at
	base int      // the index of the first step, of a daemon
}

// open opens a file under a name that stays when the directory changes.
func (t *trace) open(file string) (err error) {
	if file, err = filepath.Abs(file); err == nil {
		t.file, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	}
	return err
}

func (t trace) step(i int) {
	_, _ = fmt.Fprintf(t.file, "%d %d %d\n", t.base+i, monotonic(), os.Getpid())
}

func (t trace) note(what any) { _ = json.NewEncoder(t.file).Encode(what) }

var limit = regexp.MustCompile(`(?m)^Max (.*?)  +(\S+)  +(\S+)`)

// inheritance is what this process was started with; seen has lines of /proc/self/status
// and /proc/self/limits.
func inheritance(seen string) Inherited {
	i := Inherited{Process: os.Getpid(), Env: os.Environ(), ParentDeathSignal: parentDeathSignal}
	i.Dir, _ = os.Getwd()
	i.Descriptors, _ = inherited()
	for _, line := range strings.Split(seen, "\n") {
		switch name, value, _ := strings.Cut(line, ":\t"); name {
		case "Umask":
			i.Umask = value
		case "SigBlk":
			i.Blocked = signals(value)
		case "SigIgn":
			i.Ignored = signals(value)
		}
	}
	for _, found := range limit.FindAllStringSubmatch(seen, -1) {
		if i.Limits == nil {
			i.Limits = map[string][2]string{}
		}
		i.Limits[found[1]] = [2]string{found[2], found[3]}
	}
	return i
}

// signals returns the names of the signals of a mask in /proc/PID/status.
func signals(mask string) []string {
	bits, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return nil
	}
	found := []string{} // not nil: it was seen that there are none
	for n := range 64 {
		if bits>>n&1 == 1 {
			name := unix.SignalName(syscall.Signal(n + 1))
			if name == "" {
				name = fmt.Sprint("signal ", n+1)
			}
			found = append(found, name)
		}
	}
	return found
}
