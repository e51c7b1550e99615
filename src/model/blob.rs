//! Bytes that travel beside a document, by name.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    fault::{Code, Fault},
    limits::{BLOB_BYTES_MAX, COPY_CHUNK_BYTES},
};

/// Named bytes with a media type. Cloning shares the bytes.
///
/// The bytes are in memory, or in a [`Store`]: a file, or memory that is shared with a pod. A store is read
/// piece by piece, so that a blob of any size passes through a host whose memory does not grow.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Blob {
    /// The name by which the operation knows it, e.g. `audio`.
    pub name: String,
    /// Media type, e.g. `audio/wav`; `application/octet-stream` when nothing better is known.
    pub media_type: String,
    data: Data,
}

#[derive(Debug, Clone)]
enum Data {
    Here(Bytes),
    There(Arc<dyn Store>),
}

/// Bytes that are not in this process's memory. The code that makes a blob of them implements this trait; the
/// model layer does no IO.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The number of bytes; it does not change.
    fn size(&self) -> u64;

    /// Reads at offset `at`, as `pread(2)` does: perhaps fewer bytes than wanted, 0 only at the end.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize>;

    /// The file that holds exactly these bytes from its first byte on, if there is one; a pod may then be
    /// able to read the file directly.
    fn file(&self) -> Option<&OpenFile> {
        None
    }

    /// Distinguishes these bytes from others without reading them.
    fn mark(&self) -> [u64; 4];
}

/// An open file that may be lent to a pod.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenFile {
    /// The file as it was opened; never given to a pod.
    pub file: File,
    /// A read-only handle of the same file, set once it was lent; descriptors for a pod are opened through
    /// it.
    pub lent: OnceLock<File>,
}

impl From<File> for OpenFile {
    fn from(file: File) -> OpenFile {
        OpenFile { file, lent: OnceLock::new() }
    }
}

impl Blob {
    /// Bytes in memory.
    pub fn new(name: impl Into<String>, media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Blob {
        Blob { name: name.into(), media_type: media_type.into(), data: Data::Here(bytes.into()) }
    }

    /// Bytes that stay in their store until they are read.
    pub fn stored(name: impl Into<String>, media_type: impl Into<String>, store: Arc<dyn Store>) -> Blob {
        Blob { name: name.into(), media_type: media_type.into(), data: Data::There(store) }
    }

    /// The same bytes under another name.
    pub fn named(self, name: impl Into<String>) -> Blob {
        Blob { name: name.into(), ..self }
    }

    /// The number of bytes.
    pub fn size(&self) -> u64 {
        match &self.data {
            Data::Here(bytes) => bytes.len() as u64,
            Data::There(store) => store.size(),
        }
    }

    /// The bytes, if they are in memory.
    pub fn in_memory(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Here(bytes) => Some(bytes),
            Data::There(_) => None,
        }
    }

    /// The store of the bytes, if they are not in memory.
    pub fn store(&self) -> Option<&Arc<dyn Store>> {
        match &self.data {
            Data::Here(_) => None,
            Data::There(store) => Some(store),
        }
    }

    /// All bytes; reads them into memory unless they are there.
    ///
    /// Errors: `too_large` above `most`; `io`.
    pub fn bytes(&self, most: u64) -> Result<Bytes, Fault> {
        if self.size() > most {
            let text = format!("the blob `{}` has {} bytes; at most {most} are taken into memory here", self.name, self.size());
            return Err(Fault::new(Code::TooLarge, text).hint("write it to a file, piece by piece"));
        }
        match &self.data {
            Data::Here(bytes) => Ok(bytes.clone()),
            Data::There(store) => {
                let mut bytes = vec![0; store.size() as usize];
                self.read_exact_at(0, &mut bytes)?;
                Ok(bytes.into())
            }
        }
    }

    /// Fills `into` with the bytes from `at` on.
    ///
    /// Errors: `io`, also if there are fewer bytes.
    pub fn read_exact_at(&self, at: u64, into: &mut [u8]) -> Result<(), Fault> {
        let mut reader = Reader { blob: self, at };
        reader.read_exact(into).map_err(|error| Fault::io(format!("reading the blob `{}` at byte {at}", self.name), &error))
    }

