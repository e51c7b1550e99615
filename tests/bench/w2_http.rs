//! W2: `hob/echo` over HTTP with 1, 16 and 64 keep-alive connections, pools of one and two pods, against
//! mosec.
//!
//! The floor is axum, which answers by itself. Beside rates and latencies it counts the processor time of a
//! server's whole tree of processes for each request, which other work on the machine moves least.

mod installed;
mod load;
mod processes;
mod servers;
mod support;

use std::time::Duration;

use axum::{Router, routing::post};
use serde_json::{Value, json};
use servers::Plan;
use support::Series;
use tokio::runtime::Builder;

const ROUNDS: usize = 3;
const SECONDS: usize = 3;
const CONNECTIONS: [usize; 3] = [1, 16, 64];
const BODY: &str = r#"{"text":"hello"}"#;
/// First argument of the floor's process; the second is its port.
const FLOOR: &str = "--floor";

/// What a server came to with so many connections.
#[derive(Default)]
struct Found {
    /// Microseconds of the whole for each request: what the rate comes to.
    each: Series,
    median: Series,
    p99: Series,
    /// Microseconds of processor time for each request.
    processor: Series,
    errors: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == FLOOR) {
        return floor(arguments[at + 1].parse().expect("a port"));
    }
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    if !load::is_there() {
        return;
    }
    let installed = runtime.block_on(installed::install(&[installed::STRAIGHT, installed::TWO])).unwrap();
    let plans: Vec<Plan> = [
        Some(Plan::own("floor", FLOOR, "/")),
        Plan::hob("hob", &installed.folder, installed::STRAIGHT, "echo"),
        Plan::hob("hob-2-pods", &installed.folder, installed::TWO, "echo"),
        Plan::mosec("mosec", "mosec_echo.py", &[]),
        Plan::mosec("mosec-2-workers", "mosec_echo.py", &[("BENCH_WORKERS_COUNT", "2")]),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut found: Vec<[Found; 3]> = plans.iter().map(|_| Default::default()).collect();
    let bodies = [BODY.to_owned()];
    for _ in 0..ROUNDS {
        for (plan, found) in plans.iter().zip(&mut found) {
            let mut server = plan.start();
            let (_, answer) = runtime.block_on(server.ready(BODY));
            assert_eq!(answer, json!({"length": 5}), "{}", plan.name);
            load::load(&server, CONNECTIONS[1], 1, &bodies);
            for (connections, found) in CONNECTIONS.into_iter().zip(found) {
                support::quiet();
                let before = processes::processor_time(&server.processes());
                let load = load::load(&server, connections, SECONDS, &bodies);
                let used = processes::processor_time(&server.processes()).saturating_sub(before);
                found.each.add(1e6 / load.rate());
                found.median.add(load.p50_us);
                found.p99.add(load.p99_us);
                found.processor.add(used.as_secs_f64() * 1e6 / load.requests.max(1) as f64);
                found.errors += load.errors;
            }
        }
    }
    for (at, connections) in CONNECTIONS.into_iter().enumerate() {
        let columns: Vec<(&str, &Found)> = plans.iter().zip(&found).map(|(plan, found)| (plan.name, &found[at])).collect();
        report(connections, &columns);
    }
}

fn report(connections: usize, columns: &[(&str, &Found)]) {
    println!("\nW2: echo over HTTP, {connections} connections, {ROUNDS} rounds of {SECONDS} s");
    println!(
        "| column | requests/s | x floor | median, us | p99, us | processor, us each | x floor | errors |\n|---|---|---|---|---|---|---|---|"
    );
    let nothing = Found::default();
    let by_name = |name: &str| columns.iter().find(|(column, _)| *column == name).map_or(&nothing, |(_, found)| *found);
    let others = ["floor", "mosec", "mosec-2-workers"].map(|name| (name.replace('-', "_"), by_name(name)));
    for (name, found) in columns {
        let each = found.each.middle();
        println!(
            "| {name} | {:.0} | {:.2} | {:.0} | {:.0} | {:.0} | {:.2} | {} |",
            1e6 / each,
            found.each.over(&by_name("floor").each),
            found.median.middle(),
            found.p99.middle(),
            found.processor.middle(),
            found.processor.over(&by_name("floor").processor),
            found.errors
        );
        let workload = format!("W2-{connections}-connections");
        for (what, series) in [
            ("", (|found| &found.each) as fn(&Found) -> &Series),
            ("-median", |found| &found.median),
            ("-p99", |found| &found.p99),
            ("-processor", |found| &found.processor),
        ] {
            let ratios: Vec<(&str, f64)> =
                others.iter().map(|(other, against)| (other.as_str(), series(found).over(series(against)))).collect();
            support::keep(&format!("{workload}{what}"), name, series(found).middle(), "us", &ratios);
        }
    }
}

/// Answers like the recipe, in this process.
fn floor(port: u16) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = |body: String| async move {
            let input: Value = serde_json::from_str(&body).unwrap_or_default();
            let length = input["text"].as_str().unwrap_or_default().chars().count();
            ([("content-type", "application/json")], json!({"length": length}).to_string())
        };
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let serve = axum::serve(listener, Router::new().route("/", post(answer)));
        // It is killed; the bound is for the case that nobody does.
        let _ = tokio::time::timeout(Duration::from_secs(600), serve.into_future()).await;
    });
}
