//! W4: 1, 16, 100 MB and 1 GB of float32 to a pod and as many back, against memory alone, shared memory,
//! pickle, base64 and ray.
//!
//! Every column has one added to each number by the other side. Hob's caller has its array in memory of its
//! own and reads the result into such (`hob`), or looks at none of it (`hob-unread`), as the one of bare
//! shared memory does that finds it mapped. Peak memory is measured in a process of its own, which this
//! program starts as itself.

mod byte_peers;
mod installed;
mod processes;
mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use byte_peers::BytePeers;
use bytes::Bytes;
use hob::{
    host::{Config, Host, blobs},
    model::{Blob, Call, Home},
};
use serde_json::{Value, json};
use support::{Column, shown};
use tokio::runtime::Builder;

/// Bytes, rounds, and calls of each round.
const SIZES: [(usize, usize, usize); 4] = [(1_000_000, 7, 30), (16_000_000, 7, 10), (100_000_000, 7, 4), (1_000_000_000, 3, 1)];
/// Hob's columns first.
const COLUMNS: [&str; 9] = ["hob", "hob-unread", "memcpy", "shm", "shm-copied", "shm-calls", "executor", "base64", "ray"];
/// First argument of the process whose memory is measured; then its home, how many bytes, and whether they
/// are in a file.
const MEASURE: &str = "--measure";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEASURE) {
        let [home, bytes, file] = [1, 2, 3].map(|more| arguments[at + more].as_str());
        return println!("{}", measure(&Home::at(home), bytes.parse().unwrap(), file == "file"));
    }
    let installed = Builder::new_current_thread().enable_all().build().unwrap().block_on(installed::install(&[installed::BYTES])).unwrap();
    let mut peers = support::peers_python().map(|python| BytePeers::start(&python));
    let mut ray = support::ray_python().map(|python| BytePeers::start(&python));
    let hob = Hob::open(&installed.home);
    // Some of the sizes, in MB, if any is named: `cargo bench --bench w4_bytes -- 1 16`.
    let named: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let wanted = |(bytes, ..): &(usize, usize, usize)| named.is_empty() || named.contains(&(bytes / 1_000_000));
    let sizes: Vec<_> = SIZES.into_iter().filter(wanted).collect();
    for (bytes, rounds, count) in sizes.iter().copied() {
        let mut found: [Column; COLUMNS.len()] = Default::default();
        for round in 0..rounds {
            for (name, column) in COLUMNS.iter().zip(&mut found) {
                // Seconds and minutes: one round says enough of them.
                if round > 0 && bytes >= 100_000_000 && (*name == "base64" || (*name == "executor" && bytes >= 1_000_000_000)) {
                    continue;
                }
                support::quiet();
                column.add(match *name {
                    "hob" | "hob-unread" => hob.calls(bytes, count, *name == "hob"),
                    "ray" => ray.as_mut().map_or(Vec::new(), |ray| ray.calls(name, bytes, count)),
                    _ => peers.as_mut().map_or(Vec::new(), |peers| peers.calls(name, bytes, count)),
                });
            }
        }
        report(bytes, rounds, count, &found);
    }
    drop((hob, peers, ray));
    memory(&installed.folder, &sizes);
}

/// A host on a runtime of its own.
struct Hob {
    runtime: tokio::runtime::Runtime,
    host: Host,
}

