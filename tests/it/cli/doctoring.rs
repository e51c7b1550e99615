//! `hob doctor`, and the lines of `hob pods` and `hob status` about how pods are confined and were started.
//!
//! The machines here lack something: HOB_SANDBOX_WITHOUT makes layers of the sandbox unavailable.

use std::time::{Duration, Instant};

use hob::model::Code;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    rig::{LOCK, Ran, Rig, Signed, put, signal, write_recipe},
    served::{Serving, with_worker},
};
use crate::support::processes_below;

const WITHOUT: &str = "HOB_SANDBOX_WITHOUT";

fn doctor(rig: &Rig, words: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = rig.command(&[&["doctor"], words].concat());
    command.envs(variables.iter().copied());
    super::rig::run(command, b"")
}

/// The report as JSON, whether it is the document itself or part of the fault.
#[track_caller]
fn examined(rig: &Rig, variables: &[(&str, &str)]) -> (Option<i32>, Value) {
    let ran = doctor(rig, &["--json"], variables);
    let document = ran.json();
    let report = if document["fault"].is_null() { &document } else { &document["fault"]["detail"]["doctor"] };
    (ran.exit, report.clone())
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().or(entry.as_str()).unwrap()).collect()
}

/// Asserts that the doctor left nothing that it started or made.
#[track_caller]
fn nothing_left(rig: &Rig) {
    assert_eq!(processes_below(rig.folder.path()), [0; 0]);
    assert_eq!(std::fs::read_dir(rig.home.join("state/scratch")).unwrap().count(), 0);
}

#[test]
fn the_doctor_tries_each_layer_and_each_forbidden_act_and_leaves_nothing() {
    let rig = Rig::new();
    let (exit, report) = examined(&rig, &[]);
    assert_eq!((exit, &report["confined"], &report["verdict"]), (Some(0), &json!(true), &json!("pods run fully confined")), "{report}");
    assert_eq!(names(&report["trial"]["layers"]), ["namespaces", "landlock", "seccomp"]);
    assert!(report["trial"]["layers"].as_array().unwrap().iter().all(|layer| layer["why"].is_null()), "{report}");
    let acts = report["trial"]["acts"].as_array().unwrap();
    assert!(acts.len() >= 10 && acts.iter().all(|act| act["wrong"].is_null()), "{report}");
    assert_eq!((&report["trial"]["untried"], &report["zygotes"]["possible"]), (&json!([]), &json!(true)), "{report}");
    assert!(report["trial"]["landlock"].as_u64().is_some_and(|version| version >= 6), "{report}");
    assert!(report["python"]["path"].as_str().is_some_and(|path| path.starts_with('/')) && report["bounds"]["text"].is_string());
    assert_eq!(report["machine"]["user"], rustix::process::geteuid().as_raw());
    let text = doctor(&rig, &[], &[]);
    let text = text.well();
    assert!(text.ends_with("\n\npods run fully confined") && text.contains("tracing") && text.contains("landlock    enforced"), "{text}");
    nothing_left(&rig);
}

#[test]
fn without_a_layer_the_doctor_says_which_and_what_to_do_and_pods_do_not_start() {
    let (rig, _signed) = with_worker();
    for layer in ["namespaces", "landlock", "seccomp"] {
        let (exit, report) = examined(&rig, &[(WITHOUT, layer)]);
        assert_eq!((exit, &report["confined"]), (Some(i32::from(Code::SandboxUnavailable.exit())), &json!(false)), "{report}");
        assert_eq!(report["trial"]["whole"], json!({ "layer": layer, "why": "made unavailable" }));
        for other in report["trial"]["layers"].as_array().unwrap() {
            assert_eq!(other["why"].is_null(), other["name"] != layer, "{report}");
        }
        // Acts that only that layer denies were not tried; all others are still denied.
        let (acts, untried) = (report["trial"]["acts"].as_array().unwrap(), names(&report["trial"]["untried"]));
        assert!(!untried.is_empty() && acts.len() >= 5 && acts.iter().all(|act| act["wrong"].is_null()), "{report}");
        assert!(acts.iter().all(|act| !untried.contains(&act["name"].as_str().unwrap())));
        assert!(report["zygotes"]["why"].as_str().unwrap().contains(layer), "{report}");

        let text = doctor(&rig, &[], &[(WITHOUT, layer)]);
        assert_eq!(text.exit, Some(8));
        for part in [
            &format!("error[sandbox_unavailable]: pods do not start, because they cannot be confined: {layer}: "),
            "unset HOB_SANDBOX_WITHOUT",
        ] {
            assert!(text.stderr.contains(part), "{part}: {text:#?}");
        }
        assert!(text.stdout.contains(&format!("{layer}: taken for unavailable")), "{text:#?}");
        // A pod is refused for the same layer.
        let mut call = rig.command(&["call", "lab/worker", "run", "{}"]);
        call.env(WITHOUT, layer);
        super::rig::run(call, b"").refused(Code::SandboxUnavailable, &[&format!("{layer}: made unavailable")]);
    }
    nothing_left(&rig);
}

