//! Helpers of several tests: a host with its own home, recipe folders, checks that processes are gone.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hob::{
    author::{keys::Keys, pack::pack, publish::publish, repository},
    host::{Config, Consent, Host},
    model::{Call, Fault, Home, Outcome, RecipeName, Silent},
    shelf::repository::Trust,
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
        Rig::without(&[]).await
    }

    /// The same, on a machine without these layers of the sandbox.
    pub async fn without(layers: &[&str]) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let host = host_without(folder.path(), layers).await;
        Rig { folder, host }
    }

    /// A recipe in Python with one operation `run` that takes and returns any value; `streaming`: whether it
    /// streams.
    pub fn python(&self, name: &str, source: &str, streaming: bool) -> PathBuf {
        self.pool(name, source, "", &format!("streaming = {streaming}"))
    }

    /// A recipe in Python with one operation `run` that takes and returns any value; `pod` and `run` are
    /// further lines of the manifest, for `[pod]` and for `[operations.run]`.
    pub fn pool(&self, name: &str, source: &str, pod: &str, run: &str) -> PathBuf {
        recipe_at(self.folder.path(), name, source, pod, run)
    }

    /// A recipe of one file of tests/pods, with further lines for `[pod]`: a program that speaks the protocol
    /// itself, or (without `#!`) a class `Pod` for the real runner.
    pub fn hostile(&self, file: &str, pod: &str) -> PathBuf {
        self.hostile_with(file, pod, "")
    }

    /// The same, with further lines for `[operations.run]`.
    pub fn hostile_with(&self, file: &str, pod: &str, run: &str) -> PathBuf {
        let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods");
        let stem = file.trim_end_matches(".py");
        let runtime = match std::fs::read_to_string(kit.join(file)).unwrap().starts_with("#!") {
            true => format!("runtime = \"executable\"\nentry = \"pod/{file}\""),
            false => format!("runtime = \"python\"\nentry = \"{stem}:Pod\"\npython = \">=3.9\""),
        };
        let folder = write_recipe(self.folder.path(), stem, &format!("{runtime}\n{pod}"), run);
        for file in [file, "raw.py"] {
            std::fs::copy(kit.join(file), folder.join("pod").join(file)).unwrap();
        }
        folder
    }

    /// A folder that the pods of this rig's recipes may write to; all else is closed to them.
    pub fn open(&self) -> PathBuf {
        open_at(self.folder.path())
    }

    /// The processes that a file of tests/pods recorded as it began its misdeed, its own first; `None` before
    /// that.
    pub fn fired(&self, file: &str) -> Option<Vec<u32>> {
        let text = std::fs::read_to_string(self.marks().join(file.trim_end_matches(".py"))).ok()?;
        Some(text.split_whitespace().map(|pid| pid.parse().unwrap()).collect())
    }

    /// This lies beside the recipe folders, which are compared at every call and must not change.
    fn marks(&self) -> PathBuf {
        self.folder.path().join("recipes/fired")
    }

    /// Publishes a recipe folder to a signed repository of its own and installs it from there; returns its
    /// name. Calls by name read no recipe folder, so they are as fast as those of users.
    pub async fn install(&self, recipe: &Path) -> RecipeName {
        let case = recipe.join("cases/one");
        std::fs::create_dir_all(&case).unwrap();
        std::fs::write(case.join("input.json"), r#"{"operation": "run", "input": 0}"#).unwrap();
        std::fs::write(case.join("output.json"), "1").unwrap();
        let (repo, keys) = (self.folder.path().join("repo"), Keys::at(self.folder.path().join("keys")));
        let now = jiff::Timestamp::now();
        let made = repository::repo_init(&repo, &keys, now).await.unwrap();
        repository::add_publisher(&repo, &keys, "test", None, now).await.unwrap();
        publish(&repo, &keys, &pack(recipe).unwrap(), &recipe.join("models"), now, &Silent).await.unwrap();
        let trust = Trust::Fingerprint(made.fingerprint.to_string());
        self.host.add_remote("main", repo.to_str().unwrap(), trust).await.unwrap();
        let name: RecipeName = format!("test/{}", recipe.file_name().unwrap().to_str().unwrap()).parse().unwrap();
        self.host.add(&name, Some(&hob::model::VersionRange::ANY), None, &Consent::Give).await.unwrap();
        name
    }

    pub async fn run(&self, recipe: &Path, input: Value) -> Result<Outcome, Fault> {
        self.host.call(call(recipe, input)).await
    }

    /// Lets accepted calls finish, and shuts the host down; then no process of it is left, and no file of a
    /// pod.
    pub async fn close(&self) {
        self.close_within(Duration::from_secs(10)).await;
    }

    /// The same, with at most `drain` for the accepted calls.
    pub async fn close_within(&self, drain: Duration) {
        self.host.shutdown_within(drain).await;
        // The host has seen the end of each pod; the kernel may take a moment to forget a process.
        within(60, "no process is left", || processes_below(self.folder.path()).is_empty()).await;
        assert_eq!(scratch_files(self.folder.path()), [""; 0], "the host leaves no file of a pod");
    }
}

