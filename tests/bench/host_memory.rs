//! What an idle host costs in memory: the process that opened it and called once, and the processes of one
//! pod.
//!
//! Measured in a process of its own, which this program starts as itself: the one that signed the repository
//! has a heap full of other things. The floors are that process before it opened a host, and a bare Python
//! child.

mod installed;
mod peers;
mod processes;
mod support;

use std::time::Duration;

use hob::{
    host::{Config, Host},
    model::{Call, Home},
};
use serde_json::{Value, json};
use tokio::runtime::Builder;

const ROUNDS: usize = 5;
/// Between the call and the measuring.
const IDLE: Duration = Duration::from_secs(1);
/// First argument of the process that is measured; the second is its home.
const MEASURE: &str = "--measure";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == MEASURE) {
        Some(at) => println!("{}", measure(&Home::at(&arguments[at + 1]))),
        None => report(),
    }
}

/// Opens a host in this process, calls, and says what it takes.
fn measure(home: &Home) -> Value {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let own = || processes::memory(std::process::id());
        let (_, before) = own();
        let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
        let call = async |recipe: &str| {
            let call = Call::new(recipe, "echo", json!({"text": "hello"})).unwrap();
            assert_eq!(host.call(call).await.unwrap().output.value(), &json!({"length": 5}));
            tokio::time::sleep(IDLE).await;
            own()
        };
        let (resident, straight) = call(installed::STRAIGHT).await;
        let pod = host.pods()[0].pid.unwrap();
        let (runner, keeper) = (processes::memory(pod).1, processes::memory(processes::parent(pod).unwrap()).1);
        let (_, glued) = call(installed::GLUED).await;
        host.shutdown().await;
        json!({"before": before, "straight": straight, "resident": resident, "glued": glued, "runner": runner, "keeper": keeper})
    })
}

fn report() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let installed = runtime.block_on(installed::install(&[installed::STRAIGHT, installed::GLUED])).unwrap();
    let mut child = peers::Blocking::start();
    child.call();
    let (_, python) = processes::memory(child.pid());
    let found: Vec<Value> = (0..ROUNDS)
        .map(|_| {
            let output = std::process::Command::new(std::env::current_exe().unwrap()).arg(MEASURE).arg(&installed.folder).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).unwrap()
        })
        .collect();
    let middle = |key: &str| {
        let mut values: Vec<f64> = found.iter().map(|row| row[key].as_f64().unwrap()).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let before = middle("before");
    println!("\nMemory of an idle host, {ROUNDS} rounds (PSS unless it says otherwise)\n| process | MB | x floor |\n|---|---|---|");
    println!("| floor: a process with a tokio runtime | {before:.1} | 1.00 |\n| floor: a bare Python child | {python:.1} | 1.00 |");
    support::keep("host-idle-memory", "floor", before, "MB", &[("floor", 1.0)]);
    support::keep("pod-idle-memory", "floor", python, "MB", &[("floor", 1.0)]);
    for (label, workload, column, value, floor) in [
        ("host, after one call without glue", "host-idle-memory", "hob", middle("straight"), before),
        ("the same, resident", "host-idle-memory", "hob-rss", middle("resident"), before),
        ("host, after one call with glue as well", "host-idle-memory", "hob-glue", middle("glued"), before),
        ("a pod's runner", "pod-idle-memory", "runner", middle("runner"), python),
        ("a pod's keeper", "pod-idle-memory", "keeper", middle("keeper"), python),
        ("a pod, both", "pod-idle-memory", "hob", middle("runner") + middle("keeper"), python),
    ] {
        println!("| {label} | {value:.1} | {:.2} |", value / floor);
        support::keep(workload, column, value, "MB", &[("floor", value / floor)]);
    }
}
