//! Makes blobs from files and readers, for apps and the command line.
//!
//! These functions do IO; [`Blob`] itself does none.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, FileTypeExt, MetadataExt},
    },
    path::Path,
    sync::Arc,
};

use rustix::fs::{Mode, OFlags};

pub use crate::model::blob::media_type_of;
use crate::model::{
    Blob, Code, Fault, OpenFile, Store,
    limits::{BLOB_BYTES_MAX, BLOB_FRAME_BYTES_MAX},
};

/// A blob of a file. The bytes of a small file are read now, those of a larger one when they are wanted: a
/// pod is lent the open file for reading, and gets no way to its path.
///
/// If another process shortens the file meanwhile, a pod that reads it ends (`crashed`); if another process
/// writes to it, the pod may read the new bytes. A pipe, and anything else that is no regular file, is read
/// to its end here.
///
/// Errors: `io`, `too_large`.
pub fn from_file(name: impl Into<String>, media_type: impl Into<String>, path: &Path) -> Result<Blob, Fault> {
    let failed = |error: &io::Error| Fault::io(format!("reading {}", path.display()), error);
    let mut file = File::open(path).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return from_reader(name, media_type, &mut file);
    }
    let size = metadata.len();
    if size <= BLOB_FRAME_BYTES_MAX as u64 {
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(size).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
        return Ok(Blob::new(name, media_type, bytes));
    }
    let blob = Blob::stored(
        name,
        media_type,
        Arc::new(OnDisk { file: file.into(), size, mark: [metadata.dev(), metadata.ino(), size, changed(&metadata)] }),
    );
    blob.check()?;
    Ok(blob)
}

/// The first `bytes` bytes of a file that another process opened and handed over. They are read when they are
/// wanted, as in [`from_file`].
///
/// Errors: `usage` for a descriptor that is no regular file open for reading; `io`, also if the file has
/// fewer bytes; `too_large`.
pub fn from_open(name: impl Into<String>, media_type: impl Into<String>, file: OwnedFd, bytes: u64) -> Result<Blob, Fault> {
    let name = name.into();
    let failed = |error: io::Error| Fault::io(format!("looking at the file of the blob `{name}`"), &error);
    let flags = rustix::fs::fcntl_getfl(&file).map_err(|error| failed(error.into()))?;
    let file = File::from(file);
    let metadata = file.metadata().map_err(failed)?;
    let kind = metadata.file_type();
    let found = match flags & OFlags::ACCMODE {
        _ if kind.is_dir() => Some("a folder"),
        _ if kind.is_fifo() => Some("a pipe"),
        _ if kind.is_socket() => Some("a socket"),
        _ if kind.is_symlink() => Some("a link"),
        _ if !kind.is_file() => Some("a device or what the kernel has instead of a file"),
        _ if flags.contains(OFlags::PATH) => Some("open as a place alone (`O_PATH`)"),
        OFlags::RDONLY | OFlags::RDWR => None,
        _ => Some("not open to be read"),
    };
    if let Some(found) = found {
        let text = format!("what was handed over for the blob `{name}` is {found}; wanted a plain file that is open to be read");
        return Err(Fault::new(Code::Usage, text).hint("read what is no file to its end, and hand over a file with its bytes"));
    }
    if metadata.len() < bytes {
        let text = format!("the file of the blob `{name}` has {} bytes; {bytes} were announced: it was cut meanwhile", metadata.len());
        return Err(Fault::new(Code::Io, text).hint("call again, and leave the file as it is until the answer is there"));
    }
    let mark = [metadata.dev(), metadata.ino(), bytes, changed(&metadata)];
    let blob = Blob::stored(name, media_type, Arc::new(OnDisk { file: file.into(), size: bytes, mark }));
    blob.check()?;
    Ok(blob)
}

/// An open file with the bytes of a blob, to hand to another process: the blob's own file if it has one, else
/// an unnamed file into which the bytes are copied. Blocking.
///
/// Errors: `io`, `disk_full`.
pub fn to_open(blob: &Blob) -> Result<OwnedFd, Fault> {
    let what = format!("a file for the blob `{}`", blob.name);
    let failed = |error: io::Error| Fault::io(format!("making {what}"), &error);
    if let Some(file) = blob.store().and_then(|store| store.file()) {
        return Ok(file.file.try_clone().map_err(failed)?.into());
    }
    let mut file = spool().map_err(failed)?;
    blob.write_to(&mut file, &what)?;
    Ok(file.into())
}

/// A blob of a reader, read to its end now: small content into memory, larger content into an unnamed file,
/// so that memory use stays small.
///
/// Errors: `io`, `disk_full`, `too_large`.
pub fn from_reader(name: impl Into<String>, media_type: impl Into<String>, reader: &mut impl Read) -> Result<Blob, Fault> {
    let name = name.into();
    let failed = |error: &io::Error| Fault::io(format!("reading the blob `{name}`"), error);
    let mut first = Vec::new();
    reader.by_ref().take(BLOB_FRAME_BYTES_MAX as u64 + 1).read_to_end(&mut first).map_err(|error| failed(&error))?;
    if first.len() <= BLOB_FRAME_BYTES_MAX {
        return Ok(Blob::new(name, media_type, first));
    }
    let mut file = spool().map_err(|error| failed(&error))?;
    let most = BLOB_BYTES_MAX + 1 - first.len() as u64;
    let copied = io::copy(&mut (&first[..]).chain(reader.take(most)), &mut file);
    let size = copied.map_err(|error| failed(&error))?;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if size > BLOB_BYTES_MAX {
        let text = format!("the blob `{name}` has more than {BLOB_BYTES_MAX} bytes, which is the most that is carried");
        return Err(Fault::new(Code::TooLarge, text).hint("send it in parts"));
    }
    let mark = [metadata.dev(), metadata.ino(), size, changed(&metadata)];
    Ok(Blob::stored(name, media_type, Arc::new(OnDisk { file: file.into(), size, mark })))
}

/// An unnamed file in the folder for temporary files, so that content that was no file can be lent to pods as
/// one. It can be linked under a name later.
fn spool() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let made = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR);
    // Not every file system has `O_TMPFILE`.
    made.map(File::from).or_else(|_| tempfile::tempfile())
}

fn changed(metadata: &std::fs::Metadata) -> u64 {
    (metadata.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec() as u64)
}

/// A regular file, with the size that it had when it was opened.
#[derive(Debug)]
struct OnDisk {
    file: OpenFile,
    size: u64,
    mark: [u64; 4],
}

impl Store for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.file.read_at(into, at)
    }

    fn file(&self) -> Option<&OpenFile> {
        Some(&self.file)
    }

    fn mark(&self) -> [u64; 4] {
        self.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_readers_of_any_size_are_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        for size in [0, 5, BLOB_FRAME_BYTES_MAX, BLOB_FRAME_BYTES_MAX + 1, 3 << 20] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let path = folder.path().join("x.WAV");
            std::fs::write(&path, &bytes).unwrap();
            let is_large = size > BLOB_FRAME_BYTES_MAX;
            for blob in [from_file("x", media_type_of(&path), &path).unwrap(), from_reader("x", "audio/wav", &mut &bytes[..]).unwrap()] {
                assert_eq!((blob.size(), blob.store().is_some(), &*blob.media_type), (size as u64, is_large, "audio/wav"));
                assert_eq!(blob.bytes(u64::MAX).unwrap(), bytes);
            }
        }
        assert!(from_file("x", "y", &folder.path().join("none")).is_err());
        assert_eq!(from_file("x", "y", Path::new("/dev/null")).unwrap().size(), 0);
    }
}
