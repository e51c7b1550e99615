//! Bounds of the caches that libraries in pods keep for later pods: compiled code, lists of fonts.

/// Bytes of one recipe's cache. Each of its pods has a copy in its memory; JIT compilers keep a few megabytes
/// for a recipe.
pub const POD_CACHE_BYTES_MAX: u64 = 64 << 20;

/// Files of one recipe's cache.
pub const POD_CACHE_FILES_MAX: usize = 4096;

/// Longest path of a file in a cache, in bytes.
pub const POD_CACHE_PATH_BYTES_MAX: usize = 512;

/// Largest file that records the size of a cache, in bytes.
pub const POD_CACHE_ABOUT_BYTES_MAX: u64 = 4096;

/// Most bytes of the kernel's description of the processors that are read: that of the first processor has a
/// few thousand.
pub const CPUINFO_BYTES_MAX: u64 = 4 << 20;

/// How long filling a cache may take, in milliseconds: loading the models once more, warming up, one case.
pub const POD_CACHE_FILL_MS: u64 = 300_000;

/// Caches that are kept for one recipe: one for the version in use and one for the version before.
pub const POD_CACHES_OF_RECIPE_MAX: usize = 2;

/// Most bytes of all caches of a home. The oldest caches are removed first.
pub const POD_CACHES_BYTES_MAX: u64 = 1 << 30;

/// How long to wait before retrying to fill a cache, in milliseconds.
pub const POD_CACHE_RETRY_MS: u64 = 24 * 3600 * 1000;
