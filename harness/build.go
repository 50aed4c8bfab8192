package harness

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/podharness/harness/internal/evidence"
	"example.com/podharness/spawn/podlog"
)

// Build builds a Go program and returns the path of its executable:
//
//	pod := harness.StartPod(t, harness.Config{Command: spawn.Command{Program: harness.Build(t, "./cmd/agent")}})
//
// pkg is the import path of a command, or its directory, as go build has it in the working
// directory; flags are further flags of go build, such as "-tags=e2e". A program is built once for
// the test binary. It has -race if the tests have, and -cover if they have or if GOCOVERDIR is
// set: it writes its data where the tests do, which is the directory of go test -cover -args
// -test.gocoverdir=DIR, or where GOCOVERDIR says. It is removed when the test binary has ended, in
// whatever way. Build fails each test that wants a program which cannot
// be built, with the output of the go command.
func Build(tb TB, pkg string, flags ...string) string {
	tb.Helper()
	path, err := build(tb, pkg, flags)
	if err != nil {
		tb.Fatalf("harness: build %s: %s", podlog.Printable(pkg), podlog.PrintableLines(err.Error()))
	}
	return path
}

// aBuild is a program that is built once.
type aBuild struct {
	once sync.Once
	path string
	err  error
}

var (
	buildsMu sync.Mutex // guards both
	builds   = map[string]*aBuild{}
	covered  = map[string]string{} // where the data of a program's coverage goes, by its path
)

func build(tb TB, pkg string, flags []string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(flags, func(f string) bool {
		return strings.TrimLeft(f, "-") == "o" || strings.HasPrefix(strings.TrimLeft(f, "-"), "o=")
	}); i >= 0 {
		return "", fmt.Errorf("flag %s: Build chooses where the program is", flags[i])
	}
	if pkg == "" || strings.HasPrefix(pkg, "-") {
		return "", fmt.Errorf("%q is no package", pkg)
	}
	buildsMu.Lock()
	key := fmt.Sprintf("%q", append([]string{dir, pkg}, flags...))
	b := builds[key]
	if b == nil {
		b = &aBuild{}
		builds[key] = b
	}
	buildsMu.Unlock()
	b.once.Do(func() { b.path, b.err = runBuild(tb, dir, pkg, flags) })
	return b.path, b.err
}

func runBuild(tb TB, dir, pkg string, flags []string) (path string, err error) {
	to, err := TempDir()
	if err != nil {
		return "", err
	}
	args := []string{"build", "-buildvcs=false", "-o", to + "/"} // a directory: go build names the program
	if isBuiltWith("-race") {
		args = append(args, "-race")
	}
	data := coverDir()
	if data != "" {
		args = append(args, "-cover")
	}
	if mode := testing.CoverMode(); mode != "" && data != "" {
		args = append(args, "-covermode="+mode)
	}
	const usual = 10 * time.Minute
	timeout, note := beforeDeadline(tb, "time", usual)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", slices.Concat(args, flags, []string{"--", pkg})...)
	cmd.Dir, cmd.WaitDelay = dir, time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	switch said := strings.TrimSpace(evidence.Shorten(out.String(), 16<<10)); {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("Build needs the go command: %w", err)
	case ctx.Err() != nil:
		return "", cut(fmt.Errorf("it took longer than %v", timeout), note)
	case err != nil:
		return "", fmt.Errorf("%w: %s\n\t%s", err, strings.Join(cmd.Args, " "), strings.ReplaceAll(said, "\n", "\n\t"))
	}
	programs, err := os.ReadDir(to)
	if err != nil {
		return "", err
	}
	if len(programs) != 1 {
		return "", fmt.Errorf("it has %d programs: a package main is one", len(programs))
	}
	path = filepath.Join(to, programs[0].Name())
	buildsMu.Lock()
	defer buildsMu.Unlock()
	covered[path] = data
	return path, nil
}

// isBuiltWith reports whether the test binary was built with a flag.
func isBuiltWith(flag string) bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: flag, Value: "true"})
}

// coverDir returns where the data of the coverage of what is built goes; "" = nobody wants it.
// (go test -cover has the variable name a directory that it removes, also where -test.gocoverdir
// says another one.)
func coverDir() string {
	dir := os.Getenv("GOCOVERDIR")
	if own := flag.Lookup("test.gocoverdir"); own != nil && own.Value.String() != "" {
		dir = own.Value.String()
	}
	if dir == "" {
		return ""
	}
	dir, _ = filepath.Abs(dir)
	return dir
}

// coverEnv returns what the environment of a program that was built needs; nothing of another.
func coverEnv(program string) []string {
	buildsMu.Lock()
	defer buildsMu.Unlock()
	if dir := covered[program]; dir != "" {
		return []string{"GOCOVERDIR=" + dir}
	}
	return nil
}
