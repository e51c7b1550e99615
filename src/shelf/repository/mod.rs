//! The client of one signed repository: pins its root, refreshes the trusted metadata, resolves a recipe.
//!
//! Only this module decides whom to trust. A publisher's role is read only when one of its recipes is wanted,
//! and only through the delegation that names it. So one publisher's expired or hostile role affects nobody
//! else.

mod download;
mod metadata_store;
pub mod rehearsal;
pub mod resolve;
pub mod transport;
pub mod tuf;

use crate::disk::look;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use sigstore_tuf::{DelegatedRole, Targets, TrustedMetadataSet, Updater};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    disk::make,
    model::{
        Address, Blame, Code, Digest, Fault, Home, RecipeName, StandIn, VersionRange, act, hint, id::is_name, limits, stand_in::HEAD_BYTES,
    },
    shelf::{
        blocking, durable,
        files::{locks, staging::Staging},
    },
};
use metadata_store::{PINNED, TrustState};
use resolve::Role;
pub use resolve::{Custom, Listed, Listing, ModelTarget, Resolved};
use transport::{Patience, Transport};
use tuf::{Seen, Watched};

/// How the first root is recognised.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// The root file itself, which the operator has.
    Root(Vec<u8>),
    /// SHA-256 of the bytes of `1.root.json`, 64 hex digits.
    Fingerprint(String),
}

/// A pinned root.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pinned {
    /// SHA-256 of the root file's bytes.
    pub fingerprint: Digest,
    pub root_version: u64,
    pub expires: Timestamp,
    /// Whether it was pinned already, with the same bytes.
    pub already: bool,
}

/// A repository that the operator named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub name: String,
    pub url: Address,
}

impl Remote {
    /// Pins the first root of a repository. A pinned root is never replaced silently.
    ///
    /// Errors: `usage`, `repository_unreachable`, `metadata_invalid`, `fingerprint_mismatch` (also when
    /// another root is pinned under that name).
    pub async fn pin(home: &Home, name: &str, url: impl Into<Address>, trust: Trust) -> Result<Pinned, Fault> {
        let folder = folder(home, name)?;
        let transport = Transport::new(url, Patience::default())?;
        // A wrong root file is the operator's; wrong bytes for a fingerprint are the repository's.
        let (root, blame) = match trust {
            Trust::Root(bytes) => (bytes, Blame::Caller),
            Trust::Fingerprint(hex) => (first_root(name, &transport, &hex).await?, Blame::Repository),
        };
        let trusted = trusted_root(&root).map_err(|(why, next)| {
            Fault::new(Code::MetadataInvalid, format!("remote `{name}`: the root file {why}; wanted a repository's `1.root.json`"))
                .blame(blame)
                .hint(next.map_or(ASK_FOR_ROOT.to_owned(), |next| format!("{next}; or {ASK_FOR_ROOT}")))
        })?;
        let fingerprint = Digest::of(&root);
        let mut pinned = Pinned { fingerprint, root_version: trusted.root().version, expires: trusted.root().expires, already: false };

        let _lock = locks::acquire_briefly(&lock_path(home, name), "using the same remote").await?;
        if look::is_there(&folder)? {
            let old = TrustState::load(&folder, name)?;
            if old.pinned == root {
                pinned.already = true;
                return Ok(pinned);
            }
            return Err(Fault::new(
                Code::FingerprintMismatch,
                format!("remote `{name}` is pinned to the root with sha256 {}; wanted {fingerprint}", Digest::of(&old.pinned)),
            )
            .hint(hint![
                "a pinned root is never replaced: if you trust the new one, ",
                act::remote_remove(name),
                " comes first"
            ]));
        }
        let parent = home.remotes();
        durable::make_folder(&parent)?;
        let failed = |error: std::io::Error| Fault::io(format!("pinning the root of remote `{name}`"), &error);
        let staging = make::temporary_folder(&parent, ".new-", 6).map_err(failed)?;
        fs::set_permissions(staging.path(), fs::Permissions::from_mode(make::FOLDER)).map_err(failed)?;
        durable::create(&staging.path().join(PINNED), &root, 0o444)?;
        TrustState::pinned(staging.path(), &root).save()?;
        fs::rename(staging.path(), &folder).map_err(failed)?;
        durable::sync_folder(&parent).map_err(failed)?;
        Ok(pinned)
    }

    /// Opens a pinned repository. No network is used until the first refresh.
    ///
    /// Errors: `remote_not_found` if nothing is pinned under that name, `state_unreadable`, `usage` for the
    /// address.
    pub async fn open(home: &Home, name: &str, url: impl Into<Address>) -> Result<Client, Fault> {
        Remote::open_with(home, name, url, Patience::default()).await
    }

