package conformance

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"

	"example.com/podharness/spawn/podlog"
)

// UsageError is an error of the caller of a command: the exit status is 2.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

func (e UsageError) Unwrap() error { return e.Err }

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// ErrInterrupted is the error of a run that a signal has ended: the exit status is 130.
var ErrInterrupted = errors.New("interrupted")

const statuses = `
Exit status: 0 if nothing failed, 1 if a must failed (with -strict a should, too, or
-known lists what no longer shows), 2 for wrong usage, 3 if nothing failed but not
everything could be judged, 130 if it was interrupted.
`

// Status prints the error of a command, if there is one, and returns its exit status: that
// of [Report.Finish], unless the error came before.
func Status(name string, status int, err error, stderr io.Writer) int {
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "%s: %s\n", name, podlog.PrintableLines(err.Error()))
		if errors.As(err, new(UsageError)) {
			return 2
		}
		return cmp.Or(status, 3)
	}
	return status
}
