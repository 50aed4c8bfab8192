//! A client of the spawn handshake: starts one pod and waits until it is ready.
//!
//!     client [--timeout SECONDS] [--workspace DIR] [--profile P]
//!            [--ticket-role R] [--session UUID] NAME
//!
//! The pod's program is the path in $YOI_POD_RUNTIME_COMMAND. Status 0 and a line on
//! stdout: the pod is ready, and lives on without this process. Status 1 and a message on
//! stderr: it is not, and nothing of it is left but its log. Status 2: wrong usage. Try it:
//!
//!     rustc -O -o /tmp/client client.rs
//!     go build -o /tmp/fakepod ./fakepod/cmd/fakepod
//!     YOI_POD_RUNTIME_COMMAND=/tmp/fakepod FAKEPOD_PROGRAM=deaf /tmp/client --timeout 2 alpha
//!
//! It is also the how-to for people who write a client in Rust: from start() on in the order
//! in which things happen. It needs Rust 1.66, its library, and Linux, whose numbers stand below.

use std::collections::{HashMap, VecDeque};
use std::env::{args_os, current_dir, split_paths, var_os};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Error, ErrorKind, ErrorKind::*, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::raw::{c_int, c_uint};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

// What the library lacks: a process group to kill, a connect that does not wait, signals, the umask.
extern "C" {
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn signal(signal: c_int, handler: usize) -> usize;
    fn umask(mask: c_uint) -> c_uint;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, address: *const SocketAddress, length: c_uint) -> c_int;
}
const SIGKILL: c_int = 9;
const SIGCHLD: c_int = 17;
const HUP_INT_TERM: [c_int; 3] = [1, 2, 15];
const SIG_DFL: usize = 0;
const F_SETFD: c_int = 2;
const FD_CLOEXEC: c_int = 1;
const O_PATH: c_int = 0o10000000;
const AF_UNIX: c_int = 1;
const STREAM_NONBLOCK_CLOEXEC: c_int = 1 | 0o4000 | 0o2000000;

#[repr(C)]
struct SocketAddress {
    family: u16,
    path: [u8; 108], // with the NUL that ends it
}

const READY: &[u8] = b"YOI-READY\t";
const MAX_LINE: usize = 64 << 10; // bytes that are kept of one line
const BLOCK: usize = 128 << 10; // bytes that are read of the log at once
// The library has no events of files, and no system has one of listen(2).
const POLL: Duration = Duration::from_millis(5);

const FLAGS: [&str; 5] = ["--timeout", "--workspace", "--profile", "--ticket-role", "--session"];
const LAST_LINES: &str = "; last lines: ";
const USAGE: &str = "usage: client [--timeout SECONDS] [--workspace DIR] [--profile P] \
    [--ticket-role R] [--session UUID] NAME";

static CAUGHT: AtomicI32 = AtomicI32::new(0); // the signal that asks this program to give up

extern "C" fn on_signal(number: c_int) {
    CAUGHT.store(number, SeqCst);
}

/// There is no ready pod: the verdict, and the status of this program.
struct Failed(String, u8);

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed(printable(error.to_string().as_bytes()), 1)
    }
}

struct Args {
    program: OsString,
    name: OsString,
    timeout: f64,
    flags: HashMap<&'static str, OsString>, // "" = not given
}

/// Starts the pod and returns a line that tells where it is.
fn start(args: &Args) -> Result<String, Failed> {
    // The name becomes a directory and stands between the tabs of a line.
    let name = args.name.as_bytes();
    if [&b""[..], b".", b".."].contains(&name) || name.iter().any(|b| b"/\0\t\r\n".contains(b)) {
        return Err(Failed(format!("invalid pod config: NAME {} is not one path element", quoted(name)), 2));
    }
    if args.flags["--workspace"].is_empty() {
        return Err(Failed("invalid pod config: --workspace is empty".into(), 2));
    }
    let runtime = runtime_dir()?;
    let mut handshake = launch(args, &runtime).map_err(|error| {
        let verdict = format!("failed to launch pod runtime command `{} pod`: {error}", args.program.to_string_lossy());
        Failed(printable(verdict.as_bytes()), 1)
    })?;
    let verdict = handshake.wait(args.timeout);
    if verdict.is_err() {
        handshake.kill(); // a pod that nobody knows of must not stay
    }
    verdict
}

/// Returns where pods with this environment keep their directories.
fn runtime_dir() -> Result<PathBuf, Failed> {
    let places = [("YOI_RUNTIME_DIR", ""), ("YOI_HOME", "run"), ("XDG_RUNTIME_DIR", "yoi"), ("HOME", ".yoi/run")];
    for (variable, below) in places {
        let base = var_os(variable).unwrap_or_default();
        if !base.is_empty() { // an empty one counts as unset
            return Ok(Path::new(&base).join(below));
        }
    }
    let names = "YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME";
    Err(Failed(format!("could not resolve runtime directory (set {names})"), 1))
}

