//! `hob call`: what stands on stdout, what is sent in, and what is left when it is interrupted.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use hob::model::Code;
use serde_json::json;

use super::rig::{Rig, Signed, processes_of, signal};

const ECHO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recipes/echo");

pub fn with_echo() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let keys = signed.keys.to_str().unwrap();
    rig.hob(&["repo", "add-publisher", signed.repository.to_str().unwrap(), "hob", "--keys", keys]).well();
    signed.publish(std::path::Path::new(ECHO));
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "hob/echo"]).well();
    (rig, signed)
}

#[test]
fn a_call_prints_one_json_document_on_stdout_and_nothing_else_there() {
    let (rig, _signed) = with_echo();
    let ran = rig.hob(&["call", "hob/echo", "echo", r#"{"text": "hello"}"#]);
    assert_eq!(ran.well(), r#"{"length":5}"#);
    assert_eq!(ran.json(), json!({ "length": 5 }));
    let whole = rig.hob(&["call", "hob/echo", "echo", r#"{"text": "hello"}"#, "--json"]);
    assert_eq!(whole.well().lines().count(), 1);
    let whole = whole.json();
    assert_eq!(
        (&whole["output"], &whole["recipe"], &whole["version"], &whole["unsigned"]),
        (&json!({ "length": 5 }), &json!("hob/echo"), &json!("0.1.0"), &json!(false))
    );
    // From stdin, said with `-` or not at all.
    for words in [&["call", "hob/echo", "echo", "-"][..], &["call", "hob/echo", "echo"]] {
        assert_eq!(rig.hob_reading(words, "{\"text\": \"grüße\"}\n".as_bytes()).json(), json!({ "length": 5 }));
    }
    // A stream is a document for each chunk and one for the result; without the flag it is the result alone.
    let words = ["call", "hob/echo", "repeat", r#"{"text": "a", "count": 3}"#, "--stream"];
    let lines: Vec<serde_json::Value> = rig.hob(&words).well().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let chunk = |index: u32| json!({ "chunk": { "index": index, "text": "a" } });
    assert_eq!(lines, [chunk(0), chunk(1), chunk(2), json!({ "count": 3 })]);
    assert_eq!(rig.hob(&words[..4]).json(), json!({ "count": 3 }));
}

#[test]
fn what_a_pod_prints_never_reaches_stdout() {
    let rig = Rig::new();
    let source = "import os, subprocess, sys\nprint('at import')\nclass Subject:\n    def load(self, models):\n        print('at load')\n    def run(self, input):\n        \
                  print('in python'); os.write(1, b'from C\\n'); subprocess.run(['echo', 'from a child']); sys.__stdout__.write('{}'); sys.__stdout__.flush()\n        return {'said': input}\n";
    let recipe = rig.recipe("lab/loud", source, "python = \">=3.9\"");
    let ran = rig.hob(&["call", recipe.to_str().unwrap(), "run", "[1]"]);
    assert_eq!(ran.well(), r#"{"said":[1]}"#);
    assert_eq!(ran.json(), json!({ "said": [1] }));
    assert!(ran.stderr.contains("unsigned dev mode"), "{ran:#?}");
}

#[test]
fn an_interrupted_call_ends_with_its_own_exit_code_and_leaves_no_process() {
    let (rig, _signed) = with_echo();
    for (sent, exit) in [(rustix::process::Signal::INT, Some(9)), (rustix::process::Signal::TERM, None)] {
        let mut child = rig.command(&["call", "hob/echo", "sleep", r#"{"seconds": 600}"#]).spawn().unwrap();
        let begun = Instant::now();
        // The keeper and the worker: the call is under way.
        while processes_of(&rig.home).len() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "no pod");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "it sleeps");
        let sent_at = Instant::now();
        signal(child.id(), sent);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), exit, "{status:?}");
        assert!(sent_at.elapsed() < Duration::from_secs(5), "it took {:?} to stop", sent_at.elapsed());
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!(out, "");
        assert_eq!(err.contains(&format!("error[{}]", Code::Cancelled.name())), exit.is_some(), "{err}");
        while !processes_of(&rig.home).is_empty() {
            assert!(sent_at.elapsed() < Duration::from_secs(6), "left behind: {:?}", processes_of(&rig.home));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(rig.hob(&["call", "hob/echo", "echo", r#"{"text": ""}"#]).json(), json!({ "length": 0 }));
}

#[test]
fn a_deadline_given_in_words_is_kept() {
    let (rig, _signed) = with_echo();
    let begun = Instant::now();
    rig.hob(&["call", "hob/echo", "sleep", r#"{"seconds": 600}"#, "--deadline", "700ms"]).refused(Code::Deadline, &["`sleep`", "700 ms"]);
    assert!(begun.elapsed() < Duration::from_secs(10));
    rig.hob(&["call", "hob/echo", "sleep", r#"{"seconds": 0}"#, "--deadline", "soon"]).refused(Code::Usage, &["`soon`", "`30s`"]);
}
