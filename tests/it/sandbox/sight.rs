//! The processes that a pod sees: itself and its own children, as on any machine, and no others.
//!
//! The fixture looks at every number that a process could have, in every possible way; its own child shows
//! that these ways work.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use hob::model::{
    Permissions,
    status::{Class, PodStatus, ZygoteState},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    acts::{one_shot, parent},
    ordinary,
};
use crate::support::{Rig, call, inner_number, is_running, within};

/// Process numbers from 1 to this are all looked at: they include the family of a zygote and all of a young
/// namespace.
const LOOKED_AT: u32 = 400;

/// Entries of `/proc` that are not processes.
const OF_THE_MACHINE: [&str; 13] =
    ["cpuinfo", "meminfo", "stat", "vmstat", "loadavg", "uptime", "version", "filesystems", "sys", "self", "thread-self", "mounts", "net"];

#[derive(Deserialize)]
struct Said {
    listed: Option<Vec<u32>>,
    pid: u32,
    child: (Vec<String>, BTreeMap<String, String>),
    /// The parent of each listed process.
    parents: BTreeMap<String, u32>,
    resident: u64,
    threads: u64,
    top: BTreeMap<String, Vec<String>>,
    others: BTreeMap<String, Vec<String>>,
    tried: Vec<u32>,
}

fn watcher(rig: &Rig, more: &str) -> PathBuf {
    let recipe =
        rig.pool("watcher", include_str!("../../sandbox/watcher.py"), &format!("lock = \"pod/requirements.lock\"\nmax = 3\n{more}"), "");
    fs::write(recipe.join("pod/requirements.lock"), include_str!("../zygotes/requirements.lock")).unwrap();
    recipe
}

/// The report of a pod while a neighbouring pod of its recipe rests; also that pod's row.
async fn look(rig: &Rig, recipe: &Path, forked: bool) -> (Said, PodStatus) {
    let resting = rig.host.start(one_shot(recipe, json!({"rest": 600})));
    let at_rest = || rig.host.pods().into_iter().find(|pod| pod.state == "busy" && pod.pid.is_some());
    within(60, "a pod beside is at work", || at_rest().is_some()).await;
    let beside = at_rest().unwrap();
    assert_eq!(beside.forked, forked);
    let pid = beside.pid.unwrap();
    let above: Vec<u32> = std::iter::successors(Some(pid), |pid| Some(parent(*pid))).take_while(|pid| *pid > 1).collect();
    assert!(above.len() >= 3 && above.contains(&std::process::id()), "{above:?}");
    // Each process by both of its numbers. From outside it is visible, because this test is the same user.
    // Forked pods share a namespace: they are separated although each has a number there.
    let number = if forked { inner_number(pid).unwrap() } else { pid };
    let numbers: Vec<u32> = above.iter().flat_map(|pid| [*pid, inner_number(*pid).unwrap()]).collect();
    assert!(!fs::read(format!("/proc/{pid}/maps")).unwrap().is_empty());
    let said = rig.host.call(one_shot(recipe, json!({"look": LOOKED_AT, "numbers": numbers}))).await.unwrap().output.into_value();
    assert!(is_running(pid), "it was there all the time");
    drop(resting);
    let said: Said = serde_json::from_value(said).unwrap();
    // In a separate namespace, the number of another process may be the pod's own.
    let tried = |pid: u32| said.tried.contains(&pid) || said.pid == pid;
    assert!(tried(std::process::id()) && tried(number), "{:?} of {numbers:?}", said.tried);
    (said, beside)
}

/// Asserts that the pod sees its own children and nobody else. `held`: Landlock confines signals, so that not
/// even the first process of its namespace gets one.
fn sees_its_own(said: &Said, held: bool, how: &str) {
    let reached = if held { BTreeMap::new() } else { BTreeMap::from([("1".to_owned(), vec!["signal".to_owned()])]) };
    assert_eq!(said.others, reached, "{how}: it reached others than itself");
    assert_eq!(said.child.1, BTreeMap::new(), "{how}: what every process sees of its child");
    assert!(said.child.0.len() > 15, "{how}: {:?}", said.child.0);
    assert!(said.resident > 1000 && said.threads >= 2, "{how}: {} KiB, {} threads", said.resident, said.threads);
    let listed = said.listed.as_ref().unwrap();
    assert_eq!(listed.len(), 3, "{how}: itself, a child and a grandchild: {:?}", said.parents);
    let parents: Vec<u32> = listed.iter().filter(|pid| **pid != said.pid).map(|pid| said.parents[&pid.to_string()]).collect();
    assert!(parents.contains(&said.pid) && parents.iter().all(|parent| listed.contains(parent)), "{how}: {:?}", said.parents);
    for name in &said.top["read"] {
        assert!(OF_THE_MACHINE.contains(&name.as_str()), "{how}: it reads {name}");
    }
    for name in ["cpuinfo", "meminfo", "stat", "uptime", "self"] {
        assert!(said.top["read"].iter().any(|read| read == name), "{how}: it does not read {name}");
    }
    let none: &[String] = &[];
    assert_eq!((&*said.top["write"], &*said.top["mode"]), (none, none), "{how}");
}