    /// Reads the blob from its start to its end.
    pub fn reader(&self) -> Reader<'_> {
        Reader { blob: self, at: 0 }
    }

    /// Writes the whole blob, piece by piece. `what` names the destination in faults.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn write_to(&self, into: &mut impl Write, what: &str) -> Result<(), Fault> {
        let failed = |error: &io::Error| Fault::io(format!("writing {what}"), error);
        let Data::There(store) = &self.data else {
            let Data::Here(bytes) = &self.data else { return Ok(()) };
            return into.write_all(bytes).map_err(|error| failed(&error));
        };
        let mut piece = vec![0; COPY_CHUNK_BYTES.min(store.size() as usize)];
        let mut at = 0;
        while at < store.size() {
            let wanted = (store.size() - at).min(piece.len() as u64) as usize;
            self.read_exact_at(at, &mut piece[..wanted])?;
            into.write_all(&piece[..wanted]).map_err(|error| failed(&error))?;
            at += wanted as u64;
        }
        Ok(())
    }

    /// Errors: `too_large` above the largest blob that Hob carries.
    pub fn check(&self) -> Result<(), Fault> {
        match self.size() > BLOB_BYTES_MAX {
            true => {
                let text = format!("the blob `{}` has {} bytes; at most {BLOB_BYTES_MAX} are carried", self.name, self.size());
                Err(Fault::new(Code::TooLarge, text).hint("send it in parts"))
            }
            false => Ok(()),
        }
    }
}

impl PartialEq for Blob {
    /// Does not read stored bytes to compare them: only the same store is equal.
    fn eq(&self, other: &Blob) -> bool {
        let same = match (&self.data, &other.data) {
            (Data::Here(ours), Data::Here(theirs)) => ours == theirs,
            (Data::There(ours), Data::There(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        };
        same && self.name == other.name && self.media_type == other.media_type
    }
}

/// See [`Blob::reader`].
#[derive(Debug)]
pub struct Reader<'a> {
    blob: &'a Blob,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = match &self.blob.data {
            Data::Here(bytes) => (&bytes[bytes.len().min(self.at as usize)..]).read(into)?,
            Data::There(store) => {
                let left = store.size().saturating_sub(self.at).min(into.len() as u64) as usize;
                match store.read_at(self.at, &mut into[..left])? {
                    0 if left > 0 => {
                        let text = format!("it ends at byte {} of {}", self.at, store.size());
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                    }
                    count => count,
                }
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// The media type that a file's name indicates, for the types that pods here use.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims more bytes than it has.
    #[derive(Debug)]
    struct Short;

    impl Store for Short {
        fn size(&self) -> u64 {
            10
        }
        fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
            let count = into.len().min(7usize.saturating_sub(at as usize)).min(3);
            into[..count].fill(1);
            Ok(count)
        }
        fn mark(&self) -> [u64; 4] {
            [0; 4]
        }
    }

    #[test]
    fn a_store_that_ends_early_is_an_error_and_no_shorter_blob() {
        let blob = Blob::stored("x", "y", Arc::new(Short));
        let mut seven = [0; 7];
        blob.read_exact_at(0, &mut seven).unwrap();
        assert_eq!(seven, [1; 7]);
        let fault = blob.bytes(100).unwrap_err();
        assert!(fault.code == Code::Io && fault.message.contains("ends at byte 7 of 10"), "{fault}");
        assert!(blob.write_to(&mut Vec::new(), "nowhere").is_err());
        assert_eq!(blob.bytes(9).unwrap_err().code, Code::TooLarge);
    }

    #[test]
    fn memory_reads_as_it_is() {
        let blob = Blob::new("x", "y", vec![1u8, 2, 3]);
        let mut out = Vec::new();
        blob.reader().read_to_end(&mut out).unwrap();
        assert_eq!((out, blob.size()), (vec![1, 2, 3], 3));
    }
}
