//! Misbehaving pods: each file of tests/pods does one misdeed, proves that it did, and causes one clear
//! fault.
//!
//! Each test asserts the same: the misdeed happened, the caller got the right fault, another recipe of the
//! same host answers as before, and no process is left that should not be.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use hob::model::{Code, Event, Fault};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{Rig, call, inner_number, is_running, outer, within};

/// What happens to the pod.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pod {
    /// The pod and all that it started are gone soon after the fault.
    Gone,
    /// The pod continues to serve: the misdeed affected one call.
    Lives,
}
use Pod::*;

/// A file, the fault of the call that is asked of it, the texts that the fault must contain (in its message
/// or detail), and what happens to the pod.
type Misdeed = (&'static str, Code, &'static [&'static str], Pod);

const MISDEEDS: &[Misdeed] = &[
    // Until the pod is ready.
    ("exits_before_hello.py", Code::Crashed, &["exited with code 3 before it was ready", "no device found"], Gone),
    ("exits_0_before_hello.py", Code::Crashed, &["exited with code 0 before it was ready"], Gone),
    ("dies_at_import.py", Code::ImportFailed, &["no accelerator on this machine", "_open_device", "dies_at_import.py"], Gone),
    ("never_says_hello.py", Code::StartTimeout, &["ready"], Gone),
    ("never_ready.py", Code::StartTimeout, &["ready", "waiting for a licence server"], Gone),
    ("speaks_another_protocol.py", Code::ProtocolViolation, &["speaks protocol 7 to 9"], Gone),
    ("answers_before_ready.py", Code::ProtocolViolation, &["not in hand"], Gone),
    // Frames.
    ("half_frame_then_hangs.py", Code::Deadline, &["`run`"], Gone),
    ("dies_mid_frame.py", Code::Crashed, &["exited with code 4", "in the middle of a frame"], Gone),
    ("oversize_frame.py", Code::TooLarge, &["bytes; at most"], Lives),
    ("lies_about_length.py", Code::ProtocolViolation, &["claims"], Gone),
    ("not_json.py", Code::ProtocolViolation, &["not a message"], Gone),
    ("nan_in_answer.py", Code::ProtocolViolation, &["not a message"], Gone),
    ("integer_past_64_bits.py", Code::InvalidOutput, &["past 64 bits"], Lives),
    // Messages.
    ("unknown_message.py", Code::ProtocolViolation, &["unknown type", "abracadabra"], Gone),
    ("wrong_incarnation.py", Code::ProtocolViolation, &["incarnation", "somebody-else"], Gone),
    ("answers_unknown_ask.py", Code::ProtocolViolation, &["not in hand"], Gone),
    ("chunk_from_non_streaming.py", Code::ProtocolViolation, &["does not stream"], Gone),
    // Lanes.
    ("closes_its_data_lane.py", Code::ProtocolViolation, &["closed its socket"], Gone),
    ("closes_its_socket.py", Code::ProtocolViolation, &["closed its socket"], Gone),
    ("closes_every_descriptor.py", Code::Crashed, &["exited with code 70", "`run`", "closed a descriptor that its pod speaks"], Gone),
    // The author's code.
    ("never_answers.py", Code::Deadline, &["`run`"], Lives),
    ("ignores_cancel.py", Code::Deadline, &["`run`"], Gone),
    ("stops_itself.py", Code::Deadline, &["`run`"], Gone),
    ("spins_and_says_nothing.py", Code::Deadline, &["`run`"], Gone),
    ("spins_with_the_gil_held.py", Code::Deadline, &["`run`"], Gone),
    ("hangs_with_the_gil_held.py", Code::Deadline, &["`run`"], Gone),
    ("runs_out_of_memory.py", Code::OutOfMemory, &["MemoryError", "\"cpu\""], Lives),
    // Ends.
    ("segfaults_mid_answer.py", Code::Crashed, &["SIGSEGV", "about to read address 0"], Gone),
    ("dies_of_memory.py", Code::Crashed, &["SIGABRT", "bad_alloc", "in run"], Gone),
    ("exits_in_its_method.py", Code::Crashed, &["exited with code 0 during `run`"], Gone),
    ("grandchild_holds_the_socket.py", Code::Crashed, &["exited with code 5 during `run`"], Gone),
    ("kills_its_keeper.py", Code::SandboxDenied, &["Operation not permitted", "`run`"], Lives),
];

#[tokio::test]
async fn every_misdeed_happens_is_one_clear_fault_and_harms_nobody_else() {
    let rig = Arc::new(Rig::new().await);
    let good = rig.python("good", "class Subject:\n    def run(self, input):\n        return input\n", false);
    // A few at a time, because most of them only wait.
    let (turns, mut all) = (Arc::new(Semaphore::new(8)), JoinSet::new());
    // All recipes are made first: a call during which `hob.toml` changes has its pods for itself.
    let recipes: Vec<_> = MISDEEDS.iter().map(|misdeed| (*misdeed, misbehaving(&rig, misdeed))).collect();
    for (misdeed, recipe) in recipes {
        let (rig, good, turns) = (rig.clone(), good.clone(), turns.clone());
        all.spawn(async move {
            let _turn = turns.acquire().await.unwrap();
            misbehaves(&rig, &good, &recipe, misdeed).await;
        });
    }
    while let Some(done) = all.join_next().await {
        if let Err(error) = done {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    rig.close().await;
}

fn misbehaving(rig: &Rig, (file, code, ..): &Misdeed) -> PathBuf {
    let start_timeout_ms = if *code == Code::StartTimeout { 4_000 } else { 20_000 };
    rig.hostile(file, &format!("start_timeout_ms = {start_timeout_ms}"))
}

async fn misbehaves(rig: &Rig, good: &Path, recipe: &Path, (file, code, says, pod): Misdeed) {
    // Only misdeeds that end by the deadline have a short one: all others must be reported at once.
    let deadline_ms = if code == Code::Deadline { 3_000 } else { 30_000 };
    let begun = Instant::now();
    let fault = rig.host.call(call(recipe, json!({})).with_deadline(std::time::Duration::from_millis(deadline_ms))).await.expect_err(file);
    let took = begun.elapsed();
    assert_eq!(fault.code, code, "{file}: {fault:?}");
    for words in says {
        assert!(format!("{} {}", fault.message, fault.detail).contains(words), "{file}: no `{words}` in {fault:?}");
    }
    assert!(took < Duration::from_secs(12), "{file}: told after {took:?}");
    // A pod that ignores the cancel does so after its caller has the fault.
    within(60, &format!("{file} fires"), || rig.fired(file).is_some()).await;
    let pids = rig.fired(file).unwrap();
    assert_eq!(rig.run(good, json!(file)).await.unwrap().output.value(), &json!(file), "another recipe answers");
    match pod {
        Gone => within(8, &format!("{file}: all of {pids:?} are gone"), || outer(rig.folder.path(), &pids).is_empty()).await,
        Lives => assert!(!outer(rig.folder.path(), &pids[..1]).is_empty(), "{file}: the pod is still there"),
    }
}

#[test]
fn every_file_of_the_kit_is_tested() {
    let tests = [
        include_str!("misdeeds.rs"),
        include_str!("endings.rs"),
        include_str!("readers.rs"),
        include_str!("../sessions/misdeeds.rs"),
        include_str!("../cli/floods.rs"),
        include_str!("../cli/calling.rs"),
    ]
    .concat();
    let kit = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods")).unwrap();
    let files: Vec<_> = kit.map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name.ends_with(".py")).collect();
    assert!(files.len() > 40, "{files:?}");
    let untested: Vec<_> = files.iter().filter(|file| *file != "raw.py" && !tests.contains(&format!("\"{file}\""))).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[tokio::test]
async fn what_a_pod_prints_harms_nothing() {
    let rig = Rig::new().await;
    for file in ["prints_from_c.py", "floods_stderr.py"] {
        let recipe = rig.hostile(file, "");
        for _ in 0..2 {
            assert_eq!(rig.run(&recipe, json!({})).await.unwrap().output.value(), &json!({ "ok": true }), "{file}");
        }
        assert!(is_running(rig.fired(file).expect("the misdeed happened")[0]), "{file}");
    }
    rig.close().await;
}

#[tokio::test]
async fn an_oversize_answer_is_a_fault_of_that_call_only() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("oversize_frame.py", "");
    for round in 0..3 {
        let fault = rig.run(&recipe, json!({})).await.unwrap_err();
        assert_eq!(fault.code, Code::TooLarge, "round {round}: {fault:?}");
        let pid = rig.run(&recipe, json!({})).await.unwrap().output.value()["pid"].as_u64().unwrap();
        assert_eq!(rig.fired("oversize_frame.py").unwrap(), [pid as u32], "the same process serves on");
    }
    rig.close().await;
}

#[tokio::test]
async fn a_second_answer_never_reaches_another_call() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("answers_twice.py", "");
    assert_eq!(rig.run(&recipe, json!({})).await.unwrap().output.value(), &json!({ "answer": 1 }));
    within(60, "the misdeed happens", || rig.fired("answers_twice.py").is_some()).await;
    // This call either meets the violation or starts a new pod: it never gets the stray answer.
    match rig.run(&recipe, json!({})).await {
        Ok(outcome) => assert_eq!(outcome.output.value(), &json!({ "answer": 1 })),
        Err(fault) => assert_eq!(fault.code, Code::ProtocolViolation, "{fault:?}"),
    }
    rig.close().await;
}

#[tokio::test]
async fn a_late_frame_of_an_ask_that_is_over_reaches_nobody() {
    let rig = Rig::new().await;
    for file in ["answers_the_ask_before.py", "progress_after_answer.py"] {
        let recipe = rig.hostile(file, "");
        assert_eq!(rig.run(&recipe, json!({})).await.unwrap().output.value(), &json!({ "answer": 1 }), "{file}");
        let mut second = rig.host.start(call(&recipe, json!({})));
        while let Some(event) = second.next().await {
            assert!(!matches!(event, Event::Progress { .. } | Event::Chunk { .. }), "{file}: {event:?}");
        }
        let fault = second.outcome().await.unwrap_err();
        assert_eq!(fault.code, Code::ProtocolViolation, "{file}: {fault:?}");
        let pids = rig.fired(file).expect("the misdeed happened");
        within(8, "the pod is gone", || !is_running(pids[0])).await;
    }
    rig.close().await;
}

#[tokio::test]
async fn a_fault_that_no_table_has_is_still_one_fault() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("unknown_fault_code.py", "");
    for (code, says) in [(Code::RecipeFailed, "gremlins"), (Code::ProtocolViolation, ""), (Code::RecipeFailed, "gremlins")] {
        let fault = rig.run(&recipe, json!({})).await.unwrap_err();
        assert_eq!(fault.code, code, "{fault:?}");
        assert!(format!("{} {}", fault.message, fault.detail).contains(says), "{fault:?}");
        assert!(rig.fired("unknown_fault_code.py").is_some());
    }
    rig.close().await;
}

#[tokio::test]
async fn a_method_that_forks_answers_once() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("forks_and_returns_twice.py", "");
    for _ in 0..3 {
        let output = rig.run(&recipe, json!({})).await.unwrap().output.into_value();
        let pids = rig.fired("forks_and_returns_twice.py").unwrap();
        assert_eq!(output, json!({ "pid": pids[0], "child": pids[1] }), "the parent's answer");
        within(60, "the child is gone", || outer(rig.folder.path(), &pids[1..2]).is_empty()).await;
    }
    assert_eq!(rig.host.pods().len(), 1);
    rig.close().await;
}

