//! What the pod of a recipe folder sees of it: copies of the files that would be packed, at the folder's own path, and nothing else.
//!
//! So a folder is the rehearsal of what is installed. Copies, because a pod that lives goes on with what it began with while its
//! author edits; the file that was edited is another content of the folder, with another view.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use super::{contents::Contents, staging::Staging};
use crate::{
    disk::make,
    model::{Digest, Fault, Home},
};

/// The folder with the copies; deleted with the last who holds it.
#[derive(Debug)]
pub struct FolderView(Staging);

impl FolderView {
    pub fn folder(&self) -> &Path {
        self.0.folder()
    }
}

/// The views that are in use, by folder and content.
#[derive(Debug, Default)]
pub struct FolderViews(Mutex<HashMap<(PathBuf, Digest), Weak<FolderView>>>);

impl FolderViews {
    /// The view of `folder` whose content has that digest, made unless it is there. `has_models`: its `models/` is mounted in it. Blocking.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn of(
        &self,
        home: &Home,
        folder: &Path,
        digest: Digest,
        contents: &Contents,
        files: &BTreeMap<String, (Vec<u8>, bool)>,
        has_models: bool,
    ) -> Result<Arc<FolderView>, Fault> {
        let mut views = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        views.retain(|_, view| view.strong_count() > 0);
        let key = (folder.to_owned(), digest);
        if let Some(view) = views.get(&key).and_then(Weak::upgrade) {
            return Ok(view);
        }
        let view = FolderView(Staging::new(home, "folder")?);
        for (path, (bytes, executable)) in files {
            write(view.folder(), path, bytes, *executable, contents.taken.get(path).map(PathBuf::as_path))
                .map_err(|error| Fault::io(format!("copying `{path}` of {}", folder.display()), &error))?;
        }
        if has_models {
            make::folder(&view.folder().join("models"), make::FOLDER).map_err(|error| Fault::io("making a folder for models", &error))?;
        }
        let view = Arc::new(view);
        views.insert(key, Arc::downgrade(&view));
        Ok(view)
    }
}

fn write(folder: &Path, path: &str, bytes: &[u8], executable: bool, from: Option<&Path>) -> io::Result<()> {
    let place = folder.join(path);
    make::folder(place.parent().unwrap_or(folder), make::FOLDER)?;
    let mut file = make::new_file(&place, if executable { 0o555 } else { 0o444 })?;
    file.write_all(bytes)?;
    // What libraries compiled from a source is told from a stale one by its time.
    if let Some(modified) = from.and_then(|from| from.metadata().ok()?.modified().ok()) {
        file.set_modified(modified)?;
    }
    Ok(())
}
