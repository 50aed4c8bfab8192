//go:build !portable

package proc

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listener connects to a socket, closes the connection, and returns the process that
// listens there, or did when it began to; 0 = it is not known. It never waits. Package net
// would do the same with three times the system calls.
func Listener(path string) (pid int, err error) {
	fd, err := connect(path, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return peer(fd), nil
}

// connect returns a connection for which an option of the socket is set; 0 = none.
func connect(path string, option int) (fd int, err error) {
	address, release, err := SocketAddress(path)
	if err != nil {
		return -1, err
	}
	defer release()
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if option != 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1)
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: address})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

func peer(fd int) (pid int) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0 // seccomp may refuse it
	}
	return int(cred.Pid)
}

// boundTo returns the name that the socket of the peer was bound to.
func boundTo(fd int) string {
	if address, err := unix.Getpeername(fd); err == nil {
		return address.(*unix.SockaddrUnix).Name
	}
	return ""
}

// holdListener holds the process that listens on a socket; nil if that has ended, and
// another one, such as its child, serves there. It also returns the name that the socket
// was bound to.
func holdListener(path string) (h *Handle, name string, err error) {
	fd, err := connect(path, 0)
	if err != nil {
		return nil, "", err
	}
	defer unix.Close(fd)
	return holdPeer(fd, path), boundTo(fd), nil
}

func holdPeer(fd int, path string) *Handle {
	id := Of(peer(fd))
	if id.PID == 0 {
		return nil
	}
	var h *Handle
	if pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD); err == nil { // since Linux 6.5
		h = newHandle(id, pidfd)
	} else if info, err := os.Stat(path); err == nil && !StartedSince(id, changed(info).Add(time.Second)) {
		h, _ = Hold(id) // who has started after the socket was made has only got the number
	}
	// In this order: while it has not ended, the number is its own.
	if h != nil && h.Ended() {
		h.Close()
		return nil
	}
	return h
}

// changed returns when the inode of a file was changed: unlike the time of its content,
// nobody can set that.
func changed(info fs.FileInfo) time.Time {
	return time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix())
}

// How long one who serves may take to send something, and all together.
const (
	askTime  = 200 * time.Millisecond
	askTimes = time.Second
)

// listeners returns the processes that serve on sockets below a directory, as far as the
// kernel tells: of the one that began to listen, and, once that has ended, of one that sends
// on a connection.
func (r *Run) listeners(dir string) map[int]bool {
	pids := map[int]bool{}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		real = dir
	}
	late := time.Now().Add(askTimes)
	for _, s := range socketPaths() {
		if !s.listens || !strings.HasPrefix(s.path, dir+"/") && !strings.HasPrefix(s.path, real+"/") || !r.mayAsk(s.path) {
			continue
		}
		fd, err := connect(s.path, unix.SO_PASSCRED)
		if err != nil {
			continue
		}
		if boundTo(fd) == s.path { // there may be a link to a socket elsewhere by now
			h := holdPeer(fd, s.path)
			if h != nil {
				pids[h.PID] = true
				h.Close()
			} else if pid := sender(fd, late); pid != 0 {
				pids[pid] = true
			}
		}
		_ = unix.Close(fd)
	}
	return pids
}

// mayAsk reports whether a socket was not asked before.
func (r *Run) mayAsk(path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = map[string]bool{}
	}
	asked := r.asked[path]
	r.asked[path] = true
	return !asked
}

// sender returns the process that sends something on a connection; 0 = none does in time.
// Agents that hold keys do so, and fork once they listen: that of GnuPG greets, and that of
// OpenSSH answers a request for its keys, as ssh-add -l sends it.
func sender(fd int, late time.Time) (pid int) {
	for _, request := range []string{"", "\x00\x00\x00\x01\x0b"} {
		_, _ = unix.Write(fd, []byte(request))
		if !isReadable(fd, min(askTime, time.Until(late))) {
			continue
		}
		control := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
		_, n, _, _, _ := unix.Recvmsg(fd, make([]byte, 1), control, 0)
		messages, _ := unix.ParseSocketControlMessage(control[:max(0, n)])
		for _, message := range messages {
			if cred, err := unix.ParseUnixCredentials(&message); err == nil {
				return int(cred.Pid)
			}
		}
	}
	return 0
}
