//! What W1 is held against: the same JSON to a bare Python child and back, and two ways in which programs do it without Hob.
//!
//! Apart from `w1_echo.rs` so that a reader can judge the floors alone. None of them checks, bounds or names anything.

// `host_memory.rs` uses one of them.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PYTHON: &str = "python3";

/// Answers each JSON text on the socket that is its standard input.
const ECHO: &str = r#"
import json, socket
lane = socket.socket(fileno=0)
while text := lane.recv(65536):
    lane.send(json.dumps({"length": len(json.loads(text)["text"])}).encode())
"#;

/// JSON-RPC 2.0, one message a line, as tools for editors and agents speak it.
const DAEMON: &str = r#"
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
const ONCE: &str = r#"
import json, sys
print(json.dumps({"length": len(json.load(sys.stdin)["text"])}))
"#;

pub const INPUT: &[u8] = br#"{"text":"hello"}"#;
const OUTPUT: &[u8] = br#"{"length": 5}"#;

fn python(code: &str, stdin: Stdio, stdout: Stdio) -> Child {
    Command::new(PYTHON).args(["-I", "-S", "-c", code]).stdin(stdin).stdout(stdout).spawn().expect("there is a python3")
}

/// A child with our end of its standard input.
fn echo() -> (UnixStream, Child) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    (ours, python(ECHO, Stdio::from(OwnedFd::from(theirs)), Stdio::null()))
}

/// The floor for a thread that blocks.
pub struct Blocking {
    lane: Option<UnixStream>,
    child: Child,
    buffer: Vec<u8>,
}

impl Blocking {
    pub fn start() -> Blocking {
        let (lane, child) = echo();
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
        let (lane, child) = echo();
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
        self.calls += 1;
        let parameters = json!({"tool_name": "echo", "args": {"text": "hello"}});
        let request = json!({"jsonrpc": "2.0", "id": self.calls, "method": "execute_tool", "params": parameters});
        self.stdin.as_mut().expect("open until dropped").write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let reply: Value = serde_json::from_str(&line).unwrap();
        let result: Value = serde_json::from_str(reply["result"].as_str().unwrap()).unwrap();
        assert_eq!((&reply["id"], &result["length"]), (&json!(self.calls), &json!(5)));
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
