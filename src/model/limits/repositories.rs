//! Bounds of repositories: fetching from them, the size of their roles, and how long these are valid.

/// How long connecting to a repository may take, in milliseconds.
pub const HTTP_CONNECT_MS: u64 = 5_000;

/// A download that brings no byte for this long has stalled, in milliseconds.
pub const HTTP_STALL_MS: u64 = 30_000;

/// How long one metadata file of a repository may take from first byte to last, in milliseconds: bounds a
/// server that drips bytes.
pub const METADATA_FETCH_MS: u64 = 30_000;

/// Largest `root`, `timestamp`, `snapshot` and `targets` files of a repository, in bytes.
pub const ROOT_BYTES_MAX: u64 = 512_000;
/// See [`ROOT_BYTES_MAX`].
pub const TIMESTAMP_BYTES_MAX: u64 = 16_384;
/// See [`ROOT_BYTES_MAX`].
pub const SNAPSHOT_BYTES_MAX: u64 = 2_000_000;
/// See [`ROOT_BYTES_MAX`].
pub const TARGETS_BYTES_MAX: u64 = 5_000_000;

/// Root rotations that one refresh follows.
pub const ROOT_ROTATIONS_MAX: u32 = 256;

/// How long one whole refresh of a repository's metadata may take, in milliseconds: a chain of roots has as
/// many files as [`ROOT_ROTATIONS_MAX`] allows.
pub const REFRESH_MS: u64 = 300_000;

/// How often a refresh starts again because another process refreshed the same remote meanwhile.
pub const REFRESH_TRIES: u32 = 4;

/// Slowest average rate allowed for a download of a bundle or a model, in bytes per second: bounds a server
/// that drips bytes.
pub const DOWNLOAD_BYTES_PER_SECOND_MIN: u64 = 4 << 10;

/// How long a download may take at that rate, in milliseconds; the rest must come faster.
pub const DOWNLOAD_SLOW_MS: u64 = 3_600_000;

/// Slowest rate allowed for the rest, in bytes per second: half a megabit.
pub const DOWNLOAD_LONG_BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// Longest fetch of one bundle or model, in milliseconds, whatever its size: one day. The fetched part of a
/// model is kept for the next try.
pub const DOWNLOAD_MAX_MS: u64 = 86_400_000;

/// Redirects that one request follows: all on one host, except for a model for which a recipe names an
/// address.
pub const REDIRECTS_MAX: usize = 4;

/// How often a file of a repository is requested while its server says that it is busy.
pub const REPOSITORY_TRIES_MAX: usize = 4;

/// Longest pause between two of these requests, whatever the server asks for, in milliseconds.
pub const REPOSITORY_PAUSE_MAX_MS: u64 = 10_000;

/// How long to wait for another process that refreshes the same remote or writes the same repository, in
/// milliseconds.
pub const REPOSITORY_LOCK_WAIT_MS: u64 = 120_000;

/// Largest saved trust state of one remote, in bytes: the longest root chain and the three roles below, as
/// JSON text.
pub const TRUST_STATE_BYTES_MAX: u64 = 320 << 20;

/// Publishers whose roles one listing of a whole remote reads.
pub const LISTED_PUBLISHERS_MAX: usize = 64;

/// Largest key file, in bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 4 << 10;

/// How long a repository's root, targets and publisher roles are valid, in days.
pub const OFFLINE_ROLE_DAYS: i64 = 365;

/// How long a repository's snapshot is valid, in days.
pub const SNAPSHOT_DAYS: i64 = 30;

/// How long a repository's timestamp is valid, in days: re-signed weekly.
pub const TIMESTAMP_DAYS: i64 = 14;

/// Days before its expiry from which an offline role is reported as due.
pub const ROLE_DUE_DAYS: i64 = 60;
