//! W3: sentence embeddings, one text a call, with one caller and with 64, as a share of what the model does
//! by itself.
//!
//! All columns run the class of `recipes/sentence-embeddings` on one thread with batches of at most 32: Hob
//! in process and over HTTP, mosec and LitServe over HTTP, and the bare loop that is the limit.

mod installed;
mod load;
mod model_alone;
mod processes;
mod servers;
mod support;
mod texts;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Host},
    model::Call,
};
use model_alone::ModelAlone;
use serde_json::json;
use servers::Plan;
use support::Series;
use tokio::{runtime::Builder, task::JoinSet};

const ROUNDS: usize = 3;
const SECONDS: u64 = 5;
/// Callers, and how many texts the model alone takes at a time to be held against them.
const CALLERS: [(usize, usize); 2] = [(1, 1), (64, 32)];

/// What a column came to with so many callers.
#[derive(Default)]
struct Found {
    /// Milliseconds of the whole for each text: what the rate comes to.
    each: Series,
    median: Series,
    p99: Series,
    /// Milliseconds of processor time for each text.
    processor: Series,
    errors: u64,
}

/// One measurement.
struct Once {
    texts: f64,
    seconds: f64,
    processor: f64,
    /// Milliseconds: the middle call, and the 99th of a hundred.
    latency: Option<(f64, f64)>,
    errors: u64,
}

impl Found {
    fn add(&mut self, once: Once) {
        self.each.add(once.seconds * 1e3 / once.texts);
        self.processor.add(once.processor * 1e3 / once.texts);
        if let Some((median, p99)) = once.latency {
            self.median.add(median);
            self.p99.add(p99);
        }
        self.errors += once.errors;
    }
}

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let texts = Arc::new(texts::texts());
    let bodies: Vec<String> = texts.iter().map(|text| json!({"text": text}).to_string()).collect();
    let installed = runtime.block_on(installed::install(&[installed::EMBEDDINGS])).unwrap();
    let plans: Vec<Plan> = match load::is_there() {
        false => Vec::new(),
        true => [
            Plan::hob("hob-http", &installed.folder, installed::EMBEDDINGS, "embed"),
            Plan::mosec("mosec", "mosec_embed.py", &[]),
            Plan::litserve("litserve", "litserve_embed.py", &[]),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let mut names = vec!["model", "hob"];
    names.extend(plans.iter().map(|plan| plan.name));
    let mut found: Vec<[Found; 2]> = names.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        // Each is alone on the machine while it is measured.
        if let Some(mut alone) = ModelAlone::start(&texts) {
            for ((_, items), found) in CALLERS.into_iter().zip(&mut found[0]) {
                support::quiet();
                let rate = alone.rate(items, SECONDS);
                found.add(Once { texts: rate.texts, seconds: rate.seconds, processor: rate.processor, latency: None, errors: 0 });
            }
        }
        let host = runtime.block_on(Host::open(Config::new(installed.home.clone()).with_hob(env!("CARGO_BIN_EXE_hob")))).unwrap();
        runtime.block_on(runtime.spawn(calls(host.clone(), texts.clone(), 32, Duration::from_secs(1)))).unwrap();
        for ((callers, _), found) in CALLERS.into_iter().zip(&mut found[1]) {
            support::quiet();
            let own = || processes::processor_time(&processes::tree(std::process::id()));
            let before = own();
            let mut once =
                runtime.block_on(runtime.spawn(calls(host.clone(), texts.clone(), callers, Duration::from_secs(SECONDS)))).unwrap();
            once.processor = own().saturating_sub(before).as_secs_f64();
            found.add(once);
        }
        runtime.block_on(host.shutdown());
        for (plan, found) in plans.iter().zip(&mut found[2..]) {
            let mut server = plan.start();
            let (_, answer) = runtime.block_on(server.ready(&bodies[0]));
            assert_eq!(answer["embeddings"][0].as_array().map(Vec::len), Some(384), "{}", plan.name);
            load::load(&server, 32, 1, &bodies);
            for ((callers, _), found) in CALLERS.into_iter().zip(found) {
                support::quiet();
                let before = processes::processor_time(&server.processes());
                let load = load::load(&server, callers, SECONDS as usize, &bodies);
                let processor = processes::processor_time(&server.processes()).saturating_sub(before);
                found.add(Once {
                    texts: load.rate() * load.micros / 1e6,
                    seconds: load.micros / 1e6,
                    processor: processor.as_secs_f64(),
                    latency: Some((load.p50_us / 1e3, load.p99_us / 1e3)),
                    errors: load.errors,
                });
            }
        }
    }
    for (at, (callers, items)) in CALLERS.into_iter().enumerate() {
        let columns: Vec<(&str, &Found)> = names.iter().copied().zip(found.iter().map(|found| &found[at])).collect();
        report(callers, items, &columns);
    }
}

