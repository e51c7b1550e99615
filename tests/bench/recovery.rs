//! A stream of calls while the process that does the work is killed: what was answered, what failed, what
//! hung.
//!
//! Apart from `w6_recovery.rs`, which says what is called; this only counts.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::{task::JoinSet, time::timeout};

use super::{
    servers,
    support::{self, Series},
};

const CALLERS: usize = 16;
/// How long calls stream before the kill.
const BEFORE: Duration = Duration::from_secs(1);
/// How long they stream after it; what is not back by then counts as never back.
const AFTER: Duration = Duration::from_secs(10);
/// What streams this long without a failure after the first right answer has recovered: the rest of the time
/// is not waited for.
const STEADY: Duration = Duration::from_secs(2);
/// What a call may take: then it counts as hanging, as it would for most programs.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a failure, so that a server that refuses at once is not hammered.
const PAUSE: Duration = Duration::from_millis(5);

/// How a call ended.
pub enum Answer {
    Right,
    Fault(String),
}

/// Makes one call.
pub type Caller = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// What one kill did.
#[derive(Default)]
pub struct Recovery {
    /// Between the last right answer before the worker was gone and the first right one to a call begun
    /// after; none: never.
    pub gap: Option<Duration>,
    pub right: usize,
    pub faults: BTreeMap<String, usize>,
    /// Calls without an end when patience was over.
    pub hanging: usize,
}

/// One call: begun, ended, how.
struct Ended {
    begun: Instant,
    ended: Instant,
    answer: Option<Answer>,
}

/// Streams calls, kills `pid`, and looks.
pub async fn kill(caller: Caller, pid: u32) -> Recovery {
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let caller = caller.clone();
        callers.spawn(async move {
            let mut calls = Vec::new();
            let mut steady_since = None;
            loop {
                let begun = Instant::now();
                let answer = timeout(PATIENCE, caller()).await.ok();
                let ended = Instant::now();
                let right = matches!(answer, Some(Answer::Right));
                calls.push(Ended { begun, ended, answer });
                if !right {
                    steady_since = None;
                    tokio::time::sleep(PAUSE).await;
                } else if begun > start + BEFORE {
                    steady_since.get_or_insert(begun);
                }
                let is_steady = steady_since.is_some_and(|since| ended > since + STEADY);
                if is_steady || ended > start + BEFORE + AFTER {
                    return calls;
                }
            }
        });
    }
    tokio::time::sleep_until((start + BEFORE).into()).await;
    let killed = Instant::now();
    servers::signal(pid, Signal::KILL);
    let calls: Vec<Ended> = callers.join_all().await.into_iter().flatten().collect();
    assert!(!super::processes::is_alive(pid), "the worker was not killed");

    let right = || calls.iter().filter(|call| matches!(call.answer, Some(Answer::Right)));
    let first = right().filter(|call| call.begun > killed).map(|call| call.ended).min();
    // Answers that were on their way at the kill may come after it, and calls begun before it may be answered
    // by the next worker.
    let last = right().map(|call| call.ended).filter(|ended| *ended <= killed).max();
    let mut found = Recovery { right: right().count(), ..Recovery::default() };
    found.gap = first.zip(last).map(|(first, last)| longest(right().map(|call| call.ended), last, first));
    for call in &calls {
        match &call.answer {
            Some(Answer::Fault(code)) => *found.faults.entry(code.clone()).or_default() += 1,
            None => found.hanging += 1,
            Some(Answer::Right) => {}
        }
    }
    found
}

/// The longest time without a right answer between two of them.
fn longest(ended: impl Iterator<Item = Instant>, from: Instant, to: Instant) -> Duration {
    let mut times: Vec<Instant> = ended.filter(|at| (from..=to).contains(at)).collect();
    times.sort();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

pub fn report(workload: &str, columns: &[(&str, Vec<Recovery>)]) {
    println!("\n{workload}: SIGKILL to the worker under {CALLERS} callers; the gap without an answer, in ms, and all rounds' failures");
    println!("| column | median gap | most | right answers | faults | hanging | never back |\n|---|---|---|---|---|---|---|");
    for (name, rounds) in columns.iter().filter(|(_, rounds)| !rounds.is_empty()) {
        let mut gaps = Series::default();
        rounds.iter().filter_map(|round| round.gap).for_each(|gap| gaps.add(gap.as_secs_f64() * 1e3));
        let never = rounds.iter().filter(|round| round.gap.is_none()).count();
        let hanging: usize = rounds.iter().map(|round| round.hanging).sum();
        let right: usize = rounds.iter().map(|round| round.right).sum();
        let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
        for (code, count) in rounds.iter().flat_map(|round| &round.faults) {
            *faults.entry(code).or_default() += count;
        }
        let listed: Vec<String> = faults.iter().map(|(code, count)| format!("{count} {code}")).collect();
        println!(
            "| {name} | {} | {} | {right} | {} | {hanging} | {never} of {} |",
            support::shown(gaps.middle(), 0),
            support::shown(gaps.most(), 0),
            if listed.is_empty() { "0".to_owned() } else { listed.join(", ") },
            rounds.len()
        );
        if !gaps.is_empty() {
            support::keep(workload, name, gaps.middle(), "ms", &[]);
        }
        let each = |count: usize| count as f64 / rounds.len() as f64;
        support::keep(&format!("{workload}-faults"), name, each(faults.values().sum()), "per kill", &[]);
        support::keep(&format!("{workload}-hanging"), name, each(hanging), "per kill", &[]);
        support::keep(&format!("{workload}-never-back"), name, each(never), "per kill", &[]);
    }
}
