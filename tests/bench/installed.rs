//! A home with recipes installed, as anyone would have them: out of a signed repository.
//!
//! Apart from the benchmarks because a recipe that is called by its folder is read again for every call,
//! which would measure something else.

// Each benchmark installs the recipes that it needs.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use hob::{
    author::{self, keys::Keys, repository},
    host::{Config, Consent, Host},
    model::{Fault, Home, Silent, progress},
    shelf::repository::Trust,
};
use jiff::Timestamp;
use tempfile::TempDir;

use super::support;

/// The recipe without glue, and the one with the same pod behind glue in Rust.
pub const STRAIGHT: &str = "hob/echo";
pub const GLUED: &str = "hob/echo-glue";
/// `hob/echo` with a pool of up to two pods.
pub const TWO: &str = "hob/echo-two";
/// What is made to crash and to be cancelled; see `unruly/`.
pub const UNRULY: &str = "hob/unruly";
/// Gives back an array of the size of the one that it is given; see `bytes/`.
pub const BYTES: &str = "hob/bytes";
/// `hob/echo` with sessions.
pub const SEATED: &str = "hob/echo-seated";
/// The shipped one, with one thread for each pod.
pub const EMBEDDINGS: &str = "hob/sentence-embeddings";

/// Wheels whose import is measured, of the environment that a lock describes.
pub struct Wheels {
    pub name: &'static str,
    pub modules: &'static [&'static str],
    pub lock: &'static str,
}

/// What keeps onnxruntime from starting a thread for its telemetry as soon as it is imported: with one it is
/// not forked.
pub const SILENT: &str = "ORT_DISABLE_TELEMETRY";

/// What recipes preload, from next to nothing up. The last two are 5.6 GB.
pub const WHEELS: &[Wheels] = &[
    Wheels { name: "bare", modules: &["six"], lock: "tests/it/zygotes/requirements.lock" },
    Wheels { name: "numpy", modules: &["numpy"], lock: "tests/it/zygotes/numpy.lock" },
    Wheels { name: "onnxruntime", modules: &["onnxruntime", "tokenizers"], lock: "recipes/sentence-embeddings/pod/requirements.lock" },
    Wheels { name: "torch", modules: &["torch"], lock: "tests/reference/requirements.lock" },
    Wheels { name: "sentence-transformers", modules: &["sentence_transformers"], lock: "tests/reference/requirements.lock" },
];

/// The recipe that imports these wheels when it is started; `how` tells those apart that are started in
/// different ways, and is `forked` for the one that preloads them.
pub fn starting(wheels: &Wheels, how: &str) -> String {
    format!("hob/start-{}-{how}", wheels.name)
}

/// `hob/echo` again, under the name of `hob/echo-<number>`.
pub fn numbered(number: usize) -> String {
    format!("hob/echo-{number}")
}

/// A home of this run's own. Its Python environments and caches are those of the last run: they take long to
/// make.
pub struct Installed {
    pub home: Home,
    pub folder: PathBuf,
    /// The repository and the recipes that it was filled from.
    _scratch: TempDir,
}

/// Signs a repository with these recipes and installs them.
pub async fn install(names: &[&str]) -> Result<Installed, Fault> {
    let scratch = tempfile::tempdir().map_err(|error| Fault::io("making a folder for the benchmark", &error))?;
    let folder = support::folder().join("home");
    clear(&folder).map_err(|error| Fault::io(format!("clearing {}", folder.display()), &error))?;
    let (repo, keys, now) = (scratch.path().join("repository"), Keys::at(scratch.path().join("keys")), Timestamp::now());
    let root = repository::repo_init(&repo, &keys, now).await?.root;
    repository::add_publisher(&repo, &keys, "hob", None, now).await?;
    for name in names {
        let recipe = recipe(name, scratch.path())?;
        let packed = author::pack::pack(&recipe)?;
        author::publish::publish(&repo, &keys, &packed, &recipe.join("models"), now, &Silent).await?;
    }
    let home = Home::at(folder.clone());
    let host = Host::open(Config::new(home.clone()).with_hob(env!("CARGO_BIN_EXE_hob"))).await?;
    let root = std::fs::read(&root).map_err(|error| Fault::io("reading the root of the repository", &error))?;
    host.add_remote("bench", &format!("file://{}", repo.display()), Trust::Root(root)).await?;
    for name in names {
        host.add(&name.parse()?, Some(&hob::model::VersionRange::ANY), None, &Consent::Required).await?;
    }
    host.shutdown().await;
    Ok(Installed { home, folder, _scratch: scratch })
}

