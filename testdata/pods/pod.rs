//! A pod in Rust, with nothing but its standard library.
//!
//!     rustc -O -o pod pod.rs
//!     pod [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
//!
//! It keeps the handshake (spawn/HANDSHAKE.md); main() has the order in which things happen.
//! Its methods are shutdown, and run, which takes three seconds in place of real work.

use std::collections::HashMap;
use std::env::{args_os, current_dir, var_os};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{exit, id};
use std::thread::{sleep, Builder};
use std::time::Duration;

// The library has no signals, and no umask.
extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn sigemptyset(set: *mut SignalSet) -> i32;
    fn sigaddset(set: *mut SignalSet, number: i32) -> i32;
    fn sigprocmask(how: i32, set: *const SignalSet, old: *mut SignalSet) -> i32;
    fn sigwait(set: *const SignalSet, number: *mut i32) -> i32;
    fn kill(pid: i32, number: i32) -> i32;
    fn umask(mask: u32) -> u32;
}
type SignalSet = [u64; 16]; // no system has a larger one
const SIG_BLOCK: i32 = if cfg!(target_os = "linux") { 0 } else { 1 };
const SIG_DFL: usize = 0;
const SIGINT: i32 = 2;

const MAX_LINE: u64 = 4 << 20; // bytes of a client's line
const MAX_DEPTH: usize = 100; // of the objects and arrays in it

fn log(text: &str) {
    let _ = writeln!(io::stderr(), "pod: {text}"); // a full disk ends nothing, as eprintln would
}

fn fail(status: i32, why: &str) -> ! {
    log(why);
    exit(status)
}

const FLAGS: [&str; 5] = ["--workspace", "--pod", "--session", "--profile", "--ticket-role"];

fn parse_args() -> HashMap<&'static str, OsString> {
    let mut values = HashMap::new();
    let mut words = args_os().skip(1).peekable();
    words.next_if(|word| word == "pod");
    while let Some(word) = words.next() {
        match (FLAGS.iter().find(|flag| word == **flag), words.next()) {
            (Some(flag), Some(value)) => values.insert(*flag, value),
            _ => fail(2, &format!("unknown flag, or one without a value: {word:?}")),
        };
    }
    if values.contains_key("--session") && values.contains_key("--profile") {
        fail(2, "--profile does not go with --session");
    }
    let is_element = |name: &OsString| {
        !["", ".", ".."].iter().any(|no| name == no) && !name.as_bytes().iter().any(|b| b"/\t\r\n".contains(b))
    };
    if !values.contains_key("--workspace") || !values.get("--pod").map_or(false, is_element) {
        fail(2, "--workspace and --pod are needed; a name is one path element, without a tab or a line end");
    }
    values
}

fn runtime_dir() -> io::Result<PathBuf> {
    let places = [
        ("YOI_RUNTIME_DIR", ""),
        ("YOI_HOME", "run"),
        ("XDG_RUNTIME_DIR", "yoi"),
        ("HOME", ".yoi/run"),
    ];
    for (variable, below) in places {
        let base = PathBuf::from(var_os(variable).unwrap_or_default());
        if base.is_absolute() {
            return Ok(base.join(below));
        } else if base != Path::new("") { // an empty one counts as unset
            return Ok(current_dir()?.join(base).join(below));
        }
    }
    let names = "YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME";
    Err(io::Error::new(ErrorKind::NotFound, format!("no runtime directory (set {names})")))
}

fn write_atomically(path: PathBuf, text: String) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}

/// What is read of JSON here. Whoever needs more has a crate for it.
enum Json {
    Object(HashMap<String, Json>),
    Text(String),
    Other,
}

// Each of these returns what follows its part of a text, too; None where the text is wrong.

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\r', '\n'])
}

fn skip_digits(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    (rest.len() < text.len()).then_some(rest)
}

fn skip_number(text: &str) -> Option<&str> {
    let text = text.strip_prefix('-').unwrap_or(text);
    let mut rest = text.strip_prefix('0').or_else(|| skip_digits(text))?;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = skip_digits(fraction)?;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        rest = skip_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))?;
    }
    Some(rest)
}

fn read_text(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.strip_prefix('"')?.chars();
    loop {
        let c = match rest.next()? {
            '"' => return Some((value, rest.as_str())),
            c if c < ' ' => return None,
            '\\' => match rest.next()? {
                c @ ('"' | '\\' | '/') => c,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let mut code = 0;
                    for _ in 0..4 {
                        code = code << 4 | rest.next()?.to_digit(16)?;
                    }
                    char::from_u32(code).unwrap_or('\u{fffd}') // each half of a pair
                }
                _ => return None,
            },
            c => c,
        };
        value.push(c);
    }
}

fn read_value(text: &str, depth: usize) -> Option<(Json, &str)> {
    match text.chars().next()? {
        '"' => read_text(text).map(|(value, rest)| (Json::Text(value), rest)),
        't' => Some((Json::Other, text.strip_prefix("true")?)),
        'f' => Some((Json::Other, text.strip_prefix("false")?)),
        'n' => Some((Json::Other, text.strip_prefix("null")?)),
        '{' if depth < MAX_DEPTH => read_members(&text[1..], '}', depth).map(|(members, rest)| (Json::Object(members), rest)),
        '[' if depth < MAX_DEPTH => read_members(&text[1..], ']', depth).map(|(_, rest)| (Json::Other, rest)),
        _ => Some((Json::Other, skip_number(text)?)),
    }
}

