package harness

import (
	"errors"

	"example.com/podharness/spawn/podlog"
)

// What a pod, a client or the name of a file brings into a message is escaped where it is
// put there: it may have newlines, which those of the message itself could not be told from
// later. Names go through podlog.Printable, errors of the system, which have paths, through
// printableError.

// reworded is an error with another message.
type reworded struct {
	text string
	error
}

func (e reworded) Error() string { return e.text }

func (e reworded) Unwrap() error { return e.error }

// printableError returns an error whose message is one line that can be shown on a terminal.
func printableError(err error) error {
	if err == nil {
		return nil
	}
	if text := podlog.Printable(err.Error()); text != err.Error() {
		return reworded{text, err}
	}
	return err
}

// printableErrors is printableError for each of the errors that were joined.
func printableErrors(err error) (all []error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && err.Error() == errors.Join(joined.Unwrap()...).Error() {
		for _, one := range joined.Unwrap() {
			all = append(all, printableErrors(one)...)
		}
		return all
	}
	return append(all, printableError(err))
}

// name is the pod's name in messages.
func (p *Pod) name() string { return podlog.Printable(p.Name) }

// name is the client's program in messages.
func (c *Client) name() string { return podlog.Printable(c.cfg.Program) }

// testName is the name of a test in messages.
func testName(tb TB) string { return podlog.Printable(tb.Name()) }
