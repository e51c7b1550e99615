//! Sessions through the command line, without a server and with one, and over HTTP.

use std::{fs, path::Path};

use hob::model::Code;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::COUNTER;
use crate::cli::{
    rig::{Rig, Signed, processes_of, write_recipe},
    served::{Answer, Serving},
};

const POD: &str = "python = \">=3.9\"\nsession = { mode = \"exclusive\" }";

const UNKEPT: &str = r#"
class Subject:
    def __init__(self):
        self.count = 0

    def run(self, input):
        self.count += 1
        return {"count": self.count}

    def checkpoint(self):
        raise ValueError("nowhere to put it")

    def restore(self, state):
        self.count = state
"#;

/// A recipe with the counter, whose operation wants a session.
fn counter(folder: &Path, name: &str) {
    write_recipe(folder, name, "0.1.0", COUNTER, POD);
    let manifest = fs::read_to_string(folder.join("recipe.toml")).unwrap();
    fs::write(folder.join("recipe.toml"), format!("{manifest}session = true\n")).unwrap();
}

/// A home with `lab/counter` installed.
fn with_counter() -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = signed.folder.path().join("counter");
    counter(&folder, "lab/counter");
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/counter"]).well();
    (rig, signed)
}

#[track_caller]
fn count(rig: &Rig, recipe: &str, name: &str) -> u64 {
    let ran = rig.hob(&["call", recipe, "run", "{}", "--session", name, "--json"]);
    ran.well();
    ran.json()["output"]["count"].as_u64().unwrap()
}

#[track_caller]
fn sessions(rig: &Rig) -> Vec<Value> {
    let ran = rig.hob(&["sessions", "--json"]);
    ran.well();
    ran.json().as_array().unwrap().clone()
}

/// The next process still says why a session was lost, although it has no memory of the previous one.
#[test]
fn a_session_whose_checkpoint_failed_says_why_to_the_next_process() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("counter");
    write_recipe(&folder, "lab/counter", "0.1.0", UNKEPT, POD);
    assert_eq!(count(&rig, "./counter", "a"), 1);
    let says = ["had 1 call and no checkpoint", "its state was asked for, and did not come", "nowhere to put it"];
    rig.hob(&["call", "./counter", "run", "{}", "--session", "a"]).refused(Code::SessionLost, &says);
    assert_eq!(count(&rig, "./counter", "a"), 1, "it is opened anew");
}

#[test]
fn a_session_goes_on_over_processes_of_the_command_line() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("counter");
    counter(&folder, "lab/counter");
    assert_eq!(rig.hob(&["sessions"]).well(), "there is no session");
    for wanted in 1..=3 {
        assert_eq!(count(&rig, "./counter", "a"), wanted);
    }
    let again = rig.hob(&["call", "./counter", "run", "{}", "--session", "a"]);
    assert!(again.well().contains("\"count\":4") && again.stderr.contains("goes on from checkpoint 3\n"), "{again:?}");
    rig.hob(&["call", "./counter", "run", "{}"]).refused(Code::SessionRequired, &["`run` of `lab/counter`"]);
    rig.hob(&["sessions", "touch", "./counter", "b"]).refused(Code::SessionNotFound, &["no session `b`"]);
    rig.hob(&["sessions", "touch", "./counter", "a/b"]).refused(Code::Usage, &["`a/b` is not a session's name"]);
    let [session] = &sessions(&rig)[..] else { panic!("one session") };
    assert_eq!((&session["state"], &session["calls"], &session["checkpoint"]["number"]), (&json!("parked"), &json!(4), &json!(4)));
    let shown = rig.hob(&["sessions"]);
    assert!(shown.well().lines().nth(1).unwrap().contains("exclusive  parked"), "{shown:?}");
    rig.hob(&["sessions", "touch", "./counter", "a"]).well();
    let kept = rig.hob(&["sessions", "checkpoint", "./counter", "a", "--json"]);
    kept.well();
    assert_eq!(kept.json()["number"], 4, "what it lies there as");
    rig.hob(&["sessions", "close", "./counter", "a"]).well();
    assert!(sessions(&rig).is_empty());
    assert_eq!(fs::read_dir(rig.home.join("state/sessions")).unwrap().count(), 0, "nothing is left of it");
    rig.hob(&["sessions", "open", "./counter", "a"]).well();
    assert_eq!(count(&rig, "./counter", "a"), 1, "it begins anew");
    assert!(processes_of(&rig.home).is_empty());
}

