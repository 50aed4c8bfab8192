package sandbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"example.com/podharness/fakepod/reexec"
	"example.com/podharness/spawn"
)

// StandIn returns an executable that starts a command with the arguments that it is
// given: the variable that names it is a path, never a command line.
func (b *Box) StandIn(command spawn.Command) (string, error) {
	if strings.Contains(command.Program, "/") {
		var err error
		if command.Program, err = filepath.Abs(command.Program); err != nil {
			return "", err
		}
	}
	var words []string
	for _, word := range append([]string{command.Program}, command.PrefixArgs...) {
		words = append(words, "'"+strings.ReplaceAll(word, "'", `'\''`)+"'")
	}
	script := "#!/bin/sh\n# Starts the pod of this test with the arguments that a client gives.\n"
	if slices.ContainsFunc(command.PrefixArgs, func(arg string) bool { return arg == "pod" || arg == "worker" }) {
		// The prefix argument of a client's command is there already.
		script += "[ \"$1\" = pod ] && shift\n"
	}
	if link := reexec.RunningHere(command.Program); link != command.Program {
		// By its path it may be another program by now; and in other namespaces the link
		// leads to another process.
		namespace, _ := os.Readlink("/proc/self/ns/pid")
		script += fmt.Sprintf(`[ %[1]s -ef %[2]s ] || ! [ -x %[2]s ] || [ "$(readlink /proc/self/ns/pid)" != '%[3]s' ] || exec %[2]s %[4]s "$@"`+"\n",
			words[0], link, namespace, strings.Join(words[1:], " "))
	}
	script += "exec " + strings.Join(words, " ") + ` "$@"` + "\n"
	place, ok := places.Load(b.base)
	if !ok {
		var err error
		if place, err = b.findPlace(); err != nil {
			return "", err
		}
		places.Store(b.base, place)
	}
	return place.(placing)(b, script)
}

// A placing makes an executable file of a script, and returns its path.
type placing func(b *Box, script string) (path string, err error)

// places are what findPlace has found, by the base of boxes.
var places sync.Map

// findPlace returns a placing of which the files can be executed.
func (b *Box) findPlace() (place placing, err error) {
	for _, place := range []placing{(*Box).inFile, (*Box).inMemory} {
		path, placeErr := place(b, "#!/bin/sh\n")
		if placeErr == nil {
			placeErr = execute(path)
		}
		if placeErr == nil {
			return place, nil
		}
		err = cmp.Or(err, placeErr)
	}
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w; is it mounted noexec? Set TMPDIR to a directory below which programs can be executed, whose path has at most 40 bytes", err)
	}
	return nil, &Error{"execute programs below " + filepath.Dir(b.base), err}
}

func execute(path string) (err error) {
	for range 100 {
		// What another goroutine forks may have the file open for writing for a moment.
		if err = exec.Command(path).Run(); !errors.Is(err, syscall.ETXTBSY) {
			break
		}
	}
	return err
}

func (b *Box) inFile(script string) (string, error) {
	own, err := b.Own()
	if err != nil {
		return "", err
	}
	dir := fmt.Sprintf("command%x", rand.Uint64())
	if err := own.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	file, err := own.Create(dir+"/pod.tmp", 0o700)
	if err != nil {
		return "", err
	}
	_, err = file.WriteString(script)
	if err = errors.Join(err, file.Close()); err != nil {
		return "", err
	}
	// Renamed, not written in place: nobody has it open for writing then.
	return filepath.Join(own.Name(), dir, "pod"), own.Rename(dir, "pod.tmp", "pod")
}
