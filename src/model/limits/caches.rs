//! Bounds of the caches that libraries in pods keep for later pods: compiled code, lists of fonts.

/// Bytes of one recipe's cache. Each of its pods has a copy in its memory; what JIT compilers keep for a
/// recipe is a few megabytes.
pub const POD_CACHE_BYTES_MAX: u64 = 64 << 20;

/// Files of one recipe's cache.
pub const POD_CACHE_FILES_MAX: usize = 4096;

/// The path of a file in a cache, in bytes.
pub const POD_CACHE_PATH_BYTES_MAX: usize = 512;

/// Bytes of what says how large a cache is.
pub const POD_CACHE_ABOUT_BYTES_MAX: u64 = 4096;

/// Bytes of what the kernel says of the processors that are read: that of the first one is a few thousand.
pub const CPUINFO_BYTES_MAX: u64 = 4 << 20;

/// Filling a cache, in milliseconds: loading the models once more, warming up, one case.
pub const POD_CACHE_FILL_MS: u64 = 300_000;

/// Caches that are kept of one recipe: of the version in use and the one before.
pub const POD_CACHES_OF_RECIPE_MAX: usize = 2;

/// Bytes of all caches of a home. The oldest go first.
pub const POD_CACHES_BYTES_MAX: u64 = 1 << 30;

/// A cache that could not be filled is tried again after this long, in milliseconds.
pub const POD_CACHE_RETRY_MS: u64 = 24 * 3600 * 1000;
