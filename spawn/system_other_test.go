//go:build !linux || portable

package spawn_test

import (
	"errors"
	"os/exec"
	"testing"
)

// isLinux tells that spawn does here what it does on systems other than Linux.
const isLinux = false

// becomeSubreaper cannot be had here.
func becomeSubreaper() error { return errors.ErrUnsupported }

const newMounts = 0

func mountOver(string) error { return errors.ErrUnsupported }

func inNamespaces(t *testing.T, _ *exec.Cmd, _ uintptr) { t.Skip("there are no namespaces") }