/// Makes the pod directory and an empty log, and opens that for the pod.
fn create_log(path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap();
    let before = unsafe { umask(0o077) }; // ours may take rights from the owner, too
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    unsafe { umask(before) }; // the pod's is not ours to change
    made?;
    // Whoever can put a link there would choose what we overwrite, and a pipe would hang us.
    let log_is_wrong = fs::symlink_metadata(path).map_or(false, |file| !file.is_file());
    if log_is_wrong || !fs::symlink_metadata(directory)?.is_dir() {
        let message = format!("{}: a link or something else is in the way", path.display());
        return Err(Error::new(AlreadyExists, message));
    }
    // Appending: after the pod has truncated its log it goes on at the new end.
    let writer = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    writer.set_len(0)?;
    writer.set_permissions(Permissions::from_mode(0o600))?; // an older log keeps its mode
    Ok(writer)
}

/// With a slash the program is relative to our directory, without one it is in our PATH: it
/// must be found before the child changes to the workspace.
fn find_program(program: &OsStr) -> io::Result<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Ok(current_dir()?.join(program));
    }
    for directory in split_paths(&var_os("PATH").unwrap_or_default()) {
        let file = current_dir()?.join(directory).join(program);
        if fs::metadata(&file).map_or(false, |found| found.is_file() && found.mode() & 0o111 != 0) {
            return Ok(file);
        }
    }
    Err(Error::new(NotFound, "not found in PATH"))
}

fn launch(args: &Args, runtime: &Path) -> io::Result<Handshake> {
    // Absolute, since the pod is in another directory than this process.
    let workspace = current_dir()?.join(&args.flags["--workspace"]);
    if !workspace.is_dir() { // else it looks like a missing program
        return Err(Error::new(NotFound, format!("working directory {} is not a directory", workspace.display())));
    }
    let log_path = workspace.join(runtime).join(&args.name).join("stderr.log");
    let writer = create_log(&log_path)?;
    keep_inherited()?;
    let log = File::open(&log_path)?;
    let mut command = Command::new(find_program(&args.program)?);
    command.arg0(&args.program).args([OsStr::new("pod"), OsStr::new("--workspace"), workspace.as_os_str()]);
    let mut add = |flag: &str, value: &OsString| {
        if !value.is_empty() {
            command.arg(flag).arg(value);
        }
    };
    add("--session", &args.flags["--session"]);
    add("--pod", &args.name);
    if args.flags["--session"].is_empty() {
        add("--profile", &args.flags["--profile"]); // a resumed session has its own
    }
    add("--ticket-role", &args.flags["--ticket-role"]);
    // The log itself is its stderr: a pipe would break when we end. The group is to be killed whole.
    command.current_dir(&workspace).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer).process_group(0);
    let started = Instant::now();
    let child = command.spawn()?;
    Ok(Handshake {
        name: args.name.as_bytes().to_vec(), workspace, child, started, log, log_path,
        offset: 0, before: vec![], unfinished: vec![], tail: VecDeque::new(),
        socket: None, trouble: NotFound,
    })
}

/// What is known of a pod that is on its way.
struct Handshake {
    name: Vec<u8>,
    workspace: PathBuf,
    child: Child,
    started: Instant,
    log: File,
    log_path: PathBuf,
    offset: u64,              // up to where the log was read
    before: Vec<u8>,          // what stands just before that
    unfinished: Vec<u8>,      // what follows the last newline
    tail: VecDeque<Vec<u8>>,  // the last lines
    socket: Option<PathBuf>,
    trouble: ErrorKind,       // why the socket could not be connected to
}

impl Handshake {
    fn wait(&mut self, timeout: f64) -> Result<String, Failed> {
        loop {
            // Before the log is read: what is over by now is judged by all it has left there.
            let ended = self.child.try_wait()?.is_some();
            let late = self.started.elapsed().as_secs_f64() >= timeout;
            let caught = CAUGHT.load(SeqCst);
            let more = self.read()?;
            if ended {
                return self.exited();
            }
            if caught != 0 {
                return self.verdict(format!("start of the pod was cancelled by signal {caught}"), LAST_LINES);
            }
            if self.connect()? && self.child.try_wait()?.is_none() {
                let (name, socket) = (printable(&self.name), self.socket.as_deref().map(shown).unwrap_or_default());
                return Ok(format!("pod {name} is ready: process {}, socket {socket}", self.child.id()));
            }
            if late {
                let verdict = format!("pod did not become ready within {timeout}s, waiting for {}", self.missing());
                return self.verdict(verdict, LAST_LINES);
            }
            if !more {
                sleep(POLL);
            }
        }
    }

