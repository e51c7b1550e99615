//! W8: how soon a pod is ready and what memory one more pod takes: started, started without a sandbox, forked
//! from a zygote.
//!
//! A start is what a caller sees of it: a call that has a fresh pod made for it, less what a call takes whose
//! pod is there. Against a plain Python process that imports the same. Memory is that of two idle pods of one
//! recipe, by the pages that only one of them has (USS) and by its share of all (PSS): before they were
//! called, after a call, after a collection of garbage.

mod installed;
mod processes;
mod support;

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Host},
    model::{
        Call, Home, Permissions, RecipeRef,
        status::{PodStatus, ZygoteState},
    },
};
use installed::{WHEELS, Wheels};
use serde_json::{Value, json};
use support::Series;
use tokio::runtime::Builder;

const ROUNDS: usize = 15;
/// With imports that take seconds.
const ROUNDS_HEAVY: usize = 5;
/// Calls of a pod that is there, for what a call takes.
const WARM_CALLS: usize = 50;
/// How long a pod is kept by a call that is to reach both pods.
const HELD_S: f64 = 0.2;
/// How long to wait for pods to be as they should, at most: the environment of torch takes minutes to be read
/// for the first time.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
const LAYERS: [&str; 3] = ["namespaces", "landlock", "seccomp"];
const WAYS: [&str; 3] = ["started", "reduced", "forked"];
/// Set it to measure the wheels whose environment is 5.6 GB too.
const TORCH: &str = "HOB_BENCH_TORCH";

/// The starts of one set of wheels, in milliseconds.
#[derive(Default)]
struct Starts {
    plain: Series,
    /// Started, without a sandbox, forked: what a caller waits, and the processor time of the pod's own
    /// process until it was loaded.
    waits: [Series; 3],
    processor: [Series; 3],
}

/// The memory of one more pod in MB, with its keeper if it has one: USS and PSS.
#[derive(Clone, Copy)]
struct Memory {
    private: f64,
    share: f64,
}

const MOMENTS: [&str; 3] = ["ready", "called", "collected"];

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let with_torch = std::env::var_os(TORCH).is_some_and(|value| !value.is_empty());
    if !with_torch {
        println!("\nSkipped torch and sentence-transformers, whose environment is 5.6 GB: {TORCH}=1 measures them.");
    }
    for wheels in WHEELS.iter().filter(|wheels| with_torch || !wheels.lock.starts_with("tests/reference")) {
        runtime.block_on(measure(wheels));
    }
}

async fn measure(wheels: &Wheels) {
    let names = WAYS.map(|way| installed::starting(wheels, way));
    let names = names.each_ref().map(String::as_str);
    let installed = installed::install(&names).await.unwrap();
    let rounds = if wheels.lock.starts_with("tests/reference") { ROUNDS_HEAVY } else { ROUNDS };
    let starts = starts(wheels, &installed.home, names, rounds).await;
    report_starts(wheels, &starts, rounds);
    let [_, _, forked] = names;
    let started = memory(&installed.home, names[0]).await.expect("only what is to be forked can fail to be");
    report_memory(wheels, started, memory(&installed.home, forked).await);
}

// --- starts

