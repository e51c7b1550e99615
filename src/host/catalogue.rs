//! Which recipe a call means, and what was already made for that recipe.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use super::{HostState, entry::Entry, grants};
use crate::{
    model::{
        Blame, Code, Fault, Hint, RecipeName, RecipeRef, act, hint,
        limits::{GRANTS_LOOK_MS, SHELF_READ_TRIES},
    },
    shelf::{blocking, config::Config as File, store::lockfile::LockEntry},
};

/// Recipes in use, by their origin. An entry that is dropped here, and its pods, end with the calls that
/// still use it.
#[derive(Default)]
pub struct Catalogue {
    installed: Mutex<Installed>,
    folders: Mutex<HashMap<PathBuf, Arc<Entry>>>,
    /// Installed recipes that failed to load at the last attempt, for display. The next attempt tries again.
    damaged: Mutex<BTreeMap<RecipeName, Fault>>,
}

/// The recipes loaded from the shelf in its state at `stamp`.
#[derive(Default)]
struct Installed {
    stamp: Option<Stamp>,
    entries: HashMap<RecipeName, Arc<Entry>>,
}

/// Identifies the state of `hob.lock` (what is installed) and `hob.toml` (what is granted); another process
/// may change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    lock: Option<FileStamp>,
    config: Option<FileStamp>,
}

/// Detects both kinds of change: Hob replaces its files by rename; people write into theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn now(host: &HostState) -> Stamp {
        let of = |path: PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            let (modified, changed) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
            Some(FileStamp { inode: meta.ino(), bytes: meta.len(), modified, changed })
        };
        Stamp { lock: of(host.home.lock_file()), config: of(host.home.config_file()) }
    }
}

