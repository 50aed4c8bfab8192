package spawn

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"example.com/podharness/spawn/options"
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
	s.socket, s.shownSocket = told.Socket, podlog.PathText(told.Socket)
	if !filepath.IsAbs(told.Socket) {
		s.socket = options.Below(proc.WorkingDir(s.process.pid, s.Dir), told.Socket)
		s.shownSocket = fmt.Sprintf("%s (the relative path %s%s)", podlog.PathText(s.socket), podlog.PathText(told.Socket), noted(told.Socket))
	}
	return nil
}

// noted says what a relative path is not, though it looks so.
func noted(path string) string {
	switch {
	case strings.HasPrefix(path, "@"):
		return ", not an abstract socket"
	case strings.HasPrefix(path, "~"):
		return ": nobody expands ~"
	case strings.HasPrefix(path, "unix:"):
		return ", not a URL"
	}
	return ""
}