#[test]
fn without_a_proc_of_their_own_pods_are_confined_and_what_they_do_not_see_is_said() {
    let rig = Rig::new();
    let (exit, report) = examined(&rig, &[]);
    assert_eq!((exit, &report["trial"]["apart"], &report["trial"]["not_apart"]), (Some(0), &json!(true), &Value::Null), "{report}");
    for (layer, why) in [("proc", "mounting /proc: made unavailable"), ("processes", "made unavailable")] {
        let (exit, report) = examined(&rig, &[(WITHOUT, layer)]);
        assert_eq!((exit, &report["confined"]), (Some(0), &json!(true)), "{report}");
        assert_eq!((&report["trial"]["apart"], &report["trial"]["not_apart"]), (&json!(false), &json!(why)), "{report}");
        let text = doctor(&rig, &[], &[(WITHOUT, layer)]);
        assert!(text.well().contains(&format!("a pod finds itself alone in /proc: {why}")), "{text:#?}");
    }
    nothing_left(&rig);
}

#[test]
fn without_an_interpreter_nothing_is_tried_and_that_is_said() {
    let rig = Rig::new();
    let (exit, report) = examined(&rig, &[("HOB_PYTHON", "/bin/false")]);
    assert_eq!((exit, &report["trial"], &report["confined"]), (Some(8), &Value::Null, &json!(false)), "{report}");
    assert!(report["verdict"].as_str().unwrap().contains("/bin/false") && report["next"][0].as_str().unwrap().contains("HOB_PYTHON"));
    // A program that answers like Python, and is none.
    let liar = rig.folder.path().join("liar");
    let answer = r#"{"executable": "LIAR", "version": [3, 11, 0, "final", 0], "build": "x", "platform": "x"}"#;
    let answer = answer.replace("LIAR", liar.to_str().unwrap());
    put(&liar, format!("#!/bin/sh\ncase \"$3\" in -c) echo '{answer}';; *) echo 'no such thing' >&2; exit 3;; esac\n").as_bytes());
    std::fs::set_permissions(&liar, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (exit, report) = examined(&rig, &[("HOB_PYTHON", liar.to_str().unwrap())]);
    assert_eq!((exit, &report["trial"]), (Some(8), &Value::Null), "{report}");
    assert!(report["verdict"].as_str().unwrap().contains("exit status: 3: no such thing"), "{report}");
    nothing_left(&rig);
}

#[test]
fn pods_that_do_without_a_layer_by_their_operators_word_are_shown_so() {
    let (rig, _signed) = with_worker();
    rig.hob(&["grant", "lab/worker", "--reduced"]).well();
    let serving = Serving::start_with(&rig, &[], &[(WITHOUT, "landlock")]);
    rig.hob(&["call", "lab/worker", "run", "{}"]).well();
    let pods = rig.hob(&["pods", "--json"]).json();
    assert_eq!(pods[0]["sandbox"]["class"], "reduced", "{pods}");
    assert!(names(&pods[0]["sandbox"]["missing"]).contains(&"landlock (made unavailable)"), "{pods}");
    let text = rig.hob(&["pods"]);
    assert!(text.well().contains(" started  reduced: landlock"), "{text:?}");
    drop(serving);
}

#[test]
fn status_and_doctor_show_the_zygotes_of_the_server_and_pods_show_what_was_forked() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = signed.folder.path().join("forked");
    let source = "import six\nclass Subject:\n    def run(self, input):\n        return input\n";
    write_recipe(&folder, "lab/forked", "0.1.0", source, "python = \">=3.9\"\nlock = \"pod/requirements.lock\"\npreload = [\"six\"]");
    put(&folder.join("pod/requirements.lock"), LOCK.as_bytes());
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/forked"]).well();
    let _serving = Serving::start(&rig, &[]);
    let call = || rig.hob(&["call", "lab/forked", "run", "1"]).well().to_owned();
    call();
    let first = rig.hob(&["pods", "--json"]).json();
    assert_eq!((&first[0]["forked"], &first[0]["sandbox"]["class"]), (&json!(false), &json!("full")), "{first}");
    let begun = Instant::now();
    while rig.hob(&["status", "--json"]).json()["zygotes"][0]["state"] != "ready" {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", rig.hob(&["status", "--json"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = rig.hob(&["status"]);
    let rows: Vec<Vec<&str>> = text.well().lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().any(|row| row.starts_with(&["lab/forked", "ready"])), "{text:?}");
    let (_, report) = examined(&rig, &[]);
    assert_eq!((&report["serving"][0]["recipe"], &report["serving"][0]["state"]), (&json!("lab/forked"), &json!("ready")), "{report}");
    assert!(doctor(&rig, &[], &[]).well().contains("lab/forked  ready"));
    // Its only pod is killed; the next one is forked.
    signal(first[0]["pid"].as_u64().unwrap() as u32, Signal::KILL);
    while !rig.hob(&["pods"]).well().contains(" forked ") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", rig.hob(&["pods"]));
        call();
    }
    let pods = rig.hob(&["pods", "--json"]).json();
    let sandbox = &pods[0]["sandbox"];
    assert_eq!((&pods[0]["forked"], &sandbox["class"], &sandbox["missing"]), (&json!(true), &json!("full"), &json!(null)), "{pods}");
    assert!(["group", "watched"].contains(&sandbox["memory"].as_str().unwrap()), "{pods}");
}

#[test]
fn a_layer_that_is_none_is_named_and_nothing_is_tried() {
    let rig = Rig::new();
    doctor(&rig, &[], &[(WITHOUT, "landlock, secomp")]).refused(Code::InvalidConfig, &["`secomp`", "namespaces, landlock, seccomp"]);
}
