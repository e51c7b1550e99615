//! Python environments: built by `uv` from a hash lock, named by digest, shared, read-only.
//!
//! The name is the digest of everything that the content depends on, so an environment is never changed, only made
//! or deleted. It is made in staging and published by one rename; the text of its tree, kept beside it, lets
//! `verify` name the first file that is no longer what was built.
//!
//! `uv` copies out of its cache here instead of linking: without a sandbox, a pod that writes into its own
//! environment would write into the cache, and so into every other environment, through a hard link.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::{
    disk::{make, open},
    model::{Address, Code, Digest, Fault, Home, Step, limits, progress},
};

use super::{
    blocking, durable, files,
    locks::{self, Held},
    process,
    python::Python,
    requirements,
    staging::Staging,
    tree::{Tree, make_read_only},
    uv::{self, Uv},
};

/// What `uv` gets of the caller's environment: the way to the index, and nothing that changes what is built.
const PASSED: &[&str] = &[
    "HOME",
    "PATH",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Where systems keep the certificates that they trust, for `uv` when the caller's environment names none.
const CERTIFICATES: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];

/// Which tools to use; `None` means: look for one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// An absolute Python interpreter.
    pub python: Option<PathBuf>,
    /// An absolute `uv`.
    pub uv: Option<PathBuf>,
    /// The package index to ask, instead of the public one.
    pub index_url: Option<Address>,
}

impl Tools {
    /// `self` with what `above` says put above it.
    pub fn overridden_by(self, above: Tools) -> Tools {
        Tools { python: above.python.or(self.python), uv: above.uv.or(self.uv), index_url: above.index_url.or(self.index_url) }
    }

    /// `self` (from `hob.toml`) with what HOB_PYTHON and HOB_UV say put above it.
    pub fn with_variables(mut self) -> Tools {
        let named = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        self.python = named("HOB_PYTHON").or(self.python);
        self.uv = named("HOB_UV").or(self.uv);
        self
    }
}

/// Whether an environment that is there already is compared with what was built before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Every file: when another recipe's install adopts it.
    Verify,
    /// Only that it can start: when a recipe folder is run again.
    Trust,
}

/// An environment on this machine.
///
/// While a value of it lives in any process, the environment is not deleted.
#[derive(Debug, Clone)]
pub struct Environment {
    pub digest: Digest,
    pub folder: PathBuf,
    /// The interpreter of the machine that the environment was built for: it runs whatever is not confined.
    pub interpreter: PathBuf,
    /// The name of that interpreter inside the environment, a link. What is started by this name has the environment's
    /// `pyvenv.cfg` and packages, so nothing is outside a sandbox.
    pub python: PathBuf,
    /// The folder of its packages, for `sys.path`.
    pub site_packages: PathBuf,
    _in_use: Arc<Held>,
}

/// Digest of (lock, interpreter, platform, `uv`): the environment's name.
pub fn digest(lock: &[u8], python: &Python, uv: &Uv) -> Digest {
    let mut hasher = Sha256::new();
    // Each part is preceded by its length, so that no two lists of parts run together into the same bytes.
    let executable = python.executable.as_os_str().as_encoded_bytes();
    let version = uv.version.to_string();
    for part in [b"hob environment 1", lock, executable, python.build.as_bytes(), python.platform.as_bytes(), version.as_bytes()] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Digest::finish(hasher)
}

/// The environment of that digest, if it is there and its interpreter still exists. No process is started.
pub fn open(home: &Home, digest: Digest) -> Option<Environment> {
    // Held before looking: what is seen after this cannot be deleted any more.
    let in_use = locks::try_share(&use_lock(home, digest)).ok()??;
    let folder = home.environments().join(digest.hex());
    let python = folder.join("bin/python");
    // An interpreter that was removed from the machine makes the environment useless. One inside the environment is no interpreter of the machine.
    let interpreter = python.canonicalize().ok().filter(|path| path.is_file() && !path.starts_with(&folder))?;
    let site_packages = site_packages(&folder)?;
    Some(Environment { digest, folder, interpreter, python, site_packages, _in_use: Arc::new(in_use) })
}

