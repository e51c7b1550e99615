//! Blobs out of files and readers, for apps and the command line.
//!
//! Apart from [`Blob`] itself, which does no IO.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::{Mode, OFlags};

use crate::model::{
    Blob, Code, Fault, OpenFile, Store,
    limits::{BLOB_BYTES_MAX, BLOB_FRAME_BYTES_MAX},
};

/// The bytes of a file, which are read when they are wanted: a pod is lent the file to read, and gets no way to the file itself.
///
/// Whoever shortens the file meanwhile ends the pod that reads it (`crashed`), and changes what it reads. A pipe, and whatever else is no
/// regular file, is read to its end here.
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

/// Bytes that are read to their end now: small ones into memory, others into a file without a name, so that memory stays as it is.
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

/// A file without a name in the folder for temporary files, which can be given one: what was no file is lent to pods as one.
fn spool() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let made = rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR);
    // Not every kind of disk has that.
    made.map(File::from).or_else(|_| tempfile::tempfile())
}

/// The media type that a file's name tells, as far as pods of this kind care.
pub fn media_type_of(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "flac" => "audio/flac",
        "ogg" => "audio/ogg",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "mp4" => "video/mp4",
        "txt" => "text/plain",
        "csv" => "text/csv",
        "json" => "application/json",
        "pdf" => "application/pdf",
        "arrow" => "application/vnd.apache.arrow.file",
        "arrows" => "application/vnd.apache.arrow.stream",
        "parquet" => "application/vnd.apache.parquet",
        _ => "application/octet-stream",
    }
}

fn changed(metadata: &std::fs::Metadata) -> u64 {
    (metadata.mtime() as u64).wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec() as u64)
}

/// A regular file, as large as it was when it was opened.
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
