//! The few file operations whose order matters: replace a file whole, remove a read-only tree, hash what lies there.
//!
//! Apart, so that "temporary file, sync, rename, sync the folder" is written once and not once per caller.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::model::{Code, Digest, Fault};

/// Makes `folder` and what is above it.
pub(super) fn make_folder(folder: &Path) -> Result<(), Fault> {
    fs::create_dir_all(folder).map_err(|error| Fault::io(format!("making the folder {}", folder.display()), &error))
}

/// Puts `bytes` at `path` so that a crash leaves the old file or the new one, and the new one is on the disk on return.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    let write = || -> io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        temporary.write_all(bytes)?;
        // A temporary file is 0600; configuration is read by whoever may read the folder.
        temporary.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(|error| Fault::io(format!("writing {}", path.display()), &error))
}

/// Makes a rename in `folder` last.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The file's bytes, at most `max` of them; `None` when there is no such file.
pub(super) fn read_bounded(path: &Path, max: u64) -> Result<Option<Vec<u8>>, Fault> {
    let what = || format!("reading {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Fault::io(what(), &error)),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|error| Fault::io(what(), &error))?;
    if bytes.len() as u64 > max {
        return Err(Fault::new(Code::TooLarge, format!("{} has more than {max} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// Digest and size of the file at `path`, read to its end.
pub(super) fn digest(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
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
        assert_eq!(read_bounded(&path, 3).unwrap().unwrap(), b"two");
        assert_eq!(read_bounded(&path, 2).unwrap_err().code, Code::TooLarge);
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