#[test]
fn a_server_has_the_sessions_and_leaves_them_to_who_comes_after_it() {
    let (rig, _signed) = with_counter();
    assert_eq!(count(&rig, "lab/counter", "a"), 1);
    let mut serving = Serving::start(&rig, &[]);
    assert_eq!((count(&rig, "lab/counter", "a"), count(&rig, "lab/counter", "a")), (2, 3));
    let said = |answer: Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let path = "POST /v1/recipes/lab/counter";
    let plain = said(serving.ask(&format!("{path}/run\nx-hob-session: a\n"), b"{}"));
    assert_eq!((&plain["count"], &plain["session"]), (&json!(4), &json!("a")));
    let body = json!({ "recipe": "lab/counter", "operation": "run", "input": {}, "session": "a" }).to_string();
    let lines = serving.ask("POST /v1/calls", body.as_bytes()).body;
    assert!(lines.lines().last().unwrap().contains("\"count\":5"), "{lines}");
    assert_eq!(said(serving.ask(&format!("{path}/sessions/b/open"), b""))["calls"], 0);
    assert_eq!(said(serving.ask(&format!("{path}/sessions/a/checkpoint"), b""))["calls"], 5);
    assert_eq!(said(serving.ask(&format!("{path}/sessions/a/touch"), b""))["state"], "live");
    let listed = said(serving.ask("GET /v1/sessions", b""));
    assert_eq!(
        listed,
        json!(sessions(&rig))
            .as_array()
            .map(|now| {
                let mut now = now.clone();
                for (now, then) in now.iter_mut().zip(listed.as_array().unwrap()) {
                    (now["age_ms"], now["idle_ms"]) = (then["age_ms"].clone(), then["idle_ms"].clone());
                }
                Value::from(now)
            })
            .unwrap(),
        "the command line shows what the server says"
    );
    assert_eq!(listed.as_array().unwrap().iter().map(|one| &one["state"]).collect::<Vec<_>>(), ["live", "live"]);
    assert_eq!(said(serving.ask(&format!("{path}/sessions/b/close"), b"")), json!({ "closed": "b" }));
    for (head, status, code) in [
        (format!("{path}/sessions/b/close"), 404, "session_not_found"),
        (format!("{path}/sessions/.b/open"), 400, "usage"),
        (format!("{path}/run"), 422, "session_required"),
    ] {
        let answer = serving.ask(&head, b"{}");
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{head}");
    }
    // A host of one's own does not get the server's session.
    let mut command = rig.command(&["call", "lab/counter", "run", "{}", "--one-shot", "--session", "a"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2), "the two words exclude each other");
    assert!(serving.end(Signal::TERM, 20).success());
    assert_eq!(sessions(&rig)[0]["state"], "parked");
    assert_eq!(count(&rig, "lab/counter", "a"), 6);

    // A killed server: the next one continues from the kept state.
    let mut serving = Serving::start(&rig, &[]);
    assert_eq!(count(&rig, "lab/counter", "a"), 7);
    rig.hob(&["sessions", "checkpoint", "lab/counter", "a"]).well();
    assert_eq!(count(&rig, "lab/counter", "a"), 8);
    serving.end(Signal::KILL, 20);
    let serving = Serving::start(&rig, &[]);
    assert_eq!(count(&rig, "lab/counter", "a"), 8, "one call was lost");
    let status = rig.hob(&["status"]);
    assert!(status.well().contains("\nlab/counter (session a)  "), "{status:?}");
    drop(serving);
    let removed = rig.hob(&["remove", "lab/counter"]);
    removed.well();
    assert!(removed.stderr.contains("sessions of it that stay, with what they kept: 1; `hob sessions`"), "{removed:?}");
    rig.hob(&["sessions", "close", "lab/counter", "a"]).well();
}

