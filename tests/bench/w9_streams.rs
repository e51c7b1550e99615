//! W9: chunks a second of a stream, without glue, forwarded by glue and reshaped by it; the time to the first
//! chunk; a call in a session.
//!
//! The floor is a bare Python child that writes the same chunks as lines of JSON, one at a time, to a socket
//! pair, read and parsed in Rust.

mod installed;
mod support;

use std::{
    io::{BufRead, BufReader, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Host},
    model::{Call, Event, Home},
};
use serde_json::{Value, json};
use support::{Column, Series, shown};
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 7;
/// Of one stream, whose rate is taken.
const CHUNKS: usize = 20_000;
/// Streams of one chunk, for the time until it comes.
const FIRSTS: usize = 300;
/// Plain calls and calls in a session.
const CALLS: usize = 2_000;

/// Columns of streams: name, recipe, and what its glue is asked to do.
const STREAMS: [(&str, &str, Option<bool>); 3] =
    [("no glue", installed::STRAIGHT, None), ("forwarded", installed::GLUED, Some(false)), ("reshaped", installed::GLUED, Some(true))];

/// Gives `count` chunks for each line with a number.
const FLOOR: &str = r#"
import json, socket, sys
lane = socket.socket(fileno=0)
for line in lane.makefile("rb"):
    for index in range(int(line)):
        lane.sendall(json.dumps({"index": index, "text": "hello"}).encode() + b"\n")
"#;

/// The bare child.
struct Floor {
    lane: BufReader<UnixStream>,
    child: Child,
}

impl Floor {
    fn start() -> Floor {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(support::python());
        let child = command.args(["-I", "-S", "-c", FLOOR]).stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
        Floor { lane: BufReader::new(ours), child }
    }

