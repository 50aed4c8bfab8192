// Package reexec is the inside of fakepod, harness and scripts: no promise is made about it.
// One binary is several programs. Which one a process is, its first argument says.
package reexec

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
)

var programs []string

// Register has each process of this binary whose first argument is name run main in place of
// the binary's own, with the arguments that follow, and exit with the status that main
// returns. It is called while packages are initialized: the host needs no cooperation, not
// even a TestMain.
func Register(name string, main func(args []string) int) {
	if slices.Contains(programs, name) {
		panic("reexec: there are two programs " + name)
	}
	programs = append(programs, name)
	if len(os.Args) > 1 && os.Args[1] == name {
		Exit(main(os.Args[2:]))
	}
}

// Command returns the command of a program of this binary.
func Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(Running(Path()), append([]string{name}, args...)...)
	cmd.Args[0] = Path()
	return cmd
}

// Path returns the path of this binary, for other programs and for people.
func Path() string {
	if exe, err := os.Executable(); err == nil {
		return exe
	}
	return os.Args[0]
}

// Running returns what this process executes to start a program: for this binary itself, what
// runs now. At its path there may be another one by now, such as a newer build.
func Running(program string) string { return running(program, "/proc/self/exe") }

// RunningHere is Running for another process, which executes it while this one lives.
func RunningHere(program string) string {
	return running(program, fmt.Sprintf("/proc/%d/exe", os.Getpid()))
}

func running(program, link string) string {
	if program != Path() {
		return program
	}
	if _, err := os.Stat(link); err != nil {
		return program
	}
	return link
}

// Exit ends the process. os.Exit would write to stderr in a binary that measures coverage and
// was not told where to put it, and takes a second in one with the race detector.
func Exit(status int) {
	if os.Getenv("GOCOVERDIR") != "" {
		os.Exit(status)
	}
	syscall.Exit(status)
}
