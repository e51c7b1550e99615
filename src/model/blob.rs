//! Bytes that travel beside a document, by name.

use bytes::Bytes;

/// Named bytes with a media type. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Blob {
    /// The name by which the operation knows it, e.g. `audio`.
    pub name: String,
    /// Media type, e.g. `audio/wav`; `application/octet-stream` when nothing better is known.
    pub media_type: String,
    pub bytes: Bytes,
}
