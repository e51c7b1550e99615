//! Pools: when pods start, when they end, and how many asks each runs at a time.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hob::model::{Call, Code};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::bounded;
use crate::support::{Rig, call, is_running, within};

const PID: &str =
    "import os, time\nclass Subject:\n    def run(self, input):\n        time.sleep(input / 1000)\n        return os.getpid()\n";

const ONE: &str = "class Subject:\n    def run(self, input):\n        return 1\n";

/// Makes `count` calls at once; returns their outputs.
async fn at_once(rig: &Arc<Rig>, recipe: &Path, count: usize, input: Value) -> Vec<Value> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let (rig, call) = (rig.clone(), call(recipe, input.clone()));
        calls.spawn(async move { bounded(30, "a call", rig.host.call(call)).await.unwrap().output.into_value() });
    }
    calls.join_all().await
}

async fn pid_of(rig: &Rig, recipe: &Path) -> u64 {
    rig.run(recipe, json!(0)).await.unwrap().output.value().as_u64().unwrap()
}

#[tokio::test]
async fn a_pool_grows_under_load_and_shrinks_when_there_is_none() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("grows", PID, "min = 1\nmax = 3\nidle_timeout_ms = 700", "");
    // One call after the other needs one pod.
    for _ in 0..5 {
        pid_of(&rig, &recipe).await;
    }
    assert_eq!(rig.host.pods().len(), 1);
    let outputs = at_once(&rig, &recipe, 12, json!(200)).await;
    let pids: HashSet<u64> = outputs.iter().map(|pid| pid.as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 3, "{outputs:?}");
    assert_eq!(rig.host.pods().len(), 3, "never more than `max`");
    within(8, "the pods that nobody needs are gone", || rig.host.pods().len() == 1).await;
    // `min` stays, for longer than the idle timeout.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rig.host.pods().len(), 1);
    let kept = pid_of(&rig, &recipe).await;
    assert!(pids.contains(&kept), "the one that stayed answers");
    assert_eq!(pids.iter().filter(|pid| is_running(**pid as u32)).count(), 1);
    rig.close().await;
}

#[tokio::test]
async fn a_pool_without_a_minimum_ends_with_its_work_and_comes_back() {
    let rig = Rig::new().await;
    let recipe = rig.pool("empties", PID, "idle_timeout_ms = 300", "");
    let first = pid_of(&rig, &recipe).await;
    within(60, "no pod is left", || rig.host.pods().is_empty()).await;
    assert!(!is_running(first as u32));
    assert_ne!(pid_of(&rig, &recipe).await, first);
    rig.close().await;
}

#[tokio::test]
async fn the_minimum_is_there_once_the_recipe_is_in_use() {
    let rig = Rig::new().await;
    let recipe = rig.pool("minimum", PID, "min = 2\nmax = 4", "");
    assert!(rig.host.pods().is_empty(), "nothing is started before the first call");
    pid_of(&rig, &recipe).await;
    within(60, "two pods are ready", || rig.host.pods().iter().filter(|pod| pod.state == "ready").count() == 2).await;
    // A killed pod is replaced without a call.
    let victim = rig.host.pods()[0].pid.unwrap();
    let victim = rustix::process::Pid::from_raw(victim as i32).unwrap();
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
    within(60, "two pods are ready again", || {
        let pods = rig.host.pods();
        let ready = pods.iter().filter(|pod| pod.state == "ready").count();
        ready == 2 && pods.iter().all(|pod| pod.pid != Some(victim.as_raw_nonzero().get() as u32))
    })
    .await;
    rig.close().await;
}

#[tokio::test]
async fn a_pod_is_replaced_after_so_many_calls() {
    let rig = Rig::new().await;
    let recipe = rig.pool("recycled", PID, "recycle = { calls = 3 }", "");
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for _ in 0..12 {
        *counts.entry(pid_of(&rig, &recipe).await).or_default() += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3; 4], "{counts:?}");
    rig.close().await;
}

