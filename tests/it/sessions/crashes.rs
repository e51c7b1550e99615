//! Pods and hosts that end midway, and the state from which the session continues.

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
};

use hob::model::{Code, status::session::SessionState};
use serde_json::{Value, json};

use super::{COUNTER, add, in_session, only, recipe, run, session_folders, told, word};
use crate::support::{Rig, host_at, is_running, within};

/// Sums in steps, keeps its state at each, and dies once, midway, if its input names a mark file.
const SUMMER: &str = r#"
import os, signal
import hob_pod

class Subject:
    def __init__(self):
        self.at, self.sum, self.began = 0, 0, []

    def run(self, input):
        if self.at == 0:
            self.began.append(self.at)
        while self.at < input["steps"]:
            self.at += 1
            self.sum = (self.sum * 31 + self.at) % 1000003
            kept = hob_pod.checkpoint(force=True)
            mark = input.get("mark")
            if mark and self.at == input["steps"] // 2 and not os.path.exists(mark):
                with open(mark, "w") as file:
                    file.write(f"{self.at} {kept}")
                os.kill(os.getpid(), signal.SIGKILL)
        done, self.at = self.sum, 0
        self.sum = 0
        return {"sum": done, "began": len(self.began)}

    def checkpoint(self):
        return {"at": self.at, "sum": self.sum, "began": self.began}

    def restore(self, data):
        self.at, self.sum, self.began = data["at"], data["sum"], data["began"]
"#;

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_pod_that_is_killed_between_two_calls_costs_what_came_after_its_checkpoint() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    add(&rig.host, &counter, "a").await;
    rig.host.checkpoint_session(&word(&counter), "a").await.unwrap();
    add(&rig.host, &counter, "a").await;
    run(&rig.host, &counter, "a", json!({ "do": "who" })).await.unwrap();
    kill(rig.host.pods()[0].pid.unwrap());
    within(60, "its pod is gone", || rig.host.pods().is_empty()).await;
    let (output, told) = told(&rig.host, in_session(&counter, "a", json!({}))).await;
    assert_eq!(output.unwrap()["count"], 2, "one call of those since is gone");
    assert_eq!(told, [json!({ "session": "resumed", "checkpoint": 1, "calls_since": 2 })]);
    rig.close().await;
}

#[tokio::test]
async fn a_call_that_kills_its_pod_fails_and_the_next_one_goes_on_from_the_checkpoint() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    add(&rig.host, &counter, "a").await;
    rig.host.checkpoint_session(&word(&counter), "a").await.unwrap();
    assert_eq!(run(&rig.host, &counter, "a", json!({ "do": "die" })).await.unwrap_err().code, Code::Crashed);
    assert_eq!(add(&rig.host, &counter, "a").await, 2);
    // Without a checkpoint the session is lost, and that is reported once.
    let none = recipe(&rig, "none", &super::forgetful(), "mode = \"exclusive\"", "");
    add(&rig.host, &none, "a").await;
    assert_eq!(run(&rig.host, &none, "a", json!({ "do": "die" })).await.unwrap_err().code, Code::Crashed);
    let lost = run(&rig.host, &none, "a", json!({})).await.unwrap_err();
    assert_eq!((lost.code, &lost.detail["calls"]), (Code::SessionLost, &json!(1)), "{lost:?}");
    assert_eq!(add(&rig.host, &none, "a").await, 1);
    rig.close().await;
}

#[tokio::test]
async fn an_operation_that_keeps_its_state_and_is_killed_in_the_middle_ends_as_if_it_were_not() {
    let rig = Rig::new().await;
    let summer = recipe(&rig, "summer", SUMMER, "mode = \"exclusive\"", "idempotent = true");
    let unbroken = run(&rig.host, &summer, "whole", json!({ "steps": 20 })).await.unwrap();
    let mark = rig.open().join("died");
    let (output, told) = told(&rig.host, in_session(&summer, "broken", json!({ "steps": 20, "mark": mark }))).await;
    assert_eq!(output.unwrap(), unbroken, "and it began once");
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), "10 True", "it died, and had been told that its state is kept");
    assert_eq!(told, [json!({ "session": "resumed", "checkpoint": 10, "calls_since": 0 })]);
    rig.close().await;
}

