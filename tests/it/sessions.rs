//! Sessions: a pod that is kept by name, and the state that is kept when it ends.

mod crashes;
mod doors;
mod lives;
mod misdeeds;

use std::path::{Path, PathBuf};

use hob::{
    host::Host,
    model::{Call, Event, Fault, RecipeRef, status::session::SessionStatus},
};
use serde_json::{Value, json};

use crate::support::{Rig, call};

/// A counter whose state is a dict. `do` may be `add`, `sleep`, `die`, `break` or `who`.
const COUNTER: &str = r#"
import os, time
import hob_pod

class Subject:
    def __init__(self):
        self.count, self.broken, self.restored = 0, False, False

    def run(self, input):
        do = input.get("do", "add")
        if do == "add":
            self.count += 1
        elif do == "sleep":
            time.sleep(input["seconds"])
        elif do == "die":
            self.count += 1
            os._exit(3)
        elif do == "break":
            self.broken = input["how"]
        return {"count": self.count, "session": hob_pod.session(), "pid": os.getpid(), "restored": self.restored}

    def checkpoint(self):
        if self.broken == "raise":
            raise RuntimeError("the state is in a mess")
        if self.broken == "large":
            return bytes((256 << 20) + 1)
        if self.broken == "kind":
            return 3
        return {"count": self.count}

    def restore(self, data):
        self.count, self.restored = data["count"], True
"#;

/// The same counter without a checkpoint.
fn forgetful() -> String {
    COUNTER[..COUNTER.find("    def checkpoint").unwrap()].to_owned()
}

/// A recipe whose `run` wants a session; `session` are the keys of `[pod.session]`.
fn recipe(rig: &Rig, name: &str, source: &str, session: &str, run: &str) -> PathBuf {
    rig.pool(name, source, &format!("session = {{ {session} }}"), &format!("session = true\n{run}"))
}

fn in_session(recipe: &Path, name: &str, input: Value) -> Call {
    call(recipe, input).in_session(name)
}

async fn run(host: &Host, recipe: &Path, name: &str, input: Value) -> Result<Value, Fault> {
    host.call(in_session(recipe, name, input)).await.map(|outcome| outcome.output.into_value())
}

async fn add(host: &Host, recipe: &Path, name: &str) -> u64 {
    run(host, recipe, name, json!({})).await.unwrap()["count"].as_u64().unwrap()
}

/// The output, and the events of the call about its session.
async fn told(host: &Host, call: Call) -> (Result<Value, Fault>, Vec<Value>) {
    let mut running = host.start(call);
    let mut told = Vec::new();
    while let Some(event) = running.next().await {
        match event {
            Event::Progress { data } if data["session"] == "resumed" => told.push(data),
            _ => {}
        }
    }
    (running.outcome().await.map(|outcome| outcome.output.into_value()), told)
}

fn word(recipe: &Path) -> RecipeRef {
    recipe.display().to_string().parse().unwrap()
}

async fn only(host: &Host) -> SessionStatus {
    let sessions = host.sessions().await.unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    sessions.into_iter().next().unwrap()
}

/// The folders of sessions on the disk.
fn session_folders(rig: &Rig) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(rig.folder.path().join("home/state/sessions")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}
