//! Zygotes: once forking is known to work, the pods of an environment are forked instead of started, and lose
//! nothing by that.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hob::model::{Call, Code, status::ZygoteState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    storms::Dice,
    support::{Rig, call, host_at, is_running, open_at, processes_below, within},
};

const SOURCE: &str = r#"
import gc, os, random, sys
import six
class Subject:
    def load(self, models):
        self.loaded = os.getpid()
    def run(self, input):
        if input.get("exit") is not None:
            os._exit(input["exit"])
        if input.get("signal"):
            os.kill(os.getpid(), input["signal"])
        if input.get("flee"):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    os.closerange(0, 64)
                    while True: pass
                os._exit(0)
            os.wait()
        if input.get("sleep"):
            import time
            time.sleep(input["sleep"])
        return {"preloaded": "six" in sys.modules, "random": random.random(), "home": os.environ["HOME"], "forked": gc.get_freeze_count() > 0, "six": six.__version__}
"#;

/// A recipe that preloads `six`, the smallest wheel; `more` has further lines of its `[pod]`.
fn preloading(rig: &Rig, name: &str, source: &str, more: &str) -> PathBuf {
    let recipe = rig.pool(name, source, &format!("lock = \"pod/requirements.lock\"\npreload = [\"six\"]\n{more}"), "");
    std::fs::write(recipe.join("pod/requirements.lock"), include_str!("zygotes/requirements.lock")).unwrap();
    recipe
}

/// Makes calls until it is known whether pods can be forked.
async fn settled(rig: &Rig, recipe: &Path) -> (ZygoteState, Option<String>) {
    for _ in 0..5 {
        // Starting a pod begins a zygote if there is none.
        rig.host.call(one_shot(recipe, json!({}))).await.unwrap();
        let state = || rig.host.status().zygotes.into_iter().next().map(|zygote| (zygote.state, zygote.why));
        within(60, "it is known whether pods can be forked", || state().is_some_and(|(state, _)| state != ZygoteState::Booting)).await;
        let state = state().unwrap();
        if state.0 != ZygoteState::Gone {
            return state;
        }
    }
    panic!("zygotes end again and again");
}

fn one_shot(recipe: &Path, input: serde_json::Value) -> Call {
    call(recipe, input).one_shot()
}

#[tokio::test]
async fn pods_are_forked_once_one_of_them_has_answered() {
    let rig = Rig::new().await;
    let recipe = preloading(&rig, "forked", SOURCE, "");
    assert_eq!(settled(&rig, &recipe).await, (ZygoteState::Ready, None));
    let before = rig.host.status().zygotes[0].forked;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = rig.host.call(one_shot(&recipe, json!({}))).await.unwrap().output.into_value();
        assert_eq!((&answer["preloaded"], &answer["forked"], &answer["home"]), (&json!(true), &json!(true), &json!("/scratch")));
        seen.push(answer["random"].as_f64().unwrap());
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2], "forks draw the same numbers: {seen:?}");
    assert_eq!(rig.host.status().zygotes[0].forked, before + 3);
    rig.close().await;
}

#[tokio::test]
async fn the_end_of_a_forked_pod_is_told_as_it_was() {
    let rig = Rig::new().await;
    let recipe = preloading(&rig, "ends", SOURCE, "");
    assert_eq!(settled(&rig, &recipe).await.0, ZygoteState::Ready);
    for (input, key, value) in
        [(json!({"exit": 0}), "exit_code", 0), (json!({"exit": 7}), "exit_code", 7), (json!({"signal": 11}), "signal", 11)]
    {
        let fault = rig.host.call(one_shot(&recipe, input)).await.unwrap_err();
        assert_eq!((fault.code, &fault.detail[key]), (Code::Crashed, &json!(value)), "{fault:?}");
        assert!(fault.detail["memory_peak_bytes"].as_u64().unwrap() > 1 << 20, "{fault:?}");
    }
    // A process that left the pod's session and parents is ended with the pod.
    rig.host.call(one_shot(&recipe, json!({"flee": true}))).await.unwrap();
    let family = rig.host.status().zygotes[0].pid.unwrap();
    // A supervisor, an init and a zygote.
    within(60, "what fled is ended", || processes_below(rig.folder.path()).len() == 3).await;
    assert!(is_running(family));
    rig.close().await;
}

