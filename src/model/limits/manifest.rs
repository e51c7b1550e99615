//! Bounds of `recipe.toml`: its own size, and the most that its keys may ask for.

/// Largest `recipe.toml`, in bytes.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 10;

/// Most operations that one recipe may declare.
pub const OPERATIONS_MAX: usize = 64;

/// From spawn to `ready`, in milliseconds, unless the manifest says otherwise: covers importing torch on a
/// slow disk.
pub const POD_START_DEFAULT_MS: u64 = 60_000;

/// Longest start that a manifest may ask for, in milliseconds.
pub const POD_START_MAX_MS: u64 = 3_600_000;

/// Most pods of one recipe that a manifest may ask for.
pub const POOL_PODS_MAX: u64 = 64;

/// Most units that a manifest may let one pod run at a time.
pub const POD_CONCURRENCY_MAX: u64 = 256;

/// Most threads that a manifest may give the numeric libraries of a pod.
pub const POD_THREADS_MAX: u64 = 256;

/// Smallest memory bound that a manifest may set for a pod, in bytes: below it the interpreter itself does
/// not start.
pub const POD_MEMORY_BYTES_MIN: u64 = 16 << 20;

/// Most processes and threads that a manifest may let one pod have: by default a machine has 32,768 for all.
pub const POD_PROCESSES_MAX: u64 = 4_096;

/// Largest niceness that a manifest may set for a pod: the end of the kernel's scale.
pub const POD_NICE_MAX: u64 = 19;

/// Most modules that a manifest may preload; modules that these import are not counted.
pub const PRELOAD_MAX: usize = 32;

/// Most permissions of one kind that a recipe may ask for or have.
pub const PERMISSIONS_MAX: usize = 64;

/// Longest host name of a permission, in bytes: the maximum of DNS names.
pub const ENDPOINT_NAME_BYTES_MAX: usize = 253;

/// Most environment variables that a manifest may add.
pub const POD_VARIABLES_MAX: usize = 64;

/// How long a pod without work is kept, in milliseconds, unless the manifest says otherwise.
pub const POD_IDLE_DEFAULT_MS: u64 = 300_000;

/// Most items of one batch.
pub const BATCH_ITEMS_MAX: u64 = 1_024;

/// Longest wait for more items that a manifest may ask for, in milliseconds.
pub const BATCH_WAIT_MAX_MS: u64 = 10_000;

/// Mistakes in one TOML file that a fault names. To find each, the file may be read again, without its
/// schemas.
pub const FINDINGS_MAX: usize = 20;
