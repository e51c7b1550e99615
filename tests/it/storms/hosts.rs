//! Hosts killed at random moments, beside one that lives.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;

use super::{Dice, bounded, soak_rounds};
use crate::support::{Rig, call, host_at, processes_below, recipe_at, scratch_files, within};

/// A pod whose grandchild leaves its session and its process group, and ignores every signal that can be
/// ignored.
const SOURCE: &str = r#"
import os, signal, time

class Subject:
    def __init__(self):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                while True:
                    time.sleep(3600)
            os._exit(0)
        os.wait()

    def run(self, input):
        time.sleep(input / 1000)
        return os.getpid()
"#;

/// Runs as a child process of the test below: a host with busy pods, until it is killed.
#[tokio::test]
async fn helper_host_with_busy_pods() {
    let Ok(folder) = std::env::var("HOB_TEST_BUSY_HOST") else { return };
    let folder = Path::new(&folder);
    let host = host_at(folder).await;
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..6_u64 {
        let (host, recipe) = (host.clone(), folder.join("recipes").join(["one", "other"][n as usize % 2]));
        callers.spawn(async move {
            for round in 0.. {
                let _ = host.call(call(&recipe, json!((n * 7 + round * 3) % 20))).await;
            }
        });
    }
    callers.join_all().await;
}

fn busy_host(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storms::hosts::helper_host_with_busy_pods", "--nocapture"])
        .env("HOB_TEST_BUSY_HOST", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_killed_host_leaves_no_process_and_the_next_one_no_file() {
    let mut dice = Dice::new();
    let rig = Rig::new().await;
    let folder = rig.folder.path();
    for name in ["one", "other"] {
        recipe_at(folder, name, SOURCE, "max = 2", "");
    }
    // A second host of the same home, which must not be affected.
    let bystander = rig.python("bystander", "import os\nclass Subject:\n    def run(self, input):\n        return os.getpid()\n", false);
    let pid = rig.run(&bystander, json!(0)).await.unwrap().output.into_value();
    let theirs = processes_below(folder);
    assert!(theirs.contains(&(pid.as_u64().unwrap() as u32)) && theirs.len() == 3, "a keeper, the first process and a pod: {theirs:?}");
    let files = files_below(&folder.join("home"));

    let (rounds, mut with_pods) = (soak_rounds(15), 0);
    for round in 0..rounds {
        let mut host = busy_host(folder);
        // At any moment of its life; in two rounds of three, at any moment from its first pod on.
        if round % 3 > 0 {
            within(60, "the host has a pod", || pods_of(folder, &theirs) > 0).await;
        }
        tokio::time::sleep(Duration::from_millis(dice.below(300))).await;
        with_pods += usize::from(pods_of(folder, &theirs) > 0);
        host.kill().unwrap();
        host.wait().unwrap();
        within(60, &format!("round {round}: no process is left"), || processes_below(folder).iter().all(|pid| theirs.contains(pid))).await;

        let next = host_at(folder).await;
        assert_eq!(scratch_files(folder).len(), scratch_of(&files).len(), "round {round}: {:?}", scratch_files(folder));
        next.shutdown().await;
        let again = bounded(10, "the other host", rig.run(&bystander, json!(round))).await.unwrap();
        assert_eq!(again.output.value(), &pid, "round {round}: another host's pod was touched");
    }
    println!("{rounds} hosts killed, {with_pods} of them with pods");
    assert!(with_pods >= rounds / 2, "the hosts were killed too early: {with_pods} of {rounds} had pods");
    // Each host keeps the views of recipe folders while it has the recipe. The leftovers of a killed host are
    // deleted when the next view is made.
    let without_views =
        |files: Vec<_>| -> Vec<_> { files.into_iter().filter(|file: &String| !file.contains("/data/staging/folder-")).collect() };
    assert_eq!(without_views(files_below(&folder.join("home"))), without_views(files), "files are left");
    rig.close().await;
}

/// The number of keepers of hosts below `folder`, without the processes `theirs`.
fn pods_of(folder: &Path, theirs: &[u32]) -> usize {
    let is_keeper =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.windows(6).any(|word| word == b"keeper"));
    processes_below(folder).iter().filter(|pid| !theirs.contains(pid) && is_keeper(pid)).count()
}

/// Every file and folder below `folder`, in order.
fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The files of the live host's pods, as [`scratch_files`] counts them.
fn scratch_of(files: &[String]) -> Vec<&String> {
    files.iter().filter(|path| Path::new(path).parent().is_some_and(|folder| folder.ends_with("state/scratch"))).collect()
}
