//! Environments of pods: real interpreters, a real `uv`, one tiny wheel.
//!
//! These tests start programs and ask the package index for 11 KB. If there is no `uv` on PATH, Hob fetches
//! one in its own way, once for all tests.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hob::{
    host::WithinWalls,
    model::{Code, Fault, Home, Progress, Silent, Step, progress},
    shelf::environment::{
        self, Environment, Existing, Wanted,
        indexes::Indexes,
        python::{self, Python},
        tools::Tools,
        uv,
    },
};
use semver::VersionReq;

const LOCK: &str = "six==1.17.0 \\\n    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n";

fn quiet() -> progress::Shared {
    Arc::new(Silent)
}

fn range(text: &str) -> VersionReq {
    VersionReq::parse(text).unwrap()
}

async fn any_python() -> Python {
    python::find(&range(">=3.9"), None).await.unwrap()
}

/// A `uv` for all tests of this binary.
async fn real_uv() -> PathBuf {
    let home = Home::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools"));
    uv::find(&home, &Tools::default(), &any_python().await, &quiet()).await.unwrap().path
}

/// A `uv` that writes a line to `log` for each sync, and first waits while the file `hold` exists.
async fn counted_uv(folder: &Path) -> PathBuf {
    let (path, real) = (folder.join("uv"), real_uv().await);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *sync*)\n  echo sync >> {0}/log\n  while [ -e {0}/hold ]; do sleep 0.05; done;;\nesac\nexec {1} \"$@\"\n",
        folder.display(),
        real.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn syncs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("log")).unwrap_or_default().lines().count()
}

async fn ensure(
    home: &Home,
    tools: &Tools,
    lock: &str,
    python: &Python,
    existing: Existing,
    progress: &progress::Shared,
) -> Result<Environment, Fault> {
    ensure_without(home, tools, lock, python, existing, progress, &[]).await
}

/// Ensures the environment on a machine without these layers of the sandbox.
async fn ensure_without(
    home: &Home,
    tools: &Tools,
    lock: &str,
    python: &Python,
    existing: Existing,
    progress: &progress::Shared,
    layers: &[&str],
) -> Result<Environment, Fault> {
    // The runner lies elsewhere, because some homes here have no room, or must stay empty.
    let runner = Home::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("tools"));
    let compiler = WithinWalls::of(&runner, layers.iter().map(|layer| (*layer).to_owned()).collect()).unwrap();
    let wanted = Wanted {
        lock: lock.as_bytes(),
        what: "requirements.lock",
        python,
        existing,
        indexes: tools.indexes.for_tools(),
        label: "test/recipe",
        compiler: &compiler,
    };
    environment::ensure(home, tools, &wanted, progress).await
}

async fn build(home: &Home, uv: &Path, lock: &str, existing: Existing) -> Result<Environment, Fault> {
    let python = any_python().await;
    let tools = Tools::default().with_uv(uv.to_owned());
    ensure(home, &tools, lock, &python, existing, &quiet()).await
}

fn runs(environment: &Environment, code: &str) -> bool {
    let code = format!("import sys; sys.path.append({:?}); {code}", environment.site_packages.to_str().unwrap());
    Command::new(&environment.python).args(["-I", "-S", "-B", "-c", &code]).status().unwrap().success()
}

fn writable(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o222 != 0
}

/// A process that the tests below start; run by itself, it does nothing.
#[test]
fn a_process_of_its_own_builds_where_it_is_told() {
    let (Some(root), Some(uv)) = (std::env::var_os("HOB_TEST_BUILD_HOME"), std::env::var_os("HOB_TEST_BUILD_UV")) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(build(&Home::at(PathBuf::from(root)), Path::new(&uv), LOCK, Existing::Trust)).unwrap();
}

fn builder(root: &Path, uv: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::a_process_of_its_own_builds_where_it_is_told"]);
    command.env("HOB_TEST_BUILD_HOME", root).env("HOB_TEST_BUILD_UV", uv).stdout(Stdio::null());
    command
}

