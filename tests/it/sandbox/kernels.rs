//! Older kernels, simulated by taking features away: the class of a pod there, and that it withstands the
//! same acts.

use std::fs;

use hob::model::{
    Code, Permissions,
    status::{Class, ZygoteState},
};
use serde_json::json;

use super::{
    acts::{denied, hostile, one_shot, parent},
    ordinary,
    victim::Victim,
};
use crate::support::{Rig, call, is_running, within};

/// Versions of Landlock in Linux 5.15, 6.2 and 6.10.
const BEFORE_SCOPES: [&str; 3] = ["landlock=1", "landlock=3", "landlock=5"];

#[tokio::test]
async fn where_landlock_does_not_hold_signals_pods_are_full_by_process_namespaces() {
    let victim = Victim::new();
    let table = victim.table();
    for kernel in BEFORE_SCOPES {
        let rig = ordinary::rig_without(&[kernel]).await;
        let recipe = hostile(&rig, "hostile", "max = 2");
        let sandbox = denied(&rig, &recipe, &victim, &table, kernel).await;
        assert_eq!((sandbox.class, sandbox.missing.len()), (Class::Full, 0), "{kernel}");
        rig.close_within(std::time::Duration::ZERO).await;
    }
}

#[test]
fn nor_do_they_need_more_for_an_ordinary_user() {
    let _nobody_takes_all = ordinary::ON_THEIR_WAY.blocking_read();
    ordinary::once_more("sandbox::kernels::where_landlock_does_not_hold_signals_pods_are_full_by_process_namespaces");
}

const ENDER: &str = r#"
import os, signal, time
heard = []
class Subject:
    def run(self, input):
        if input == "hear":
            signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
        if input in ("hear", "heard"):
            return len(heard)
        if input == "flee":
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.closerange(0, 64)
                    while True:
                        time.sleep(1)
                os._exit(0)
            os.wait()
        if input == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if input == "group":
            # Whoever pays heed to it ends. Of a group no namespace keeps anybody.
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            os.kill(0, signal.SIGUSR2)
            time.sleep(1)
            return "the keeper lives"
        if input == "abort":
            os.abort()
        if input == "exit":
            os._exit(3)
        return [os.getpid(), os.getppid(), os.path.exists(f"/proc/{os.getpid()}/stat")]
"#;

#[tokio::test]
async fn a_pod_with_numbers_of_its_own_ends_as_any_and_leaves_nothing() {
    for without in [&[][..], &["landlock=5"]] {
        ends_as_any(&ordinary::rig_without(without).await).await;
    }
}

async fn ends_as_any(rig: &Rig) {
    let recipe = rig.python("ender", ENDER, false);
    let said = rig.run(&recipe, json!("flee")).await.unwrap().output.into_value();
    let pid = rig.host.pods()[0].pid.unwrap();
    let keeper = parent(parent(pid));
    assert_eq!(said, json!([keeper, 1, true]), "its numbers are those of its own namespace, and no other pod's are the same");
    let numbers = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let numbers = numbers.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(
        numbers.split_whitespace().collect::<Vec<_>>(),
        [pid, keeper].map(|pid| pid.to_string()),
        "the host has its own number of it"
    );
    let said = rig.run(&recipe, json!("group")).await.unwrap().output.into_value();
    assert_eq!(said, json!("the keeper lives"), "a signal to its own group reaches nobody outside");
    assert_eq!(rig.run(&recipe, json!("hear")).await.unwrap().output.into_value(), json!(0));
    let keeper = parent(parent(rig.host.pods()[0].pid.unwrap()));
    rustix::process::kill_process_group(rustix::process::Pid::from_raw(keeper as i32).unwrap(), rustix::process::Signal::TERM).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while rig.run(&recipe, json!("heard")).await.unwrap().output.into_value() == json!(0) {
        assert!(std::time::Instant::now() < end, "the keeper's group is told to end, and the pod does not hear of it");
    }
    for (how, detail, number) in [("signal", "signal", 11), ("abort", "signal", 6), ("exit", "exit_code", 3)] {
        let fault = rig.run(&recipe, json!(how)).await.unwrap_err();
        assert_eq!((fault.code, &fault.detail[detail]), (Code::Crashed, &json!(number)), "{how}: {fault:?}");
        assert!(fault.detail["memory_peak_bytes"].as_u64().unwrap() > 1 << 20, "{fault:?}");
    }
    within(60, "the one that fled is ended with its pod", || !is_running(pid)).await;
    rig.close_within(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn without_proc_in_a_namespace_the_newer_landlock_is_enough_and_an_older_one_is_not() {
    let rig = ordinary::rig_without(&["proc"]).await;
    let recipe = rig.python("ender", ENDER, false);
    rig.run(&recipe, json!("")).await.unwrap();
    assert_eq!(rig.host.pods()[0].sandbox.as_ref().unwrap().class, Class::Full);
    rig.close().await;
    for lacking in ["proc", "processes"] {
        let rig = ordinary::rig_without(&[lacking, "landlock=5"]).await;
        let recipe = rig.python("ender", ENDER, false);
        let fault = rig.run(&recipe, json!("")).await.unwrap_err();
        assert_eq!((fault.code, &fault.detail["layer"]), (Code::SandboxUnavailable, &json!("processes")), "{fault:?}");
        let name = recipe.to_str().unwrap().parse().unwrap();
        rig.host.grant(&name, Permissions::default(), true).await.unwrap();
        rig.run(&recipe, json!("")).await.unwrap();
        let pods = rig.host.pods();
        let sandbox = pods[0].sandbox.as_ref().unwrap();
        assert!(sandbox.class == Class::Reduced && sandbox.missing[0].starts_with("processes ("), "{sandbox:?}");
        rig.close().await;
    }
}

#[tokio::test]
async fn without_user_namespaces_root_is_full_and_others_are_refused() {
    let rig = ordinary::rig_without(&["users", "landlock=5"]).await;
    let recipe = rig.python("ender", ENDER, false);
    match ordinary::is_root() {
        true => {
            rig.run(&recipe, json!("")).await.unwrap();
            assert_eq!(rig.host.pods()[0].sandbox.as_ref().unwrap().class, Class::Full);
        }
        false => {
            let fault = rig.run(&recipe, json!("")).await.unwrap_err();
            assert_eq!((fault.code, &fault.detail["layer"]), (Code::SandboxUnavailable, &json!("namespaces")), "{fault:?}");
        }
    }
    rig.close().await;
}

#[test]
fn of_an_ordinary_user_they_are_refused() {
    ordinary::once_more("sandbox::kernels::without_user_namespaces_root_is_full_and_others_are_refused");
}

#[tokio::test]
async fn where_landlock_does_not_hold_signals_no_pod_is_forked_and_it_is_said_why() {
    let rig = ordinary::rig_without(&["landlock=5"]).await;
    let recipe = hostile(&rig, "hostile", "preload = [\"six\"]");
    rig.host.call(one_shot(&recipe, json!({}))).await.unwrap();
    rig.host.call(call(&recipe, json!({}))).await.unwrap();
    let zygote = || rig.host.status().zygotes.into_iter().next().filter(|zygote| zygote.state == ZygoteState::Unforkable);
    within(60, "it is known that pods are started", || zygote().is_some()).await;
    assert!(zygote().unwrap().why.unwrap().contains("share a process namespace"));
    rig.close().await;
}
