//go:build unix && (!linux || portable)

package spawn

import "syscall"

// forkExec starts a process that inherits attr.Files and no other descriptor.
func forkExec(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	attr.Files = closingInheritable(attr.Files)
	return syscall.ForkExec(program, argv, attr)
}

// watchExit returns nil: there is no way to wait without reaping here.
func watchExit(int) func() { return nil }

// stopSignal returns 0: what has stopped a process is not known here.
func stopSignal(int) syscall.Signal { return 0 }

// isNoexec returns false: that is not known here.
func isNoexec(string) bool { return false }

// isKilled returns false: that is not known here.
func isKilled(int) bool { return false }
