//! Makes Hob's own folders and files with explicit modes, independent of the umask. A umask of 000 opens
//! nothing to others, and a umask of 077 does not close files that others should read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use tempfile::{NamedTempFile, TempDir};

/// Mode of a folder or file that others may read.
pub const FOLDER: u32 = 0o755;
/// Mode of a file that others may read.
pub const FILE: u32 = 0o644;
/// Mode of a folder that its owner alone may enter.
pub const PRIVATE_FOLDER: u32 = 0o700;
/// Mode of a file that its owner alone may read.
pub const PRIVATE_FILE: u32 = 0o600;

/// Makes a folder with this mode, and the missing folders above it so that others can pass through. An
/// existing folder stays unchanged.
pub fn folder(path: &Path, mode: u32) -> io::Result<()> {
    match make_one(path, mode) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(above) = path.parent().filter(|above| *above != path && !above.as_os_str().is_empty()) else { return Err(error) };
            folder(above, FOLDER)?;
            make_one(path, mode)
        }
        other => other,
    }
}

/// [`folder`], for a folder in which Hob deletes what it finds, or whose mode it sets: what is there must be
/// a folder itself. A link could lead to anybody's files.
///
/// Errors: `NotADirectory` for a link.
pub fn own_folder(path: &Path, mode: u32) -> io::Result<()> {
    folder(path, mode)?;
    match fs::symlink_metadata(path)?.is_dir() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::NotADirectory, "there is a link, wanted a folder itself")),
    }
}

fn make_one(path: &Path, mode: u32) -> io::Result<()> {
    match new_folder(path, mode) {
        // What keeps it from being looked at is the reason then, and not that it is there.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(error),
            Err(unseen) if unseen.kind() == io::ErrorKind::NotFound => Err(error),
            Err(unseen) => Err(unseen),
        },
        other => other,
    }
}

/// Makes a folder; an existing one is an error.
pub fn new_folder(path: &Path, mode: u32) -> io::Result<()> {
    // Its owner's alone until its mode is set.
    DirBuilder::new().mode(mode & 0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Removes all permissions of others from a folder.
pub fn close(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(PRIVATE_FOLDER))
}

/// Makes a file for writing and reading back; an existing one is an error.
pub fn new_file(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE_FILE).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// Makes a file with these bytes; an existing file is an error.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    new_file(path, mode)?.write_all(bytes)
}

/// A file of a fresh name in `folder`, deleted on drop unless it is kept.
pub fn temporary(folder: &Path, prefix: &str, mode: u32) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new().prefix(prefix).tempfile_in(folder)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(file)
}

/// A file without a name on the disk of `folder`, accessible to its owner only. It is gone when it is closed,
/// for whatever reason.
pub fn unnamed(folder: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    file.set_permissions(fs::Permissions::from_mode(PRIVATE_FILE))?;
    Ok(file)
}

/// A folder of a fresh name in `folder` that its owner alone may enter, deleted on drop unless it is kept.
pub fn temporary_folder(folder: &Path, prefix: &str, random: usize) -> io::Result<TempDir> {
    let private = fs::Permissions::from_mode(PRIVATE_FOLDER);
    tempfile::Builder::new().prefix(prefix).rand_bytes(random).permissions(private).tempdir_in(folder)
}
