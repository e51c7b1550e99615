//! The view that the pod of a recipe folder has of that folder: copies of the files that would be packed, at
//! the folder's own path, and the parts of the folder that the recipe was granted.
//!
//! Running from a folder thus rehearses the installed recipe. The view holds copies because a running pod
//! continues with the files that it started with while its author edits. An edited file is another content of
//! the folder, which gets another view.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use crate::{
    disk::make,
    model::{Digest, Fault, Home, Permissions, grant::PlainPath},
    shelf::{bundle::contents::Contents, files::staging::Staging},
};

/// The folder with the copies; deleted when its last holder drops it.
#[derive(Debug)]
pub struct FolderView(Staging);

impl FolderView {
    pub fn folder(&self) -> &Path {
        self.0.folder()
    }
}

/// The views in use, by folder and content.
#[derive(Debug, Default)]
pub struct FolderViews(Mutex<HashMap<Key, Weak<FolderView>>>);

type Key = (PathBuf, Digest, Places);

/// The mount points within a view: a path within the recipe folder, and whether it is a folder (otherwise it
/// is a file).
pub type Places = BTreeMap<String, bool>;

/// The places of the recipe folder that its pods see as they lie on the disk: each path within the folder
/// that the recipe may be granted, unless it lies within another such path.
pub fn places_of(folder: &Path, asked: &Permissions) -> Places {
    let mut places = Places::new();
    // A folder comes before the paths within it.
    for path in asked.read.union(&asked.write).map(PlainPath::as_path) {
        let Some(inner) = path.strip_prefix(folder).ok().and_then(Path::to_str).filter(|inner| !inner.is_empty()) else { continue };
        let Ok(kind) = path.symlink_metadata() else { continue };
        if (kind.is_dir() || kind.is_file()) && !Path::new(inner).ancestors().any(|above| places.contains_key(&*above.to_string_lossy())) {
            places.insert(inner.to_owned(), kind.is_dir());
        }
    }
    places
}

impl FolderViews {
    /// The view of `folder` whose content has this digest, with mount points at `places`. It is made unless
    /// it exists. Blocking.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn of(
        &self,
        home: &Home,
        folder: &Path,
        digest: Digest,
        contents: &Contents,
        files: &BTreeMap<String, (Vec<u8>, bool)>,
        places: Places,
    ) -> Result<Arc<FolderView>, Fault> {
        let mut views = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        views.retain(|_, view| view.strong_count() > 0);
        let key = (folder.to_owned(), digest, places);
        if let Some(view) = views.get(&key).and_then(Weak::upgrade) {
            return Ok(view);
        }
        // A user who cannot write to the shelf, as in an image, gets a folder elsewhere.
        let staging = Staging::new(home, "folder").or_else(|_| Staging::swept_below(&home.lent_models(), "folder"))?;
        let view = FolderView(staging);
        for (path, (bytes, executable)) in files {
            write(view.folder(), path, bytes, *executable, contents.taken.get(path).map(PathBuf::as_path))
                .map_err(|error| Fault::io(format!("copying `{path}` of {}", folder.display()), &error))?;
        }
        for (inner, is_folder) in &key.2 {
            place(&view.folder().join(inner), *is_folder).map_err(|error| Fault::io(format!("making a place for `{inner}`"), &error))?;
        }
        let view = Arc::new(view);
        views.insert(key, Arc::downgrade(&view));
        Ok(view)
    }
}

/// Makes a mount point unless it exists.
fn place(path: &Path, is_folder: bool) -> io::Result<()> {
    if is_folder {
        return make::folder(path, make::FOLDER);
    }
    make::folder(path.parent().unwrap_or(path), make::FOLDER)?;
    match make::new_file(path, 0o444) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn write(folder: &Path, path: &str, bytes: &[u8], executable: bool, from: Option<&Path>) -> io::Result<()> {
    let place = folder.join(path);
    make::folder(place.parent().unwrap_or(folder), make::FOLDER)?;
    let mut file = make::new_file(&place, if executable { 0o555 } else { 0o444 })?;
    file.write_all(bytes)?;
    // Libraries recognise stale compiled code by the time of its source.
    if let Some(modified) = from.and_then(|from| from.metadata().ok()?.modified().ok()) {
        file.set_modified(modified)?;
    }
    Ok(())
}