async fn starts(wheels: &Wheels, home: &Home, names: [&str; 3], rounds: usize) -> Starts {
    let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
    let python = one_shot(&host, names[0]).await.1["python"].as_str().expect("a path").to_owned();
    host.grant(&RecipeRef::Name(names[1].parse().unwrap()), Permissions::default(), true).await.unwrap();
    let open =
        Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob")).without_layers(LAYERS.map(str::to_owned))).await.unwrap();
    let is_forked = settle(&host, names[2]).await.inspect_err(|why| println!("\nPods with {} are not forked: {why}", wheels.name)).is_ok();
    let ways = if is_forked { WAYS.len() } else { WAYS.len() - 1 };
    let hosts = [&host, &open, &host];
    let mut found = Starts::default();
    let forked_before = host.status().zygotes[0].forked;
    for _ in 0..rounds {
        support::quiet();
        found.plain.add(plain(wheels, &python).as_secs_f64() * 1e3);
        for way in 0..ways {
            let (wait, answer) = one_shot(hosts[way], names[way]).await;
            found.waits[way].add(wait.as_secs_f64() * 1e3);
            found.processor[way].add(answer["cpu_ms"].as_f64().unwrap());
        }
    }
    let forked = host.status().zygotes[0].forked - forked_before;
    assert_eq!(forked, if is_forked { rounds as u64 } else { 0 }, "not all were forked");
    // A call of a pod that is there: what a caller waits for without a start.
    let mut warm = Series::default();
    for _ in 0..WARM_CALLS {
        let start = Instant::now();
        host.call(touch(names[0], false)).await.unwrap();
        warm.add(start.elapsed().as_secs_f64() * 1e3);
    }
    let call = warm.middle();
    found.waits = found.waits.map(|waits| waits.less(call));
    open.shutdown().await;
    host.shutdown().await;
    found
}

fn plain(wheels: &Wheels, python: &str) -> Duration {
    let imports = format!("import {}", wheels.modules.join(", "));
    let start = Instant::now();
    // -B: the environment stays as it was built.
    let variables = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", installed::SILENT].map(|name| (name, "1"));
    let status = Command::new(python).args(["-I", "-B", "-c", &imports]).envs(variables).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{imports}");
    start.elapsed()
}

/// A call with a pod of its own, and how long it took. Nothing of that pod is left at the end.
async fn one_shot(host: &Host, recipe: &str) -> (Duration, Value) {
    let start = Instant::now();
    let outcome = host.call(touch(recipe, true)).await.unwrap();
    let wait = start.elapsed();
    until("the pod of the call is over", || host.pods().is_empty()).await;
    (wait, outcome.output.into_value())
}

fn touch(recipe: &str, one_shot: bool) -> Call {
    let call = Call::new(recipe, "touch", json!({})).unwrap();
    if one_shot { call.one_shot() } else { call }
}

