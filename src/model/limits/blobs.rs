//! Bounds of blobs: bytes that travel beside a document.

/// Largest blob, in bytes. What is below travels in files and shared memory, so that the host's own memory is
/// no bound.
pub const BLOB_BYTES_MAX: u64 = 8 << 30;

/// Blobs of one message above this size in bytes go through shared memory, where the pod can map it:
/// measured, a frame costs less below.
pub const BLOB_FRAME_BYTES_MAX: usize = 256 << 10;

/// Regions of shared memory that one pod may have, of either kind.
pub const REGIONS_MAX: usize = 64;

/// What a pod's regions for results may hold together, in bytes. They count as its own memory besides, where
/// a control group counts.
pub const REGIONS_BYTES_MAX: u64 = 8 << 30;

/// Descriptors of the host that a region takes: its own, and the one on its way to the pod.
pub const REGION_FILES: u64 = 2;

/// What the free regions of one pod, of either kind, may keep together, in bytes: pages that were touched
/// once are what makes them fast.
pub const REGIONS_KEPT_BYTES_MAX: u64 = 512 << 20;

/// The smallest region, in bytes; they grow in powers of two, so that a few serve all sizes.
pub const REGION_BYTES_MIN: u64 = 1 << 20;

/// Chunks of one ask that may be on their way to a caller that does not take them; then the pod waits.
pub const CHUNK_CREDIT: u32 = 64;

/// A chunk counts once more for each so many bytes of its data and its blobs.
pub const CHUNK_WEIGHT_BYTES: u64 = 64 << 10;

/// A file of this size in bytes or more is lent to a pod; a smaller one is copied, which costs less and
/// leaves nothing of it in the pod's hands.
pub const LENT_BYTES_MIN: u64 = 4 << 20;

/// Largest file that is copied into memory where it cannot be lent, in bytes.
pub const LENT_COPY_BYTES_MAX: u64 = 1 << 30;

/// The answer of the process that lends files, in milliseconds: it takes a fraction of one, a start some
/// fifty.
pub const CLERK_ANSWER_MS: u64 = 8_000;

/// Longest message to or from it, in bytes: a path fits.
pub const CLERK_PACKET_BYTES_MAX: usize = 16 << 10;

/// Most blobs that one call, ask, chunk or answer may carry.
pub const BLOBS_MAX: usize = 16;