impl Catalogue {
    /// All recipes in use.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> = locked(&self.installed).entries.values().cloned().collect();
        entries.extend(locked(&self.folders).values().cloned());
        entries
    }

    /// The recipe behind a reference. Costs two file statuses per call if nothing changed.
    ///
    /// Errors: `recipe_not_found` (names what is installed), `shelf_altered`, `invalid_manifest`,
    /// `invalid_recipe`; `invalid_config` while `hob.toml` cannot be read, because grants are never guessed.
    pub async fn find(&self, host: &Arc<HostState>, recipe: &RecipeRef) -> Result<Arc<Entry>, Fault> {
        match recipe {
            RecipeRef::Name(name) => self.installed(host, name).await,
            RecipeRef::Folder(folder) => self.folder(host, folder.clone()).await,
            RecipeRef::Capability(word) => {
                let name = self.provider(host, word).await?;
                self.installed(host, &name).await
            }
        }
    }

    async fn installed(&self, host: &Arc<HostState>, name: &RecipeName) -> Result<Arc<Entry>, Fault> {
        let mut tries = 1;
        loop {
            let stamp = self.look(host)?;
            if let Some(entry) = locked(&self.installed).entries.get(name) {
                return Ok(entry.clone());
            }
            let pinned = host.shelf.entry(name)?;
            let (shelf, wanted) = (host.clone(), name.clone());
            let loaded = blocking(move || {
                let recipe = shelf.shelf.load(&wanted)?;
                let grants = shelf.effective(&recipe)?;
                Ok((recipe, grants))
            })
            .await;
            self.remember(name, loaded.as_ref().err());
            let (recipe, grants) = loaded?;
            // Logged at the first load, for operators; a caller cannot act on it.
            for warning in recipe.manifest().warnings() {
                tracing::info!(recipe = %name, "installed by an older Hob, and read as it was: {warning}");
            }
            let mut installed = locked(&self.installed);
            // Another call may have been faster: keep one entry, so that there is one pool.
            if let Some(entry) =
                installed.entries.get(name).filter(|entry| entry.recipe().digest() == recipe.digest() && *entry.grants() == grants)
            {
                return Ok(entry.clone());
            }
            let current = installed.stamp == Some(stamp) && pinned.sha256 == recipe.digest();
            if !current && tries < SHELF_READ_TRIES {
                // The shelf changed meanwhile: the reads may mix two states of it.
                tries += 1;
                continue;
            }
            let environment = pinned.environment.filter(|_| pinned.sha256 == recipe.digest());
            let entry = Arc::new(Entry::new(recipe, environment, grants));
            if current {
                installed.entries.insert(name.clone(), entry.clone());
            }
            return Ok(entry);
        }
    }

    /// Records whether an installed recipe can be loaded now.
    fn remember(&self, name: &RecipeName, fault: Option<&Fault>) {
        let mut damaged = locked(&self.damaged);
        match fault {
            // A lack of machine resources or a running install says nothing about the recipe.
            Some(fault) if matches!(fault.blame, Blame::Recipe | Blame::Repository) || fault.code == Code::ShelfAltered => {
                damaged.insert(name.clone(), fault.clone());
            }
            _ => drop(damaged.remove(name)),
        }
    }

    /// Installed recipes that failed to load at the last attempt, each with its fault.
    pub fn damaged(&self) -> Vec<(RecipeName, Fault)> {
        locked(&self.damaged).iter().map(|(name, fault)| (name.clone(), fault.clone())).collect()
    }

    /// The one installed recipe that provides a capability. A recipe that cannot be loaded is passed over,
    /// even if it may provide the capability; calls to that recipe get its fault.
    ///
    /// Errors: `recipe_not_found` when no recipe provides it, or several do. If no loadable recipe provides
    /// it, and a recipe that cannot be loaded says that it does: the fault of that recipe.
    pub async fn provider(&self, host: &Arc<HostState>, capability: &str) -> Result<RecipeName, Fault> {
        let (mut providers, mut passed) = (Vec::new(), Vec::new());
        for pinned in host.shelf.installed()? {
            match self.installed(host, &pinned.name).await {
                Ok(entry) if entry.recipe().manifest().capability.as_deref() == Some(capability) => providers.push(pinned.name),
                Ok(_) => {}
                Err(fault) => passed.push((pinned, fault)),
            }
        }
        for (pinned, fault) in &passed {
            tracing::warn!(recipe = %pinned.name, "passed over in the search for `{capability}`: {fault}");
        }
        let not_found = |message: String, hint: Hint| {
            let names: Vec<_> =
                passed.iter().map(|(pinned, fault)| serde_json::json!({ "recipe": pinned.name, "fault": fault.code })).collect();
            let fault = Fault::new(Code::RecipeNotFound, message).hint(hint);
            if names.is_empty() { fault } else { fault.with("damaged", names) }
        };
        match &providers[..] {
            [one] => Ok(one.clone()),
            [] => {
                let (shelf, wanted) = (host.clone(), capability.to_owned());
                let pins: Vec<_> = passed.iter().map(|(pinned, _)| pinned.clone()).collect();
                let says =
                    blocking(move || Ok(pins.iter().position(|pin| shelf.shelf.says_capability(pin).as_deref() == Some(&wanted)))).await?;
                match says {
                    Some(at) => Err(passed.swap_remove(at).1),
                    None if passed.is_empty() => Err(not_found(
                        format!("no installed recipe provides `{capability}`"),
                        hint![act::list(), " shows what is installed"],
                    )),
                    None => Err(not_found(
                        format!("no installed recipe that can be read provides `{capability}`; {} cannot be read", passed.len()),
                        hint![act::verify(), " says what is wrong with each"],
                    )),
                }
            }
            several => {
                let names: Vec<_> = several.iter().map(|name| format!("`{name}`")).collect();
                Err(not_found(
                    format!("several installed recipes provide `{capability}`: {}", names.join(", ")),
                    "name the one to call".into(),
                ))
            }
        }
    }

    /// Refreshes if one of the two files changed; returns a stamp taken before anything that is read next.
    pub(super) fn look(&self, host: &HostState) -> Result<Stamp, Fault> {
        let stamp = Stamp::now(host);
        if locked(&self.installed).stamp != Some(stamp) {
            self.refresh(host)?;
        }
        Ok(stamp)
    }

    /// Drops entries whose recipe is gone from the shelf, has another version there, or has other grants now.
    /// Unchanged entries stay, compiled and running.
    ///
    /// Errors: `invalid_config` when `hob.lock` or `hob.toml` cannot be read.
    pub fn refresh(&self, host: &HostState) -> Result<(), Fault> {
        // Take the stamp first: if a file changes in between, the next call looks again.
        let stamp = Stamp::now(host);
        let (pinned, given) = (host.shelf.installed()?, File::read(&host.home)?.grants);
        let is_allowed = |entry: &Entry| *entry.grants() == grants::of(entry.recipe(), &given);
        let is_same = |name: &RecipeName, entry: &Entry| {
            let same = |pin: &LockEntry| {
                &pin.name == name
                    && pin.sha256 == entry.recipe().digest()
                    && pin.environment == entry.environment()
                    && pin.edition == entry.recipe().manifest().edition
            };
            pinned.iter().any(same) && is_allowed(entry)
        };
        let gone: Vec<_> = {
            let mut installed = locked(&self.installed);
            installed.stamp = Some(stamp);
            installed.entries.extract_if(|name, entry| !is_same(name, entry)).collect()
        };
        locked(&self.damaged).retain(|name, _| pinned.iter().any(|pin| &pin.name == name));
        // After the stamp: a folder that is kept from now on was read under this stamp, or is seen here.
        let left: Vec<_> = locked(&self.folders).extract_if(|_, entry| !is_allowed(entry)).collect();
        drop((gone, left));
        Ok(())
    }

    /// Reads a folder again for every call, because its author is editing it.
    async fn folder(&self, host: &Arc<HostState>, folder: PathBuf) -> Result<Arc<Entry>, Fault> {
        let stamp = self.look(host)?;
        let shelf = host.clone();
        let (recipe, grants) = blocking(move || {
            let recipe = shelf.shelf.load_folder(&folder)?;
            let grants = shelf.effective(&recipe)?;
            Ok((recipe, grants))
        })
        .await?;
        let mut folders = locked(&self.folders);
        match folders.get(recipe.folder()) {
            Some(known) if known.recipe().digest() == recipe.digest() && *known.grants() == grants => Ok(known.clone()),
            _ => {
                let entry = Arc::new(Entry::new(recipe, None, grants));
                // If the stamp differs, the grants may be from an older `hob.toml`, and nobody would look
                // again: such an entry serves this call alone.
                if locked(&self.installed).stamp == Some(stamp) {
                    folders.insert(entry.recipe().folder().to_owned(), entry.clone());
                }
                Ok(entry)
            }
        }
    }

    fn is_empty(&self) -> bool {
        locked(&self.installed).entries.is_empty() && locked(&self.folders).is_empty()
    }
}

/// Looks at intervals for as long as the host exists: a pod whose recipe lost a permission ends even if
/// nobody calls the recipe.
pub async fn watch(host: Weak<HostState>) {
    let mut refused = None;
    loop {
        tokio::time::sleep(Duration::from_millis(GRANTS_LOOK_MS)).await;
        let Some(host) = host.upgrade() else { return };
        if host.catalogue.is_empty() {
            continue;
        }
        let stamp = Stamp::now(&host);
        if refused == Some(stamp) {
            continue;
        }
        if let Err(fault) = host.catalogue.look(&host) {
            // Calls fail with the same fault until the file can be read again.
            tracing::warn!("what recipes may do is not known: {fault}");
            refused = Some(stamp);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
