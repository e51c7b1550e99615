//! The objects of which a guest holds handles: blobs, blob builders, running asks.

use crate::{
    glue::{caps::limit, pods::Ask},
    model::{Blob, Fault, Manifest, limits},
};
use bytes::BytesMut;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// A blob of which the guest holds a handle.
pub struct HeldBlob {
    pub blob: Blob,
    pub(super) _counted: Option<Counted>,
}

/// A blob that the guest is writing.
pub struct Builder {
    pub media_type: String,
    pub bytes: BytesMut,
    pub(super) counted: Counted,
}

/// An ask of which the guest holds a handle; `None` once its answer came.
pub struct OpenAsk(pub Option<Box<dyn Ask>>);

/// Bytes that count against the run's bound until this is dropped.
pub struct Counted {
    pub(super) total: Arc<AtomicUsize>,
    pub(super) bytes: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Relaxed);
    }
}

impl Counted {
    pub(super) fn add(&mut self, bytes: usize, manifest: &Manifest) -> Result<(), Fault> {
        self.bytes += bytes;
        let held = self.total.fetch_add(bytes, Relaxed) + bytes;
        match held <= limits::GLUE_BLOB_BYTES_MAX {
            true => Ok(()),
            false => Err(limit(manifest, "blob bytes", held, limits::GLUE_BLOB_BYTES_MAX, "bytes held at once")),
        }
    }
}