#[tokio::test]
async fn a_pod_is_replaced_when_it_is_old_and_no_call_is_lost() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("ages", PID, "max = 2\nrecycle = { age_ms = 400 }", "");
    let mut pids = HashSet::new();
    for _ in 0..30 {
        // A call that fails panics.
        pids.extend(at_once(&rig, &recipe, 4, json!(20)).await.iter().map(|pid| pid.as_u64().unwrap()));
    }
    assert!(pids.len() > 2, "{pids:?}");
    within(60, "the old ones are gone", || pids.iter().filter(|pid| is_running(**pid as u32)).count() <= 2).await;
    rig.close().await;
}

#[tokio::test]
async fn a_pod_that_grew_too_large_is_replaced() {
    let rig = Rig::new().await;
    let source = "import os\nkept = []\nclass Subject:\n    def run(self, input):\n        kept.append(b'x' * (input << 20))\n        return os.getpid()\n";
    let recipe = rig.pool("fat", source, &format!("recycle = {{ memory_bytes = {} }}", 96 << 20), "");
    let first = pid_of(&rig, &recipe).await;
    assert_eq!(pid_of(&rig, &recipe).await, first, "a small one stays");
    rig.run(&recipe, json!(200)).await.unwrap();
    let mut now = first;
    for _ in 0..100 {
        now = pid_of(&rig, &recipe).await;
        if now != first {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_ne!(now, first);
    within(60, "the large one is gone", || !is_running(first as u32)).await;
    rig.close().await;
}

/// Answers once four asks are inside at the same time.
const THREADS: &str = r#"
import os, threading

gate = threading.Barrier(4)

class Subject:
    def run(self, input):
        gate.wait(10)
        return os.getpid()
"#;

const TASKS: &str = r#"
import asyncio, os

class Subject:
    inside = 0

    async def run(self, input):
        self.inside += 1
        while self.inside % 4:
            await asyncio.sleep(0.005)
        return os.getpid()
"#;

#[tokio::test]
async fn a_pod_runs_as_many_at_a_time_as_it_declares() {
    let rig = Arc::new(Rig::new().await);
    for (name, source) in [("threads", THREADS), ("tasks", TASKS)] {
        let recipe = rig.pool(name, source, "concurrency = 4", "");
        for _ in 0..3 {
            let pids: HashSet<u64> = at_once(&rig, &recipe, 4, json!(0)).await.iter().map(|pid| pid.as_u64().unwrap()).collect();
            assert_eq!(pids.len(), 1, "{name}: one process");
        }
        // Three do not open the gate; the fourth, which comes later, does.
        let three = rig.clone();
        let (early, path) = (tokio::spawn(async move { at_once(&three, &path_of(&three, name), 3, json!(0)).await }), recipe.clone());
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!early.is_finished(), "{name}");
        rig.run(&path, json!(0)).await.unwrap();
        assert_eq!(bounded(10, "three calls", early).await.unwrap().len(), 3);
    }
    rig.close().await;
}

fn path_of(rig: &Rig, name: &str) -> std::path::PathBuf {
    rig.folder.path().join("recipes").join(name)
}

#[tokio::test]
async fn a_pod_of_one_at_a_time_never_runs_two() {
    let rig = Arc::new(Rig::new().await);
    let source = "import time\nclass Subject:\n    inside = 0\n    def run(self, input):\n        self.inside += 1\n        time.sleep(0.01)\n        most = self.inside\n        self.inside -= 1\n        return most\n";
    let recipe = rig.pool("serial", source, "", "");
    assert!(at_once(&rig, &recipe, 40, json!(0)).await.iter().all(|most| *most == 1));
    rig.close().await;
}

#[tokio::test]
async fn a_one_shot_call_has_a_process_of_its_own() {
    let rig = Rig::new().await;
    let recipe = rig.pool("once", PID, "", "");
    let kept = pid_of(&rig, &recipe).await;
    let mut pids = HashSet::from([kept]);
    for _ in 0..3 {
        let once = call(&recipe, json!(0)).one_shot();
        let pid = rig.host.call(once).await.unwrap().output.value().as_u64().unwrap();
        assert!(pids.insert(pid), "a fresh process each time");
        within(60, "it is gone after its call", || !is_running(pid as u32)).await;
    }
    assert_eq!(pid_of(&rig, &recipe).await, kept, "the pool is not touched");
    rig.close().await;
}

#[tokio::test]
async fn what_the_manifest_says_of_a_pod_is_what_it_gets() {
    let rig = Rig::new().await;
    let source = "import os\nclass Subject:\n    warm = False\n    def run(self, input):\n        return [os.environ.get('COLOUR'), os.environ['OMP_NUM_THREADS'], self.warm]\n";
    let recipe = rig.pool("told", source, "threads = 3\nenv = { COLOUR = \"blue\" }\nwarm_up = \"pod/warm_up.py\"", "");
    std::fs::write(recipe.join("pod/warm_up.py"), "pod.warm = pod.run(None)[1] == '3'\n").unwrap();
    assert_eq!(rig.run(&recipe, json!(0)).await.unwrap().output.value(), &json!(["blue", "3", true]));
    rig.close().await;
}

#[tokio::test]
async fn only_an_ask_that_promised_progress_can_stall() {
    let rig = Rig::new().await;
    let source = "import time, hob_pod\nclass Subject:\n    def run(self, input):\n        for n in range(input):\n            hob_pod.progress(done=n)\n            time.sleep(0.1)\n        while input < 5:\n            time.sleep(0.01)\n        return input\n";
    let recipe = rig.pool("stalls", source, "", "progress_interval_ms = 500");
    assert_eq!(rig.run(&recipe, json!(10)).await.unwrap().output.value(), &json!(10), "slow, but it moves");
    let begun = std::time::Instant::now();
    let fault = bounded(20, "an ask that stalls", rig.host.call(call(&recipe, json!(1)))).await.unwrap_err();
    assert_eq!(fault.code, Code::Stalled, "{fault:?}");
    assert!((500..3_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!(rig.run(&recipe, json!(5)).await.unwrap().output.value(), &json!(5), "and the next call is answered");
    rig.close().await;
}

#[tokio::test]
async fn a_call_that_comes_while_a_pod_dies_goes_to_another() {
    let rig = Arc::new(Rig::new().await);
    let recipe = rig.pool("two", ONE, "min = 2\nmax = 2", "idempotent = true\ndeadline_ms = 10000");
    let name = rig.install(&recipe).await.to_string();
    let idle = || {
        let pods = rig.host.pods();
        (pods.len() == 2 && pods.iter().all(|pod| pod.state == "ready")).then_some(pods)
    };
    let call = || rig.host.call(Call::new(&name, "run", json!(0)).unwrap());
    call().await.unwrap();
    for round in 0..80 {
        within(60, "two pods without work", || idle().is_some()).await;
        let asks: Vec<u64> = idle().unwrap().iter().map(|pod| pod.asks).collect();
        call().await.unwrap();
        within(60, "two pods without work", || idle().is_some()).await;
        // The pod that took this call would take the next one too. It dies without work.
        let pods = idle().unwrap();
        let next = pods.iter().zip(asks).find(|(pod, before)| pod.asks > *before).unwrap().0.pid.unwrap();
        let pid = rustix::process::Pid::from_raw(next as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // Some calls come before anybody knows of its death, some while its end is handled, some afterwards.
        tokio::time::sleep(Duration::from_micros(500 * round)).await;
        bounded(8, &format!("call {round}, beside an idle pod"), call()).await.unwrap();
    }
    rig.close().await;
}

/// Processor time of this thread, in hundredths of a second.
fn ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn a_batch_that_is_gathered_beside_idle_pods_costs_nothing() {
    const LISTS: &str = "class Subject:\n    def run(self, inputs):\n        return inputs\n";
    let rig = Arc::new(Rig::new().await);
    let run = "idempotent = true\ndeadline_ms = 20000\nbatch = { items = 32, wait_ms = 2000 }";
    let recipe = rig.pool("gathers", LISTS, "min = 2\nmax = 2", run);
    rig.run(&recipe, json!(0)).await.unwrap();
    within(60, "two pods without work", || rig.host.pods().iter().filter(|pod| pod.state == "ready").count() == 2).await;
    let (begun, before) = (std::time::Instant::now(), ticks());
    assert_eq!(rig.run(&recipe, json!(1)).await.unwrap().output.value(), &json!(1));
    assert!(begun.elapsed() >= Duration::from_millis(1_900), "nothing was gathered, so nothing is shown");
    // The whole host runs on this thread; a host that wakes itself for ever would use all of the two seconds.
    let used = ticks() - before;
    assert!(used < 80, "{used} hundredths of a second");
    rig.close().await;
}