    /// How long so many chunks took, and until when the first was there.
    fn stream(&mut self, count: usize) -> (Duration, Duration) {
        let (start, mut first, mut line) = (Instant::now(), Duration::ZERO, String::new());
        writeln!(self.lane.get_mut(), "{count}").unwrap();
        for index in 0..count {
            line.clear();
            self.lane.read_line(&mut line).unwrap();
            let chunk: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(chunk["index"], json!(index));
            if index == 0 {
                first = start.elapsed();
            }
        }
        (start.elapsed(), first)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.lane.get_ref().shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// A host on a runtime of its own.
struct Hob {
    runtime: Runtime,
    host: Host,
}

impl Hob {
    fn open(runtime: Runtime, home: &Home) -> Hob {
        let host = runtime.block_on(Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob")))).unwrap();
        Hob { runtime, host }
    }

    /// How long a stream of so many chunks took, and until when the first was there.
    fn stream(&self, recipe: &'static str, reshape: Option<bool>, count: usize) -> (Duration, Duration) {
        let host = self.host.clone();
        let work = async move {
            let input = match reshape {
                None => json!({"text": "hello", "count": count}),
                Some(reshape) => json!({"text": "hello", "count": count, "reshape": reshape}),
            };
            let (start, mut first, mut seen) = (Instant::now(), Duration::ZERO, 0);
            let mut running = host.start(Call::new(recipe, "repeat", input).unwrap());
            while let Some(event) = running.next().await {
                let Event::Chunk { data, .. } = event else { continue };
                if seen == 0 {
                    first = start.elapsed();
                }
                match reshape {
                    Some(true) => assert!(data["number"] == json!(seen + 1) && data["said"] == "hello", "{data}"),
                    _ => assert_eq!(data["index"], json!(seen)),
                }
                seen += 1;
            }
            assert_eq!((seen, running.outcome().await.unwrap().output.value()), (count, &json!({"count": count})));
            (start.elapsed(), first)
        };
        self.runtime.block_on(self.runtime.spawn(work)).unwrap()
    }

    /// So many calls, one after the other, in that session or in none.
    fn calls(&self, session: Option<&str>, count: usize) -> Vec<Duration> {
        let (host, session) = (self.host.clone(), session.map(str::to_owned));
        let work = async move {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let call = Call::new(installed::SEATED, "echo", json!({"text": "hello"})).unwrap();
                let start = Instant::now();
                let outcome = host.call(session.iter().fold(call, |call, session| call.in_session(session))).await.unwrap();
                times.push(start.elapsed());
                assert_eq!(outcome.output.value(), &json!({"length": 5}));
            }
            times
        };
        self.runtime.block_on(self.runtime.spawn(work)).unwrap()
    }
}

/// What a column of streams came to.
#[derive(Default)]
struct Found {
    /// Chunks a second.
    rate: Series,
    first: Column,
}

impl Found {
    fn round(&mut self, mut stream: impl FnMut(usize) -> (Duration, Duration)) {
        support::quiet();
        self.rate.add(CHUNKS as f64 / stream(CHUNKS).0.as_secs_f64());
        self.first.add((0..FIRSTS).map(|_| stream(1).1).collect());
    }
}

fn main() {
    let setup = Builder::new_current_thread().enable_all().build().unwrap();
    let installed = setup.block_on(installed::install(&[installed::STRAIGHT, installed::GLUED, installed::SEATED])).unwrap();
    let runtimes = [Builder::new_current_thread().enable_all().build(), Builder::new_multi_thread().worker_threads(2).enable_all().build()];
    let hosts = runtimes.map(|runtime| Hob::open(runtime.unwrap(), &installed.home));
    let mut floor = Floor::start();
    let mut floors = Found::default();
    let mut streams: [[Found; STREAMS.len()]; 2] = Default::default();
    let mut calls: [Column; 2] = Default::default();
    // Once each before anything counts.
    for hob in &hosts {
        for (_, recipe, reshape) in STREAMS {
            hob.stream(recipe, reshape, 1_000);
        }
    }
    for session in [None, Some("bench")] {
        hosts[0].calls(session, 200);
    }
    for _ in 0..ROUNDS {
        floors.round(|count| floor.stream(count));
        for (hob, found) in hosts.iter().zip(&mut streams) {
            for ((_, recipe, reshape), found) in STREAMS.iter().zip(found) {
                found.round(|count| hob.stream(recipe, *reshape, count));
            }
        }
        for (session, column) in [None, Some("bench")].into_iter().zip(&mut calls) {
            support::quiet();
            column.add(hosts[0].calls(session, CALLS));
        }
    }
    report(&floors, &streams);
    let [plain, seated] = &calls;
    println!("\nW9: calls one after the other, {ROUNDS} rounds of {CALLS}\n| | median, us | x plain |\n|---|---|---|");
    for (name, column) in [("plain", plain), ("in a session", seated)] {
        println!("| {name} | {:.1} | {} |", column.median(), shown(column.over(plain), 2));
    }
    support::keep("W9-session", "plain", plain.median(), "us", &[]);
    support::keep("W9-session", "hob", seated.median(), "us", &[("plain", seated.over(plain))]);
    for Hob { runtime, host } in hosts {
        runtime.block_on(host.shutdown());
    }
}

fn report(floor: &Found, streams: &[[Found; STREAMS.len()]; 2]) {
    println!("\nW9: streams of {CHUNKS} small chunks, and of one, {ROUNDS} rounds");
    println!(
        "| | chunks a second | of the floor's rate | of the rate without glue | first chunk after, us | x floor |\n|---|---|---|---|---|---|"
    );
    println!("| floor: lines from a bare child | {:.0} | 1.00 | - | {:.1} | 1.00 |", floor.rate.middle(), floor.first.median());
    support::keep("W9-rate", "floor", floor.rate.middle(), "chunks/s", &[]);
    support::keep("W9-first", "floor", floor.first.median(), "us", &[]);
    for (found, suffix) in streams.iter().zip(["", "-2-threads"]) {
        let raw = &found[0];
        for ((name, ..), column) in STREAMS.iter().zip(found) {
            let (of_floor, of_raw, first) = (column.rate.over(&floor.rate), column.rate.over(&raw.rate), column.first.over(&floor.first));
            let (rate, until) = (column.rate.middle(), column.first.median());
            println!("| hob, {name}{} | {rate:.0} | {of_floor:.2} | {of_raw:.2} | {until:.1} | {first:.2} |", suffix.replace('-', " "));
            let column_name = format!("hob-{}{suffix}", name.replace(' ', "-"));
            support::keep("W9-rate", &column_name, rate, "chunks/s", &[("floor", of_floor), ("no_glue", of_raw)]);
            support::keep("W9-first", &column_name, until, "us", &[("floor", first), ("no_glue", column.first.over(&raw.first))]);
        }
    }
}
