//go:build !portable

package spawn_test

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const isLinux = true

// becomeSubreaper has this process inherit the orphans among its descendants.
func becomeSubreaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

const newMounts = syscall.CLONE_NEWNS

// mountOver hides what is at a path.
func mountOver(path string) error { return unix.Mount("tmpfs", path, "tmpfs", 0, "") }

// inNamespaces has a helper run in a user namespace, as its root, and in more
// namespaces of its own. It skips the test where there can be none.
func inNamespaces(t *testing.T, cmd *exec.Cmd, more uintptr) {
	t.Helper()
	attr := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | more,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	try := exec.Command("true")
	try.SysProcAttr = attr
	if err := try.Run(); err != nil {
		t.Skipf("no user namespace can be made: %v", err)
	}
	cmd.SysProcAttr = attr
}