#[tokio::test]
async fn a_damaged_checkpoint_falls_back_to_the_one_before_and_an_incompatible_version_is_refused() {
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    for _ in 0..3 {
        add(&rig.host, &counter, "a").await;
        rig.host.checkpoint_session(&word(&counter), "a").await.unwrap();
    }
    let manifest = std::fs::read_to_string(counter.join("recipe.toml")).unwrap();
    let version = |to: &str| std::fs::write(counter.join("recipe.toml"), manifest.replace("version = \"0.1.0\"", to)).unwrap();
    // A compatible version continues, in a pod of its own.
    version("version = \"0.1.4\"");
    assert_eq!(add(&rig.host, &counter, "a").await, 4);
    assert_eq!(only(&rig.host).await.version, "0.1.4");
    rig.host.shutdown().await;
    let [folder] = &session_folders(&rig)[..] else { panic!("one session") };
    let newest = only(&rig.host).await.checkpoint.unwrap();
    assert_eq!((newest.number, newest.calls), (4, 4));
    std::fs::write(folder.join("4.checkpoint"), "{\"count\":9}").unwrap();
    let host = host_at(rig.folder.path()).await;
    let (output, heard) = told(&host, in_session(&counter, "a", json!({}))).await;
    assert_eq!(output.unwrap()["count"], 4);
    assert_eq!(heard, [json!({ "session": "resumed", "checkpoint": 3, "calls_since": 1, "damaged": [4] })]);
    version("version = \"0.2.0\"");
    let lost = run(&host, &counter, "a", json!({})).await.unwrap_err();
    assert_eq!((lost.code, &lost.detail["checkpoint_version"]), (Code::SessionLost, &json!("0.1.4")), "{lost:?}");
    assert!(lost.detail["calls"] == 5 && lost.detail["checkpoint"]["number"] == 5, "{lost:?}");
    version("version = \"0.1.5\"");
    assert_eq!(add(&host, &counter, "a").await, 5, "what an incompatible version could not use it left as it was");
    host.shutdown().await;
    rig.close().await;
}

