//! What several tests need: a host of its own home, recipe folders, processes that are gone.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hob::{
    host::{Config, Host},
    model::{Call, Fault, Home, Outcome},
};
use serde_json::Value;
use tempfile::TempDir;

/// A host whose every file lies in a temporary folder.
pub struct Rig {
    pub folder: TempDir,
    pub host: Host,
}

impl Rig {
    pub async fn new() -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::open(Config::new(Home::at(folder.path().join("home")))).await.unwrap();
        Rig { folder, host }
    }

    /// A recipe in Python with one operation `run` that takes and gives anything; `streaming` as said.
    pub fn python(&self, name: &str, source: &str, streaming: bool) -> PathBuf {
        let pod = "runtime = \"python\"\nentry = \"subject:Subject\"\npython = \">=3.9\"";
        let folder = self.recipe(name, pod, streaming);
        std::fs::write(folder.join("pod/subject.py"), source).unwrap();
        folder
    }

    /// A recipe whose pod is a program of tests/pods, which speaks the protocol by hand.
    pub fn hostile(&self, file: &str) -> PathBuf {
        let pod = format!("runtime = \"executable\"\nentry = \"pod/{file}\"\nstart_timeout_ms = 5000");
        let folder = self.recipe(file.trim_end_matches(".py"), &pod, false);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods");
        for file in [file, "raw.py"] {
            std::fs::copy(source.join(file), folder.join("pod").join(file)).unwrap();
        }
        folder
    }

    fn recipe(&self, name: &str, pod: &str, streaming: bool) -> PathBuf {
        let folder = self.folder.path().join("recipes").join(name);
        std::fs::create_dir_all(folder.join("pod")).unwrap();
        let name = name.replace('_', "-");
        let manifest = format!(
            "name = \"test/{name}\"\nversion = \"0.1.0\"\nlicense = \"Apache-2.0\"\nsummary = \"For a test\"\nhob = \"0.1\"\n\
             [pod]\n{pod}\n[operations.run]\nsummary = \"Runs\"\ninput = {{}}\noutput = {{}}\nstreaming = {streaming}\n"
        );
        std::fs::write(folder.join("recipe.toml"), manifest).unwrap();
        folder
    }

    pub async fn run(&self, recipe: &Path, input: Value) -> Result<Outcome, Fault> {
        self.host.call(call(recipe, input)).await
    }
}

pub fn call(recipe: &Path, input: Value) -> Call {
    Call::new(&recipe.display().to_string(), "run", input).unwrap()
}

/// Waits until `done`, at most `seconds`; panics with `what` otherwise.
pub async fn within(seconds: u64, what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process exists and is not just waiting to be reaped.
pub fn is_running(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !matches!(stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()), Some("Z" | "X")),
        Err(_) => false,
    }
}
