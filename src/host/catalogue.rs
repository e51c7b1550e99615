//! Which recipe a call means, and what was already made for it.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use super::{Inner, entry::Entry, grants};
use crate::{
    model::{
        Fault, RecipeName, RecipeRef,
        limits::{GRANTS_LOOK_MS, SHELF_READ_TRIES},
    },
    shelf::{blocking, config::Config as File, lockfile::LockEntry},
};

/// Recipes in use, by where they came from. What is dropped here ends with the calls that still use it, and so does its pod.
#[derive(Default)]
pub struct Catalogue {
    installed: Mutex<Installed>,
    folders: Mutex<HashMap<PathBuf, Arc<Entry>>>,
}

/// What was loaded of the shelf as it was at `stamp`.
#[derive(Default)]
struct Installed {
    stamp: Option<Stamp>,
    entries: HashMap<RecipeName, Arc<Entry>>,
}

/// What changes when somebody, perhaps another process, changes `hob.lock` (what is installed) or `hob.toml` (what it may do).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    lock: Option<FileStamp>,
    config: Option<FileStamp>,
}

/// Hob replaces its files by rename; people write into theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn now(host: &Inner) -> Stamp {
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

    /// The recipe behind a reference. Two file statuses per call when nothing changed.
    ///
    /// Errors: `recipe_not_found` (says what is installed), `shelf_altered`, `invalid_manifest`, `invalid_recipe`; `invalid_config` while
    /// `hob.toml` cannot be read: what its operator wants a recipe to have is not guessed.
    pub async fn find(&self, host: &Arc<Inner>, recipe: &RecipeRef) -> Result<Arc<Entry>, Fault> {
        match recipe {
            RecipeRef::Name(name) => self.installed(host, name).await,
            RecipeRef::Folder(folder) => self.folder(host, folder.clone()).await,
        }
    }

    async fn installed(&self, host: &Arc<Inner>, name: &RecipeName) -> Result<Arc<Entry>, Fault> {
        let mut tries = 1;
        loop {
            let stamp = self.look(host)?;
            if let Some(entry) = locked(&self.installed).entries.get(name) {
                return Ok(entry.clone());
            }
            let pinned = host.shelf.entry(name)?;
            let (shelf, wanted) = (host.clone(), name.clone());
            let (recipe, grants) = blocking(move || {
                let recipe = shelf.shelf.load(&wanted)?;
                let grants = shelf.effective(&recipe)?;
                Ok((recipe, grants))
            })
            .await?;
            let mut installed = locked(&self.installed);
            // Another call may have been faster: one entry, so that there is one pod.
            if let Some(entry) =
                installed.entries.get(name).filter(|entry| entry.recipe().digest() == recipe.digest() && *entry.grants() == grants)
            {
                return Ok(entry.clone());
            }
            let current = installed.stamp == Some(stamp) && pinned.sha256 == recipe.digest();
            if !current && tries < SHELF_READ_TRIES {
                // The shelf changed meanwhile: what was read belongs to no one state of it.
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

    /// Refreshes if one of the two files changed; gives the stamp that holds from before what is read next.
    fn look(&self, host: &Inner) -> Result<Stamp, Fault> {
        let stamp = Stamp::now(host);
        if locked(&self.installed).stamp != Some(stamp) {
            self.refresh(host)?;
        }
        Ok(stamp)
    }

    /// Lets go of what the shelf does not have any more, has in another version, or may do other things than it could. What is the same stays:
    /// compiled and running.
    ///
    /// Errors: `invalid_config` when `hob.lock` or `hob.toml` cannot be read.
    pub fn refresh(&self, host: &Inner) -> Result<(), Fault> {
        // The stamp first: should a file change in between, the next call looks again.
        let stamp = Stamp::now(host);
        let (pinned, given) = (host.shelf.installed()?, File::read(&host.home)?.grants);
        let is_allowed = |entry: &Entry| *entry.grants() == grants::of(entry.recipe(), &given);
        let is_same = |name: &RecipeName, entry: &Entry| {
            let same =
                |pin: &LockEntry| &pin.name == name && pin.sha256 == entry.recipe().digest() && pin.environment == entry.environment();
            pinned.iter().any(same) && is_allowed(entry)
        };
        let gone: Vec<_> = {
            let mut installed = locked(&self.installed);
            installed.stamp = Some(stamp);
            installed.entries.extract_if(|name, entry| !is_same(name, entry)).collect()
        };
        // After the stamp: a folder that is kept from now on was read under it, or is seen here.
        let left: Vec<_> = locked(&self.folders).extract_if(|_, entry| !is_allowed(entry)).collect();
        drop((gone, left));
        Ok(())
    }

    /// A folder is read again for every call: its author is editing it.
    async fn folder(&self, host: &Arc<Inner>, folder: PathBuf) -> Result<Arc<Entry>, Fault> {
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
                // Else what it may do was read in an older state of `hob.toml`, perhaps, and nobody would look again: it serves this call alone.
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

/// Looks every now and then, for as long as there is a host: a pod whose recipe lost a permission goes although nobody calls it.
pub async fn watch(host: Weak<Inner>) {
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
            // Calls are refused with the same words until the file reads again.
            tracing::warn!("what recipes may do is not known: {fault}");
            refused = Some(stamp);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