/// Runs this test again as a separate process with other variables: a host of its own that a test can kill.
fn other_host(rig: &Rig, recipe: &Path, test: &str) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("HOB_TEST_SESSIONS", rig.folder.path()).env("HOB_TEST_RECIPE", recipe);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn a_host_that_is_killed_leaves_its_sessions_to_the_next_and_one_that_lives_does_not() {
    if let Some(folder) = std::env::var_os("HOB_TEST_SESSIONS") {
        return be_killed(Path::new(&folder), Path::new(&std::env::var_os("HOB_TEST_RECIPE").unwrap())).await;
    }
    let rig = Rig::new().await;
    let counter = recipe(&rig, "counter", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    let name = "sessions::crashes::a_host_that_is_killed_leaves_its_sessions_to_the_next_and_one_that_lives_does_not";
    let mut child = other_host(&rig, &counter, name);
    let mark = rig.folder.path().join("called");
    within(60, "the other host has called it", || mark.exists()).await;
    let pod: Value = serde_json::from_str(&std::fs::read_to_string(&mark).unwrap()).unwrap();
    let busy = run(&rig.host, &counter, "a", json!({})).await.unwrap_err();
    assert!(busy.code == Code::SessionBusy && busy.message.contains("another host"), "{busy:?}");
    assert_eq!(rig.host.close_session(&word(&counter), "a").await.unwrap_err().code, Code::SessionBusy);
    assert_eq!(only(&rig.host).await.state, SessionState::Live);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    within(60, "its pod went with it", || !is_running(pod["pid"].as_u64().unwrap() as u32)).await;
    // The next host finds the leftovers of the killed one, and the session as it was kept.
    let next = host_at(rig.folder.path()).await;
    let (output, told) = told(&next, in_session(&counter, "a", json!({}))).await;
    assert_eq!(output.unwrap()["count"], 3, "two were kept");
    assert_eq!(told, [json!({ "session": "resumed", "checkpoint": 1, "calls_since": 1 })]);
    next.shutdown().await;
    rig.close().await;
}

/// Calls three times, keeps the state after two, and waits to be killed.
async fn be_killed(folder: &Path, recipe: &Path) {
    let host = host_at(folder).await;
    add(&host, recipe, "a").await;
    add(&host, recipe, "a").await;
    host.checkpoint_session(&word(recipe), "a").await.unwrap();
    let last = run(&host, recipe, "a", json!({})).await.unwrap();
    std::fs::write(folder.join("half"), last.to_string()).unwrap();
    std::fs::rename(folder.join("half"), folder.join("called")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_host_that_ends_in_the_middle_of_a_call_has_its_session_kept_first() {
    let rig = Rig::new().await;
    let source = COUNTER.replace(
        "        elif do == \"die\":",
        "        elif do == \"long\":\n            while True:\n                self.count += 1\n                time.sleep(0.01)\n                hob_pod.checkpoint()\n        elif do == \"die\":",
    );
    let counter = recipe(&rig, "counter", &source, "mode = \"exclusive\", checkpoint_interval_ms = 0", "");
    let long = rig.host.start(in_session(&counter, "a", json!({ "do": "long" })));
    within(60, "the call has the pod", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    rig.host.shutdown_within(std::time::Duration::ZERO).await;
    long.outcome().await.unwrap_err();
    let kept = only(&rig.host).await;
    assert!(kept.checkpoint.is_some() && kept.state == SessionState::Parked, "{kept:?}");
    let host = host_at(rig.folder.path()).await;
    assert!(add(&host, &counter, "a").await > 1);
    host.shutdown().await;
    rig.close().await;
}

#[tokio::test]
async fn a_call_that_changed_nothing_does_not_lose_a_session_that_can_be_kept() {
    let rig = Rig::new().await;
    // The default interval, which does not pass during this test.
    for mode in ["exclusive", "shared"] {
        let source = COUNTER.replace("        if do == \"add\":", "        if do == \"once\" and not os.path.exists(input[\"mark\"]):\n            open(input[\"mark\"], \"w\").close()\n            os._exit(3)\n        if do in (\"add\", \"once\"):");
        let counter = recipe(&rig, &format!("counter-{mode}"), &source, &format!("mode = \"{mode}\""), "idempotent = true");
        // First a look, then work in which the pod ends: the work runs again, in a pod that begins with the
        // state after the look.
        let looked = run(&rig.host, &counter, "a", json!({ "do": "who" })).await.unwrap();
        let mark = rig.open().join(format!("died-{mode}"));
        let (output, told) = told(&rig.host, in_session(&counter, "a", json!({ "do": "once", "mark": mark }))).await;
        let output = output.unwrap();
        assert!(mark.exists() && output["pid"] != looked["pid"], "the fault fired: {output}");
        assert_eq!((&output["count"], &output["restored"]), (&json!(1), &json!(true)));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&told[0]["session"], &told[0]["checkpoint"]), (&json!("resumed"), &json!(1)));
    }
    // If the state cannot be kept, the session is lost, and the hint says why.
    let lost = async |name: &str, source: &str, session: &str, before: serde_json::Value| {
        let recipe = recipe(&rig, name, source, session, "");
        run(&rig.host, &recipe, "a", before).await.unwrap();
        assert_eq!(run(&rig.host, &recipe, "a", json!({ "do": "die" })).await.unwrap_err().code, Code::Crashed);
        let lost = run(&rig.host, &recipe, "a", json!({})).await.unwrap_err();
        assert_eq!((lost.code, &lost.detail["calls"]), (Code::SessionLost, &json!(1)), "{lost:?}");
        lost.hint.unwrap()
    };
    let no_method = lost("none", &super::forgetful(), "mode = \"exclusive\"", json!({})).await;
    assert!(no_method.contains("a class with `checkpoint` and `restore`"), "{no_method}");
    let raises = lost("raises", COUNTER, "mode = \"exclusive\"", json!({ "do": "break", "how": "raise" })).await;
    assert!(raises.contains("the state is in a mess"), "{raises}");
    let unasked = lost("unasked", COUNTER, "mode = \"exclusive\", checkpoint_interval_ms = 0", json!({})).await;
    assert!(unasked.contains("`checkpoint_interval_ms` in `[pod.session]` of recipe.toml (0: only when asked)"), "{unasked}");
    rig.close().await;
}
