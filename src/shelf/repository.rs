//! The client of one signed repository: pin its root, refresh what is trusted, resolve a recipe.
//!
//! The one place that decides whom to believe. A publisher is read only when one of its recipes is wanted, and only
//! through the delegation that names it, so that one publisher's expired or hostile role touches nobody else.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use semver::VersionReq;
use sigstore_tuf::{Targets, TrustedMetadataSet, Updater};

pub use super::resolve::{Custom, Listed, Listing, ModelTarget, Resolved};
use super::{
    durable, locks,
    metadata_store::{PINNED, TrustState},
    resolve::{self, Role},
    transport::{Patience, Transport},
    tuf::{self, Seen, Watched},
};
use crate::model::{Code, Digest, Fault, Home, RecipeName, id::is_name, limits};

/// By what the first root is recognised.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The root file itself, which the operator has.
    Root(Vec<u8>),
    /// SHA-256 of the bytes of `1.root.json`, 64 hex digits.
    Fingerprint(String),
}

/// A root that was pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub url: String,
}

impl Remote {
    /// Pins the first root of a repository. What is pinned is never replaced in silence.
    ///
    /// Errors: `usage`, `repository_unreachable`, `metadata_invalid`, `fingerprint_mismatch` (also when another root is
    /// pinned under that name).
    pub async fn pin(home: &Home, name: &str, url: &str, trust: Trust) -> Result<Pinned, Fault> {
        let folder = folder(home, name)?;
        let transport = Transport::new(url, Patience::default())?;
        let root = match trust {
            Trust::Root(bytes) => bytes,
            Trust::Fingerprint(hex) => first_root(name, &transport, &hex).await?,
        };
        let trusted = TrustedMetadataSet::from_root(&root).map_err(|error| {
            Fault::new(Code::MetadataInvalid, format!("remote `{name}`: the root file is not valid: {error}"))
                .hint("ask the repository's maintainer for its `1.root.json`")
        })?;
        let fingerprint = Digest::of(&root);
        let mut pinned = Pinned { fingerprint, root_version: trusted.root().version, expires: trusted.root().expires, already: false };

        let _lock = locks::acquire_briefly(&lock_path(home, name), "using the same remote").await?;
        if folder.exists() {
            let old = TrustState::load(&folder, name)?;
            if old.pinned == root {
                pinned.already = true;
                return Ok(pinned);
            }
            return Err(Fault::new(
                Code::FingerprintMismatch,
                format!("remote `{name}` is pinned to the root with sha256 {}; wanted {fingerprint}", Digest::of(&old.pinned)),
            )
            .hint(format!("a pinned root is never replaced: if you trust the new one, `hob remote remove {name}` first")));
        }
        let parent = home.remotes();
        durable::make_folder(&parent)?;
        let failed = |error: std::io::Error| Fault::io(format!("pinning the root of remote `{name}`"), &error);
        let staging = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent).map_err(failed)?;
        durable::create(&staging.path().join(PINNED), &root, 0o444)?;
        TrustState::pinned(staging.path(), &root).save()?;
        fs::rename(staging.path(), &folder).map_err(failed)?;
        durable::sync_folder(&parent).map_err(failed)?;
        Ok(pinned)
    }

    /// Opens a pinned repository. No network is used until the first refresh.
    ///
    /// Errors: `remote_not_found` when nothing is pinned under that name, `state_unreadable`, `usage` for the address.
    pub async fn open(home: &Home, name: &str, url: &str) -> Result<Client, Fault> {
        Remote::open_with(home, name, url, Patience::default()).await
    }

    /// [`Remote::open`] with other waits.
    pub async fn open_with(home: &Home, name: &str, url: &str, patience: Patience) -> Result<Client, Fault> {
        let folder = folder(home, name)?;
        let lock = lock_path(home, name);
        {
            let _held = locks::acquire_briefly(&lock, "using the same remote").await?;
            TrustState::load(&folder, name)?;
        }
        Ok(Client {
            remote: Remote { name: name.to_owned(), url: url.to_owned() },
            transport: Arc::new(Transport::new(url, patience)?),
            folder,
            lock,
            clock: None,
            seen: Arc::default(),
            updater: None,
        })
    }

    /// Whether a root is pinned under that name.
    pub fn is_pinned(home: &Home, name: &str) -> bool {
        folder(home, name).is_ok_and(|folder| folder.exists())
    }

    /// Forgets the pinned root and all trust in that remote; its recipes on the shelf stay.
    pub async fn forget(home: &Home, name: &str) -> Result<(), Fault> {
        let folder = folder(home, name)?;
        let _lock = locks::acquire_briefly(&lock_path(home, name), "using the same remote").await?;
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::io(format!("removing {}", folder.display()), &error)),
            _ => Ok(()),
        }
    }
}

