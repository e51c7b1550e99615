//! Bounds of the command line: what a person is asked and shown, and how often.

/// Longest answer to a question on a terminal, in bytes: a terminal delivers no longer line.
pub const ANSWER_BYTES_MAX: u64 = 4_096;

/// Characters of a pod's progress report that the command line shows.
pub const REPORT_CHARS_MAX: usize = 200;

/// Shortest time between two such reports if each is a line of its own, in milliseconds.
pub const REPORT_LINE_MS: u64 = 1_000;

/// Between two updates of `--watch`, in milliseconds.
pub const WATCH_MS: u64 = 1_000;

/// Lines that `hob logs` shows by default.
pub const LOGS_DEFAULT_LINES: usize = 100;
