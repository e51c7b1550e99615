//! What every benchmark does in the same way: wait for a quiet moment, take columns in turns, print, keep
//! figures.
//!
//! Apart from the benchmarks so that a figure of one can be held against a figure of another. No benchmark
//! fails because of a time: the machine may be shared.

// Each benchmark is a program of its own and uses the part that it needs.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
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
    /// Takes the times of one round; none, where the column was skipped.
    pub fn add(&mut self, mut times: Vec<Duration>) {
        if times.is_empty() {
            return;
        }
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        self.medians.push(at(0.5));
        self.p99s.push(at(0.99));
    }

    pub fn is_empty(&self) -> bool {
        self.medians.is_empty()
    }

    /// The middle one of the rounds' medians.
    pub fn median(&self) -> f64 {
        middle(self.medians.clone())
    }

    /// The middle one of the rounds' 99th percentiles.
    pub fn p99(&self) -> f64 {
        middle(self.p99s.clone())
    }

    /// How many times as long as `other` it took. Taken round by round, then the middle one: what disturbs a
    /// round disturbs both columns of it.
    pub fn over(&self, other: &Column) -> f64 {
        middle(self.medians.iter().zip(&other.medians).map(|(own, other)| own / other).collect())
    }

    /// How much longer than `other` it took, by round as well, in microseconds.
    pub fn above(&self, other: &Column) -> f64 {
        middle(self.medians.iter().zip(&other.medians).map(|(own, other)| own - other).collect())
    }
}

/// What one column of a benchmark came to, round by round, where a round gives a single figure.
#[derive(Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The middle one; not a number where no round gave a figure.
    pub fn middle(&self) -> f64 {
        middle(self.0.clone())
    }

    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    pub fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each one less that much.
    pub fn less(self, value: f64) -> Series {
        Series(self.0.into_iter().map(|own| own - value).collect())
    }

    /// How much more than `other`, by round as well.
    pub fn above(&self, other: &Series) -> f64 {
        middle(self.0.iter().zip(&other.0).map(|(own, other)| own - other).collect())
    }

    /// How many times as much as `other`. Taken round by round, then the middle one, as in [`Column::over`].
    pub fn over(&self, other: &Series) -> f64 {
        middle(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }
}

/// A figure for a table; a dash where there is none.
pub fn shown(value: f64, decimals: usize) -> String {
    if value.is_finite() { format!("{value:.decimals$}") } else { "-".to_owned() }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Appends one figure to `target/bench/results.jsonl`. `ratios` are named without their `x_`; one that is not
/// a number (its column was skipped) is left out.
pub fn keep(workload: &str, column: &str, median: f64, unit: &str, ratios: &[(&str, f64)]) {
    let round = |value: f64| Value::from((value * 1e6).round() / 1e6);
    let mut row =
        BTreeMap::from([("workload", json!(workload)), ("column", json!(column)), ("median", round(median)), ("unit", json!(unit))]);
    let ratios: Vec<(String, f64)> =
        ratios.iter().filter(|(_, value)| value.is_finite()).map(|(name, value)| (format!("x_{name}"), *value)).collect();
    row.extend(ratios.iter().map(|(name, value)| (name.as_str(), round(*value))));
    let folder = folder();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("results.jsonl"));
    writeln!(file.expect("results can be kept"), "{}", json!(row)).expect("results can be kept");
}

/// The interpreter that benchmarks start: the real one, since what is on the path may be a script that looks
/// for it first.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable, end='')"]).output();
        PathBuf::from(String::from_utf8(output.expect("there is a python3").stdout).expect("a path in UTF-8"))
    })
}

/// The interpreter that has the peers' packages, if `.make/bench.sh` installed them.
pub fn peers_python() -> Option<PathBuf> {
    installed_python("peers", "other people's packages")
}

/// The interpreter that has ray, likewise.
pub fn ray_python() -> Option<PathBuf> {
    installed_python("ray", "ray")
}

fn installed_python(folder_name: &str, what: &str) -> Option<PathBuf> {
    let environment = folder().join("venvs").join(folder_name);
    let there = environment.join("complete").is_file();
    if !there {
        println!("\nSkipped what needs {what}: `.make/bench.sh` installs it.");
    }
    there.then_some(environment.join("bin/python"))
}

/// A file of this folder.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench").join(path)
}

/// The folder of figures and of what benchmarks build.
pub fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench can be made");
    folder
}
