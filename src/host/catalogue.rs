//! Which recipe a call means, and what was already made for it.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::{Inner, entry::Entry};
use crate::{
    model::{Fault, RecipeName, RecipeRef, limits::SHELF_READ_TRIES},
    shelf::{blocking, lockfile::LockEntry},
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

/// What changes when somebody, perhaps another process, changes `hob.lock`: it is replaced by rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn now(host: &Inner) -> Option<Stamp> {
        let meta = std::fs::metadata(host.home.lock_file()).ok()?;
        Some(Stamp { inode: meta.ino(), modified: (meta.mtime(), meta.mtime_nsec()) })
    }
}

impl Catalogue {
    /// The recipe behind a reference. One file status per call when nothing changed.
    ///
    /// Errors: `recipe_not_found` (says what is installed), `shelf_altered`, `invalid_manifest`, `invalid_recipe`.
    pub async fn find(&self, host: &Arc<Inner>, recipe: &RecipeRef) -> Result<Arc<Entry>, Fault> {
        match recipe {
            RecipeRef::Name(name) => self.installed(host, name).await,
            RecipeRef::Folder(folder) => self.folder(host, folder.clone()).await,
        }
    }

    async fn installed(&self, host: &Arc<Inner>, name: &RecipeName) -> Result<Arc<Entry>, Fault> {
        let mut tries = 1;
        loop {
            let stamp = Stamp::now(host);
            if locked(&self.installed).stamp != stamp {
                self.refresh(host)?;
            }
            if let Some(entry) = locked(&self.installed).entries.get(name) {
                return Ok(entry.clone());
            }
            let pinned = host.shelf.entry(name)?;
            let (shelf, wanted) = (host.clone(), name.clone());
            let recipe = blocking(move || shelf.shelf.load(&wanted)).await?;
            let mut installed = locked(&self.installed);
            // Another call may have been faster: one entry, so that there is one pod.
            if let Some(entry) = installed.entries.get(name).filter(|entry| entry.recipe().digest() == recipe.digest()) {
                return Ok(entry.clone());
            }
            let current = installed.stamp == stamp && pinned.sha256 == recipe.digest();
            if !current && tries < SHELF_READ_TRIES {
                // The shelf changed meanwhile: what was read belongs to no one state of it.
                tries += 1;
                continue;
            }
            let environment = pinned.environment.filter(|_| pinned.sha256 == recipe.digest());
            let entry = Arc::new(Entry::new(recipe, environment));
            if current {
                installed.entries.insert(name.clone(), entry.clone());
            }
            return Ok(entry);
        }
    }

    /// Lets go of what the shelf does not have any more, or has in another version. What is the same stays: compiled and running.
    ///
    /// Errors: `invalid_config` when `hob.lock` cannot be read.
    pub fn refresh(&self, host: &Inner) -> Result<(), Fault> {
        // The stamp first: should the file change in between, the next call looks again.
        let stamp = Stamp::now(host);
        let pinned = host.shelf.installed()?;
        let is_same = |name: &RecipeName, entry: &Entry| {
            let same =
                |pin: &LockEntry| &pin.name == name && pin.sha256 == entry.recipe().digest() && pin.environment == entry.environment();
            pinned.iter().any(same)
        };
        let gone: Vec<_> = {
            let mut installed = locked(&self.installed);
            installed.stamp = stamp;
            installed.entries.extract_if(|name, entry| !is_same(name, entry)).collect()
        };
        drop(gone);
        Ok(())
    }

    /// A folder is read again for every call: its author is editing it.
    async fn folder(&self, host: &Arc<Inner>, folder: PathBuf) -> Result<Arc<Entry>, Fault> {
        let shelf = host.clone();
        let recipe = blocking(move || shelf.shelf.load_folder(&folder)).await?;
        let mut folders = locked(&self.folders);
        match folders.get(recipe.folder()) {
            Some(known) if known.recipe().digest() == recipe.digest() => Ok(known.clone()),
            _ => {
                let entry = Arc::new(Entry::new(recipe, None));
                folders.insert(entry.recipe().folder().to_owned(), entry.clone());
                Ok(entry)
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
