//! Bounds of checking a home: links on its path, the machine's lists of accounts.

/// Links on the path of a home that are followed: as many as the kernel follows.
pub const HOME_LINKS_MAX: usize = 40;

/// Bytes of `/etc/passwd` or `/etc/group` that are read. A longer file is ignored: group members stay
/// unknown.
pub const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;

/// Bytes of the text that lists an environment's files: a line of 200 bytes for each of a million files.
pub const TREE_TEXT_BYTES_MAX: u64 = 200 << 20;
