package evidence

import (
	"example.com/podharness/spawn/podlog"
)

// What a pod, a client or the name of a file brings into a message is escaped where it is
// put there: it may have newlines, which those of the message itself could not be told from
// later. Names go through podlog.Printable, errors of the system, which have paths, through
// PrintableError.

// Reworded returns an error with another message.
func Reworded(text string, err error) error { return reworded{text, err} }

type reworded struct {
	text string
	error
}

func (e reworded) Error() string { return e.text }

func (e reworded) Unwrap() error { return e.error }

// PrintableError returns an error whose message is one line that can be shown on a terminal.
func PrintableError(err error) error {
	if err == nil {
		return nil
	}
	if text := podlog.Printable(err.Error()); text != err.Error() {
		return reworded{text, err}
	}
	return err
}