fn use_lock(home: &Home, digest: Digest) -> PathBuf {
    home.locks().join(format!("environment-{}.lock", digest.short()))
}

fn site_packages(folder: &Path) -> Option<PathBuf> {
    let mut found = fs::read_dir(folder.join("lib")).ok()?.filter_map(|entry| Some(entry.ok()?.path().join("site-packages")));
    found.find(|path| path.is_dir())
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

/// What an environment is built for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The bytes of `requirements.lock`, as they were checked.
    pub lock: &'a [u8],
    /// Names the lock in faults, e.g. `pod/requirements.lock of hob/echo`.
    pub what: &'a str,
    pub python: &'a Python,
    pub existing: Existing,
    /// For whom, in progress, e.g. `hob/echo`.
    pub label: &'a str,
}

/// The environment for a lock, built if it is not there.
///
/// Processes that want one at the same time build it once. A few are built at a time: one whose index drips keeps the others waiting for
/// [`limits::ENVIRONMENT_TURN_MS`] at most. Dropping the future kills the build and leaves nothing.
///
/// Errors: `invalid_recipe` (the lock, by line), `uv_missing`, `environment_failed` with what `uv` said,
/// `shelf_altered`, `disk_full`.
pub async fn ensure(home: &Home, tools: &Tools, wanted: &Wanted<'_>, progress: &progress::Shared) -> Result<Environment, Fault> {
    let Wanted { lock, what, python, existing, label } = *wanted;
    let text = std::str::from_utf8(lock).map_err(|_| Fault::new(Code::InvalidRecipe, format!("{what}: not UTF-8")))?;
    requirements::parse(text, what)?;
    let uv = uv::find(home, tools.uv.as_deref(), python, progress).await?;
    let digest = digest(lock, python, &uv);
    if let Some(environment) = open(home, digest) {
        return adopt(home, environment, existing).await;
    }
    let _held = locks::acquire(&build_lock(home, digest), "building the same environment", progress).await?;
    if let Some(environment) = open(home, digest) {
        return adopt(home, environment, existing).await;
    }
    let _turn = locks::turn(&home.locks(), "environments", limits::ENVIRONMENT_BUILDS_MAX, limits::ENVIRONMENT_TURN_MS, progress).await?;
    let build = Build { home, python, uv: &uv, tools, progress };
    let label = format!("building the environment of {label}");
    progress.step(Step::Started { label: label.clone(), total_bytes: None });
    let built = build.run(text, digest).await;
    progress.step(Step::Finished { label });
    built
}

/// Held by whoever builds that environment.
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

fn tree_file(home: &Home, digest: Digest) -> PathBuf {
    home.environments().join(format!("{digest}.tree"))
}

/// Digest of the text of the tree that was built: what `hob.lock` keeps, so that the text cannot be swapped with the tree.
///
/// Errors: `shelf_altered` when it is gone.
pub fn tree_digest(home: &Home, digest: Digest) -> Result<Digest, Fault> {
    Ok(Digest::of(&read_tree_file(home, digest)?))
}

fn read_tree_file(home: &Home, digest: Digest) -> Result<Vec<u8>, Fault> {
    let path = tree_file(home, digest);
    match open::read(&path, limits::TREE_TEXT_BYTES_MAX) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(altered(digest, format!("{} is missing", path.display()))),
        Err(error) => Err(Fault::io(format!("reading {}", path.display()), &error)),
    }
}

pub(super) fn altered(digest: Digest, why: String) -> Fault {
    Fault::new(Code::ShelfAltered, format!("environment {}: {why}", digest.short()))
        .hint("`hob remove` and `hob add` all recipes that use it, or delete its folder if none does: it is built anew")
        .with("environment", digest.hex())
}