async fn first_root(name: &str, transport: &Transport, hex: &str) -> Result<Vec<u8>, Fault> {
    let wanted: Digest = hex.trim().to_ascii_lowercase().parse().map_err(|fault: Fault| {
        fault.hint("a repository's fingerprint is the SHA-256 of its `1.root.json`: ask its maintainer, who got it from `hob repo init`")
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

    /// The remote that it reads.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    fn now(&self) -> Timestamp {
        self.clock.unwrap_or_else(Timestamp::now)
    }

    /// Brings root, timestamp, snapshot and targets up to date, and saves them when all four are good.
    ///
    /// Errors: `repository_unreachable`, `metadata_expired`, `rollback`, `metadata_invalid`, `state_unreadable`; each
    /// names the file.
    pub async fn refresh(&mut self) -> Result<(), Fault> {
        self.updater = None;
        // Read, refreshed and saved under one lock: of two processes the slower must not lower the floor again.
        let _lock = locks::acquire_briefly(&self.lock, "using the same remote").await?;
        let mut state = TrustState::load(&self.folder, &self.remote.name)?;
        let session = Arc::new(state.session());
        let watched = Watched { transport: self.transport.clone(), seen: self.seen.clone() };
        let mut updater = Updater::new(watched, &state.pinned)
            .map_err(|error| Fault::new(Code::StateUnreadable, format!("the pinned root of `{}`: {error}", self.remote.name)))?
            .with_config(tuf::config())
            .with_store(session.clone());
        let refreshed = updater.refresh(self.now()).await;
        let good = refreshed.is_ok().then(|| updater.trusted().root().version);
        if state.absorb(&session, good) {
            state.save()?;
        }
        refreshed.map_err(|error| tuf::fault(error, &self.remote.name, &self.seen, updater.trusted()))?;
        self.updater = Some(updater);
        Ok(())
    }

    fn trusted(&self) -> Result<&TrustedMetadataSet, Fault> {
        self.updater.as_ref().map(Updater::trusted).ok_or_else(|| Fault::new(Code::Internal, "the repository was not refreshed"))
    }

    /// Makes sure that the role of that publisher is loaded and verified as its delegation says.
    async fn load(&mut self, publisher: &str) -> Result<Role, Fault> {
        if self.updater.is_none() {
            self.refresh().await?;
        }
        let now = self.now();
        let remote = self.remote.name.clone();
        let missing = |message: String| Fault::new(Code::NotInRepository, format!("remote `{remote}` {message}"));
        let (key_ids, listed, targets_file, snapshot_file, role_file) = {
            let trusted = self.trusted()?;
            let delegations = trusted.targets_role("targets").and_then(|targets| targets.delegations.as_ref());
            let roles = delegations.map(|delegations| delegations.roles.as_slice()).unwrap_or_default();
            let probe = resolve::probe(publisher);
            let Some(role) = roles.iter().find(|role| role.name == publisher && role.matches_path(&probe).unwrap_or(false)) else {
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
            .hint("a publisher that is new has nothing to offer before its first `hob publish`; otherwise tell the repository's maintainer"));
        }
        if let Some(updater) = &mut self.updater {
            // The probe lies in the namespace and cannot exist: looking for it loads the role, and checks again that
            // the top-level role (and not another publisher) is who delegates to it.
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
    /// Errors: `not_in_repository`, which says what there is; `metadata_invalid` and `metadata_expired` naming the
    /// publisher's file; everything of [`Client::refresh`], which runs first when it has not yet.
    pub async fn resolve(&mut self, name: &RecipeName, range: &VersionReq) -> Result<Resolved, Fault> {
        let role = self.load(name.publisher()).await?;
        resolve::newest(&role, self.targets(&role)?, name, range)
    }

    /// Names of the publishers, without a request once refreshed.
    pub async fn publishers(&mut self) -> Result<Vec<String>, Fault> {
        if self.updater.is_none() {
            self.refresh().await?;
        }
        let delegations = self.trusted()?.targets_role("targets").and_then(|targets| targets.delegations.as_ref());
        Ok(delegations.map(|delegations| delegations.roles.iter().map(|role| role.name.clone()).collect()).unwrap_or_default())
    }

    /// Recipes of one publisher, or of the first [`limits::LISTED_PUBLISHERS_MAX`]: one request for each. A publisher that
    /// cannot be read is reported beside the others.
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
