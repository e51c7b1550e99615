//! Answers of well-behaved pods: their content, their order, and the number of processes.
//!
//! Only the author's own code goes wrong here.

use std::time::Duration;

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
    // One frame out, one frame back, no wasm: as promised for a recipe without glue.
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
    // More than all buffers on the way hold: a slow reader holds the pod back and loses nothing.
    let count = 500;
    let mut running = rig.host.start(call(&recipe, json!(count)));
    let (mut chunks, mut progress, mut last) = (Vec::new(), 0, None);
    while let Some(event) = running.next().await {
        match event {
            Event::Chunk { data, .. } => chunks.push(data["n"].as_u64().unwrap()),
            Event::Progress { data } => {
                progress += 1;
                let done = data["done"].as_u64();
                assert!(done > last, "{done:?} after {last:?}");
                last = done;
            }
            _ => {}
        }
        if chunks.len() == 3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    let outcome = running.outcome().await.unwrap();
    assert_eq!(outcome.output.value(), &json!("end"));
    assert_eq!(chunks, (0..count).collect::<Vec<u64>>());
    // A caller that is behind gets the latest progress, and may miss earlier reports.
    assert!((3..=count).contains(&progress), "{progress}");
    rig.host.shutdown().await;
}

/// Reports its progress before each chunk.
const TOLD: &str = "
import hob_pod
class Subject:
    def run(self, input):
        for n in range(input):
            hob_pod.progress(done=n, total=input, unit='steps', message='walking', more=[n])
            yield n
        return 'end'
";

#[tokio::test]
async fn a_callback_gets_progress_in_types_and_all_chunks_before_the_outcome() {
    let rig = Rig::new().await;
    let recipe = rig.python("told", TOLD, true);
    let (sender, received) = std::sync::mpsc::channel();
    let outcome = rig.host.call_with(call(&recipe, json!(5)), move |event| sender.send(event).unwrap()).await.unwrap();
    assert_eq!(outcome.output.value(), &json!("end"));
    // The callback is gone, and with it the sender: all events that it got are here.
    let events: Vec<Event> = received.iter().collect();
    let chunks: Vec<_> =
        events.iter().filter_map(|event| if let Event::Chunk { data, .. } = event { Some(data.value().clone()) } else { None }).collect();
    assert_eq!(chunks, [0, 1, 2, 3, 4]);
    let reports: Vec<_> = events.iter().filter_map(Event::report).collect();
    assert_eq!(reports.len(), 5);
    for (n, report) in reports.iter().enumerate() {
        let wanted = (Some(n as f64), Some(5.0), Some("steps"), Some("walking"), Some(n as f64 / 5.0));
        assert_eq!((report.done, report.total, report.unit, report.message, report.share()), wanted);
        assert_eq!((&report.data["more"], report.to_string()), (&json!([n]), format!("walking: {n} of 5 steps")));
    }
    rig.close().await;
}

/// The runtime has one thread, so a callback that blocked it would block everything.
#[tokio::test]
async fn a_callback_that_blocks_holds_up_its_own_call_alone() {
    let rig = Rig::new().await;
    let slow = rig.python("told", TOLD, true);
    let quick = rig.python("quick", "class Subject:\n    def run(self, input):\n        return input\n", false);
    rig.run(&quick, json!(0)).await.unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (entered, mut inside) = tokio::sync::mpsc::unbounded_channel();
    let (host, count) = (rig.host.clone(), 400);
    let asked = call(&slow, json!(count));
    let under_way = tokio::spawn(async move {
        let (mut chunks, mut reports) = (Vec::new(), Vec::new());
        let (sender, received) = std::sync::mpsc::channel();
        let outcome = host.call_with(asked, move |event| {
            let _ = entered.send(());
            // Blocks until it is released once; after that it lets everything through.
            let _ = held.recv();
            sender.send(event).unwrap();
        });
        let output = outcome.await.unwrap().output.into_value();
        for event in received {
            match event {
                Event::Chunk { data, .. } => chunks.push(data.as_u64().unwrap()),
                other => reports.push(other.report().unwrap().done.unwrap()),
            }
        }
        (output, chunks, reports)
    });
    inside.recv().await.unwrap();
    let begun = std::time::Instant::now();
    for n in 0..50 {
        assert_eq!(rig.run(&quick, json!(n)).await.unwrap().output.value(), &json!(n));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "others waited {:?}", begun.elapsed());
    assert!(!under_way.is_finished() && inside.try_recv().is_err(), "the callback still has its first event");
    drop(release);
    let (output, chunks, reports) = under_way.await.unwrap();
    assert_eq!((output, chunks), (json!("end"), (0..count).collect::<Vec<u64>>()), "no chunk is lost");
    assert!(reports.is_sorted() && reports.len() < count as usize, "of progress it got the latest: {}", reports.len());
    rig.close().await;
}

