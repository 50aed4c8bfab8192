//go:build !portable

package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// inMemory makes a file that is there until the box is removed, or this process ends. Its path
// is that of this process's descriptor.
func (b *Box) inMemory(script string) (string, error) {
	fd, err := unix.MemfdCreate("pod", unix.MFD_CLOEXEC)
	if err != nil {
		return "", os.NewSyscallError("memfd_create", err)
	}
	writer := os.NewFile(uintptr(fd), "memfd")
	_, err = writer.WriteString(script)
	file, openErr := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)) // what is open for writing is not executed
	if err = errors.Join(err, openErr, writer.Close()); err != nil {
		file.Close()
		return "", err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inUse = append(b.inUse, file)
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), nil
}
