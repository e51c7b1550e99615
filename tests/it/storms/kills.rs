//! Pods killed at random under load.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hob::model::{Call, Code, Fault};
use serde_json::json;

use super::{Dice, alone, bounded, held, kill_a_pod, line, soak_seconds};
use crate::support::Rig;

const CALLERS: u64 = 32;
const PODS: usize = 3;

/// With fewer kills it was no storm.
const KILLS_MIN: u64 = 8;
const CALLS_MIN: u64 = 200;

/// Logs the beginning and the end of each ask to a file, so that both can be compared with what the callers
/// were told.
const SOURCE: &str = r#"
import os, time

log = os.open("{log}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

class Subject:
    def run(self, input):
        os.write(log, b"begin %d\n" % input["n"])
        if input["ms"]:
            time.sleep(input["ms"] / 1000)
        os.write(log, b"end %d\n" % input["n"])
        return {"n": input["n"]}
"#;

/// The memory that the allocator may keep beyond that of a first storm, however many calls there are.
const MEMORY_MORE_KIB: u64 = 8 << 10;

/// What the pods logged about one ask.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    begun: u32,
    ended: u32,
}

/// All calls of a storm.
struct Storm {
    /// Number of each call that failed, with its fault.
    faults: HashMap<u64, Fault>,
    calls: u64,
    kills: u64,
    /// The most asks that one pod had in hand.
    in_hand: usize,
    /// The resources of the process when all was over.
    held: (usize, u64),
    seen: HashMap<u64, Seen>,
}

/// Calls from 32 callers, each up to `ms` milliseconds long, while pods are killed.
async fn storm(lasts: Duration, ms: u64, idempotent: bool, dice: &mut Dice) -> Storm {
    let rig = Arc::new(Rig::new().await);
    let log = rig.open().join("log");
    let source = SOURCE.replace("{log}", log.to_str().unwrap());
    let recipe = rig.pool("victim", &source, &format!("max = {PODS}"), &format!("idempotent = {idempotent}"));
    let recipe = rig.install(&recipe).await.to_string();
    let (next, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (rig, recipe, next, over, mut dice) = (rig.clone(), recipe.clone(), next.clone(), over.clone(), dice.fork());
            tokio::spawn(async move {
                let mut faults = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let input = json!({ "n": n, "ms": dice.below(ms + 1) });
                    match bounded(30, &format!("call {n}"), rig.host.call(Call::new(&recipe, "run", input).unwrap())).await {
                        Ok(outcome) => assert_eq!(outcome.output.value(), &json!({ "n": n }), "the answer of another call"),
                        Err(fault) => faults.push((n, fault)),
                    }
                }
                faults
            })
        })
        .collect();
    let begun = Instant::now();
    let (mut kills, mut in_hand) = (0, 0);
    // On a busy machine a storm needs longer to reach these numbers, and calls of a moment often take longer.
    let is_one = |kills: u64, in_hand: usize| kills >= KILLS_MIN && next.load(Ordering::Relaxed) >= CALLS_MIN && (ms > 0 || in_hand > 1);
    while begun.elapsed() < lasts || (!is_one(kills, in_hand) && begun.elapsed() < lasts + Duration::from_secs(20)) {
        let calm = Instant::now() + Duration::from_millis(30 + dice.below(200));
        while Instant::now() < calm {
            in_hand = in_hand.max(rig.host.pods().iter().map(|pod| pod.in_hand).max().unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        kills += u64::from(kill_a_pod(&rig.host, rig.folder.path(), dice));
    }
    over.store(true, Ordering::Relaxed);
    let mut faults = HashMap::new();
    for caller in callers {
        faults.extend(bounded(60, "a caller", caller).await.unwrap());
    }
    rig.close().await;
    let held = held();
    Storm { faults, calls: next.load(Ordering::Relaxed), kills, in_hand, held, seen: read(&log) }
}

fn read(log: &Path) -> HashMap<u64, Seen> {
    let mut seen: HashMap<u64, Seen> = HashMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let (what, n) = line.split_once(' ').unwrap();
        let seen = seen.entry(n.parse().unwrap()).or_default();
        match what {
            "begin" => seen.begun += 1,
            _ => seen.ended += 1,
        }
    }
    seen
}

