//! Checkpoints that fail, and pods that misuse them.

use hob::model::{Code, Fault};
use serde_json::json;

use super::{COUNTER, add, in_session, only, recipe, run, told, word};
use crate::support::{Rig, call, within};

#[tokio::test]
async fn a_checkpoint_that_cannot_be_had_is_a_fault_of_its_own_and_the_session_goes_on() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    add(&rig.host, &counter, "a").await;
    rig.host.checkpoint_session(&word(&counter), "a").await.unwrap();
    for (how, code, says) in [
        ("raise", Code::RecipeFailed, "the state is in a mess"),
        ("kind", Code::RecipeFailed, "gave a int"),
        ("large", Code::TooLarge, "at most 268435456 are kept"),
    ] {
        run(&rig.host, &counter, "a", json!({ "do": "break", "how": how })).await.unwrap();
        let fault = rig.host.checkpoint_session(&word(&counter), "a").await.unwrap_err();
        assert!(fault.code == code && fault.message.contains(says), "{how}: {fault:?}");
        let shown = only(&rig.host).await;
        assert_eq!(shown.checkpoint_fault.map(|fault| fault.code), Some(code));
        assert_eq!(shown.checkpoint.map(|kept| kept.number), Some(1), "{how}: the one before stays");
    }
    run(&rig.host, &counter, "a", json!({ "do": "break", "how": "" })).await.unwrap();
    assert_eq!(rig.host.checkpoint_session(&word(&counter), "a").await.unwrap().unwrap().number, 2);
    assert!(only(&rig.host).await.checkpoint_fault.is_none());
    // Large, and within the limit: it travels in pieces, and comes back whole.
    let large = COUNTER.replace("return {\"count\": self.count}", "return bytes([self.count]) * (9 << 20)");
    let large = large.replace("self.count, self.restored = data[\"count\"]", "self.count, self.restored = data[len(data) - 1]");
    let large = recipe(&rig, "large", &large, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    add(&rig.host, &large, "a").await;
    assert_eq!(rig.host.checkpoint_session(&word(&large), "a").await.unwrap().unwrap().bytes, 9 << 20);
    run(&rig.host, &large, "a", json!({ "do": "die" })).await.unwrap_err();
    assert_eq!(add(&rig.host, &large, "a").await, 2);
    rig.close().await;
}

#[tokio::test]
async fn a_class_that_cannot_bring_back_what_it_gives_does_not_start() {
    let rig = Rig::new().await;
    let half = &COUNTER[..COUNTER.find("    def restore").unwrap()];
    let half = recipe(&rig, "half", half, "mode = \"exclusive\"", "");
    let fault = run(&rig.host, &half, "a", json!({})).await.unwrap_err();
    assert!(fault.code == Code::ImportFailed && fault.message.contains("no `restore`"), "{fault:?}");
    // A session whose `restore` fails reports that, and the checkpoint stays.
    let fails = COUNTER.replace(
        "        self.count, self.restored = data",
        "        if os.path.exists(\"MARK\"): raise ValueError(\"what is this\")\n        self.count, self.restored = data",
    );
    let mark = rig.open().join("fails");
    let fails = recipe(&rig, "fails", &fails.replace("MARK", mark.to_str().unwrap()), "mode = \"exclusive\"", "");
    add(&rig.host, &fails, "a").await;
    rig.host.checkpoint_session(&word(&fails), "a").await.unwrap();
    run(&rig.host, &fails, "a", json!({ "do": "die" })).await.unwrap_err();
    std::fs::write(&mark, "").unwrap();
    let fault = run(&rig.host, &fails, "a", json!({})).await.unwrap_err();
    assert!(fault.code == Code::ImportFailed && fault.message.contains("raised ValueError: what is this"), "{fault:?}");
    std::fs::remove_file(&mark).unwrap();
    rig.host.lift(&"test/fails".parse().unwrap()).unwrap();
    assert_eq!(add(&rig.host, &fails, "a").await, 2);
    rig.close().await;
}

/// The fault of a call to a pod that does `file`, in a session or not.
async fn misdeed(file: &str, in_a_session: bool) -> Fault {
    let rig = Rig::new().await;
    let recipe = rig.hostile(file, "session = { mode = \"exclusive\" }");
    let call = if in_a_session { in_session(&recipe, "a", json!({})) } else { call(&recipe, json!({})) };
    let fault = rig.host.call(call).await.unwrap_err();
    assert!(rig.fired(file).is_some(), "{file}: the misdeed happened");
    let pid = rig.fired(file).unwrap()[0];
    within(8, "the pod is killed", || !crate::support::is_running(pid)).await;
    rig.close().await;
    for session in rig.host.sessions().await.unwrap() {
        assert!(session.checkpoint.is_none(), "{file}: nothing of it is kept");
    }
    fault
}

#[tokio::test]
async fn a_pod_that_misuses_checkpoints_is_ended() {
    for (file, in_a_session, says) in [
        ("floods_checkpoints.py", true, "more of a checkpoint than it was told to"),
        ("floods_checkpoints.py", false, "belongs to no session"),
        ("checkpoint_of_two_parts.py", true, "more than its state"),
        ("checkpoint_piece_too_large.py", true, "bytes of a checkpoint at once"),
    ] {
        let fault = misdeed(file, in_a_session).await;
        assert!(fault.code == Code::ProtocolViolation && fault.message.contains(says), "{file}: {fault:?}");
    }
}

#[tokio::test]
async fn a_pod_that_never_ends_its_checkpoint_is_cut_off_at_the_largest_size() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("endless_checkpoint.py", "session = { mode = \"exclusive\" }");
    let outcome = rig.host.call(in_session(&recipe, "a", json!({}))).await.unwrap();
    // The host's own fault, returned by the pod.
    assert!(outcome.output.value()["fault"].as_str().unwrap().contains("268435456"), "{outcome:?}");
    assert!(only(&rig.host).await.checkpoint.is_none());
    rig.host.close_session(&word(&recipe), "a").await.unwrap();
    rig.close().await;
}

#[tokio::test]
async fn a_session_whose_pods_die_of_one_input_does_not_take_the_host_along() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", "idempotent = true");
    add(&rig.host, &counter, "a").await;
    rig.host.checkpoint_session(&word(&counter), "a").await.unwrap();
    let (outcome, heard) = told(&rig.host, in_session(&counter, "a", json!({ "do": "die" }))).await;
    assert_eq!(outcome.unwrap_err().code, Code::PoisonRequest);
    assert!(!heard.is_empty(), "it was tried again on a pod that was brought back");
    rig.host.lift(&"test/counter".parse().unwrap()).unwrap();
    assert_eq!(add(&rig.host, &counter, "a").await, 2);
    rig.close().await;
}
