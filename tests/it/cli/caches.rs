//! Caches of libraries in pods, through the program: the next pod begins with the cache, and it contains
//! nothing of a caller.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use serde_json::{Value, json};

use super::{
    rig::{Rig, Signed, write_recipe},
    served::Serving,
};

/// Keeps files as a JIT compiler does: one at load, one for each call, named after the caller's text. Answers
/// with the files that it found.
const KEEPER: &str = r#"import os, pathlib
FOLDER = pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "jit" / "deep"
def there():
    return sorted(path.name for path in FOLDER.glob("*"))
class Subject:
    def load(self, models):
        self.found = there()
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "loaded").write_text("code")
        if os.environ.get("LARGE"):
            (FOLDER / "large").write_bytes(bytes(65 << 20))
    def run(self, input):
        (FOLDER / input["text"]).write_text(input["text"])
        return {"text": input["text"], "found": self.found, "pid": os.getpid()}
"#;

fn found(answer: &Value) -> Vec<&str> {
    answer["found"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

/// A home with `lab/keeper` installed.
fn installed(more: &str) -> (Rig, Signed) {
    let (rig, signed) = (Rig::new(), Signed::new());
    let folder = signed.folder.path().join("keeper");
    write_recipe(&folder, "lab/keeper", "0.1.0", KEEPER, &format!("python = \">=3.9\"\n{more}"));
    // Its case runs in the pod that fills the cache, and belongs to no caller.
    fs::write(folder.join("cases/one/input.json"), br#"{"operation": "run", "input": {"text": "case"}}"#).unwrap();
    fs::write(folder.join("cases/one/output.json"), br#"{"text": "case"}"#).unwrap();
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/keeper"]).well();
    (rig, signed)
}

fn call(rig: &Rig, recipe: &str, text: &str) -> Value {
    let ran = rig.hob(&["call", recipe, "run", &json!({ "text": text }).to_string()]);
    serde_json::from_str(ran.well()).unwrap()
}

#[test]
fn the_next_pod_begins_with_what_loading_and_a_case_kept_and_with_nothing_of_a_caller() {
    let (rig, _signed) = installed("");
    let first = rig.hob(&["call", "lab/keeper", "run", r#"{"text": "secret-of-ada"}"#]);
    assert_eq!(found(&serde_json::from_str(first.well()).unwrap()), [""; 0]);
    assert!(first.stderr.contains("keeping what the libraries of lab/keeper compiled"), "{first:#?}");
    let second = rig.hob(&["call", "lab/keeper", "run", r#"{"text": "secret-of-bob"}"#]);
    assert_eq!(found(&serde_json::from_str(second.well()).unwrap()), ["case", "loaded"]);
    assert!(!second.stderr.contains("keeping"), "it is filled once: {second:#?}");
    // A pod's additions to its copy are lost with it.
    assert_eq!(found(&call(&rig, "lab/keeper", "third")), ["case", "loaded"]);
    assert!(!holds(&rig.home.join("cache/pods"), "secret"));
    rig.hob(&["remove", "lab/keeper"]).well();
    assert!(!holds(&rig.home.join("cache/pods"), "loaded"));
}

#[test]
fn a_servers_pods_fill_it_in_the_background() {
    let (rig, _signed) = installed("max = 1\nidle_timeout_ms = 1000");
    let serving = Serving::start(&rig, &[]);
    let ask = |text: &str| serving.ask("POST /v1/recipes/lab/keeper/run", json!({ "text": text }).to_string().as_bytes()).json();
    let first = ask("secret-of-ada");
    assert_eq!(found(&first), [""; 0]);
    // The idle pod ends, and the next one finds the cache that another pod filled meanwhile.
    let begun = std::time::Instant::now();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let next = ask("more");
        match found(&next)[..] {
            [] => assert!(begun.elapsed().as_secs() < 60, "never filled"),
            ["case", "loaded"] => break assert_ne!(next["pid"], first["pid"]),
            _ => panic!("{next}"),
        }
    }
    assert!(!holds(&rig.home.join("cache/pods"), "secret"));
}

#[test]
fn a_cache_beyond_its_bound_is_not_kept_and_not_tried_again_at_every_call() {
    let (rig, _signed) = installed("env = { LARGE = \"1\" }");
    let first = rig.hob(&["call", "lab/keeper", "run", r#"{"text": "one"}"#]);
    first.well();
    assert!(first.stderr.contains("keeping what") && first.stderr.contains("is not kept: more than"), "{first:#?}");
    let second = rig.hob(&["call", "lab/keeper", "run", r#"{"text": "two"}"#]);
    assert_eq!(found(&serde_json::from_str(second.well()).unwrap()), [""; 0]);
    assert!(!second.stderr.contains("keeping"), "{second:#?}");
    assert!(!holds(&rig.home.join("cache/pods"), "large"));
}

#[test]
fn a_folders_pod_leaves_its_own_to_the_next_of_the_same_author() {
    let rig = Rig::new();
    let folder = rig.recipe("me/keeper", KEEPER, "python = \">=3.9\"");
    let folder = folder.to_str().unwrap();
    assert_eq!(found(&call(&rig, folder, "mine")), [""; 0]);
    assert_eq!(found(&call(&rig, folder, "again")), ["loaded", "mine"]);
}

/// Whether the name of a file below `folder` contains `part`.
fn holds(folder: &Path, part: &str) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| path.to_str().unwrap().contains(part) || (path.is_dir() && holds(&path, part)))
}

/// Its case writes when it begins, and ends when the test answers.
const WAITER: &str = r#"import os, pathlib, time
FOLDER = os.environ["WAITS_IN"]
class Subject:
    def load(self, models):
        (pathlib.Path(os.environ["XDG_CACHE_HOME"]) / "loaded").write_text("code")
    def run(self, input):
        if input["text"] == "case":
            pathlib.Path(FOLDER, "begun").touch()
            while not os.path.exists(os.path.join(FOLDER, "open")):
                time.sleep(0.02)
        return {"text": input["text"]}
"#;

#[test]
fn what_is_being_kept_while_its_recipe_is_removed_goes_too() {
    let (rig, signed) = (Rig::new(), Signed::new());
    let (folder, gate) = (signed.folder.path().join("waiter"), signed.folder.path().join("gate"));
    fs::create_dir(&gate).unwrap();
    let asks = format!("python = \">=3.9\"\nenv = {{ WAITS_IN = \"{0}\" }}\n\n[permissions]\nwrite = [\"{0}\"]\n", gate.display());
    write_recipe(&folder, "lab/waiter", "0.1.0", WAITER, &asks);
    fs::write(folder.join("cases/one/input.json"), br#"{"operation": "run", "input": {"text": "case"}}"#).unwrap();
    fs::write(folder.join("cases/one/output.json"), br#"{"text": "case"}"#).unwrap();
    signed.publish(&folder);
    rig.trust(&signed.url(), &signed.repository);
    rig.hob(&["add", "lab/waiter", "--grant"]).well();
    let mut command = rig.command(&["call", "lab/waiter", "run", r#"{"text": "a"}"#]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("keeping what the libraries of lab/waiter compiled")), "it is not filled");
    while !gate.join("begun").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before its case began");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rig.hob(&["remove", "lab/waiter"]).well();
    fs::write(gate.join("open"), "").unwrap();
    let rest: Vec<String> = said.collect();
    assert!(!rest.iter().any(|line| line.contains("not kept")), "it was not kept at all: {rest:?}");
    assert!(child.wait().unwrap().success());
    assert!(!rig.home.join("cache/pods/lab/waiter").exists());
}