impl Storm {
    /// Asserts what holds for every storm.
    fn check(&self) {
        let (calls, kills, faults) = (self.calls, self.kills, self.faults.len());
        println!("{calls} calls, {kills} kills, {faults} faults, at most {} asks in one pod", self.in_hand);
        assert!(kills >= KILLS_MIN && calls >= CALLS_MIN, "no storm: {kills} kills, {calls} calls");
        for (n, fault) in &self.faults {
            assert!(fault.code == Code::Crashed && fault.message.contains("SIGKILL"), "call {n}: {}", line(fault));
        }
        for n in (0..self.calls).filter(|n| !self.faults.contains_key(n)) {
            assert!(self.seen.get(&n).is_some_and(|seen| seen.ended >= 1), "call {n} has an answer and was never run");
        }
    }

    /// At most once: no ask runs twice, and only asks that were begun fail.
    fn check_once(&self) {
        self.check();
        for (n, seen) in &self.seen {
            assert_eq!(seen.begun, 1, "call {n} was run {} times: {seen:?}", seen.begun);
            assert!(self.faults.contains_key(n) || seen.ended == 1, "call {n} was cut off and its caller was not told");
        }
        // A pod does one thing at a time, so a kill costs at most one call.
        let faults = self.faults.len() as u64;
        assert!(faults <= self.kills, "{faults} faults of {} kills", self.kills);
        // Begun, but killed before the first line of the method: a moment among milliseconds.
        let unseen = self.faults.keys().filter(|n| !self.seen.contains_key(n)).count() as u64;
        assert!(unseen <= 2 + self.kills / 10, "{unseen} of {faults} faults are of asks that never began");
    }

    /// At most once, for calls that fill the pods, so that kills hit.
    fn check_once_and_hit(&self) {
        self.check_once();
        assert!(!self.faults.is_empty(), "no kill cut off a call");
    }

    /// At most once, for calls so short that pods have several in hand and begin one.
    fn check_once_ahead(&self) {
        self.check_once();
        assert!(self.in_hand > 1, "no pod was sent an ask ahead");
    }

    /// Interrupted asks run again, and no caller notices.
    fn check_again(&self) {
        self.check();
        let faults: Vec<_> = self.faults.iter().map(|(n, fault)| format!("call {n}: {}", line(fault))).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let runs: u64 = self.seen.values().map(|seen| u64::from(seen.begun)).sum();
        assert!(runs > self.calls, "no kill cut off a call: {runs} runs of {} calls", self.calls);
        assert!(runs <= self.calls + self.kills, "{runs} runs of {} calls after {} kills", self.calls, self.kills);
    }
}

/// A first storm fills the caches; after the second storm the process holds no more than after the first.
async fn is_flat(ms: u64, idempotent: bool, check: fn(&Storm)) {
    let mut dice = Dice::new();
    let lasts = soak_seconds(2.5);
    let before = storm(Duration::from_millis(1_500), ms, idempotent, &mut dice).await.held;
    let storm = storm(lasts, ms, idempotent, &mut dice).await;
    check(&storm);
    println!("descriptors, KiB: {before:?} before, {:?} after", storm.held);
    assert!(storm.held.0 <= before.0, "descriptors leak: {before:?} before, {:?} after", storm.held);
    assert!(storm.held.1 <= before.1 + MEMORY_MORE_KIB, "memory leaks: {before:?} before, {:?} after", storm.held);
}

#[test]
fn a_kill_costs_the_call_in_hand_and_no_other() {
    alone("storms::kills::a_kill_costs_the_call_in_hand_and_no_other", 60, || is_flat(8, false, Storm::check_once_and_hit));
}

#[test]
fn a_kill_costs_the_one_ask_that_was_begun_of_those_sent_ahead() {
    alone("storms::kills::a_kill_costs_the_one_ask_that_was_begun_of_those_sent_ahead", 60, || is_flat(0, false, Storm::check_once_ahead));
}

#[test]
fn a_kill_costs_no_idempotent_call() {
    alone("storms::kills::a_kill_costs_no_idempotent_call", 60, || is_flat(8, true, Storm::check_again));
}
