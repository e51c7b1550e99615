//! Files that survive a power cut whole: written beside their place, synced, renamed, folder synced.
//!
//! Apart, because both the trust state of a client and the files of a repository must never be seen half-written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::model::{Code, Fault};

/// Replaces (or makes) `path` with `bytes` in one step; its folder must exist.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    write(path, bytes).map_err(|error| Fault::io(format!("writing {}", path.display()), &error))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".half-").permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Makes `path` with `bytes` and this mode; a file that is already there is an error.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Fault> {
    let made = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    made().map_err(|error| Fault::io(format!("writing {}", path.display()), &error))
}

/// Makes a rename or a new file inside `folder` last.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// All of a file of at most `max` bytes; `None` where there is none.
pub fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>, Fault> {
    let failed = |error: &io::Error| Fault::io(format!("reading {}", path.display()), error);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    match bytes.len() as u64 > max {
        true => Err(Fault::new(Code::TooLarge, format!("{} is larger than {max} bytes", path.display()))),
        false => Ok(Some(bytes)),
    }
}

/// Makes `folder` and what is missing above it.
pub fn make_folder(folder: &Path) -> Result<(), Fault> {
    fs::create_dir_all(folder).map_err(|error| Fault::io(format!("making the folder {}", folder.display()), &error))
}
