//go:build unix && !linux

package spawn

import "syscall"

// forkExec starts a process that inherits attr.Files and no other descriptor.
func forkExec(program string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	attr.Files = closingInheritable(attr.Files)
	return syscall.ForkExec(program, argv, attr)
}
