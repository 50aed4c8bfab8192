package sandbox

import (
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A Terminal is the pseudo terminal of a child, as a person has it who types.
type Terminal struct {
	*os.File
	copied chan struct{}
}

// StartOnTerminal starts a command on a terminal of 80 by 24 characters, in a session of its
// own. What it writes there is copied to a file.
func StartOnTerminal(cmd *exec.Cmd, to *os.File) (*Terminal, error) {
	fd, err := unix.FcntlInt(to.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), to.Name())
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		file.Close()
		return nil, err
	}
	t := &Terminal{terminal, make(chan struct{})}
	go func() {
		defer close(t.copied)
		defer file.Close()
		_, _ = io.Copy(file, terminal) // ends with an error when the last process of the terminal has
	}()
	return t, nil
}

// AwaitCopy waits until all was copied that a child has written which has ended, or half a
// second if another process has the terminal open.
func (t *Terminal) AwaitCopy() { EndsWithin(t.copied, 500*time.Millisecond) }
