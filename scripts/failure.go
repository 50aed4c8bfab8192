package scripts

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"example.com/podharness/harness"
	"example.com/podharness/harness/sandbox"
	"example.com/podharness/spawn"
)

// A Failure says why a script failed, as values. The script's log has the message.
type Failure struct {
	Verb      string            // the verb of this package that failed the script, such as podstart; "" = none
	Err       error             // what Verb or the harness found; nil = a verb of testscript failed, and its line in the log says why
	Cut       bool              // the script's deadline cut the wait: Err says nothing about the pod
	Kit       bool              // the trouble is the script's, the kit's or the machine's: Err says nothing about the pod
	Stdout    string            // what the last verb of this package had printed there when one of testscript failed, at most 4 KiB of it
	Stderr    string            // as Stdout
	LastLines map[string]string // the last line of each pod's log that is no ready line, by the pod's name
}

// errorOf returns the error that a message is made of, or the message as an error.
func errorOf(format string, args []any) error {
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			return err
		}
	}
	return fmt.Errorf(format, args...)
}

// fatalError fails the script, with ! too.
type fatalError struct {
	error
	cut bool // no time was left for the script
	kit bool // the trouble is not the pod's
}

func (e fatalError) Unwrap() error { return e.error }

// failureOf returns a failure that an error of a verb or of the harness is.
func failureOf(verb string, err error) Failure {
	var fatal fatalError
	_ = errors.As(err, &fatal)
	var e *harness.Error
	own := new(*sandbox.Error)
	return Failure{Verb: verb, Err: err, Cut: fatal.cut || errors.As(err, &e) && e.Cut, Kit: fatal.kit || errors.As(err, own) || isShortage(err)}
}

// isShortage reports whether an error comes of what this process or the machine has too
// little of. No pod's own error is an error number.
func isShortage(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT}, func(shortage error) bool { return errors.Is(err, shortage) }) ||
		errors.Is(err, spawn.ErrLaunch) && errors.Is(err, syscall.EAGAIN)
}
