//! W6: how soon there is an answer: from nothing, after the process that does the work was killed, after a
//! cancel.
//!
//! Cold: from the start of a program until its first right answer. Killed: calls stream from 16 callers, the
//! worker gets SIGKILL, and what counts is the gap without an answer, what failed, and what was never
//! answered. Cancelled: from dropping a call until the next one has gone through the same, only pod.

mod installed;
mod model_alone;
mod processes;
mod recovery;
mod servers;
mod support;
mod texts;

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Host},
    model::{Call, Home},
};
use model_alone::ModelAlone;
use recovery::{Answer, Caller, Recovery};
use reqwest::StatusCode;
use serde_json::{Value, json};
use servers::Plan;
use support::Series;
use tokio::runtime::{Builder, Runtime};

const ROUNDS: usize = 5;
/// Each takes seconds, and more than ten where the worker never comes back.
const KILLS: usize = 3;
const CANCELS: usize = 5;
/// How long a cancelled call has been running.
const RUNNING: Duration = Duration::from_millis(200);
const ECHO: &str = r#"{"text":"hello"}"#;

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let installed = runtime.block_on(installed::install(&[installed::STRAIGHT, installed::UNRULY, installed::EMBEDDINGS])).unwrap();
    cold(&runtime, &installed.folder);
    killed(&runtime, &installed);
    cancelled(&runtime, &installed.home);
}

/// One row of a table of times, in seconds.
fn row(workload: &str, name: &str, series: &Series, floor: Option<&Series>) {
    let over = floor.map_or(f64::NAN, |floor| series.over(floor));
    let ends = [series.middle(), series.least(), series.most()].map(|value| support::shown(value, 3));
    println!("| {name} | {} | {} | {} | {} |", ends[0], ends[1], ends[2], support::shown(over, 2));
    if !series.is_empty() {
        support::keep(workload, name, series.middle(), "s", &[("floor", over)]);
    }
}

fn cold(runtime: &Runtime, home: &std::path::Path) {
    let text = texts::texts().swap_remove(0);
    let embed = json!({"text": text}).to_string();
    let program = |program: &std::path::Path, arguments: &[&str]| {
        let start = Instant::now();
        let status = Command::new(program).args(arguments).env("HOB_HOME", home).stdout(Stdio::null()).status().unwrap();
        let time = start.elapsed();
        assert!(status.success(), "{arguments:?}");
        Some(time)
    };
    let hob = std::path::Path::new(env!("CARGO_BIN_EXE_hob"));
    let server = |plan: Option<&Plan>, body: &str| Some(runtime.block_on(plan?.start().ready(body)).0);
    let plans = [
        Plan::hob("hob-serve", home, installed::STRAIGHT, "echo"),
        Plan::mosec("mosec", "mosec_echo.py", &[]),
        Plan::litserve("litserve", "litserve_echo.py", &[]),
        Plan::hob("hob-serve-embeddings", home, installed::EMBEDDINGS, "embed"),
        Plan::mosec("mosec-embeddings", "mosec_embed.py", &[]),
        Plan::litserve("litserve-embeddings", "litserve_embed.py", &[]),
    ];
    type Work<'a> = Box<dyn Fn() -> Option<Duration> + 'a>;
    let [hob_serve, mosec, litserve, hob_embeddings, mosec_embeddings, litserve_embeddings] = plans.each_ref().map(Option::as_ref);
    let columns: [(&str, &str, Work); 10] = [
        ("W6-cold-echo", "floor", Box::new(|| program(support::python(), &["-I", "-S", "-c", "pass"]))),
        ("W6-cold-echo", "hob-call", Box::new(|| program(hob, &["call", installed::STRAIGHT, "echo", ECHO]))),
        ("W6-cold-echo", "hob-serve", Box::new(|| server(hob_serve, ECHO))),
        ("W6-cold-echo", "mosec", Box::new(|| server(mosec, ECHO))),
        ("W6-cold-echo", "litserve", Box::new(|| server(litserve, ECHO))),
        (
            "W6-cold-embeddings",
            "floor",
            Box::new(|| {
                let start = Instant::now();
                ModelAlone::start(std::slice::from_ref(&text)).map(|_| start.elapsed())
            }),
        ),
        ("W6-cold-embeddings", "hob-call", Box::new(|| program(hob, &["call", installed::EMBEDDINGS, "embed", &embed]))),
        ("W6-cold-embeddings", "hob-serve", Box::new(|| server(hob_embeddings, &embed))),
        ("W6-cold-embeddings", "mosec", Box::new(|| server(mosec_embeddings, &embed))),
        ("W6-cold-embeddings", "litserve", Box::new(|| server(litserve_embeddings, &embed))),
    ];
    let mut found: [Series; 10] = Default::default();
    for _ in 0..ROUNDS {
        support::quiet();
        for ((.., run), found) in columns.iter().zip(&mut found) {
            run().into_iter().for_each(|time| found.add(time.as_secs_f64()));
        }
    }
    for (workload, floor) in [("W6-cold-echo", &found[0]), ("W6-cold-embeddings", &found[5])] {
        println!("\n{workload}: from nothing to the first answer, {ROUNDS} rounds, seconds");
        println!("| column | median | least | most | x floor |\n|---|---|---|---|---|");
        for ((_, name, _), series) in columns.iter().zip(&found).filter(|((of, ..), _)| *of == workload) {
            row(workload, name, series, Some(floor));
        }
    }
}

