#!/usr/bin/env python3
"""A client of the spawn handshake: starts one pod and waits until it is ready.

    client.py [--timeout SECONDS] [--workspace DIR] [--profile P]
              [--ticket-role R] [--session UUID] NAME

The pod's program is the path in $YOI_POD_RUNTIME_COMMAND. Status 0 and a line on
stdout: the pod is ready, and lives on without this process. Status 1 and a message on
stderr: it is not, and nothing of it is left but its log. Status 2: wrong usage. Try it:

    go build -o /tmp/fakepod ./fakepod/cmd/fakepod
    YOI_POD_RUNTIME_COMMAND=/tmp/fakepod FAKEPOD_PROGRAM=deaf client.py --timeout 2 alpha

It is also the how-to for people who write a client in Python: from start() on in the
order in which things happen. It needs Python 3.8, its library, and any Unix.

The pod gets what this process was started with, but for one thing: Python itself ignores
SIGPIPE and SIGXFSZ before a program begins, so that the pod gets their defaults.
"""
import argparse, collections, contextlib, errno, math, os, re, shutil, signal, socket, stat
import subprocess, sys, time, uuid

READY = b"YOI-READY\t"
MAX_LINE = 64 << 10  # bytes that are kept of one line
BLOCK = 128 << 10  # bytes that are read of the log at once
POLL = 0.01  # seconds: the library has no events of files, and no system has one of listen(2)
NOT_YET = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)  # not bound, not listening, backlog full


class Failed(Exception):
    """There is no ready pod. The text is the verdict; status is this program's."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


def start(args, caught):
    """Starts the pod and returns a line about it. caught fills up with signals to give up."""
    # The name becomes a directory and stands between the tabs of a line.
    if args.name in ("", ".", "..") or re.search(r"[/\0\t\r\n]", args.name):
        raise Failed(f"invalid pod config: NAME {quoted(args.name)} is not one path element", 2)
    if args.workspace == "":
        raise Failed("invalid pod config: --workspace is empty", 2)
    runtime = runtime_dir()
    with contextlib.ExitStack() as files:  # closes them on every way out
        try:
            # Absolute, since the pod is in another directory than this process. Not by
            # abspath: where .. leads behind a link, only the system knows.
            workspace = os.path.join(os.getcwd(), args.workspace) if args.workspace else os.getcwd()
            if not os.path.isdir(workspace):  # else it looks like a missing program
                raise NotADirectoryError(errno.ENOTDIR, "the working directory is not one", workspace)
            pod_dir = os.path.join(workspace, runtime, args.name)
            if answers(pod_dir):  # its log would be lost, and perhaps its socket
                raise Failed(f"pod already runs: it answers in {printable(pod_dir)}")
            writer, log = create_log(pod_dir, files)
            deadline = time.monotonic() + args.timeout  # one, for the ready line and the socket
            process = launch(args, workspace, writer)
        except OSError as error:
            command = printable(args.program) + " pod"
            raise Failed(f"failed to launch pod runtime command `{command}`: {told(error)}")
        try:
            return Handshake(args.name, workspace, process, log).wait(args.timeout, deadline, caught)
        except BaseException:
            kill(process)  # whatever went wrong: a pod that nobody knows of must not stay
            raise


def runtime_dir():
    """Returns where pods with this environment keep their directories."""
    places = {"YOI_RUNTIME_DIR": "", "YOI_HOME": "run", "XDG_RUNTIME_DIR": "yoi", "HOME": ".yoi/run"}
    for variable, below in places.items():
        if os.environ.get(variable):  # an empty one counts as unset
            return os.path.join(os.environ[variable], below)
    raise Failed("could not resolve runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)")


def create_log(pod_dir, files):
    """Makes the pod directory and an empty log; returns it open for the pod, and for us."""
    umask = os.umask(0o077)  # for the parents, too, to which makedirs gives no mode
    os.makedirs(pod_dir, exist_ok=True)
    os.umask(umask)  # the pod's is not ours to change
    path = os.path.join(pod_dir, "stderr.log")
    # Whoever can put a link there would choose what we overwrite, and a pipe would hang us.
    for place, is_right in ((pod_dir, stat.S_ISDIR), (path, stat.S_ISREG)):
        with contextlib.suppress(FileNotFoundError):
            if not is_right(os.lstat(place).st_mode):
                raise OSError(errno.EEXIST, "a link or something else is in the way", place)
    # Appending: after the pod has truncated its log it goes on at the new end.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    writer = files.enter_context(open(os.open(path, flags, 0o600), "ab", buffering=0))
    os.fchmod(writer.fileno(), 0o600)  # an older log keeps its mode
    return writer, files.enter_context(open(path, "rb", buffering=0))


def connect(path):
    """Connects, which is all that a pod must bear, says nothing, and never waits."""
    address, descriptor = os.fsencode(path), None
    try:
        if len(address) > 107 and hasattr(os, "O_PATH"):  # more than a socket address takes
            descriptor = os.open(path, os.O_PATH)
            address = b"/proc/self/fd/%d" % descriptor
        with socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)  # with a full backlog connect would wait for ever
            connection.connect(address)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def answers(pod_dir):
    """Reports whether a pod listens there; one with a full backlog does."""
    try:
        connect(os.path.join(pod_dir, "sock"))
    except OSError as error:
        return error.errno == errno.EAGAIN
    return True


def environment():
    """Returns the environment as it was: in a C locale Python adds LC_CTYPE to its own."""
    try:
        with open("/proc/self/environ", "rb") as f:
            return dict(entry.split(b"=", 1) for entry in f.read().split(b"\0") if b"=" in entry)
    except OSError:
        return os.environb


def launch(args, workspace, log):
    # With a slash the program is relative to our directory, without one it is in our
    # PATH: it must be found before the child changes to the workspace.
    program = args.program if "/" in args.program else shutil.which(args.program)
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "not found in PATH", args.program)
    argv = [args.program, "pod", "--workspace", workspace]
    argv += ["--session", str(args.session)] if args.session else []
    argv += ["--pod", args.name]
    argv += ["--profile", args.profile] if args.profile and not args.session else []  # a session has its own
    argv += ["--ticket-role", args.ticket_role] if args.ticket_role else []
    return subprocess.Popen(
        argv, executable=os.path.join(os.getcwd(), program), cwd=workspace,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=log,  # the file itself: a pipe would break when we end
        close_fds=True,  # those that we inherited, too: whoever reads such a pipe would hang
        start_new_session=True,  # a process group of its own, to be killed whole, and no terminal
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, args.sigchld),  # safe without threads
    )


def kill(process):
    """Ends the whole group and reaps its leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # its children, also when it has ended itself
    process.kill()  # it may have left its group; nothing is done if it was reaped
    with contextlib.suppress(subprocess.TimeoutExpired):  # only a dead disk can hold it up
        process.wait(5)


