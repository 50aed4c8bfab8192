package fakepod

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"example.com/podharness/fakepod/reexec"
)

// ProgramEnv names the environment variable that holds the program if there is no
// argument -program. It is for clients that take the path of a pod but no arguments for it.
const ProgramEnv = "FAKEPOD_PROGRAM"

const usage = `usage: fakepod [pod] [-trace FILE] [-program PROGRAM|MODE] --workspace W --pod NAME [--session UUID | --profile P] [--ticket-role R]
       fakepod worker ... --worker NAME ... (the same)
       fakepod -help | -list | -version
`

// handshake is what the pod is told on its command line, by the flag's name.
type handshake map[string]string

var handshakeFlags = []string{"--workspace", "--pod", "--session", "--profile", "--ticket-role"}

// marker is the first argument that makes a host binary the fake pod.
const marker = "podharness-fakepod"

func init() { reexec.Register(marker, Main) }

// Command returns the program and the prefix arguments that start a fake pod,
// which behaves as program says: a program of steps or the name of a mode. The
// handshake arguments follow the prefix arguments. The name that Command returns is the
// path of the running executable, so that no other binary is needed.
//
// Command does not check program: the fake pod refuses a bad one when it is started.
func Command(program string) (name string, args []string) {
	return reexec.Path(), []string{marker, "-program", program}
}

// Main is the fake pod. args are its arguments without the program's name. Main either
// ends the process or returns the exit status. It is for the main function of a process:
// it takes over the process's signals and standard files.
//
// The arguments are the word pod, which is optional, then -program PROGRAM, then those of
// the handshake. The newer words worker and --worker NAME stand for pod and --pod NAME.
// Without -program, the environment variable FAKEPOD_PROGRAM holds the program. Without
// both, the fake pod is a healthy one. With -help alone, Main prints its usage. With
// -trace FILE before -program, Main appends to FILE what [ReadTrace] reads: a line of JSON
// with the other arguments, one with what it has inherited, a line when a step begins (the
// index of the step, CLOCK_MONOTONIC in ns, and the process), and lines of JSON with its
// connections.
func Main(args []string) int {
	if len(args) == 1 && slices.Contains([]string{"-h", "-help", "--help"}, args[0]) {
		return fail(write(os.Stdout, help()))
	}
	var role role
	var trace trace
	seen := ""
	for args = withoutPrefix(args); len(args) > 1 && slices.Contains([]string{"-role", "-trace", "-base", "-seen"}, args[0]); args = args[2:] {
		switch value := args[1]; args[0] + " " + value {
		case "-role fork": // see start
			return fail(fork(args[2:]))
		case "-role child":
			role.child = true
		case "-role daemon":
			role.daemon = true
		case "-trace " + value:
			if err := trace.open(value); err != nil {
				return fail(err)
			}
		case "-base " + value: // see daemonize
			trace.base, _ = strconv.Atoi(value)
		case "-seen " + value: // see Traced
			seen = value
		}
	}
	if trace.file != nil && !role.daemon {
		given := args
		if len(given) > 1 && given[0] == "-program" {
			given = given[2:]
		}
		trace.note(given)
		trace.note(inheritance(seen))
	}
	steps, told, err := parseArgs(args)
	if err != nil {
		fail(err)
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	dir, err := podDir(told["--pod"])
	if err == nil && strings.Contains(dir, "\n") {
		err = fmt.Errorf("the runtime directory has a newline in its path, which no ready line can tell: %q", dir)
	}
	if err != nil {
		return fail(err)
	}
	return fail(act(role, told, dir, steps, trace))
}

// fail says what went wrong, if anything, and returns the exit status.
func fail(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "fakepod: %v\n", err)
	return 1
}

func help() string {
	return fmt.Sprintf(`%s
A pod that misbehaves on command. PROGRAM is steps with ; between them, or the
name of a mode; -list prints the modes. Without -program, $%s says what to do,
and without that it is a healthy pod. The steps:

%s
The methods that a client may ask for in a line {"method":…,"params":…}:

%s
The exit status is the one of the step exit. Without it:
0  the steps are over, or it has stopped gracefully (SIGINT, the step stop, a shutdown)
1  a step has failed, or the pod directory cannot be made; stderr says why
2  a wrong argument, or a bad program: nothing was touched
130  a process of child or escape has stopped
`, usage, ProgramEnv, table(verbs()), table(methods()))
}

