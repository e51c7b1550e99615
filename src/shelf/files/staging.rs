//! Staging folders: unfinished work in `staging/`, each folder with a lock file beside it that its maker
//! holds.
//!
//! The lock is unique to its folder. It outlives its maker while a tool still writes there: the tool inherits
//! it as standard input. A folder that is not locked is left over from a crash.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    disk::{lock, look, make, open},
    model::{Fault, Home},
};

use crate::shelf::{durable, files};

/// A private folder on the file system of the shelf; its remaining content is deleted on drop.
#[derive(Debug)]
pub(in crate::shelf) struct Staging {
    folder: PathBuf,
    lock_path: PathBuf,
    lock: File,
}

impl Staging {
    /// A fresh, empty folder whose name begins with `kind`. Leftovers of crashed makers are deleted first; a
    /// leftover that cannot be deleted causes no error.
    pub fn new(home: &Home, kind: &str) -> Result<Staging, Fault> {
        Staging::swept_below(&home.staging(), kind)
    }

    /// [`Staging::new`] below another folder.
    pub fn swept_below(root: &Path, kind: &str) -> Result<Staging, Fault> {
        durable::make_folder(root)?;
        if let Err(fault) = sweep(root, |_| true) {
            tracing::warn!("{}", fault.message);
        }
        Staging::below(root, kind)
    }

    /// [`Staging::swept_below`] without deleting anything there.
    pub fn below(root: &Path, kind: &str) -> Result<Staging, Fault> {
        durable::make_folder(root)?;
        let failed = |error: std::io::Error| Fault::io(format!("making a folder in {}", root.display()), &error);
        let prefix = format!("{kind}-");
        loop {
            // The name is random enough not to repeat while anything named after it lives; pods are named
            // after it.
            let mut builder = tempfile::Builder::new();
            let named = builder.prefix(&prefix).suffix(".lock").rand_bytes(12).tempfile_in(root).map_err(failed)?;
            let (file, lock_path) = named.keep().map_err(|error| failed(error.error))?;
            if !lock::try_exclusive_for_heirs(&file).map_err(failed)? || !still_there(&file, &lock_path) {
                // A sweeper deleted the folder before it was locked.
                continue;
            }
            let staging = Staging { folder: lock_path.with_extension(""), lock_path, lock: file };
            make::new_folder(&staging.folder, make::PRIVATE_FOLDER).map_err(failed)?;
            return Ok(staging);
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The lock, to use as a tool's standard input: while the tool lives, the folder is not swept.
    pub fn lock_for_tool(&self) -> Result<File, Fault> {
        self.lock.try_clone().map_err(|error| Fault::io("sharing a staging lock", &error))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A folder that cannot be deleted now is swept by the next maker.
        if files::remove_tree(&self.folder).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

fn still_there(lock: &File, path: &Path) -> bool {
    match (lock.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

/// Deletes each folder that no living maker holds, if `may_delete` agrees.
///
/// Errors: the first one, after everything else was tried.
pub(in crate::shelf) fn sweep(root: &Path, may_delete: impl Fn(&Path) -> bool) -> Result<(), Fault> {
    let failed = |error: std::io::Error| Fault::io(format!("reading {}", root.display()), &error);
    let mut result = Ok(());
    for entry in fs::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // A folder that cannot be deleted must not keep the others.
        result = result.and(sweep_one(&path, &may_delete));
    }
    result
}

fn sweep_one(path: &Path, may_delete: &impl Fn(&Path) -> bool) -> Result<(), Fault> {
    if path.extension().is_none_or(|extension| extension != "lock") {
        // A folder without its lock file is left over from a half-finished deletion.
        if matches!(look::is_there(path), Ok(true)) && matches!(look::is_there(&path.with_extension("lock")), Ok(false)) && may_delete(path)
        {
            files::remove_tree(path)?;
        }
        return Ok(());
    }
    let Ok(file) = open::open_there_to_write(path) else { return Ok(()) };
    let folder = path.with_extension("");
    let Ok(Some(held)) = lock::try_exclusive(file) else { return Ok(()) };
    if still_there(&held, path) && may_delete(&folder) {
        files::remove_tree(&folder)?;
        let _ = fs::remove_file(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_is_swept_and_living_work_is_not() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::at(root.path());
        let living = Staging::new(&home, "env").unwrap();
        fs::write(living.folder().join("file"), "x").unwrap();
        // What a crash leaves: a folder with its lock file, held by nobody; and a folder alone.
        let crashed = home.staging().join("env-crashed");
        fs::create_dir_all(crashed.join("inner")).unwrap();
        fs::write(crashed.with_extension("lock"), "").unwrap();
        fs::create_dir(home.staging().join("alone")).unwrap();

        let next = Staging::new(&home, "recipe").unwrap();
        assert!(living.folder().join("file").exists() && next.folder().exists());
        assert!(!crashed.exists() && !crashed.with_extension("lock").exists() && !home.staging().join("alone").exists());
        drop((living, next));
        assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
    }

    #[test]
    fn a_tool_that_outlives_its_maker_keeps_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::at(root.path());
        let staging = Staging::new(&home, "env").unwrap();
        let folder = staging.folder().to_owned();
        let lock = staging.lock_for_tool().unwrap();
        let mut tool = std::process::Command::new("sleep").arg("30").stdin(lock).spawn().unwrap();
        // As after kill -9: nothing is cleaned up, and the maker's own descriptor is gone.
        let Staging { .. } = &staging;
        let mut staging = std::mem::ManuallyDrop::new(staging);
        staging.lock = File::open("/dev/null").unwrap();
        drop(Staging::new(&home, "env").unwrap());
        assert!(folder.exists(), "swept under a living tool");
        tool.kill().unwrap();
        tool.wait().unwrap();
        drop(Staging::new(&home, "env").unwrap());
        assert!(!folder.exists());
    }
}
