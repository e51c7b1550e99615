//! The ways of W4 in which large arrays go to another process without Hob, driven by a Python program
//! (`peers/bytes.py`).
//!
//! Apart from `w4_bytes.rs` as `python_peers.rs` is from W1: the program takes orders, so that its columns
//! are taken in turns with Hob's.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use super::support;

/// The program, running.
pub struct BytePeers {
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    child: Child,
}

#[derive(Deserialize)]
struct Seconds {
    times: Vec<f64>,
}

impl BytePeers {
    /// With an interpreter that has what its columns need.
    pub fn start(python: &Path) -> BytePeers {
        let mut command = Command::new(python);
        // Ray would tell its makers that it was used.
        command.arg(support::source("peers/bytes.py")).env("RAY_USAGE_STATS_ENABLED", "0");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the peers can be started");
        BytePeers { stdin: child.stdin.take(), stdout: BufReader::new(child.stdout.take().expect("it is piped")), child }
    }

    /// `count` round trips of so many bytes.
    pub fn calls(&mut self, column: &str, bytes: usize, count: usize) -> Vec<Duration> {
        let order = json!({"column": column, "bytes": bytes, "count": count});
        writeln!(self.stdin.as_mut().expect("open until dropped"), "{order}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let found: Seconds = serde_json::from_str(&line).expect("an answer of peers/bytes.py");
        found.times.into_iter().map(Duration::from_secs_f64).collect()
    }
}

impl Drop for BytePeers {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}