#[tokio::test]
async fn a_call_that_ran_out_of_memory_costs_the_pod_nothing() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("runs_out_of_memory.py", "");
    for _ in 0..2 {
        let fault = rig.run(&recipe, json!({})).await.unwrap_err();
        assert_eq!((fault.code, &fault.detail["device"]), (Code::OutOfMemory, &json!("cpu")), "{fault:?}");
        let pid = rig.run(&recipe, json!({ "answer": true })).await.unwrap().output.value()["pid"].as_u64().unwrap();
        assert_eq!(rig.fired("runs_out_of_memory.py").unwrap(), [pid as u32]);
    }
    rig.close().await;
}

#[tokio::test]
async fn a_cancel_that_is_heeded_keeps_the_process() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("never_answers.py", "");
    for _ in 0..2 {
        let late = call(&recipe, json!({})).with_deadline(std::time::Duration::from_millis(3_000));
        assert_eq!(rig.host.call(late).await.unwrap_err().code, Code::Deadline);
        within(60, "the pod is free again", || rig.host.pods().iter().any(|pod| pod.state == "ready")).await;
        assert!(rig.fired("never_answers.py").is_some());
    }
    assert_eq!(rig.host.pods()[0].asks, 2, "one pod took both asks");
    rig.close().await;
}

