//! The embedding model by itself, in a bare Python loop (`peers/model_rate.py`): the limit of every server
//! around it.
//!
//! Apart from `w3_embeddings.rs` because the cold start of the same program is a column of `w6_recovery.rs`.

// `w6_recovery.rs` only starts it.
#![allow(dead_code)]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde::Deserialize;
use serde_json::json;

use super::support;

pub struct ModelAlone {
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    child: Child,
}

/// What it did in some seconds.
#[derive(Deserialize)]
pub struct Rate {
    pub texts: f64,
    pub seconds: f64,
    /// Seconds of processor time.
    pub processor: f64,
}

impl ModelAlone {
    /// Starts it and waits until the model has run once. None where its packages are not installed.
    pub fn start(texts: &[String]) -> Option<ModelAlone> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(support::peers_python()?);
        command.arg(support::source("peers/model_rate.py"));
        let python_path = [own.join("python/src"), own.join("recipes/sentence-embeddings/pod")].map(|path| path.display().to_string());
        command.env("PYTHONPATH", python_path.join(":")).env("PYTHONDONTWRITEBYTECODE", "1").env("OMP_NUM_THREADS", "1");
        command.env("BENCH_MODELS", own.join("recipes/sentence-embeddings/models"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the model can be started");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut alone = ModelAlone { stdin: child.stdin.take(), stdout, child };
        assert_eq!(alone.say(&json!(texts).to_string()).trim(), "ready");
        Some(alone)
    }

    /// Embeds for so long, so many texts at a time.
    pub fn rate(&mut self, items: usize, seconds: u64) -> Rate {
        let line = self.say(&json!({"items": items, "seconds": seconds}).to_string());
        serde_json::from_str(&line).expect("an answer of peers/model_rate.py")
    }

    fn say(&mut self, line: &str) -> String {
        writeln!(self.stdin.as_mut().expect("open until dropped"), "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        answer
    }
}

impl Drop for ModelAlone {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.wait();
    }
}
