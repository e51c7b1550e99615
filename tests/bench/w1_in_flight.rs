//! W1 with 1, 8 and 64 calls in flight, on pools of one and two pods: how long a call takes and how many are
//! done.
//!
//! The floor sends as many lines to a bare Python child, many in one write where it can. Apart from
//! `w1_echo.rs`, which times one call after the other.

mod installed;
mod peers;
mod python_peers;
mod support;

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Host},
    model::{Call, Home},
};
use peers::Run;
use python_peers::PythonPeers;
use serde_json::json;
use support::{Column, Series};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

const ROUNDS: usize = 5;
const CALLS: usize = 4_096;
const IN_FLIGHT: [usize; 3] = [1, 8, 64];

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

    /// So many callers, each with one call after the other.
    fn calls(&self, recipe: &'static str, in_flight: usize, count: usize) -> Run {
        let host = self.host.clone();
        let caller = move |host: Host| async move {
            let mut times = Vec::with_capacity(count / in_flight);
            for _ in 0..count / in_flight {
                let start = Instant::now();
                let outcome = host.call(Call::new(recipe, "echo", json!({"text": "hello"})).unwrap()).await.unwrap();
                times.push(start.elapsed());
                assert_eq!(outcome.output.value(), &json!({"length": 5}));
            }
            times
        };
        let work = async move {
            let start = Instant::now();
            let mut callers = JoinSet::new();
            for _ in 0..in_flight {
                callers.spawn(caller(host.clone()));
            }
            let times = callers.join_all().await.concat();
            Run { times, total: start.elapsed() }
        };
        self.runtime.block_on(self.runtime.spawn(work)).unwrap()
    }
}

/// Makes so many calls, so many of them in flight; none where it is not installed.
type Work<'a> = Box<dyn FnMut(usize, usize) -> Option<Run> + 'a>;

/// What a column came to with so many in flight.
#[derive(Default)]
struct Found {
    latency: Column,
    /// Microseconds of the whole for each call: what throughput comes to.
    each: Series,
}

fn main() {
    let one_thread = || Builder::new_current_thread().enable_all().build().unwrap();
    let two_threads = || Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let installed = one_thread().block_on(installed::install(&[installed::STRAIGHT, installed::TWO])).unwrap();
    let (one, two) = (Hob::open(one_thread(), &installed.home), Hob::open(two_threads(), &installed.home));
    let (mut lines, mut rpc) = (peers::Lines::start(), peers::JsonRpc::start());
    let python = RefCell::new(PythonPeers::start());
    let from_python = |column: &'static str| -> Work {
        let python = &python;
        Box::new(move |in_flight, count| Some(python.borrow_mut().as_mut()?.calls(column, in_flight, count)))
    };

    let mut columns: [(&str, &str, Work); 10] = [
        ("floor: lines over a socket pair", "floor", Box::new(move |in_flight, count| Some(lines.calls(in_flight, count)))),
        ("hob, 1 pod", "hob", Box::new(|in_flight, count| Some(one.calls(installed::STRAIGHT, in_flight, count)))),
        ("hob, 2 pods", "hob-2-pods", Box::new(|in_flight, count| Some(one.calls(installed::TWO, in_flight, count)))),
        ("hob, 1 pod, 2 threads", "hob-2-threads", Box::new(|in_flight, count| Some(two.calls(installed::STRAIGHT, in_flight, count)))),
        ("hob, 2 pods, 2 threads", "hob-2-pods-2-threads", Box::new(|in_flight, count| Some(two.calls(installed::TWO, in_flight, count)))),
        ("JSON-RPC daemon over pipes", "jsonrpc", Box::new(move |in_flight, count| Some(rpc.calls(in_flight, count)))),
        ("JSON-RPC daemon, from Python", "jsonrpc-python", from_python("jsonrpc-python")),
        ("execnet channel", "execnet", from_python("execnet")),
        ("ProcessPoolExecutor, 1 worker", "executor", from_python("executor-1")),
        ("ProcessPoolExecutor, 2 workers", "executor-2", from_python("executor-2")),
    ];
    for (.., run) in &mut columns {
        // With as many at once as there will be, so that pools have grown.
        run(IN_FLIGHT[2], CALLS / 4);
    }
    for in_flight in IN_FLIGHT {
        let mut found: [Found; 10] = Default::default();
        for _ in 0..ROUNDS {
            // Once for all columns: there are many of them, and on a busy machine each wait is a long one.
            support::quiet();
            for ((.., run), found) in columns.iter_mut().zip(&mut found) {
                if let Some(run) = run(in_flight, CALLS) {
                    found.each.add(micros(run.total) / run.times.len() as f64);
                    found.latency.add(run.times);
                }
            }
        }
        report(in_flight, columns.each_ref().map(|(label, name, _)| (*label, *name)), &found);
    }
    drop(columns);
    for hob in [one, two] {
        hob.runtime.block_on(hob.host.shutdown());
    }
}

fn report(in_flight: usize, columns: [(&str, &str); 10], found: &[Found; 10]) {
    println!("\nW1 with {in_flight} in flight, {ROUNDS} rounds of {CALLS} calls");
    println!("| column | calls/s | us for each | x floor | call's median, us | p99, us |\n|---|---|---|---|---|---|");
    let [floor, _, _, _, _, rpc, rpc_python, execnet, executor, executor_two] = found;
    let others = [
        ("floor", floor),
        ("jsonrpc", rpc),
        ("jsonrpc_python", rpc_python),
        ("execnet", execnet),
        ("executor", executor),
        ("executor_2", executor_two),
    ];
    for ((label, name), found) in columns.iter().zip(found).filter(|(_, found)| !found.each.is_empty()) {
        let each = found.each.middle();
        let (median, p99) = (found.latency.median(), found.latency.p99());
        println!("| {label} | {:.0} | {each:.1} | {:.2} | {median:.0} | {p99:.0} |", 1e6 / each, found.each.over(&floor.each));
        let workload = format!("W1-{in_flight}-in-flight");
        support::keep(&workload, name, each, "us", &others.map(|(name, other)| (name, found.each.over(&other.each))));
        for (what, value) in [("median", median), ("p99", p99)] {
            let of = |other: &Found| if what == "p99" { other.latency.p99() } else { other.latency.median() };
            support::keep(&format!("{workload}-{what}"), name, value, "us", &others.map(|(name, other)| (name, value / of(other))));
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