// table aligns the cells of rows, between which are tabs.
func table[T interface{ row() string }](rows []T) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, r.row())
	}
	_ = w.Flush() // a builder takes everything
	return b.String()
}

// names lists the rows' first words.
func names[T interface{ row() string }](rows []T) string {
	var names []string
	for _, r := range rows {
		names = append(names, strings.Fields(r.row())[0])
	}
	return strings.Join(names, ", ")
}

// withoutPrefix drops the prefix argument of the default command, in either dialect.
func withoutPrefix(args []string) []string {
	if len(args) > 0 && (args[0] == "pod" || args[0] == "worker") {
		return args[1:]
	}
	return args
}

// parseArgs reads what to act out and what the handshake tells.
func parseArgs(args []string) ([]Step, handshake, error) {
	program := cmp.Or(os.Getenv(ProgramEnv), "ready")
	if len(args) > 0 && args[0] == "-program" {
		if len(args) == 1 {
			return nil, nil, errors.New("-program needs a value")
		}
		program, args = args[1], withoutPrefix(args[2:]) // of a client
	}
	steps, err := Parse(program)
	if err != nil {
		return nil, nil, err
	}
	told, err := parseHandshake(args)
	return steps, told, err
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// args returns the arguments that tell another fake pod the same.
func (h handshake) args() (args []string) {
	for _, name := range handshakeFlags {
		if value, ok := h[name]; ok {
			args = append(args, name, value)
		}
	}
	return args
}

// parseHandshake is as strict as real pods are.
func parseHandshake(args []string) (handshake, error) {
	h := handshake{}
	has := func(name string) bool { _, ok := h[name]; return ok }
	for ; len(args) > 0; args = args[2:] {
		name := args[0]
		if name == "--worker" { // as newer pods call it
			name = "--pod"
		}
		switch known := slices.Contains(handshakeFlags, name); {
		case name == "-program":
			return nil, errors.New("-program comes first, before the handshake's arguments")
		case !known && strings.HasPrefix(name, "-"):
			return nil, fmt.Errorf("unknown flag %q", name)
		case !known:
			return nil, fmt.Errorf("unexpected argument %q", name)
		case has(name):
			return nil, fmt.Errorf("%s is given twice", name)
		case len(args) == 1:
			return nil, fmt.Errorf("%s needs a value", name)
		}
		h[name] = args[1]
	}
	switch pod, session := h["--pod"], has("--session"); {
	case !has("--workspace"):
		return nil, errors.New("--workspace is missing")
	case !has("--pod"):
		return nil, errors.New("--pod is missing")
	case pod == "" || pod == "." || pod == ".." || strings.ContainsAny(pod, "/\x00\t\r\n"):
		return nil, fmt.Errorf("--pod %q is not one path element", pod)
	case session && has("--profile"):
		return nil, errors.New("--profile cannot be used with --session")
	case session && !uuidForm.MatchString(h["--session"]):
		return nil, fmt.Errorf("--session %q is not a UUID", h["--session"])
	}
	return h, nil
}

// podDir returns the absolute path of a pod's directory.
func podDir(pod string) (string, error) {
	for _, place := range [][2]string{{"YOI_RUNTIME_DIR", ""}, {"YOI_HOME", "/run"}, {"XDG_RUNTIME_DIR", "/yoi"}, {"HOME", "/.yoi/run"}} {
		if base := os.Getenv(place[0]); filepath.IsAbs(base) {
			return base + place[1] + "/" + pod, nil
		} else if base != "" {
			// Not filepath.Join: where .. leads behind a link, only the system knows.
			wd, err := os.Getwd()
			return wd + "/" + base + place[1] + "/" + pod, err
		}
	}
	return "", errors.New("no runtime directory: set YOI_RUNTIME_DIR, YOI_HOME, XDG_RUNTIME_DIR or HOME")
}
