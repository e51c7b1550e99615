//! Leftovers: if the keeper of a pod is killed too, the next host finds the pod's processes by their marks,
//! and touches no other process.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::support::{Rig, call, host_without, inner_number, is_running, open_at, processes_below, recipe_at, scratch_files, within};

/// A pod whose grandchild leaves session, process group and parents, and ignores every signal that can be
/// ignored. The pod is busy once it has written the process numbers.
const SOURCE: &str = r#"
import os, signal, time

class Subject:
    def run(self, marker):
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                os.write(write, str(os.getpid()).encode())
                time.sleep(600)
            os._exit(0)
        os.wait()
        grandchild = os.read(read, 32).decode()
        with open(marker + ".half", "w") as file:
            file.write(f"{os.getppid()} {os.getpid()} {grandchild}")
        os.rename(marker + ".half", marker)
        time.sleep(600)
"#;

const ANSWERS: &str = "import os\nclass Subject:\n    def run(self, input):\n        return os.getpid()\n";

/// The layer to take away: with process namespaces the kernel ends all processes of a pod whose keeper is
/// killed, and nothing is left.
const LEFT: [&str; 1] = ["processes"];

/// Runs as a child process of the tests below: a host with one busy pod, until it is killed.
#[tokio::test]
async fn helper_host_with_a_runaway() {
    let Ok(folder) = std::env::var("HOB_TEST_RUNAWAY_HOST") else { return };
    let folder = Path::new(&folder);
    let layers = std::env::var("HOB_TEST_RUNAWAY_WITHOUT").unwrap();
    let host = host_without(folder, &layers.split_terminator(',').collect::<Vec<_>>()).await;
    let _ = host.call(call(&folder.join("recipes/runaway"), json!(open_at(folder).join("marker")))).await;
}

/// A host in a process of its own, with keeper, pod and grandchild.
struct Runaway {
    host: Child,
    keeper: u32,
    pod: u32,
    grandchild: u32,
}

impl Runaway {
    async fn start(folder: &Path) -> Runaway {
        recipe_at(folder, "runaway", SOURCE, "", "");
        let _ = std::fs::remove_file(open_at(folder).join("marker"));
        let host = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "leftovers::helper_host_with_a_runaway", "--nocapture"])
            .env("HOB_TEST_RUNAWAY_HOST", folder)
            .env("HOB_TEST_RUNAWAY_WITHOUT", LEFT.join(","))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let [keeper, pod, grandchild] = marked(folder).await;
        Runaway { host, keeper, pod, grandchild }
    }

    /// Kills the host, which was stopped before it could notice the end of its pod.
    fn kill_host(&mut self) {
        self.host.kill().unwrap();
        assert_eq!(self.host.wait().unwrap().signal(), Some(9));
    }
}

/// Waits until keeper, pod and grandchild run; returns their process numbers.
async fn marked(folder: &Path) -> [u32; 3] {
    within(60, "the pod and its grandchild run", || open_at(folder).join("marker").exists()).await;
    let text = std::fs::read_to_string(open_at(folder).join("marker")).unwrap();
    let pids: Vec<u32> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(pids.iter().all(|pid| is_running(*pid)), "{pids:?}");
    pids.try_into().unwrap()
}

/// The control groups of pods of the hosts with these folders.
fn groups_of(hosts: &[&String]) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if hosts.iter().any(|host| name.starts_with(&format!("hob-{host}-"))) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn the_next_host_ends_what_a_killed_one_left_and_touches_no_living_one() {
    let rig = Rig::without(&LEFT).await;
    let folder = rig.folder.path();
    // Two living hosts of the same home, each with a pod.
    let second = host_without(folder, &LEFT).await;
    let recipe = rig.python("answers", ANSWERS, false);
    let first_pod = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    let second_pod = second.call(call(&recipe, json!(0))).await.unwrap().output.into_value();
    assert_ne!(first_pod, second_pod);
    let (theirs, their_files) = (processes_below(folder), scratch_files(folder));
    assert_eq!((theirs.len(), their_files.len()), (4, 4), "two keepers and two pods; two folders and two locks");

    // The keeper is killed, not stopped: the kernel continues a stopped keeper when its host dies and leaves
    // its group orphaned.
    let mut runaway = Runaway::start(folder).await;
    signal(runaway.host.id(), Signal::STOP);
    signal(runaway.keeper, Signal::KILL);
    within(60, "the kernel ends the pod of a killed keeper", || !is_running(runaway.pod)).await;
    runaway.kill_host();
    // Enough time for any process that could still end them.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(is_running(runaway.grandchild), "nothing was left, so nothing is shown");
    let all_files = scratch_files(folder);
    assert_eq!(all_files.len(), their_files.len() + 2);
    // If this machine allows groups, the killed host leaves its pod's group too. The groups of living hosts
    // stay.
    let killed: Vec<&String> = all_files.iter().filter(|name| !their_files.contains(name) && !name.ends_with(".lock")).collect();
    let (left, theirs_too) = (groups_of(&killed), groups_of(&their_files.iter().collect::<Vec<_>>()));
    assert_eq!(left.is_empty(), theirs_too.is_empty(), "{left:?} {theirs_too:?}");

    let next = host_without(folder, &LEFT).await;
    assert!(!is_running(runaway.grandchild), "left by the next host");
    let now = processes_below(folder);
    assert!(now.iter().all(|pid| theirs.contains(pid)) && now.len() == theirs.len(), "{theirs:?} {now:?}");
    assert_eq!(scratch_files(folder).len(), their_files.len());
    assert!(groups_of(&killed).is_empty(), "{:?}", groups_of(&killed));
    assert_eq!(groups_of(&their_files.iter().collect::<Vec<_>>()), theirs_too);
    next.shutdown().await;
    assert_eq!(rig.run(&recipe, json!(0)).await.unwrap().output.into_value(), first_pod);
    assert_eq!(second.call(call(&recipe, json!(0))).await.unwrap().output.into_value(), second_pod);
    second.shutdown().await;
    rig.close().await;
}

