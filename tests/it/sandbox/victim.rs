//! The target of hostile pods: a process with files, sockets and secrets of its own.
//!
//! All acts use the same target. Another one is attacked outside of any sandbox, to show that the acts work.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::ordinary::open_folder;

/// The path of the hostile programs, for a test that runs as another user.
pub const PROGRAMS: &str = "HOB_TEST_PROGRAMS";

/// The expected result of each act: the errnos that deny it, and the user who can do it outside.
pub type Table = BTreeMap<String, (Vec<String>, String)>;

/// The process, and the programs to attack it with.
pub struct Victim {
    pub folder: TempDir,
    /// The targets, as it reports them.
    pub targets: Value,
    python: PathBuf,
    process: Child,
}

impl Victim {
    pub fn new() -> Victim {
        let folder = open_folder();
        write_programs(folder.path());
        let python = std::env::var_os("HOB_PYTHON").map_or_else(|| crate::cli::rig::tools().0.clone(), PathBuf::from);
        let mut process = Command::new(&python)
            .args(["-I", "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import acts; acts.main(sys.argv[2:])"])
            .args([folder.path(), Path::new("victim"), folder.path()])
            .env("HOB_TEST_SECRET", "of the victim")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut targets: Value = serde_json::from_str(&line).unwrap();
        targets["victim"] = json!(process.id());
        targets["group"] = json!(rustix::process::getpgrp().as_raw_nonzero().get());
        Victim { folder, targets, python, process }
    }

    /// The acts to try, from the file and not from a pod.
    pub fn table(&self) -> Table {
        serde_json::from_slice(&self.program(&["table"])).unwrap()
    }

    /// The result of each act without a sandbox, on targets that nobody needs.
    pub fn attacked_outside(&self) -> BTreeMap<String, String> {
        let tame = open_folder();
        let at = |path: &str| tame.path().join(path).display().to_string();
        for file in [
            "home/hob.toml",
            "home/hob.lock",
            "recipe/recipe.toml",
            "recipe/pod/acts.py",
            "environment/six.py",
            "environment/other.py",
            "runner/keeper.py",
            "model",
            "python",
            "folder/secret",
            "scratch/other/mine",
            "page",
        ] {
            fs::create_dir_all(Path::new(&at(file)).parent().unwrap()).unwrap();
            fs::write(at(file), "tame").unwrap();
        }
        let mut targets = self.targets.clone();
        for key in ["home", "recipe", "environment", "runner", "model", "python", "folder", "page"] {
            targets[key] = json!(at(key));
        }
        targets["other"] = json!(at("scratch/other"));
        targets["file"] = json!(at("environment/other.py"));
        targets["tame"] = json!(true);
        for who in ["host", "keeper"] {
            targets[who] = targets["victim"].clone();
        }
        serde_json::from_slice(&self.program(&["try", &targets.to_string()])).unwrap()
    }

    fn program(&self, words: &[&str]) -> Vec<u8> {
        let scratch = open_folder();
        let output = Command::new(&self.python)
            .args(["-I", "-B", "-c", "import sys; sys.path.insert(0, sys.argv[1]); import acts; acts.main(sys.argv[2:])"])
            .arg(self.folder.path())
            .args(words)
            .env("TMPDIR", scratch.path())
            .env("HOB_TEST_SECRET", "of the host")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It ends when its input ends.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The hostile pod's modules.
pub fn write_programs(folder: &Path) {
    let given = std::env::var_os(PROGRAMS).map(PathBuf::from);
    let from = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox"));
    for name in ["acts.py", "table.py"] {
        fs::write(folder.join(name), fs::read(from.join(name)).unwrap()).unwrap();
    }
}
