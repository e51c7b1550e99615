//! Finds `uv`, the program that builds environments; fetches Hob's own copy if there is none.
//!
//! A program that the user named is used or refused, never replaced. Hob's own copy is a downloaded program
//! and is installed in these steps:
//!
//! 1. Download, pinned by version and hash.
//! 2. Unpack into staging.
//! 3. Run once.
//! 4. Publish by rename.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use semver::{Version, VersionReq};
use tokio::process::Command;

use crate::model::{Address, Code, Fault, Home, Step, act, hint, limits, progress};

use crate::shelf::{
    durable,
    environment::{
        index_answers,
        pip::{self, Pin},
        python::Python,
        tools::Tools,
    },
    files::{
        self, locks,
        staging::Staging,
        tree::{make_read_only, take_write},
    },
    process::{self, Silent},
};

/// The version that Hob fetches.
const VERSION: &str = "0.13.8";

/// Hashes of that version's wheels: Linux on x86-64 with glibc and with musl, and Linux on arm64.
const WHEEL_HASHES: [&str; 3] = [
    "e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984",
    "29451c60f5e8b07403e0a175d5229efc36b0289b34143ff4aaa499a5dd52553a",
    "0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d",
];

/// Versions on PATH that are accepted: they have every option that Hob passes, with the same meaning.
const RANGE: &str = ">=0.9.0, <0.14.0";

/// A `uv` that ran and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uv {
    pub path: PathBuf,
    pub version: Version,
}

fn range() -> VersionReq {
    VersionReq::parse(RANGE).expect("a constant range, parsed by a test")
}

/// Finds `uv`. If `tools` names one, only that one counts. Otherwise: a `uv` on PATH within a version range,
/// else Hob's own copy. If that copy does not exist yet, `python` fetches it with its `pip`, from the indexes
/// of `tools`, else from those of `pip`'s own configuration.
///
/// Errors: `uv_missing`, `disk_full`.
pub async fn find(home: &Home, tools: &Tools, python: &Python, progress: &progress::Shared) -> Result<Uv, Fault> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(home, tools, &path, python, progress).await
}

/// [`find`] with the search path as an argument.
pub async fn find_in(home: &Home, tools: &Tools, path: &OsStr, python: &Python, progress: &progress::Shared) -> Result<Uv, Fault> {
    if let Some(uv) = look_in(home, tools.uv.as_deref(), path).await? {
        return Ok(uv);
    }
    let ours = own_copy(home);
    let _held = locks::acquire(&home.locks().join("tools.lock"), "fetching uv", progress).await?;
    if let Some(uv) = Silent::unless_exhausted(ask(&ours).await)? {
        return Ok(uv);
    }
    fetch(home, python, tools.indexes.for_tools(), progress).await
}

/// [`find`] without fetching anything.
///
/// Errors: `uv_missing` if the `uv` that was named cannot be used.
pub async fn look(home: &Home, explicit: Option<&Path>) -> Result<Option<Uv>, Fault> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    look_in(home, explicit, &path).await
}

async fn look_in(home: &Home, explicit: Option<&Path>, path: &OsStr) -> Result<Option<Uv>, Fault> {
    if let Some(path) = explicit {
        let refused = |why: String| {
            Fault::new(Code::UvMissing, format!("the configured uv, {}, cannot be used: {why}; wanted {RANGE}", path.display())).hint(
                hint!["correct ", act::hob_uv(), " or ", act::uv_path(), ", or remove it: Hob then looks on PATH and fetches its own copy"],
            )
        };
        let uv = ask(path).await.map_err(|silent| silent.fault(refused))?;
        return match range().matches(&uv.version) {
            true => Ok(Some(uv)),
            false => Err(refused(format!("it is version {}", uv.version))),
        };
    }
    for folder in std::env::split_paths(path).filter(|folder| folder.is_absolute()) {
        let path = folder.join("uv");
        if path.is_file()
            && let Some(uv) = Silent::unless_exhausted(ask(&path).await)?
            && range().matches(&uv.version)
        {
            return Ok(Some(uv));
        }
    }
    Silent::unless_exhausted(ask(&own_copy(home)).await)
}

