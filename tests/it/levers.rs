//! Levers: settings that Hob lowers after memory ran out, with real pods that really run out of memory.

use std::path::{Path, PathBuf};

use hob::model::{Code, Event, Fault};
use serde_json::{Value, json};

use crate::support::{Rig, call};

/// Uses as many megabytes at once as its lever says; more than `bearable` raises out of memory.
const HUNGRY: &str = r#"
import os, time
import hob_pod

class Subject:
    def load(self, models):
        self.loaded_with = hob_pod.lever()
        if self.loaded_with == "too-wide":
            raise MemoryError("the model does not fit")

    def run(self, input):
        size = hob_pod.lever()
        if input.get("chunk"):
            yield 1
        if size > input["bearable"]:
            if input.get("really"):
                # Two that are each within the limit, and together are not: what the kernel, or the host, ends it for.
                if os.fork() == 0:
                    kept = bytearray(b"x") * (100 << 20)
                    time.sleep(20)
                kept = bytearray(b"x") * (230 << 20)
                time.sleep(20)
            raise MemoryError(f"{size} at once are too many")
        return {"size": size, "loaded_with": self.loaded_with, "pid": os.getpid()}
"#;

fn hungry(rig: &Rig, name: &str, lever: &str, more: &str, run: &str) -> PathBuf {
    // Only a generator can yield a chunk before it fails.
    let source = match run.contains("streaming") {
        true => HUNGRY.to_owned(),
        false => HUNGRY.replace("        if input.get(\"chunk\"):\n            yield 1\n", ""),
    };
    rig.pool(name, &source, &format!("lever = {{ {lever} }}\n{more}"), run)
}

/// The outcome of a call, and the events about its lever.
async fn told(rig: &Rig, recipe: &Path, input: Value) -> (Result<Value, Fault>, Vec<Value>) {
    let mut running = rig.host.start(call(recipe, input));
    let mut told = Vec::new();
    while let Some(event) = running.next().await {
        if let Event::Progress { data } = event {
            told.push(data);
        }
    }
    (running.outcome().await.map(|outcome| outcome.output.into_value()), told)
}

#[tokio::test]
async fn when_memory_runs_out_the_lever_is_lowered_once_and_the_ask_run_again() {
    let rig = Rig::new().await;
    let recipe = hungry(&rig, "hungry", "name = \"batch_size\", values = [32, 16, 8]", "", "");
    let (output, events) = told(&rig, &recipe, json!({"bearable": 20})).await;
    let output = output.unwrap();
    assert_eq!(output["size"], 16);
    assert_eq!(events, [json!({"lever": {"name": "batch_size", "from": 32, "to": 16}, "because": "out_of_memory"})]);
    // The lever stays lower for later callers, who get no event.
    let (again, events) = told(&rig, &recipe, json!({"bearable": 20})).await;
    assert_eq!((again.unwrap(), events), (output, vec![]));
    let lever = rig.host.status().pools[0].lever.clone().unwrap();
    assert_eq!((&*lever.name, lever.value, lever.lowered), ("batch_size", json!(16), 1));

    // The lever is lowered once for each ask. If half is still too much, the caller gets the fault, and the
    // next call begins lower still.
    let (fault, events) = told(&rig, &recipe, json!({"bearable": 4})).await;
    let fault = fault.unwrap_err();
    assert_eq!((fault.code, events.len()), (Code::OutOfMemory, 1), "{fault}");
    let (fault, events) = told(&rig, &recipe, json!({"bearable": 4})).await;
    assert_eq!((fault.unwrap_err().code, events.len()), (Code::OutOfMemory, 0), "there is no lower value");
    // The operator resets it.
    rig.host.lift(&"test/hungry".parse().unwrap()).unwrap();
    assert_eq!(told(&rig, &recipe, json!({"bearable": 40})).await.0.unwrap()["size"], 32);
    rig.close().await;
}

#[tokio::test]
async fn a_pod_that_was_ended_for_its_memory_is_followed_by_one_that_works_with_less() {
    let rig = Rig::new().await;
    let limit = "memory_bytes = 300000000";
    let recipe = hungry(&rig, "killed", "name = \"batch_size\", values = [32, 16]", limit, "idempotent = true");
    let (output, events) = told(&rig, &recipe, json!({"bearable": 20, "really": true})).await;
    assert_eq!((output.unwrap()["size"].as_u64(), events.len()), (Some(16), 1));
    let status = rig.host.status();
    assert_eq!((status.pools[0].crashes, status.pools[0].asks_repeated), (1, 1), "it was really ended: {status:?}");
    rig.close().await;
}

#[tokio::test]
async fn who_has_a_part_of_a_result_is_not_given_it_twice() {
    let rig = Rig::new().await;
    let recipe = hungry(&rig, "parts", "name = \"batch_size\", values = [32, 16]", "", "streaming = true");
    let (fault, _) = told(&rig, &recipe, json!({"bearable": 20, "chunk": true})).await;
    assert_eq!(fault.unwrap_err().code, Code::OutOfMemory);
    let (output, _) = told(&rig, &recipe, json!({"bearable": 20})).await;
    assert_eq!(output.unwrap()["size"], 16, "before the first part it is run again");
    rig.close().await;
}

#[tokio::test]
async fn a_lever_of_loading_is_lowered_in_a_pod_that_loads_anew() {
    let rig = Rig::new().await;
    let lever = "name = \"context\", at = \"load\", values = [\"too-wide\", 32, 16]";
    let recipe = hungry(&rig, "context", lever, "", "");
    let (output, events) = told(&rig, &recipe, json!({"bearable": 20})).await;
    let output = output.unwrap();
    assert_eq!((&output["size"], &output["loaded_with"]), (&json!(16), &json!(16)));
    assert_eq!(events, [json!({"lever": {"name": "context", "from": 32, "to": 16}, "because": "out_of_memory"})]);
    let status = rig.host.status();
    assert_eq!((status.pools[0].crashes, status.pools[0].lever.as_ref().unwrap().lowered), (0, 2), "{status:?}");
    rig.close().await;
}
