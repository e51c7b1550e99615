//! Python environments: named by digest, shared, read-only. `building.rs` makes them.
//!
//! The name is the digest of everything that the content depends on, so an environment is never changed, only
//! made or deleted. A record of its files lies beside it, so that `verify` can name the first file that
//! differs from the build.

mod building;
pub mod compiler;
pub mod componentizer;
mod index_answers;
pub mod indexes;
mod inert;
mod pip;
pub mod python;
pub mod record;
pub mod requirements;
pub mod tools;
mod unbuilt;
pub mod uv;

use crate::disk::look;
use compiler::Compiler;
use record::{WAY, record_file};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tools::Tools;

use sha2::{Digest as _, Sha256};

use crate::{
    disk::open,
    model::{Address, Code, Digest, Fault, Home, Step, act, hint, limits, progress},
};

use crate::shelf::{
    blocking, durable,
    files::{
        locks::{self, Held},
        staging::Staging,
        tree::Tree,
    },
};
use building::Build;

use python::Python;
use requirements::Lock;
use uv::Uv;

/// Whether an existing environment is compared with its record before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Compare every file: for another recipe's install that adopts the environment.
    Verify,
    /// Check only that it can start: for a recipe folder that runs again.
    Trust,
}

/// An environment on this machine.
///
/// While a value of this type lives in any process, the environment is not deleted.
#[derive(Debug, Clone)]
pub struct Environment {
    pub digest: Digest,
    pub folder: PathBuf,
    /// The interpreter of the machine for which the environment was built; it runs everything that is not
    /// confined.
    pub interpreter: PathBuf,
    /// A link to that interpreter inside the environment. A process started by this name has the
    /// environment's `pyvenv.cfg` and packages, so it is only started inside a sandbox.
    pub python: PathBuf,
    /// The folder of its packages, for `sys.path`.
    pub site_packages: PathBuf,
    _in_use: Arc<Held>,
}

/// Digest of (lock, interpreter, platform, `uv`): the environment's name. Locks with the same meaning but
/// other text have the same name.
pub fn digest(lock: &Lock, python: &Python, uv: &Uv) -> Digest {
    let mut hasher = Sha256::new();
    // Each part is preceded by its length, so that no two lists of parts run together into the same bytes.
    let executable = python.executable.as_os_str().as_encoded_bytes();
    let (version, lock) = (uv.version.to_string(), lock.text());
    for part in [WAY.as_bytes(), lock.as_bytes(), executable, python.build.as_bytes(), python.platform.as_bytes(), version.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Digest::finish(hasher)
}

/// The environment with this digest; `None` unless it exists, was made in the current way, and its
/// interpreter still exists. Starts no process.
///
/// Errors: `io` if the system did not look: the environment may be whole then.
pub fn open(home: &Home, digest: Digest) -> Result<Option<Environment>, Fault> {
    // The lock is taken before the look: nothing seen after this can be deleted any more.
    let Some(in_use) = locks::try_share(&use_lock(home, digest))? else { return Ok(None) };
    let folder = home.environments().join(digest.hex());
    if !is_of_today(home, digest)? {
        return Ok(None);
    }
    let python = folder.join("bin/python");
    // The link that the build made; an interpreter that was removed from the machine makes the environment
    // useless.
    let interpreter = match fs::read_link(&python) {
        Ok(path) => path,
        // Nothing, or no link.
        Err(error) if look::is_about_the_file(&error) || error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
        Err(error) => return Err(Fault::io(format!("looking at {}", python.display()), &error)),
    };
    if !interpreter.is_absolute() || interpreter.starts_with(&folder) || !look::is_file(&interpreter)? {
        return Ok(None);
    }
    let Some(site_packages) = site_packages(&folder)? else { return Ok(None) };
    Ok(Some(Environment { digest, folder, interpreter, python, site_packages, _in_use: Arc::new(in_use) }))
}

/// Whether the record of an environment begins with the current format's first line.
///
/// Errors: `io` if it cannot be read.
fn is_of_today(home: &Home, digest: Digest) -> Result<bool, Fault> {
    let wanted = format!("{WAY}\n");
    let mut found = vec![0; wanted.len()];
    let path = record_file(home, digest);
    match open::open(&path).and_then(|mut file| io::Read::read_exact(&mut file, &mut found)) {
        Ok(()) => Ok(found == wanted.as_bytes()),
        Err(error) if look::is_about_the_file(&error) => Ok(false),
        Err(error) => Err(Fault::io(format!("reading {}", path.display()), &error)),
    }
}

fn use_lock(home: &Home, digest: Digest) -> PathBuf {
    home.locks().join(format!("environment-{}.lock", digest.short()))
}

fn site_packages(folder: &Path) -> Result<Option<PathBuf>, Fault> {
    // Wheels may add other folders there, but no second one with packages (`inert.rs`).
    for entry in look::entries(&folder.join("lib"))? {
        let packages = entry.join("site-packages");
        if look::is_folder(&packages)? {
            return Ok(Some(packages));
        }
    }
    Ok(None)
}

/// Digests of all environments on this machine.
pub fn all(home: &Home) -> Result<Vec<Digest>, Fault> {
    let root = home.environments();
    let mut digests = match fs::read_dir(&root) {
        Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Fault::io(format!("reading {}", root.display()), &error)),
    };
    digests.sort_unstable();
    Ok(digests)
}

