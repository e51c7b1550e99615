//! What W1 is held against: the same JSON to a bare Python child and back, and two ways in which programs do
//! it without Hob. What Python's own users do without it is in `python_peers.rs`.
//!
//! Apart from `w1_echo.rs` so that a reader can judge the floors alone. None of them checks, bounds or names
//! anything.

// `host_memory.rs` uses one of them.
#![allow(dead_code)]

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support;

/// Answers each JSON text on the socket that is its standard input.
const ECHO: &str = r#"
import json, socket
lane = socket.socket(fileno=0)
while text := lane.recv(65536):
    lane.send(json.dumps({"length": len(json.loads(text)["text"])}).encode())
"#;

/// The same with a line for each text, as many at once as came.
const ECHO_LINES: &str = r#"
import json, socket
lane = socket.socket(fileno=0)
rest = b""
while more := lane.recv(65536):
    *lines, rest = (rest + more).split(b"\n")
    lane.sendall(b"".join(json.dumps({"length": len(json.loads(line)["text"])}).encode() + b"\n" for line in lines))
"#;

/// JSON-RPC 2.0, one message a line, as tools for editors and agents speak it.
pub const DAEMON: &str = r#"
import json, sys
TOOLS = {"echo": lambda arguments: {"length": len(arguments["text"])}}
for line in sys.stdin:
    number = None
    try:
        request = json.loads(line)
        number = request.get("id")
        parameters = request["params"]
        result = TOOLS[parameters["tool_name"]](parameters["args"])
        reply = {"jsonrpc": "2.0", "id": number, "result": json.dumps(result)}
    except Exception as error:
        reply = {"jsonrpc": "2.0", "id": number, "error": {"code": -32000, "message": str(error)}}
    print(json.dumps(reply), flush=True)
"#;

/// One answer, then the end.
pub const ONCE: &str = r#"
import json, sys
print(json.dumps({"length": len(json.load(sys.stdin)["text"])}))
"#;

pub const INPUT: &[u8] = br#"{"text":"hello"}"#;
const OUTPUT: &[u8] = br#"{"length": 5}"#;

fn python(code: &str, stdin: Stdio, stdout: Stdio) -> Child {
    Command::new(support::python()).args(["-I", "-S", "-c", code]).stdin(stdin).stdout(stdout).spawn().expect("there is a python3")
}

/// A child with our end of its standard input.
fn echo(code: &str) -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    (ours, python(code, Stdio::from(OwnedFd::from(theirs)), Stdio::null()))
}

/// Many calls, some of them in flight at once.
pub struct Run {
    /// Of each call, from when it was sent.
    pub times: Vec<Duration>,
    /// Of all of them.
    pub total: Duration,
}

/// The floor with several calls in flight: a thread that blocks, reads what came and sends as many again in
/// one write.
pub struct Lines {
    lane: Option<UnixStream>,
    child: Child,
    buffer: Vec<u8>,
}

impl Lines {
    pub fn start() -> Lines {
        let (lane, child) = echo(ECHO_LINES);
        Lines { lane: Some(lane), child, buffer: vec![0; 65_536] }
    }

    pub fn calls(&mut self, in_flight: usize, count: usize) -> Run {
        let lane = self.lane.as_mut().expect("open until dropped");
        let line = [INPUT, b"\n"].concat();
        let (mut times, mut sent, mut begun) = (Vec::with_capacity(count), VecDeque::new(), 0);
        let start = Instant::now();
        let mut room = in_flight;
        // What came may end within an answer.
        let mut part = 0;
        while times.len() < count {
            let more = room.min(count - begun);
            sent.extend(std::iter::repeat_n(Instant::now(), more));
            lane.write_all(&line.repeat(more)).unwrap();
            begun += more;
            let length = lane.read(&mut self.buffer).unwrap() + part;
            let came = Instant::now();
            room = length / (OUTPUT.len() + 1);
            part = length % (OUTPUT.len() + 1);
            times.extend(sent.drain(..room).map(|at: Instant| came - at));
        }
        Run { times, total: start.elapsed() }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.lane = None;
        let _ = self.child.wait();
    }
}

