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
        durable::make_own_folder(root)?;
        if let Err(fault) = sweep(root, |_| true) {
            tracing::warn!("{}", fault.message);
        }
        Staging::below(root, kind)
    }

    /// [`Staging::swept_below`] without deleting anything there.
    pub fn below(root: &Path, kind: &str) -> Result<Staging, Fault> {
        durable::make_own_folder(root)?;
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
    durable::make_own_folder(root)?;
    let mut result = Ok(());
    for path in look::entries(root)?.into_iter().filter(|path| is_of_staging(path)) {
        // A folder that cannot be deleted must not keep the others.
        result = result.and(sweep_one(&path, &may_delete));
    }
    result
}

/// Whether the name is one that [`Staging::below`] gives: `KIND-RANDOM`, or that with `.lock`. What has
/// another name is not Hob's.
fn is_of_staging(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    name.strip_suffix(".lock")
        .unwrap_or(&name)
        .rsplit_once('-')
        .is_some_and(|(kind, random)| kind.split('-').all(is_plain) && is_plain(random))
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
        fs::create_dir(home.staging().join("env-alone")).unwrap();
        // Somebody else's.
        let theirs = home.staging().join("photos");
        fs::create_dir(&theirs).unwrap();

        let next = Staging::new(&home, "recipe").unwrap();
        assert!(living.folder().join("file").exists() && next.folder().exists());
        assert!(!crashed.exists() && !crashed.with_extension("lock").exists() && !home.staging().join("env-alone").exists());
        fs::remove_dir(&theirs).expect("it was left alone");
        drop((living, next));
        assert_eq!(fs::read_dir(home.staging()).unwrap().count(), 0);
    }

    #[test]
    fn through_a_link_nothing_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::at(root.path().join("home"));
        let theirs = root.path().join("disk");
        fs::create_dir_all(theirs.join("env-theirs")).unwrap();
        make::folder(home.staging().parent().unwrap(), make::FOLDER).unwrap();
        std::os::unix::fs::symlink(&theirs, home.staging()).unwrap();
        let fault = Staging::new(&home, "env").unwrap_err();
        assert!(fault.message.contains("there is a link") && fault.hint.is_some(), "{fault:?}");
        assert!(sweep(&home.staging(), |_| true).is_err() && theirs.join("env-theirs").exists());
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
