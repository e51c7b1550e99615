//! The ends of asks, pods and hosts: deadlines, signals, shutdown, a killed host.
//!
//! Here the host, or a bystander, ends something.

use std::{
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use hob::model::Code;
use serde_json::json;

use crate::support::{Rig, call, inner_number, is_running, open_at, within};

#[tokio::test]
async fn a_deadline_stops_the_worker_and_the_next_call_is_untouched() {
    let rig = Rig::new().await;
    let source = "import time, os\nclass Subject:\n    def run(self, input):\n        while input:\n            time.sleep(0.01)\n        return os.getpid()\n";
    let recipe = rig.python("slow", source, false);
    let pid = rig.run(&recipe, json!(false)).await.unwrap().output.into_value();
    let late = call(&recipe, json!(true)).with_deadline(std::time::Duration::from_millis(200));
    assert_eq!(rig.host.call(late).await.unwrap_err().code, Code::Deadline);
    // The ask was cancelled inside Python and not killed: the same process answers.
    assert_eq!(rig.run(&recipe, json!(false)).await.unwrap().output.into_value(), pid);
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_killed_pod_is_named_with_its_signal_and_the_next_call_works() {
    let rig = Rig::new().await;
    let source = "import os, time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return os.getpid()\n";
    let recipe = rig.python("victim", source, false);
    let said = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    let pid = rig.host.pods()[0].pid.unwrap() as i32;
    let running = rig.host.start(call(&recipe, json!(30)));
    within(60, "the call reaches the pod", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let fault = running.outcome().await.unwrap_err();
    assert_eq!(fault.code, Code::Crashed);
    assert_eq!(fault.detail["signal"], 9);
    assert!(fault.message.contains("SIGKILL") && fault.message.contains("`run`"), "{}", fault.message);
    let next = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    assert_ne!(next, said);
    rig.host.shutdown().await;
}

/// Runs as a child process of the test below: a host with a busy pod, until it is killed.
#[tokio::test]
async fn helper_host_with_a_stubborn_pod() {
    let Ok(marker) = std::env::var("HOB_TEST_STUBBORN_MARKER") else { return };
    let rig = Rig::new().await;
    let recipe = rig.hostile("ignores_sigterm_with_grandchild.py", "");
    let _ = rig.run(&recipe, json!({ "pids": marker })).await;
}

#[tokio::test]
async fn no_process_outlives_a_host_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let marker = open_at(folder.path()).join("pids");
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pods::endings::helper_host_with_a_stubborn_pod", "--nocapture"])
        .env("HOB_TEST_STUBBORN_MARKER", &marker)
        .env("HOB_TEST_OPEN", marker.parent().unwrap())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let read = || -> Vec<u32> {
        let text = std::fs::read_to_string(&marker).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    // The pod wrote its own pid and its grandchild's: the misdeed has begun.
    within(60, "the pod and its grandchild run", || read().len() >= 2).await;
    let pids = crate::zygotes::below(host.id());
    for said in read() {
        assert!(pids.iter().any(|pid| inner_number(*pid) == Some(said) && is_running(*pid)), "{said} in {pids:?}");
    }
    host.kill().unwrap();
    assert_eq!(host.wait().unwrap().signal(), Some(9));
    let begun = Instant::now();
    within(60, "every process below the killed host is gone", || !pids.iter().any(|pid| is_running(*pid))).await;
    println!("gone {} ms after the host", begun.elapsed().as_millis());
}

#[test]
fn a_caller_who_leaves_while_its_pod_is_being_ended_hangs_nobody() {
    // A separate thread with a runtime of one thread: a loop that spins can only be seen from here.
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new().await;
            let recipe = rig.hostile("ignores_sigterm_with_grandchild.py", "");
            let pids = rig.open().join("pids");
            let running = rig.host.start(call(&recipe, json!({ "pids": pids })));
            within(60, "the misdeed is under way", || pids.exists()).await;
            let host = rig.host.clone();
            let stopping = tokio::spawn(async move { host.shutdown_within(Duration::ZERO).await });
            within(60, "SIGTERM was sent", || rig.host.pods().iter().any(|pod| pod.state == "stopping")).await;
            drop(running);
            stopping.await.unwrap();
            assert!(rig.host.pods().is_empty());
        });
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(25)).expect("the host hangs");
}

#[tokio::test]
async fn a_host_that_shuts_down_starts_no_pod_any_more() {
    let rig = Rig::new().await;
    let recipe = rig.python("late", "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n", false);
    rig.run(&recipe, json!(0)).await.unwrap();
    let busy = rig.host.start(call(&recipe, json!(0.5)));
    within(60, "the pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    // A call in the queue was accepted, so it is served.
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
async fn a_stopped_pod_never_gives_a_result_with_a_hole() {
    let source = "class Subject:\n    def run(self, input):\n        for n in range(input):\n            yield n\n        return 'end'\n";
    // The buffers of a call hold some 130 chunks: the last chunk just fits, just does not, or is followed by
    // others.
    for count in [126, 129, 130, 131, 132, 133, 300] {
        let rig = Rig::new().await;
        let recipe = rig.python("hole", source, true);
        let mut running = rig.host.start(call(&recipe, json!(count)));
        assert!(running.next().await.is_some());
        tokio::time::sleep(Duration::from_millis(200)).await;
        rig.host.shutdown_within(Duration::ZERO).await;
        let mut chunks = 1;
        while running.next().await.is_some() {
            chunks += 1;
        }
        match running.outcome().await {
            Ok(_) => assert_eq!(chunks, count),
            Err(fault) => {
                assert!(count > 128 && matches!(fault.code, Code::Crashed | Code::Cancelled | Code::ShuttingDown), "{count}: {fault:?}")
            }
        }
    }
}

#[tokio::test]
async fn what_its_caller_has_a_part_of_is_not_run_again() {
    let rig = Rig::new().await;
    // The pod dies once in each of its two lives: before any chunk, then after two.
    let source = "import os\nclass Subject:\n    def run(self, input):\n        with open(input, 'a+') as log:\n            log.write('x')\n            \
                  log.flush()\n            log.seek(0)\n            lives = len(log.read())\n        if lives == 1:\n            os._exit(3)\n        \
                  yield 'a'\n        yield 'b'\n        os._exit(3)\n";
    let recipe = rig.pool("streams", source, "", "streaming = true\nidempotent = true");
    let log = rig.open().join("lives");
    let mut running = rig.host.start(call(&recipe, json!(log)));
    let mut chunks = Vec::new();
    while let Some(event) = running.next().await {
        if let hob::model::Event::Chunk { data, .. } = event {
            chunks.push(data.into_value());
        }
    }
    let fault = running.outcome().await.unwrap_err();
    assert_eq!((fault.code, chunks), (Code::Crashed, vec![json!("a"), json!("b")]));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "xx", "run again without a chunk, and not with one");
    rig.close().await;
}