fn own_copy(home: &Home) -> PathBuf {
    home.tools().join(format!("uv-{VERSION}")).join("bin/uv")
}

/// Runs `path --version`; the error is for people.
async fn ask(path: &Path) -> Result<Uv, Silent> {
    if !path.is_absolute() {
        return Err("it is not an absolute path".to_owned().into());
    }
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null());
    let ran = process::run(command, limits::PROBE_MS, |_| ()).await.map_err(|error| Silent::after(&error, path, error.to_string()))?;
    if !ran.succeeded() {
        return Err(format!("`--version` ended with {}", ran.end(limits::PROBE_MS)).into());
    }
    let version = ran.stdout.strip_prefix("uv ").and_then(|rest| rest.split_whitespace().next());
    match version.and_then(|version| Version::parse(version).ok()) {
        Some(version) => Ok(Uv { path: path.to_owned(), version }),
        None => Err(format!("`--version` printed `{}`", ran.stdout.lines().next().unwrap_or("")).into()),
    }
}

async fn fetch(home: &Home, python: &Python, indexes: &[Address], progress: &progress::Shared) -> Result<Uv, Fault> {
    let label = format!("fetching uv {VERSION}");
    progress.step(Step::Started { label: label.clone(), total_bytes: None });
    let staging = Staging::new(home, "uv")?;
    let target = staging.folder().join("tree");
    let pin = Pin { name: "uv", version: VERSION, hashes: &WHEEL_HASHES };
    let ran = pip::fetch(&python.executable, &pin, indexes, &staging, &target, limits::UV_FETCH_MS).await?;
    let next = hint![
        "install uv (https://docs.astral.sh/uv) and put it on PATH, or name it with ",
        act::hob_uv(),
        "; where `pip` cannot reach PyPI, name an index that has uv in ",
        act::index_urls()
    ];
    if !ran.succeeded() {
        if ran.disk_full() {
            return Err(
                Fault::new(Code::DiskFull, format!("{label}: {}", ran.tail.join("\n"))).hint(hint::full_disk("nothing was changed"))
            );
        }
        let fault = Fault::new(
            Code::UvMissing,
            format!(
                "no uv {RANGE} on PATH, and {} -m pip could not fetch it ({}): {}",
                python.executable.display(),
                ran.end(limits::UV_FETCH_MS),
                ran.tail.last().map_or("it said nothing", String::as_str)
            ),
        );
        let (fault, kept_back) = index_answers::told(fault, "`uv`", &index_answers::ask(indexes, pin.name).await);
        return Err(fault.hint(kept_back.map_or(next.clone(), |kept_back| kept_back.and("; or ", next.clone()))).with("stderr", ran.tail));
    }
    ask(&target.join("bin/uv")).await.map_err(|silent| {
        silent.fault(|why| Fault::new(Code::UvMissing, format!("the fetched uv {VERSION} does not run here: {why}")).hint(next.clone()))
    })?;
    publish(home, &target)?;
    progress.step(Step::Finished { label });
    let path = own_copy(home);
    ask(&path).await.map_err(|silent| silent.fault(|why| Fault::new(Code::UvMissing, format!("{}: {why}", path.display())).hint(next)))
}

fn publish(home: &Home, tree: &Path) -> Result<(), Fault> {
    let place = home.tools().join(format!("uv-{VERSION}"));
    durable::make_folder(&home.tools())?;
    // Only a copy that did not answer is still there.
    files::remove_tree(&place)?;
    let rename = || -> std::io::Result<()> {
        // As pip left it, by whatever umask.
        make_read_only(tree)?;
        durable::sync_file(&tree.join("bin/uv"))?;
        fs::rename(tree, &place)?;
        take_write(&place)?;
        durable::sync_folder(&home.tools())
    };
    rename().map_err(|error| Fault::io(format!("putting uv at {}", place.display()), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_version_is_within_the_range() {
        assert!(range().matches(&Version::parse(VERSION).unwrap()));
        assert!(WHEEL_HASHES.iter().all(|hash| hash.parse::<crate::model::Digest>().is_ok()));
    }
}