/// The floor for a thread that blocks.
pub struct Blocking {
    lane: Option<UnixStream>,
    child: Child,
    buffer: Vec<u8>,
}

impl Blocking {
    pub fn start() -> Blocking {
        let (lane, child) = echo(ECHO);
        Blocking { lane: Some(lane), child, buffer: vec![0; 65_536] }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn call(&mut self) {
        let lane = self.lane.as_mut().expect("open until dropped");
        lane.write_all(INPUT).unwrap();
        let count = lane.read(&mut self.buffer).unwrap();
        assert_eq!(&self.buffer[..count], OUTPUT);
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        self.lane = None;
        let _ = self.child.wait();
    }
}

/// The floor for a task of tokio's. To be made within a runtime.
pub struct Tokio {
    lane: Option<tokio::net::UnixStream>,
    child: Child,
    buffer: Vec<u8>,
}

impl Tokio {
    pub fn start() -> Tokio {
        let (lane, child) = echo(ECHO);
        lane.set_nonblocking(true).unwrap();
        Tokio { lane: Some(tokio::net::UnixStream::from_std(lane).unwrap()), child, buffer: vec![0; 65_536] }
    }

    pub async fn call(&mut self) {
        let lane = self.lane.as_mut().expect("open until dropped");
        lane.write_all(INPUT).await.unwrap();
        let count = lane.read(&mut self.buffer).await.unwrap();
        assert_eq!(&self.buffer[..count], OUTPUT);
    }
}

impl Drop for Tokio {
    fn drop(&mut self) {
        self.lane = None;
        let _ = self.child.wait();
    }
}

/// A daemon that speaks JSON-RPC over pipes.
pub struct JsonRpc {
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    child: Child,
    calls: u64,
}

impl JsonRpc {
    pub fn start() -> JsonRpc {
        let mut child = python(DAEMON, Stdio::piped(), Stdio::piped());
        JsonRpc { stdin: child.stdin.take(), stdout: BufReader::new(child.stdout.take().expect("it is piped")), child, calls: 0 }
    }

    pub fn call(&mut self) {
        self.send();
        self.receive(self.calls);
    }

    /// Calls with several in flight: a new one is sent for each answer.
    pub fn calls(&mut self, in_flight: usize, count: usize) -> Run {
        let (mut times, mut sent, mut begun) = (Vec::with_capacity(count), VecDeque::new(), 0);
        let (start, before) = (Instant::now(), self.calls);
        while times.len() < count {
            while begun < count && sent.len() < in_flight {
                sent.push_back(Instant::now());
                self.send();
                begun += 1;
            }
            self.receive(before + times.len() as u64 + 1);
            times.push(sent.pop_front().expect("as many as are waited for").elapsed());
        }
        Run { times, total: start.elapsed() }
    }

    fn send(&mut self) {
        self.calls += 1;
        let parameters = json!({"tool_name": "echo", "args": {"text": "hello"}});
        let request = json!({"jsonrpc": "2.0", "id": self.calls, "method": "execute_tool", "params": parameters});
        self.stdin.as_mut().expect("open until dropped").write_all(format!("{request}\n").as_bytes()).unwrap();
    }

    fn receive(&mut self, number: u64) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(&line).unwrap();
        let result: Value = serde_json::from_str(reply["result"].as_str().unwrap()).unwrap();
        assert_eq!((&reply["id"], &result["length"]), (&json!(number), &json!(5)));
    }
}

impl Drop for JsonRpc {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// A process of its own for a call.
pub fn exec() {
    let mut child = python(ONCE, Stdio::piped(), Stdio::piped());
    child.stdin.take().expect("it is piped").write_all(INPUT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout.trim_ascii_end(), OUTPUT);
}
