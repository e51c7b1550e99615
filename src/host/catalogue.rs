//! Which recipe a call means, and what was already made for it.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::{
    Inner,
    entry::{Entry, blocking},
};
use crate::model::{Fault, RecipeName, RecipeRef};

/// Recipes in use, by where they came from.
#[derive(Default)]
pub struct Catalogue {
    installed: Mutex<HashMap<RecipeName, (Stamp, Arc<Entry>)>>,
    folders: Mutex<HashMap<PathBuf, Arc<Entry>>>,
}

/// What changes when somebody, perhaps another process, changes `hob.lock`: it is replaced by rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
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
        let stamp = std::fs::metadata(host.home.lock_file())
            .map(|meta| Stamp { inode: meta.ino(), modified: (meta.mtime(), meta.mtime_nsec()) })
            .ok();
        let known = locked(&self.installed).get(name).cloned();
        if let (Some((seen, entry)), Some(stamp)) = (&known, stamp)
            && *seen == stamp
        {
            return Ok(entry.clone());
        }
        let entry = host.shelf.entry(name)?;
        // Something else in the lock changed: what is compiled and running stays.
        let entry = match known {
            Some((_, known)) if known.recipe().digest() == entry.sha256 && known.environment() == entry.environment => known,
            _ => {
                let (shelf, name) = (host.clone(), name.clone());
                let recipe = blocking(move || shelf.shelf.load(&name)).await?;
                Arc::new(Entry::new(recipe, entry.environment))
            }
        };
        if let Some(stamp) = stamp {
            locked(&self.installed).insert(name.clone(), (stamp, entry.clone()));
        }
        Ok(entry)
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

    /// Every recipe in use.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<_> = locked(&self.installed).values().map(|(_, entry)| entry.clone()).collect();
        all.extend(locked(&self.folders).values().cloned());
        all
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
