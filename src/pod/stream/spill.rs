//! Chunks of one stream on the disk: a file without a name, written at its end and read from its start.
//!
//! ```text
//!   given back | a large blob that somebody holds | given back | chunks, oldest first | the next
//!                                                              ^ read                 ^ end
//! ```
//!
//! A chunk is the sizes of its parts, its JSON, its small blobs, and its large ones, each in blocks of its
//! own. What was read is given back to the disk at once; a large blob is read from where it is, and its space
//! goes back with its last holder. Everything here blocks.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::FallocateFlags;
use tokio::sync::Semaphore;

use crate::{
    disk::{make, threads::certainly},
    model::{
        Blob, Code, Fault, Store,
        limits::{
            BLOB_FRAME_BYTES_MAX, CHUNK_KEPT_BYTES, COPY_CHUNK_BYTES, SPILL_BLOCK_BYTES, SPILL_READ_BYTES_MAX, SPILLS_AT_ONCE,
            STREAM_KEPT_BYTES_MAX, STREAM_SPILLED_BYTES_MAX, STREAMS_KEPT_BYTES_MAX, STREAMS_SPILLED_BYTES_MAX,
        },
    },
    pod::wire::messages::Payload,
};

/// The chunks that all streams of one host keep for slow callers, and their bounds.
#[derive(Debug)]
pub struct Spools {
    /// Bytes in memory.
    pub(in crate::pod) memory: AtomicU64,
    disk: AtomicU64,
    pub(in crate::pod) bounds: Bounds,
    pub(in crate::pod) at_once: Arc<Semaphore>,
}

/// Bounds in bytes: of one stream, of all; in memory, on the disk.
#[derive(Debug, Clone, Copy)]
pub(in crate::pod) struct Bounds {
    pub stream_memory: u64,
    pub memory: u64,
    pub stream_disk: u64,
    pub disk: u64,
}

impl Default for Spools {
    fn default() -> Spools {
        Spools::bounded(Bounds {
            stream_memory: STREAM_KEPT_BYTES_MAX,
            memory: STREAMS_KEPT_BYTES_MAX,
            stream_disk: STREAM_SPILLED_BYTES_MAX,
            disk: STREAMS_SPILLED_BYTES_MAX,
        })
    }
}

impl Spools {
    pub(in crate::pod) fn bounded(bounds: Bounds) -> Spools {
        Spools { memory: AtomicU64::new(0), disk: AtomicU64::new(0), bounds, at_once: Arc::new(Semaphore::new(SPILLS_AT_ONCE)) }
    }

    #[cfg(test)]
    pub(in crate::pod) fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }
}

/// Space on the disk that one stream has, counted against its own bound and the host's. Cloning shares it.
#[derive(Debug, Clone)]
pub(in crate::pod) struct Space {
    spools: Arc<Spools>,
    stream: Arc<AtomicU64>,
}

impl Space {
    pub fn new(spools: &Arc<Spools>) -> Space {
        Space { spools: spools.clone(), stream: Arc::default() }
    }