    /// [`Remote::open`] with other waits.
    pub async fn open_with(home: &Home, name: &str, url: impl Into<Address>, patience: Patience) -> Result<Client, Fault> {
        let url = url.into();
        let (folder, lock) = (folder(home, name)?, lock_path(home, name));
        // No lock is needed: the state is replaced whole.
        load_state(&folder, name).await?;
        Ok(Client {
            transport: Arc::new(Transport::new(&url, patience)?),
            remote: Remote { name: name.to_owned(), url },
            folder,
            lock,
            clock: None,
            seen: Arc::default(),
            updater: None,
        })
    }

    /// Whether a root is pinned under that name; true also if that cannot be determined, so that no root is
    /// pinned over an existing one.
    pub fn is_pinned(home: &Home, name: &str) -> bool {
        folder(home, name).is_ok_and(|folder| look::is_there(&folder).unwrap_or(true))
    }

    /// Forgets the pinned root and all trust in that remote; its recipes on the shelf stay.
    pub async fn forget(home: &Home, name: &str) -> Result<(), Fault> {
        let folder = folder(home, name)?;
        let _lock = locks::acquire_briefly(&lock_path(home, name), "using the same remote").await?;
        // In one step, so that a reader finds all of it or nothing.
        let discard = Staging::new(home, "discard")?;
        match fs::rename(&folder, discard.folder().join("remote")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::io(format!("removing {}", folder.display()), &error)),
            _ => Ok(()),
        }
    }
}

const ASK_FOR_ROOT: &str = "ask the repository's maintainer for its `1.root.json`, byte for byte";

/// Parses a root file. The error says what the bytes are instead and, if known, the next step for their
/// owner.
fn trusted_root(bytes: &[u8]) -> Result<TrustedMetadataSet, (String, Option<&'static str>)> {
    if bytes.len() as u64 > limits::ROOT_BYTES_MAX {
        return Err((format!("has more than {} bytes", limits::ROOT_BYTES_MAX), None));
    }
    TrustedMetadataSet::from_root(bytes).map_err(|error| match StandIn::of_text(&bytes[..bytes.len().min(HEAD_BYTES)], None) {
        Some(found) => (format!("is {}", found.name()), Some(found.hint_of_folder())),
        None => (format!("is not valid: {error}"), None),
    })
}

async fn first_root(name: &str, transport: &Transport, hex: &str) -> Result<Vec<u8>, Fault> {
    let wanted: Digest = hex.trim().to_ascii_lowercase().parse().map_err(|fault: Fault| {
        fault.hint(hint![
            "a repository's fingerprint is the SHA-256 of its `1.root.json`: ask its maintainer, who got it from ",
            act::repo_init()
        ])
    })?;
    let file = "1.root.json";
    let bytes = transport.metadata(file, limits::ROOT_BYTES_MAX).await?.ok_or_else(|| {
        Fault::new(Code::RepositoryUnreachable, format!("remote `{name}`: there is no `metadata/{file}` at {}", transport.place("")))
            .hint("check the address: it is the folder that holds `metadata` and `targets`")
    })?;
    match Digest::of(&bytes) {
        found if found == wanted => Ok(bytes),
        found => Err(Fault::new(
            Code::FingerprintMismatch,
            format!("remote `{name}`: `{file}` at {} has sha256 {found}; wanted {wanted}", transport.place("")),
        )
        .with("file", file)
        .hint("nothing was pinned; compare the fingerprint with the one that the maintainer published elsewhere")),
    }
}

fn folder(home: &Home, name: &str) -> Result<PathBuf, Fault> {
    match is_name(name) {
        true => Ok(home.remotes().join(name)),
        false => Err(Fault::new(Code::Usage, format!("`{name}` is not a remote's name: wanted a-z, 0-9 and `-`, at most 64"))
            .hint("the name is yours to choose, e.g. `main`")),
    }
}

/// The delegated roles.
fn delegated(trusted: &TrustedMetadataSet) -> &[DelegatedRole] {
    let delegations = trusted.targets_role("targets").and_then(|targets| targets.delegations.as_ref());
    delegations.map(|delegations| delegations.roles.as_slice()).unwrap_or_default()
}

fn is_of(role: &DelegatedRole, publisher: &str) -> bool {
    role.name == publisher && role.matches_path(&resolve::probe(publisher)).unwrap_or(false)
}

async fn load_state(folder: &Path, remote: &str) -> Result<TrustState, Fault> {
    let (folder, remote) = (folder.to_owned(), remote.to_owned());
    blocking(move || TrustState::load(&folder, &remote)).await
}

/// The lock held while the trusted state of a remote is replaced, and never while the remote is asked.
fn lock_path(home: &Home, name: &str) -> PathBuf {
    home.locks().join(format!("remote-{name}.lock"))
}