#[test]
fn a_damaged_record_is_told_and_listed_and_the_session_does_not_begin_anew_in_silence() {
    let rig = Rig::new();
    let folder = rig.folder.path().join("counter");
    counter(&folder, "lab/counter");
    assert_eq!(count(&rig, "./counter", "other"), 1);
    let of_other = fs::read_dir(rig.home.join("state/sessions")).unwrap().next().unwrap().unwrap().path();
    let theirs = fs::read(of_other.join("session.json")).unwrap();
    for (name, bytes) in [("torn", b"{".to_vec()), ("large", vec![b' '; 1 << 20]), ("another-s", theirs)] {
        assert_eq!((count(&rig, "./counter", name), count(&rig, "./counter", name)), (1, 2));
        let folders = fs::read_dir(rig.home.join("state/sessions")).unwrap().map(|entry| entry.unwrap().path());
        let folder = folders.into_iter().find(|path| *path != of_other).unwrap();
        fs::write(folder.join("session.json"), bytes).unwrap();
        let says = ["record of a session is damaged", folder.to_str().unwrap(), "hob sessions close"];
        for _ in 0..2 {
            rig.hob(&["call", "./counter", "run", "{}", "--session", name]).refused(Code::SessionLost, &says);
        }
        rig.hob(&["sessions", "touch", "./counter", name]).refused(Code::SessionLost, &says);
        let [other, damaged] = &sessions(&rig)[..] else { panic!("{name}: two sessions") };
        assert_eq!((&other["name"], &other["state"]), (&json!("other"), &json!("parked")));
        assert_eq!((&damaged["name"], &damaged["state"], &damaged["calls"]), (&json!(name), &json!("damaged"), &json!(2)));
        assert_eq!(damaged["checkpoint_fault"]["code"], "session_lost");
        assert_eq!(count(&rig, "./counter", "other") % 2, 0, "{name}: nobody else is touched");
        rig.hob(&["call", "./counter", "run", "{}", "--session", "other"]).well();
        rig.hob(&["sessions", "close", "./counter", name]).well();
        assert!(!folder.exists());
        assert_eq!(count(&rig, "./counter", name), 1, "closed, it begins anew");
        rig.hob(&["sessions", "close", "./counter", name]).well();
    }
}

#[test]
fn a_checkpoint_that_is_a_fifo_or_endless_holds_up_neither_the_call_nor_the_end_of_the_server() {
    let (rig, _signed) = with_counter();
    for wanted in 1..=3 {
        assert_eq!(count(&rig, "lab/counter", "a"), wanted);
    }
    let folder = fs::read_dir(rig.home.join("state/sessions")).unwrap().next().unwrap().unwrap().path();
    let newest = folder.join("3.checkpoint");
    type Make = fn(&Path);
    let make: [(&str, Make); 2] = [
        ("fifo", |path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap()),
        ("sparse", |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap()),
    ];
    let kept: Vec<(std::path::PathBuf, Vec<u8>)> = ["session.json", "calls", "2.checkpoint", "3.checkpoint"]
        .iter()
        .map(|name| (folder.join(name), fs::read(folder.join(name)).unwrap()))
        .collect();
    for (name, make) in make {
        fs::remove_file(&newest).unwrap();
        make(&newest);
        let mut serving = Serving::start(&rig, &[]);
        let ran = rig.hob(&["call", "lab/counter", "run", "{}", "--session", "a", "--deadline", "20s"]);
        // The checkpoint before it is intact, and the output says that the session continues from it.
        assert!(ran.well().contains("\"count\":3") && ran.stderr.contains("goes on from checkpoint 2"), "{name}: {ran:?}");
        assert!(serving.end(Signal::TERM, 20).success(), "{name}");
        for entry in fs::read_dir(&folder).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
}
