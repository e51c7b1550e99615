//! Glue in JavaScript and Python: built from source as `hob build` does, installed, and really called.
//!
//! These guests are whole language engines, made by tools that are fetched from package registries. The tools
//! are kept below `target`; the source folders are copied, so that the tests do not write to them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use hob::{
    author,
    model::{Blame, Call, Code, Event, Fault, Home, Outcome, Silent, limits, progress},
};
use serde_json::{Value, json};

use crate::support::Rig;

struct Script {
    rig: Rig,
    name: String,
}

/// Builds and installs a recipe of `tests/glue`.
async fn installed(language: &str) -> Script {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/glue").join(language);
    let rig = Rig::new().await;
    let folder = rig.folder.path().join(format!("{language}-glue"));
    copy(&source, &folder);
    let (_, bytes) = build(&folder).await.unwrap().expect("the recipe has glue");
    assert!(bytes <= limits::GLUE_COMPONENT_BYTES_MAX);
    let name = rig.install(&folder).await.to_string();
    Script { rig, name }
}

async fn build(folder: &Path) -> Result<Option<(PathBuf, u64)>, Fault> {
    let home = Home::at(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/glue-tools"));
    let silent: progress::Shared = Arc::new(Silent);
    author::build::build(folder, &home, &silent).await
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

impl Script {
    async fn call(&self, operation: &str, input: Value) -> Result<Outcome, Fault> {
        self.rig.host.call(Call::new(&self.name, operation, input).unwrap()).await
    }

    async fn deed(&self, deed: &str) -> Result<Value, Fault> {
        self.call("run", json!(deed)).await.map(|outcome| outcome.output.into_value())
    }

    /// Checks what glue in each of these languages does.
    async fn works(&self) {
        let counted = self.call("count", json!({ "text": "To be or not to be" })).await.unwrap();
        assert_eq!(counted.output.value(), &json!({ "words": 6, "kinds": 4 }));

        let mut run = self.rig.host.start(Call::new(&self.name, "kinds", json!({ "text": "a b a" })).unwrap());
        let mut events = Vec::new();
        while let Some(event) = run.next().await {
            events.push(event);
        }
        let chunks: Vec<_> = events
            .iter()
            .filter_map(|event| if let Event::Chunk { data, .. } = event { Some(data.value().clone()) } else { None })
            .collect();
        assert_eq!(chunks, [json!({ "word": "a" }), json!({ "word": "b" })]);
        assert!(events.contains(&Event::Log { level: "info".into(), message: "3 words".into() }), "{events:?}");

        // The glue's own fault, with the fields of the world.
        let fault = self.deed("refuse").await.unwrap_err();
        assert_eq!((fault.code, fault.hint.as_deref()), (Code::RecipeFailed, Some("send fewer")));
        assert_eq!((&fault.detail["code"], &fault.detail["most"]), (&json!("too_many_words"), &json!(3)));

        // An exception that the glue does not catch.
        let fault = self.deed("throw").await.unwrap_err();
        assert_eq!((fault.code, fault.blame), (Code::GlueCrashed, Blame::Recipe), "{fault:?}");
        let stderr = fault.detail["stderr"].as_str().unwrap();
        assert!(stderr.contains("it went wrong"), "{stderr}");
        assert_eq!(self.deed("print").await.unwrap(), Value::Null);

        for (deed, cap) in [("spin", "CPU time"), ("fill", "memory")] {
            let fault = self.deed(deed).await.unwrap_err();
            assert_eq!((fault.code, fault.detail["cap"].as_str()), (Code::GlueLimit, Some(cap)), "{fault:?}");
        }

        // The same call gives the same run: the guest sees no time pass and no randomness.
        for deed in ["clock", "random"] {
            assert_eq!(self.deed(deed).await.unwrap(), self.deed(deed).await.unwrap(), "{deed}");
        }
        let clock = self.deed("clock").await.unwrap();
        assert_eq!(clock[0], clock[1]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glue_in_javascript_is_built_and_called() {
    if std::process::Command::new("npm").arg("--version").output().is_err() {
        eprintln!("skipped: glue in JavaScript is built with npm, which is not on this machine");
        return;
    }
    let script = installed("javascript").await;
    script.works().await;
    assert_eq!(script.deed("environment").await.unwrap(), json!("undefinedundefinedundefined"));
    script.rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glue_in_python_is_built_and_called() {
    let script = installed("python").await;
    script.works().await;
    let system = json!({
        "variables": 0, "arguments": [], "passwd": "FileNotFoundError", "write": "FileNotFoundError", "socket": "PermissionError", "name": "PermissionError",
    });
    assert_eq!(script.deed("environment").await.unwrap(), system);
    // The printed lines come before the traceback.
    let fault = script.deed("throw").await.unwrap_err();
    let stderr = fault.detail["stderr"].as_str().unwrap();
    assert!(stderr.starts_with("about to fail\n") && stderr.contains("in throws\n"), "{stderr}");
    // An hour passes on the guest's clock and none on the host's: the guest's own time limit is one second.
    assert!(script.deed("sleep").await.unwrap().as_f64().unwrap() >= 3600.0);
    script.rig.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_does_not_load_is_said_to_at_build() {
    let folder = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/glue/python"), folder.path());
    std::fs::write(folder.path().join("glue/glue.py"), "import not_there\n").unwrap();
    let fault = build(folder.path()).await.unwrap_err();
    assert_eq!((fault.code, fault.blame), (Code::BuildFailed, Blame::Recipe));
    assert!(fault.message.contains("No module named 'not_there'"), "{}", fault.message);
    assert!(!folder.path().join("glue.wasm").exists() && !folder.path().join("glue/__pycache__").exists());

    std::os::unix::fs::symlink("/etc", folder.path().join("glue/link")).unwrap();
    let fault = build(folder.path()).await.unwrap_err();
    assert!(fault.message.contains("is neither a file nor a folder"), "{}", fault.message);
}

/// `npm` is a script here that never ends: the one that a build starts is gone with the build, however the
/// build ends.
#[test]
fn what_fetches_a_tool_ends_with_its_host() {
    use std::os::unix::fs::PermissionsExt;
    let rig = crate::cli::rig::Rig::new();
    let (folder, at) = (rig.folder.path().join("glue"), rig.folder.path().join("pid"));
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/glue/javascript"), &folder);
    let programs = rig.folder.path().join("programs");
    let half = format!("{0}.half", at.display());
    for (name, script) in
        [("node", "echo v20.0.0".to_owned()), ("npm", format!("echo $$ > {half}; mv {half} {}; exec sleep 300", at.display()))]
    {
        crate::cli::rig::put(&programs.join(name), format!("#!/bin/sh\n{script}\n").as_bytes());
        std::fs::set_permissions(programs.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = rig.command(&["build", folder.to_str().unwrap()]);
    command.env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()));
    let mut building = command.spawn().unwrap();
    crate::cli::served::wait_for(&at);
    let npm: u32 = std::fs::read_to_string(&at).unwrap().trim().parse().unwrap();
    assert!(crate::support::is_running(npm));
    building.kill().unwrap();
    building.wait().unwrap();
    let begun = std::time::Instant::now();
    while crate::support::is_running(npm) {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "npm works on");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
