//! What every benchmark does in the same way: wait for a quiet moment, take columns in turns, print, keep figures.
//!
//! Apart from the benchmarks so that a figure of one can be held against a figure of another. No benchmark fails because
//! of a time: the machine may be shared.

// Each benchmark is a program of its own and uses the part that it needs.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// How long to wait for a quiet moment before a column, at most.
const QUIET_WAIT: Duration = Duration::from_millis(1_500);
/// How long a moment is.
const QUIET_MOMENT: Duration = Duration::from_millis(200);
/// Share of the processors' time that has to be idle for a moment to be quiet.
const QUIET_SHARE: f64 = 0.75;

/// Waits for a moment in which the machine does little else, but not for long.
pub fn quiet() {
    let end = Instant::now() + QUIET_WAIT;
    while Instant::now() < end {
        let before = processor_time();
        std::thread::sleep(QUIET_MOMENT);
        let after = processor_time();
        let idle = (after.0 - before.0) / (after.1 - before.1).max(1.0);
        if idle >= QUIET_SHARE {
            return;
        }
    }
}

/// Idle and total time of all processors so far, in ticks.
fn processor_time() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = text.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal; the rest is counted in `user` already.
    (ticks.iter().skip(3).take(2).sum(), ticks.iter().take(8).sum())
}

/// What one column of a benchmark took, round by round, in microseconds.
#[derive(Default)]
pub struct Column {
    medians: Vec<f64>,
    p99s: Vec<f64>,
}

impl Column {
    /// Takes the times of one round.
    pub fn add(&mut self, mut times: Vec<Duration>) {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        self.medians.push(at(0.5));
        self.p99s.push(at(0.99));
    }

    /// The middle one of the rounds' medians.
    pub fn median(&self) -> f64 {
        middle(self.medians.clone())
    }

    /// The middle one of the rounds' 99th percentiles.
    pub fn p99(&self) -> f64 {
        middle(self.p99s.clone())
    }

    /// How many times as long as `other` it took. Taken round by round, then the middle one: what disturbs a round
    /// disturbs both columns of it.
    pub fn over(&self, other: &Column) -> f64 {
        middle(self.medians.iter().zip(&other.medians).map(|(own, other)| own / other).collect())
    }

    /// How much longer than `other` it took, by round as well, in microseconds.
    pub fn above(&self, other: &Column) -> f64 {
        middle(self.medians.iter().zip(&other.medians).map(|(own, other)| own - other).collect())
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Appends one figure to `target/bench/results.jsonl`. `ratios` are named without their `x_`.
pub fn keep(workload: &str, column: &str, median: f64, unit: &str, ratios: &[(&str, f64)]) {
    let round = |value: f64| Value::from((value * 1e6).round() / 1e6);
    let mut row =
        BTreeMap::from([("workload", json!(workload)), ("column", json!(column)), ("median", round(median)), ("unit", json!(unit))]);
    let names: Vec<String> = ratios.iter().map(|(name, _)| format!("x_{name}")).collect();
    row.extend(names.iter().zip(ratios).map(|(name, (_, value))| (name.as_str(), round(*value))));
    let folder = folder();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("results.jsonl"));
    writeln!(file.expect("results can be kept"), "{}", json!(row)).expect("results can be kept");
}

/// The folder of figures and of what benchmarks build.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench can be made");
    folder
}
