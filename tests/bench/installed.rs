//! A home with the echo recipes installed, as anyone would have them: out of a signed repository.
//!
//! Apart from the benchmarks because a recipe that is called by its folder is read again for every call, which would
//! measure something else.

use std::path::{Path, PathBuf};

use hob::{
    author::{self, keys::Keys, repository},
    host::{Config, Host},
    model::{Fault, Home, Silent},
    shelf::repository::Trust,
};
use jiff::Timestamp;
use semver::VersionReq;
use tempfile::TempDir;

use super::support;

/// The recipe without glue, and the one with the same pod behind glue in Rust.
pub const STRAIGHT: &str = "hob/echo";
pub const GLUED: &str = "hob/echo-glue";

/// Signs a repository with both recipes and installs them. The folder goes with the value.
pub async fn home() -> Result<(TempDir, Home), Fault> {
    let folder = tempfile::tempdir().map_err(|error| Fault::io("making a folder for the benchmark", &error))?;
    let (repo, keys, now) = (folder.path().join("repository"), Keys::at(folder.path().join("keys")), Timestamp::now());
    let root = repository::repo_init(&repo, &keys, now).await?.root;
    repository::add_publisher(&repo, &keys, "hob", None, now).await?;
    for recipe in [straight(), glued()?] {
        let packed = author::pack::pack(&recipe)?;
        author::publish::publish(&repo, &keys, &packed, &recipe.join("models"), now, &Silent).await?;
    }
    let home = Home::at(folder.path().join("home"));
    let host = Host::open(Config::new(home.clone())).await?;
    let root = std::fs::read(&root).map_err(|error| Fault::io("reading the root of the repository", &error))?;
    host.add_remote("bench", &format!("file://{}", repo.display()), Trust::Root(root)).await?;
    for name in [STRAIGHT, GLUED] {
        host.add(&name.parse()?, &VersionReq::STAR, None).await?;
    }
    host.shutdown().await;
    Ok((folder, home))
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn straight() -> PathBuf {
    source("recipes/echo")
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
        copy(&source(from), &recipe.join(to)).map_err(|error| Fault::io(format!("copying {from}"), &error))?;
    }
    author::build::build(&recipe, &Silent)?;
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
