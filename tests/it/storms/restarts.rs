//! Pods that fail repeatedly: each failure is reported, then the recipe cools down, and is tried again.

use std::{path::PathBuf, time::Duration};

use hob::model::{Code, Fault, RecipeName};
use serde_json::json;

use super::bounded;
use crate::support::{Rig, call, within};

/// Fails at import while a file is missing.
const FAILS: &str = r#"
import os

if not os.path.exists("{cure}"):
    raise RuntimeError("the licence is missing")

class Subject:
    def run(self, input):
        return input
"#;

/// Dies on some inputs, and logs which ones it began.
const DIES: &str = r#"
import os

log = os.open("{log}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

class Subject:
    def run(self, input):
        os.write(log, b"%d\n" % input)
        if input == 13:
            os.abort()
        return input
"#;

async fn fails(rig: &Rig) -> (PathBuf, PathBuf) {
    let cure = rig.open().join("cure");
    (rig.python("fails", &FAILS.replace("{cure}", cure.to_str().unwrap()), false), cure)
}

/// Makes calls until the recipe cools down; returns that fault.
async fn until_cooling_down(rig: &Rig, recipe: &std::path::Path) -> Fault {
    for round in 0..40 {
        let fault = bounded(40, "a call", rig.host.call(call(recipe, json!(1)))).await.unwrap_err();
        match fault.code {
            Code::ImportFailed => assert!(fault.detail["traceback"].to_string().contains("the licence is missing"), "{fault:?}"),
            Code::CoolingDown => {
                assert!(round > 0, "the first call was never tried");
                return fault;
            }
            _ => panic!("{fault:?}"),
        }
    }
    panic!("never left alone");
}

#[tokio::test]
async fn a_pod_that_fails_to_start_is_left_alone_and_lifted() {
    let rig = Rig::new().await;
    let (recipe, cure) = fails(&rig).await;
    let fault = until_cooling_down(&rig, &recipe).await;
    let retry_after = fault.retry_after.expect("it says when the next start is");
    assert!(retry_after > 0 && fault.retryable, "{fault:?}");
    // The fault still says what is wrong.
    assert!(format!("{} {}", fault.message, fault.detail).contains("the licence is missing"), "{fault:?}");
    // No pod starts meanwhile, whichever caller asks.
    within(60, "the last one is over", || rig.host.pods().is_empty()).await;
    for _ in 0..10 {
        assert_eq!(rig.run(&recipe, json!(1)).await.unwrap_err().code, Code::CoolingDown);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(rig.host.pods().is_empty());
    }
    let name: RecipeName = "test/fails".parse().unwrap();
    rig.host.lift(&name).unwrap();
    let fault = rig.run(&recipe, json!(1)).await.unwrap_err();
    assert_eq!(fault.code, Code::ImportFailed, "lifted, it is tried at once: {fault:?}");
    until_cooling_down(&rig, &recipe).await;
    std::fs::write(&cure, "").unwrap();
    rig.host.lift(&name).unwrap();
    assert_eq!(rig.run(&recipe, json!(1)).await.unwrap().output.value(), &json!(1), "cured");
    rig.close().await;
}

#[tokio::test]
async fn who_comes_back_when_told_finds_a_cured_recipe() {
    let rig = Rig::new().await;
    let (recipe, cure) = fails(&rig).await;
    // A caller without time to wait for the next start is told when it comes.
    let fault = loop {
        let hurried = call(&recipe, json!(1)).with_deadline(std::time::Duration::from_millis(60));
        let fault = bounded(10, "a call", rig.host.call(hurried)).await.unwrap_err();
        match fault.code {
            Code::CoolingDown => break fault,
            Code::ImportFailed | Code::Deadline => tokio::time::sleep(Duration::from_millis(10)).await,
            _ => panic!("{fault:?}"),
        }
    };
    std::fs::write(&cure, "").unwrap();
    let retry_after = fault.retry_after.unwrap();
    assert!((1..=2_000).contains(&retry_after), "the first waits are short: {fault:?}");
    tokio::time::sleep(Duration::from_millis(retry_after)).await;
    assert_eq!(rig.run(&recipe, json!(1)).await.unwrap().output.value(), &json!(1));
    rig.close().await;
}

#[tokio::test]
async fn an_input_that_ends_its_pod_twice_is_not_tried_again() {
    for idempotent in [false, true] {
        let rig = Rig::new().await;
        let log = rig.open().join("log");
        let source = DIES.replace("{log}", log.to_str().unwrap());
        let recipe = rig.pool("dies", &source, "max = 2", &format!("idempotent = {idempotent}"));
        // An idempotent ask is tried again within its first call.
        for _ in 0..if idempotent { 1 } else { 2 } {
            let fault = bounded(30, "a call", rig.host.call(call(&recipe, json!(13)))).await.unwrap_err();
            assert!(matches!(fault.code, Code::Crashed | Code::PoisonRequest), "{fault:?}");
            assert!(format!("{} {}", fault.message, fault.detail).contains("SIGABRT"), "{fault:?}");
        }
        for _ in 0..3 {
            let fault = rig.run(&recipe, json!(13)).await.unwrap_err();
            assert_eq!(fault.code, Code::PoisonRequest, "{fault:?}");
            assert_eq!(rig.run(&recipe, json!(7)).await.unwrap().output.value(), &json!(7), "another input is as good as ever");
        }
        let log = std::fs::read_to_string(&log).unwrap();
        assert_eq!(log.lines().filter(|line| *line == "13").count(), 2, "idempotent: {idempotent}: {log}");
        rig.close().await;
    }
}
