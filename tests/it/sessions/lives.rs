//! A session from its first call to its last.

use std::time::Duration;

use hob::model::{Code, Priority, status::session::SessionState};
use serde_json::json;

use super::{COUNTER, add, forgetful, in_session, only, recipe, run, session_folders, told, word};
use crate::support::{Rig, call, host_at, is_running, within};

#[tokio::test]
async fn every_call_meets_the_same_pod_and_a_new_host_goes_on_from_the_checkpoint() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\"", "");
    for wanted in 1..=3 {
        assert_eq!(add(&rig.host, &counter, "a").await, wanted);
    }
    let mine = run(&rig.host, &counter, "b", json!({})).await.unwrap();
    assert_eq!((&mine["count"], &mine["session"], &mine["restored"]), (&json!(1), &json!("b"), &json!(false)));
    let sessions = rig.host.sessions().await.unwrap();
    assert_eq!(sessions.iter().map(|session| (&*session.name, session.calls)).collect::<Vec<_>>(), [("a", 3), ("b", 1)]);
    assert!(sessions.iter().all(|session| session.state == SessionState::Live), "{sessions:?}");
    // The first state is kept after the first ask, the next one after the interval.
    assert_eq!(sessions[0].checkpoint.as_ref().map(|kept| kept.number), Some(1));
    rig.host.shutdown().await;
    // Its files are accessible only to their owner, and stay for the next host.
    let sessions = rig.host.sessions().await.unwrap();
    assert!(sessions.iter().all(|session| session.state == SessionState::Parked), "{sessions:?}");
    assert_eq!(sessions[0].checkpoint.as_ref().map(|kept| (kept.number, kept.calls)), Some((2, 3)));
    let next = host_at(rig.folder.path()).await;
    let (output, told) = told(&next, in_session(&counter, "a", json!({}))).await;
    let output = output.unwrap();
    assert_eq!((&output["count"], &output["restored"]), (&json!(4), &json!(true)));
    assert_eq!(told, [json!({ "session": "resumed", "checkpoint": 2, "calls_since": 0 })]);
    for name in ["a", "b"] {
        next.close_session(&word(&counter), name).await.unwrap();
    }
    assert_eq!(session_folders(&rig), [""; 0].map(std::path::PathBuf::from));
    next.shutdown().await;
    rig.close().await;
}

#[tokio::test]
async fn what_needs_a_session_says_so_and_what_has_none_does_too() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"shared\", max = 1", "");
    assert_eq!(rig.run(&counter, json!({})).await.unwrap_err().code, Code::SessionRequired);
    let both = in_session(&counter, "a", json!({})).one_shot();
    assert_eq!(rig.host.call(both).await.unwrap_err().code, Code::Usage);
    assert_eq!(run(&rig.host, &counter, "no/name", json!({})).await.unwrap_err().code, Code::Usage);
    let plain = rig.python("plain", COUNTER, false);
    assert_eq!(run(&rig.host, &plain, "a", json!({})).await.unwrap_err().code, Code::Usage);
    rig.host.call(call(&plain, json!({}))).await.unwrap();
    for gone in [
        rig.host.touch_session(&word(&counter), "a").await.map(drop),
        rig.host.checkpoint_session(&word(&counter), "a").await.map(drop),
        rig.host.close_session(&word(&counter), "a").await,
    ] {
        assert_eq!(gone.unwrap_err().code, Code::SessionNotFound);
    }
    assert_eq!(rig.host.open_session(&word(&counter), "a").await.unwrap().calls, 0);
    assert_eq!(run(&rig.host, &counter, "b", json!({})).await.unwrap_err().code, Code::SessionsFull);
    rig.host.close_session(&word(&counter), "a").await.unwrap();
    assert_eq!(add(&rig.host, &counter, "b").await, 1);
    rig.close().await;
}