#[tokio::test]
async fn a_zygote_that_is_killed_costs_its_pods_nothing_and_the_next_one_is_started() {
    let rig = Rig::new().await;
    let recipe = preloading(&rig, "killed", SOURCE, "max = 2");
    assert_eq!(settled(&rig, &recipe).await.0, ZygoteState::Ready);
    let sleeping = rig.host.start(one_shot(&recipe, json!({"sleep": 1.0})));
    within(60, "a forked pod is at work", || rig.host.pods().iter().any(|pod| pod.forked && pod.state == "busy")).await;
    assert!(kill_zygote(&rig));
    sleeping.outcome().await.unwrap();
    let answer = rig.host.call(one_shot(&recipe, json!({}))).await.unwrap().output.into_value();
    assert_eq!((&answer["forked"], &answer["home"]), (&json!(false), &json!("/scratch")));
    assert_eq!(settled(&rig, &recipe).await.0, ZygoteState::Ready, "and there is a new one");
    rig.close().await;
}

pub fn children(pid: u32) -> Vec<u32> {
    // The children of each of its threads.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    texts.flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// All processes below that process.
pub fn below(pid: u32) -> Vec<u32> {
    children(pid).into_iter().flat_map(|child| [vec![child], below(child)].concat()).collect()
}

/// The zygote of the family behind that supervisor: its init's first child.
fn zygote_of(supervisor: u32) -> Option<u32> {
    let title = |pid: &u32| {
        String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).trim_end_matches('\0').to_owned()
    };
    children(supervisor).into_iter().flat_map(children).find(|pid| title(pid).ends_with("zygote"))
}

fn kill_zygote(rig: &Rig) -> bool {
    let supervisor = rig.host.status().zygotes.first().and_then(|zygote| zygote.pid);
    let zygote = supervisor.and_then(zygote_of);
    zygote.is_some_and(|pid| kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).is_ok())
}

#[tokio::test]
async fn wheels_that_start_threads_or_cannot_be_imported_are_not_forked() {
    let rig = Rig::new().await;
    let cases = [
        ("absent", "preload = [\"no_such_module\"]", include_str!("zygotes/requirements.lock"), "No module named 'no_such_module'"),
        // The default of the library.
        (
            "threaded",
            "preload = [\"numpy\"]\nenv = { OPENBLAS_NUM_THREADS = \"2\" }",
            include_str!("zygotes/numpy.lock"),
            "2 threads run after the imports",
        ),
    ];
    for (name, pod, lock, says) in cases {
        let source = "class Subject:\n    def run(self, input):\n        return 1\n";
        let recipe = rig.pool(name, source, &format!("lock = \"pod/requirements.lock\"\n{pod}"), "");
        std::fs::write(recipe.join("pod/requirements.lock"), lock).unwrap();
        rig.host.call(call(&recipe, json!({}))).await.unwrap();
        let of = || rig.host.status().zygotes.into_iter().find(|zygote| zygote.recipe == format!("test/{name}"));
        within(60, "it is known whether pods can be forked", || of().is_some_and(|zygote| zygote.state != ZygoteState::Booting)).await;
        let zygote = of().unwrap();
        assert_eq!(zygote.state, ZygoteState::Unforkable, "{name}");
        assert!(zygote.why.as_ref().unwrap().contains(says), "{name}: {zygote:?}");
        rig.host.call(one_shot(&recipe, json!({}))).await.unwrap();
        assert!(rig.host.pods().iter().all(|pod| !pod.forked));
    }
    rig.close().await;
}

