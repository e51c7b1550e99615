//! The shelf's file operations: hash a large file, delete a read-only tree.

pub mod locks;
pub mod scratch;
pub mod staging;
pub mod tree;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::durable;
use crate::{
    disk::open,
    model::{Code, Digest, Fault, StandIn, act, hint, stand_in::HEAD_BYTES},
};

/// Creates or replaces `path` with `bytes` in one step; makes missing folders above it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    durable::make_folder(path.parent().unwrap_or(Path::new(".")))?;
    durable::replace(path, bytes)
}

/// Checks that a file of `bytes` bytes can be read back, if Hob reads at most `max` bytes of it.
///
/// Errors: `too_large`.
pub(super) fn can_be_read(path: &Path, bytes: usize, max: u64) -> Result<(), Fault> {
    if bytes as u64 <= max {
        return Ok(());
    }
    Err(Fault::new(Code::TooLarge, format!("{} would have {bytes} bytes; at most {max} are read", path.display())).hint(hint![
        "take away recipes that nobody uses with ",
        act::remove("RECIPE"),
        "; nothing was changed"
    ]))
}

/// Digest and size of the file at `path`, read to its end.
pub(super) fn digest(path: &Path) -> io::Result<(Digest, u64)> {
    digest_of(&mut open::open(path)?)
}

/// Digest and size of the rest of an open file.
pub(super) fn digest_of(file: &mut File) -> io::Result<(Digest, u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((Digest::finish(hasher), bytes)),
            count => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}

/// Identifies a file that is not the wanted model, if its first bytes tell.
pub fn stand_in(path: &Path) -> io::Result<Option<StandIn>> {
    let mut head = Vec::new();
    open::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(StandIn::of(&head, None))
}

/// Deletes the tree at `path`, including read-only folders; a missing tree is no error.
///
/// A stranger may have chosen the depth of the tree. So a folder that lies deeper is first moved to the top
/// of the tree: only one folder is open at a time, no path grows with the depth, and nothing recurses.
pub(super) fn remove_tree(path: &Path) -> Result<(), Fault> {
    remove(path).map_err(|error| Fault::io(format!("deleting {}", path.display()), &error))
}

fn remove(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    let mut number = 0u64;
    let mut left = folders_after_files(path)?;
    while let Some(folder) = left.pop() {
        for inner in folders_after_files(&folder)? {
            left.push(move_up(&inner, path, &mut number)?);
        }
        fs::remove_dir(&folder)?;
    }
    fs::remove_dir(path)
}

/// Deletes everything in `folder` that is no folder; returns the folders in it.
fn folders_after_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::symlink_metadata(folder)?.permissions().mode() & 0o700 != 0o700 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => folders.push(entry.path()),
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(folders)
}

/// Moves a folder to an unused name in `top`; returns the new path.
fn move_up(folder: &Path, top: &Path, number: &mut u64) -> io::Result<PathBuf> {
    // A folder must be writable for its parent to change.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    loop {
        let place = top.join(format!(".deleted-{number}"));
        *number += 1;
        match rustix::fs::renameat_with(rustix::fs::CWD, folder, rustix::fs::CWD, &place, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(place),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/hob.toml");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_eq!(digest(&path).unwrap(), (Digest::of(b"two"), 3));
    }

    #[test]
    fn a_read_only_tree_can_be_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("tree/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o555)).unwrap();
        remove_tree(&folder.path().join("tree")).unwrap();
        assert!(!folder.path().join("tree").exists());
        remove_tree(&folder.path().join("tree")).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_a_process_may_have_files_open_and_than_a_path_is_long_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (top, tower) = (folder.path().join("tree"), folder.path().join("tower"));
        // The tower is built from the inside out: no path to the innermost folder is short enough for the
        // kernel.
        fs::create_dir(&tower).unwrap();
        for _ in 0..3000 {
            let next = folder.path().join("next");
            fs::create_dir(&next).unwrap();
            fs::write(next.join("file"), "x").unwrap();
            fs::rename(&tower, next.join("inner")).unwrap();
            fs::rename(&next, &tower).unwrap();
        }
        fs::create_dir(&top).unwrap();
        fs::create_dir(top.join(".deleted-0")).unwrap();
        fs::write(top.join(".deleted-1"), "").unwrap();
        fs::rename(&tower, top.join("inner")).unwrap();
        remove_tree(&top).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
