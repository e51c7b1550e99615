//! Batches with a bad item in them.

use std::{path::PathBuf, sync::Arc};

use hob::model::{Code, Fault};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::bounded;
use crate::support::{Rig, call};

const ITEMS: u64 = 32;

/// A method of lists that does what each item says, and logs the size of each batch.
const SOURCE: &str = r#"
import os, time

log = os.open("{log}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

class Subject:
    def run(self, inputs):
        os.write(log, b"%d\n" % len(inputs))
        for input in inputs:
            if input.get("raise"):
                raise ValueError("this item is bad: %d" % input["n"])
            if input.get("abort"):
                os.abort()
        return [ValueError("refused: %d" % input["n"]) if input.get("refuse") else {"n": input["n"]} for input in inputs]
"#;

struct Batched {
    rig: Arc<Rig>,
    recipe: PathBuf,
    log: PathBuf,
}

impl Batched {
    /// A recipe whose batches wait long enough for all calls of a test to be in the first one.
    async fn new() -> Batched {
        let rig = Arc::new(Rig::new().await);
        let log = rig.open().join("log");
        let run = format!("idempotent = true\nbatch = {{ items = {ITEMS}, wait_ms = 3000 }}");
        let recipe = rig.pool("batched", &SOURCE.replace("{log}", log.to_str().unwrap()), "", &run);
        Batched { rig, recipe, log }
    }

    /// Makes one call for each number, all at once; the text of `bad` for a number is added to its input.
    async fn call_all(&self, bad: impl Fn(u64) -> Option<&'static str>) -> Vec<(u64, Result<Value, Fault>)> {
        let mut calls = JoinSet::new();
        for n in 0..ITEMS {
            let mut input = json!({ "n": n });
            if let Some(deed) = bad(n) {
                input[deed] = json!(true);
            }
            let (rig, call) = (self.rig.clone(), call(&self.recipe, input));
            calls.spawn(async move {
                let outcome = bounded(60, &format!("item {n}"), rig.host.call(call)).await;
                (n, outcome.map(|outcome| outcome.output.into_value()))
            });
        }
        let mut results = calls.join_all().await;
        results.sort_by_key(|(n, _)| *n);
        results
    }

    /// The sizes of the batches, in order.
    fn sizes(&self) -> Vec<u64> {
        std::fs::read_to_string(&self.log).unwrap().lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// Asserts 31 right answers; returns the one fault.
fn one_fault(results: Vec<(u64, Result<Value, Fault>)>, poison: u64) -> Fault {
    let mut faults = Vec::new();
    for (n, result) in results {
        match result {
            Ok(output) => assert_eq!(output, json!({ "n": n }), "item {n} has another one's answer"),
            Err(fault) => faults.push((n, fault)),
        }
    }
    assert_eq!(faults.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [poison], "{faults:#?}");
    faults.remove(0).1
}

#[tokio::test]
async fn a_batch_goes_together() {
    let batched = Batched::new().await;
    let results = batched.call_all(|_| None).await;
    for (n, result) in results {
        assert_eq!(result.unwrap(), json!({ "n": n }));
    }
    assert_eq!(batched.sizes(), [ITEMS]);
    batched.rig.close().await;
}

#[tokio::test]
async fn an_item_that_is_refused_costs_nobody_a_second_run() {
    let batched = Batched::new().await;
    let fault = one_fault(batched.call_all(|n| (n == 5).then_some("refuse")).await, 5);
    assert_eq!(fault.code, Code::RecipeFailed, "{fault:?}");
    assert!(fault.message.contains("refused: 5"), "{fault:?}");
    assert_eq!(batched.sizes(), [ITEMS], "a fault of one item is no fault of its batch");
    batched.rig.close().await;
}

#[tokio::test]
async fn of_a_batch_with_an_item_that_raises_only_that_item_fails() {
    let batched = Batched::new().await;
    let fault = one_fault(batched.call_all(|n| (n == 19).then_some("raise")).await, 19);
    assert_eq!(fault.code, Code::RecipeFailed, "{fault:?}");
    assert!(fault.message.contains("this item is bad: 19"), "{fault:?}");
    halved(&batched.sizes());
    batched.rig.close().await;
}

#[tokio::test]
async fn of_a_batch_with_an_item_that_crashes_the_pod_only_that_item_fails() {
    let batched = Batched::new().await;
    let fault = one_fault(batched.call_all(|n| (n == 19).then_some("abort")).await, 19);
    assert!(matches!(fault.code, Code::Crashed | Code::PoisonRequest), "{fault:?}");
    assert!(format!("{} {}", fault.message, fault.detail).contains("SIGABRT"), "{fault:?}");
    halved(&batched.sizes());
    // The recipe still works.
    let results = batched.call_all(|_| None).await;
    assert!(results.iter().all(|(_, result)| result.is_ok()), "{results:?}");
    batched.rig.close().await;
}

/// Asserts that the whole batch ran, then halves, down to the one item; never all items one by one.
fn halved(sizes: &[u64]) {
    assert_eq!(sizes[0], ITEMS, "all went together at first: {sizes:?}");
    assert!(sizes.contains(&(ITEMS / 2)) && sizes.contains(&1), "{sizes:?}");
    assert!((7..=14).contains(&sizes.len()), "{} runs to find one of {ITEMS}: {sizes:?}", sizes.len());
}
