//! Writes files that survive a power cut whole: written beside their place, synced, renamed, then the folder
//! is synced.
//!
//! A client's trust state and the files of a repository must never be seen half-written.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{make, open};
use crate::model::{Code, Fault};

/// Creates or replaces `path` with `bytes` in one step; its folder must exist. Others may read the file.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    replace_with(path, bytes, make::FILE)
}

/// [`replace`] with this file mode.
pub fn replace_with(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let written = || -> io::Result<()> {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let mut file = make::temporary(folder, ".half-", mode)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    written().map_err(|error| Fault::io(format!("writing {}", path.display()), &error))
}

/// Creates `path` with `bytes` and this mode; an existing file is an error.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let made = || -> io::Result<()> {
        let mut file = make::new_file(path, mode)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    made().map_err(|error| Fault::io(format!("writing {}", path.display()), &error))
}

/// Makes a rename or a new file inside `folder` durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    open::open_folder(folder)?.sync_all()
}

/// Writes a file's cached content to the disk.
pub fn sync_file(path: &Path) -> io::Result<()> {
    open::open(path)?.sync_all()
}

/// The whole of a file of at most `max` bytes; `None` if there is no file.
///
/// Errors: `too_large`, before it is read; `io`, which says what is there, for anything but a plain file.
pub fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, Fault> {
    match open::read(path, max) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(Fault::new(Code::TooLarge, format!("{} is larger than {max} bytes", path.display())))
        }
        Err(error) => Err(Fault::io(format!("reading {}", path.display()), &error)),
    }
}

/// Makes `folder` and the missing folders above it, readable by others.
pub fn make_folder(folder: &Path) -> Result<(), Fault> {
    made(folder, make::FOLDER)
}

/// [`make_folder`] for its owner alone.
pub fn make_private_folder(folder: &Path) -> Result<(), Fault> {
    made(folder, make::PRIVATE_FOLDER)
}

/// [`make::own_folder`], readable by others.
pub fn make_own_folder(folder: &Path) -> Result<(), Fault> {
    is_made(folder, make::own_folder(folder, make::FOLDER))
}

/// [`make::own_folder`] for its owner alone.
pub fn make_own_private_folder(folder: &Path) -> Result<(), Fault> {
    is_made(folder, make::own_folder(folder, make::PRIVATE_FOLDER))
}

fn made(folder: &Path, mode: u32) -> Result<(), Fault> {
    is_made(folder, make::folder(folder, mode))
}

fn is_made(folder: &Path, made: io::Result<()>) -> Result<(), Fault> {
    made.map_err(|error| {
        let fault = Fault::io(format!("making the folder {}", folder.display()), &error);
        match error.kind() {
            io::ErrorKind::NotADirectory => fault.hint(format!("delete or move what is at {}, and Hob makes the folder", folder.display())),
            _ => fault,
        }
    })
}