/// Calls until it is known whether pods of this recipe are forked. Why not, where they are not: then there is
/// no such column.
async fn settle(host: &Host, recipe: &str) -> Result<(), String> {
    one_shot(host, recipe).await;
    let zygote = || host.status().zygotes.into_iter().find(|zygote| zygote.recipe == recipe);
    until("it is known whether pods are forked", || zygote().is_some_and(|zygote| zygote.state != ZygoteState::Booting)).await;
    let zygote = zygote().unwrap();
    until("the canary is over", || host.pods().is_empty()).await;
    if zygote.state == ZygoteState::Ready { Ok(()) } else { Err(zygote.why.unwrap_or_default()) }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

fn report_starts(wheels: &Wheels, starts: &Starts, rounds: usize) {
    println!("\nW8: {} from nothing to ready, {rounds} rounds, ms", wheels.modules.join(" + "));
    println!("| column | median | least | most | x plain | x started | processor |\n|---|---|---|---|---|---|---|");
    let workload = format!("W8-start-{}", wheels.name);
    let [started, ..] = &starts.waits;
    let row = |name: &str, series: &Series, processor: f64| {
        let ends = [series.middle(), series.least(), series.most()].map(|value| support::shown(value, 1));
        let (plain, exec) = (series.over(&starts.plain), series.over(started));
        let shown = [support::shown(plain, 3), support::shown(exec, 4), support::shown(processor, 1)];
        println!("| {name} | {} | {} | {} | {} | {} | {} |", ends[0], ends[1], ends[2], shown[0], shown[1], shown[2]);
        support::keep(&workload, name, series.middle(), "ms", &[("plain", plain), ("started", exec)]);
    };
    row("plain", &starts.plain, f64::NAN);
    for (way, name) in WAYS.iter().enumerate().filter(|(way, _)| !starts.waits[*way].is_empty()) {
        row(name, &starts.waits[way], starts.processor[way].middle());
    }
    let adds = started.above(&starts.waits[1]);
    println!("The sandbox adds {} ms.", support::shown(adds, 1));
    support::keep(&format!("W8-sandbox-adds-{}", wheels.name), "hob", adds, "ms", &[]);
}

// --- memory

/// Of one of two pods of this recipe, at each of the moments; none if they were to be forked and are not.
async fn memory(home: &Home, recipe: &str) -> Option<[Memory; 3]> {
    let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await.unwrap();
    let is_forked = recipe.ends_with("-forked");
    if is_forked && settle(&host, recipe).await.is_err() {
        host.shutdown().await;
        return None;
    }
    // All installed recipes keep two pods.
    host.warm().await;
    let pods = || -> Vec<PodStatus> { host.pods().into_iter().filter(|pod| pod.recipe == recipe && pod.state == "ready").collect() };
    until("both pods are ready", || pods().len() == 2).await;
    assert!(pods().iter().all(|pod| pod.forked == is_forked && pod.asks == 0), "{:?}", pods());
    let mut found = Vec::new();
    for moment in MOMENTS {
        if moment != "ready" {
            let before: u64 = pods().iter().map(|pod| pod.asks).sum();
            let work = || host.call(Call::new(recipe, "work", json!({"collect": moment == "collected", "seconds": HELD_S})).unwrap());
            let (one, other) = tokio::join!(work(), work());
            one.and(other).unwrap();
            until("both pods are ready", || pods().len() == 2).await;
            // One each: a pod that was not asked would be measured as if it had been.
            assert!(pods().iter().all(|pod| pod.asks == (before / 2) + 1), "{:?}", pods());
        }
        let each: Vec<Memory> = pods().iter().map(|pod| of_pod(pod, is_forked)).collect();
        let middle = |part: fn(&Memory) -> f64| each.iter().map(part).sum::<f64>() / each.len() as f64;
        found.push(Memory { private: middle(|memory| memory.private), share: middle(|memory| memory.share) });
    }
    if let Some(guard) = host.status().zygotes.first().and_then(|zygote| zygote.pid).filter(|_| is_forked) {
        let pods: Vec<u32> = pods().iter().filter_map(|pod| pod.pid).collect();
        let around = processes::tree(guard).into_iter().filter(|pid| !pods.contains(pid));
        let share: f64 = around.map(|pid| processes::memory(pid).1).sum();
        println!("\nGuard, head and zygote of {recipe} together: {share:.1} MB (PSS), shared by all its pods.");
    }
    host.shutdown().await;
    found.try_into().ok()
}

/// A pod's process, and its keeper where it has one of its own.
fn of_pod(pod: &PodStatus, is_forked: bool) -> Memory {
    let pid = pod.pid.expect("a ready pod has a process");
    let keeper = (!is_forked).then(|| processes::parent(pid).expect("a keeper"));
    let parts: Vec<[f64; 3]> = [pid].into_iter().chain(keeper).map(processes::memory_parts).collect();
    assert!(parts.iter().all(|[resident, ..]| *resident > 0.0), "a process without memory: {pod:?}");
    Memory { private: parts.iter().map(|[_, _, private]| private).sum(), share: parts.iter().map(|[_, share, _]| share).sum() }
}

fn report_memory(wheels: &Wheels, started: [Memory; 3], forked: Option<[Memory; 3]>) {
    println!("\nW8: one more pod with {}, MB of its own (USS), its share of all (PSS)", wheels.modules.join(" + "));
    println!("| moment | started: USS | PSS | forked: USS | PSS | USS x started |\n|---|---|---|---|---|---|");
    let nothing = Memory { private: f64::NAN, share: f64::NAN };
    for ((moment, started), forked) in MOMENTS.iter().zip(started).zip(forked.unwrap_or([nothing; 3])) {
        let over = forked.private / started.private;
        println!("| {moment} | {:.1} | {:.1} | {:.2} | {:.1} | {over:.3} |", started.private, started.share, forked.private, forked.share);
        let workload = format!("W8-memory-{}-{moment}", wheels.name);
        support::keep(&workload, "started", started.private, "MB", &[]);
        if forked.private.is_finite() {
            support::keep(&workload, "forked", forked.private, "MB", &[("started", over)]);
        }
    }
}
