//! The peers that are Python libraries, driven by a Python program (`peers/calls.py`), as their users are.
//!
//! Apart from `peers.rs`, whose peers a Rust program talks to. The program holds all of them open and takes
//! orders, so that its columns are taken in turns with all others.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use super::{
    peers::{self, Run},
    support,
};

/// The program, running.
pub struct PythonPeers {
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    child: Child,
}

#[derive(Deserialize)]
struct Seconds {
    total: f64,
    times: Vec<f64>,
}

impl PythonPeers {
    /// None where their packages are not installed.
    pub fn start() -> Option<PythonPeers> {
        let python = support::peers_python()?;
        let mut command = Command::new(python);
        command.arg(support::source("peers/calls.py")).args([peers::DAEMON, peers::ONCE]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peers can be started");
        Some(PythonPeers { stdin: child.stdin.take(), stdout: BufReader::new(child.stdout.take().expect("it is piped")), child })
    }

    pub fn calls(&mut self, column: &str, in_flight: usize, count: usize) -> Run {
        let order = json!({"column": column, "in_flight": in_flight, "count": count});
        writeln!(self.stdin.as_mut().expect("open until dropped"), "{order}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let found: Seconds = serde_json::from_str(&line).expect("an answer of peers/calls.py");
        Run { times: found.times.into_iter().map(Duration::from_secs_f64).collect(), total: Duration::from_secs_f64(found.total) }
    }
}

impl Drop for PythonPeers {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}