impl Hob {
    fn open(home: &Home) -> Hob {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let host = runtime.block_on(Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob")))).unwrap();
        Hob { runtime, host }
    }

    /// `count` round trips, after one that does not count; `read`: with the whole result in the caller's own
    /// memory.
    fn calls(&self, bytes: usize, count: usize, read: bool) -> Vec<Duration> {
        let (host, input, mut result) = (self.host.clone(), numbers(bytes), vec![1; bytes]);
        // As a task, as a server runs its handlers.
        let work = self.runtime.spawn(async move {
            let mut times = Vec::with_capacity(count);
            for _ in 0..=count {
                let start = Instant::now();
                let back = round_trip(&host, Blob::new("x", "application/octet-stream", input.clone())).await;
                if read {
                    back.read_exact_at(0, &mut result).unwrap();
                }
                times.push(start.elapsed());
                check(&back, bytes);
                assert!(!read || result[bytes - 4..] == number(bytes / 4 - 1, 1.0));
            }
            times.split_off(1)
        });
        self.runtime.block_on(work).unwrap()
    }
}

impl Drop for Hob {
    fn drop(&mut self) {
        self.runtime.block_on(self.host.shutdown());
    }
}

async fn round_trip(host: &Host, blob: Blob) -> Blob {
    let call = Call::new(installed::BYTES, "add", json!({})).unwrap().with_blobs(vec![blob]);
    let outcome = host.call(call).await.unwrap();
    outcome.blobs.into_iter().next().expect("the recipe gives one")
}

/// The bytes of a number of the array, with so much added.
fn number(at: usize, more: f32) -> [u8; 4] {
    ((at % 1024) as f32 + more).to_le_bytes()
}

fn numbers(bytes: usize) -> Bytes {
    let few: Vec<u8> = (0..1024).flat_map(|at| number(at, 0.0)).collect();
    few.iter().copied().cycle().take(bytes).collect::<Vec<u8>>().into()
}

/// It is as large as it was, and the numbers at some places have one more.
fn check(blob: &Blob, bytes: usize) {
    assert_eq!(blob.size(), bytes as u64);
    for at in [0, bytes / 8, bytes / 4 - 1] {
        let mut found = [0; 4];
        blob.read_exact_at(at as u64 * 4, &mut found).unwrap();
        assert_eq!(found, number(at, 1.0), "number {at} of {bytes} bytes");
    }
}

fn report(bytes: usize, rounds: usize, count: usize, found: &[Column; COLUMNS.len()]) {
    let megabytes = bytes / 1_000_000;
    println!("\nW4: {megabytes} MB of float32 there and back, {rounds} rounds of {count} calls");
    println!(
        "| column | median, ms | GB/s both ways | x memcpy | x shm | x shm, copied out | x shm, by calls | x ray |\n|---|---|---|---|---|---|---|---|"
    );
    let [_, _, memcpy, shm, copied, by_calls, executor, base64, ray] = found;
    for (name, column) in COLUMNS.iter().zip(found).filter(|(_, column)| !column.is_empty()) {
        let ms = column.median() / 1e3;
        let over = [memcpy, shm, copied, by_calls, ray].map(|other| shown(column.over(other), 2)).join(" | ");
        println!("| {name} | {ms:.2} | {:.2} | {over} |", 2.0 * megabytes as f64 / ms);
        let others = [
            ("memcpy", memcpy),
            ("shm", shm),
            ("shm_copied", copied),
            ("shm_calls", by_calls),
            ("executor", executor),
            ("base64", base64),
            ("ray", ray),
        ];
        let ratios = others.map(|(name, other)| (name, column.over(other)));
        support::keep(&format!("W4-{megabytes}MB"), name, ms, "ms", &ratios);
    }
}

/// What host and pod take at most, above what they take after a small call.
fn memory(home: &Path, sizes: &[(usize, usize, usize)]) {
    println!("\nW4: peak memory above idle, MB (the caller's own arrays are there before)");
    println!("| | host, in memory | pod | host, files | pod |\n|---|---|---|---|---|");
    for (bytes, ..) in sizes {
        let megabytes = bytes / 1_000_000;
        let mut cells = Vec::new();
        for way in ["memory", "file"] {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let output = command.arg(MEASURE).arg(home).args([&bytes.to_string(), way]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let found: Value = serde_json::from_slice(&output.stdout).unwrap();
            for process in ["host", "pod"] {
                let peak = found[process].as_f64().unwrap();
                cells.push(format!("{peak:.1}"));
                support::keep(&format!("W4-memory-{megabytes}MB"), &format!("{process}-{way}"), peak, "MB", &[]);
            }
        }
        println!("| {megabytes} MB | {} |", cells.join(" | "));
    }
}

/// Opens a host in this process, makes a call with so many bytes, and says by how much the most memory was
/// above that before.
fn measure(home: &Home, bytes: usize, in_file: bool) -> Value {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let scratch = tempfile::tempdir_in(support::folder()).unwrap();
    let (given, got) = (scratch.path().join("given"), scratch.path().join("got"));
    runtime.block_on(async {
        let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
        // What a caller holds is there before.
        let (input, mut result) = match in_file {
            true => {
                std::fs::write(&given, numbers(bytes)).unwrap();
                (Bytes::new(), Vec::new())
            }
            false => (numbers(bytes), vec![1; bytes]),
        };
        check(&round_trip(&host, Blob::new("x", "application/octet-stream", numbers(4096))).await, 4096);
        let pod = host.pods()[0].pid.unwrap();
        let processes = [std::process::id(), pod];
        processes.into_iter().for_each(processes::forget_peak);
        let idle = processes.map(processes::peak);
        let blob = match in_file {
            true => blobs::from_file("x", "application/octet-stream", &given).unwrap(),
            false => Blob::new("x", "application/octet-stream", input.clone()),
        };
        let back = round_trip(&host, blob).await;
        match in_file {
            true => back.write_to(&mut std::fs::File::create(&got).unwrap(), "the result").unwrap(),
            false => back.read_exact_at(0, &mut result).unwrap(),
        }
        let peak = processes.map(processes::peak);
        check(&back, bytes);
        drop(back);
        host.shutdown().await;
        json!({"host": peak[0] - idle[0], "pod": peak[1] - idle[1]})
    })
}
