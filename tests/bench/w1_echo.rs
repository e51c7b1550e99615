//! W1: one warm call after the other on `hob/echo`, in process, with and without glue in Rust, and against
//! peers.
//!
//! The floor is a Rust program that sends the same JSON to a bare Python child over a socket pair: no check,
//! no bound, no cancel, no second process that could be anyone. Through tokio it is what an asynchronous host
//! can reach, blocking what any can.

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
use python_peers::PythonPeers;
use serde_json::json;
use support::Column;
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 7;
const CALLS: usize = 2_000;
/// A process for each call takes a thousand times as long.
const EXECS: usize = 25;
const WARM_UP: usize = 500;

/// `count` calls, each timed.
fn timed(count: usize, mut call: impl FnMut()) -> Vec<Duration> {
    let one = |_| {
        let start = Instant::now();
        call();
        start.elapsed()
    };
    (0..count).map(one).collect()
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

    fn calls(&self, recipe: &'static str, count: usize) -> Vec<Duration> {
        let host = self.host.clone();
        on(&self.runtime, async move {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                let outcome = host.call(Call::new(recipe, "echo", json!({"text": "hello"})).unwrap()).await.unwrap();
                times.push(start.elapsed());
                assert_eq!(outcome.output.value(), &json!({"length": 5}));
            }
            times
        })
    }
}

/// Runs `work` as a task, as a server runs its handlers.
fn on<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(work)).unwrap()
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The floor through tokio, on a runtime of its own.
fn tokio_floor(runtime: Runtime) -> impl FnMut(usize) -> Vec<Duration> {
    let mut floor = Some(on(&runtime, async { peers::Tokio::start() }));
    move |count| {
        let mut peer = floor.take().expect("given back below");
        let (times, peer) = on(&runtime, async move {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                peer.call().await;
                times.push(start.elapsed());
            }
            (times, peer)
        });
        floor = Some(peer);
        times
    }
}

/// Makes so many calls and gives how long each took.
type Work<'a> = Box<dyn FnMut(usize) -> Vec<Duration> + 'a>;

fn main() {
    let installed = one_thread().block_on(installed::install(&[installed::STRAIGHT, installed::GLUED])).unwrap();
    let (one, two) = (Hob::open(one_thread(), &installed.home), Hob::open(two_threads(), &installed.home));
    let (mut blocking, mut rpc) = (peers::Blocking::start(), peers::JsonRpc::start());
    let (tokio_one, tokio_two) = (tokio_floor(one_thread()), tokio_floor(two_threads()));

    let python = RefCell::new(PythonPeers::start());
    let from_python = |column: &'static str| -> Work {
        let python = &python;
        // No times where it is not installed; the row of that column is left out then.
        Box::new(move |count| python.borrow_mut().as_mut().map_or(Vec::new(), |peers| peers.calls(column, 1, count).times))
    };

    let mut columns: [(&str, usize, Work); 13] = [
        ("floor, blocking", CALLS, Box::new(move |count| timed(count, || blocking.call()))),
        ("floor, tokio", CALLS, Box::new(tokio_one)),
        ("hob", CALLS, Box::new(|count| one.calls(installed::STRAIGHT, count))),
        ("hob with glue", CALLS, Box::new(|count| one.calls(installed::GLUED, count))),
        ("floor, tokio, 2 threads", CALLS, Box::new(tokio_two)),
        ("hob, 2 threads", CALLS, Box::new(|count| two.calls(installed::STRAIGHT, count))),
        ("hob with glue, 2 threads", CALLS, Box::new(|count| two.calls(installed::GLUED, count))),
        ("JSON-RPC daemon over pipes", CALLS, Box::new(move |count| timed(count, || rpc.call()))),
        ("a process for each call", EXECS, Box::new(|count| timed(count, peers::exec))),
        ("JSON-RPC daemon, from Python", CALLS, from_python("jsonrpc-python")),
        ("execnet channel", CALLS, from_python("execnet")),
        ("ProcessPoolExecutor", CALLS, from_python("executor-1")),
        ("a process for each call, from Python", EXECS, from_python("exec-python")),
    ];
    for (_, count, run) in &mut columns {
        run(WARM_UP.min(*count));
    }
    let mut found: [Column; 13] = std::array::from_fn(|_| Column::default());
    for _ in 0..ROUNDS {
        // In turns, so that all columns see the same machine.
        for ((_, count, run), column) in columns.iter_mut().zip(&mut found) {
            support::quiet();
            column.add(run(*count));
        }
    }

    println!("\nW1: warm echo, {ROUNDS} rounds of {CALLS} calls");
    println!("| column | median, us | p99, us | x tokio floor | x blocking floor |\n|---|---|---|---|---|");
    for ((name, ..), column) in columns.iter().zip(&found).filter(|(_, column)| !column.is_empty()) {
        let [over_tokio, over_blocking] = [&found[1], &found[0]].map(|floor| column.over(floor));
        println!("| {name} | {:.1} | {:.1} | {over_tokio:.2} | {over_blocking:.2} |", column.median(), column.p99());
    }
    let [blocking, tokio, hob, glued, tokio_two, hob_two, glued_two, rpc, exec, rpc_python, execnet, executor, exec_python] = &found;
    println!("\nGlue adds {:.1} us (2 threads: {:.1} us).", glued.above(hob), glued_two.above(hob_two));

    for (workload, name, column, floor) in [
        ("W1", "hob", hob, tokio),
        ("W1-glue", "hob", glued, tokio),
        ("W1", "hob-2-threads", hob_two, tokio_two),
        ("W1-glue", "hob-2-threads", glued_two, tokio_two),
        ("W1", "floor", tokio, tokio),
        ("W1", "floor-2-threads", tokio_two, tokio_two),
        ("W1", "floor-blocking", blocking, tokio),
        ("W1", "jsonrpc", rpc, tokio),
        ("W1", "exec", exec, tokio),
        ("W1", "jsonrpc-python", rpc_python, tokio),
        ("W1", "execnet", execnet, tokio),
        ("W1", "executor", executor, tokio),
        ("W1", "exec-python", exec_python, tokio),
    ] {
        if column.is_empty() {
            continue;
        }
        let others = [
            ("floor", floor),
            ("floor_blocking", blocking),
            ("jsonrpc", rpc),
            ("jsonrpc_python", rpc_python),
            ("execnet", execnet),
            ("executor", executor),
            ("exec", exec),
        ];
        support::keep(workload, name, column.median(), "us", &others.map(|(name, other)| (name, column.over(other))));
        support::keep(
            &format!("{workload}-p99"),
            name,
            column.p99(),
            "us",
            &others.map(|(name, other)| (name, column.p99() / other.p99())),
        );
    }
    for (name, added, floor) in [("hob", glued.above(hob), tokio), ("hob-2-threads", glued_two.above(hob_two), tokio_two)] {
        support::keep("W1-glue-adds", name, added, "us", &[("floor", added / floor.median())]);
    }
    drop(columns);
    for hob in [one, two] {
        hob.runtime.block_on(hob.host.shutdown());
    }
}
