//! Pods through the host: the real runner, the real keeper, and a kit of misdeeds.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use hob::model::{Call, Code, Event};
use serde_json::json;

use crate::support::{Rig, call, is_running, within};

#[tokio::test]
async fn a_recipe_folder_answers_and_is_marked_unsigned() {
    let rig = Rig::new().await;
    let recipe = rig.python("plain", "class Subject:\n    def run(self, input):\n        return {'length': len(input['text'])}\n", false);
    for text in ["hello", ""] {
        let outcome = rig.run(&recipe, json!({ "text": text })).await.unwrap();
        assert_eq!(outcome.output.value(), &json!({ "length": text.len() }));
        assert!(outcome.unsigned && outcome.recipe == "test/plain");
    }
    let records = rig.host.journal();
    assert_eq!(records.len(), 2);
    // One frame out, one frame back, no wasm: the promise of a recipe without glue.
    assert!(records.iter().all(|record| (record.wasm_entries, record.frames_sent, record.frames_received) == (0, 1, 1)), "{records:?}");
    rig.host.shutdown().await;
}

#[tokio::test]
async fn one_pod_serves_many_calls_at_once_and_in_order() {
    let rig = Rig::new().await;
    let recipe = rig.python("pid", "import os\nclass Subject:\n    def run(self, input):\n        return [os.getpid(), input]\n", false);
    let calls = (0..50).map(|n| {
        let (host, call) = (rig.host.clone(), call(&recipe, json!(n)));
        tokio::spawn(async move { host.call(call).await.unwrap().output.into_value() })
    });
    let mut pids = std::collections::HashSet::new();
    for (n, answer) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = answer.await.unwrap();
        assert_eq!(answer[1], n);
        pids.insert(answer[0].as_u64().unwrap());
    }
    assert_eq!(pids.len(), 1, "one lazily started pod");
    rig.host.shutdown().await;
    assert!(!is_running(*pids.iter().next().unwrap() as u32), "shutdown leaves no process");
}