/// The inputs of an environment's build.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The bytes of `requirements.lock`, as they were checked.
    pub lock: &'a [u8],
    /// Names the lock in faults, e.g. `pod/requirements.lock of hob/echo`.
    pub what: &'a str,
    pub python: &'a Python,
    pub existing: Existing,
    /// The package indexes to ask, in this order; none: the public one.
    pub indexes: &'a [Address],
    /// The beneficiary shown in progress, e.g. `hob/echo`.
    pub label: &'a str,
    pub compiler: &'a dyn Compiler,
}

/// The environment for a lock, built if it does not exist.
///
/// Processes that want the same environment at the same time build it once. Only a few are built at a time;
/// an environment whose index is slow delays the others by at most [`limits::ENVIRONMENT_TURN_MS`]. Dropping
/// the future kills the build and leaves nothing.
///
/// Errors: `invalid_recipe` (the lock, by line), `uv_missing`, `environment_failed` with the output of `uv`,
/// `shelf_altered`, `disk_full`.
pub async fn ensure(home: &Home, tools: &Tools, wanted: &Wanted<'_>, progress: &progress::Shared) -> Result<Environment, Fault> {
    let Wanted { lock, what, python, existing, indexes, label, compiler } = *wanted;
    let lock = Lock::parse(lock, what)?;
    let uv = uv::find(home, tools, python, progress).await?;
    let digest = digest(&lock, python, &uv);
    if let Some(environment) = open(home, digest)? {
        return adopt(home, environment, existing).await;
    }
    let _held = locks::acquire(&build_lock(home, digest), "building the same environment", progress).await?;
    if let Some(environment) = open(home, digest)? {
        return adopt(home, environment, existing).await;
    }
    let _turn = locks::turn(&home.locks(), "environments", limits::ENVIRONMENT_BUILDS_MAX, limits::ENVIRONMENT_TURN_MS, progress).await?;
    // The environment exists but cannot be opened: its interpreter is gone, or this Hob would make it in
    // another way.
    discard(home, digest)?;
    let build = Build { home, python, uv: &uv, indexes, compiler, what, progress };
    let label = format!("building the environment of {label}");
    progress.step(Step::Started { label: label.clone(), total_bytes: None });
    let built = build.run(&lock, digest).await;
    progress.step(Step::Finished { label });
    built?;
    open(home, digest)?.ok_or_else(|| Fault::new(Code::EnvironmentFailed, "the environment that was built cannot be opened"))
}

/// The lock that the builder of an environment holds.
fn build_lock(home: &Home, digest: Digest) -> PathBuf {
    home.locks().join(format!("build-{}.lock", digest.short()))
}

async fn adopt(home: &Home, environment: Environment, existing: Existing) -> Result<Environment, Fault> {
    if existing == Existing::Verify {
        let (home, environment) = (home.clone(), environment.clone());
        blocking(move || verify(&home, environment.digest)).await?;
    }
    Ok(environment)
}

