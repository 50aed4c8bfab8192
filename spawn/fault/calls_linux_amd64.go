//go:build !portable

package fault

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// older are the calls that newer architectures do not have.
var older = map[string][]sysCall{
	"open":     {{"open", unix.SYS_OPEN, "P"}, {"creat", unix.SYS_CREAT, "P"}},
	"mkdir":    {{"mkdir", unix.SYS_MKDIR, "P"}},
	"mknod":    {{"mknod", unix.SYS_MKNOD, "P"}},
	"rename":   {{"rename", unix.SYS_RENAME, "PP"}},
	"unlink":   {{"unlink", unix.SYS_UNLINK, "P"}, {"rmdir", unix.SYS_RMDIR, "P"}},
	"link":     {{"link", unix.SYS_LINK, "PP"}, {"symlink", unix.SYS_SYMLINK, ".P"}},
	"readlink": {{"readlink", unix.SYS_READLINK, "P"}},
	"stat":     {{"stat", unix.SYS_STAT, "P"}, {"lstat", unix.SYS_LSTAT, "P"}},
	"access":   {{"access", unix.SYS_ACCESS, "P"}},
	"readdir":  {{"getdents", unix.SYS_GETDENTS, "F"}},
	"chmod":    {{"chmod", unix.SYS_CHMOD, "P"}},
	"chown":    {{"chown", unix.SYS_CHOWN, "P"}, {"lchown", unix.SYS_LCHOWN, "P"}},
	"utime":    {{"utime", unix.SYS_UTIME, "P"}, {"utimes", unix.SYS_UTIMES, "P"}, {"futimesat", unix.SYS_FUTIMESAT, "DP"}},
	"dup":      {{"dup2", unix.SYS_DUP2, "F"}},
	"pipe":     {{"pipe", unix.SYS_PIPE, ""}},
	"poll":     {{"poll", unix.SYS_POLL, ""}, {"select", unix.SYS_SELECT, ""}, {"epoll_wait", unix.SYS_EPOLL_WAIT, "F"}},
	"epoll":    {{"epoll_create", unix.SYS_EPOLL_CREATE, ""}},
	"event":    {{"eventfd", unix.SYS_EVENTFD, ""}, {"signalfd", unix.SYS_SIGNALFD, ""}},
	"inotify":  {{"inotify_init", unix.SYS_INOTIFY_INIT, ""}},
	"fork":     {{"fork", unix.SYS_FORK, ""}, {"vfork", unix.SYS_VFORK, ""}},
	"sleep":    {{"pause", unix.SYS_PAUSE, ""}},
}