/// Forgets what the last run installed and trusted; what cannot depend on it stays.
fn clear(home: &Path) -> std::io::Result<()> {
    for path in ["hob.toml", "hob.lock"] {
        match std::fs::remove_file(home.join(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for path in ["data/recipes", "data/models", "data/remotes", "data/staging", "state"] {
        match std::fs::remove_dir_all(home.join(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The folder of a recipe.
fn recipe(name: &str, scratch: &Path) -> Result<PathBuf, Fault> {
    let shipped = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    Ok(match name {
        STRAIGHT => shipped("recipes/echo"),
        GLUED => glued()?,
        UNRULY => support::source("unruly"),
        BYTES => bytes(scratch)?,
        SEATED => {
            // Nothing is kept while it is measured: what a checkpoint costs is its class's doing.
            changed(&shipped("recipes/echo"), name, "session = { mode = \"exclusive\", checkpoint_interval_ms = 0 }", scratch)?
        }
        TWO => changed(&shipped("recipes/echo"), name, "max = 2", scratch)?,
        EMBEDDINGS => changed(&shipped("recipes/sentence-embeddings"), name, "threads = 1", scratch)?,
        _ => match WHEELS.iter().find(|wheels| name.strip_prefix("hob/start-").and_then(|rest| rest.strip_prefix(wheels.name)).is_some()) {
            Some(wheels) => with_wheels(wheels, name, scratch)?,
            None => changed(&shipped("recipes/echo"), name, "", scratch)?,
        },
    })
}

/// A copy of a recipe under another name and with another line in its `[pod]`.
fn changed(recipe: &Path, name: &str, line: &str, scratch: &Path) -> Result<PathBuf, Fault> {
    let copy = scratch.join(name);
    let failed = |error: std::io::Error| Fault::io(format!("copying {}", recipe.display()), &error);
    copy_folder(recipe, &copy).map_err(failed)?;
    let path = copy.join("recipe.toml");
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let was = text.lines().next().expect("a manifest has lines");
    assert!(was.starts_with("name = ") && text.contains("\n[pod]\n"), "{}: not as this expects it", path.display());
    let text = text.replacen(was, &format!("name = \"{name}\""), 1).replacen("\n[pod]\n", &format!("\n[pod]\n{line}\n"), 1);
    std::fs::write(&path, text).map_err(failed)?;
    Ok(copy)
}

/// A copy of `start/` that imports these wheels.
fn with_wheels(wheels: &Wheels, name: &str, scratch: &Path) -> Result<PathBuf, Fault> {
    let preload = if name.ends_with("-forked") { format!("\npreload = {:?}", wheels.modules) } else { String::new() };
    // Two at all times: one more than one is an extra one. Two on two cores have a thread each.
    let copy = changed(
        &support::source("start"),
        name,
        &format!("min = 2\nmax = 2\nthreads = 1\nenv = {{ {SILENT} = \"1\" }}{preload}"),
        scratch,
    )?;
    let failed = |error: std::io::Error| Fault::io(format!("writing {}", copy.display()), &error);
    std::fs::write(copy.join("pod/wheels.py"), format!("WHEELS = {:?}\n", wheels.modules)).map_err(failed)?;
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(wheels.lock), copy.join("pod/requirements.lock")).map_err(failed)?;
    Ok(copy)
}

/// A copy of `bytes/` with the lock of its one wheel.
fn bytes(scratch: &Path) -> Result<PathBuf, Fault> {
    let copy = changed(&support::source("bytes"), BYTES, "", scratch)?;
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/zygotes/numpy.lock");
    std::fs::copy(&lock, copy.join("pod/requirements.lock")).map_err(|error| Fault::io(format!("copying {}", lock.display()), &error))?;
    Ok(copy)
}

/// Copies what a recipe is made of, without build outputs. Models are large and nobody writes into them: a
/// link will do.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if ["target", ".build", "__pycache__"].iter().any(|left_out| name == *left_out) {
            continue;
        }
        match path.is_dir() {
            true => copy_folder(&path, &to.join(name))?,
            false if from.ends_with("models") && std::fs::hard_link(&path, to.join(&name)).is_ok() => {}
            false => drop(std::fs::copy(&path, to.join(name))?),
        }
    }
    Ok(())
}

/// Puts the recipe with glue together below `target`, where its own build folder can stay, and builds it.
fn glued() -> Result<PathBuf, Fault> {
    let recipe = support::folder().join("echo_glue");
    for (from, to) in [
        ("tests/bench/echo_glue/recipe.toml", "recipe.toml"),
        ("tests/bench/echo_glue/glue/Cargo.toml", "glue/Cargo.toml"),
        ("tests/bench/echo_glue/glue/Cargo.lock", "glue/Cargo.lock"),
        ("tests/bench/echo_glue/glue/src/lib.rs", "glue/src/lib.rs"),
        ("wit/glue.wit", "glue/wit/glue.wit"),
        ("recipes/echo/pod/echo.py", "pod/echo.py"),
        ("recipes/echo/cases/hello/input.json", "cases/hello/input.json"),
        ("recipes/echo/cases/hello/output.json", "cases/hello/output.json"),
    ] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(from);
        copy(&source, &recipe.join(to)).map_err(|error| Fault::io(format!("copying {from}"), &error))?;
    }
    // A thread of its own: this one may be a runtime's, which can neither wait for another nor end one.
    let home = Home::at(support::folder().join("home"));
    let silent: progress::Shared = std::sync::Arc::new(Silent);
    let build = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime needs nothing");
        runtime.block_on(author::build::build(&recipe, &home, &silent))
    };
    std::thread::scope(|scope| scope.spawn(build).join().expect("a build does not panic"))?;
    Ok(recipe)
}

/// Copies a file unless it is there already: cargo builds again what has a new time.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let bytes = std::fs::read(from)?;
    if std::fs::read(to).is_ok_and(|found| found == bytes) {
        return Ok(());
    }
    std::fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
    std::fs::write(to, bytes)
}