/// Reads up to the end of an object or an array, whose members are all called "".
fn read_members(text: &str, end: char, depth: usize) -> Option<(HashMap<String, Json>, &str)> {
    let mut members = HashMap::new();
    let mut rest = skip_blanks(text);
    while !rest.starts_with(end) {
        if !members.is_empty() {
            rest = skip_blanks(rest.strip_prefix(',')?);
        }
        let mut key = String::new();
        if end == '}' {
            (key, rest) = read_text(rest)?;
            rest = skip_blanks(skip_blanks(rest).strip_prefix(':')?);
        }
        let (value, after) = read_value(rest, depth + 1)?;
        members.insert(key, value);
        rest = skip_blanks(after);
    }
    Some((members, &rest[1..]))
}

/// Returns the method that a line names, or ""; None if it is no object of JSON.
fn read_method(line: &[u8]) -> Option<String> {
    match read_value(skip_blanks(std::str::from_utf8(line).ok()?), 0)? {
        (Json::Object(mut members), rest) if skip_blanks(rest).is_empty() => match members.remove("method") {
            Some(Json::Text(method)) => Some(method),
            _ => Some(String::new()),
        },
        _ => None,
    }
}

fn serve(client: UnixStream) -> io::Result<()> {
    let send = |event: &str, data: &str| {
        // A client may leave: what it has sent counts.
        let _ = (&client).write_all(format!("{{\"event\":\"{event}\",\"data\":{{{data}}}}}\n").as_bytes());
    };
    send("snapshot", &format!("\"pid\":{}", id()));
    let mut lines = BufReader::new(&client);
    let mut line = vec![];
    while lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        match read_method(&line).as_deref() {
            Some("shutdown") => drop(unsafe { kill(id() as i32, SIGINT) }),
            Some("run") => {
                sleep(Duration::from_secs(3));
                send("done", "");
            }
            Some(_) => send("error", "\"message\":\"unknown method\""),
            None if line == b"\n" => {}
            None => send("error", "\"message\":\"no object of JSON\""),
        }
        line.clear();
    }
    if line.len() as u64 == MAX_LINE {
        send("error", "\"message\":\"the line is too long\"");
    }
    Ok(())
}

fn serve_all(listener: UnixListener) {
    loop {
        let served = listener.accept().and_then(|(client, _)| Builder::new().spawn(|| serve(client)));
        if let Err(error) = served { // too many descriptors or threads
            log(&format!("cannot serve a client: {error}"));
            sleep(Duration::from_millis(100));
        }
    }
}

/// Returns when the pod is ready.
fn start(name: &OsString, directory: &Path) -> io::Result<()> {
    let path = directory.join("sock");
    SocketAddr::from_pathname(&path)?; // whether it has room in an address
    let inherited = unsafe { umask(0o077) }; // what is made here is for its user alone
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let _ = fs::remove_file(&path); // of a pod that was killed
    let listener = UnixListener::bind(&path)?; // listens, too
    write_atomically(directory.join("pid"), format!("{}\n", id()))?;
    write_atomically(directory.join("status.json"), format!("{{\"pid\":{},\"state\":\"running\"}}\n", id()))?;
    unsafe { umask(inherited) };
    Builder::new().spawn(|| serve_all(listener))?;
    // Who reads the line may connect, and may stop the pod, at once. It goes out in one write,
    // with the newline: stderr has no buffer.
    let ready = [b"YOI-READY\t", name.as_bytes(), b"\t", path.as_os_str().as_bytes(), b"\n"].concat();
    io::stderr().write_all(&ready)?;
    log(&format!("{} listening on {path:?}", name.to_string_lossy()));
    Ok(())
}

/// Removes a directory, its socket last: a new pod of the name may start where none answers.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != "sock" {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(directory.join("sock"))?;
    let _ = fs::remove_dir(directory); // unless a new pod has come
    Ok(())
}

fn main() {
    let args = parse_args();
    let name = &args["--pod"];
    // SIGINT waits until it is waited for, also where the parent ignores it.
    let (mut sigint, mut received): (SignalSet, i32) = ([0; 16], 0);
    let is_blocked = unsafe {
        signal(SIGINT, SIG_DFL);
        sigemptyset(&mut sigint);
        sigaddset(&mut sigint, SIGINT);
        sigprocmask(SIG_BLOCK, &sigint, std::ptr::null_mut()) == 0
    };
    if !is_blocked {
        fail(1, &format!("SIGINT: {}", io::Error::last_os_error()));
    }
    let directory = runtime_dir().unwrap_or_else(|error| fail(1, &error.to_string())).join(name);
    if let Err(error) = start(name, &directory) {
        for file in ["pid", "pid.tmp", "status.json", "status.tmp", "sock"] {
            let _ = fs::remove_file(directory.join(file));
        }
        fail(1, &format!("{directory:?}: {error}"));
    }
    while unsafe { sigwait(&sigint, &mut received) } != 0 {
        sleep(Duration::from_secs(1));
    }
    match remove(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => fail(1, &format!("{directory:?}: {error}")),
        _ => exit(0), // and ends all threads
    }
}