class Handshake:
    """What is known of a pod that is on its way."""

    def __init__(self, name, workspace, process, log):
        self.name, self.workspace, self.process, self.log = name, workspace, process, log
        self.offset = 0  # up to where the log was read
        self.before = b""  # what stands just before that
        self.unfinished = b""  # what follows the last newline
        self.tail = collections.deque(maxlen=8)  # the last lines
        self.told, self.socket = None, None  # its path in the ready line, and from here
        self.trouble = None  # why it could not be connected to

    def wait(self, timeout, deadline, caught):
        while True:
            # Before the log is read: what is over by now is judged by all it has left there.
            ended, late = self.process.poll() is not None, time.monotonic() >= deadline
            more = self.read()
            if ended:
                raise self.exited()
            if caught:
                raise self.verdict(f"start of the pod was cancelled by {signal.Signals(caught[0]).name}")
            if self.socket and self.connect() and self.process.poll() is None:
                name, path = printable(self.name), printable(self.socket)
                return f"pod {name} is ready: process {self.process.pid}, socket {path}"
            if late:
                raise self.verdict(f"pod did not become ready within {timeout:g}s, waiting for {self.missing()}")
            if not more:
                time.sleep(POLL)

    def read(self):
        """Reads one block of the log, and reports whether there may be more."""
        # The log may have been truncated, and have grown beyond the old place since:
        # then something else stands before it.
        block = os.pread(self.log.fileno(), BLOCK, self.offset - len(self.before))
        if not block.startswith(self.before):
            self.offset, self.before, self.unfinished = 0, b"", b""
            return True
        fresh = block[len(self.before):]
        self.offset, self.before = self.offset + len(fresh), block[-64:]
        data = self.unfinished + fresh
        *lines, rest = data.split(b"\n")
        self.unfinished = rest[:MAX_LINE + 2]  # room for a CR, and to see that it was longer
        # Of a flood only the end is wanted. A client that shows progress takes every line.
        if self.socket or READY not in data:
            lines = lines[-8:]
        for line in lines:
            self.line(line)
        return len(block) == BLOCK

    def line(self, line):
        if line.endswith(b"\r") and len(line) < MAX_LINE + 2:
            line = line[:-1]
        if self.socket is None and line.startswith(READY):
            self.ready(line)
        else:
            self.tail.append(line[:MAX_LINE + 1])

    def ready(self, line):
        name, _, path = line[len(READY):].partition(b"\t")  # a path may hold further tabs
        if not name or not path or b"\0" in path or len(line) > MAX_LINE:
            raise self.verdict(f"malformed ready line: {quoted(line)}")
        if name != os.fsencode(self.name):  # the pod of somebody else
            raise self.verdict(f"pod became ready under another name: got {quoted(name)}, want {quoted(self.name)}")
        # Relative to where the pod is, which may have changed its directory. A link whose
        # text leads elsewhere ("/x (deleted)", another root) says nothing.
        link, directory = f"/proc/{self.process.pid}/cwd", self.workspace
        with contextlib.suppress(OSError):
            if os.path.samefile(link, os.readlink(link)):
                directory = os.readlink(link)
        self.told, self.socket = path, os.path.join(directory, os.fsdecode(path))

    def connect(self):
        try:
            connect(self.socket)
            return True
        except OSError as error:
            if error.errno not in NOT_YET:
                raise self.verdict(f"could not connect to pod socket {self.where()}: {told(error)}") from None
            self.trouble = error.errno
            return False

    def where(self):
        """Returns the socket as a person needs it: @name, ~/x and unix:x are relative paths, too."""
        note = "" if self.told.startswith(b"/") else f", from the relative path {quoted(self.told)}"
        return printable(self.socket) + note

    def exited(self):
        kill(self.process)  # what it has left in its group must not go on writing
        end = os.fstat(self.log.fileno()).st_size
        while self.read() and self.offset < end:  # its last words explain the exit
            pass
        status = self.process.returncode
        how = f"exit status {status}" if status >= 0 else f"signal: {signal.strsignal(-status)} ({-status})"
        return self.verdict(f"pod exited before becoming ready ({how})", ": ")

    def missing(self):
        if self.socket is None:
            return "the ready line"
        why = {errno.EAGAIN: "its backlog is full, nobody accepts connections", errno.ENOENT: "it does not exist"}
        with contextlib.suppress(OSError):
            is_socket = stat.S_ISSOCK(os.stat(self.socket).st_mode)
            why[errno.ECONNREFUSED] = "nobody listens on it" if is_socket else "it is not a socket"
        return f"its socket {self.where()} ({why.get(self.trouble, 'it has just gone')})"

    def verdict(self, text, before_tail="; last lines: "):
        """Returns the failure with its evidence."""
        if self.tail:
            text += before_tail + " | ".join(map(printable, self.tail))
        if self.unfinished:
            text += "; unfinished line: " + quoted(self.unfinished)
        return Failed(f"{text}\n\tlog: {printable(self.log.name)}")