fn start_builder(root: &Path, uv: &Path) -> std::process::Child {
    builder(root, uv).spawn().unwrap()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_holds_what_its_lock_says_and_is_read_only() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let environment = build(&home, &real_uv().await, LOCK, Existing::Verify).await.unwrap();
    assert!(runs(&environment, "import six; assert six.__version__ == '1.17.0'; assert six.__file__.startswith(sys.path[-1])"));
    assert!(environment.folder.ends_with(environment.digest.hex()));
    for path in [&environment.folder, &environment.site_packages, &environment.site_packages.join("six.py")] {
        assert!(!writable(path), "{} can be written", path.display());
    }
    let compiled = fs::read_dir(environment.site_packages.join("__pycache__")).unwrap().count();
    assert!(compiled > 0, "no bytecode");
    assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0, "staging is left behind");
    // The file has no hard link in the cache, so writing here does not change the cache.
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(environment.site_packages.join("six.py")).unwrap()), 1);

    environment::verify(&home, environment.digest).unwrap();
    assert_eq!(environment::open(&home, environment.digest).unwrap().unwrap().site_packages, environment.site_packages);
    assert_eq!(environment::all(&home).unwrap(), [environment.digest]);
    // One whose lock cannot be had is not said to be missing, which would have it built anew under its users.
    let lock = home.locks().join(format!("environment-{}.lock", environment.digest.short()));
    let aside = lock.with_extension("aside");
    fs::rename(&lock, &aside).unwrap();
    fs::create_dir(&lock).unwrap();
    let fault = environment::open(&home, environment.digest).unwrap_err();
    assert!(fault.code == Code::Io && fault.message.contains(".lock"), "{fault:?}");
    fs::remove_dir(&lock).unwrap();
    fs::rename(&aside, &lock).unwrap();
    assert!(!environment::remove(&home, environment.digest).unwrap(), "deleted under its user");
    let digest = environment.digest;
    drop(environment);
    assert!(environment::remove(&home, digest).unwrap());
    assert!(environment::open(&home, digest).unwrap().is_none());
    assert_eq!(fs::read_dir(home.environments()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_and_processes_that_want_the_same_environment_build_it_once() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path().join("home"));
    let uv = counted_uv(root.path()).await;
    fs::write(root.path().join("hold"), "").unwrap();
    let mut others: Vec<_> = (0..2).map(|_| start_builder(&root.path().join("home"), &uv)).collect();
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (home, uv) = (home.clone(), uv.clone());
            tokio::spawn(async move { build(&home, &uv, LOCK, Existing::Trust).await })
        })
        .collect();
    until("the first sync", || syncs(root.path()) > 0).await;
    // The other processes have time to begin a build of their own, if that were possible.
    tokio::time::sleep(Duration::from_millis(700)).await;
    fs::remove_file(root.path().join("hold")).unwrap();
    for thread in threads {
        thread.await.unwrap().unwrap();
    }
    for other in &mut others {
        assert!(other.wait().unwrap().success());
    }
    assert_eq!(syncs(root.path()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_in_the_middle_the_next_build_succeeds_and_the_rubbish_goes() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path().join("home"));
    let uv = counted_uv(root.path()).await;
    fs::write(root.path().join("hold"), "").unwrap();
    let mut killed = start_builder(&root.path().join("home"), &uv);
    until("a build in its middle", || syncs(root.path()) > 0).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(environment::all(&home).unwrap(), []);
    let left = || fs::read_dir(home.staging()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(left(), 1, "killed too late to show anything");
    // The process waits for a file that nobody removes, and ends all the same: the kernel ends it together
    // with the process that started it.
    let script = uv.display().to_string();
    until("uv to be gone", || !processes_with(&script)).await;

    let uv = real_uv().await;
    let environment = build(&home, &uv, LOCK, Existing::Verify).await.unwrap();
    assert!(runs(&environment, "import six"));
    environment::verify(&home, environment.digest).unwrap();
    // The next build sweeps the folder as soon as no process of the killed build holds the lock.
    let mut number = 0;
    until("an empty staging folder", || {
        number += 1;
        // Each try uses another environment: its lock allows one file more.
        let other = format!("{} --hash=sha256:{number:064x}\n", LOCK.trim_end());
        let sweep = build(&home, &uv, &other, Existing::Trust);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(sweep)).unwrap();
        fs::read_dir(home.staging()).unwrap().count() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_ends_uv_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path().join("home"));
    let uv = counted_uv(root.path()).await;
    fs::write(root.path().join("hold"), "").unwrap();
    let task = {
        let (home, uv) = (home.clone(), uv.clone());
        tokio::spawn(async move { build(&home, &uv, LOCK, Existing::Trust).await })
    };
    until("a build in its middle", || syncs(root.path()) > 0).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    until("staging to be empty", || fs::read_dir(home.staging()).unwrap().count() == 0).await;
    let script = uv.display().to_string();
    until("uv to be gone", || !processes_with(&script)).await;
}

/// Whether a process runs whose command line contains `text`.
fn processes_with(text: &str) -> bool {
    fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok()).any(|line| {
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(text)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_environment_is_named_by_verify_and_not_adopted() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let uv = real_uv().await;
    let environment = build(&home, &uv, LOCK, Existing::Trust).await.unwrap();
    let tree = environment::tree_digest(&home, environment.digest).unwrap();
    let file = environment.site_packages.join("six.py");
    let before = fs::read(&file).unwrap();
    let set = |mode: u32| {
        for path in [&file, &environment.site_packages] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode | if path.is_dir() { 0o111 } else { 0 })).unwrap();
        }
    };
    let named = |what: &str| {
        let fault = environment::verify(&home, environment.digest).unwrap_err();
        assert_eq!(fault.code, Code::ShelfAltered);
        assert!(fault.message.contains(what), "{}", fault.message);
    };
    set(0o644);
    fs::write(&file, [before.as_slice(), b"\nimport os\n"].concat()).unwrap();
    set(0o444);
    named("site-packages/six.py` was altered");
    let fault = build(&home, &uv, LOCK, Existing::Verify).await.unwrap_err();
    assert_eq!(fault.code, Code::ShelfAltered);
    assert!(build(&home, &uv, LOCK, Existing::Trust).await.is_ok(), "trusting asks for no check");

    set(0o644);
    fs::remove_file(&file).unwrap();
    named("six.py` is missing");
    fs::write(&file, &before).unwrap();
    fs::write(environment.site_packages.join("sitecustomize.py"), "").unwrap();
    set(0o444);
    named("sitecustomize.py` was added");
    set(0o644);
    fs::remove_file(environment.site_packages.join("sitecustomize.py")).unwrap();
    set(0o444);
    environment::verify(&home, environment.digest).unwrap();

    // A replaced record does not pass either, because its own digest is pinned elsewhere.
    let record = home.environments().join(format!("{}.tree", environment.digest));
    fs::write(&record, "hob environment 2\nhob-tree 1\n").unwrap();
    named("was added");
    assert_ne!(environment::tree_digest(&home, environment.digest).unwrap(), tree);
    fs::remove_file(&record).unwrap();
    named("is missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_without_hashes_is_refused_by_line_before_anything_runs() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let fault = build(&home, Path::new("/no/uv"), &format!("# lock\n{LOCK}idna==3.10\n"), Existing::Trust).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidRecipe);
    assert!(fault.message.contains("requirements.lock:4: `idna==3.10` has no hash"), "{}", fault.message);
    assert!(!home.environments().exists() && !home.staging().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_the_lock_pins_are_refused_with_what_uv_said() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let fault = build(&home, &real_uv().await, &LOCK.replace("4721f391", "4721f392"), Existing::Trust).await.unwrap_err();
    assert_eq!(fault.code, Code::EnvironmentFailed);
    assert!(fault.message.to_lowercase().contains("hash") && fault.message.contains("six"), "{}", fault.message);
    assert_eq!(environment::all(&home).unwrap(), []);
    assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uv_that_the_user_named_is_used_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path());
    let script = |name: &str, text: &str| {
        let path = root.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let (old, other) = (script("old", "echo 'uv 0.1.2 (abc)'"), script("other", "echo ultraviolet"));
    for (path, says) in [(Path::new("/no/such/uv"), "No such file"), (&old, "version 0.1.2"), (&other, "printed `ultraviolet`")] {
        let fault = build(&home, path, LOCK, Existing::Trust).await.unwrap_err();
        assert_eq!(fault.code, Code::UvMissing);
        assert!(fault.message.contains(path.to_str().unwrap()) && fault.message.contains(says), "{}", fault.message);
        assert!(fault.hint.unwrap().contains("HOB_UV"));
    }
    assert!(!home.tools().exists(), "another uv was fetched in silence");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_uv_and_no_pip_says_what_was_tried_and_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path().join("home"));
    // A `uv` on PATH that is too old is skipped; the interpreter has no pip.
    for (name, text) in [("uv", "echo 'uv 0.1.2'"), ("python3", "echo 'No module named pip' >&2; exit 1")] {
        fs::write(root.path().join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let python = Python { executable: root.path().join("python3"), ..any_python().await };
    let fault = uv::find_in(&home, &Tools::default(), root.path().as_os_str(), &python, &quiet()).await.unwrap_err();
    assert_eq!(fault.code, Code::UvMissing);
    assert!(fault.message.contains("on PATH") && fault.message.contains("No module named pip"), "{}", fault.message);
    assert!(fault.hint.unwrap().contains("HOB_UV"));
    assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_during_a_build_is_named_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let Some(_disk) = crate::shelf::SmallDisk::mount(&root.path().join("home"), 128 << 10) else { return };
    let home = Home::at(root.path().join("home"));
    let fault = build(&home, &real_uv().await, LOCK, Existing::Trust).await.unwrap_err();
    assert_eq!(fault.code, Code::DiskFull, "{fault:?}");
    assert_eq!(environment::all(&home).unwrap(), []);
    assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_the_caller_do_not_change_what_is_built() {
    let root = tempfile::tempdir().unwrap();
    let home = Home::at(root.path().join("home"));
    let built = builder(&root.path().join("home"), &real_uv().await)
        .env("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
        .env("UV_NO_INDEX", "1")
        .env("UV_LINK_MODE", "hardlink")
        .env("UV_PYTHON", "/no/python")
        .env("PYTHONHOME", "/no/python")
        .status()
        .unwrap();
    assert!(built.success());
    let environment = environment::open(&home, environment::all(&home).unwrap()[0]).unwrap().unwrap();
    assert!(runs(&environment, "import six"));
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&fs::metadata(environment.site_packages.join("six.py")).unwrap()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_index_is_asked_when_hob_toml_names_one() {
    let root = tempfile::tempdir().unwrap();
    let python = any_python().await;
    // Nobody listens on the discard port of this machine.
    let tools = Tools::default().with_uv(real_uv().await).with_indexes(Indexes::new(["http://127.0.0.1:9/simple"]).unwrap());
    let fault = ensure(&Home::at(root.path()), &tools, LOCK, &python, Existing::Trust, &quiet()).await.unwrap_err();
    assert_eq!(fault.code, Code::EnvironmentFailed);
    assert!(fault.message.contains("127.0.0.1:9"), "{}", fault.message);
    assert!(fault.hint.unwrap().contains("index_urls"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_python_in_range_lists_what_was_found_and_wanted() {
    let fault = python::find(&range(">=3.99"), None).await.unwrap_err();
    assert_eq!(fault.code, Code::PythonMissing);
    let found = any_python().await;
    assert!(fault.message.contains(">=3.99") && fault.message.contains(found.executable.to_str().unwrap()), "{}", fault.message);

    let fault = python::find_in(&range(">=3.9"), None, OsStr::new("/no/folder")).await.unwrap_err();
    assert!(fault.message.contains("found nothing"), "{}", fault.message);
    let fault = python::find(&range(">=3.9"), Some(Path::new("/no/python"))).await.unwrap_err();
    assert!(fault.message.contains("/no/python") && fault.message.contains("cannot be run"), "{}", fault.message);
    let fault = python::find(&range(">=3.9"), Some(Path::new("/bin/echo"))).await.unwrap_err();
    assert!(fault.message.contains("does not answer as Python 3 does"), "{}", fault.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_and_a_virtual_environment_lead_to_the_real_interpreter() {
    let root = tempfile::tempdir().unwrap();
    let real = any_python().await;
    assert!(real.executable.is_absolute() && !real.executable.is_symlink());
    let shim = root.path().join("python3");
    fs::write(&shim, format!("#!/bin/sh\nexec {} \"$@\"\n", real.executable.display())).unwrap();
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(python::find_in(&range(">=3.9"), None, root.path().as_os_str()).await.unwrap(), real);

    let home = Home::at(root.path().join("home"));
    let environment = build(&home, &real_uv().await, "", Existing::Trust).await.unwrap();
    assert_eq!(python::find(&range(">=3.9"), Some(&environment.python)).await.unwrap(), real);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_uv_does_is_told() {
    struct Heard(Mutex<Vec<Step>>);
    impl Progress for Heard {
        fn step(&self, step: Step) {
            self.0.lock().unwrap().push(step);
        }
    }
    let root = tempfile::tempdir().unwrap();
    let heard = Arc::new(Heard(Mutex::new(Vec::new())));
    let shared: progress::Shared = heard.clone();
    let python = any_python().await;
    let tools = Tools::default().with_uv(real_uv().await);
    ensure(&Home::at(root.path()), &tools, LOCK, &python, Existing::Trust, &shared).await.unwrap();
    let steps = heard.0.lock().unwrap();
    let label = "building the environment of test/recipe".to_owned();
    assert_eq!(steps.first(), Some(&Step::Started { label: label.clone(), total_bytes: None }));
    assert!(steps.iter().any(|step| matches!(step, Step::Note { text } if text.contains("six==1.17.0"))), "{steps:?}");
    assert_eq!(steps.last(), Some(&Step::Finished { label }));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_confined_nothing_is_compiled_and_that_is_said() {
    struct Heard(Mutex<Vec<Step>>);
    impl Progress for Heard {
        fn step(&self, step: Step) {
            self.0.lock().unwrap().push(step);
        }
    }
    let python = any_python().await;
    let tools = Tools::default().with_uv(real_uv().await);
    for layer in ["namespaces", "landlock", "seccomp"] {
        let root = tempfile::tempdir().unwrap();
        let heard = Arc::new(Heard(Mutex::new(Vec::new())));
        let shared: progress::Shared = heard.clone();
        let home = Home::at(root.path());
        let environment = ensure_without(&home, &tools, LOCK, &python, Existing::Trust, &shared, &[layer]).await.unwrap();
        assert!(!environment.site_packages.join("__pycache__").exists(), "compiled without {layer}");
        let steps = heard.0.lock().unwrap();
        let said = |step: &Step| matches!(step, Step::Note { text } if text.contains("nothing is compiled") && text.contains(layer));
        assert!(steps.iter().any(said), "{steps:?}");
        assert!(runs(&environment, "import six"));
    }
}
