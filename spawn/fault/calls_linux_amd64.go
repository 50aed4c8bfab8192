//go:build !portable

package fault

import "golang.org/x/sys/unix"

// older are the calls that newer architectures do not have.
var older = []family{
	{"open", []sysCall{{"open", unix.SYS_OPEN, "P"}, {"creat", unix.SYS_CREAT, "P"}}},
	{"mkdir", []sysCall{{"mkdir", unix.SYS_MKDIR, "P"}}},
	{"mknod", []sysCall{{"mknod", unix.SYS_MKNOD, "P"}}},
	{"rename", []sysCall{{"rename", unix.SYS_RENAME, "PP"}}},
	{"unlink", []sysCall{{"unlink", unix.SYS_UNLINK, "P"}, {"rmdir", unix.SYS_RMDIR, "P"}}},
	{"link", []sysCall{{"link", unix.SYS_LINK, "PP"}, {"symlink", unix.SYS_SYMLINK, ".P"}}},
	{"readlink", []sysCall{{"readlink", unix.SYS_READLINK, "P"}}},
	{"stat", []sysCall{{"stat", unix.SYS_STAT, "P"}, {"lstat", unix.SYS_LSTAT, "P"}}},
	{"access", []sysCall{{"access", unix.SYS_ACCESS, "P"}}},
	{"readdir", []sysCall{{"getdents", unix.SYS_GETDENTS, "F"}}},
	{"chmod", []sysCall{{"chmod", unix.SYS_CHMOD, "P"}}},
	{"chown", []sysCall{{"chown", unix.SYS_CHOWN, "P"}, {"lchown", unix.SYS_LCHOWN, "P"}}},
	{"utime", []sysCall{{"utime", unix.SYS_UTIME, "P"}, {"utimes", unix.SYS_UTIMES, "P"}, {"futimesat", unix.SYS_FUTIMESAT, "DP"}}},
	{"dup", []sysCall{{"dup2", unix.SYS_DUP2, "F"}}},
	{"pipe", []sysCall{{"pipe", unix.SYS_PIPE, ""}}},
	{"poll", []sysCall{{"poll", unix.SYS_POLL, ""}, {"select", unix.SYS_SELECT, ""}, {"epoll_wait", unix.SYS_EPOLL_WAIT, "F"}}},
	{"epoll", []sysCall{{"epoll_create", unix.SYS_EPOLL_CREATE, ""}}},
	{"event", []sysCall{{"eventfd", unix.SYS_EVENTFD, ""}, {"signalfd", unix.SYS_SIGNALFD, ""}}},
	{"inotify", []sysCall{{"inotify_init", unix.SYS_INOTIFY_INIT, ""}}},
	{"fork", []sysCall{{"fork", unix.SYS_FORK, ""}, {"vfork", unix.SYS_VFORK, ""}}},
	{"sleep", []sysCall{{"pause", unix.SYS_PAUSE, ""}}},
}
