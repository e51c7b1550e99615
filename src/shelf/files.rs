//! What the shelf does with files beside replacing them: hash a large one, delete a read-only tree.
//!
//! Apart from `durable.rs`, which is about what survives a power cut.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::durable;
use crate::{
    disk::open,
    model::{Digest, Fault},
};

/// Replaces (or makes) `path` with `bytes` in one step, with the folders above it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    durable::make_folder(path.parent().unwrap_or(Path::new(".")))?;
    durable::replace(path, bytes)
}

/// Digest and size of the file at `path`, read to its end.
pub(super) fn digest(path: &Path) -> io::Result<(Digest, u64)> {
    digest_of(&mut open::open(path)?)
}

/// Digest and size of what is left of an open file.
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

/// Deletes the tree at `path`, read-only folders included; nothing there is fine.
pub(super) fn remove_tree(path: &Path) -> Result<(), Fault> {
    fn remove(path: &Path) -> io::Result<()> {
        let kind = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !kind.is_dir() {
            return fs::remove_file(path);
        }
        if kind.permissions().mode() & 0o700 != 0o700 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        for entry in fs::read_dir(path)? {
            remove(&entry?.path())?;
        }
        fs::remove_dir(path)
    }
    remove(path).map_err(|error| Fault::io(format!("deleting {}", path.display()), &error))
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
}