#[tokio::test]
async fn a_callback_that_panics_cancels_its_call_and_a_dropped_call_gives_it_no_more() {
    let rig = Rig::new().await;
    let open = rig.open();
    let source = format!(
        "import hob_pod, pathlib\nclass Subject:\n    def run(self, input):\n        try:\n            while True:\n                hob_pod.progress(done=1)\n                yield 1\n        \
         finally:\n            pathlib.Path({:?}, input).touch()\n",
        open.display().to_string()
    );
    let recipe = rig.python("endless", &source, true);
    let (host, asked) = (rig.host.clone(), call(&recipe, json!("panicked")));
    let panicked = tokio::spawn(async move { host.call_with(asked, |_| panic!("the app's own")).await }).await.unwrap_err();
    assert_eq!(panicked.into_panic().downcast_ref::<&str>(), Some(&"the app's own"));
    within(60, "the worker stops", || open.join("panicked").exists()).await;
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let (host, asked) = (rig.host.clone(), call(&recipe, json!("dropped")));
    let under_way = tokio::spawn(async move { host.call_with(asked, move |_| sender.send(()).unwrap()).await });
    received.recv().await.unwrap();
    under_way.abort();
    // The callback is dropped with the call.
    within(60, "the callback is let go of", || matches!(received.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected)))
        .await;
    within(60, "the worker stops", || open.join("dropped").exists()).await;
    rig.close().await;
}

#[tokio::test]
async fn a_python_error_keeps_type_message_and_traceback() {
    let rig = Rig::new().await;
    let recipe = rig.python("raises", "class Subject:\n    def run(self, input):\n        raise KeyError('colour')\n", false);
    let fault = rig.run(&recipe, json!(1)).await.unwrap_err();
    assert_eq!(fault.code, Code::RecipeFailed);
    assert!(fault.message.contains("KeyError") && fault.message.contains("colour"), "{}", fault.message);
    assert!(fault.detail["traceback"].to_string().contains("subject.py"), "{}", fault.detail);
    // The pod still works.
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
async fn a_call_that_waits_for_a_busy_pod_ends_with_its_own_deadline() {
    let rig = Rig::new().await;
    let source = "import time\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return input\n";
    let recipe = rig.python("queue", source, false);
    rig.run(&recipe, json!(0)).await.unwrap();
    let long = tokio::spawn(rig.host.start(call(&recipe, json!(10))).outcome());
    within(60, "the pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    let late = || call(&recipe, json!(0)).with_deadline(std::time::Duration::from_millis(200));
    assert_eq!(rig.host.call(late()).await.unwrap_err().code, Code::Deadline);
    let mut running = rig.host.start(late());
    assert!(running.next().await.is_none());
    assert_eq!(running.outcome().await.unwrap_err().code, Code::Deadline);
    assert!(!long.is_finished(), "not until the pod is free");
    assert_eq!(long.await.unwrap().unwrap().output.value(), &json!(10));
    rig.host.shutdown().await;
}

#[tokio::test]
async fn a_changed_folder_gets_a_new_pod_and_the_old_one_ends_after_its_last_ask() {
    let rig = Rig::new().await;
    let source = "import time, os\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return os.getpid()\n";
    let recipe = rig.python("edited", source, false);
    let old = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    let long = rig.host.start(call(&recipe, json!(2)));
    within(60, "the old pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    std::fs::write(recipe.join("pod/subject.py"), format!("{source}# edited\n")).unwrap();
    let new = rig.run(&recipe, json!(0)).await.unwrap().output.into_value();
    assert_ne!(old, new);
    assert_eq!(rig.host.pods().len(), 2, "the old pod is not forgotten while it works");
    assert_eq!(long.outcome().await.unwrap().output.into_value(), old);
    within(60, "the old pod is over", || rig.host.pods().len() == 1).await;
    assert!(!is_running(old.as_u64().unwrap() as u32) && is_running(new.as_u64().unwrap() as u32));
    rig.host.shutdown().await;
}

#[tokio::test]
async fn none_is_an_answer_and_a_chunk() {
    let rig = Rig::new().await;
    let recipe = rig.python("none", "class Subject:\n    def run(self, input):\n        yield None\n", true);
    let mut running = rig.host.start(call(&recipe, json!(null)));
    assert_eq!(running.next().await, Some(Event::Chunk { data: json!(null).into(), blobs: vec![] }));
    assert_eq!(running.outcome().await.unwrap().output.value(), &json!(null));
    rig.host.shutdown().await;
}

#[tokio::test]
async fn an_installed_recipe_has_one_pod_and_none_once_it_is_removed() {
    let rig = Rig::new().await;
    let source = "import time, os\nclass Subject:\n    def run(self, input):\n        time.sleep(input)\n        return os.getpid()\n";
    let recipe = rig.python("shelved", source, false);
    let name = rig.install(&recipe).await;

    let call = |input: serde_json::Value| Call::new("test/shelved", "run", input).unwrap();
    let calls: Vec<_> =
        (0..8).map(|_| (rig.host.clone(), call(json!(0)))).map(|(host, call)| tokio::spawn(async move { host.call(call).await })).collect();
    let mut pids = std::collections::HashSet::new();
    for called in calls {
        pids.insert(called.await.unwrap().unwrap().output.into_value().as_u64().unwrap());
    }
    assert_eq!((pids.len(), rig.host.pods().len()), (1, 1), "first calls at once share one pod");

    let long = rig.host.start(call(json!(1)));
    within(60, "the pod is busy", || rig.host.pods().iter().any(|pod| pod.state == "busy")).await;
    rig.host.remove(&name).await.unwrap();
    assert_eq!(rig.host.call(call(json!(0))).await.unwrap_err().code, Code::RecipeNotFound);
    assert!(pids.contains(&long.outcome().await.unwrap().output.into_value().as_u64().unwrap()), "its call goes on");
    within(60, "the pod of what was removed is over", || rig.host.pods().is_empty()).await;
    rig.host.shutdown().await;
}