#[tokio::test]
async fn a_pod_that_ignores_sigterm_is_killed_in_the_end() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("ignores_sigterm.py", "");
    let running = rig.host.start(call(&recipe, json!({})));
    within(60, "the call reaches the pod", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    let pid = rig.host.pods()[0].pid.unwrap();
    let (begun, said) = (Instant::now(), inner_number(pid).unwrap());
    rig.close_within(Duration::from_millis(300)).await;
    let took = begun.elapsed();
    assert_eq!(rig.fired("ignores_sigterm.py").expect("SIGTERM came and was ignored"), [said]);
    assert!(!is_running(pid) && took < Duration::from_secs(8), "{took:?}");
    let fault = running.outcome().await.unwrap_err();
    assert!(matches!(fault.code, Code::Cancelled | Code::Crashed | Code::ShuttingDown), "{fault:?}");
}

/// Eight calls that reach the pod as one batch; returns the outcome of each.
async fn batch(rig: &Arc<Rig>, file: &str, deadline_ms: u64) -> Vec<Result<Value, Fault>> {
    let run = "idempotent = true\nbatch = { items = 8, wait_ms = 2000 }";
    let recipe = rig.hostile_with(file, "", run);
    let mut calls = JoinSet::new();
    for n in 0..8 {
        let (rig, call) = (rig.clone(), call(&recipe, json!({ "n": n })).with_deadline(std::time::Duration::from_millis(deadline_ms)));
        calls.spawn(async move { (n, rig.host.call(call).await.map(|outcome| outcome.output.into_value())) });
    }
    let mut ends = calls.join_all().await;
    ends.sort_by_key(|(n, _)| *n);
    for (n, end) in &ends {
        if let Ok(output) = end {
            assert_eq!(output, &json!({ "n": n }), "{file}: the answer of another item");
        }
    }
    assert!(rig.fired(file).is_some(), "{file}: the misdeed happened");
    ends.into_iter().map(|(_, end)| end).collect()
}

