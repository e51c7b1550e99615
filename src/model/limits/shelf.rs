//! Bounds of the shelf and of `hob.toml`: locks, tries and file sizes.

/// How often an install fetches its models again because a removal took one away before it was installed.
pub const INSTALL_TRIES: u32 = 3;

/// What is noted when a permission is taken back, in bytes.
pub const REVOKED_MARK_BYTES_MAX: u64 = 256;

/// Waiting for another process that holds a lock of the shelf, in milliseconds.
pub const LOCK_WAIT_MS: u64 = 3_600_000;

/// How often a reader of the shelf begins again because an install changed what it was reading.
pub const SHELF_READ_TRIES: u32 = 3;

/// Largest `hob.toml` or `hob.lock`, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// One read of a local file that is copied or hashed, in bytes.
pub const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Between two looks at a lock that another process holds, in milliseconds.
pub const LOCK_POLL_MS: u64 = 20;