#[tokio::test]
async fn a_recipe_whose_forked_pod_answers_its_case_otherwise_is_not_forked_and_that_is_said() {
    let rig = Rig::new().await;
    let plain = "    def run(self, input):\n        return {'text': 'x', 'near': 0.3}\n";
    let input = ("input.json", r#"{"operation": "run", "input": {}}"#);
    type Files<'a> = &'a [(&'a str, &'a str)];
    let recipes: [(&str, &str, &str, Files, Option<&str>); 5] = [
        ("right", plain, "", &[input, ("output.json", r#"{"text": "x", "near": 0.30000001}"#)], None),
        (
            "wrong",
            plain,
            "",
            &[input, ("output.json", r#"{"text": "Hi A", "near": 0.3}"#)],
            Some("case `one`: its answer: at `/text` found the text \"x\", wanted the text \"Hi A\""),
        ),
        (
            "raises",
            "    def run(self, input):\n        return input['name']\n",
            "",
            &[input, ("output.json", "1")],
            Some("case `one`: it ended as `recipe_failed` and wanted an answer: `run` raised KeyError"),
        ),
        (
            "whole",
            "    def run(self, input, blobs):\n        yield len(blobs['a'].data)\n        return blobs['a'].media_type\n",
            "streaming = true",
            &[
                ("input.json", r#"{"operation": "run", "input": {}, "blobs": {"a": "three.txt"}}"#),
                ("three.txt", "abc"),
                ("chunks.json", "[3]"),
                ("output.json", "\"text/plain\""),
            ],
            None,
        ),
        (
            "chunks",
            "    def run(self, input):\n        yield 1\n        yield 2\n        return 3\n",
            "streaming = true",
            &[input, ("chunks.json", "[1]"), ("output.json", "3")],
            Some("case `one`: its chunks: at `/` found a list of 2, wanted a list of 1"),
        ),
    ];
    for (name, method, run, files, says) in recipes {
        let source = format!("import six\nclass Subject:\n{method}");
        let recipe = rig.pool(name, &source, "lock = \"pod/requirements.lock\"\npreload = [\"six\"]", run);
        std::fs::write(recipe.join("pod/requirements.lock"), include_str!("zygotes/requirements.lock")).unwrap();
        std::fs::create_dir_all(recipe.join("cases/one")).unwrap();
        files.iter().for_each(|(file, text)| std::fs::write(recipe.join("cases/one").join(file), text).unwrap());
        let of = || rig.host.status().zygotes.into_iter().find(|zygote| zygote.recipe == format!("test/{name}"));
        // However the call ends, its pod was started.
        let _ = rig.host.call(call(&recipe, json!({}))).await;
        within(60, "it is known whether pods can be forked", || of().is_some_and(|zygote| zygote.state != ZygoteState::Booting)).await;
        let zygote = of().unwrap();
        match says {
            None => assert_eq!(zygote.state, ZygoteState::Ready, "{name}: {zygote:?}"),
            Some(says) => {
                assert_eq!(zygote.state, ZygoteState::Unforkable, "{name}: {zygote:?}");
                assert!(zygote.why.as_ref().unwrap().contains(says), "{name}: {zygote:?}");
            }
        }
    }
    rig.close().await;
}

#[tokio::test]
async fn whoever_of_a_family_is_killed_nothing_of_it_is_left() {
    let rig = Rig::new().await;
    let recipe = preloading(&rig, "family", SOURCE, "max = 2");
    for who in ["supervisor", "init"] {
        assert_eq!(settled(&rig, &recipe).await.0, ZygoteState::Ready);
        let running = rig.host.start(one_shot(&recipe, json!({"flee": true, "sleep": 600})));
        within(60, "a forked pod is at work", || rig.host.pods().iter().any(|pod| pod.forked && pod.state == "busy")).await;
        let supervisor = rig.host.status().zygotes[0].pid.unwrap();
        let init = children(supervisor)[0];
        let members = below(supervisor);
        // The process that fled is among them: supervisor, init, zygote, pod and that process.
        within(60, "all five are there", || below(supervisor).len() >= 4).await;
        kill_process(Pid::from_raw(if who == "supervisor" { supervisor } else { init } as i32).unwrap(), Signal::KILL).unwrap();
        let fault = running.outcome().await.unwrap_err();
        assert_eq!((fault.code, &fault.detail["signal"]), (Code::Crashed, &json!(9)), "{who}: {fault:?}");
        within(60, &format!("{who}: nothing of the family is left"), || !members.iter().chain([&supervisor]).any(|pid| is_running(*pid)))
            .await;
    }
    rig.close().await;
}

/// Runs as a child process of the test below: a host with a forked pod at work, until it is killed.
#[tokio::test]
async fn helper_host_with_a_family() {
    let Ok(folder) = std::env::var("HOB_TEST_FAMILY_HOST") else { return };
    let folder = Path::new(&folder);
    let host = host_at(folder).await;
    let recipe = folder.join("recipes/left");
    host.call(call(&recipe, json!({}))).await.unwrap();
    within(60, "a zygote is ready", || host.status().zygotes.first().is_some_and(|zygote| zygote.state == ZygoteState::Ready)).await;
    let supervisor = host.status().zygotes[0].pid.unwrap();
    std::fs::write(open_at(folder).join("supervisor"), supervisor.to_string()).unwrap();
    let _ = host.call(one_shot(&recipe, json!({"flee": true, "sleep": 600}))).await;
}

#[tokio::test]
async fn a_family_does_not_outlive_a_host_that_was_killed() {
    let rig = Rig::new().await;
    preloading(&rig, "left", SOURCE, "max = 2");
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "zygotes::helper_host_with_a_family", "--nocapture"])
        .env("HOB_TEST_FAMILY_HOST", rig.folder.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let supervisor = || std::fs::read_to_string(rig.open().join("supervisor")).ok().and_then(|text| text.parse::<u32>().ok());
    within(60, "there is a family with a pod and one that fled", || supervisor().is_some_and(|supervisor| below(supervisor).len() >= 4))
        .await;
    let members = below(supervisor().unwrap());
    host.kill().unwrap();
    host.wait().unwrap();
    within(60, "nothing of the family is left", || !members.iter().any(|pid| is_running(*pid))).await;
    within(60, "nothing else is either", || processes_below(rig.folder.path()).is_empty()).await;
    // The next host deletes its files.
    host_at(rig.folder.path()).await.shutdown().await;
    rig.close().await;
}

#[tokio::test]
async fn pods_and_zygotes_that_are_killed_at_random_leave_nothing_and_no_wrong_report() {
    let mut dice = Dice::new();
    let rig = Rig::new().await;
    let recipe = preloading(&rig, "storm", SOURCE, "max = 2");
    settled(&rig, &recipe).await;
    let rounds = 200;
    let (mut forked, mut zygotes, begun) = (0, 0, Instant::now());
    for round in 0..rounds {
        let code = dice.below(200) as i64;
        let (input, expected) = match dice.below(4) {
            0 => (json!({"exit": code}), Some(("exit_code", json!(code)))),
            1 => (json!({"signal": 9}), Some(("signal", json!(9)))),
            2 => (json!({"signal": 11}), Some(("signal", json!(11)))),
            _ => (json!({}), None),
        };
        let running = rig.host.start(one_shot(&recipe, input));
        if round % 40 == 20 {
            tokio::time::sleep(Duration::from_millis(dice.below(10))).await;
            zygotes += usize::from(kill_zygote(&rig));
        }
        forked += usize::from(rig.host.pods().iter().any(|pod| pod.forked));
        match (running.outcome().await, expected) {
            (Ok(_), None) => {}
            (Err(fault), Some((key, value))) => {
                assert_eq!((fault.code, &fault.detail[key]), (Code::Crashed, &value), "round {round}: {fault:?}")
            }
            (outcome, expected) => panic!("round {round}: {outcome:?}, wanted {expected:?}"),
        }
    }
    println!("{rounds} pods, {forked} of them seen as forked, {zygotes} zygotes killed, {:?}", begun.elapsed());
    assert!(forked > rounds / 4 && zygotes >= 3, "{forked} forked, {zygotes} zygotes");
    rig.close().await;
}

#[tokio::test]
async fn a_session_may_have_forked_pods_and_these_begin_with_its_checkpoint() {
    let rig = Rig::new().await;
    let source = format!(
        "{SOURCE}    def checkpoint(self):\n        return b\"x\" * (5 << 20) + str(os.getpid()).encode()\n\
         \x20   def restore(self, data):\n        self.before = data[5 << 20:].decode()\n"
    );
    let source = source.replace("\"preloaded\": ", "\"before\": getattr(self, \"before\", None), \"pid\": os.getpid(), \"preloaded\": ");
    let recipe = preloading(&rig, "forked-session", &source, "session = { mode = \"exclusive\" }");
    assert_eq!(settled(&rig, &recipe).await, (ZygoteState::Ready, None));
    let in_session = |input| call(&recipe, input).in_session("a");
    let run = async |input| rig.host.call(in_session(input)).await.map(|outcome| outcome.output.into_value());
    let first = run(json!({})).await.unwrap();
    assert_eq!((&first["before"], &first["preloaded"]), (&json!(null), &json!(true)));
    let word = recipe.display().to_string().parse().unwrap();
    assert_eq!(rig.host.checkpoint_session(&word, "a").await.unwrap().unwrap().number, 1);
    run(json!({ "exit": 3 })).await.unwrap_err();
    let second = run(json!({})).await.unwrap();
    assert!(second["before"] == json!(first["pid"].to_string()) && second["pid"] != first["pid"], "{first} {second}");
    assert!(rig.host.pods().iter().all(|pod| pod.forked), "{:?}", rig.host.pods());
    rig.close().await;
}