#[tokio::test]
async fn a_host_ends_what_outlived_a_killed_keeper() {
    let rig = Rig::without(&LEFT).await;
    let folder = rig.folder.path();
    let recipe = recipe_at(folder, "runaway", SOURCE, "", "");
    let running = rig.host.start(call(&recipe, json!(open_at(folder).join("marker"))));
    let [keeper, pod, grandchild] = marked(folder).await;
    signal(keeper, Signal::KILL);
    let fault = running.outcome().await.unwrap_err();
    assert_eq!(fault.code, hob::model::Code::Crashed, "{fault:?}");
    within(60, "what outlived the keeper is ended", || ![pod, grandchild].into_iter().any(is_running)).await;
    rig.close().await;
}

/// Like the runaway, but the grandchild is another program without the variable.
#[tokio::test]
async fn a_host_ends_what_got_rid_of_its_marks() {
    let rig = Rig::without(&LEFT).await;
    let folder = rig.folder.path();
    let unmarked = SOURCE
        .replace("time.sleep(600)\n            os._exit(0)", "os.execve('/bin/sleep', ['sleep', '600'], {})\n            os._exit(0)");
    assert!(unmarked.contains("execve"));
    let recipe = recipe_at(folder, "unmarked", &unmarked, "", "");
    let running = rig.host.start(call(&recipe, json!(open_at(folder).join("marker"))));
    let [keeper, pod, grandchild] = marked(folder).await;
    let began = || std::fs::read_to_string(format!("/proc/{grandchild}/comm")).is_ok_and(|name| name.trim() == "sleep");
    within(60, "another program runs", began).await;
    assert_eq!(std::fs::read(format!("/proc/{grandchild}/environ")).unwrap(), b"", "it has no mark");
    signal(keeper, Signal::KILL);
    let fault = running.outcome().await.unwrap_err();
    assert_eq!(fault.code, hob::model::Code::Crashed, "{fault:?}");
    within(60, "what outlived the keeper is ended", || ![pod, grandchild].into_iter().any(is_running)).await;
    rig.close().await;
}

/// The host is stopped, so only the kernel can end anything.
#[tokio::test]
async fn of_a_pod_in_a_process_namespace_a_killed_keeper_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    recipe_at(folder.path(), "runaway", SOURCE, "", "");
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::helper_host_with_a_runaway", "--nocapture"])
        .env("HOB_TEST_RUNAWAY_HOST", folder.path())
        .env("HOB_TEST_RUNAWAY_WITHOUT", "")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let marker = open_at(folder.path()).join("marker");
    within(60, "the pod and its grandchild run", || marker.exists()).await;
    let said: Vec<u32> = std::fs::read_to_string(marker).unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect();
    let all = crate::zygotes::below(host.id());
    let numbers: Vec<u32> = all.iter().filter_map(|pid| inner_number(*pid)).collect();
    assert!(said.iter().all(|pid| numbers.contains(pid)), "{said:?} in {numbers:?}");
    let keeper = crate::zygotes::children(host.id()).into_iter().find(|pid| crate::zygotes::below(*pid).len() >= 3).unwrap();
    signal(host.id(), Signal::STOP);
    signal(keeper, Signal::KILL);
    let below: Vec<u32> = all.into_iter().filter(|pid| crate::zygotes::children(host.id()).iter().all(|child| child != pid)).collect();
    assert!(below.len() >= 3, "a first process, a pod and a grandchild: {below:?}");
    within(60, "all of it is ended", || !below.iter().any(|pid| is_running(*pid))).await;
    host.kill().unwrap();
    host.wait().unwrap();
}