/// Digest of the record of the built tree. `hob.lock` keeps it, so that nobody can replace the record
/// together with the tree.
///
/// Errors: `shelf_altered` if the record is gone.
pub fn tree_digest(home: &Home, digest: Digest) -> Result<Digest, Fault> {
    Ok(Digest::of(&read_record(home, digest)?))
}

fn read_record(home: &Home, digest: Digest) -> Result<Vec<u8>, Fault> {
    let path = record_file(home, digest);
    match open::read(&path, limits::TREE_TEXT_BYTES_MAX) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(altered(digest, format!("{} is missing", path.display()))),
        Err(error) => Err(Fault::io(format!("reading {}", path.display()), &error)),
    }
}

pub(super) fn altered(digest: Digest, why: String) -> Fault {
    Fault::new(Code::ShelfAltered, format!("environment {}: {why}", digest.short()))
        .hint(hint![
            act::remove("RECIPE"),
            " and ",
            act::add("RECIPE"),
            ", for each recipe that uses it, build it anew; if none does, delete its folder"
        ])
        .with("environment", digest.hex())
}

/// Compares every file of the environment with its record.
///
/// Errors: `shelf_altered`, which names the first file that is altered, missing or extra, or says that the
/// environment is from another version of Hob.
pub fn verify(home: &Home, digest: Digest) -> Result<(), Fault> {
    let folder = home.environments().join(digest.hex());
    if !look::is_there(&folder)? {
        return Err(altered(digest, format!("{} is missing", folder.display())));
    }
    let kept = read_record(home, digest)?;
    if !is_of_today(home, digest)? {
        let text = format!("environment {} was built by another version of Hob, and is not used any more", digest.short());
        return Err(Fault::new(Code::ShelfAltered, text)
            .hint(hint![
                act::add("RECIPE"),
                ", for each recipe that uses it, gives it a new one; until then each host builds one beside it at the first call"
            ])
            .with("environment", digest.hex()));
    }
    let built = std::str::from_utf8(&kept).ok().and_then(|text| Tree::parse(text.split_once('\n')?.1));
    let built = built.ok_or_else(|| altered(digest, format!("{} cannot be read", record_file(home, digest).display())))?;
    let found = Tree::of(&folder).map_err(|error| Fault::io(format!("reading {}", folder.display()), &error))?;
    match built.difference(&found) {
        None => Ok(()),
        Some(difference) => Err(altered(digest, format!("{difference} (in {})", folder.display()))),
    }
}

/// Moves an environment that no recipe uses any more into `discard`; returns whether it did. An environment
/// that a process has open, or builds, stays.
pub(super) fn take_away(home: &Home, digest: Digest, discard: &Path) -> Result<bool, Fault> {
    let Some(_held) = locks::try_acquire(&build_lock(home, digest))? else { return Ok(false) };
    let Some(_alone) = locks::try_acquire(&use_lock(home, digest))? else { return Ok(false) };
    put_away(home, digest, discard)?;
    Ok(true)
}

/// Deletes an environment that no recipe uses; returns whether it did. An environment that a process has
/// open, or builds, stays.
pub fn remove(home: &Home, digest: Digest) -> Result<bool, Fault> {
    take_away(home, digest, Staging::new(home, "discard")?.folder())
}

/// Moves everything with this digest out of sight, then deletes it: a crash in between leaves rubbish, not
/// half an environment.
fn discard(home: &Home, digest: Digest) -> Result<(), Fault> {
    put_away(home, digest, Staging::new(home, "discard")?.folder())
}

fn put_away(home: &Home, digest: Digest, discard: &Path) -> Result<(), Fault> {
    let folder = home.environments().join(digest.hex());
    if look::is_there(&folder)? {
        let moved = discard.join("environment");
        let rename = || -> io::Result<()> {
            // A folder must be writable for its parent to change.
            make_writable(&folder)?;
            fs::rename(&folder, &moved)?;
            durable::sync_folder(&home.environments())
        };
        rename().map_err(|error| Fault::io(format!("removing {}", folder.display()), &error))?;
    }
    match fs::remove_file(record_file(home, digest)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::io(format!("removing {}", record_file(home, digest).display()), &error))
        }
        _ => Ok(()),
    }
}

fn make_writable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}
