package spawn

import (
	"errors"
	"fmt"
	"path/filepath"

	"example.com/podharness/spawn/handshake"
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
		s.socket = handshake.Below(proc.WorkingDir(s.process.pid, s.Dir), told.Socket)
	}
	return nil
}

// A wait is what a start waits for, in the words of an Error.
type wait struct {
	missing, why string
	stopped      bool
	text         string // all of it, for a person
}

// waitsFor says what has not happened yet, and why.
func (s *start) waitsFor() wait {
	w := wait{missing: "ready line", text: "the ready line", stopped: proc.Stopped(s.process.pid)}
	if s.socket != "" {
		w.missing, w.text = "socket", "its socket "+s.socket
		if s.socketErr != nil {
			w.why = s.socketState
			because := inSentences[w.why]
			if errors.Is(s.socketErr, errEnded) {
				because = errEnded.Error()
			}
			w.text += " (" + because + ")"
		}
	}
	if w.stopped {
		w.text += "; the process is stopped, as by SIGSTOP"
	}
	return w
}
