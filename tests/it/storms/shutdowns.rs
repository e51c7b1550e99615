//! A host that is shut down under load.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hob::model::{Code, Priority, limits::SHUTDOWN_MS};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Dice, bounded, soak_rounds};
use crate::support::{Rig, call};

const SOURCE: &str =
    "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input['ms'] / 1000)\n        return input['n']\n";

const CALLS: u64 = 100;

#[tokio::test]
async fn every_call_has_an_end_when_its_host_shuts_down() {
    let mut dice = Dice::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..soak_rounds(30) / 10 {
        let rig = Arc::new(Rig::new().await);
        let recipe = rig.pool("load", SOURCE, "max = 2\nconcurrency = 2", "");
        let mut calls = JoinSet::new();
        for n in 0..CALLS {
            let mut call = call(&recipe, json!({ "n": n, "ms": dice.below(120) }));
            call.priority = Priority::ALL[dice.below(3) as usize];
            let running = rig.host.start(call);
            calls.spawn(async move { (n, bounded(30, &format!("call {n}"), running.outcome()).await) });
        }
        // Sometimes before a pod is ready, sometimes amid the load.
        tokio::time::sleep(Duration::from_millis(dice.below(900))).await;
        // Too short for all calls.
        let (begun, drain) = (Instant::now(), Duration::from_millis(dice.below(400)));
        rig.close_within(drain).await;
        assert!(begun.elapsed() < drain + Duration::from_millis(SHUTDOWN_MS + 1_000), "{:?}", begun.elapsed());
        let ends = bounded(2, "calls of a host that is shut down", calls.join_all()).await;
        assert_eq!(ends.len() as u64, CALLS);
        for (n, end) in ends {
            let kind = match end {
                Ok(outcome) => {
                    assert_eq!(outcome.output.value(), n);
                    "done"
                }
                Err(fault) => {
                    let told = [Code::ShuttingDown, Code::Cancelled, Code::Crashed].contains(&fault.code);
                    assert!(told, "call {n}: {fault:?}");
                    fault.code.name()
                }
            };
            *kinds.entry(kind).or_default() += 1;
        }
        assert!(rig.run(&recipe, json!({ "n": 0, "ms": 0 })).await.is_err(), "a host that is shut down takes no call");
    }
    println!("{kinds:?}");
    assert!(kinds.contains_key(Code::ShuttingDown.name()), "{kinds:?}");
}

#[tokio::test]
async fn what_was_accepted_is_done_where_there_is_time() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("accepted", SOURCE, "max = 2", "");
    let mut calls = JoinSet::new();
    for n in 0..40 {
        let running = rig.host.start(call(&recipe, json!({ "n": n, "ms": 25 })));
        calls.spawn(async move { (n, running.outcome().await) });
    }
    crate::support::within(60, "a pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    rig.close().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "no longer than it takes: {:?}", begun.elapsed());
    for (n, end) in calls.join_all().await {
        assert_eq!(end.expect("an accepted call").output.value(), n);
    }
}

#[tokio::test]
async fn what_is_in_hand_is_finished_first() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("finish", SOURCE, "max = 2", "");
    let mut calls = JoinSet::new();
    for n in 0..2 {
        let (rig, call) = (rig.clone(), call(&recipe, json!({ "n": n, "ms": 600 })));
        calls.spawn(async move { rig.host.call(call).await.map(|outcome| outcome.output.into_value()) });
    }
    crate::support::within(60, "both pods are busy", || rig.host.pods().iter().filter(|pod| pod.state == "busy").count() == 2).await;
    rig.close_within(Duration::ZERO).await;
    for end in calls.join_all().await {
        end.expect("an ask in hand that needs less than the grace is finished");
    }
}