/// An open repository.
pub struct Client {
    remote: Remote,
    pub(super) transport: Arc<Transport>,
    folder: PathBuf,
    lock: PathBuf,
    clock: Option<Timestamp>,
    seen: Arc<Seen>,
    updater: Option<Updater>,
}

impl Client {
    /// The same client with the clock stopped at `now`, for tests.
    pub fn at(mut self, now: Timestamp) -> Client {
        self.clock = Some(now);
        self
    }

    /// The remote that this client reads.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    fn now(&self) -> Timestamp {
        self.clock.unwrap_or_else(Timestamp::now)
    }

    /// Brings root, timestamp, snapshot and targets up to date, and saves them when all four are valid.
    ///
    /// No lock is held while the repository answers. If another process saved meanwhile, the refresh starts
    /// again from that process's state, so that the slower of two processes never lowers the minimum
    /// versions.
    ///
    /// Errors: `repository_unreachable` (also after [`limits::REFRESH_MS`] in total), `metadata_expired`,
    /// `rollback`, `metadata_invalid`, `state_unreadable`, each naming the file; `remote_not_found` if the
    /// remote was removed meanwhile; `overloaded`.
    pub async fn refresh(&mut self) -> Result<(), Fault> {
        self.updater = None;
        let end = Instant::now() + Duration::from_millis(limits::REFRESH_MS);
        for _ in 0..limits::REFRESH_TRIES {
            if self.refresh_once(end).await? {
                return Ok(());
            }
        }
        Err(Fault::new(Code::Overloaded, format!("remote `{}` is being refreshed by many others at once", self.remote.name))
            .hint(hint![act::again()]))
    }

    /// Returns `false` if another process saved meanwhile.
    async fn refresh_once(&mut self, end: Instant) -> Result<bool, Fault> {
        let before = load_state(&self.folder, &self.remote.name).await?;
        let mut state = before.clone();
        let session = Arc::new(state.session());
        let watched = Watched { transport: self.transport.clone(), seen: self.seen.clone() };
        let mut updater = Updater::new(watched, &state.pinned)
            .map_err(|error| Fault::new(Code::StateUnreadable, format!("the pinned root of `{}`: {error}", self.remote.name)))?
            .with_config(tuf::config())
            .with_store(session.clone());
        let refreshed = timeout_at(end, updater.refresh(self.now())).await;
        let good = matches!(refreshed, Ok(Ok(()))).then(|| updater.trusted().root().version);
        if state.absorb(&session, good) {
            let _lock = locks::acquire_briefly(&self.lock, "using the same remote").await?;
            let now = load_state(&self.folder, &self.remote.name).await?;
            match now == before {
                true => state.save()?,
                false if now == state => {}
                false => return Ok(false),
            }
        }
        match refreshed {
            Ok(refreshed) => refreshed.map_err(|error| tuf::fault(error, &self.remote.name, &self.seen, updater.trusted()))?,
            Err(_) => return Err(self.too_slow()),
        }
        self.updater = Some(updater);
        Ok(true)
    }

    fn too_slow(&self) -> Fault {
        let (remote, seconds) = (&self.remote.name, limits::REFRESH_MS / 1000);
        Fault::new(Code::RepositoryUnreachable, format!("remote `{remote}`: its metadata was not here whole after {seconds} s"))
            .hint("what is installed goes on working; try again, and tell the repository's maintainer if it remains so slow")
    }

    fn trusted(&self) -> Result<&TrustedMetadataSet, Fault> {
        self.updater.as_ref().map(Updater::trusted).ok_or_else(|| Fault::new(Code::Internal, "the repository was not refreshed"))
    }

    /// Loads the role of this publisher and verifies it as its delegation says.
    async fn load(&mut self, publisher: &str) -> Result<Role, Fault> {
        if self.updater.is_none() {
            self.refresh().await?;
        }
        let now = self.now();
        let remote = self.remote.name.clone();
        let missing = |message: String| Fault::new(Code::NotInRepository, format!("remote `{remote}` {message}"));
        let (key_ids, listed, targets_file, snapshot_file, role_file) = {
            let trusted = self.trusted()?;
            let roles = delegated(trusted);
            let Some(role) = roles.iter().find(|role| is_of(role, publisher)) else {
                return Err(missing(format!(
                    "has no publisher `{publisher}` (it has: {})",
                    resolve::some(roles.iter().map(|role| role.name.as_str()))
                ))
                .hint("check the name; a publisher is added by the repository's maintainer"));
            };
            let pinned = trusted.snapshot().is_some_and(|snapshot| snapshot.meta.contains_key(&format!("{publisher}.json")));
            (
                role.keyids.clone(),
                pinned,
                tuf::file_of("targets", trusted),
                tuf::file_of("snapshot", trusted),
                tuf::file_of(publisher, trusted),
            )
        };
        if !listed {
            return Err(Fault::new(
                Code::MetadataInvalid,
                format!(
                    "remote `{remote}`: `{targets_file}` names the publisher `{publisher}`, but `{snapshot_file}` does not list `{publisher}.json`: \
                     nothing of that publisher can be verified"
                ),
            )
            .with("file", snapshot_file)
            .hint(hint!["a publisher that is new has nothing to offer before its first ", act::publish(), "; otherwise tell the repository's maintainer"]));
        }
        if let Some(updater) = &mut self.updater {
            // The probe is a path in the namespace that cannot exist. Looking for it loads the role, and
            // checks again that the top-level role (and not another publisher) delegates to it.
            let probed = updater.get_target_info(&resolve::probe(publisher), now).await;
            probed.map_err(|error| tuf::fault(error, &remote, &self.seen, updater.trusted()))?;
        }
        Ok(Role { remote, publisher: publisher.to_owned(), key_ids, file: role_file })
    }

    fn targets(&self, role: &Role) -> Result<&Targets, Fault> {
        self.trusted()?.targets_role(&role.publisher).ok_or_else(|| {
            Fault::new(Code::MetadataInvalid, format!("remote `{}`: `{}` was not loaded by its own delegation", role.remote, role.file))
        })
    }

    /// The newest version of a recipe in `range` that this Hob can run, as its own publisher signed it.
    ///
    /// Errors: `not_in_repository`, which lists what exists; `metadata_invalid` and `metadata_expired` naming
    /// the publisher's file; everything of [`Client::refresh`], which runs first if it has not run yet.
    pub async fn resolve(&mut self, name: &RecipeName, range: &VersionRange) -> Result<Resolved, Fault> {
        let role = self.load(name.publisher()).await?;
        resolve::newest(&role, self.targets(&role)?, name, range)
    }

    /// Whether the repository has this publisher, so that this remote may serve its names; makes no request
    /// once refreshed.
    pub async fn has_publisher(&mut self, publisher: &str) -> Result<bool, Fault> {
        if self.updater.is_none() {
            self.refresh().await?;
        }
        Ok(delegated(self.trusted()?).iter().any(|role| is_of(role, publisher)))
    }

    /// [`Client::has_publisher`] as of the last refresh; if there was none, asks now, within
    /// [`limits::METADATA_FETCH_MS`].
    pub async fn had_publisher(&mut self, publisher: &str) -> Result<bool, Fault> {
        if let Some(had) = load_state(&self.folder, &self.remote.name).await?.had_publisher(publisher) {
            return Ok(had);
        }
        match timeout(Duration::from_millis(limits::METADATA_FETCH_MS), self.has_publisher(publisher)).await {
            Ok(has) => has,
            Err(_) => Err(self.too_slow()),
        }
    }

    /// Names of the publishers; makes no request once refreshed.
    pub async fn publishers(&mut self) -> Result<Vec<String>, Fault> {
        if self.updater.is_none() {
            self.refresh().await?;
        }
        let delegations = self.trusted()?.targets_role("targets").and_then(|targets| targets.delegations.as_ref());
        Ok(delegations.map(|delegations| delegations.roles.iter().map(|role| role.name.clone()).collect()).unwrap_or_default())
    }

    /// Recipes of one publisher, or of the first [`limits::LISTED_PUBLISHERS_MAX`]; makes one request for
    /// each. A publisher that cannot be read is reported beside the others.
    pub async fn list(&mut self, publisher: Option<&str>) -> Result<Listing, Fault> {
        let all = match publisher {
            Some(publisher) => vec![publisher.to_owned()],
            None => self.publishers().await?,
        };
        let mut listing = Listing {
            recipes: Vec::new(),
            unread: Vec::new(),
            publishers_left_out: all.len().saturating_sub(limits::LISTED_PUBLISHERS_MAX),
        };
        for publisher in all.iter().take(limits::LISTED_PUBLISHERS_MAX) {
            match self.load(publisher).await {
                Ok(role) => {
                    let listed: BTreeMap<_, _> = resolve::list(&role, self.targets(&role)?);
                    listing.recipes.extend(listed.into_values());
                }
                Err(fault) => listing.unread.push((publisher.clone(), fault)),
            }
        }
        Ok(listing)
    }

    pub(super) async fn model_target(&mut self, resolved: &Resolved, sha256: Digest, bytes: u64) -> Result<String, Fault> {
        let role = self.load(&resolved.publisher).await?;
        resolve::model(&role, self.targets(&role)?, resolved, sha256, bytes)
    }
}

/// The pinned root of a remote, for people to compare.
pub fn pinned_root(home: &Home, name: &str) -> Result<Option<Digest>, Fault> {
    Ok(durable::read(&Path::new(&folder(home, name)?).join(PINNED), limits::ROOT_BYTES_MAX)?.map(|bytes| Digest::of(&bytes)))
}
