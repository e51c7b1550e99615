//! W7: ten idle pods under one host: their memory, and how much of a core all of it takes while nothing is
//! called.
//!
//! Measured in a process of its own, which this program starts as itself, with ten recipes that are called
//! once. Against mosec with ten workers. `host_memory.rs` looks at one pod, part by part.

mod installed;
mod processes;
mod servers;
mod support;

use std::time::{Duration, Instant};

use hob::{
    host::{Config, Host},
    model::{Call, Home},
};
use serde_json::{Value, json};
use servers::Plan;
use support::Series;
use tokio::runtime::Builder;

const ROUNDS: usize = 3;
const PODS: usize = 10;
/// Between the last call and the measuring: what winds down after a call has wound down.
const SETTLE: Duration = Duration::from_secs(3);
/// How long nothing is called.
const IDLE: Duration = Duration::from_secs(20);
/// First argument of the process that is measured; the second is its home.
const MEASURE: &str = "--measure";

/// What one column came to.
#[derive(Default)]
struct Found {
    /// Percent of one core, of everything.
    processor: Series,
    /// MB (PSS) of everything but the host or server itself, for each pod or worker.
    each: Series,
    /// MB (PSS) of the host or server itself.
    host: Series,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEASURE) {
        return println!("{}", hold(&Home::at(&arguments[at + 1])));
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let names: Vec<String> = (0..PODS).map(installed::numbered).collect();
    let installed = runtime.block_on(installed::install(&names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    let count = PODS.to_string();
    let mosec = Plan::mosec("mosec-idle", "mosec_echo.py", &[("BENCH_WORKERS_COUNT", &count)]);
    let (mut hob, mut peer) = (Found::default(), Found::default());
    for _ in 0..ROUNDS {
        let output = std::process::Command::new(std::env::current_exe().unwrap()).arg(MEASURE).arg(&installed.folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        hob.add(&serde_json::from_slice(&output.stdout).unwrap());
        if let Some(plan) = &mosec {
            let mut server = plan.start();
            runtime.block_on(server.ready(r#"{"text":"hello"}"#));
            while server.workers().len() < PODS {
                std::thread::sleep(Duration::from_millis(50));
            }
            peer.add(&idle(server.processes()));
        }
    }
    println!("\nW7: {PODS} idle pods, {ROUNDS} rounds of {} s", IDLE.as_secs());
    println!("| column | processor, % of a core | MB for each pod | MB of the host |\n|---|---|---|---|");
    for (name, found) in [("hob", &hob), ("mosec", &peer)].into_iter().filter(|(_, found)| !found.each.is_empty()) {
        println!("| {name} | {:.4} | {:.1} | {:.1} |", found.processor.middle(), found.each.middle(), found.host.middle());
        for (workload, unit, series, against) in [
            ("W7-idle-processor", "percent", &found.processor, &peer.processor),
            ("W7-pod-memory", "MB", &found.each, &peer.each),
            ("W7-host-memory", "MB", &found.host, &peer.host),
        ] {
            support::keep(workload, name, series.middle(), unit, &[("mosec", series.over(against))]);
        }
    }
}

impl Found {
    fn add(&mut self, row: &Value) {
        self.processor.add(row["percent"].as_f64().unwrap());
        self.each.add(row["pods"].as_f64().unwrap() / PODS as f64);
        self.host.add(row["host"].as_f64().unwrap());
    }
}

/// Leaves these processes alone and says what they take; the first is the host.
fn idle(pids: Vec<u32>) -> Value {
    std::thread::sleep(SETTLE);
    let (start, before) = (Instant::now(), processes::processor_time(&pids));
    std::thread::sleep(IDLE);
    let used = processes::processor_time(&pids).saturating_sub(before).as_secs_f64();
    let memory: Vec<f64> = pids.iter().map(|pid| processes::memory(*pid).1).collect();
    json!({"percent": used / start.elapsed().as_secs_f64() * 100.0, "host": memory[0], "pods": memory[1..].iter().sum::<f64>()})
}

/// Opens a host in this process, calls each recipe once, and says what it all takes after that.
fn hold(home: &Home) -> Value {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let host = runtime.block_on(async {
        let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
        for number in 0..PODS {
            let call = Call::new(&installed::numbered(number), "echo", json!({"text": "hello"})).unwrap();
            assert_eq!(host.call(call).await.unwrap().output.value(), &json!({"length": 5}));
        }
        host
    });
    let pids = processes::tree(std::process::id());
    // A runner and a keeper for each; were one missing, its idleness would be no merit.
    assert!(pids.len() > 2 * PODS, "{} processes", pids.len());
    let found = idle(pids);
    runtime.block_on(host.shutdown());
    found
}