/// Opens a host on the home `home` below `folder`; several may be opened.
pub async fn host_at(folder: &Path) -> Host {
    host_without(folder, &[]).await
}

/// The same, on a machine without these layers of the sandbox.
pub async fn host_without(folder: &Path, layers: &[&str]) -> Host {
    let config = Config::new(Home::at(folder.join("home"))).with_hob(env!("CARGO_BIN_EXE_hob"));
    Host::open(config.without_layers(layers.iter().map(|layer| layer.to_string()))).await.unwrap()
}

/// A recipe folder below `folder/recipes`, with the lines of [`Rig::pool`].
pub fn recipe_at(folder: &Path, name: &str, source: &str, pod: &str, run: &str) -> PathBuf {
    let runtime = "runtime = \"python\"\nentry = \"subject:Subject\"\npython = \">=3.9\"";
    let folder = write_recipe(folder, name, &format!("{runtime}\n{pod}"), run);
    std::fs::write(folder.join("pod/subject.py"), source).unwrap();
    folder
}

/// See [`Rig::open`].
pub fn open_at(folder: &Path) -> PathBuf {
    let open = folder.join("open");
    std::fs::create_dir_all(&open).unwrap();
    open
}

fn write_recipe(below: &Path, name: &str, pod: &str, run: &str) -> PathBuf {
    let folder = below.join("recipes").join(name);
    let fired = below.join("recipes/fired");
    std::fs::create_dir_all(&fired).unwrap();
    // A host that a test runs as a separate process reports to that test.
    let told = std::env::var("HOB_TEST_OPEN").ok().map(PathBuf::from);
    let open: Vec<_> = [Some(fired), Some(open_at(below)), told].into_iter().flatten().map(|path| path.display().to_string()).collect();
    grant(below, &folder.display().to_string(), &format!("write = {open:?}\n"));
    std::fs::create_dir_all(folder.join("pod")).unwrap();
    let name = name.replace('_', "-");
    let manifest = format!(
        "name = \"test/{name}\"\nversion = \"0.1.0\"\nlicense = \"Apache-2.0\"\nsummary = \"For a test\"\nhob = \"0.1\"\n\
         [permissions]\nwrite = {open:?}\n[pod]\n{pod}\n[operations.run]\nsummary = \"Runs\"\ninput = {{}}\noutput = {{}}\n{run}\n"
    );
    std::fs::write(folder.join("recipe.toml"), manifest).unwrap();
    folder
}

/// Writes `table` as the grants of a recipe (by name or folder) into the `hob.toml` of the home below
/// `folder`.
pub fn grant(folder: &Path, recipe: &str, table: &str) {
    let (file, head) = (folder.join("home/hob.toml"), format!("[grants.\"{recipe}\"]\n"));
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    if !before.contains(&head) {
        std::fs::create_dir_all(folder.join("home")).unwrap();
        // In one step, because a host may be reading the file.
        let half = file.with_extension("half");
        std::fs::write(&half, format!("{before}\n{head}{table}")).unwrap();
        std::fs::rename(&half, &file).unwrap();
    }
}

pub fn call(recipe: &Path, input: Value) -> Call {
    Call::new(&recipe.display().to_string(), "run", input).unwrap()
}

/// Waits until `done` returns true, at most `seconds`; then panics with `what`.
pub async fn within(seconds: u64, what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The processes that run below `folder` and call themselves `said`, by this machine's numbers: a pod may
/// have numbers of its own.
pub fn outer(folder: &Path, said: &[u32]) -> Vec<u32> {
    processes_below(folder).into_iter().filter(|pid| inner_number(*pid).is_some_and(|number| said.contains(&number))).collect()
}

/// The number that a process has in its innermost namespace.
pub fn inner_number(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

/// Whether a process exists and is more than a zombie.
///
/// The number that a pod reports as its own is, on this machine, the number of its keeper, which exists as
/// long as any process of the pod does.
pub fn is_running(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !matches!(stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()), Some("Z" | "X")),
        Err(_) => false,
    }
}

/// The running processes of a host whose home lies below `folder`, without this one: its pods, their keepers,
/// and the processes that they started.
pub fn processes_below(folder: &Path) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| *pid != std::process::id() && is_of(*pid, folder) && is_running(*pid)).collect()
}

/// Whether the command line or the environment of a process names something below `folder`, as a pod's HOME
/// does.
pub fn is_of(pid: u32, folder: &Path) -> bool {
    let needle = folder.to_str().unwrap().as_bytes();
    ["cmdline", "environ"].iter().any(|file| {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        text.windows(needle.len()).any(|window| window == needle)
    })
}

/// The files that hosts of the home below `folder` keep for their pods.
pub fn scratch_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.join("home/state/scratch")) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
