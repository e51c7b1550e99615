//! Bounds of blobs: bytes that travel beside a document.

/// Largest blob, in bytes. Blobs up to it travel in files and shared memory, so the host's own memory is no
/// bound.
pub const BLOB_BYTES_MAX: u64 = 8 << 30;

/// Blobs of one message above this size in bytes go through shared memory, if the pod can map it:
/// measurements show that a frame costs less below it.
pub const BLOB_FRAME_BYTES_MAX: usize = 256 << 10;

/// Most regions of shared memory of either kind that one pod may have.
pub const REGIONS_MAX: usize = 64;

/// Most bytes of a pod's regions for results, all together. Where a control group counts memory, they also
/// count as the pod's own.
pub const REGIONS_BYTES_MAX: u64 = 8 << 30;

/// Descriptors of the host that a region takes: its own, and one in transit to the pod.
pub const REGION_FILES: u64 = 2;

/// Most bytes that the free regions of one pod, of either kind, may keep together: reusing touched pages is
/// what makes regions fast.
pub const REGIONS_KEPT_BYTES_MAX: u64 = 512 << 20;

/// The smallest region, in bytes; regions grow in powers of two, so that a few serve all sizes.
pub const REGION_BYTES_MIN: u64 = 1 << 20;

/// Chunks of one ask that may be in transit to a caller that does not take them; beyond that the pod waits.
pub const CHUNK_CREDIT: u32 = 64;

/// A chunk counts one more for each this many bytes of its data and its blobs.
pub const CHUNK_WEIGHT_BYTES: u64 = 64 << 10;

/// A file of this size in bytes or more is lent to a pod; a smaller one is copied, which costs less and
/// leaves the pod no access to the file.
pub const LENT_BYTES_MIN: u64 = 4 << 20;

/// Largest file, in bytes, that is copied into memory if it cannot be lent.
pub const LENT_COPY_BYTES_MAX: u64 = 1 << 30;

/// How long the process that lends files may take to answer, in milliseconds: it takes a fraction of one, and
/// about fifty to start.
pub const CLERK_ANSWER_MS: u64 = 8_000;

/// Longest message to or from that process, in bytes: a path fits.
pub const CLERK_PACKET_BYTES_MAX: usize = 16 << 10;

/// Most blobs that one call, ask, chunk or answer may carry.
pub const BLOBS_MAX: usize = 16;