/// So many callers, each with one call after the other until the time is over.
async fn calls(host: Host, texts: Arc<Vec<String>>, callers: usize, time: Duration) -> Once {
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    for caller in 0..callers {
        let (host, texts) = (host.clone(), texts.clone());
        tasks.spawn(async move {
            let (mut times, mut errors) = (Vec::new(), 0);
            let mut at = caller;
            while start.elapsed() < time {
                let begun = Instant::now();
                let call = Call::new(installed::EMBEDDINGS, "embed", json!({"text": texts[at % texts.len()]})).unwrap();
                match host.call(call).await {
                    Ok(outcome) => {
                        assert_eq!(outcome.output.value()["embeddings"][0].as_array().map(Vec::len), Some(384));
                        times.push(begun.elapsed());
                    }
                    Err(_) => errors += 1,
                }
                at += 1;
            }
            (times, errors)
        });
    }
    let (times, errors): (Vec<_>, Vec<u64>) = tasks.join_all().await.into_iter().unzip();
    let seconds = start.elapsed().as_secs_f64();
    let mut times = times.concat();
    times.sort();
    let at =
        |share: f64| times.get((times.len().saturating_sub(1) as f64 * share) as usize).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    Once { texts: times.len() as f64, seconds, processor: 0.0, latency: Some((at(0.5), at(0.99))), errors: errors.iter().sum() }
}

fn report(callers: usize, items: usize, columns: &[(&str, &Found)]) {
    println!("\nW3: embeddings, {callers} callers (the model alone: {items} texts at a time), {ROUNDS} rounds of {SECONDS} s");
    println!(
        "| column | texts/s | share of the model's own rate | median, ms | p99, ms | processor, ms each | errors |\n|---|---|---|---|---|---|---|"
    );
    let nothing = Found::default();
    let by_name = |name: &str| columns.iter().find(|(column, _)| *column == name).map_or(&nothing, |(_, found)| *found);
    let others = ["model", "mosec", "litserve"].map(|name| (name, by_name(name)));
    for (name, found) in columns.iter().filter(|(_, found)| !found.each.is_empty()) {
        let each = found.each.middle();
        println!(
            "| {name} | {:.1} | {} | {} | {} | {:.2} | {} |",
            1e3 / each,
            // Rates the other way round: more is better.
            support::shown(by_name("model").each.over(&found.each), 3),
            support::shown(found.median.middle(), 1),
            support::shown(found.p99.middle(), 1),
            found.processor.middle(),
            found.errors
        );
        let workload = format!("W3-{callers}-callers");
        support::keep(&workload, name, each, "ms", &others.map(|(other, against)| (other, found.each.over(&against.each))));
        let processor = others.map(|(other, against)| (other, found.processor.over(&against.processor)));
        support::keep(&format!("{workload}-processor"), name, found.processor.middle(), "ms", &processor);
        if !found.p99.is_empty() {
            support::keep(&format!("{workload}-p99"), name, found.p99.middle(), "ms", &[]);
        }
    }
}
