//! Bounds of residency: how long a loaded model keeps its memory, and who may evict it when.

/// Memory that a pod counts until it is measured, in bytes, if its recipe does not say: an interpreter and
/// little else.
pub const FOOTPRINT_DEFAULT_BYTES: u64 = 64 << 20;

/// Share of the machine's memory that pods may have together, in percent, unless the operator says otherwise.
pub const MEMORY_BUDGET_PERCENT: u64 = 75;

/// Share of a GPU's memory that models may have together, in percent, unless the operator says otherwise:
/// drivers keep some for themselves.
pub const GPU_BUDGET_PERCENT: u64 = 90;

/// A loaded model keeps its place for this many times as long as its loading took, while others of its class
/// want the place: so at most about a fifth of the time goes into loading.
pub const HOLD_LOADS: u32 = 4;

/// Least such time, in milliseconds.
pub const HOLD_MIN_MS: u64 = 1_000;

/// Longest such time, in milliseconds.
pub const HOLD_MAX_MS: u64 = 60_000;

/// Work that wants a place held by a higher class gets it after this many of the holder's holds: bulk keeps a
/// ninth of a device, as it does of a pod.
pub const PATIENCE_HOLDS: u32 = 8;

/// A model without work for this long may be evicted by work of its own class, in milliseconds; if half of
/// its loading time is longer, that counts.
pub const GAP_MIN_MS: u64 = 100;

/// Longest such gap, in milliseconds.
pub const GAP_MAX_MS: u64 = 2_000;

/// How long a pod may take to unload, in milliseconds, before it is ended.
pub const UNLOAD_MS: u64 = 10_000;

/// How long the memory of an unloaded model may take to come back, in milliseconds, before its pod is ended.
pub const MEMORY_BACK_MS: u64 = 2_000;

/// Between two checks whether it came back, in milliseconds.
pub const MEMORY_BACK_LOOK_MS: u64 = 20;

/// How much more an unloaded pod may hold than before it loaded, in bytes: allocators keep some.
pub const MEMORY_BACK_SLACK_BYTES: u64 = 64 << 20;

/// How much a pod may add to its measured footprint before the footprint is saved again, in bytes.
pub const FOOTPRINT_STEP_BYTES: u64 = 16 << 20;

/// Most recipes whose footprints are kept; beyond that the least recently measured one is dropped.
pub const FOOTPRINTS_MAX: usize = 1_024;

/// Largest file of footprints, in bytes.
pub const FOOTPRINTS_BYTES_MAX: u64 = 1 << 20;

/// Between two checks whether footprints changed, in milliseconds.
pub const FOOTPRINTS_SAVE_MS: u64 = 2_000;

/// Events of residency that a host remembers.
pub const RESIDENCY_EVENTS_MAX: usize = 1_024;

/// How many of these events `hob status --json` shows.
pub const RESIDENCY_EVENTS_SHOWN: usize = 64;

/// Most exclusive groups that an operator may name, and most recipes in one.
pub const EXCLUSIVE_GROUPS_MAX: usize = 64;

/// Most values of a recipe's lever.
pub const LEVER_VALUES_MAX: usize = 16;

/// How long the tool of a GPU's driver may take to answer, in milliseconds.
pub const GPU_TOOL_MS: u64 = 10_000;

/// Largest answer of that tool, in bytes.
pub const GPU_TOOL_BYTES_MAX: u64 = 256 << 10;

/// Most GPUs of a machine that are read.
pub const GPUS_MAX: usize = 64;
