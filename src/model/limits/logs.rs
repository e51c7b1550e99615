//! Bounds of the output that pods print, apart from the lines kept in memory for each pod.

/// Lines that wait for a follower who reads slowly; beyond that it loses the oldest, and is told how many. A
/// power of two.
pub const PRINTED_LINES_MAX: usize = 1 << 10;

/// What is read of each output of a pod before its answer is told, in bytes: as much as a pipe holds.
pub const LOG_CATCH_UP_BYTES_MAX: usize = 64 << 10;

/// A log file of this many bytes is put aside, in the place of the one that was put aside before.
pub const LOG_FILE_BYTES_MAX: u64 = 1 << 20;

/// How often a host looks whether another one has put a full file aside, before it writes on.
pub const LOG_ASIDE_TRIES: usize = 50;

/// Log files of a home, two of a recipe: beyond that the one that was written to longest ago goes.
pub const LOG_FILES_MAX: usize = 128;

/// What one pod may have written to its file at once, in bytes.
pub const LOG_FILE_BURST_BYTES: u64 = 512 << 10;

/// What it may have written each second after that, in bytes: 1.4 GB a day.
pub const LOG_FILE_BYTES_PER_S: u64 = 16 << 10;

/// Lines that wait for a disk; beyond that they are counted and not written.
pub const LOG_FILES_QUEUE_MAX: usize = 1 << 10;

/// Lines that are written at once.
pub const LOG_BATCH_LINES_MAX: usize = 256;

/// How long the end of a host waits for lines to be written, in milliseconds.
pub const LOG_CLOSE_MS: u64 = 2_000;

/// Read of each log file by a server that is asked for lines, which may be every second; in bytes, from its
/// end.
pub const LOG_LOOK_BYTES_MAX: u64 = 64 << 10;

/// What `hob call` writes to standard error of what pods print, in bytes: the rest is in `hob logs`.
pub const CALL_PRINT_BYTES_MAX: usize = 8 << 20;

/// Such lines that wait for a standard error that is read slowly; beyond that they are counted and not shown.
pub const CALL_PRINT_LINES_MAX: usize = 1 << 10;

/// How long the end of a call waits for them, in milliseconds.
pub const CALL_PRINT_WAIT_MS: u64 = 2_000;

/// Lines of a pod's output kept for fault reports.
pub const LOG_LINES_MAX: usize = 1_000;

/// Longest kept line of a pod's output, in bytes; the rest of the line is counted, not kept.
pub const LOG_LINE_BYTES_MAX: usize = 4 << 10;

/// Crash dossiers kept in one home; the oldest goes.
pub const DOSSIERS_MAX: usize = 100;

/// Largest crash dossier, in bytes of JSON; the first lines of its log go.
pub const DOSSIER_BYTES_MAX: usize = 256 << 10;

/// A half-written dossier this old has nobody who writes it, in milliseconds.
pub const DOSSIER_HALF_MS: u64 = 60_000;

/// Lines of a pod's output that its crash dossier keeps.
pub const DOSSIER_LINES: usize = 100;

/// Asks in hand that a crash dossier names when it would be too large.
pub const DOSSIER_ASKS_MAX: usize = 256;
