//! `wrk` as a load generator: so many keep-alive connections for so many seconds.
//!
//! Apart from the servers that it is pointed at, which do not know of it.

// Each benchmark is a program of its own and uses the part that it needs.
#![allow(dead_code)]

use std::process::{Command, Stdio};

use serde::Deserialize;

use super::{servers::Server, support};

/// What one run of `wrk` came to.
#[derive(Debug, Deserialize)]
pub struct Load {
    pub requests: u64,
    pub micros: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Refused connections, broken ones, timeouts, and answers that are no 2xx or 3xx.
    pub errors: u64,
}

impl Load {
    /// Answers that were right, for each second.
    pub fn rate(&self) -> f64 {
        (self.requests - self.errors.min(self.requests)) as f64 / self.micros * 1e6
    }
}

/// Whether it can be run; says so where not.
pub fn is_there() -> bool {
    let there = Command::new("wrk").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("\nSkipped what is measured with wrk: it is not installed (Debian's package `wrk`).");
    }
    there
}

/// Loads a server; `bodies` are sent in turn and hold no newline.
pub fn load(server: &Server, connections: usize, seconds: usize, bodies: &[String]) -> Load {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "--timeout", "20s", "-s"])
        .arg(support::source("peers/load.lua"))
        .arg(server.url())
        .env("BENCH_BODIES", bodies.join("\n"))
        .env("BENCH_TOKEN", server.token().unwrap_or_default())
        .output()
        .expect("wrk was there before");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    let line = line.unwrap_or_else(|| panic!("wrk said: {text}{}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_str(line).expect("load.lua writes JSON")
}