#[tokio::test]
async fn an_exclusive_session_refuses_a_second_call_and_a_shared_one_lets_it_wait() {
    let rig = Rig::new().await;
    let alone = recipe(&rig, "alone", COUNTER, "mode = \"exclusive\"", "");
    let sleeping = rig.host.start(in_session(&alone, "a", json!({ "do": "sleep", "seconds": 600 })));
    within(60, "the call has the pod", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    let busy = run(&rig.host, &alone, "a", json!({})).await.unwrap_err();
    assert_eq!((busy.code, busy.retryable), (Code::SessionBusy, true), "{busy:?}");
    assert_eq!(only(&rig.host).await.running, 1);
    drop(sleeping);
    let shared = recipe(&rig, "shared", COUNTER, "mode = \"shared\"", "");
    let first = rig.host.start(in_session(&shared, "a", json!({ "do": "sleep", "seconds": 1.0 })));
    within(60, "the call has the pod", || rig.host.pods().iter().any(|pod| pod.recipe == "test/shared" && pod.state == "busy")).await;
    let of = |priority| rig.host.start(in_session(&shared, "a", json!({})).with_priority(priority));
    let (bulk, normal) = (of(Priority::Bulk), of(Priority::Normal));
    within(60, "both wait", || {
        let status = rig.host.status();
        let waiting = status.pools.iter().find(|pool| pool.recipe == "test/shared").map(|pool| pool.waiting);
        waiting.is_some_and(|waiting| waiting.normal + waiting.bulk == 2)
    })
    .await;
    first.outcome().await.unwrap();
    let count = |outcome: hob::model::Outcome| outcome.output.value()["count"].as_u64();
    assert_eq!(count(normal.outcome().await.unwrap()), Some(1), "by their priority");
    assert_eq!(count(bulk.outcome().await.unwrap()), Some(2));
    rig.close().await;
}

#[tokio::test]
async fn an_idle_session_is_parked_and_brought_back_and_ends_when_its_time_is_over() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", idle_timeout_ms = 50, ttl_ms = 600000", "");
    let pid = run(&rig.host, &counter, "a", json!({})).await.unwrap()["pid"].as_u64().unwrap() as u32;
    let mut parked = false;
    for _ in 0..500 {
        parked = only(&rig.host).await.state == SessionState::Parked;
        if parked {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(parked && !is_running(pid), "its pod is gone");
    assert_eq!(rig.host.checkpoint_session(&word(&counter), "a").await.unwrap().unwrap().number, 1);
    assert_eq!(add(&rig.host, &counter, "a").await, 2);
    rig.host.close_session(&word(&counter), "a").await.unwrap();

    let brief = recipe(&rig, "brief", COUNTER, "mode = \"exclusive\", ttl_ms = 1500", "");
    add(&rig.host, &brief, "a").await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        rig.host.touch_session(&word(&brief), "a").await.unwrap();
    }
    assert_eq!(only(&rig.host).await.calls, 1, "a touch is as good as a call");
    within(60, "it is closed", || session_folders(&rig).is_empty()).await;
    assert_eq!(add(&rig.host, &brief, "a").await, 1, "and opened anew");
    rig.close().await;
}

#[tokio::test]
async fn a_session_without_checkpoint_stays_while_its_host_does_and_is_lost_with_it() {
    let rig = Rig::new().await;
    let source = forgetful();
    let counter = recipe(&rig, "forgetful", &source, "mode = \"exclusive\", idle_timeout_ms = 50, checkpoint_interval_ms = 20", "");
    assert_eq!(add(&rig.host, &counter, "a").await, 1);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(add(&rig.host, &counter, "a").await, 2, "it did not go for being idle");
    let none = rig.host.checkpoint_session(&word(&counter), "a").await.unwrap_err();
    assert!(none.code == Code::Usage && none.message.contains("no state to give"), "{none:?}");
    rig.host.shutdown().await;
    let next = host_at(rig.folder.path()).await;
    let lost = run(&next, &counter, "a", json!({})).await.unwrap_err();
    assert_eq!((lost.code, &lost.detail["calls"]), (Code::SessionLost, &json!(2)), "{lost:?}");
    assert_eq!(add(&next, &counter, "a").await, 1, "a lost session is closed");
    next.shutdown().await;
    rig.close().await;
}

#[tokio::test]
async fn a_session_is_kept_at_its_interval_and_when_asked() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 20", "");
    add(&rig.host, &counter, "a").await;
    let mut kept = None;
    for _ in 0..500 {
        kept = only(&rig.host).await.checkpoint;
        if kept.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kept.map(|kept| kept.calls), Some(1));
    let quiet = recipe(&rig, "quiet", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    for number in 1..=4 {
        add(&rig.host, &quiet, "a").await;
        assert_eq!(rig.host.checkpoint_session(&word(&quiet), "a").await.unwrap().unwrap().number, number);
        // If nothing changed, nothing is written.
        assert_eq!(rig.host.checkpoint_session(&word(&quiet), "a").await.unwrap().unwrap().number, number);
    }
    rig.close().await;
}

#[tokio::test]
async fn what_is_closed_in_the_middle_of_a_call_ends_that_call_and_leaves_nothing() {
    let rig = Rig::new().await;
    let closes = COUNTER.replace(
        "    def restore",
        "    def close(self):\n        with open(self.mark, \"w\") as file:\n            file.write(\"closed\")\n\n    def restore",
    );
    let mark = rig.open().join("closed");
    let closes = closes.replace(
        "self.count, self.broken, self.restored = 0",
        &format!("self.mark = {mark:?}\n        self.count, self.broken, self.restored = 0"),
    );
    let counter = recipe(&rig, "counter", &closes, "mode = \"exclusive\"", "");
    add(&rig.host, &counter, "a").await;
    rig.host.close_session(&word(&counter), "a").await.unwrap();
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "closed", "its pod said goodbye");
    let sleeping = rig.host.start(in_session(&counter, "a", json!({ "do": "sleep", "seconds": 600 })));
    within(60, "the call has the pod", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    rig.host.close_session(&word(&counter), "a").await.unwrap();
    assert_eq!(sleeping.outcome().await.unwrap_err().code, Code::SessionNotFound);
    assert!(session_folders(&rig).is_empty());
    rig.close().await;
}
