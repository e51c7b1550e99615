//! Pools with more work than they can do: the order of calls, the refusals, and that no call waits for ever.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hob::model::{Call, Code, Priority, limits::POD_QUEUE_MAX};
use serde_json::json;
use tokio::task::JoinSet;

use super::{bounded, soak_seconds};
use crate::support::{Rig, call, within};

const SLEEPS: &str = "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input / 1000)\n        return input\n";

/// Duration of one ask, in milliseconds.
const ASK_MS: u64 = 100;

/// Calls of the load that may end while one call is waited for: the one whose pod it gets, and those of the
/// other pod meanwhile. If it waited behind the whole load, it would be 62.
const BESIDE: u64 = 8;

fn with(priority: Priority, call: Call) -> Call {
    call.with_priority(priority)
}

/// Keeps calls of that class running, from `callers` callers, until `over`; counts the finished ones.
fn saturate(rig: &Arc<Rig>, recipe: &Path, priority: Priority, callers: usize) -> (Arc<AtomicBool>, Arc<AtomicU64>, JoinSet<()>) {
    let (over, done, mut all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), JoinSet::new());
    for _ in 0..callers {
        let (rig, recipe, over, done) = (rig.clone(), recipe.to_owned(), over.clone(), done.clone());
        all.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let outcome = bounded(60, "a call of the load", rig.host.call(with(priority, call(&recipe, json!(ASK_MS))))).await;
                outcome.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    (over, done, all)
}

#[tokio::test]
async fn an_interactive_call_waits_for_one_ask_at_most_however_much_bulk_there_is() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("classes", SLEEPS, "max = 2", "");
    let (over, done, bulk) = saturate(&rig, &recipe, Priority::Bulk, 64);
    within(60, "both pods are busy with bulk", || done.load(Ordering::Relaxed) >= 4).await;
    let (begun, before) = (Instant::now(), done.load(Ordering::Relaxed));
    let mut waits = Vec::new();
    while begun.elapsed() < soak_seconds(4.0) {
        let ended = done.load(Ordering::Relaxed);
        rig.host.call(with(Priority::Interactive, call(&recipe, json!(ASK_MS)))).await.unwrap();
        waits.push(done.load(Ordering::Relaxed) - ended);
        // Not in step with the pods.
        tokio::time::sleep(Duration::from_millis(13 + 31 * (waits.len() as u64 % 5))).await;
    }
    let bulk_done = done.load(Ordering::Relaxed) - before;
    over.store(true, Ordering::Relaxed);
    bounded(60, "the bulk callers", bulk.join_all()).await;
    waits.sort_unstable();
    println!("beside each of {} interactive calls ended so many of the bulk: {waits:?}; {bulk_done} in all", waits.len());
    assert!(waits.last().unwrap() <= &BESIDE, "{waits:?}");
    // Bulk calls used the time that the interactive calls left: at least one of the pods.
    assert!(bulk_done + 1 >= waits.len() as u64, "{bulk_done} bulk calls, {} interactive", waits.len());
    rig.close().await;
}

#[tokio::test]
async fn bulk_gets_its_turn_beside_interactive_calls_that_fill_the_pool() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("starved", SLEEPS, "max = 1", "");
    let (over, done, interactive) = saturate(&rig, &recipe, Priority::Interactive, 6);
    within(60, "the pod is busy", || done.load(Ordering::Relaxed) >= 2).await;
    let before = done.load(Ordering::Relaxed);
    let mut bulk = JoinSet::new();
    for _ in 0..3 {
        let (rig, call) = (rig.clone(), with(Priority::Bulk, call(&recipe, json!(ASK_MS))));
        bulk.spawn(async move { rig.host.call(call).await.unwrap() });
    }
    bounded(20, "three bulk calls", bulk.join_all()).await;
    let passed = done.load(Ordering::Relaxed) - before;
    over.store(true, Ordering::Relaxed);
    bounded(60, "the interactive callers", interactive.join_all()).await;
    println!("{passed} interactive calls went meanwhile");
    assert!(passed >= 3, "interactive calls go first: {passed}");
    rig.close().await;
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back_and_then_there_is_a_place() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.install(&rig.pool("full", SLEEPS, "max = 1", "")).await.to_string();
    let call = || Call::new(&recipe, "run", json!(4)).unwrap();
    // So that the pod's speed is known, from which the promised waits below follow.
    for _ in 0..20 {
        rig.host.call(call()).await.unwrap();
    }
    let (mut queued, mut done) = (JoinSet::new(), 0);
    let refused = loop {
        assert!(queued.len() < POD_QUEUE_MAX * 2, "nobody is refused");
        let running = rig.host.start(call());
        queued.spawn(async move { bounded(60, "a queued call", running.outcome()).await });
        // A refusal ends its call at once.
        match queued.try_join_next() {
            Some(Ok(Err(fault))) => break fault,
            Some(ended) => done += usize::from(ended.unwrap().is_ok()),
            None => {}
        }
        if queued.len() % 64 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert_eq!(refused.code, Code::Overloaded, "{refused:?}");
    let retry_after = refused.retry_after.expect("a refusal says when to come back");
    assert!((1..=60_000).contains(&retry_after) && refused.retryable, "{refused:?}");
    tokio::time::sleep(Duration::from_millis(retry_after)).await;
    bounded(60, "the call that came back", rig.host.call(call())).await.expect("there is a place by then");
    let outcomes = bounded(60, "the queue", queued.join_all()).await;
    let faults: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(faults.iter().all(|fault| fault.code == Code::Overloaded), "{faults:?}");
    done += outcomes.len() - faults.len();
    assert!(done >= POD_QUEUE_MAX, "what was accepted was done: {done}");
    rig.close().await;
}

#[tokio::test]
async fn what_is_too_late_is_never_begun() {
    let rig = Arc::new(Rig::new().await);
    let log = rig.open().join("log");
    let source = format!(
        "import time\nclass Subject:\n    def run(self, input):\n        open({:?}, 'a').write('x')\n        time.sleep(input / 1000)\n",
        log.to_str().unwrap()
    );
    let recipe = rig.pool("late", &source, "max = 1", "");
    let long = rig.host.start(call(&recipe, json!(1_000)));
    within(60, "the pod is busy", || log.exists()).await;
    let mut late = JoinSet::new();
    for _ in 0..20 {
        let (rig, call) = (rig.clone(), call(&recipe, json!(0)).with_deadline(std::time::Duration::from_millis(200)));
        late.spawn(async move { rig.host.call(call).await.unwrap_err().code });
    }
    assert!(bounded(5, "late calls", late.join_all()).await.iter().all(|code| *code == Code::Deadline));
    long.outcome().await.unwrap();
    rig.run(&recipe, json!(0)).await.unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "xx", "the long one, and the one after it");
    rig.close().await;
}