    /// Reads one block of the log, and reports whether there may be more.
    fn read(&mut self) -> Result<bool, Failed> {
        let mut block = vec![0; BLOCK];
        // The log may have been truncated, and have grown beyond the old place since: then
        // something else stands before it.
        let n = self.log.read_at(&mut block, self.offset - self.before.len() as u64)?;
        block.truncate(n);
        if !block.starts_with(&self.before) {
            (self.offset, self.before, self.unfinished) = (0, vec![], vec![]);
            return Ok(true);
        }
        let fresh = &block[self.before.len()..];
        self.offset += fresh.len() as u64;
        self.before = block[n.saturating_sub(64)..].to_vec();
        let data = [&self.unfinished, fresh].concat();
        let mut lines: Vec<&[u8]> = data.split(|&b| b == b'\n').collect();
        let rest = lines.pop().unwrap_or_default();
        // Room for a CR, and to see that it was longer.
        self.unfinished = rest[..rest.len().min(MAX_LINE + 2)].to_vec();
        for line in lines {
            self.line(line)?; // a client that shows progress does it with each of these
        }
        Ok(n == BLOCK)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Failed> {
        let line = match line.strip_suffix(b"\r") {
            Some(text) if text.len() <= MAX_LINE => text,
            _ => line,
        };
        match line.strip_prefix(READY) {
            Some(told) if self.socket.is_none() => return self.ready(line, told),
            _ => self.tail.push_back(line[..line.len().min(MAX_LINE + 1)].to_vec()),
        }
        if self.tail.len() > 8 {
            self.tail.pop_front();
        }
        Ok(())
    }

    fn ready(&mut self, line: &[u8], told: &[u8]) -> Result<(), Failed> {
        let tab = told.iter().position(|&b| b == b'\t').unwrap_or(told.len());
        let (name, path) = (&told[..tab], told.get(tab + 1..).unwrap_or_default()); // a path may hold further tabs
        if name.is_empty() || path.is_empty() || path.contains(&0) || line.len() > MAX_LINE {
            return self.verdict(format!("malformed ready line: {}", quoted(line)), LAST_LINES);
        }
        if name != self.name { // the pod of somebody else
            let (got, want) = (quoted(name), quoted(&self.name));
            return self.verdict(format!("pod became ready under another name: got {got}, want {want}"), LAST_LINES);
        }
        self.socket = Some(self.directory().unwrap_or(self.workspace.clone()).join(OsStr::from_bytes(path)));
        Ok(())
    }

    /// Returns where the pod is, which may have changed its directory. A link whose text leads
    /// elsewhere ("/x (deleted)", another root) says nothing.
    fn directory(&self) -> Option<PathBuf> {
        let link = format!("/proc/{}/cwd", self.child.id());
        let text = fs::read_link(&link).ok()?;
        let (there, said) = (fs::metadata(&link).ok()?, fs::metadata(&text).ok()?);
        (there.dev() == said.dev() && there.ino() == said.ino()).then_some(text)
    }

    /// Connects once, which is all that a pod must bear, and reports whether that was possible.
    fn connect(&mut self) -> Result<bool, Failed> {
        let Some(path) = &self.socket else { return Ok(false) };
        match connect_once(path) {
            Ok(()) => Ok(true),
            // Not bound, not listening, backlog full.
            Err(error) if [NotFound, ConnectionRefused, WouldBlock].contains(&error.kind()) => {
                self.trouble = error.kind();
                Ok(false)
            }
            Err(error) => {
                self.verdict(format!("could not connect to pod socket {}: {error}", shown(path)), LAST_LINES)
            }
        }
    }

    fn exited(&mut self) -> Result<String, Failed> {
        let status = self.kill(); // what it has left in its group must not go on writing
        let end = self.log.metadata()?.len();
        while self.read()? && self.offset < end {} // its last words explain the exit
        let how = match status.and_then(|status| status.code()) {
            Some(code) => format!("exit status {code}"),
            None => status.map_or("status unknown".into(), |status| status.to_string()),
        };
        self.verdict(format!("pod exited before becoming ready ({how})"), ": ")
    }

    /// Ends the whole group and reaps its leader.
    fn kill(&mut self) -> Option<ExitStatus> {
        unsafe { kill(-(self.child.id() as c_int), SIGKILL) }; // its children, also when it has ended itself
        let _ = self.child.kill(); // it may have left its group; nothing is done if it was reaped
        let deadline = Instant::now() + Duration::from_secs(5); // only a dead disk can hold it up
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
                result => return result.ok().flatten(),
            }
        }
    }

    fn missing(&self) -> String {
        let Some(path) = &self.socket else { return "the ready line".into() };
        let is_socket = fs::metadata(path).map_or(true, |file| file.file_type().is_socket());
        let why = match self.trouble {
            WouldBlock => "its backlog is full, nobody accepts connections",
            NotFound => "it does not exist",
            _ if is_socket => "nobody listens on it",
            _ => "it is not a socket",
        };
        format!("its socket {} ({why})", shown(path))
    }

    /// Returns the failure with its evidence.
    fn verdict<T>(&self, mut text: String, before_tail: &str) -> Result<T, Failed> {
        for (i, line) in self.tail.iter().enumerate() {
            text += if i == 0 { before_tail } else { " | " };
            text += &printable(line);
        }
        if !self.unfinished.is_empty() {
            text += &format!("; unfinished line: {}", quoted(&self.unfinished));
        }
        Err(Failed(format!("{text}\n\tlog: {}", shown(&self.log_path)), 1))
    }
}

