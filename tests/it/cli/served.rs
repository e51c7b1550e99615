//! A running `hob serve` for the tests, a recipe for it to serve, and HTTP requests written byte by byte.
//!
//! The requests are written on a socket, because an HTTP client does not hang up midway, send half a head or
//! announce a wrong length.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::rig::{Rig, Signed, signal, write_recipe};

/// Does what its input says; it reports through files what it cannot report over the wire.
const WORKER: &str = r#"import os, pathlib, time
import hob_pod
class Subject:
    def run(self, input, blobs):
        do = input.get("do")
        if do == "wait":
            folder = pathlib.Path(input["folder"])
            # In one step: whoever waits for the file reads it.
            (folder / "half").write_text(str(os.getpid()))
            (folder / "half").rename(folder / "began")
            try:
                while not hob_pod.cancelled():
                    time.sleep(0.005)
            finally:
                (folder / "ended").write_text("")
            raise hob_pod.Fault("cancelled", "noticed")
        if do == "turn":
            return {"given": len(blobs["given"].data)}, {"turned": hob_pod.Blob(bytes(reversed(bytes(blobs["given"].data))), "application/x-turned")}
        if do == "sleep":
            time.sleep(input["seconds"])
        if do == "say":
            print(input["text"])
            return os.getpid()
        if do == "crash":
            os.kill(os.getpid(), 11)
        if do == "raise":
            print("planted in the log")
            raise RuntimeError("went wrong in " + __file__)  # planted
        if do == "fail":
            raise hob_pod.Fault("invalid_input", "not this one")
        return input
"#;

/// A home with `lab/worker` installed, which may write below `open` in its author's folder.
pub fn with_worker() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = signed.folder.path().join("worker");
    let open = signed.folder.path().join("open");
    fs::create_dir(&open).unwrap();
    let pod = format!("python = \">=3.9\"\n[permissions]\nwrite = [{open:?}]");
    write_recipe(&folder, "lab/worker", "0.1.0", WORKER, &pod);
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/worker", "--grant"]).well();
    (rig, signed)
}

/// A server under test.
pub struct Serving {
    pub child: Child,
    pub socket: PathBuf,
    /// The TCP address, if it listens on one.
    pub address: Option<String>,
    /// The path of its token.
    pub token: Option<PathBuf>,
}

impl Serving {
    /// Starts a server and waits until it prints where it listens.
    #[track_caller]
    pub fn start(rig: &Rig, words: &[&str]) -> Serving {
        Serving::start_with(rig, words, &[])
    }

    /// The same with further variables.
    #[track_caller]
    pub fn start_with(rig: &Rig, words: &[&str], variables: &[(&str, &str)]) -> Serving {
        let mut command = rig.command(&[&["serve", "--json"], words].concat());
        command.envs(variables.iter().copied());
        Serving::started(command)
    }

    /// Starts `command`, and waits until it prints where it listens.
    #[track_caller]
    pub fn started(mut command: Command) -> Serving {
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said:?} {}", stderr(&mut child)));
        assert_eq!(said["pid"], child.id());
        let path = |key: &str| said[key].as_str().map(PathBuf::from);
        Serving { child, socket: path("socket").unwrap(), address: said["listen"].as_str().map(str::to_owned), token: path("token") }
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub fn connect_tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address.as_ref().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends one request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, head: &str, body: &[u8]) -> Answer {
        ask(self.connect(), head, body).unwrap_or_else(|| panic!("no answer to {head}"))
    }

    /// Sends a signal, and waits at most `seconds` for the end.
    #[track_caller]
    pub fn end(&mut self, with: Signal, seconds: u64) -> ExitStatus {
        signal(self.child.id(), with);
        self.ended(seconds)
    }

    #[track_caller]
    pub fn ended(&mut self, seconds: u64) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < Duration::from_secs(seconds), "the server did not end within {seconds} s");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn stderr(child: &mut Child) -> String {
    let _ = child.kill();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

/// A whole response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the fault in the answer.
    #[track_caller]
    pub fn code(&self) -> String {
        assert!(self.head.to_lowercase().contains("content-type: application/json"), "{self:?}");
        self.json()["fault"]["code"].as_str().unwrap_or_else(|| panic!("no fault: {self:?}")).to_owned()
    }
}

/// The bytes of a request with this first line; `head` may contain further lines.
pub fn request(head: &str, body: &[u8]) -> Vec<u8> {
    let length = if head.contains("content-length") || head.contains("transfer-encoding") {
        String::new()
    } else {
        format!("content-length: {}\r\n", body.len())
    };
    let (first, more) = head.split_once('\n').unwrap_or((head, ""));
    let more: String = more.lines().map(|line| format!("{line}\r\n")).collect();
    [format!("{first} HTTP/1.1\r\nhost: hob\r\nconnection: close\r\n{more}{length}\r\n").as_bytes(), body].concat()
}

/// Sends a request and reads the whole answer; `None` if the connection was closed without one.
pub fn ask(mut stream: impl Read + Write, head: &str, body: &[u8]) -> Option<Answer> {
    // A server stops reading once it has decided.
    let _ = stream.write_all(&request(head, body));
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, head: head.to_owned(), body: unchunked(head, body)? })
}

/// Joins the chunks of a body; `None` if it is incomplete.
fn unchunked(head: &str, body: &str) -> Option<String> {
    let head = head.to_lowercase();
    if !head.contains("transfer-encoding: chunked") {
        let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        return (body.len() == length).then(|| body.to_owned());
    }
    let (mut rest, mut whole) = (body, String::new());
    loop {
        let (length, more) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole.push_str(more.get(..length)?);
        rest = more.get(length + 2..)?;
    }
}

/// The body of a general call.
pub fn general(recipe: &str, operation: &str, input: &Value) -> Vec<u8> {
    json!({ "recipe": recipe, "operation": operation, "input": input }).to_string().into_bytes()
}

/// Waits for a file that a pod writes.
#[track_caller]
pub fn wait_for(path: &Path) -> Duration {
    let begun = Instant::now();
    while fs::read(path).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
    begun.elapsed()
}
