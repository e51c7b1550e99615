//! Bounds of the command line: what a person is asked and shown, and how often.

/// Longest answer to a question on a terminal, in bytes: what a terminal hands over as one line.
pub const ANSWER_BYTES_MAX: u64 = 4_096;

/// Characters of a pod's report of its progress that the command line shows.
pub const REPORT_CHARS_MAX: usize = 200;

/// Least time between two such reports where each is a line of its own, in milliseconds.
pub const REPORT_LINE_MS: u64 = 1_000;

/// Between two looks of `--watch`, in milliseconds.
pub const WATCH_MS: u64 = 1_000;

/// Lines that `hob logs` shows when nothing else is asked for.
pub const LOGS_DEFAULT_LINES: usize = 100;
