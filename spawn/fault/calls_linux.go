//go:build !portable && (amd64 || arm64)

package fault

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A sysCall is a system call: its number, and what its arguments are, one letter for each:
//
//	D  a directory from which the path that follows counts
//	P  a path
//	F  a descriptor
//	A  a socket's address, before its size
//	B  bytes to be written, before their number
//	V  parts of them, before their number
//	O  the offset of a write
//	.  nothing that matters
type sysCall struct {
	name      string
	number    uint32
	arguments string
}

// A family is the system calls for one thing.
type family struct {
	name    string
	members []sysCall
}

var families = []family{
	{"open", []sysCall{{"openat", unix.SYS_OPENAT, "DP"}, {"openat2", unix.SYS_OPENAT2, "DP"}}},
	{"close", []sysCall{{"close", unix.SYS_CLOSE, "F"}, {"close_range", unix.SYS_CLOSE_RANGE, ""}}},
	{"read", []sysCall{{"read", unix.SYS_READ, "F"}, {"pread64", unix.SYS_PREAD64, "F"}, {"readv", unix.SYS_READV, "F"}, {"preadv", unix.SYS_PREADV, "F"}, {"preadv2", unix.SYS_PREADV2, "F"}}},
	{"write", []sysCall{{"write", unix.SYS_WRITE, "FB"}, {"pwrite64", unix.SYS_PWRITE64, "FB.O"}, {"writev", unix.SYS_WRITEV, "FV"}, {"pwritev", unix.SYS_PWRITEV, "FV.O"}, {"pwritev2", unix.SYS_PWRITEV2, "FV.O"}}},
	{"copy", []sysCall{{"sendfile", unix.SYS_SENDFILE, "FF"}, {"copy_file_range", unix.SYS_COPY_FILE_RANGE, "F.F"}, {"splice", unix.SYS_SPLICE, "F.F"}}},
	{"truncate", []sysCall{{"truncate", unix.SYS_TRUNCATE, "P"}, {"ftruncate", unix.SYS_FTRUNCATE, "F"}, {"fallocate", unix.SYS_FALLOCATE, "F"}}},
	{"sync", []sysCall{{"fsync", unix.SYS_FSYNC, "F"}, {"fdatasync", unix.SYS_FDATASYNC, "F"}, {"syncfs", unix.SYS_SYNCFS, "F"}, {"sync_file_range", unix.SYS_SYNC_FILE_RANGE, "F"}, {"sync", unix.SYS_SYNC, ""}, {"msync", unix.SYS_MSYNC, ""}}},
	{"lseek", []sysCall{{"lseek", unix.SYS_LSEEK, "F"}}},
	{"lock", []sysCall{{"flock", unix.SYS_FLOCK, "F"}}},
	{"fcntl", []sysCall{{"fcntl", unix.SYS_FCNTL, "F"}}},
	{"ioctl", []sysCall{{"ioctl", unix.SYS_IOCTL, "F"}}},
	{"mkdir", []sysCall{{"mkdirat", unix.SYS_MKDIRAT, "DP"}}},
	{"mknod", []sysCall{{"mknodat", unix.SYS_MKNODAT, "DP"}}},
	{"rename", []sysCall{{"renameat", unix.SYS_RENAMEAT, "DPDP"}, {"renameat2", unix.SYS_RENAMEAT2, "DPDP"}}},
	{"unlink", []sysCall{{"unlinkat", unix.SYS_UNLINKAT, "DP"}}},
	{"link", []sysCall{{"linkat", unix.SYS_LINKAT, "DPDP"}, {"symlinkat", unix.SYS_SYMLINKAT, ".DP"}}},
	{"readlink", []sysCall{{"readlinkat", unix.SYS_READLINKAT, "DP"}}},
	{"stat", []sysCall{{"newfstatat", unix.SYS_NEWFSTATAT, "DP"}, {"statx", unix.SYS_STATX, "DP"}, {"fstat", unix.SYS_FSTAT, "F"}, {"statfs", unix.SYS_STATFS, "P"}, {"fstatfs", unix.SYS_FSTATFS, "F"}}},
	{"access", []sysCall{{"faccessat", unix.SYS_FACCESSAT, "DP"}, {"faccessat2", unix.SYS_FACCESSAT2, "DP"}}},
	{"readdir", []sysCall{{"getdents64", unix.SYS_GETDENTS64, "F"}}},
	{"chmod", []sysCall{{"fchmodat", unix.SYS_FCHMODAT, "DP"}, {"fchmodat2", unix.SYS_FCHMODAT2, "DP"}, {"fchmod", unix.SYS_FCHMOD, "F"}}},
	{"chown", []sysCall{{"fchownat", unix.SYS_FCHOWNAT, "DP"}, {"fchown", unix.SYS_FCHOWN, "F"}}},
	{"utime", []sysCall{{"utimensat", unix.SYS_UTIMENSAT, "DP"}}},
	{"chdir", []sysCall{{"chdir", unix.SYS_CHDIR, "P"}, {"fchdir", unix.SYS_FCHDIR, "F"}, {"getcwd", unix.SYS_GETCWD, ""}}},
	{"dup", []sysCall{{"dup", unix.SYS_DUP, "F"}, {"dup3", unix.SYS_DUP3, "F"}}},
	{"pipe", []sysCall{{"pipe2", unix.SYS_PIPE2, ""}}},
	{"socket", []sysCall{{"socket", unix.SYS_SOCKET, ""}, {"socketpair", unix.SYS_SOCKETPAIR, ""}}},
	{"bind", []sysCall{{"bind", unix.SYS_BIND, ".A"}}},
	{"listen", []sysCall{{"listen", unix.SYS_LISTEN, "F"}}},
	{"accept", []sysCall{{"accept", unix.SYS_ACCEPT, "F"}, {"accept4", unix.SYS_ACCEPT4, "F"}}},
	{"connect", []sysCall{{"connect", unix.SYS_CONNECT, ".A"}}},
	{"send", []sysCall{{"sendto", unix.SYS_SENDTO, "FB"}, {"sendmsg", unix.SYS_SENDMSG, "F"}, {"sendmmsg", unix.SYS_SENDMMSG, "F"}}},
	{"recv", []sysCall{{"recvfrom", unix.SYS_RECVFROM, "F"}, {"recvmsg", unix.SYS_RECVMSG, "F"}, {"recvmmsg", unix.SYS_RECVMMSG, "F"}}},
	{"shutdown", []sysCall{{"shutdown", unix.SYS_SHUTDOWN, "F"}}},
	{"sockopt", []sysCall{{"setsockopt", unix.SYS_SETSOCKOPT, "F"}, {"getsockopt", unix.SYS_GETSOCKOPT, "F"}, {"getsockname", unix.SYS_GETSOCKNAME, "F"}, {"getpeername", unix.SYS_GETPEERNAME, "F"}}},
	{"poll", []sysCall{{"ppoll", unix.SYS_PPOLL, ""}, {"pselect6", unix.SYS_PSELECT6, ""}, {"epoll_pwait", unix.SYS_EPOLL_PWAIT, "F"}, {"epoll_pwait2", unix.SYS_EPOLL_PWAIT2, "F"}}},
	{"epoll", []sysCall{{"epoll_create1", unix.SYS_EPOLL_CREATE1, ""}, {"epoll_ctl", unix.SYS_EPOLL_CTL, "F.F"}}},
	{"event", []sysCall{{"eventfd2", unix.SYS_EVENTFD2, ""}, {"signalfd4", unix.SYS_SIGNALFD4, ""}, {"timerfd_create", unix.SYS_TIMERFD_CREATE, ""}, {"memfd_create", unix.SYS_MEMFD_CREATE, ""}}},
	{"inotify", []sysCall{{"inotify_init1", unix.SYS_INOTIFY_INIT1, ""}, {"inotify_add_watch", unix.SYS_INOTIFY_ADD_WATCH, ".P"}}},
	{"fork", []sysCall{clone, clone3}},
	{"thread", []sysCall{clone, clone3}},
	{"exec", []sysCall{{"execve", unix.SYS_EXECVE, "P"}, {"execveat", unix.SYS_EXECVEAT, "DP"}}},
	{"exit", []sysCall{{"exit_group", unix.SYS_EXIT_GROUP, ""}}},
	{"wait", []sysCall{{"wait4", unix.SYS_WAIT4, ""}, {"waitid", unix.SYS_WAITID, ""}}},
	{"kill", []sysCall{{"kill", unix.SYS_KILL, ""}, {"tkill", unix.SYS_TKILL, ""}, {"tgkill", unix.SYS_TGKILL, ""}, {"pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, ""}}},
	{"pidfd", []sysCall{{"pidfd_open", unix.SYS_PIDFD_OPEN, ""}, {"pidfd_getfd", unix.SYS_PIDFD_GETFD, "F"}}},
	{"memory", []sysCall{{"mmap", unix.SYS_MMAP, ""}, {"mremap", unix.SYS_MREMAP, ""}, {"brk", unix.SYS_BRK, ""}, {"mprotect", unix.SYS_MPROTECT, ""}, {"mlock", unix.SYS_MLOCK, ""}}},
	{"random", []sysCall{{"getrandom", unix.SYS_GETRANDOM, ""}}},
	{"sleep", []sysCall{{"nanosleep", unix.SYS_NANOSLEEP, ""}, {"clock_nanosleep", unix.SYS_CLOCK_NANOSLEEP, ""}}},
	{"limit", []sysCall{{"prlimit64", unix.SYS_PRLIMIT64, ""}, {"setrlimit", unix.SYS_SETRLIMIT, ""}}},
	{"group", []sysCall{{"setsid", unix.SYS_SETSID, ""}, {"setpgid", unix.SYS_SETPGID, ""}}},
	{"io_uring", []sysCall{{"io_uring_setup", unix.SYS_IO_URING_SETUP, ""}}},
}

// They make a process, or a thread, as their flags say.
var (
	clone  = sysCall{"clone", unix.SYS_CLONE, ""}
	clone3 = sysCall{"clone3", unix.SYS_CLONE3, ""}
)

// calls has the calls that each name stands for. The name of a family that is also that of a
// call stands for the family.
var calls = sync.OnceValue(func() map[string][]sysCall {
	single, all := map[string][]sysCall{}, map[string][]sysCall{}
	for _, f := range slices.Concat(families, older) {
		for _, c := range f.members {
			single[c.name] = []sysCall{c}
		}
		all[f.name] = append(all[f.name], f.members...)
	}
	maps.Copy(single, all)
	return single
})

// Names returns the names of the families of system calls. A fault may also name a single
// call; the name of a family that is a call's, too, stands for the family.
func Names() (names []string) {
	for _, f := range families {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return names
}

func known(name string) bool { return calls()[name] != nil }

// shortens reports whether all that a name stands for are writes whose bytes are known.
func shortens(name string) bool {
	return !slices.ContainsFunc(calls()[name], func(c sysCall) bool { return !strings.ContainsAny(c.arguments, "BV") })
}