fn killed(runtime: &Runtime, installed: &installed::Installed) {
    let http = [
        ("hob-serve-idempotent", Plan::hob("hob-serve-killed", &installed.folder, installed::UNRULY, "again")),
        ("hob-serve-at-most-once", Plan::hob("hob-serve-killed", &installed.folder, installed::UNRULY, "once")),
        ("mosec", Plan::mosec("mosec-killed", "mosec_echo.py", &[])),
        ("litserve", Plan::litserve("litserve-killed", "litserve_echo.py", &[])),
    ];
    let mut columns: Vec<(&str, Vec<Recovery>)> = ["hob-idempotent", "hob-at-most-once"]
        .into_iter()
        .chain(http.iter().map(|(name, _)| *name))
        .map(|name| (name, Vec::new()))
        .collect();
    for _ in 0..KILLS {
        support::quiet();
        for (at, operation) in ["again", "once"].into_iter().enumerate() {
            columns[at].1.push(runtime.block_on(in_process(&installed.home, operation)));
        }
        for (at, (_, plan)) in http.iter().enumerate() {
            let Some(plan) = plan else { continue };
            columns[at + 2].1.push(runtime.block_on(over_http(plan)));
        }
    }
    recovery::report("W6-killed", &columns);
}

/// The process of a pod, asked of itself.
async fn process(host: &Host) -> u32 {
    let outcome = host.call(Call::new(installed::UNRULY, "process", json!({})).unwrap()).await.unwrap();
    outcome.output.value()["pid"].as_u64().unwrap() as u32
}

async fn in_process(home: &Home, operation: &'static str) -> Recovery {
    let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
    let pid = process(&host).await;
    let caller: Caller = {
        let host = host.clone();
        Arc::new(move || {
            let host = host.clone();
            Box::pin(async move {
                let call = Call::new(installed::UNRULY, operation, json!({"text": "hello"})).unwrap();
                match host.call(call).await {
                    Ok(outcome) if outcome.output.value() == &json!({"length": 5}) => Answer::Right,
                    Ok(outcome) => panic!("a wrong answer: {outcome:?}"),
                    Err(fault) => Answer::Fault(fault.code.name().to_owned()),
                }
            })
        })
    };
    let found = recovery::kill(caller, pid).await;
    host.shutdown().await;
    found
}

async fn over_http(plan: &Plan) -> Recovery {
    let mut server = plan.start();
    let (_, answer) = server.ready(ECHO).await;
    assert_eq!(answer, json!({"length": 5}));
    let (client, url, token) = (servers::client(), server.url(), server.token());
    let pid = match &token {
        None => server.workers().first().copied().expect("its application said who it is"),
        Some(token) => {
            let (_, text) = servers::post(&client, &server.url_of("process"), Some(token), "{}").await.unwrap();
            let output: Value = serde_json::from_str(&text).unwrap();
            output["pid"].as_u64().unwrap_or_else(|| panic!("{text}")) as u32
        }
    };
    let caller: Caller = Arc::new(move || {
        let (client, url, token) = (client.clone(), url.clone(), token.clone());
        Box::pin(async move {
            match servers::post(&client, &url, token.as_deref(), ECHO).await {
                Ok((StatusCode::OK, text)) => {
                    let output: Value = serde_json::from_str(&text).unwrap_or_default();
                    assert_eq!(output, json!({"length": 5}));
                    Answer::Right
                }
                Ok((status, text)) => {
                    let body: Value = serde_json::from_str(&text).unwrap_or_default();
                    Answer::Fault(body["fault"]["code"].as_str().map_or(status.as_u16().to_string(), str::to_owned))
                }
                Err(_) => Answer::Fault("connection".to_owned()),
            }
        })
    });
    recovery::kill(caller, pid).await
}

fn cancelled(runtime: &Runtime, home: &Home) {
    println!("\nW6: from dropping a call until the next has gone through the only pod, {CANCELS} times, seconds");
    println!("| what ran | median | least | most | x floor |\n|---|---|---|---|---|");
    let found: [Series; 3] = runtime.block_on(async {
        let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
        let mut found: [Series; 3] = Default::default();
        process(&host).await;
        for _ in 0..CANCELS {
            support::quiet();
            for (operation, found) in [None, Some("wait"), Some("deaf")].into_iter().zip(&mut found) {
                if let Some(operation) = operation {
                    let call = Call::new(installed::UNRULY, operation, json!({"seconds": 60})).unwrap();
                    let running = tokio::time::timeout(RUNNING, host.call(call)).await;
                    assert!(running.is_err(), "it ended by itself: {running:?}");
                }
                let start = Instant::now();
                process(&host).await;
                found.add(start.elapsed().as_secs_f64());
            }
        }
        host.shutdown().await;
        found
    });
    for (name, series) in ["nothing", "cooperative", "deaf"].into_iter().zip(&found) {
        row("W6-cancelled", name, series, Some(&found[0]));
    }
}
