package fakepod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
)

// ProgramEnv names the environment variable that holds the program where no
// -program argument does: for clients that can only be told which pod to start.
const ProgramEnv = "FAKEPOD_PROGRAM"

const usageLine = "usage: fakepod [pod] [-program PROGRAM|MODE] --workspace W --pod NAME [--session UUID | --profile P] [--ticket-role R]"

// handshake is what the pod is told on its command line.
type handshake struct {
	workspace, pod, session, profile, ticketRole string
}

// Main is the fake pod, with its arguments without the program's name: it
// returns the exit status, if it returns. It is meant for the main function of
// a process: it takes the process's signals and standard files as its own.
//
// Its arguments are the word pod, which is optional, then -program PROGRAM, then
// the handshake's. Without -program, the environment variable FAKEPOD_PROGRAM
// says what to do, and without that it is a healthy pod. With -list or -help
// alone it prints the modes, or how it is used.
func Main(args []string) int {
	if len(args) == 1 {
		switch args[0] {
		case "-list", "--list":
			return list()
		case "-h", "-help", "--help":
			return help()
		}
	}
	if len(args) > 0 && args[0] == "pod" { // the prefix argument of the default command
		args = args[1:]
	}
	role := rolePod
	if len(args) > 1 && args[0] == roleFlag {
		role, args = args[1], args[2:]
	}
	program := os.Getenv(ProgramEnv)
	if len(args) > 0 && args[0] == "-program" {
		if len(args) == 1 {
			return refuse(errors.New("-program needs a value"))
		}
		program, args = args[1], args[2:]
	} else if program == "" {
		program = "ready"
	}
	steps, err := parse(program)
	if err != nil {
		return refuse(err)
	}
	told, err := parseHandshake(args)
	if err != nil {
		return refuse(err)
	}
	runtimeDir, err := runtimeDir()
	if err != nil {
		fmt.Fprintf(os.Stderr, "fakepod: %v\n", err)
		return 1
	}
	// Not filepath.Join: where .. leads behind a link, only the system knows.
	dir, err := absolute(runtimeDir + "/" + told.pod)
	if err != nil {
		fmt.Fprintf(os.Stderr, "fakepod: %v\n", err)
		return 1
	}
	return act(role, told, dir, steps)
}

func refuse(err error) int {
	fmt.Fprintf(os.Stderr, "fakepod: %v\n%s\n", err, usageLine)
	return 2
}

func list() int {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, m := range modes {
		fmt.Fprintf(w, "%s\t%s\t# %s\n", m.Name, m.Program, m.Doc)
	}
	if err := w.Flush(); err != nil {
		return 1
	}
	return 0
}

func help() int {
	fmt.Printf(`%s

A pod that misbehaves on command. PROGRAM is steps with ; between them, or the
name of a mode; -list prints the modes. Without -program, $%s says what to do,
and without that it is a healthy pod. The steps:

`, usageLine, ProgramEnv)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, name := range verbOrder {
		fmt.Fprintf(w, "  %s\t%s\n", strings.TrimSpace(name+" "+verbs[name].usage), verbs[name].doc)
	}
	if err := w.Flush(); err != nil {
		return 1
	}
	return 0
}

var uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// parseHandshake is as strict as real pods are.
func parseHandshake(args []string) (handshake, error) {
	var h handshake
	flags := []struct {
		name  string
		value *string
	}{
		{"--workspace", &h.workspace},
		{"--pod", &h.pod},
		{"--session", &h.session},
		{"--profile", &h.profile},
		{"--ticket-role", &h.ticketRole},
	}
	seen := map[string]bool{}
	for len(args) > 0 {
		name := args[0]
		i := slices.IndexFunc(flags, func(f struct {
			name  string
			value *string
		}) bool {
			return f.name == name
		})
		switch {
		case i < 0 && strings.HasPrefix(name, "-"):
			return h, fmt.Errorf("unknown flag %q", name)
		case i < 0:
			return h, fmt.Errorf("unexpected argument %q", name)
		case seen[name]:
			return h, fmt.Errorf("%s is given twice", name)
		case len(args) == 1:
			return h, fmt.Errorf("%s needs a value", name)
		}
		seen[name] = true
		*flags[i].value, args = args[1], args[2:]
	}
	switch {
	case !seen["--workspace"]:
		return h, errors.New("--workspace is missing")
	case !seen["--pod"]:
		return h, errors.New("--pod is missing")
	case h.pod == "" || h.pod == "." || h.pod == ".." || strings.ContainsAny(h.pod, "/\x00\t\r\n"):
		return h, fmt.Errorf("--pod %q is not one path element", h.pod)
	case seen["--session"] && seen["--profile"]:
		return h, errors.New("--profile cannot be used with --session")
	case seen["--session"] && !uuidForm.MatchString(h.session):
		return h, fmt.Errorf("--session %q is not a UUID", h.session)
	}
	return h, nil
}

// absolute returns a path as it is from the working directory.
func absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	dir, err := os.Getwd()
	return dir + "/" + path, err
}

func runtimeDir() (string, error) {
	for _, place := range [][2]string{
		{"YOI_RUNTIME_DIR", ""},
		{"YOI_HOME", "run"},
		{"XDG_RUNTIME_DIR", "yoi"},
		{"HOME", ".yoi/run"},
	} {
		if base := os.Getenv(place[0]); base != "" {
			return strings.TrimSuffix(base+"/"+place[1], "/"), nil
		}
	}
	return "", errors.New("no runtime directory: set YOI_RUNTIME_DIR, YOI_HOME, XDG_RUNTIME_DIR or HOME")
}
