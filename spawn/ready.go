package spawn

import (
	"errors"
	"fmt"
	"path/filepath"

	"example.com/podharness/spawn/podlog"
	"example.com/podharness/spawn/proc"
)

// ready takes the ready line.
func (s *start) ready(line []byte, cut bool) error {
	told, err := podlog.ParseReady(line)
	if cut {
		err = errors.New("it is longer than 64 KiB")
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w: %q (%w)", ErrMalformedReady, abbreviate(podlog.LineText(line, cut)), err)
	case told.Name != s.PodName:
		return fmt.Errorf("%w: got %q, want %q", ErrNameMismatch, told.Name, s.PodName)
	}
	s.socket = told.Socket
	if !filepath.IsAbs(told.Socket) {
		s.socket = below(proc.WorkingDir(s.process.pid, s.Dir), told.Socket)
	}
	return nil
}

const isStoppedNote = "; the process is stopped, as by SIGSTOP"

// missing says what has not happened yet, and why.
func (s *start) missing() string {
	missing := "the ready line"
	if s.socket != "" {
		missing = "its socket " + s.socket
		if s.socketErr != nil {
			missing += " (" + socketTrouble(s.socket, s.socketErr) + ")"
		}
	}
	if proc.Stopped(s.process.pid) {
		missing += isStoppedNote
	}
	return missing
}
