//! Callers that leave at random moments.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Dice, bounded, line, soak_rounds};
use crate::support::{Rig, call};

const PODS: usize = 2;

/// If its input names a meeting place, a call leaves a mark there, and continues when all have.
const MEET: &str = r#"
import asyncio, os, time

def late():
    raise TimeoutError("the others are not called while this one is")

def met(input):
    if not os.path.exists(mark := os.path.join(input["meet"], str(input["n"]))):
        open(mark, "x").close()
    return len(os.listdir(input["meet"])) == input["all"]
"#;

const PLAIN: &str = r#"
class Subject:
    def run(self, input):
        end = time.monotonic() + input.get("ms", 30_000) / 1000
        while time.monotonic() < end:
            if "meet" in input and met(input):
                break
            time.sleep(0.001)
        else:
            "meet" in input and late()
        return {"n": input["n"], "pid": os.getpid()}
"#;

const ASYNC: &str = r#"
class Subject:
    async def run(self, input):
        if "ms" in input:
            await asyncio.sleep(input["ms"] / 1000)
        else:
            end = time.monotonic() + 30
            while not met(input):
                await asyncio.sleep(0.001)
                time.monotonic() < end or late()
        return {"n": input["n"], "pid": os.getpid()}
"#;

#[tokio::test]
async fn slots_survive_callers_that_leave() {
    storm(PLAIN, 1).await;
}

#[tokio::test]
async fn slots_of_threads_survive_callers_that_leave() {
    storm(PLAIN, 3).await;
}

#[tokio::test]
async fn slots_of_tasks_survive_callers_that_leave() {
    storm(ASYNC, 3).await;
}

/// Calls that are given up at random moments of queueing and running; afterwards the pool works as before.
async fn storm(source: &str, concurrency: usize) {
    let mut dice = Dice::new();
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("left", &format!("{MEET}{source}"), &format!("max = {PODS}\nconcurrency = {concurrency}"), "");
    let slots = PODS * concurrency;
    let pids = together(&rig, &recipe, slots).await;
    assert_eq!(pids.len(), PODS);

    let (count, turns, mut callers) = (100 * soak_rounds(20), Arc::new(Semaphore::new(48)), JoinSet::new());
    for n in 0..count {
        let (rig, recipe, turns, mut dice) = (rig.clone(), recipe.clone(), turns.clone(), dice.fork());
        callers.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let call = call(&recipe, json!({ "n": n, "ms": dice.below(20) }));
            let patience = Duration::from_micros(dice.below(40_000));
            let given_up = match dice.below(2) {
                0 => tokio::time::timeout(patience, rig.host.call(call)).await.ok(),
                _ => {
                    let running = rig.host.start(call);
                    tokio::time::sleep(patience / 2).await;
                    match dice.below(4) {
                        0 => Some(bounded(30, "a call that was kept", running.outcome()).await),
                        _ => None,
                    }
                }
            };
            match given_up {
                Some(Ok(outcome)) => {
                    assert_eq!(outcome.output.value()["n"], n, "the answer of another call");
                    true
                }
                Some(Err(fault)) => panic!("call {n}: {}", line(&fault)),
                None => false,
            }
        });
    }
    let answered = bounded(120, "the storm", callers.join_all()).await.into_iter().filter(|answered| *answered).count();
    println!("{answered} of {count} calls were not given up");
    assert!(answered * 20 > count && answered * 2 < count, "{answered} of {count} calls were not given up");

    // Every slot is free at once, and no pod was killed for that.
    let after = together(&rig, &recipe, slots).await;
    assert_eq!(after, pids, "cancelled work that heeds its cancel costs no process");
    rig.close().await;
}

/// Makes as many calls as there are slots, none of which ends before all have begun; returns the processes
/// that ran them.
async fn together(rig: &Arc<Rig>, recipe: &std::path::Path, slots: usize) -> HashSet<u64> {
    let meet = tempfile::tempdir_in(rig.open()).unwrap();
    let mut calls = JoinSet::new();
    for n in 0..slots {
        let (rig, call) = (rig.clone(), call(recipe, json!({ "n": n, "meet": meet.path(), "all": slots })));
        calls.spawn(async move { bounded(60, "a call", rig.host.call(call)).await.unwrap().output.into_value() });
    }
    let outputs: Vec<Value> = calls.join_all().await;
    outputs.iter().map(|output| output["pid"].as_u64().unwrap()).collect()
}