/// Connects and closes the connection. It never waits, which std's connect does for ever when
/// the backlog is full.
fn connect_once(path: &Path) -> io::Result<()> {
    let mut path = path.as_os_str().as_bytes().to_vec();
    let mut address = SocketAddress { family: AF_UNIX as u16, path: [0; 108] };
    let mut by_descriptor = None;
    if path.len() >= address.path.len() { // more than an address takes
        let file = OpenOptions::new().read(true).custom_flags(O_PATH).open(OsStr::from_bytes(&path))?;
        path = format!("/proc/self/fd/{}", file.as_raw_fd()).into_bytes();
        by_descriptor = Some(file); // open until the connection was made
    }
    address.path[..path.len()].copy_from_slice(&path);
    let result = unsafe {
        let fd = socket(AF_UNIX, STREAM_NONBLOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        let connection = OwnedFd::from_raw_fd(fd); // closes it
        match connect(connection.as_raw_fd(), &address, size_of::<SocketAddress>() as c_uint) {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    };
    drop(by_descriptor);
    result
}

/// Returns text so that it cannot rule a terminal: a pod may write anything.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::new();
    for c in text.chars().take(1000) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(1000).is_some() {
        shown.push('…');
    }
    shown
}

fn quoted(text: &[u8]) -> String {
    format!("\"{}\"", printable(text).replace('"', "\\\""))
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

/// Keeps what this process has inherited by mistake from going on to the pod: whoever reads
/// such a pipe would hang. A library that must leave its host's descriptors alone does it in
/// the child (pre_exec).
fn keep_inherited() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        match entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            Some(fd) if fd > 2 => unsafe { fcntl(fd, F_SETFD, FD_CLOEXEC) },
            _ => continue,
        };
    }
    Ok(())
}

fn parse_args() -> Result<Args, String> {
    let program = var_os("YOI_POD_RUNTIME_COMMAND").unwrap_or_default(); // a path, never a command line
    let mut flags: HashMap<&str, OsString> = HashMap::from(FLAGS.map(|flag| (flag, OsString::new())));
    flags.insert("--timeout", "20".into());
    flags.insert("--workspace", current_dir().map_err(|error| error.to_string())?.into());
    let mut names = vec![];
    let mut words = args_os().skip(1);
    while let Some(word) = words.next() {
        match word.to_str().and_then(|flag| flags.get_mut(flag)) {
            Some(value) => *value = words.next().ok_or(format!("{word:?} needs a value"))?,
            None if word.as_bytes().starts_with(b"--") => return Err(format!("unknown flag {word:?}")),
            None => names.push(word),
        }
    }
    let timeout = flags["--timeout"].to_str().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let session = flags["--session"].as_bytes();
    let is_uuid = session.len() == 36 && session.iter().enumerate().all(|(i, b)| match i {
        8 | 13 | 18 | 23 => *b == b'-',
        _ => b.is_ascii_hexdigit(),
    });
    match names.pop() {
        _ if program.is_empty() => Err("which pod? Set YOI_POD_RUNTIME_COMMAND to the path of its program".into()),
        _ if !(timeout > 0.0 && timeout < f64::INFINITY) => Err("--timeout must be a number of seconds above 0".into()),
        _ if !session.is_empty() && !is_uuid => Err("--session must be a UUID".into()),
        Some(name) if names.is_empty() => Ok(Args { program, name, timeout, flags }),
        _ => Err("want one pod NAME".into()),
    }
}

fn main() -> ExitCode {
    let args = match parse_args() {
        Ok(args) => args,
        Err(message) => {
            eprintln!("client: {message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    unsafe {
        for number in HUP_INT_TERM {
            signal(number, on_signal as *const () as usize);
        }
        signal(SIGCHLD, SIG_DFL); // some parents ignore it, which loses exit statuses
    }
    match start(&args).and_then(|line| Ok(writeln!(io::stdout(), "{line}")?)) {
        Ok(()) => ExitCode::SUCCESS, // the pod is reaped by the system when it ends
        Err(Failed(verdict, status)) => {
            let _ = writeln!(io::stderr(), "client: {verdict}");
            ExitCode::from(status)
        }
    }
}
