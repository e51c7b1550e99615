//! Bounds of the queue of a recipe's pods: its length, how classes age, batches, and `retry_after`.

/// Asks that may wait for the pods of one recipe; further ones are refused as `overloaded`.
pub const POD_QUEUE_MAX: usize = 1_024;

/// Share of that queue that bulk asks may fill, in percent: the rest stays free for interactive callers.
pub const BULK_QUEUE_PERCENT: usize = 75;

/// How long an ask of a lower class waits before its age counts, in milliseconds: until then asks of a higher
/// class never wait for it.
pub const AGE_MS: u64 = 1_000;

/// Units in a row that may pass over a class with an aged ask; the next one is that ask's. So a lower class
/// keeps a ninth of the pods.
pub const PASSED_OVER_MAX: u32 = 8;

/// Asks that do not fit into a batch (by cost) and are skipped in search of smaller ones.
pub const BATCH_MISFITS_MAX: usize = 32;

/// Share of an ask's time that it may spend waiting for others of its batch, in percent: the recipe's batch
/// wait must not cost it its deadline.
pub const BATCH_WAIT_PERCENT: u32 = 25;

/// Work that may be sent to a busy pod ahead of its turn, in microseconds: hides the round trip, and is lost
/// with the pod.
pub const AHEAD_WORK_US: u64 = 500;

/// Units that may be sent ahead, however small they are.
pub const AHEAD_UNITS_MAX: usize = 32;

/// Shortest `retry_after` of a full queue, in milliseconds.
pub const RETRY_AFTER_MIN_MS: u64 = 10;

/// Longest `retry_after` of a full queue, in milliseconds.
pub const RETRY_AFTER_MAX_MS: u64 = 60_000;

/// `retry_after` of a full queue without measurements, in milliseconds.
pub const RETRY_AFTER_UNMEASURED_MS: u64 = 1_000;
