//! Bounds of the output that pods print, apart from the lines kept in memory for each pod.

/// Lines that wait for a slow follower; beyond that the follower loses the oldest and is told how many. A
/// power of two.
pub const PRINTED_LINES_MAX: usize = 1 << 10;

/// Bytes that are read from each output of a pod before its answer is delivered: as much as a pipe holds.
pub const LOG_CATCH_UP_BYTES_MAX: usize = 64 << 10;

/// A log file of this many bytes is rotated; it replaces the previously rotated one.
pub const LOG_FILE_BYTES_MAX: u64 = 1 << 20;

/// How often a host checks whether another host has rotated a full file, before it writes on.
pub const LOG_ASIDE_TRIES: usize = 50;

/// Log files of a home, two for each recipe; beyond that the least recently written one is removed.
pub const LOG_FILES_MAX: usize = 128;

/// Bytes that one pod may write to its file at once.
pub const LOG_FILE_BURST_BYTES: u64 = 512 << 10;

/// Bytes that one pod may write each second after that: 1.4 GB a day.
pub const LOG_FILE_BYTES_PER_S: u64 = 16 << 10;

/// Lines that wait for the disk; further ones are counted and not written.
pub const LOG_FILES_QUEUE_MAX: usize = 1 << 10;

/// Lines that are written at once.
pub const LOG_BATCH_LINES_MAX: usize = 256;

/// How long the shutdown of a host waits for lines to be written, in milliseconds.
pub const LOG_CLOSE_MS: u64 = 2_000;

/// Bytes from the end of each log file that a server reads when it is asked for lines, which may be every
/// second.
pub const LOG_LOOK_BYTES_MAX: u64 = 64 << 10;

/// Bytes that `hob call` writes to standard error from lines that pods print: the rest is in `hob logs`.
pub const CALL_PRINT_BYTES_MAX: usize = 8 << 20;

/// Such lines that wait for a slow reader of standard error; further ones are counted and not shown.
pub const CALL_PRINT_LINES_MAX: usize = 1 << 10;

/// How long the end of a call waits for them, in milliseconds.
pub const CALL_PRINT_WAIT_MS: u64 = 2_000;

/// Lines of a pod's output kept for fault reports.
pub const LOG_LINES_MAX: usize = 1_000;

/// Longest kept line of a pod's output, in bytes; the rest of the line is counted, not kept.
pub const LOG_LINE_BYTES_MAX: usize = 4 << 10;

/// Crash dossiers that one home keeps; beyond that the oldest is removed.
pub const DOSSIERS_MAX: usize = 100;

/// Largest crash dossier, in bytes of JSON; above that, the first lines of its log are dropped.
pub const DOSSIER_BYTES_MAX: usize = 256 << 10;

/// Age from which nobody writes a half-written dossier any more, in milliseconds.
pub const DOSSIER_HALF_MS: u64 = 60_000;

/// Lines of a pod's output that its crash dossier keeps.
pub const DOSSIER_LINES: usize = 100;

/// Running asks that a crash dossier names if it would be too large otherwise.
pub const DOSSIER_ASKS_MAX: usize = 256;
