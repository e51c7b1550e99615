//! Bounds of the shelf and of `hob.toml`: locks, tries and file sizes.

/// How often an install fetches its models again because a removal deleted one before the install finished.
pub const INSTALL_TRIES: u32 = 3;

/// Largest note of a revoked permission, in bytes.
pub const REVOKED_MARK_BYTES_MAX: u64 = 256;

/// How long to wait for another process that holds a lock of the shelf, in milliseconds.
pub const LOCK_WAIT_MS: u64 = 3_600_000;

/// How often a reader of the shelf starts again because an install changed what it was reading.
pub const SHELF_READ_TRIES: u32 = 3;

/// Largest `hob.toml` or `hob.lock`, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Bytes of one read of a local file that is copied or hashed.
pub const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Between two checks of a lock that another process holds, in milliseconds.
pub const LOCK_POLL_MS: u64 = 20;