def printable(text):
    """Returns text so that it cannot rule a terminal: a pod may write anything."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:1000])
    return "".join(shown) + "…" * (len(text) > 1000)


def quoted(text):
    return '"' + printable(text).replace('"', '\\"') + '"'


def told(error):
    return printable(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))


def main():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--timeout", type=float, default=20, metavar="SECONDS")
    parser.add_argument("--workspace", metavar="DIR")
    parser.add_argument("--profile")
    parser.add_argument("--ticket-role")
    parser.add_argument("--session", metavar="UUID", type=uuid.UUID)
    parser.add_argument("name", metavar="NAME")
    *flags, name = sys.argv[1:] or ["--help"]
    args = parser.parse_args([*flags, name] if name == "--help" else [*flags, "--", name])  # it may begin with a dash
    args.program = os.environ.get("YOI_POD_RUNTIME_COMMAND")  # a path, never a command line
    if not args.program:
        parser.error("which pod? Set YOI_POD_RUNTIME_COMMAND to the path of its program")
    if not 0 < args.timeout < math.inf:
        parser.error("--timeout must be a number of seconds above 0")
    # The handlers only take a note: an exception could come between the fork and the
    # moment at which the process is known.
    caught = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # else the pod is to ignore it, too
            signal.signal(number, lambda number, frame: caught.append(number))
    args.sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would lose exit statuses
    try:
        line = start(args, caught)
    except (Failed, OSError) as error:
        print(f"client.py: {error}", file=sys.stderr)
        return getattr(error, "status", 1)
    with contextlib.suppress(OSError):  # the pod is ready, whoever reads that
        os.write(1, f"{line}\n".encode())
    return 0  # the pod is reaped by the system when it ends


if __name__ == "__main__":
    sys.exit(main())
