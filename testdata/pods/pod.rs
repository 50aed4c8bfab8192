//! A pod in Rust, with nothing but its standard library.
//!
//!     rustc -o pod pod.rs
//!     pod [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
//!
//! It keeps the handshake (spawn/HANDSHAKE.md); main() has the order in which things happen.

use std::collections::HashMap;
use std::env::{args_os, var_os};
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{exit, id};
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::thread;

// The library has no signals.
extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn write(fd: i32, data: *const u8, length: usize) -> isize;
}
const SIGINT: i32 = 2;

static STOP: AtomicI32 = AtomicI32::new(-1); // the descriptor that a byte is written to

extern "C" fn on_sigint(_: i32) {
    unsafe { write(STOP.load(SeqCst), [0].as_ptr(), 1) }; // a handler may do little more
}

fn fail(status: i32, why: &str) -> ! {
    eprintln!("pod: {why}");
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
    let is_element = |name: &OsString| !["", ".", ".."].iter().any(|no| name == no) && !name.as_bytes().contains(&b'/');
    if !values.contains_key("--workspace") || !values.get("--pod").map_or(false, is_element) {
        fail(2, "--workspace and --pod are needed, and a pod's name is one path element");
    }
    values
}

fn runtime_dir() -> PathBuf {
    let places = [
        ("YOI_RUNTIME_DIR", ""),
        ("YOI_HOME", "run"),
        ("XDG_RUNTIME_DIR", "yoi"),
        ("HOME", ".yoi/run"),
    ];
    for (variable, below) in places {
        let base = var_os(variable).unwrap_or_default();
        if !base.is_empty() { // an empty one counts as unset
            return Path::new(&base).join(below);
        }
    }
    fail(1, "no runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)")
}

fn write_atomically(path: PathBuf, text: String) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text)?;
    fs::rename(temporary, path)
}

fn serve(mut client: UnixStream, mut stop: UnixStream) -> io::Result<()> {
    writeln!(client, r#"{{"event":"snapshot","data":{{"pid":{}}}}}"#, id())?;
    for line in BufReader::new(client.try_clone()?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        let words: Vec<&str> = line.split('"').map(str::trim).collect(); // who has more methods has a parser
        if words.windows(3).any(|word| word == ["method", ":", "shutdown"]) {
            stop.write_all(&[0])?;
        } else {
            client.write_all(b"{\"event\":\"error\",\"data\":{\"message\":\"unknown method\"}}\n")?;
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let args = parse_args();
    let name = &args["--pod"];
    let directory = runtime_dir().join(name);
    let path = directory.join("sock");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    write_atomically(directory.join("pid"), format!("{}\n", id()))?;
    write_atomically(directory.join("status.json"), format!("{{\"pid\":{},\"state\":\"running\"}}\n", id()))?;
    let (stop, mut stopped) = UnixStream::pair()?;
    STOP.store(stop.as_raw_fd(), SeqCst);
    let _ = fs::remove_file(&path); // of a pod that was killed
    // Who reads the ready line may connect, and may stop the pod, at once.
    let listener = UnixListener::bind(&path)?; // listens, too
    unsafe { signal(SIGINT, on_sigint as *const () as usize) };
    // A whole line in one write, which eprintln would cut in pieces.
    let mut log = io::LineWriter::new(io::stderr());
    log.write_all(&[b"YOI-READY\t", name.as_bytes(), b"\t", path.as_os_str().as_bytes(), b"\n"].concat())?;
    writeln!(log, "pod: {} listening on {path:?}", name.to_string_lossy())?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let stop = stop.try_clone();
            thread::spawn(move || serve(client, stop?));
        }
    });
    stopped.read_exact(&mut [0])?;
    fs::remove_dir_all(&directory)
}