    /// Takes `bytes` bytes if that many are free; returns whether it did.
    pub fn take(&self, bytes: u64) -> bool {
        let Bounds { stream_disk, disk, .. } = self.spools.bounds;
        let takes = |count: &AtomicU64, most: u64| {
            let more = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= most);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        if !takes(&self.stream, stream_disk) {
            return false;
        }
        let is_taken = takes(&self.spools.disk, disk);
        if !is_taken {
            self.stream.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_taken
    }

    pub fn give_back(&self, bytes: u64) {
        self.stream.fetch_sub(bytes, Ordering::Relaxed);
        self.spools.disk.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The bytes that a chunk counts in memory.
pub(in crate::pod) fn memory_bytes(payload: &Payload) -> u64 {
    let blobs = payload.blobs.iter().map(|blob| blob.size().saturating_add(CHUNK_KEPT_BYTES));
    blobs.fold(payload.json.len() as u64 + CHUNK_KEPT_BYTES, u64::saturating_add)
}

/// The most bytes that a chunk takes on the disk.
pub(in crate::pod) fn disk_bytes(payload: &Payload) -> u64 {
    let texts = |blob: &Blob| (blob.name.len() + blob.media_type.len()) as u64;
    // A large blob may begin and end in the middle of a block.
    let blobs = payload.blobs.iter().map(|blob| BLOB_HEAD_BYTES + texts(blob) + 2 * SPILL_BLOCK_BYTES + blob.size());
    blobs.fold(HEAD_BYTES + payload.json.len() as u64, u64::saturating_add)
}

/// Size of the JSON, number of blobs.
const HEAD_BYTES: u64 = 16;
/// Sizes of a blob's name, media type and bytes.
const BLOB_HEAD_BYTES: u64 = 24;

fn is_large(bytes: u64) -> bool {
    bytes > BLOB_FRAME_BYTES_MAX as u64
}

/// The chunks of one stream that are on the disk.
#[derive(Debug)]
pub(in crate::pod) struct Spill {
    hidden: Arc<Hidden>,
    read: u64,
    end: u64,
    chunks: u64,
}

impl Spill {
    /// An empty spill on the disk of `folder`.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn create(folder: &Path, space: Space) -> Result<Spill, Fault> {
        let file = make::unnamed(folder).map_err(|error| failed("making a file for", &error))?;
        let hidden = Hidden { file: Some(file), space, used: AtomicU64::new(0) };
        Ok(Spill { hidden: Arc::new(hidden), read: 0, end: 0, chunks: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Adds all of these chunks, or none. `taken`: the space that was taken for them.
    ///
    /// Errors: `io`, `disk_full`.
    pub fn write(&mut self, chunks: &[Payload], taken: u64) -> Result<(), Fault> {
        self.hidden.used.fetch_add(taken, Ordering::Relaxed);
        let mut out = BufWriter::with_capacity(COPY_CHUNK_BYTES, At { file: self.hidden.file(), at: self.end });
        let written = chunks.iter().try_for_each(|chunk| put(chunk, &mut out)).and_then(|()| out.flush());
        // Without the buffer, which must not be flushed again when it is dropped.
        let (At { at: end, .. }, _) = out.into_parts();
        match written {
            Ok(()) => {
                self.hidden.forget(taken - (end - self.end));
                (self.end, self.chunks) = (end, self.chunks + chunks.len() as u64);
                Ok(())
            }
            Err(error) => {
                // Removes the part that reached the disk before the failure.
                let _ = self.hidden.file().set_len(self.end);
                self.hidden.forget(taken);
                Err(failed("writing", &error))
            }
        }
    }

    /// The oldest chunks: as many as are read at once, and at least one.
    ///
    /// Errors: `io`.
    pub fn read(&mut self) -> Result<Vec<Payload>, Fault> {
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        let mut from = BufReader::new(At { file: self.hidden.file(), at: self.read });
        let mut at = self.read;
        while self.chunks > 0 && bytes < SPILL_READ_BYTES_MAX {
            let (chunk, small_end, end) = get(&mut from, &self.hidden, at).map_err(|error| failed("reading", &error))?;
            bytes += memory_bytes(&chunk);
            chunks.push(chunk);
            if end != small_end {
                self.hidden.give_back(self.read, small_end);
                self.read = end;
                from = BufReader::new(At { file: self.hidden.file(), at: end });
            }
            (at, self.chunks) = (end, self.chunks - 1);
        }
        self.hidden.give_back(self.read, at);
        self.read = at;
        Ok(chunks)
    }
}

fn failed(what: &str, error: &io::Error) -> Fault {
    let fault = Fault::io(format!("{what} the chunks that a caller has not taken"), error);
    match fault.code {
        Code::DiskFull => {
            fault.hint("free some space, or read the stream as it comes: chunks go to the disk only while others wait for its pod")
        }
        _ => fault,
    }
}

/// A position in a file that advances as the file is read or written.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for At<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Leaves the rest of a block empty.
fn fill_block(out: &mut BufWriter<At>) -> io::Result<()> {
    out.flush()?;
    let at = &mut out.get_mut().at;
    *at = at.next_multiple_of(SPILL_BLOCK_BYTES);
    Ok(())
}

fn put(chunk: &Payload, out: &mut BufWriter<At>) -> io::Result<()> {
    let number = |number: usize| (number as u64).to_le_bytes();
    out.write_all(&number(chunk.json.len()))?;
    out.write_all(&number(chunk.blobs.len()))?;
    for blob in &chunk.blobs {
        out.write_all(&number(blob.name.len()))?;
        out.write_all(&number(blob.media_type.len()))?;
        out.write_all(&blob.size().to_le_bytes())?;
        out.write_all(blob.name.as_bytes())?;
        out.write_all(blob.media_type.as_bytes())?;
    }
    out.write_all(chunk.json.as_bytes())?;
    let (large, small): (Vec<&Blob>, Vec<&Blob>) = chunk.blobs.iter().partition(|blob| is_large(blob.size()));
    for blob in small {
        copy(blob, out)?;
    }
    for blob in large {
        fill_block(out)?;
        copy(blob, out)?;
        fill_block(out)?;
    }
    Ok(())
}

fn copy(blob: &Blob, out: &mut BufWriter<At>) -> io::Result<()> {
    match io::copy(&mut blob.reader(), out)? {
        count if count == blob.size() => Ok(()),
        count => Err(io::Error::other(format!("the blob `{}` ended after {count} of {} bytes", blob.name, blob.size()))),
    }
}

/// The chunk at `at`, the end of its part that is read into memory, and the end of all of it.
fn get(from: &mut BufReader<At>, hidden: &Arc<Hidden>, at: u64) -> io::Result<(Payload, u64, u64)> {
    let mut end = at;
    let mut bytes = |count: u64| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize];
        from.read_exact(&mut bytes)?;
        end += count;
        Ok(bytes)
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(io::Error::other);
    let head = bytes(HEAD_BYTES)?;
    let number = |bytes: &[u8], nth: usize| bytes[nth * 8..][..8].iter().rev().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let mut blobs = Vec::new();
    for _ in 0..number(&head, 1) {
        let head = bytes(BLOB_HEAD_BYTES)?;
        let (name, media_type) = (text(bytes(number(&head, 0))?)?, text(bytes(number(&head, 1))?)?);
        blobs.push((name, media_type, number(&head, 2)));
    }
    let json = text(bytes(number(&head, 0))?)?;
    let mut small = Vec::new();
    for (_, _, size) in blobs.iter().filter(|(_, _, size)| !is_large(*size)) {
        small.push(bytes(*size)?);
    }
    let (small_end, mut small) = (end, small.into_iter());
    let mut made = Vec::new();
    for (name, media_type, size) in blobs {
        if !is_large(size) {
            made.push(Blob::new(name, media_type, small.next().unwrap_or_default()));
            continue;
        }
        let at = end.next_multiple_of(SPILL_BLOCK_BYTES);
        // The space between them belongs to the section.
        let section = Section { hidden: hidden.clone(), from: end, at, bytes: size };
        end = section.end();
        made.push(Blob::stored(name, media_type, Arc::new(section)));
    }
    Ok((Payload { json, blobs: made, regions: Vec::new() }, small_end, end))
}

/// The file, and the space that it takes on the disk.
#[derive(Debug)]
struct Hidden {
    /// `None` only while it is dropped.
    file: Option<File>,
    space: Space,
    used: AtomicU64,
}

impl Hidden {
    fn file(&self) -> &File {
        self.file.as_ref().expect("open until it is dropped")
    }

    /// Gives this part of the file back to the disk. A part that cannot be given back this way is freed with
    /// the file, and counts until then.
    fn give_back(&self, from: u64, to: u64) {
        // Includes the earlier part of its first block, which was read: a large blob that is held ends with
        // its block.
        let start = from / SPILL_BLOCK_BYTES * SPILL_BLOCK_BYTES;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if from < to && rustix::fs::fallocate(self.file(), flags, start, to - start).is_ok() {
            self.forget(to - from);
        }
    }

    /// Subtracts `bytes` from the space that counts.
    fn forget(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.space.give_back(bytes);
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let (file, space, used) = (self.file.take(), self.space.clone(), *self.used.get_mut());
        drop(certainly(move || {
            // Closing a file without a name is deleting it.
            drop(file);
            space.give_back(used);
        }));
    }
}

/// A large blob, where it lies in the file.
#[derive(Debug)]
struct Section {
    hidden: Arc<Hidden>,
    /// The start of its part of the file, before its first byte.
    from: u64,
    at: u64,
    bytes: u64,
}

impl Section {
    fn end(&self) -> u64 {
        (self.at + self.bytes).next_multiple_of(SPILL_BLOCK_BYTES)
    }
}

impl Store for Section {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let left = self.bytes.saturating_sub(at).min(into.len() as u64) as usize;
        self.hidden.file().read_at(&mut into[..left], self.at + at)
    }

    fn mark(&self) -> [u64; 4] {
        [Arc::as_ptr(&self.hidden) as u64, self.at, self.bytes, 0]
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        let (hidden, from, end) = (self.hidden.clone(), self.from, self.end());
        drop(certainly(move || hidden.give_back(from, end)));
    }
}