async fn forkable(rig: &Rig, recipe: &Path) {
    rig.host.call(one_shot(recipe, json!({"rest": 0}))).await.unwrap();
    let ready = || rig.host.status().zygotes.first().is_some_and(|zygote| zygote.state == ZygoteState::Ready);
    within(60, "pods can be forked", ready).await;
}

#[tokio::test]
async fn a_started_pod_sees_what_it_started_and_nobody_else() {
    for without in [&[][..], &["landlock=5"]] {
        let rig = ordinary::rig_without(without).await;
        let recipe = watcher(&rig, "");
        let (said, beside) = look(&rig, &recipe, false).await;
        assert_eq!(beside.sandbox.unwrap().class, Class::Full);
        assert_ne!(Some(said.pid), beside.pid);
        sees_its_own(&said, without.is_empty(), &format!("started, without {without:?}"));
        rig.close_within(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn a_forked_pod_sees_what_it_started_and_nobody_else() {
    let rig = ordinary::rig().await;
    let recipe = watcher(&rig, "preload = [\"six\"]");
    forkable(&rig, &recipe).await;
    let (said, _) = look(&rig, &recipe, true).await;
    sees_its_own(&said, true, "forked");
    rig.close_within(Duration::ZERO).await;
}

#[test]
fn a_started_pod_of_an_ordinary_user_sees_what_it_started_and_nobody_else() {
    ordinary::once_more("sandbox::sight::a_started_pod_sees_what_it_started_and_nobody_else");
}

#[test]
fn a_forked_pod_of_an_ordinary_user_sees_what_it_started_and_nobody_else() {
    ordinary::once_more("sandbox::sight::a_forked_pod_sees_what_it_started_and_nobody_else");
}

/// On a machine where /proc cannot be mounted, as in many containers.
#[tokio::test]
async fn where_it_can_have_no_proc_of_its_own_a_pod_sees_itself_alone() {
    for forked in [false, true] {
        let rig = ordinary::rig_without(&["proc"]).await;
        let recipe = watcher(&rig, if forked { "preload = [\"six\"]" } else { "" });
        if forked {
            forkable(&rig, &recipe).await;
        }
        let (said, beside) = look(&rig, &recipe, forked).await;
        assert_eq!(beside.sandbox.unwrap().class, Class::Full);
        assert_eq!((said.listed, said.child.0.contains(&"environ".to_owned())), (None, false));
        assert!(said.resident > 1000);
        // `stat` shows that a process exists, and nothing of it.
        for (number, ways) in &said.others {
            assert_eq!(*ways, ["stat"], "{number}");
        }
        assert!(said.top["read"].iter().all(|name| OF_THE_MACHINE.contains(&name.as_str())), "{:?}", said.top);
        rig.close_within(Duration::ZERO).await;
    }
}

/// For a recipe of the operator's own: a program that watches the machine.
#[tokio::test]
async fn a_pod_that_was_granted_the_machines_proc_has_that_one() {
    let rig = ordinary::rig().await;
    let recipe = watcher(&rig, "");
    let manifest = fs::read_to_string(recipe.join("recipe.toml")).unwrap();
    fs::write(recipe.join("recipe.toml"), manifest.replace("[permissions]\n", "[permissions]\nread = [\"/proc\"]\n")).unwrap();
    let mut permissions = Permissions::default();
    permissions.add("read", "/proc").unwrap();
    rig.host.grant(&recipe.to_str().unwrap().parse().unwrap(), permissions, false).await.unwrap();
    let said: Value = rig.host.call(call(&recipe, json!({"look": 1, "numbers": []}))).await.unwrap().output.into_value();
    assert!(said["listed"].as_array().unwrap().contains(&json!(std::process::id())), "{said}");
    assert_eq!(said["pid"], json!(rig.host.pods()[0].pid), "its numbers are those that it sees");
    rig.close().await;
}