#[tokio::test]
async fn a_batch_that_is_answered_by_half_costs_the_other_half_its_deadline() {
    let rig = Arc::new(Rig::new().await);
    let ends = batch(&rig, "answers_half_a_batch.py", 3_000).await;
    let faults: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
    assert!(faults.len() == 4 && faults.iter().all(|fault| fault.code == Code::Deadline), "{ends:?}");
    let pid = rig.fired("answers_half_a_batch.py").unwrap()[0];
    within(8, "the pod is killed", || !is_running(pid)).await;
    rig.close().await;
}

#[tokio::test]
async fn what_a_dying_pod_answered_of_a_batch_is_answered() {
    let rig = Arc::new(Rig::new().await);
    let ends = batch(&rig, "dies_within_each_batch.py", 30_000).await;
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    rig.close().await;
}

#[tokio::test]
async fn a_second_answer_within_a_batch_reaches_nobody() {
    let rig = Arc::new(Rig::new().await);
    let ends = batch(&rig, "answers_an_item_twice.py", 30_000).await;
    // The asks could be repeated without harm, so other pods ran them; each answer was compared with its
    // input.
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    let status = rig.host.status();
    let pool = &status.pools[0];
    assert!(pool.crashes > 0 && pool.asks_repeated > 0, "{pool:?}");
    assert_eq!(pool.last_fault.as_ref().unwrap().code, Code::ProtocolViolation);
    rig.close().await;
}