/// Compares every file of the environment with what was built.
///
/// Errors: `shelf_altered`, which names the first file that is altered, missing or extra.
pub fn verify(home: &Home, digest: Digest) -> Result<(), Fault> {
    let folder = home.environments().join(digest.hex());
    if !folder.is_dir() {
        return Err(altered(digest, format!("{} is missing", folder.display())));
    }
    let kept = read_tree_file(home, digest)?;
    let built = std::str::from_utf8(&kept).ok().and_then(Tree::parse);
    let built = built.ok_or_else(|| altered(digest, format!("{} cannot be read", tree_file(home, digest).display())))?;
    let found = Tree::of(&folder).map_err(|error| Fault::io(format!("reading {}", folder.display()), &error))?;
    match built.difference(&found) {
        None => Ok(()),
        Some(difference) => Err(altered(digest, format!("{difference} (in {})", folder.display()))),
    }
}

/// Moves an environment that no recipe uses any more into `discard`; whether it did: one that a process has open, or builds, stays.
pub(super) fn take_away(home: &Home, digest: Digest, discard: &Path) -> Result<bool, Fault> {
    let Some(_held) = locks::try_acquire(&build_lock(home, digest))? else { return Ok(false) };
    let Some(_alone) = locks::try_acquire(&use_lock(home, digest))? else { return Ok(false) };
    put_away(home, digest, discard)?;
    Ok(true)
}

/// Deletes an environment that no recipe uses; whether it did: one that a process has open, or builds, stays.
pub fn remove(home: &Home, digest: Digest) -> Result<bool, Fault> {
    take_away(home, digest, Staging::new(home, "discard")?.folder())
}

/// Moves what has that digest out of sight, then deletes it: a crash between leaves rubbish, not half an environment.
fn discard(home: &Home, digest: Digest) -> Result<(), Fault> {
    put_away(home, digest, Staging::new(home, "discard")?.folder())
}

fn put_away(home: &Home, digest: Digest, discard: &Path) -> Result<(), Fault> {
    let folder = home.environments().join(digest.hex());
    if folder.exists() {
        let moved = discard.join("environment");
        let rename = || -> io::Result<()> {
            // A folder must be writable for its parent to change.
            make_writable(&folder)?;
            fs::rename(&folder, &moved)?;
            durable::sync_folder(&home.environments())
        };
        rename().map_err(|error| Fault::io(format!("removing {}", folder.display()), &error))?;
    }
    match fs::remove_file(tree_file(home, digest)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fault::io(format!("removing {}", tree_file(home, digest).display()), &error))
        }
        _ => Ok(()),
    }
}

fn make_writable(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// One build, from an empty staging folder to the published one.
struct Build<'a> {
    home: &'a Home,
    python: &'a Python,
    uv: &'a Uv,
    tools: &'a Tools,
    progress: &'a progress::Shared,
}

