//! Files that survive a power cut whole: written beside their place, synced, renamed, folder synced.
//!
//! Apart, because both the trust state of a client and the files of a repository must never be seen
//! half-written.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{make, open};
use crate::model::{Code, Fault};

/// Replaces (or makes) `path` with `bytes` in one step; its folder must exist. Others may read it.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    replace_with(path, bytes, make::FILE)
}

/// As [`replace`], with the mode that the file is to have.
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

/// Makes `path` with `bytes` and this mode; a file that is already there is an error.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let made = || -> io::Result<()> {
        let mut file = make::new_file(path, mode)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    made().map_err(|error| Fault::io(format!("writing {}", path.display()), &error))
}

/// Makes a rename or a new file inside `folder` last.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    open::open_folder(folder)?.sync_all()
}

/// Writes what a file has in memory to the disk.
pub fn sync_file(path: &Path) -> io::Result<()> {
    open::open(path)?.sync_all()
}

/// All of a file of at most `max` bytes; `None` where there is none.
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

/// Makes `folder` and what is missing above it, for others to read.
pub fn make_folder(folder: &Path) -> Result<(), Fault> {
    made(folder, make::FOLDER)
}

/// As [`make_folder`], for its owner alone.
pub fn make_private_folder(folder: &Path) -> Result<(), Fault> {
    made(folder, make::PRIVATE_FOLDER)
}

fn made(folder: &Path, mode: u32) -> Result<(), Fault> {
    make::folder(folder, mode).map_err(|error| Fault::io(format!("making the folder {}", folder.display()), &error))
}