#[tokio::test]
async fn chunks_and_progress_arrive_in_order_before_the_outcome() {
    let rig = Rig::new().await;
    let source = "import hob_pod\nclass Subject:\n    def run(self, input):\n        for n in range(input):\n            hob_pod.progress(done=n)\n            yield {'n': n}\n        return 'end'\n";
    let recipe = rig.python("stream", source, true);
    // More than every buffer on the way holds: a slow reader holds the pod back and loses nothing.
    let count = 500;
    let mut running = rig.host.start(call(&recipe, json!(count)));
    let (mut chunks, mut progress) = (Vec::new(), 0);
    while let Some(event) = running.next().await {
        match event {
            Event::Chunk { data, .. } => chunks.push(data["n"].as_u64().unwrap()),
            Event::Progress { .. } => progress += 1,
            Event::Log { .. } => {}
        }
        if chunks.len() == 3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    let outcome = running.outcome().await.unwrap();
    assert_eq!(outcome.output.value(), &json!("end"));
    assert_eq!(chunks, (0..count).collect::<Vec<u64>>());
    assert_eq!(progress, count);
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_python_error_keeps_type_message_and_traceback() {
    let rig = Rig::new().await;
    let recipe = rig.python("raises", "class Subject:\n    def run(self, input):\n        raise KeyError('colour')\n", false);
    let fault = rig.run(&recipe, json!(1)).await.unwrap_err();
    assert_eq!(fault.code, Code::RecipeFailed);
    assert!(fault.message.contains("KeyError") && fault.message.contains("colour"), "{}", fault.message);
    assert!(fault.detail["traceback"].to_string().contains("subject.py"), "{}", fault.detail);
    // The pod is as good as before.
    assert_eq!(rig.run(&recipe, json!(1)).await.unwrap_err().code, Code::RecipeFailed);
    assert_eq!(rig.host.pods().len(), 1);
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_pod_that_fails_at_import_shows_the_traceback() {
    let rig = Rig::new().await;
    for (name, source, code, says) in [
        ("import-error", "import numpyy\nclass Subject: pass\n", Code::DependencyMissing, "numpyy"),
        ("raises-at-import", "1 / 0\n", Code::ImportFailed, "ZeroDivisionError"),
        ("no-class", "x = 1\n", Code::ImportFailed, "Subject"),
        (
            "load-fails",
            "class Subject:\n    def load(self, models):\n        raise ValueError('no weights')\n    def run(self, input):\n        return 1\n",
            Code::ImportFailed,
            "no weights",
        ),
        (
            "exits-at-import",
            "import os\nprint('last words', flush=True)\nos._exit(3)\n",
            Code::Crashed,
            "exited with code 3 before it was ready",
        ),
    ] {
        let recipe = rig.python(name, source, false);
        let fault = rig.run(&recipe, json!(1)).await.unwrap_err();
        assert_eq!(fault.code, code, "{name}: {fault:?}");
        assert!(format!("{} {}", fault.message, fault.detail).contains(says), "{name}: {fault:?}");
        if name == "exits-at-import" {
            assert!(fault.detail["log"].to_string().contains("last words"), "{fault:?}");
        } else if name != "no-class" {
            assert!(fault.detail["traceback"].is_string() || fault.detail["traceback"].is_array(), "{name}: {fault:?}");
        }
    }
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_deadline_stops_the_worker_and_the_next_call_is_untouched() {
    let rig = Rig::new().await;
    let source = "import time, os\nclass Subject:\n    def run(self, input):\n        while input:\n            time.sleep(0.01)\n        return os.getpid()\n";
    let recipe = rig.python("slow", source, false);
    let pid = rig.run(&recipe, json!(false)).await.unwrap().output.into_value();
    let late = Call { deadline_ms: Some(200), ..call(&recipe, json!(true)) };
    let begun = Instant::now();
    assert_eq!(rig.host.call(late).await.unwrap_err().code, Code::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(2));
    // Cancelled inside Python, not killed: the same process answers.
    assert_eq!(rig.run(&recipe, json!(false)).await.unwrap().output.into_value(), pid);
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_killed_pod_is_named_with_its_signal_and_the_next_call_works() {
    let rig = Rig::new().await;
    let source = "import os, time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return os.getpid()\n";
    let recipe = rig.python("victim", source, false);
    let pid = rig.run(&recipe, json!(0)).await.unwrap().output.into_value().as_u64().unwrap() as i32;
    let running = rig.host.start(call(&recipe, json!(30)));
    within(5, "the call reaches the pod", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let fault = running.outcome().await.unwrap_err();
    assert_eq!(fault.code, Code::Crashed);
    assert_eq!(fault.detail["signal"], 9);
    assert!(fault.message.contains("SIGKILL") && fault.message.contains("`run`"), "{}", fault.message);
    let next = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    assert_ne!(next, pid);
    rig.host.shutdown().await;
}

/// (file, code, what the message or detail must say)
const MISDEEDS: &[(&str, Code, &str)] = &[
    ("exits_before_hello.py", Code::Crashed, "exited with code 3 before it was ready"),
    ("half_frame_then_hangs.py", Code::Deadline, "run"),
    ("dies_mid_frame.py", Code::Crashed, "in the middle of a frame"),
    ("oversize_frame.py", Code::TooLarge, "bytes; at most"),
    ("lies_about_length.py", Code::ProtocolViolation, "claims"),
    ("unknown_message.py", Code::ProtocolViolation, "unknown type"),
    ("not_json.py", Code::ProtocolViolation, "not a message"),
    ("nan_in_answer.py", Code::ProtocolViolation, "not a message"),
    ("wrong_incarnation.py", Code::ProtocolViolation, "incarnation"),
    ("answers_unknown_ask.py", Code::ProtocolViolation, "not in hand"),
    ("answers_before_ready.py", Code::ProtocolViolation, "not in hand"),
    ("closes_its_data_lane.py", Code::ProtocolViolation, "closed its socket"),
    ("integer_past_64_bits.py", Code::InvalidJson, "past 64 bits"),
    ("speaks_another_protocol.py", Code::ProtocolViolation, "speaks protocol 7 to 9"),
    ("never_says_hello.py", Code::StartTimeout, "ready"),
    ("never_ready.py", Code::StartTimeout, "ready"),
    ("never_answers.py", Code::Deadline, "run"),
    ("ignores_cancel.py", Code::Deadline, "run"),
    ("segfaults_mid_answer.py", Code::Crashed, "SIGSEGV"),
    ("closes_its_socket.py", Code::ProtocolViolation, "closed its socket"),
    ("chunk_from_non_streaming.py", Code::ProtocolViolation, "does not stream"),
    ("stops_itself.py", Code::Deadline, "run"),
];

#[tokio::test]
async fn every_misdeed_is_one_clear_fault_and_leaves_no_process() {
    let rig = Rig::new().await;
    for (file, code, says) in MISDEEDS {
        let recipe = rig.hostile(file);
        let call = Call { deadline_ms: Some(8_000), ..call(&recipe, json!({})) };
        let call = match code {
            Code::Deadline => Call { deadline_ms: Some(1_500), ..call },
            _ => call,
        };
        let fault = rig.host.call(call).await.expect_err(file);
        assert_eq!(fault.code, *code, "{file}: {fault:?}");
        assert!(format!("{} {}", fault.message, fault.detail).contains(says), "{file}: {fault:?}");
    }
    let pids: Vec<u32> = rig.host.pods().iter().filter_map(|pod| pod.pid).collect();
    rig.host.shutdown().await;
    within(3, "every hostile pod is gone", || !pids.iter().any(|pid| is_running(*pid))).await;
}

#[tokio::test]
async fn what_a_pod_prints_harms_nothing() {
    let rig = Rig::new().await;
    for file in ["prints_from_c.py", "floods_stderr.py"] {
        let recipe = rig.hostile(file);
        let outcome = rig.run(&recipe, json!({})).await.unwrap();
        assert!(outcome.output.value().is_object(), "{file}");
    }
    rig.host.shutdown().await;
}

#[tokio::test]
async fn an_oversize_answer_is_a_fault_of_that_call_only() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("oversize_frame.py");
    let mut pids = std::collections::HashSet::new();
    for round in 0..3 {
        let fault = rig.run(&recipe, json!({})).await.unwrap_err();
        assert_eq!(fault.code, Code::TooLarge, "round {round}: {fault:?}");
        pids.insert(rig.run(&recipe, json!({})).await.unwrap().output.value()["pid"].as_u64().unwrap());
    }
    assert_eq!(pids.len(), 1, "the same process serves on");
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_second_answer_never_reaches_another_call() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("answers_twice.py");
    assert_eq!(rig.run(&recipe, json!({})).await.unwrap().output.value(), &json!({ "answer": 1 }));
    // Either this call meets the violation, or it starts a new pod: it never gets the stray answer.
    match rig.run(&recipe, json!({})).await {
        Ok(outcome) => assert_eq!(outcome.output.value(), &json!({ "answer": 1 })),
        Err(fault) => assert_eq!(fault.code, Code::ProtocolViolation, "{fault:?}"),
    }
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_cancel_that_is_heeded_keeps_the_process() {
    let rig = Rig::new().await;
    let recipe = rig.hostile("never_answers.py");
    for _ in 0..2 {
        let late = Call { deadline_ms: Some(1_000), ..call(&recipe, json!({})) };
        assert_eq!(rig.host.call(late).await.unwrap_err().code, Code::Deadline);
        within(3, "the pod is free again", || rig.host.pods().iter().any(|pod| pod.state == "ready")).await;
    }
    assert_eq!(rig.host.pods()[0].asks, 2, "one pod took both asks");
    rig.host.shutdown().await;
}

/// Runs as a child process of the test below: a host with a busy pod, until it is killed.
#[tokio::test]
async fn helper_host_with_a_stubborn_pod() {
    let Ok(marker) = std::env::var("HOB_TEST_STUBBORN_MARKER") else { return };
    let rig = Rig::new().await;
    let recipe = rig.hostile("ignores_sigterm_with_grandchild.py");
    let _ = rig.run(&recipe, json!({ "pids": marker })).await;
}

#[tokio::test]
async fn no_process_outlives_a_host_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("pids");
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pods::helper_host_with_a_stubborn_pod", "--nocapture"])
        .env("HOB_TEST_STUBBORN_MARKER", &marker)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let read = || -> Vec<u32> {
        let text = std::fs::read_to_string(&marker).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    // The pod wrote its own pid and its grandchild's: the misdeed is under way.
    within(20, "the pod and its grandchild run", || read().len() >= 2).await;
    let pids = read();
    assert!(pids.iter().all(|pid| is_running(*pid)), "{pids:?}");
    host.kill().unwrap();
    assert_eq!(host.wait().unwrap().signal(), Some(9));
    let begun = Instant::now();
    within(2, "every process below the killed host is gone", || !pids.iter().any(|pid| is_running(*pid))).await;
    println!("gone {} ms after the host", begun.elapsed().as_millis());
}

#[tokio::test]
async fn a_call_that_waits_for_a_busy_pod_ends_with_its_own_deadline() {
    let rig = Rig::new().await;
    let source = "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return input\n";
    let recipe = rig.python("queue", source, false);
    rig.run(&recipe, json!(0)).await.unwrap();
    let long = rig.host.start(call(&recipe, json!(4)));
    within(5, "the pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    let begun = Instant::now();
    let late = || Call { deadline_ms: Some(200), ..call(&recipe, json!(0)) };
    assert_eq!(rig.host.call(late()).await.unwrap_err().code, Code::Deadline);
    let mut running = rig.host.start(late());
    assert!(running.next().await.is_none());
    assert_eq!(running.outcome().await.unwrap_err().code, Code::Deadline);
    assert!(begun.elapsed() < Duration::from_secs(2), "not until the pod is free: {:?}", begun.elapsed());
    assert_eq!(long.outcome().await.unwrap().output.value(), &json!(4));
    rig.host.shutdown().await;
}

#[test]
fn a_caller_who_leaves_while_its_pod_is_being_ended_hangs_nobody() {
    // A thread of its own with a runtime of one thread: what spins there can be seen from here only.
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new().await;
            let recipe = rig.hostile("ignores_sigterm_with_grandchild.py");
            let pids = rig.folder.path().join("pids");
            let running = rig.host.start(call(&recipe, json!({ "pids": pids })));
            within(10, "the misdeed is under way", || pids.exists()).await;
            let host = rig.host.clone();
            let stopping = tokio::spawn(async move { host.shutdown_within(Duration::ZERO).await });
            within(5, "SIGTERM was sent", || rig.host.pods().iter().any(|pod| pod.state == "stopping")).await;
            drop(running);
            stopping.await.unwrap();
            assert!(rig.host.pods().is_empty());
        });
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(25)).expect("the host hangs");
}

#[tokio::test]
async fn a_changed_folder_gets_a_new_pod_and_the_old_one_ends_after_its_last_ask() {
    let rig = Rig::new().await;
    let source = "import time, os\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return os.getpid()\n";
    let recipe = rig.python("edited", source, false);
    let old = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    let long = rig.host.start(call(&recipe, json!(2)));
    within(5, "the old pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    std::fs::write(recipe.join("pod/subject.py"), format!("{source}# edited\n")).unwrap();
    let new = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    assert_ne!(old, new);
    assert_eq!(rig.host.pods().len(), 2, "the old pod is not forgotten while it works");
    assert_eq!(long.outcome().await.unwrap().output.into_value(), old);
    within(5, "the old pod is over", || rig.host.pods().len() == 1).await;
    assert!(!is_running(old.as_u64().unwrap() as u32) && is_running(new.as_u64().unwrap() as u32));
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_host_that_shuts_down_starts_no_pod_any_more() {
    let rig = Rig::new().await;
    let recipe = rig.python("late", "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n", false);
    rig.run(&recipe, json!(0)).await.unwrap();
    let busy = rig.host.start(call(&recipe, json!(0.5)));
    within(5, "the pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    // In the queue: accepted, so it is served.
    let queued = rig.host.start(call(&recipe, json!(0)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    rig.host.shutdown().await;
    busy.outcome().await.unwrap();
    queued.outcome().await.unwrap();
    assert_eq!(rig.run(&recipe, json!(0)).await.unwrap_err().code, Code::ShuttingDown);
    assert!(rig.host.pods().is_empty());
    let left: Vec<_> = std::fs::read_dir(rig.folder.path().join("home/state/scratch")).unwrap().collect();
    assert!(left.is_empty(), "a scratch folder is left: {left:?}");
}

#[tokio::test]
async fn none_is_an_answer_and_a_chunk() {
    let rig = Rig::new().await;
    let recipe = rig.python("none", "class Subject:\n    def run(self, input):\n        yield None\n", true);
    let mut running = rig.host.start(call(&recipe, json!(null)));
    assert_eq!(running.next().await, Some(Event::Chunk { data: json!(null), blobs: vec![] }));
    assert_eq!(running.outcome().await.unwrap().output.value(), &json!(null));
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_stopped_pod_never_gives_a_result_with_a_hole() {
    let source = "class Subject:\n    def run(self, input):\n        for n in range(input):\n            yield n\n        return 'end'\n";
    // All buffers of a call hold some 130 chunks: the last chunk just fits, just does not, or has others behind it.
    for count in [126, 129, 130, 131, 132, 133, 300] {
        let rig = Rig::new().await;
        let recipe = rig.python("hole", source, true);
        let mut running = rig.host.start(call(&recipe, json!(count)));
        assert!(running.next().await.is_some());
        tokio::time::sleep(Duration::from_millis(200)).await;
        rig.host.shutdown().await;
        let mut chunks = 1;
        while running.next().await.is_some() {
            chunks += 1;
        }
        match running.outcome().await {
            Ok(_) => assert_eq!(chunks, count),
            Err(fault) => assert!(count > 128 && matches!(fault.code, Code::Crashed | Code::Cancelled), "{count}: {fault:?}"),
        }
    }
}

#[tokio::test]
async fn an_installed_recipe_has_one_pod_and_none_once_it_is_removed() {
    use hob::{
        author::{keys::Keys, pack::pack, publish::publish, repository},
        model::{RecipeName, Silent},
        shelf::repository::Trust,
    };
    let rig = Rig::new().await;
    let source = "import time, os\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return os.getpid()\n";
    let recipe = rig.python("shelved", source, false);
    let case = recipe.join("cases/one");
    std::fs::create_dir_all(&case).unwrap();
    std::fs::write(case.join("input.json"), r#"{"operation": "run", "input": 0}"#).unwrap();
    std::fs::write(case.join("output.json"), "1").unwrap();
    let (repo, keys) = (rig.folder.path().join("repo"), Keys::at(rig.folder.path().join("keys")));
    let now = jiff::Timestamp::now();
    let made = repository::repo_init(&repo, &keys, now).await.unwrap();
    repository::add_publisher(&repo, &keys, "test", None, now).await.unwrap();
    publish(&repo, &keys, &pack(&recipe).unwrap(), &recipe.join("models"), now, &Silent).await.unwrap();
    let trust = Trust::Fingerprint(made.fingerprint.to_string());
    rig.host.add_remote("main", repo.to_str().unwrap(), trust).await.unwrap();
    let name: RecipeName = "test/shelved".parse().unwrap();
    rig.host.add(&name, &semver::VersionReq::STAR, None).await.unwrap();

    let call = |input: serde_json::Value| Call::new("test/shelved", "run", input).unwrap();
    let calls: Vec<_> =
        (0..8).map(|_| (rig.host.clone(), call(json!(0)))).map(|(host, call)| tokio::spawn(async move { host.call(call).await })).collect();
    let mut pids = std::collections::HashSet::new();
    for called in calls {
        pids.insert(called.await.unwrap().unwrap().output.into_value().as_u64().unwrap());
    }
    assert_eq!((pids.len(), rig.host.pods().len()), (1, 1), "first calls at once share one pod");

    let long = rig.host.start(call(json!(1)));
    within(5, "the pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    rig.host.remove(&name).await.unwrap();
    assert_eq!(rig.host.call(call(json!(0))).await.unwrap_err().code, Code::RecipeNotFound);
    assert!(pids.contains(&long.outcome().await.unwrap().output.into_value().as_u64().unwrap()), "its call goes on");
    within(5, "the pod of what was removed is over", || rig.host.pods().is_empty()).await;
    rig.host.shutdown().await;
}
