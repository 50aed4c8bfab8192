//go:build unix && (!linux || portable || !(amd64 || arm64))

package fault

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
)

// A Session cannot be on this system.
type Session struct {
	NoNewPrivs bool
	Except     string
}

// Supported returns why this system cannot make system calls fail.
func Supported() error {
	return fmt.Errorf("%w: only Linux on amd64 and arm64 can, not %s on %s", ErrUnsupported, runtime.GOOS, runtime.GOARCH)
}

// New returns what is wrong with a fault, as far as this system knows; else [Supported].
func New(faults []Fault, struck func(Strike)) (*Session, error) {
	for _, f := range faults {
		if err := f.Check(); err != nil {
			return nil, err
		}
	}
	return nil, Supported()
}

// Start returns [Supported].
func (*Session) Start(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	return 0, Supported()
}

// StartCommand returns [Supported].
func (*Session) StartCommand(cmd *exec.Cmd, start func() error) error { return Supported() }

// Fail returns [Supported].
func (*Session) Fail(Fault) error { return Supported() }

// Heal does nothing.
func (*Session) Heal() {}

// Done returns nil.
func (*Session) Done() <-chan struct{} { return nil }

// Strikes returns nil.
func (*Session) Strikes() []Strike { return nil }

// Err returns [Supported].
func (*Session) Err() error { return Supported() }

// Names returns nil: which system calls there are is not known here.
func Names() []string { return nil }

func known(name string) bool { return name != "" }

func shortens(string) bool { return true }