impl Build<'_> {
    async fn run(&self, lock: &str, digest: Digest) -> Result<Environment, Fault> {
        let began = std::time::Instant::now();
        // Something there that cannot be opened: its interpreter is gone, or it is not ours.
        discard(self.home, digest)?;
        let staging = Staging::new(self.home, "environment")?;
        let tree = staging.folder().join("tree");
        let lock_path = staging.folder().join("requirements.lock");
        make::write(&lock_path, lock.as_bytes(), make::PRIVATE_FILE)
            .map_err(|error| Fault::io(format!("writing {}", lock_path.display()), &error))?;

        let mut venv = self.command(&staging)?;
        venv.args(["venv", "--no-project", "--no-managed-python", "--relocatable", "--python"]).arg(&self.python.executable).arg(&tree);
        self.step(venv, "uv venv", began).await?;

        let mut sync = self.command(&staging)?;
        sync.args(["pip", "sync", "--require-hashes", "--only-binary", ":all:", "--compile-bytecode", "--allow-empty-requirements"]);
        if let Some(url) = &self.tools.index_url {
            // Not among its arguments: everybody on the machine can read those.
            sync.env("UV_DEFAULT_INDEX", url.revealed());
        }
        sync.arg("--python").arg(&tree).arg(&lock_path);
        self.step(sync, "uv pip sync", began).await?;

        let home = self.home.clone();
        // The staging folder goes along: a caller that gives up now must not have it deleted under the publisher.
        blocking(move || {
            let published = publish(&home, &tree, digest);
            drop(staging);
            published
        })
        .await?;
        open(self.home, digest)
            .ok_or_else(|| Fault::new(Code::EnvironmentFailed, "uv built an environment without an interpreter or site-packages"))
    }

    /// `uv` with an environment of its own, so that nobody's configuration changes what is built.
    fn command(&self, staging: &Staging) -> Result<Command, Fault> {
        let mut command = Command::new(&self.uv.path);
        command.env_clear().current_dir(staging.folder()).stdin(staging.lock_for_tool()?);
        command.args(["--no-config", "--no-progress", "--no-python-downloads", "--color", "never"]);
        for name in PASSED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if std::env::var_os("SSL_CERT_FILE").is_none()
            && std::env::var_os("SSL_CERT_DIR").is_none()
            && let Some(path) = CERTIFICATES.iter().find(|path| Path::new(path).is_file())
        {
            command.env("SSL_CERT_FILE", path);
        }
        command.env("LANG", "C.UTF-8").env("UV_LINK_MODE", "copy").env("UV_CACHE_DIR", self.home.uv_cache());
        command.env("UV_HTTP_TIMEOUT", (limits::PACKAGE_INDEX_STALL_MS / 1000).to_string());
        Ok(command)
    }

    /// What `uv` was given that may have a password in it, and may be in what it says.
    fn addresses(&self) -> Vec<Address> {
        let variables = PASSED.iter().filter(|name| name.to_ascii_lowercase().ends_with("_proxy"));
        let proxies = variables.filter_map(|name| std::env::var(name).ok()).map(Address::new);
        self.tools.index_url.iter().cloned().chain(proxies).collect()
    }

    async fn step(&self, command: Command, name: &str, began: std::time::Instant) -> Result<(), Fault> {
        let left = limits::ENVIRONMENT_BUILD_MS.saturating_sub(began.elapsed().as_millis() as u64);
        let hidden = self.addresses();
        let scrub = |line: &str| hidden.iter().fold(line.to_owned(), |line, address| address.scrub(&line));
        let mut ran = process::run(command, left, |line| self.progress.step(Step::Note { text: scrub(line) }))
            .await
            .map_err(|error| Fault::io(format!("running {}", self.uv.path.display()), &error))?;
        ran.tail = ran.tail.iter().map(|line| scrub(line)).collect();
        if ran.succeeded() {
            return Ok(());
        }
        let said = ran.tail.join("\n");
        if ran.disk_full() {
            return Err(Fault::new(Code::DiskFull, format!("{name}: {said}"))
                .hint("free some space (or move HOB_HOME to a larger disk) and run the command again; nothing was changed"));
        }
        let end = ran.end(limits::ENVIRONMENT_BUILD_MS);
        let found = format!("Python {}, {}", self.python.version, self.python.platform);
        Err(Fault::new(Code::EnvironmentFailed, format!("{name} could not build the environment for {found} ({end}):\n{said}"))
            .hint("if the package index was not reached: see proxy and certificate variables, or `[environments] index_url` in hob.toml")
            .with("stderr", ran.tail))
    }
}

/// Records the tree, takes the write permissions and renames: in this order, so that a published environment is whole.
fn publish(home: &Home, tree: &Path, digest: Digest) -> Result<(), Fault> {
    let root = home.environments();
    durable::make_folder(&root)?;
    let place = root.join(digest.hex());
    let failed = |error: io::Error| Fault::io(format!("publishing {}", place.display()), &error);
    // uv's own lock on the environment, writable for everybody; nobody is to install into it again.
    match fs::remove_file(tree.join(".lock")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    make_read_only(tree, false).map_err(failed)?;
    let text = Tree::of(tree).map_err(failed)?.text();
    // Thousands of small files: one sync of the file system is far cheaper than one for each.
    let opened = open::open_folder(tree).map_err(failed)?;
    rustix::fs::syncfs(&opened).map_err(|error| failed(error.into()))?;
    files::replace(&tree_file(home, digest), text.as_bytes())?;
    fs::rename(tree, &place).map_err(failed)?;
    make_read_only(&place, true).and_then(|()| durable::sync_folder(&root)).map_err(failed)
}
